"""What the tests of bad feeds, nodes and files share: every way to run a model, and that each refuses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import sigconv as sc

NODE = "the_node"


def ways(proto: onnx.ModelProto, feeds: Any) -> Iterator[Any]:
    """Every public way from a model and feeds to outputs, as functions without arguments."""
    data = proto.SerializeToString()
    yield lambda: list(sc.load(data).run(feeds).values())
    yield lambda: sc.InferenceSession(data).run(None, feeds)
    yield lambda: list(session_for(data, feeds).run(feeds).values())


def session_for(data: bytes, feeds: Any) -> Any:
    """A session for the shapes of the feeds as far as there are any."""
    arrays = feeds if isinstance(feeds, Mapping) else {}
    return sc.load(data).compile({k: v.shape for k, v in arrays.items() if isinstance(v, np.ndarray)})


def refused(proto: onnx.ModelProto, feeds: Any, message: str, error: type[Exception] = sc.SigconvError) -> None:
    for way in ways(proto, feeds):
        with pytest.raises(error, match=message):
            way()


def weights(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
