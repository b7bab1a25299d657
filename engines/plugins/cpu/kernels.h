// The CPU kernels as the two hosts (torch through ctypes, ONNX Runtime) see them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vmkla {

// How a host runs `count` independent tasks; returns when all are done. `host` is the host's own state.
using TaskFn = void (*)(void* context, size_t index);
struct Executor {
  void* host;
  void (*run)(void* host, size_t count, TaskFn task, void* context);
};

enum class Element { kFloat32, kFloat16 };

// y = sum over four routes of the selective scan of u, plus D u. Contiguous tensors:
// u, y (b, H, W, d); p (b, H, W, 4 (2n + R)); dt_weight (4, R, d), all of `element` type;
// A (4, n, d), D (d), delta_bias (4, d) always float. Any extent may be any size; b, H or W may be 0.
struct Scan2dForward {
  int64_t b, H, W, d, n, R;
  Element element;
  const void* u;
  const void* p;
  const void* dt_weight;
  const float* A;
  const float* D;
  const float* delta_bias;
  void* y;
};
void scan2d_forward(const Scan2dForward& args, const Executor& executor);

// B-spline bases of x (count values): out (count, knots - order - 1) of the same element type.
// grid: float. With rows == 1 one knot vector serves all; otherwise grid is (rows, knots) and value i
// uses row i % rows. grid_step > 0 says that the knots are uniform, start at grid_min and are that far apart.
struct BSplineForward {
  int64_t count, rows, knots, order;
  Element element;
  float grid_min, grid_step;
  const void* x;
  const float* grid;
  void* out;
};
void bspline_forward(const BSplineForward& args, const Executor& executor);

// Gradients of scan2d_forward for float32 tensors; names and shapes as there.
struct Scan2dBackward {
  int64_t b, H, W, d, n, R;
  const float *grad_y, *u, *p, *dt_weight, *A, *D, *delta_bias;
  float *grad_u, *grad_p, *grad_dt_weight, *grad_A, *grad_D, *grad_delta_bias;
};
void scan2d_backward(const Scan2dBackward& args, const Executor& executor);

// Gradient of bspline_forward with respect to x, for float32 tensors: grad_out (count, knots - order - 1).
void bspline_backward(const BSplineForward& args, const float* grad_out, float* grad_x, const Executor& executor);

// Instruction set in use: "avx512", "avx2", "neon" or "baseline".
const char* instruction_set();
// Use another one that this machine can run (for tests and comparisons); false when it cannot.
bool set_instruction_set(const char* name);
// Sum of 2^x over `count` values (a multiple of 64), `repeats` times, on one thread: what bare exponentials cost.
float exp2_loop(const float* x, int64_t count, int64_t repeats);
// The same exponentials with the multiply-adds of a scan around them, in registers: the least that a scan computes.
float recurrence_loop(const float* x, int64_t count, int64_t repeats);

}  // namespace vmkla
