"""sigconv as an ONNX backend: what `onnx.backend.base` asks of one, so that `onnx.backend.test` runs on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

import sigconv

if TYPE_CHECKING:
    from sigconv.model import Model


class SigconvBackendRep(BackendRep):
    """A loaded model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in order, also by name, for inputs in order or by name."""
        names = [v.name for v in self.model.inputs]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            arrays = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
            if len(arrays) != len(names):
                raise sigconv.InputError(f"got {len(arrays)} inputs, the model takes {', '.join(names)}")
            feeds = dict(zip(names, arrays, strict=True))
        outputs = self.model.run(feeds)
        return namedtupledict("Outputs", list(outputs))(*outputs.values())


class SigconvBackend(Backend):
    """The classic interface; the module has its functions by the same names."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model loads: everything in it is well-formed and supported."""
        try:
            sigconv.load(model)
        except sigconv.ModelError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> SigconvBackendRep:
        """Load a model (anything `sigconv.load` takes) to be run many times."""
        if not cls.supports_device(device):
            raise sigconv.UnsupportedError(f"device {device!r} is not supported, 'CPU' is", (f"device {device}",))
        return SigconvBackendRep(sigconv.load(model))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Load a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node of opset ``opset_version`` (default: the newest) on the inputs it has, in order."""
        names = [name for name in dict.fromkeys(node.input) if name]
        given = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        arrays = {name: np.asarray(given[name]) for name in names}
        opset = helper.make_opsetid(
            node.domain, kwargs.get("opset_version", onnx.defs.onnx_opset_version() if not node.domain else 1)
        )
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
                for n, x in arrays.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        return cls.run_model(helper.make_model(graph, opset_imports=[opset]), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return Device(device).type == DeviceType.CPU


prepare = SigconvBackend.prepare
run_model = SigconvBackend.run_model
run_node = SigconvBackend.run_node
supports_device = SigconvBackend.supports_device
