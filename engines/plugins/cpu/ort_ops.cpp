// ONNX Runtime custom ops of domain "vmkla": SelectiveScan2d and BSplineBasis, for float32 and float16.
// A model's call nodes also carry plugin_namespace and plugin_version, which are TensorRT's and not read here.
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "ort_abi.h"

namespace vmkla::ort {
namespace {

using Shape = std::vector<int64_t>;

// A file can name any number; sums and multiples of one up to here cannot overflow.
constexpr int64_t kMost = INT32_MAX;

// Something about the node or its inputs is wrong; becomes an OrtStatus at the ABI's edge.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Takes a status of the runtime over, and throws unless it says success.
void check(const OrtApi& api, OrtStatus* status, const char* what) {
  if (status == nullptr) return;
  const std::string message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw Refusal(std::string(what) + ": " + message);
}

// Runs `body` and turns what it throws into a status: no exception may cross a C ABI.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, const char* op, const Body& body) {
  const auto message = [&](const std::exception& error) { return std::string("vmkla ") + op + ": " + error.what(); };
  try {
    body();
    return nullptr;
  } catch (const Refusal& error) {
    return api.CreateStatus(kInvalidArgument, message(error).c_str());
  } catch (const std::exception& error) {
    return api.CreateStatus(kFail, message(error).c_str());
  }
}

std::string text(const Shape& shape) {
  std::string result = "(";
  for (size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + (shape.size() == 1 ? ",)" : ")");
}

int64_t elements(const Shape& shape) {
  // An empty tensor takes no memory, so its other extents may be of any size.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

// One call of a kernel: its inputs, its output and the threads to run on.
class Call {
 public:
  Call(const OrtApi& api, OrtKernelContext* context) : api_(api), context_(context) {}

  struct Tensor {
    Shape shape;
    const void* data;
    const float* floats() const { return static_cast<const float*>(data); }
  };

  Tensor input(size_t index) const {
    const OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetInput(context_, index, &value), "KernelContext_GetInput");
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    check(api_, api_.GetTensorTypeAndShape(value, &raw), "GetTensorTypeAndShape");
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> info(
        raw, api_.ReleaseTensorTypeAndShapeInfo);
    size_t rank = 0;
    check(api_, api_.GetDimensionsCount(info.get(), &rank), "GetDimensionsCount");
    Tensor tensor{Shape(rank), nullptr};
    check(api_, api_.GetDimensions(info.get(), tensor.shape.data(), rank), "GetDimensions");
    // The ABI has one accessor for tensor data, and it wants a mutable value; an input is only read.
    tensor.data = data(const_cast<OrtValue*>(value));
    return tensor;
  }

  void* output(const Shape& shape) const {
    OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value),
          "KernelContext_GetOutput");
    return data(value);
  }

  // Runs `compute(executor)` on the session's own thread pool.
  template <typename Compute>
  void run(const Compute& compute) const {
    struct Host {
      const Call& call;
      OrtStatus* status;
    } host{*this, nullptr};
    const auto run_tasks = [](void* opaque, size_t count, TaskFn task, void* context) {
      Host& h = *static_cast<Host*>(opaque);
      if (h.status != nullptr) return;
      h.status = h.call.api_.KernelContext_ParallelFor(h.call.context_, task, count, 0, context);
    };
    compute(Executor{&host, run_tasks});
    check(api_, host.status, "KernelContext_ParallelFor");
  }

 private:
  void* data(OrtValue* value) const {
    void* result = nullptr;
    check(api_, api_.GetTensorMutableData(value, &result), "GetTensorMutableData");
    return result;
  }

  const OrtApi& api_;
  OrtKernelContext* context_;
};

// One node of a session.
class Kernel {
 public:
  Kernel(const OrtApi& api, Element element) : api(api), element(element) {}
  virtual ~Kernel() = default;
  virtual const char* name() const = 0;
  virtual void compute(const Call& call) const = 0;

  const OrtApi& api;
  const Element element;
};

void expect_rank(const char* input, const Shape& shape, size_t rank, const char* layout) {
  if (shape.size() == rank) return;
  throw Refusal(std::string("input ") + input + " has shape " + text(shape) + ", expected " + layout);
}

class SelectiveScan2d : public Kernel {
 public:
  static constexpr const char* kName = "SelectiveScan2d";
  static constexpr int64_t kRoutes = 4;

  SelectiveScan2d(const OrtApi& api, const OrtKernelInfo*, Element element) : Kernel(api, element) {}
  const char* name() const override { return kName; }

  void compute(const Call& call) const override {
    const auto u = call.input(0), p = call.input(1), dt_weight = call.input(2);
    const auto A = call.input(3), D = call.input(4), delta_bias = call.input(5);
    expect_rank("u", u.shape, 4, "(b, H, W, d)");
    expect_rank("A", A.shape, 3, "(4, n, d)");
    expect_rank("dt_weight", dt_weight.shape, 3, "(4, R, d)");
    const int64_t b = u.shape[0], H = u.shape[1], W = u.shape[2], d = u.shape[3];
    const int64_t n = A.shape[1], R = dt_weight.shape[1];
    if (n > kMost || R > kMost) {
      throw Refusal("input A has shape " + text(A.shape) + " and dt_weight " + text(dt_weight.shape) +
                    ", expected n and R of at most " + std::to_string(kMost));
    }
    const auto expect = [&](const char* input, const Shape& seen, const Shape& expected, const char* layout) {
      if (seen == expected) return;
      throw Refusal(std::string("input ") + input + " has shape " + text(seen) + ", expected " + text(expected) +
                    " = " + layout + " beside u " + text(u.shape) + ", n = " + std::to_string(n) +
                    " (from A) and R = " + std::to_string(R) + " (from dt_weight)");
    };
    expect("p", p.shape, {b, H, W, kRoutes * (2 * n + R)}, "(b, H, W, 4 (2n + R))");
    expect("dt_weight", dt_weight.shape, {kRoutes, R, d}, "(4, R, d)");
    expect("A", A.shape, {kRoutes, n, d}, "(4, n, d)");
    expect("D", D.shape, {d}, "(d,)");
    expect("delta_bias", delta_bias.shape, {kRoutes, d}, "(4, d)");

    void* y = call.output(u.shape);
    if (elements(u.shape) == 0) return;
    call.run([&](const Executor& executor) {
      scan2d_forward({b, H, W, d, n, R, element, u.data, p.data, dt_weight.data, A.floats(), D.floats(),
                      delta_bias.floats(), y},
                     executor);
    });
  }
};

class BSplineBasis : public Kernel {
 public:
  static constexpr const char* kName = "BSplineBasis";

  BSplineBasis(const OrtApi& api, const OrtKernelInfo* info, Element element) : Kernel(api, element) {
    int64_t uniform = 0;
    check(api, api.KernelInfoGetAttribute_int64(info, "order", &order_), "attribute order (an int) cannot be read");
    check(api, api.KernelInfoGetAttribute_int64(info, "uniform", &uniform),
          "attribute uniform (an int) cannot be read");
    check(api, api.KernelInfoGetAttribute_float(info, "grid_min", &grid_min_),
          "attribute grid_min (a float) cannot be read");
    check(api, api.KernelInfoGetAttribute_float(info, "grid_step", &grid_step_),
          "attribute grid_step (a float) cannot be read");
    if (order_ < 1 || order_ > kMost) {
      throw Refusal("attribute order is " + std::to_string(order_) + ", expected 1 to " + std::to_string(kMost));
    }
    if (uniform == 0) {
      grid_min_ = grid_step_ = 0.0f;
    } else if (!(grid_step_ > 0.0f)) {
      throw Refusal("attribute grid_step is " + std::to_string(grid_step_) +
                    ", expected more than 0 with uniform knots");
    }
  }
  const char* name() const override { return kName; }

  void compute(const Call& call) const override {
    const auto x = call.input(0), grid = call.input(1);
    if (x.shape.empty()) throw Refusal("input x is a scalar, expected (..., in)");
    const int64_t in = x.shape.back();
    const bool per_feature = grid.shape.size() == 2;
    if (grid.shape.size() < 1 || grid.shape.size() > 2 || (per_feature && grid.shape[0] != in)) {
      throw Refusal("input grid has shape " + text(grid.shape) + ", expected (knots,) or (" + std::to_string(in) +
                    ", knots) beside x " + text(x.shape));
    }
    const int64_t knots = grid.shape.back();
    if (knots < 2 * order_ + 2) {
      throw Refusal("input grid has shape " + text(grid.shape) + ", expected at least " +
                    std::to_string(2 * order_ + 2) + " knots for order " + std::to_string(order_));
    }
    if (per_feature && grid_step_ > 0.0f) {
      throw Refusal("input grid has shape " + text(grid.shape) + ", expected (knots,) when attribute uniform is set");
    }
    Shape out_shape = x.shape;
    out_shape.push_back(knots - order_ - 1);
    if (grid_step_ > 0.0f) expect_uniform(grid.floats(), knots);
    void* out = call.output(out_shape);
    const int64_t count = elements(x.shape);
    if (count == 0) return;
    call.run([&](const Executor& executor) {
      bspline_forward({count, per_feature ? in : 1, knots, order_, element, grid_min_, grid_step_, x.data,
                       grid.floats(), out},
                      executor);
    });
  }

 private:
  // The fast path never reads the knots, so attributes that contradict them would give wrong values silently.
  void expect_uniform(const float* grid, int64_t knots) const {
    for (int64_t i = 0; i < knots; ++i) {
      const float knot = grid_min_ + grid_step_ * static_cast<float>(i);
      const float rounding = 1e-6f * (std::fabs(grid_min_) + std::fabs(knot));
      if (std::fabs(grid[i] - knot) <= 1e-3f * grid_step_ + rounding) continue;
      throw Refusal("knot " + std::to_string(i) + " of input grid is " + std::to_string(grid[i]) + ", expected " +
                    std::to_string(knot) + " from attributes grid_min and grid_step");
    }
  }

  int64_t order_ = 0;
  float grid_min_ = 0.0f, grid_step_ = 0.0f;
};

// One overload of an op as the runtime sees it. `halves` says which inputs have the element type of the
// overload; the others are always float32.
struct Overload : OrtCustomOp {
  const char* op_name;
  Element element;
  std::vector<bool> halves;

  int type(bool half) const { return half && element == Element::kFloat16 ? kFloat16 : kFloat; }
};

const Overload& overload(const OrtCustomOp* op) { return *static_cast<const Overload*>(op); }

template <typename Op>
Overload make_overload(Element element, std::initializer_list<bool> halves) {
  Overload op{};
  op.op_name = Op::kName;
  op.element = element;
  op.halves = halves;
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp* self) { return overload(self).op_name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputTypeCount = [](const OrtCustomOp* self) { return overload(self).halves.size(); };
  op.GetInputType = [](const OrtCustomOp* self, size_t i) { return overload(self).type(overload(self).halves[i]); };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return overload(self).type(true); };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return kRequired; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return kRequired; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return kDefaultMemory; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    return guarded(*api, Op::kName, [&] {
      *kernel = static_cast<Kernel*>(new Op(*api, info, overload(self).element));
    });
  };
  op.KernelComputeV2 = [](void* opaque, OrtKernelContext* context) {
    const Kernel& kernel = *static_cast<const Kernel*>(opaque);
    return guarded(kernel.api, kernel.name(), [&] { kernel.compute(Call(kernel.api, context)); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

// The domain with its ops, made once for each runtime in the process. Sessions hold bare pointers to it
// that may outlive static destruction, so it is never freed.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static const auto& overloads = *new std::vector<Overload>{
      make_overload<SelectiveScan2d>(Element::kFloat32, {true, true, true, false, false, false}),
      make_overload<SelectiveScan2d>(Element::kFloat16, {true, true, true, false, false, false}),
      make_overload<BSplineBasis>(Element::kFloat32, {true, false}),
      make_overload<BSplineBasis>(Element::kFloat16, {true, false}),
  };
  static auto& domains = *new std::map<const OrtApi*, OrtCustomOpDomain*>;
  static auto& mutex = *new std::mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  OrtCustomOpDomain*& known = domains[&api];
  if (known == nullptr) {
    OrtCustomOpDomain* domain = nullptr;
    check(api, api.CreateCustomOpDomain("vmkla", &domain), "CreateCustomOpDomain");
    for (const Overload& op : overloads) check(api, api.CustomOpDomain_Add(domain, &op), "CustomOpDomain_Add");
    known = domain;
  }
  return known;
}

}  // namespace
}  // namespace vmkla::ort

// The entry point that ONNX Runtime looks up by name in a custom-op library.
extern "C" __attribute__((visibility("default"))) vmkla::ort::OrtStatus* RegisterCustomOps(
    vmkla::ort::OrtSessionOptions* options, const vmkla::ort::OrtApiBase* base) {
  using namespace vmkla::ort;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    // An older runtime still has the first slots, and a status is what it listens to: without one
    // the session would silently run the function bodies.
    const std::string message = std::string("the vmkla kernels need ONNX Runtime ") + kOldestRuntime +
                                " or newer, and this one is " + base->GetVersionString();
    return base->GetApi(1)->CreateStatus(kFail, message.c_str());
  }
  return guarded(*api, "registration", [&] {
    check(*api, api->AddCustomOpDomain(options, domain_of(*api)), "AddCustomOpDomain");
  });
}
