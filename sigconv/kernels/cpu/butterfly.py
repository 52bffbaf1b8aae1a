"""Butterflies of Fourier transforms that stay in registers, and the loops around them, as LLVM vector code.

A transform here evaluates a polynomial modulo ``z**n - c`` at the roots of ``z**n = c``. A step of radix ``R`` cuts it
into ``R`` polynomials modulo ``z**(n / R) - s``, where ``s`` are the ``R``-th roots of ``c``: a butterfly of elements
``n / R`` apart whose factors are the same along the whole polynomial, so that lanes hold neighbouring elements, factors
are broadcast and nothing is shuffled. Polynomials of one register are finished by transposing the lanes of `GROUP`
registers. Results come in the order of the cuts and the inverse runs backwards through them: no order is restored.

Numbers lie as a register of real parts, then one of imaginary parts, and so on. Roots are given as phases in turns:
``c = exp(2j * pi * phase)``.

References
----------
D. J. Bernstein, "Multidigit multiplication for mathematicians", 2001, sections 4 to 6 (transforms as factorizations).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from sigconv.kernels.late import cgutils, intrinsic, types
from sigconv.kernels.simd import I32, I64, VECTOR_BYTES, _fma, _llvm_vector, _splat, lanes

GROUP = 4
"""Complex registers whose lanes are transposed together."""
RADICES = (2, 3, 4, 5, 8)
PHASES = {2: 1, 3: 2, 4: 3, 5: 4, 8: 8}
"""Factors of a butterfly: powers of the root from the first on; for radix 8 also the root turned by an eighth."""

Complex = tuple[Any, Any]


# --- phases, in NumPy -------------------------------------------------------------------------------------------------
def children(phase: np.ndarray, radix: int) -> np.ndarray:
    """Phases of the polynomials that one of ``phase`` is cut into, in their order, along a new last axis."""
    if radix % 2:
        return (phase[..., None] + np.arange(radix)) / radix
    order = [0]
    while len(order) < radix:  # cut in halves again and again: the order of reversed bits
        order = [2 * k for k in order] + [2 * k + 1 for k in order]
    return (phase[..., None] + np.array(order)) / radix


def factors(phase: np.ndarray, radix: int) -> np.ndarray:
    """Phases of a butterfly's factors, along a new last axis."""
    root = phase[..., None] / radix
    if radix == 8:
        return np.concatenate([root * np.arange(1, 8), root + 1 / 8], -1)
    return root * np.arange(1, radix)


def lane_stages(dtype: np.dtype[Any] | type) -> tuple[tuple[int, int], ...]:
    """(radix, elements moved together) of the butterflies that finish a register: across, then inside, 16 bytes."""
    inside = 16 // np.dtype(dtype).itemsize
    across = VECTOR_BYTES // 16
    return (*([(across, inside)] if across > 1 else []), (inside, 1))


def transposed(registers: np.ndarray, radix: int, unit: int) -> np.ndarray:
    """What `_transpose` does, for registers ``[…, GROUP, lanes]``."""
    lead = registers.shape[:-2]
    if unit > 1:
        return registers.reshape(*lead, GROUP // radix, radix, radix, unit).swapaxes(-3, -2).reshape(registers.shape)
    return registers.reshape(*lead, GROUP // radix, radix, -1, radix).swapaxes(-3, -1).reshape(registers.shape)


def lane_factors(phase: np.ndarray, dtype: np.dtype[Any] | type) -> np.ndarray:
    """Phases of the factors that finish registers whose polynomials have ``phase[…]``: ``[n, factors, lanes]``."""
    tags = np.repeat(phase.reshape(-1, GROUP, 1), lanes(dtype), -1)
    found = []
    for radix, unit in lane_stages(dtype):
        tags = transposed(tags, radix, unit)
        for first in range(0, GROUP, radix):
            root = tags[:, first] / radix
            found += [2 * root, root] if radix == 4 else [root]
            tags[:, first : first + radix] = np.moveaxis(children(tags[:, first], radix), -1, 1)
    return np.stack(found, 1)


# --- arithmetic, in LLVM ----------------------------------------------------------------------------------------------
def _constant(like: ir.Value, value: float) -> ir.Constant:
    return ir.Constant(like.type, [value] * like.type.count)


def _pair(b: ir.IRBuilder, x: Complex, y: Complex, root: Complex, turned: bool = False) -> tuple[Complex, Complex]:
    """x + root y and x - root y, 6 operations; ``turned``: with i times the root."""
    (yr, yi), (r, i) = y, root
    if turned:
        real = _fma(b, b.fneg(yr), i, _fma(b, b.fneg(yi), r, x[0]))
        imag = _fma(b, b.fneg(yi), i, _fma(b, yr, r, x[1]))
    else:
        real = _fma(b, b.fneg(yi), i, _fma(b, yr, r, x[0]))
        imag = _fma(b, yr, i, _fma(b, yi, r, x[1]))
    two = _constant(real, 2.0)
    return (real, imag), (_fma(b, x[0], two, b.fneg(real)), _fma(b, x[1], two, b.fneg(imag)))


def _add(b: ir.IRBuilder, x: Complex, y: Complex) -> Complex:
    return b.fadd(x[0], y[0]), b.fadd(x[1], y[1])


def _sub(b: ir.IRBuilder, x: Complex, y: Complex) -> Complex:
    return b.fsub(x[0], y[0]), b.fsub(x[1], y[1])


def _sub_turned_back(b: ir.IRBuilder, x: Complex, y: Complex) -> Complex:
    """-i (x - y)."""
    return b.fsub(x[1], y[1]), b.fsub(y[0], x[0])


def _times(b: ir.IRBuilder, x: Complex, y: Complex) -> Complex:
    real = _fma(b, b.fneg(x[1]), y[1], b.fmul(x[0], y[0]))
    return real, _fma(b, x[1], y[0], b.fmul(x[0], y[1]))


def _times_conjugate(b: ir.IRBuilder, x: Complex, y: Complex) -> Complex:
    real = _fma(b, x[1], y[1], b.fmul(x[0], y[0]))
    return real, _fma(b, b.fneg(x[0]), y[1], b.fmul(x[1], y[0]))


def _forward(b: ir.IRBuilder, v: list[Complex], w: list[Complex]) -> list[Complex]:
    """A butterfly; ``w``: its factors."""
    if len(v) == 2:
        return list(_pair(b, *v, w[0]))
    if len(v) == 4:
        (x0, x2), (x1, x3) = _pair(b, v[0], v[2], w[1]), _pair(b, v[1], v[3], w[1])
        return [*_pair(b, x0, x1, w[0]), *_pair(b, x2, x3, w[0], turned=True)]
    if len(v) == 8:
        low, high = zip(*(_pair(b, v[j], v[j + 4], w[3]) for j in range(4)), strict=True)
        (x0, x2), (x1, x3) = _pair(b, low[0], low[2], w[1]), _pair(b, low[1], low[3], w[1])
        (x4, x6), (x5, x7) = (_pair(b, high[j], high[j + 2], w[1], turned=True) for j in (0, 1))
        ends = [*_pair(b, x0, x1, w[0]), *_pair(b, x2, x3, w[0], turned=True)]
        return [*ends, *_pair(b, x4, x5, w[7]), *_pair(b, x6, x7, w[7], turned=True)]
    return _odd(b, [v[0], *(_times(b, x, f) for x, f in zip(v[1:], w, strict=True))], 1)


def _inverse(b: ir.IRBuilder, v: list[Complex], w: list[Complex]) -> list[Complex]:
    """The inverse of `_forward` times the radix."""
    radix = len(v)
    if radix == 2:
        y = [_add(b, *v), _sub(b, *v)]
    elif radix == 4:
        s0, d0, s1, d1 = _add(b, v[0], v[1]), _sub(b, v[0], v[1]), _add(b, v[2], v[3]), _sub_turned_back(b, v[2], v[3])
        y = [_add(b, s0, s1), _add(b, d0, d1), _sub(b, s0, s1), _sub(b, d0, d1)]
    elif radix == 8:
        s0, d0, s1, d1 = _add(b, v[0], v[1]), _sub(b, v[0], v[1]), _add(b, v[2], v[3]), _sub_turned_back(b, v[2], v[3])
        s2, d2, s3, d3 = _add(b, v[4], v[5]), _sub(b, v[4], v[5]), _add(b, v[6], v[7]), _sub_turned_back(b, v[6], v[7])
        low = [_add(b, s0, s1), _add(b, d0, d1), _sub(b, s0, s1), _sub(b, d0, d1)]
        p, q = _add(b, d2, d3), _sub_turned_back(b, d2, d3)  # to be turned back by an eighth
        p, q = ((b.fadd(*x), b.fsub(x[1], x[0])) for x in (p, q))
        (s, t), eighth = (_add(b, s2, s3), _sub_turned_back(b, s2, s3)), _constant(v[0][0], math.sqrt(0.5))
        minus = _constant(v[0][0], -math.sqrt(0.5))
        near = [_add(b, low[0], s), _scaled(b, p, eighth, low[1]), _add(b, low[2], t), _scaled(b, q, eighth, low[3])]
        far = [_sub(b, low[0], s), _scaled(b, p, minus, low[1]), _sub(b, low[2], t), _scaled(b, q, minus, low[3])]
        y = near + far
    else:
        y = _odd(b, v, -1)
    return [y[0], *(_times_conjugate(b, x, f) for x, f in zip(y[1:], w[: radix - 1], strict=True))]


def _scaled(b: ir.IRBuilder, x: Complex, scale: ir.Value, plus: Complex) -> Complex:
    return _fma(b, x[0], scale, plus[0]), _fma(b, x[1], scale, plus[1])


def _odd(b: ir.IRBuilder, v: list[Complex], sign: int) -> list[Complex]:
    """The transform of an odd number of values by its definition, halved by symmetry."""
    n = len(v)
    pairs = [(_add(b, v[j], v[n - j]), _sub(b, v[j], v[n - j])) for j in range(1, n // 2 + 1)]
    first = v[0]
    for s, _ in pairs:
        first = _add(b, first, s)
    y = [first] + [first] * (n - 1)
    for k in range(1, n // 2 + 1):
        even, odd = v[0], None
        for j, (s, d) in enumerate(pairs, 1):
            angle = 2 * math.pi * j * k / n
            even = _scaled(b, s, _constant(s[0], math.cos(angle)), even)
            sine = _constant(d[0], sign * math.sin(angle))
            odd = (b.fmul(d[0], sine), b.fmul(d[1], sine)) if odd is None else _scaled(b, d, sine, odd)
        assert odd is not None
        y[k] = b.fsub(even[0], odd[1]), b.fadd(even[1], odd[0])
        y[n - k] = b.fadd(even[0], odd[1]), b.fsub(even[1], odd[0])
    return y


# --- lanes ------------------------------------------------------------------------------------------------------------
def _shuffle(b: ir.IRBuilder, x: ir.Value, y: ir.Value, picks: list[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(picks)), picks))


def _transpose(b: ir.IRBuilder, v: list[ir.Value], radix: int, unit: int) -> list[ir.Value]:
    """Registers [r, … radix units …] of each ``radix`` of them -> register r holds every register's r-th unit."""
    width = v[0].type.count
    if unit > 1:  # of the whole register
        wide = lambda units: [u * unit + i for u in units for i in range(unit)]  # noqa: E731
        one, many = width // unit, lambda k: [*k, *(radix + u for u in k)]
        steps = {2: [many([0]), many([1])], 4: [many([0, 1]), many([2, 3])]}[radix]
        second = [many([0, 2]), many([1, 3])]
        assert one == radix
    else:  # inside every 16 bytes
        wide = lambda units: units  # noqa: E731
        blocks = range(0, width, radix)

        def of(x: list[int], y: list[int]) -> list[int]:
            return [q + k for q in blocks for pair in zip(x, y, strict=True) for k in (pair[0], width + pair[1])]

        def joined(x: list[int]) -> list[int]:
            return [k for q in blocks for k in (*(q + i for i in x), *(width + q + i for i in x))]

        steps = {2: [of([0], [0]), of([1], [1])], 4: [of([0, 1], [0, 1]), of([2, 3], [2, 3])]}[radix]
        second = [joined([0, 1]), joined([2, 3])]
    out: list[ir.Value] = []
    for first in range(0, len(v), radix):
        x = v[first : first + radix]
        if radix == 2:
            out += [_shuffle(b, *x, wide(picks)) for picks in steps]
            continue
        halves = [_shuffle(b, x[k], x[k + 1], wide(picks)) for k in (0, 2) for picks in steps]
        out += [_shuffle(b, halves[h], halves[2 + h], wide(picks)) for h in (0, 1) for picks in second]
    return out


# --- loops ------------------------------------------------------------------------------------------------------------
def _at(b: ir.IRBuilder, pointer: ir.Value, offset: ir.Value | int) -> ir.Value:
    return b.gep(pointer, [ir.Constant(I64, offset) if isinstance(offset, int) else offset])


def _load(b: ir.IRBuilder, pointer: ir.Value, vec: ir.Type, offset: ir.Value | int = 0) -> ir.Value:
    value = b.load(b.bitcast(_at(b, pointer, offset), vec.as_pointer()))
    value.align = 4
    return value


def _store(b: ir.IRBuilder, value: ir.Value, pointer: ir.Value, offset: ir.Value | int = 0) -> None:
    b.store(value, b.bitcast(_at(b, pointer, offset), value.type.as_pointer())).align = 4


def _load_complex(b: ir.IRBuilder, pointer: ir.Value, vec: ir.Type) -> Complex:
    return _load(b, pointer, vec), _load(b, pointer, vec, vec.count)


def _store_complex(b: ir.IRBuilder, value: Complex, pointer: ir.Value) -> None:
    _store(b, value[0], pointer)
    _store(b, value[1], pointer, value[0].type.count)


def _load_factors(b: ir.IRBuilder, pointer: ir.Value, vec: ir.Type, count: int) -> list[Complex]:
    numbers = [_splat(b, b.load(_at(b, pointer, k)), vec) for k in range(2 * count)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _for_radix(b: ir.IRBuilder, radix: ir.Value, emit: Callable[[int], None]) -> None:
    """Code for each radix, of which the one for the value ``radix`` runs."""
    done = b.append_basic_block("radix.done")
    switch = b.switch(radix, done)
    for value in RADICES:
        case = b.append_basic_block(f"radix.{value}")
        switch.add_case(ir.Constant(I64, value), case)
        b.position_at_end(case)
        emit(value)
        b.branch(done)
    b.position_at_end(done)


def _make_steps(inverse: bool) -> Any:
    @intrinsic
    def steps(typingctx, radix, source, source_step, target, target_step, table, blocks, count):
        """Butterflies on ``blocks`` polynomials, each of ``radix`` rows of ``count`` complex registers.

        Rows lie ``source_step`` and ``target_step`` numbers apart; ``table``: the factors of each polynomial.
        """

        def codegen(context, b, sig, args):
            vec = _llvm_vector(sig.args[1].dtype)
            _, source, source_step, target, target_step, table, blocks, count = args

            def emit(radix: int) -> None:
                with cgutils.for_range(b, blocks) as outer:
                    factor = b.mul(outer.index, ir.Constant(I64, 2 * PHASES[radix]))
                    w = _load_factors(b, _at(b, table, factor), vec, PHASES[radix])
                    block = b.mul(outer.index, ir.Constant(I64, radix))
                    of, to = _at(b, source, b.mul(block, source_step)), _at(b, target, b.mul(block, target_step))
                    ofs = [_at(b, of, b.mul(source_step, ir.Constant(I64, j))) for j in range(radix)]
                    tos = [_at(b, to, b.mul(target_step, ir.Constant(I64, j))) for j in range(radix)]
                    with cgutils.for_range(b, count) as inner:
                        at = b.mul(inner.index, ir.Constant(I64, 2 * vec.count))
                        v = [_load_complex(b, _at(b, p, at), vec) for p in ofs]
                        for p, value in zip(tos, (_inverse if inverse else _forward)(b, v, w), strict=True):
                            _store_complex(b, value, _at(b, p, at))

            _for_radix(b, args[0], emit)
            return context.get_dummy_value()

        n = types.int64
        return types.void(n, source, n, source, n, source, n, n), codegen

    return steps


def _addresses(b: ir.IRBuilder, rows: ir.Value, step: ir.Value, row: int, parts: range, number: ir.Type) -> list[Any]:
    at = b.mul(step, ir.Constant(I64, 2 * row))
    words = [b.load(_at(b, rows, b.add(at, ir.Constant(I64, part)))) for part in parts]
    return [b.inttoptr(word, number.as_pointer()) for word in words]


def _make_first(interleaved: bool) -> Any:
    parts = range(1 if interleaved else 2)

    @intrinsic
    def first(typingctx, radix, rows, rows_step, target, target_step, table, count):
        """The first butterflies, of rows at addresses ``rows[2 * j * rows_step]`` (imaginary parts: the one behind it).

        Interleaved rows hold complex numbers.
        """

        def codegen(context, b, sig, args):
            number, vec = context.get_value_type(sig.args[3].dtype), _llvm_vector(sig.args[3].dtype)
            _, rows, rows_step, target, target_step, table, count = args
            even = list(range(0, 2 * vec.count, 2))

            def emit(radix: int) -> None:
                w = _load_factors(b, table, vec, PHASES[radix])
                ofs = [_addresses(b, rows, rows_step, j, parts, number) for j in range(radix)]
                tos = [_at(b, target, b.mul(target_step, ir.Constant(I64, j))) for j in range(radix)]
                with cgutils.for_range(b, count) as inner:
                    at = b.mul(inner.index, ir.Constant(I64, vec.count))
                    twice = b.mul(inner.index, ir.Constant(I64, 2 * vec.count))
                    if interleaved:
                        both = [_load_complex(b, _at(b, p, twice), vec) for (p,) in ofs]
                        v = [(_shuffle(b, *x, even), _shuffle(b, *x, [k + 1 for k in even])) for x in both]
                    else:
                        v = [(_load(b, re, vec, at), _load(b, im, vec, at)) for re, im in ofs]
                    for p, value in zip(tos, _forward(b, v, w), strict=True):
                        _store_complex(b, value, _at(b, p, twice))

            _for_radix(b, args[0], emit)
            return context.get_dummy_value()

        n = types.int64
        return types.void(n, rows, n, target, n, target, n), codegen

    return first


def _make_last(interleaved: bool) -> Any:
    parts = range(1 if interleaved else 2)

    @intrinsic
    def last(typingctx, radix, source, source_step, rows, rows_step, table, count):
        """The last butterflies of an inverse, into rows as `first` reads them."""

        def codegen(context, b, sig, args):
            number, vec = context.get_value_type(sig.args[1].dtype), _llvm_vector(sig.args[1].dtype)
            _, source, source_step, rows, rows_step, table, count = args
            low = [k for j in range(vec.count // 2) for k in (j, vec.count + j)]
            high = [k + vec.count // 2 for k in low]

            def emit(radix: int) -> None:
                w = _load_factors(b, table, vec, PHASES[radix])
                ofs = [_at(b, source, b.mul(source_step, ir.Constant(I64, j))) for j in range(radix)]
                tos = [_addresses(b, rows, rows_step, j, parts, number) for j in range(radix)]
                with cgutils.for_range(b, count) as inner:
                    at = b.mul(inner.index, ir.Constant(I64, vec.count))
                    twice = b.mul(inner.index, ir.Constant(I64, 2 * vec.count))
                    v = [_load_complex(b, _at(b, p, twice), vec) for p in ofs]
                    for p, value in zip(tos, _inverse(b, v, w), strict=True):
                        if interleaved:
                            both = (_shuffle(b, *value, low), _shuffle(b, *value, high))
                            _store_complex(b, both, _at(b, p[0], twice))
                        else:
                            for q, part in zip(p, value, strict=True):
                                _store(b, part, q, at)

            _for_radix(b, args[0], emit)
            return context.get_dummy_value()

        n = types.int64
        return types.void(n, source, n, rows, n, source, n), codegen

    return last


def _make_lanes(product: bool, forward: bool, inverse: bool) -> Any:
    @intrinsic
    def finish(typingctx, values, groups, table, spectrum):
        """Finish the polynomials of ``groups * GROUP`` registers, times ``spectrum``, and begin the inverse."""

        def codegen(context, b, sig, args):
            dtype = sig.args[0].dtype
            vec = _llvm_vector(dtype)
            stages = lane_stages(np.dtype(str(dtype)))
            values, groups, table, spectrum = args
            numbers = [(2 if radix == 4 else 1) * (GROUP // radix) for radix, _ in stages]
            with cgutils.for_range(b, groups) as loop:
                data = b.mul(loop.index, ir.Constant(I64, 2 * GROUP * vec.count))
                at = [_at(b, _at(b, values, data), 2 * k * vec.count) for k in range(GROUP)]
                factor = _at(b, table, b.mul(loop.index, ir.Constant(I64, 2 * sum(numbers) * vec.count)))
                w = iter([_load_complex(b, _at(b, factor, 2 * k * vec.count), vec) for k in range(sum(numbers))])
                tables = [[next(w) for _ in range(count)] for count in numbers]
                v = [_load_complex(b, p, vec) for p in at]
                if forward:
                    for (radix, unit), f in zip(stages, tables, strict=True):
                        v = _lane_stage(b, _swap(b, v, radix, unit), radix, f, inverse=False)
                if product:
                    of = _at(b, spectrum, data)
                    h = [_load_complex(b, _at(b, of, 2 * k * vec.count), vec) for k in range(GROUP)]
                    v = [_times(b, x, y) for x, y in zip(v, h, strict=True)]
                if inverse:
                    for (radix, unit), f in reversed(list(zip(stages, tables, strict=True))):
                        v = _swap(b, _lane_stage(b, v, radix, f, inverse=True), radix, unit)
                for p, x in zip(at, v, strict=True):
                    _store_complex(b, x, p)
            return context.get_dummy_value()

        return types.void(values, types.int64, values, values), codegen

    return finish


def _swap(b: ir.IRBuilder, v: list[Complex], radix: int, unit: int) -> list[Complex]:
    parts = (_transpose(b, [x[part] for x in v], radix, unit) for part in (0, 1))
    return list(zip(*parts, strict=True))


def _lane_stage(b: ir.IRBuilder, v: list[Complex], radix: int, w: list[Complex], inverse: bool) -> list[Complex]:
    out: list[Complex] = []
    for k, first in enumerate(range(0, GROUP, radix)):
        x = v[first : first + radix]
        if radix == 2:
            out += (_inverse if inverse else _forward)(b, x, [w[k]])
            continue
        square, root = w[2 * k : 2 * k + 2]
        if not inverse:
            out += _forward(b, x, [root, square])
            continue
        s0, d0 = _add(b, x[0], x[1]), _sub(b, x[0], x[1])
        s1, d1 = _add(b, x[2], x[3]), _sub_turned_back(b, x[2], x[3])
        y1, y3 = _add(b, d0, d1), _times_conjugate(b, _sub(b, d0, d1), square)
        out += [_add(b, s0, s1), _times_conjugate(b, y1, root)]
        out += [_times_conjugate(b, _sub(b, s0, s1), square), _times_conjugate(b, y3, root)]
    return out


forward_steps, inverse_steps = _make_steps(inverse=False), _make_steps(inverse=True)
first_steps = {interleaved: _make_first(interleaved) for interleaved in (False, True)}
last_steps = {interleaved: _make_last(interleaved) for interleaved in (False, True)}
both_ways = _make_lanes(product=True, forward=True, inverse=True)
forward_lanes = _make_lanes(product=False, forward=True, inverse=False)
inverse_lanes = _make_lanes(product=False, forward=False, inverse=True)
