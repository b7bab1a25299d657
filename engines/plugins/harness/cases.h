// One launch of each op with everything it needs on the device.
#pragma once
#include <random>

#include "device_memory.h"
#include "host_reference.h"

namespace vmkla {
namespace harness {

inline std::vector<float> normal(int64_t count, float deviation, std::mt19937& random) {
  std::normal_distribution<float> distribution(0.0f, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

inline std::vector<float> between(int64_t count, float low, float high, std::mt19937& random) {
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

// Random inputs of the sizes that the networks have: A in [-n, -1/2], biases that make deltas of 0.001 to 1.
inline ScanInputs random_scan(const ScanShape& s, cuda::Element element, unsigned seed) {
  std::mt19937 random(seed);
  ScanInputs in;
  in.u = rounded(normal(s.b * s.pixels() * s.d, 1.0f, random), element);
  in.p = rounded(normal(s.b * s.pixels() * s.width(), 1.0f, random), element);
  in.dt_weight = rounded(normal(4 * s.R * s.d, 1.0f / std::sqrt(static_cast<float>(s.R)), random), element);
  in.A = between(4 * s.n * s.d, -static_cast<float>(s.n), -0.5f, random);
  in.D = normal(s.d, 1.0f, random);
  in.delta_bias = between(4 * s.d, -7.0f, 0.5f, random);
  return in;
}

class ScanCase {
 public:
  ScanCase(const ScanShape& s, cuda::Element element, const ScanInputs& in)
      : element_(element), shape_(s), u_(in.u, element), p_(in.p, element), dt_weight_(in.dt_weight, element),
        A_(in.A, cuda::Element::kFloat), D_(in.D, cuda::Element::kFloat), bias_(in.delta_bias, cuda::Element::kFloat),
        y_(in.u.size() * size_of(element)),
        workspace_(cuda::scan2d_workspace_bytes(s.b, s.H, s.W, s.d, s.n, s.R)) {}

  // Cuts the work from now on as for a GPU of this many multiprocessors; 0: this one.
  void cut_for(int multiprocessors) { multiprocessors_ = multiprocessors; }
  void enqueue(cudaStream_t stream) const {
    const cuda::Scan2dArguments arguments{
        element_,   shape_.b,    shape_.H,          shape_.W,     shape_.d,     shape_.n,        shape_.R,  u_.get(),
        p_.get(),   dt_weight_.get(), A_.floats(),  D_.floats(),  bias_.floats(), y_.get(),      workspace_.get(),
        multiprocessors_};
    check(cuda::launch_scan2d(arguments, stream), "launch_scan2d");
  }
  void poison() {
    y_.poison();
    workspace_.poison();
  }
  std::vector<unsigned char> result() const { return y_.read(); }
  bool guards_hold() const { return y_.guards_hold() && workspace_.guards_hold(); }

 private:
  cuda::Element element_;
  ScanShape shape_;
  int multiprocessors_ = 0;
  DeviceTensor u_, p_, dt_weight_, A_, D_, bias_;
  DeviceMemory y_, workspace_;
};

struct BasisShape {
  int64_t count, knots, order;
  bool uniform;
};

// Rising knots over about [-1, 1] and beyond; evenly spaced where the shape says so.
inline std::vector<float> knots_of(const BasisShape& s, unsigned seed) {
  std::mt19937 random(seed);
  const std::vector<float> extra = between(s.knots, 0.05f, 0.6f, random);
  std::vector<float> knots{-2.2f};
  for (int64_t i = 1; i < s.knots; ++i) {
    knots.push_back(s.uniform ? -2.2f + 0.4f * static_cast<float>(i) : knots.back() + extra[i]);
  }
  return knots;
}

class BasisCase {
 public:
  BasisCase(const BasisShape& s, cuda::Element element, const std::vector<float>& x, const std::vector<float>& knots)
      : element_(element), shape_(s), x_(x, element), knots_(knots, cuda::Element::kFloat),
        bases_(x.size() * static_cast<size_t>(s.knots - s.order - 1) * size_of(element)) {}

  void enqueue(cudaStream_t stream) const {
    const cuda::BsplineArguments arguments{element_, shape_.count, shape_.knots, shape_.order,   shape_.uniform,
                                           -2.2f,    0.4f,         x_.get(),     knots_.floats(), bases_.get()};
    check(cuda::launch_bspline(arguments, stream), "launch_bspline");
  }
  void poison() { bases_.poison(); }
  std::vector<unsigned char> result() const { return bases_.read(); }
  bool guards_hold() const { return bases_.guards_hold(); }

 private:
  cuda::Element element_;
  BasisShape shape_;
  DeviceTensor x_, knots_;
  DeviceMemory bases_;
};

}  // namespace harness
}  // namespace vmkla
