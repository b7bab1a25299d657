#include "selective_scan2d.h"

#include <algorithm>
#include <new>
#include <string>

#include "../cuda/scan2d_plan.h"
#include "log.h"

namespace vmkla::tensorrt {
namespace {

// Names of the inputs, by position.
constexpr const char* kInputs[] = {"u", "p", "dt_weight", "A", "D", "delta_bias"};
enum Input { kU, kP, kDtWeight, kA, kD, kDeltaBias };

void expect_rank(const Shape* inputs, Input input, int32_t rank, const char* layout) {
  if (inputs[input].rank == rank) return;
  throw Refusal(std::string("input ") + kInputs[input] + " has shape " + text(inputs[input]) + ", expected " + layout);
}

int64_t channels_of_p(int64_t n, int64_t R) {
  return n == kUnknown || R == kUnknown ? kUnknown : SelectiveScan2d::kRoutes * (2 * n + R);
}

std::string extent_text(int64_t extent) { return extent == kUnknown ? "?" : std::to_string(extent); }

bool is_unknown(const Shape& shape) {
  return std::any_of(shape.extent, shape.extent + shape.rank, [](int64_t extent) { return extent == kUnknown; });
}

// Of whole shapes: whether the launcher takes them.
void expect_room(const Shape& u, int64_t n, int64_t R) {
  if (cuda::valid({u.extent[0], u.extent[1], u.extent[2], u.extent[3], n, R})) return;
  throw Refusal("input u has shape " + text(u) + ", expected fewer than 2^31 pixels in an image and 10^17 numbers in u and p");
}

}  // namespace

const nvinfer1::PluginFieldCollection& SelectiveScan2d::field_names() noexcept {
  static const nvinfer1::PluginFieldCollection none{0, nullptr};
  return none;
}

SelectiveScan2d* SelectiveScan2d::from_fields(const nvinfer1::PluginFieldCollection*) { return new SelectiveScan2d(); }

nvinfer1::IPluginV3* SelectiveScan2d::clone() noexcept { return new (std::nothrow) SelectiveScan2d(*this); }

Shape SelectiveScan2d::output_shape(const Shape* inputs) const {
  expect_rank(inputs, kU, 4, "(b, H, W, d)");
  expect_rank(inputs, kDtWeight, 3, "(4, R, d)");
  expect_rank(inputs, kA, 3, "(4, n, d)");
  const Shape& u = inputs[kU];
  const int64_t b = u.extent[0], H = u.extent[1], W = u.extent[2], d = u.extent[3];
  const int64_t n = inputs[kA].extent[1], R = inputs[kDtWeight].extent[1];
  const auto expect = [&](Input input, const Shape& expected, const char* layout) {
    if (compatible(inputs[input], expected)) return;
    throw Refusal(std::string("input ") + kInputs[input] + " has shape " + text(inputs[input]) + ", expected " +
                  text(expected) + " = " + layout + " beside u " + text(u) + ", A " + text(inputs[kA]) +
                  " and dt_weight " + text(inputs[kDtWeight]));
  };
  expect(kP, {4, {b, H, W, channels_of_p(n, R)}}, "(b, H, W, 4 (2n + R))");
  expect(kDtWeight, {3, {kRoutes, R, d}}, "(4, R, d)");
  expect(kA, {3, {kRoutes, n, d}}, "(4, n, d)");
  expect(kD, {1, {d}}, "(d,)");
  expect(kDeltaBias, {2, {kRoutes, d}}, "(4, d)");
  if (d == 0 || n == 0 || R == 0 || d > cuda::kMaxChannels || n > cuda::kMaxStates || R > cuda::kMaxRank) {
    throw Refusal("d = " + extent_text(d) + ", n = " + extent_text(n) + ", R = " + extent_text(R) +
                  ", expected each at least 1, d at most " + std::to_string(cuda::kMaxChannels) + ", n at most " +
                  std::to_string(cuda::kMaxStates) + " and R at most " + std::to_string(cuda::kMaxRank));
  }
  if (!is_unknown(u) && n != kUnknown && R != kUnknown) expect_room(u, n, R);
  return u;
}

void SelectiveScan2d::check_largest(const nvinfer1::DynamicPluginTensorDesc* inputs) const {
  const Shape u = shape_of(inputs[kU].max), A = shape_of(inputs[kA].max), dt_weight = shape_of(inputs[kDtWeight].max);
  // A profile leaves nothing open; what is checked here is what getWorkspaceSize is going to be asked.
  if (u.rank != 4 || A.rank != 3 || dt_weight.rank != 3 || is_unknown(u) || is_unknown(A) || is_unknown(dt_weight)) return;
  expect_room(u, A.extent[1], dt_weight.extent[1]);
}

void SelectiveScan2d::write_output_shape(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs& output,
                                         nvinfer1::IExprBuilder&) const {
  output = inputs[kU];
}

size_t SelectiveScan2d::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t,
                                         const nvinfer1::DynamicPluginTensorDesc*, int32_t) const noexcept {
  // What the profile's largest image needs is enough for every other. configurePlugin has refused what the launcher
  // does not take, which 0 would hide.
  const nvinfer1::Dims &u = inputs[kU].max, &A = inputs[kA].max, &dt_weight = inputs[kDtWeight].max;
  return cuda::scan2d_workspace_bytes(u.d[0], u.d[1], u.d[2], u.d[3], A.d[1], dt_weight.d[1]);
}

int32_t SelectiveScan2d::enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc*,
                                 const void* const* inputs, void* const* outputs, void* workspace,
                                 cudaStream_t stream) noexcept {
  const nvinfer1::Dims& u = in[kU].dims;
  const auto floats = [&](Input input) { return static_cast<const float*>(inputs[input]); };
  cuda::Scan2dArguments arguments{};
  arguments.element = element_of(in[kU].type);
  arguments.b = u.d[0];
  arguments.H = u.d[1];
  arguments.W = u.d[2];
  arguments.d = u.d[3];
  arguments.n = in[kA].dims.d[1];
  arguments.R = in[kDtWeight].dims.d[1];
  arguments.u = inputs[kU];
  arguments.p = inputs[kP];
  arguments.dt_weight = inputs[kDtWeight];
  arguments.A = floats(kA);
  arguments.D = floats(kD);
  arguments.delta_bias = floats(kDeltaBias);
  arguments.y = outputs[0];
  arguments.workspace = workspace;
  return finish(cuda::launch_scan2d(arguments, stream));
}

}  // namespace vmkla::tensorrt
