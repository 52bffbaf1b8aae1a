"""Weights for a network: from a mapping with torchvision's names, an .npz or an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sigconv.errors import InputError
from sigconv.graph.ir import Graph
from sigconv.model import Model, load

IGNORED = ".num_batches_tracked"
"""What torch counts and inference never reads."""


def parameter_count(graph: Graph) -> int:
    """Trainable numbers: every float constant but the running statistics of batch normalisations."""
    statistics = {name for node in graph.nodes if node.op == "BatchNormalization" for name in node.inputs[3:]}
    return sum(a.size for name, a in graph.constants.items() if a.dtype.kind == "f" and name not in statistics)


def with_weights(graph: Graph, weights: Mapping[str, Any] | str | os.PathLike[str]) -> Graph:
    """The graph with every constant replaced by the weight of its name.

    ``weights`` is a mapping of name to array or torch tensor (a state dict), an ``.npz`` or an ``.onnx`` file. Raises
    InputError that lists every missing name, unexpected name (but in an ONNX file) and shape that does not fit.
    """
    given = _arrays(weights)
    if isinstance(weights, (str, os.PathLike)) and Path(weights).suffix != ".npz":
        given = {k: v for k, v in given.items() if k in graph.constants}  # exporters add sizes and axes of their own
    wanted = graph.constants
    missing = [k for k in wanted if k not in given]
    unexpected = [k for k in given if k not in wanted]
    shapes = [
        f"{k} is {given[k].shape}, {wanted[k].shape} is needed"
        for k in wanted
        if k in given and given[k].shape != wanted[k].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(found.values()):
        raise InputError("weights do not fit: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in found.items() if v))
    constants = {}
    for name, old in wanted.items():
        constants[name] = np.array(given[name], old.dtype)
        constants[name].flags.writeable = False
    return graph.replace(constants=constants)


def _arrays(weights: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, np.ndarray]:
    if isinstance(weights, (str, os.PathLike)) and Path(weights).suffix == ".npz":
        with np.load(weights, allow_pickle=False) as file:
            found: Mapping[str, Any] = dict(file)
    elif isinstance(weights, (str, os.PathLike)):
        found = load(weights).graph.constants
    else:
        found = weights
    return {
        k: np.asarray(v.detach().cpu() if hasattr(v, "detach") else v)
        for k, v in found.items()
        if not k.endswith(IGNORED)
    }


def model(graph: Graph, weights: Mapping[str, Any] | str | os.PathLike[str] | None) -> Model:
    """The graph as a model, with the weights where given."""
    return Model(graph if weights is None else with_weights(graph, weights))
