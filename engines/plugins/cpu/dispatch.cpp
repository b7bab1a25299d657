// Picks the instruction set once, turns half tensors into float ones, and splits the work into tasks.
#include <algorithm>
#include <cstring>
#include <vector>

#include "half.h"
#include "isa.h"
#include "kernels.h"

namespace vmkla {
namespace {

struct Candidate {
  const IsaKernels* kernels;
  bool runs_here;
};

std::vector<Candidate> candidates() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return {{kAvx512Kernels, avx512}, {kAvx2Kernels, avx2}, {kBaselineKernels, true}};
#else
  return {{kBaselineKernels, true}};
#endif
}

const IsaKernels* fastest() {
  for (const Candidate& candidate : candidates()) {
    if (candidate.runs_here) return candidate.kernels;
  }
  return kBaselineKernels;
}

const IsaKernels*& current() {
  static const IsaKernels* kernels = fastest();
  return kernels;
}

// A float view of a tensor: the tensor itself, or a converted copy.
class FloatInput {
 public:
  FloatInput(const void* data, Element element, int64_t count) : data_(static_cast<const float*>(data)) {
    if (element == Element::kFloat16) {
      copy_.resize(static_cast<size_t>(count));
      half_to_float(static_cast<const uint16_t*>(data), copy_.data(), copy_.size());
      data_ = copy_.data();
    }
  }
  const float* data() const { return data_; }

 private:
  const float* data_;
  std::vector<float> copy_;
};

class FloatOutput {
 public:
  FloatOutput(void* data, Element element, int64_t count) : target_(data), element_(element) {
    if (element == Element::kFloat16) copy_.resize(static_cast<size_t>(count));
  }
  float* data() { return element_ == Element::kFloat16 ? copy_.data() : static_cast<float*>(target_); }
  void finish() {
    if (element_ == Element::kFloat16) float_to_half(copy_.data(), static_cast<uint16_t*>(target_), copy_.size());
  }

 private:
  void* target_;
  Element element_;
  std::vector<float> copy_;
};

template <class F>
void run_tasks(const Executor& executor, size_t count, const F& body) {
  if (count == 0) return;
  executor.run(executor.host, count, [](void* context, size_t i) { (*static_cast<const F*>(context))(i); },
               const_cast<F*>(&body));
}

// Work on `count` values in ranges of `grain`.
template <class F>
void run_ranges(const Executor& executor, int64_t count, int64_t grain, const F& body) {
  run_tasks(executor, static_cast<size_t>((count + grain - 1) / grain), [&](size_t task) {
    const int64_t begin = static_cast<int64_t>(task) * grain;
    body(begin, std::min(begin + grain, count));
  });
}

constexpr int64_t kGrain = 4096;

}  // namespace

const char* instruction_set() { return current()->name; }

bool set_instruction_set(const char* name) {
  for (const Candidate& candidate : candidates()) {
    if (candidate.runs_here && std::strcmp(candidate.kernels->name, name) == 0) {
      current() = candidate.kernels;
      return true;
    }
  }
  return false;
}

float exp2_loop(const float* x, int64_t count, int64_t repeats) { return current()->exp2_loop(x, count, repeats); }
float recurrence_loop(const float* x, int64_t count, int64_t repeats) {
  return current()->recurrence_loop(x, count, repeats);
}

void scan2d_forward(const Scan2dForward& a, const Executor& executor) {
  const ScanShape shape{a.b, a.H, a.W, a.d, a.n, a.R};
  const int64_t pixels = a.b * shape.pixels();
  if (pixels == 0 || a.d == 0) return;
  const FloatInput u(a.u, a.element, pixels * a.d), p(a.p, a.element, pixels * 4 * (2 * a.n + a.R)),
      dt_weight(a.dt_weight, a.element, 4 * a.R * a.d);
  FloatOutput y(a.y, a.element, pixels * a.d);
  const ScanForwardF32 scan{shape, u.data(), p.data(), dt_weight.data(), a.A, a.D, a.delta_bias, y.data()};
  const IsaKernels* kernels = current();
  run_tasks(executor, kernels->scan_forward_tasks(scan), [&](size_t task) { kernels->scan_forward(scan, task); });
  y.finish();
}

void scan2d_backward(const Scan2dBackward& a, const Executor& executor) {
  const ScanShape shape{a.b, a.H, a.W, a.d, a.n, a.R};
  const bool empty = shape.pixels() == 0;
  const auto parts = [&](int64_t count) { return std::vector<float>(static_cast<size_t>(a.b * count)); };
  std::vector<float> weight = parts(4 * a.R * a.d), A = parts(4 * a.n * a.d), D = parts(a.d), bias = parts(4 * a.d);
  const ScanBackwardF32 scan{shape,    a.grad_y, a.u,           a.p,      a.dt_weight, a.A,        a.D,
                             a.delta_bias, a.grad_u, a.grad_p, weight.data(), A.data(),    D.data(), bias.data()};
  const IsaKernels* kernels = current();
  run_tasks(executor, empty ? 0 : static_cast<size_t>(a.b), [&](size_t image) { kernels->scan_backward(scan, image); });
  // Images are summed in their order, so the result does not depend on the threads.
  const auto sum_images = [&](const std::vector<float>& from, int64_t count, float* out) {
    std::fill(out, out + count, 0.0f);
    for (int64_t image = 0; image < a.b; ++image) {
      for (int64_t i = 0; i < count; ++i) out[i] += from[static_cast<size_t>(image * count + i)];
    }
  };
  sum_images(weight, 4 * a.R * a.d, a.grad_dt_weight);
  sum_images(A, 4 * a.n * a.d, a.grad_A);
  sum_images(D, a.d, a.grad_D);
  sum_images(bias, 4 * a.d, a.grad_delta_bias);
}

void bspline_forward(const BSplineForward& a, const Executor& executor) {
  const int64_t bases = a.knots - a.order - 1;
  const FloatInput x(a.x, a.element, a.count);
  FloatOutput out(a.out, a.element, a.count * bases);
  const BSplineF32 spline{a.count, a.rows,   a.knots,    a.order, a.grid_min, a.grid_step,
                          x.data(), a.grid, out.data(), nullptr, nullptr};
  const IsaKernels* kernels = current();
  run_ranges(executor, a.count, kGrain,
             [&](int64_t begin, int64_t end) { kernels->bspline_forward(spline, begin, end); });
  out.finish();
}

void bspline_backward(const BSplineForward& a, const float* grad_out, float* grad_x, const Executor& executor) {
  const BSplineF32 spline{a.count, a.rows, a.knots,  a.order,  a.grid_min, a.grid_step, static_cast<const float*>(a.x),
                          a.grid,  nullptr, grad_out, grad_x};
  const IsaKernels* kernels = current();
  run_ranges(executor, a.count, kGrain,
             [&](int64_t begin, int64_t end) { kernels->bspline_backward(spline, begin, end); });
}

}  // namespace vmkla
