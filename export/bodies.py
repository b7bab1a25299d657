"""Model-local function bodies: the two custom ops in standard ONNX ops.

A runtime with vmkla's kernels does not use them. One without (TensorRT-RTX, a plain ONNX Runtime) runs
them, so they are fast there, and the exporter also checks a file with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkla.errors import ShapeError
from vmkla.imports import require

if TYPE_CHECKING:
    import onnx

DOMAIN = "vmkla"
OPSET = 20
"""Version of ONNX's standard ops: TensorRT 10.3 reads up to 20, and GELU as one op needs it."""

# The chunked selective scan. The H W pixels of a route, in its visiting order, are H chunks of W, whatever
# the route. All four routes advance together, so a frame takes W + H + W sequential steps, not H W:
#   1. every chunk from a zero state            -> its end state e          (W steps, all chunks at once)
#   2. carry over the chunks, c <- exp(A sum(delta)) c + e  -> its true start state   (H steps)
#   3. every chunk from its true start state    -> y                        (W steps, all chunks at once)
# delta >= 0 and A < 0, so every exponent is at most 0: nothing overflows, for any input.
# Sequences over the pixels of a chunk are (W, 4, b, H, ..), states (4, b, H, n, d).
# softplus(z) = max(z, 0) + log1p(exp(-|z|)), where log1p(e) = 2 atanh(e / (e + 2)): exact for delta_bias
# of -14 (log(1 + e) would lose 7 %) and finite for 400 (log(1 + exp(z)) would not be). atanh is the
# polynomial of engines/plugins/kernels/math.h: ONNX Runtime's CUDA provider has no Atanh, and would copy each
# delta to the CPU and back.
_SCAN = """
<domain: "vmkla", opset_import: ["" : 20]>
SelectiveScan2d (u, p, dt_weight, A, D, delta_bias) => (y) {
  axis_0 = Constant <value_ints = [0]> ()
  axis_1 = Constant <value_ints = [1]> ()
  axis_4 = Constant <value_ints = [4]> ()
  axes_12 = Constant <value_ints = [1, 2]> ()
  axis_minus_2 = Constant <value_ints = [-2]> ()
  axes_hw = Constant <value_ints = [2, 3]> ()
  minus_hw = Constant <value_ints = [-1, -1]> ()
  ends_hw = Constant <value_ints = [-9223372036854775807, -9223372036854775807]> ()
  keep_3 = Constant <value_ints = [0, 0, 0]> ()
  four = Constant <value_ints = [4]> ()
  minus_1 = Constant <value_ints = [-1]> ()
  two_f = Constant <value = float {2.0}> ()
  zero_f = Constant <value = float {0.0}> ()
  one_f = Constant <value = float {1.0}> ()
  log_1 = Constant <value = float {0.33333268761634827}> ()
  log_2 = Constant <value = float {0.20007240772247314}> ()
  log_3 = Constant <value = float {0.14054614305496216}> ()
  log_4 = Constant <value = float {0.13766582310199738}> ()

  u_f = Cast <to = 1> (u)
  p_f = Cast <to = 1> (p)
  w_f = Cast <to = 1> (dt_weight)

  shape_u = Shape (u)
  b = Shape <start = 0, end = 1> (u)
  H = Shape <start = 1, end = 2> (u)
  W = Shape <start = 2, end = 3> (u)
  d = Shape <start = 3, end = 4> (u)
  n = Shape <start = 1, end = 2> (A)
  R = Shape <start = 1, end = 2> (dt_weight)
  b_W_H_d = Concat <axis = 0> (b, W, H, d)

  n_4 = Mul (n, four)
  R_4 = Mul (R, four)
  sizes = Concat <axis = 0> (n_4, n_4, R_4)
  B_all, C_all, dt_all = Split <axis = 3> (p_f, sizes)
  four_n = Concat <axis = 0> (keep_3, four, n)
  four_R = Concat <axis = 0> (keep_3, four, R)
  B_routes = Reshape (B_all, four_n)
  C_routes = Reshape (C_all, four_n)
  dt_routes = Reshape (dt_all, four_R)
  q = Concat <axis = 4> (B_routes, C_routes, dt_routes)
  q_routes = Transpose <perm = [3, 0, 1, 2, 4]> (q)
  q_0, q_1t, q_2, q_3t = Split <axis = 0, num_outputs = 4> (q_routes)
  shape_q = Shape (q_0)
  q_1w = Transpose <perm = [0, 1, 3, 2, 4]> (q_1t)
  q_3w = Transpose <perm = [0, 1, 3, 2, 4]> (q_3t)
  q_1 = Reshape (q_1w, shape_q)
  q_3 = Reshape (q_3w, shape_q)
  q_ahead = Concat <axis = 0> (q_0, q_1)
  q_back_ahead = Concat <axis = 0> (q_2, q_3)
  q_back = Slice (q_back_ahead, minus_hw, ends_hw, axes_hw, minus_hw)
  q_4 = Concat <axis = 0> (q_ahead, q_back)
  q_seq = Transpose <perm = [3, 0, 1, 2, 4]> (q_4)
  sizes_q = Concat <axis = 0> (n, n, R)
  B_flat, C_flat, dt_flat = Split <axis = 4> (q_seq, sizes_q)
  B_seq = Unsqueeze (B_flat, minus_1)
  C_seq = Unsqueeze (C_flat, axis_minus_2)

  u_w = Transpose <perm = [0, 2, 1, 3]> (u_f)
  u_1 = Reshape (u_w, shape_u)
  u_0x = Unsqueeze (u_f, axis_0)
  u_1x = Unsqueeze (u_1, axis_0)
  u_ahead = Concat <axis = 0> (u_0x, u_1x)
  u_back = Slice (u_ahead, minus_hw, ends_hw, axes_hw, minus_hw)
  u_4 = Concat <axis = 0> (u_ahead, u_back)
  u_flat = Transpose <perm = [3, 0, 1, 2, 4]> (u_4)

  w_x = Unsqueeze (w_f, axis_1)
  bias_x = Unsqueeze (delta_bias, axes_12)
  z_product = MatMul (dt_flat, w_x)
  z = Add (z_product, bias_x)
  z_abs = Abs (z)
  z_minus = Neg (z_abs)
  e = Exp (z_minus)
  e_2 = Add (e, two_f)
  ratio = Div (e, e_2)
  ratio_2 = Mul (ratio, ratio)
  power_4 = Mul (ratio_2, log_4)
  sum_3 = Add (power_4, log_3)
  power_3 = Mul (sum_3, ratio_2)
  sum_2 = Add (power_3, log_2)
  power_2 = Mul (sum_2, ratio_2)
  sum_1 = Add (power_2, log_1)
  power_1 = Mul (sum_1, ratio_2)
  sum_0 = Add (power_1, one_f)
  twice = Add (ratio, ratio)
  log_1p = Mul (twice, sum_0)
  z_plus = Relu (z)
  delta_flat = Add (z_plus, log_1p)
  delta_u_flat = Mul (delta_flat, u_flat)
  delta = Unsqueeze (delta_flat, axis_4)
  delta_u = Unsqueeze (delta_u_flat, axis_4)

  A_x = Unsqueeze (A, axis_1)
  A_xx = Unsqueeze (A, axes_12)
  states = Concat <axis = 0> (four, b, n, d)
  chunk_states = Concat <axis = 0> (four, b, H, n, d)
  zero_carry = Expand (zero_f, states)
  zero_chunks = Expand (zero_f, chunk_states)
  chunk_ends = Scan <num_scan_inputs = 3, body = from_zero (h, delta_t, du_t, B_t) => (h_next) {
    exponent = Mul (delta_t, A_xx)
    decay = Exp (exponent)
    kept = Mul (decay, h)
    fed = Mul (du_t, B_t)
    h_next = Add (kept, fed)
  }> (zero_chunks, delta, delta_u, B_seq)

  sum_flat = ReduceSum <keepdims = 0> (delta, axis_0)
  sum_seq = Transpose <perm = [2, 0, 1, 3, 4]> (sum_flat)
  end_seq = Transpose <perm = [2, 0, 1, 3, 4]> (chunk_ends)
  carry_end, start_seq = Scan <num_scan_inputs = 2, body = carry (c, sum_t, end_t) => (c_next, c_before) {
    carry_exponent = Mul (sum_t, A_x)
    carry_decay = Exp (carry_exponent)
    carry_kept = Mul (carry_decay, c)
    c_next = Add (carry_kept, end_t)
    c_before = Identity (c)
  }> (zero_carry, sum_seq, end_seq)
  chunk_starts = Transpose <perm = [1, 2, 0, 3, 4]> (start_seq)

  last, y_seq = Scan <num_scan_inputs = 4, body = from_carry (g, delta_s, du_s, B_s, C_s) => (g_next, y_s) {
    exponent_s = Mul (delta_s, A_xx)
    decay_s = Exp (exponent_s)
    kept_s = Mul (decay_s, g)
    fed_s = Mul (du_s, B_s)
    g_next = Add (kept_s, fed_s)
    y_s = MatMul (C_s, g_next)
  }> (chunk_starts, delta, delta_u, B_seq, C_seq)

  y_flat = Squeeze (y_seq, axis_4)
  y_4 = Transpose <perm = [1, 2, 3, 0, 4]> (y_flat)
  y_ahead, y_back = Split <axis = 0, num_outputs = 2> (y_4)
  y_back_ahead = Slice (y_back, minus_hw, ends_hw, axes_hw, minus_hw)
  y_pairs = Add (y_ahead, y_back_ahead)
  y_0x, y_1x = Split <axis = 0, num_outputs = 2> (y_pairs)
  y_0 = Squeeze (y_0x, axis_0)
  y_1w = Reshape (y_1x, b_W_H_d)
  y_1 = Transpose <perm = [0, 2, 1, 3]> (y_1w)
  through = Mul (u_f, D)
  y_rows = Add (y_0, through)
  y_f = Add (y_rows, y_1)
  y = CastLike (y_f, u)
}
"""


# Cardinal cubic spline, knots at grid_min + i step. Basis j at x depends only on the distance to its middle,
# a = |(x - grid_min) / step - j - 2|, and is (relu(2 - a)^3 - 4 relu(1 - a)^3) / 6. That is 0 outside the
# support too, so it needs neither recursion nor clamp.
_BSPLINE_UNIFORM_CUBIC = """
<domain: "vmkla", opset_import: ["" : 20]>
BSplineBasis <order, uniform, grid_min, grid_step> (x, grid) => (bases) {
  first = Constant <value_float: float = @grid_min> ()
  step = Constant <value_float: float = @grid_step> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  minus_1 = Constant <value_ints = [-1]> ()
  one_f = Constant <value = float {1.0}> ()
  two_f = Constant <value = float {2.0}> ()
  four_f = Constant <value = float {4.0}> ()
  sixth_f = Constant <value = float {0.16666666666666666}> ()
  shape_grid = Shape (grid)
  last = Constant <value_int = -1> ()
  four = Constant <value_int = 4> ()
  knots = Gather (shape_grid, last)
  count = Sub (knots, four)
  indices = Range (zero, count, one)
  indices_f = Cast <to = 1> (indices)
  centres = Add (indices_f, two_f)
  x_f = Cast <to = 1> (x)
  x_last = Unsqueeze (x_f, minus_1)
  from_first = Sub (x_last, first)
  in_steps = Div (from_first, step)
  offset = Sub (in_steps, centres)
  a = Abs (offset)
  from_two = Sub (two_f, a)
  from_one = Sub (one_f, a)
  wide = Relu (from_two)
  narrow = Relu (from_one)
  wide_2 = Mul (wide, wide)
  wide_3 = Mul (wide_2, wide)
  narrow_2 = Mul (narrow, narrow)
  narrow_3 = Mul (narrow_2, narrow)
  narrow_34 = Mul (narrow_3, four_f)
  difference = Sub (wide_3, narrow_34)
  bases_f = Mul (difference, sixth_f)
  bases = CastLike (bases_f, x)
}
"""

# The unrolled recursion, for any rising knots: one vector for all features or one for each.
_BSPLINE_HEAD = """
<domain: "vmkla", opset_import: ["" : 20]>
BSplineBasis <order, uniform, grid_min, grid_step> (x, grid) => (bases) {
  axis = Constant <value_ints = [-1]> ()
  zero = Constant <value_ints = [0]> ()
  huge = Constant <value_ints = [9223372036854775807]> ()
  c_1 = Constant <value_ints = [1]> ()
  c_m1 = Constant <value_ints = [-1]> ()
  x_f = Cast <to = 1> (x)
  x_last = Unsqueeze (x_f, axis)
  t_first = Slice (grid, zero, c_1, axis)
  t_last = Slice (grid, c_m1, huge, axis)
  v_low = Max (x_last, t_first)
  v = Min (v_low, t_last)
  t_left = Slice (grid, zero, c_m1, axis)
  t_right = Slice (grid, c_1, huge, axis)
  at_or_after = GreaterOrEqual (v, t_left)
  before = Less (v, t_right)
  inside = And (at_or_after, before)
  bases_0 = Cast <to = 1> (inside)
"""
_BSPLINE_STEP = """
  c_{k} = Constant <value_ints = [{k}]> ()
  c_{k1} = Constant <value_ints = [{k1}]> ()
  c_m{k} = Constant <value_ints = [-{k}]> ()
  c_m{k1} = Constant <value_ints = [-{k1}]> ()
  left_from_{k} = Slice (grid, zero, c_m{k1}, axis)
  left_to_{k} = Slice (grid, c_{k}, c_m1, axis)
  right_from_{k} = Slice (grid, c_1, c_m{k}, axis)
  right_to_{k} = Slice (grid, c_{k1}, huge, axis)
  left_span_{k} = Sub (left_to_{k}, left_from_{k})
  right_span_{k} = Sub (right_to_{k}, right_from_{k})
  left_way_{k} = Sub (v, left_from_{k})
  right_way_{k} = Sub (right_to_{k}, v)
  left_{k} = Div (left_way_{k}, left_span_{k})
  right_{k} = Div (right_way_{k}, right_span_{k})
  earlier_{k} = Slice (bases_{k0}, zero, c_m1, axis)
  later_{k} = Slice (bases_{k0}, c_1, huge, axis)
  rising_{k} = Mul (left_{k}, earlier_{k})
  falling_{k} = Mul (right_{k}, later_{k})
  bases_{k} = Add (rising_{k}, falling_{k})
"""


def scan_body() -> onnx.FunctionProto:
    """Make the body of ``SelectiveScan2d (u, p, dt_weight, A, D, delta_bias) -> y``, for all sizes."""
    return _parse(_SCAN)


def bspline_body(order: int, *, uniform: bool) -> onnx.FunctionProto:
    """Make the body of ``BSplineBasis (x, grid) -> bases``, for any x and number of knots.

    A model has one body for all its nodes, so the recursion is unrolled for one order.

    Args:
        order: order k of the splines of every node, at least 1.
        uniform: every node states uniform knots, which selects the short form for order 3.
    """
    if order < 1:
        raise ShapeError(f"spline order must be at least 1, got {order}")
    if uniform and order == 3:
        return _parse(_BSPLINE_UNIFORM_CUBIC)
    lines = [_BSPLINE_HEAD]
    for k in range(1, order + 1):
        step = _BSPLINE_STEP.format(k=k, k0=k - 1, k1=k + 1)
        # A constant of an earlier step is reused.
        known = {line.split("=")[0].strip() for line in "".join(lines).splitlines() if "= Constant" in line}
        lines.append(
            "\n".join(
                line
                for line in step.splitlines()
                if not ("= Constant" in line and line.split("=")[0].strip() in known)
            )
        )
    return _parse("".join(lines) + f"\n  bases = CastLike (bases_{order}, x)\n}}\n")


def _parse(text: str) -> onnx.FunctionProto:
    parser = require("onnx.parser", extra="export", purpose="writing an ONNX file")
    function: onnx.FunctionProto = parser.parse_function(text)
    return function
