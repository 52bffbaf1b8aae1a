"""Operators that move, pick or resample elements."""

from __future__ import annotations

import math

import numpy as np

from tests.cases.random_graphs.maker import Made, Maker, kind


@kind
def _concat(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    axis = 1 if len(x.shape) > 1 and m.chance(0.6) else m.integer(0, len(x.shape) - 1)
    outer = lambda v: v.shape[:axis] + v.shape[axis + 1 :]  # noqa: E731
    fits = lambda v: len(v.shape) == len(x.shape) and outer(v) == outer(x) and v.static  # noqa: E731
    parts: list[Made] = [x]
    for _ in range(m.integer(1, 3)):
        other = m.pick(fits)
        assert other is not None
        parts.append(other)
    shape = (*x.shape[:axis], sum(p.shape[axis] for p in parts), *x.shape[axis + 1 :])
    names = [p.name for p in parts]
    if m.chance(0.2):
        size = m.integer(0, 3)
        names.append(m.floats(*x.shape[:axis], size, *x.shape[axis + 1 :]))
        shape = (*shape[:axis], shape[axis] + size, *shape[axis + 1 :])
    axis -= len(x.shape) if m.chance(0.3) else 0
    return m.add("Concat", names, shape, exact=all(p.exact for p in parts), axis=axis) is not None


@kind
def _split(m: Maker) -> bool:
    x = m.pick(lambda v: max(v.shape, default=1) > 1 and v.static)
    if x is None:
        return False
    axis = m.choice([i for i, d in enumerate(x.shape) if d > 1])
    size = x.shape[axis]
    first = 16 if size > 16 and m.chance(0.5) else m.integer(1, size - 1)
    sizes = [first, size - first]
    if sizes[1] > 1 and m.chance(0.4):
        sizes[1:] = [1, sizes[1] - 1]
    shapes = [(*x.shape[:axis], s, *x.shape[axis + 1 :]) for s in sizes]
    made = m.add_many("Split", [x.name, m.constant(np.array(sizes))], shapes, exact=x.exact, axis=axis)
    return made[0] is not None


@kind
def _slice(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    shape = list(x.shape)
    axes = [i for i in range(len(shape)) if m.chance(0.5)] or [0]
    starts, ends, steps = [], [], []
    for i in axes:
        a, b = sorted((m.integer(0, shape[i] - 1), m.integer(0, shape[i] - 1)))
        step = m.integer(1, 2)
        if m.chance(0.3):
            starts.append(b)
            ends.append(a - 1 if a else -(2**40))
            steps.append(-step)
        else:
            starts.append(a)
            ends.append(2**40 if b + 1 == shape[i] and m.chance(0.5) else b + 1)
            steps.append(step)
        shape[i] = (b - a) // step + 1
    parameters = [m.constant(np.array(v)) for v in (starts, ends, axes, steps)]
    return m.add("Slice", [x.name, *parameters], shape, exact=x.exact) is not None


@kind
def _pad(m: Maker) -> bool:
    x = m.image()
    if x is None:
        return False
    mode = m.choice(["constant", "constant", "reflect", "edge", "wrap"])
    rank = len(x.shape)
    first = 2 if m.chance(0.7) else 0
    most = [min(2, d - 1) if mode in ("reflect", "wrap") else 2 for d in x.shape]
    low = [-1 if mode == "constant" and d > 2 else 0 for d in x.shape]
    pads = [0 if i % rank < first else m.integer(low[i % rank], most[i % rank]) for i in range(2 * rank)]
    shape = [d + pads[i] + pads[rank + i] for i, d in enumerate(x.shape)]
    inputs = [x.name, m.constant(np.array(pads))]
    if mode == "constant" and m.chance(0.5):
        inputs.append(m.constant(np.array(m.choice([0, 0.5]), m.float_type)))
    y = m.add("Pad", inputs, shape, exact=x.exact, mode=mode)
    return y is not None


@kind
def _resize(m: Maker) -> bool:
    x = m.image()
    if x is None:
        return False
    if m.chance(0.6):
        scales = [1.0, 1.0, *[m.choice([1.0, 2.0, 3.0, 0.5, 1.5]) for _ in x.shape[2:]]]
        shape = [math.floor(d * s) for d, s in zip(x.shape, scales, strict=True)]
        inputs = [x.name, "", m.constant(np.array(scales, np.float32))]
    else:
        shape = [*x.shape[:2], *[m.integer(1, 2 * d) for d in x.shape[2:]]]
        inputs = [x.name, "", "", m.constant(np.array(shape))]
    mode = m.choice(["nearest", "linear", "cubic"])
    coordinates = m.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    attrs = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attrs["nearest_mode"] = m.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
    return m.add("Resize", inputs, shape, exact=x.exact and mode == "nearest", **attrs) is not None


@kind
def _transpose(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 1)
    if x is None:
        return False
    perm = [int(i) for i in m.rng.permutation(len(x.shape))]
    shape = [x.shape[i] for i in perm]
    return m.add("Transpose", [x.name], shape, exact=x.exact, static=x.static, perm=tuple(perm)) is not None


@kind
def _reshape(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    size, shape = math.prod(x.shape), []
    for _ in range(m.integer(0, 3)):
        divisors = [d for d in range(1, min(size, 40) + 1) if size % d == 0]
        shape.append(m.choice(divisors))
        size //= shape[-1]
    shape.append(size)
    given = [-1 if i == len(shape) - 1 and m.chance(0.5) else d for i, d in enumerate(shape)]
    return m.add("Reshape", [x.name, m.constant(np.array(given))], shape, exact=x.exact) is not None


@kind
def _flatten(m: Maker) -> bool:
    x = m.pick(lambda v: v.static)
    if x is None:
        return False
    axis = m.integer(0, len(x.shape))
    shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return m.add("Flatten", [x.name], shape, exact=x.exact, axis=axis) is not None


@kind
def _squeeze(m: Maker) -> bool:
    x = m.pick(lambda v: v.static and len(v.shape) < 6)
    if x is None:
        return False
    ones = [i for i, d in enumerate(x.shape) if d == 1]
    if ones and m.chance(0.5):
        axes, shape, op = ones, [d for d in x.shape if d != 1], "Squeeze"
    else:
        axes = [m.integer(0, len(x.shape))]
        shape, op = [*x.shape[: axes[0]], 1, *x.shape[axes[0] :]], "Unsqueeze"
    return m.add(op, [x.name, m.constant(np.array(axes))], shape, exact=x.exact) is not None


@kind
def _expand(m: Maker) -> bool:
    x = m.pick(lambda v: v.static and len(v.shape) < 6)
    if x is None:
        return False
    if m.chance(0.5):
        shape = [m.integer(1, 3) if d == 1 else d for d in x.shape]
        sizes = [*([m.integer(1, 2)] if m.chance(0.3) else []), *shape]
        return m.add("Expand", [x.name, m.constant(np.array(sizes, np.int64))], sizes, exact=x.exact) is not None
    if not x.shape:
        return False
    repeats = [m.integer(1, 2) for _ in x.shape]
    shape = [d * r for d, r in zip(x.shape, repeats, strict=True)]
    return m.add("Tile", [x.name, m.constant(np.array(repeats))], shape, exact=x.exact) is not None


@kind
def _gather(m: Maker) -> bool:
    x = m.pick(lambda v: len(v.shape) > 0 and v.static)
    if x is None:
        return False
    axis = m.integer(0, len(x.shape) - 1)
    d = x.shape[axis]
    shape = m.choice([(), (1,), (3,), (2, 2)])
    index = m.rng.integers(-d, d, shape)
    if shape == (3,) and m.chance(0.4):
        index = np.arange(3)[:: m.choice([1, -1])] % d
    result = (*x.shape[:axis], *shape, *x.shape[axis + 1 :])
    return m.add("Gather", [x.name, m.constant(index)], result, exact=x.exact, axis=axis) is not None


@kind
def _depth_to_space(m: Maker) -> bool:
    x = m.image(lambda v: len(v.shape) == 4)
    if x is None:
        return False
    n, c, h, w = x.shape
    if c % 4 == 0 and m.chance(0.6):
        mode = m.choice(["DCR", "CRD"])
        shape = (n, c // 4, 2 * h, 2 * w)
        return m.add("DepthToSpace", [x.name], shape, exact=x.exact, blocksize=2, mode=mode) is not None
    if h % 2 == 0 and w % 2 == 0:
        return m.add("SpaceToDepth", [x.name], (n, 4 * c, h // 2, w // 2), exact=x.exact, blocksize=2) is not None
    return False
