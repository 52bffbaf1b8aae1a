"""A register as a Numba value. Only compilations import this module."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.datamodel import models, register_default


class VectorType(types.Type):
    """A register of ``count`` floats."""

    def __init__(self, dtype: types.Type, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Vector({dtype}, {count})")


@register_default(VectorType)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        element = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.count))
