"""Models with If, Loop and Scan in ONNX's text form, with feeds. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser

rng = np.random.default_rng(17)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def parse(text: str, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]>\n{text}')


BRANCHES = """
g (float[N, 3] x, bool c) => (float[N, 3] y, float[N, 3] z) {
  two = Constant <value = float {2}> ()
  h = Mul (x, two)
  y, z = If (c) <
    then_branch = t () => (float[N, 3] a, float[N, 3] b) { a = Relu (h)  b = Sub (a, x) },
    else_branch = e () => (float[N, 3] c1, float[N, 3] d1) { d1 = Neg (x)  c1 = Add (d1, h) }
  >
}
"""

DATA_DEPENDENT = """
g (float[N] x) => (float[M] y) {
  zero = Constant <value = float {0}> ()
  s = ReduceSum <keepdims = 0> (x)
  c = Greater (s, zero)
  y = If (c) <
    then_branch = t () => (float[K] a) {
      p = Greater (x, zero)
      a = Compress (x, p)
    },
    else_branch = e () => (float[L] b) { b = Concat <axis = 0> (x, x) }
  >
}
"""

FOR = """
g (float[2, 3] x, int64 n) => (float[2, 3] last, float[T, 2, 3] all) {
  half = Constant <value = float {0.5}> ()
  go = Constant <value = bool {1}> ()
  last, all = Loop (n, go, x) <
    body = b (int64 i, bool keep, float[2, 3] s) => (bool more, float[2, 3] t, float[2, 3] kept) {
      more = Identity (keep)
      f = Cast <to = 1> (i)
      u = Mul (s, half)
      t = Add (u, f)
      kept = Sub (t, x)
    }
  >
}
"""

WHILE = """
g (float[3] x, float most) => (float[3] y, float[T] norms) {
  go = Constant <value = bool {1}> ()
  none = Constant <value = int64 {1000}> ()
  y, norms = Loop (none, go, x) <
    body = b (int64 i, bool keep, float[3] s) => (bool more, float[3] t, float norm) {
      t = Add (s, s)
      norm = ReduceL2 <keepdims = 0> (t)
      more = Less (norm, most)
    }
  >
}
"""

GROWING = """
g (float[2] x, int64 n) => (float[M] y) {
  go = Constant <value = bool {1}> ()
  y = Loop (n, go, x) <
    body = b (int64 i, bool keep, float[K] s) => (bool more, float[L] t) {
      more = Identity (keep)
      t = Concat <axis = 0> (s, x)
    }
  >
}
"""

NESTED = """
g (float[2, 3] x, int64 n, bool c) => (float[2, 3] y) {
  one = Constant <value = float {1}> ()
  y = Loop (n, c, x) <
    body = b (int64 i, bool keep, float[2, 3] s) => (bool more, float[2, 3] t) {
      two = Constant <value = int64 {2}> ()
      zero = Constant <value = int64 {0}> ()
      r = Mod (i, two)
      even = Equal (r, zero)
      more = Identity (keep)
      t = If (even) <
        then_branch = p () => (float[2, 3] a) {
          u = Add (s, one)
          a = If (c) <
            then_branch = pp () => (float[2, 3] aa) { aa = Mul (u, x) },
            else_branch = pe () => (float[2, 3] ae) { ae = Neg (u) }
          >
        },
        else_branch = q () => (float[2, 3] d) { d = Sub (s, x) }
      >
    }
  >
}
"""

CONVOLUTIONS = """
g (float[1, 3, 9, 8] x, int64 n) => (float[1, 3, 9, 8] y)
<float[3, 3, 3, 3] w> {
  go = Constant <value = bool {1}> ()
  y = Loop (n, go, x) <
    body = b (int64 i, bool keep, float[1, 3, 9, 8] s) => (bool more, float[1, 3, 9, 8] t) {
      more = Identity (keep)
      u = Conv <pads = [1, 1, 1, 1]> (s, w)
      t = Tanh (u)
    }
  >
}
"""

SCAN = """
g (float[3] h, float[T, 3] x, float[3, T] z, float k) => (float[3] last, float[T, 3] all, float[3, T] rest) {
  last, all, rest = Scan (h, x, z) <
    num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
    scan_output_axes = [0, -1], scan_output_directions = [1, 0],
    body = b (float[3] s, float[3] xi, float[3] zi) => (float[3] t, float[3] a, float[3] r) {
      p = Mul (s, k)
      q = Add (p, xi)
      t = Tanh (q)
      a = Sub (t, zi)
      r = Identity (t)
    }
  >
}
"""

SCAN_8 = """
g (float[2, 3] h, float[2, T, 3] x, float k) => (float[2, 3] last, float[2, T, 3] all) {
  last, all = Scan (none, h, x) <
    num_scan_inputs = 1, directions = [1],
    body = b (float[3] s, float[3] xi) => (float[3] t, float[3] a) {
      p = Mul (s, k)
      t = Add (p, xi)
      a = Sub (t, xi)
    }
  >
}
"""

FUNCTION = """
g (float[2, 3] x, bool c) => (float[2, 3] y) {
  h = local.choose <slope = 0.25> (x, c)
  y = local.choose <slope = 2.0> (h, c)
}
<opset_import: ["": 17], domain: "local">
choose <slope> (v, which) => (r) {
  m = Neg (v)
  r = If (which) <
    then_branch = t () => (float[2, 3] a) { a = LeakyRelu <alpha: float = @slope> (m) },
    else_branch = e () => (float[2, 3] b) { b = Elu <alpha: float = @slope> (v) }
  >
}
"""

HALF = """
g (float16[2, 3] x, int64 n) => (float16[2, 3] y, float16[T, 3] rows) {
  go = Constant <value = bool {1}> ()
  y, rows = Loop (n, go, x) <
    body = b (int64 i, bool keep, float16[2, 3] s) => (bool more, float16[2, 3] t, float16[3] row) {
      more = Identity (keep)
      wide = Constant <value = float {0.5}> ()
      half = Cast <to = 10> (wide)
      u = Mul (s, half)
      t = Add (u, x)
      zero = Constant <value = int64[1] {0}> ()
      row = ReduceSum <keepdims = 0> (t, zero)
    }
  >
}
"""

CONSTANT = """
g (float[N, C] x) => (float[N, C] y) {
  s = Shape (x)
  one = Constant <value = int64[1] {1}> ()
  c = Gather <axis = 0> (s, one)
  three = Constant <value = int64[1] {3}> ()
  is = Equal (c, three)
  y = If (is) <
    then_branch = t () => (float[N, C] a) {
      no = Constant <value = bool {0}> ()
      a = If (no) <
        then_branch = tt () => (float[N, C] aa) { aa = Abs (x) },
        else_branch = te () => (float[N, C] ae) { x2 = Relu (x)  ae = Add (x2, x) }
      >
    },
    else_branch = e () => (float[N, C] b) { b = Neg (x) }
  >
}
"""

n = np.array
MODELS: Mapping[str, tuple[str, int, list[dict[str, np.ndarray]]]] = {
    "branches": (BRANCHES, 17, [{"x": normal(4, 3), "c": n(True)}, {"x": normal(2, 3), "c": n(False)}]),
    "branches 11": (BRANCHES, 11, [{"x": normal(4, 3), "c": n(True)}]),
    "branches 21": (BRANCHES, 21, [{"x": normal(4, 3), "c": n(False)}]),
    "data-dependent": (DATA_DEPENDENT, 13, [{"x": np.abs(normal(5))}, {"x": -np.abs(normal(4))}]),
    "for": (FOR, 17, [{"x": normal(2, 3), "n": n(k)} for k in (3, 0, 1)]),
    "for 11": (FOR, 11, [{"x": normal(2, 3), "n": n(4)}]),
    "while": (WHILE, 13, [{"x": normal(3), "most": n(np.float32(k))} for k in (100, 0)]),
    "growing": (GROWING, 16, [{"x": normal(2), "n": n(k)} for k in (12, 1)]),
    "nested": (NESTED, 17, [{"x": normal(2, 3), "n": n(5), "c": n(c)} for c in (True, False)]),
    "convolutions": (CONVOLUTIONS, 17, [{"x": normal(1, 3, 9, 8), "n": n(3)}]),
    "scan": (
        SCAN,
        16,
        [{"h": normal(3), "x": normal(k, 3), "z": normal(3, k), "k": n(np.float32(0.3))} for k in (5, 1)],
    ),
    "function": (FUNCTION, 17, [{"x": normal(2, 3), "c": n(c)} for c in (True, False)]),
    "half": (HALF, 17, [{"x": normal(2, 3, dtype=np.float16), "n": n(3)}]),
    "constant": (CONSTANT, 17, [{"x": normal(2, 3)}, {"x": normal(3, 4)}]),
}
"""Name -> text, opset, feeds."""


def model(name: str) -> onnx.ModelProto:
    text, opset, _ = MODELS[name]
    proto = parse(text, opset)
    for info in proto.graph.value_info:  # weights: the text form has no random ones
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(*shape) * np.float32(0.3), info.name))
    del proto.graph.value_info[:]
    return proto


def batched_scan() -> onnx.ModelProto:
    """A Scan of opset 8, whose first input, the lengths of the sequences, is left out."""
    proto = parse(SCAN_8, 8)
    proto.graph.node[0].input[0] = ""
    return proto
