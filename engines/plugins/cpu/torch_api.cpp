// C entry points: pointers and extents only, nothing of torch's ABI, and no exception may cross into the caller.
#include "torch_api.h"

#include <new>

#include "kernels.h"
#include "thread_pool.h"

namespace {
template <class F>
int guarded(const F& body) {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
}  // namespace

VMKLA_API int vmkla_cpu_api_version() { return 3; }

VMKLA_API const char* vmkla_cpu_instruction_set() { return vmkla::instruction_set(); }

VMKLA_API int vmkla_cpu_set_instruction_set(const char* name) { return vmkla::set_instruction_set(name) ? 1 : 0; }

VMKLA_API float vmkla_cpu_exp2_loop(const float* x, int64_t count, int64_t repeats) {
  return vmkla::exp2_loop(x, count, repeats);
}

VMKLA_API float vmkla_cpu_recurrence_loop(const float* x, int64_t count, int64_t repeats) {
  return vmkla::recurrence_loop(x, count, repeats);
}

VMKLA_API int vmkla_cpu_scan2d_forward(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R, int half,
                                        const void* u, const void* p, const void* dt_weight, const float* A,
                                        const float* D, const float* delta_bias, void* y, int threads) {
  const vmkla::Element element = half ? vmkla::Element::kFloat16 : vmkla::Element::kFloat32;
  return guarded([&] {
    vmkla::scan2d_forward({b, H, W, d, n, R, element, u, p, dt_weight, A, D, delta_bias, y},
                          vmkla::pool_executor(threads));
  });
}

VMKLA_API int vmkla_cpu_scan2d_backward(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R,
                                         const float* grad_y, const float* u, const float* p, const float* dt_weight,
                                         const float* A, const float* D, const float* delta_bias, float* grad_u,
                                         float* grad_p, float* grad_dt_weight, float* grad_A, float* grad_D,
                                         float* grad_delta_bias, int threads) {
  return guarded([&] {
    vmkla::scan2d_backward({b, H, W, d, n, R, grad_y, u, p, dt_weight, A, D, delta_bias, grad_u, grad_p, grad_dt_weight,
                            grad_A, grad_D, grad_delta_bias},
                           vmkla::pool_executor(threads));
  });
}

VMKLA_API int vmkla_cpu_bspline_forward(int64_t count, int64_t rows, int64_t knots, int64_t order, int half,
                                         float grid_min, float grid_step, const void* x, const float* grid, void* out,
                                         int threads) {
  const vmkla::Element element = half ? vmkla::Element::kFloat16 : vmkla::Element::kFloat32;
  return guarded([&] {
    vmkla::bspline_forward({count, rows, knots, order, element, grid_min, grid_step, x, grid, out},
                           vmkla::pool_executor(threads));
  });
}

VMKLA_API int vmkla_cpu_bspline_backward(int64_t count, int64_t rows, int64_t knots, int64_t order, float grid_min,
                                          float grid_step, const float* x, const float* grid, const float* grad_out,
                                          float* grad_x, int threads) {
  return guarded([&] {
    vmkla::bspline_backward(
        {count, rows, knots, order, vmkla::Element::kFloat32, grid_min, grid_step, x, grid, nullptr}, grad_out, grad_x,
        vmkla::pool_executor(threads));
  });
}
