// The library's C interface: what vmkla/ops/native.py calls through ctypes, and what the self-test calls.
// Tensors as in kernels.h. Functions that return int give 0, or 1 when memory ran out.
#pragma once
#include <cstdint>

#define VMKLA_API extern "C" __attribute__((visibility("default")))

// Raised with every change to a signature below; vmkla/ops/native.py checks it.
VMKLA_API int vmkla_cpu_api_version();
VMKLA_API const char* vmkla_cpu_instruction_set();
VMKLA_API const char* vmkla_cpu_features();  // those of x86-64, with spaces between; empty on other machines
VMKLA_API int vmkla_cpu_set_instruction_set(const char* name);  // 1 when this machine can run it
VMKLA_API float vmkla_cpu_exp2_loop(const float* x, int64_t count, int64_t repeats);
VMKLA_API float vmkla_cpu_recurrence_loop(const float* x, int64_t count, int64_t repeats);

VMKLA_API int vmkla_cpu_scan2d_forward(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R, int half,
                                        const void* u, const void* p, const void* dt_weight, const float* A,
                                        const float* D, const float* delta_bias, void* y, int threads);
VMKLA_API int vmkla_cpu_scan2d_backward(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R,
                                         const float* grad_y, const float* u, const float* p, const float* dt_weight,
                                         const float* A, const float* D, const float* delta_bias, float* grad_u,
                                         float* grad_p, float* grad_dt_weight, float* grad_A, float* grad_D,
                                         float* grad_delta_bias, int threads);
VMKLA_API int vmkla_cpu_bspline_forward(int64_t count, int64_t rows, int64_t knots, int64_t order, int half,
                                         float grid_min, float grid_step, const void* x, const float* grid, void* out,
                                         int threads);
VMKLA_API int vmkla_cpu_bspline_backward(int64_t count, int64_t rows, int64_t knots, int64_t order, float grid_min,
                                          float grid_step, const float* x, const float* grid, const float* grad_out,
                                          float* grad_x, int threads);
