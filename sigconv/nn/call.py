"""Running a layer: one program for each function, parameters, shapes and dtypes, kept for the next call.

A function describes its layer as a writer ``write(net, *parameters, *operands)`` that adds nodes to a `Net`. `call`
compiles what it wrote once, for the CPU engine's kernels and by its selector, and then only runs it. The number of
threads is the one configured when a layer is compiled.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sigconv.errors import InputError, ModelError
from sigconv.runtime.kinds import is_device_array

if TYPE_CHECKING:
    from sigconv.nn.layer import Layer
    from sigconv.nn.there import DeviceLayer

KEPT_LAYERS = 512
"""Most programs that are kept."""
KEPT_BYTES = 256 << 20
"""Most memory that kept programs hold between calls; the last one is kept whatever it takes."""

_layers: OrderedDict[Any, Layer | DeviceLayer] = OrderedDict()
_lock = threading.Lock()


def clear_cache() -> None:
    """Forget every compiled layer and free its memory."""
    with _lock:
        _layers.clear()


def as_array(name: str, given: Any, like: np.dtype[Any] | None = None) -> Any:
    """An operand in native byte order. Python's own numbers become ``like``, or float64. Device arrays stay."""
    if is_device_array(given):
        return given
    try:
        array = np.asarray(given)
        if isinstance(given, (list, tuple, bool, int, float)) and array.dtype.kind in "biuf":
            array = np.asarray(given, like or np.float64)
    except (ValueError, TypeError) as e:
        raise InputError(f"{name} is no array: {e}") from e
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def call(write: Callable[..., Any], parameters: tuple[Any, ...], *operands: Any, out: np.ndarray | None = None) -> Any:
    """Run the layer that ``write`` describes on the operands (None: absent).

    Returns an array, or a tuple of them where ``write`` returns one. ``out`` takes the only one.
    """
    there = any(type(o) is not np.ndarray and is_device_array(o) for o in operands)
    key: list[Any] = [write, parameters, there]
    arrays: list[Any] = []
    for operand in operands:
        if operand is None:
            key.append(None)
            continue
        if type(operand) is not np.ndarray or not operand.dtype.isnative:
            operand = as_array("an operand", operand, arrays[0].dtype if arrays and not there else None)
        if there and isinstance(operand, np.ndarray):
            raise InputError("some operands lie on the device and some do not; nothing is copied silently")
        key += (tuple(operand.shape), operand.dtype)
        arrays.append(operand)
    signature = tuple(key)
    try:
        with _lock:
            layer = _layers.get(signature)
            if layer is not None:
                _layers.move_to_end(signature)
    except TypeError:
        return call(write, _hashable(parameters), *operands, out=out)
    if layer is None:
        layer = _compile(write, parameters, operands, arrays, there)
        _keep(signature, layer)
    return layer(arrays, out)


def _compile(
    write: Callable[..., Any], parameters: tuple[Any, ...], operands: tuple[Any, ...], arrays: list[Any], there: bool
) -> Layer | DeviceLayer:
    from sigconv.nn.net import Net

    make: type[Layer] | type[DeviceLayer]
    if there:
        from sigconv.nn.there import DeviceLayer as make
        from sigconv.runtime.device import dtype_of

        dtypes = list(map(dtype_of, arrays))
    else:
        from sigconv.nn.layer import Layer as make

        dtypes = [a.dtype for a in arrays]
    net, given = Net(), iter(zip(arrays, dtypes, strict=True))
    try:
        variables = [None if o is None else net.input(tuple((a := next(given))[0].shape), a[1]) for o in operands]
        written = write(net, *parameters, *variables)
        results = written if isinstance(written, tuple) else (written,)
        return make(net.graph(results), dtypes, isinstance(written, tuple))
    except InputError:
        raise
    except (ModelError, TypeError, ValueError, OverflowError) as e:
        name = write.__name__.removeprefix("_").removeprefix("write_")
        raise InputError(f"{name} with parameters {parameters}: {e}") from e


def _keep(signature: Any, layer: Layer | DeviceLayer) -> None:
    with _lock:
        _layers[signature] = layer
        held = sum(kept.nbytes for kept in _layers.values())
        while len(_layers) > 1 and (len(_layers) > KEPT_LAYERS or held > KEPT_BYTES):
            held -= _layers.popitem(last=False)[1].nbytes


def _hashable(parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parameters with tuples for lists and arrays; InputError where one can be no key even so."""

    def frozen(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value

    result = frozen(parameters)
    try:
        hash(result)
    except TypeError:
        raise InputError(f"one of the parameters {parameters} is neither a number, a string nor a sequence") from None
    return result
