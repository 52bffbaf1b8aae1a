"""The operators. Importing this package fills `sigconv.ops.spec.REGISTRY` with every one of them."""

from __future__ import annotations

from sigconv.ops import (  # noqa: F401  (imported for what they register)
    activation,
    cast,
    contrib,
    control,
    elementwise,
    generate,
    linear,
    movement,
    nn,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    regions,
    resize,
    sampling,
    select,
    shape,
    spectral,
)
from sigconv.ops.spec import REGISTRY, Fact, OpSpec, lookup, register

__all__ = ["REGISTRY", "Fact", "OpSpec", "lookup", "register"]
