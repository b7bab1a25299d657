// The kernels of one instruction set, as the dispatcher sees them: float only, split into independent tasks.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace vmkla {

struct ScanShape {
  int64_t b, H, W, d, n, R;
  int64_t pixels() const { return H * W; }
};

struct ScanForwardF32 {
  ScanShape shape;
  const float *u, *p, *dt_weight, *A, *D, *delta_bias;
  float* y;
};

// Gradients. A task is one image, so what images share comes out in parts: grad_dt_weight (b, 4, R, d);
// grad_A (b, 4, n, d); grad_delta_bias (b, 4, d); grad_D (b, d); the last two
// are added to and begin at 0. grad_u and grad_p are whole.
struct ScanBackwardF32 {
  ScanShape shape;
  const float *grad_y, *u, *p, *dt_weight, *A, *D, *delta_bias;
  float *grad_u, *grad_p, *grad_dt_weight, *grad_A, *grad_D, *grad_delta_bias;
};

struct BSplineF32 {
  int64_t count, rows, knots, order;
  float grid_min, grid_step;
  const float* x;
  const float* grid;
  float* out;             // forward: (count, knots - order - 1)
  const float* grad_out;  // backward: same shape
  float* grad_x;          // backward: (count)
};

struct IsaKernels {
  const char* name;
  size_t (*scan_forward_tasks)(const ScanForwardF32&);
  void (*scan_forward)(const ScanForwardF32&, size_t task);
  void (*scan_backward)(const ScanBackwardF32&, size_t image);
  void (*bspline_forward)(const BSplineF32&, int64_t begin, int64_t end);
  void (*bspline_backward)(const BSplineF32&, int64_t begin, int64_t end);
  // sum of 2^x, x in [-126, 0], over `count` values, `repeats` times: the bare cost of exponentials, for benchmarks.
  float (*exp2_loop)(const float* x, int64_t count, int64_t repeats);
  // The same exponentials as decays of a recurrence, its multiply-adds included and no memory but x: the least that a
  // scan computes.
  float (*recurrence_loop)(const float* x, int64_t count, int64_t repeats);
};

// One per instruction set that this build holds; dispatch.cpp knows which of them the machine can run.
extern const IsaKernels* const kBaselineKernels;
#if defined(__x86_64__)
extern const IsaKernels* const kAvx2Kernels;
extern const IsaKernels* const kAvx512Kernels;
#endif

}  // namespace vmkla
