#include "plugin.h"

#include <cstdio>
#include <string>

#include "log.h"

namespace vmkla::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kRefused = 1;

int32_t status_of(bool accepted) { return accepted ? 0 : kRefused; }

bool is_float(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF; }

std::string text(DataType type) {
  if (type == DataType::kFLOAT) return "FP32";
  if (type == DataType::kHALF) return "FP16";
  return "DataType " + std::to_string(static_cast<int32_t>(type));
}

}  // namespace

nvinfer1::IPluginCapability* Plugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

void Plugin::expect_counts(int32_t inputs, int32_t outputs) const {
  if (inputs == inputs_ && outputs == 1) return;
  throw Refusal("there are " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
                " outputs, expected " + std::to_string(inputs_) + " and 1");
}

void Plugin::expect_type(int32_t position, DataType seen, DataType of_input_0) const {
  const std::string input = "input " + std::to_string(position);
  if (position == 0) {
    if (!is_float(seen)) throw Refusal(input + " is " + text(seen) + ", expected FP32 or FP16");
  } else if (follows_input_0(position)) {
    if (seen != of_input_0) throw Refusal(input + " is " + text(seen) + ", expected " + text(of_input_0) + " as input 0");
  } else if (seen != DataType::kFLOAT) {
    throw Refusal(input + " is " + text(seen) + ", expected FP32");
  }
}

int32_t Plugin::getOutputDataTypes(DataType* output_types, int32_t outputs, const DataType* input_types,
                                   int32_t inputs) const noexcept {
  return status_of(guarded(op_, [&] {
    expect_counts(inputs, outputs);
    for (int32_t i = 0; i < inputs; ++i) expect_type(i, input_types[i], input_types[0]);
    output_types[0] = input_types[0];
  }));
}

int32_t Plugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs*,
                                int32_t shape_count, nvinfer1::DimsExprs* outputs, int32_t output_count,
                                nvinfer1::IExprBuilder& builder) noexcept {
  return status_of(guarded(op_, [&] {
    expect_counts(input_count, output_count);
    if (shape_count != 0) throw Refusal("there are " + std::to_string(shape_count) + " shape inputs, expected none");
    Shape shapes[kMaxInputs];
    for (int32_t i = 0; i < input_count; ++i) shapes[i] = shape_of(inputs[i]);
    output_shape(shapes);
    write_output_shape(inputs, outputs[0], builder);
  }));
}

bool Plugin::supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                       int32_t inputs, int32_t outputs) noexcept {
  if (inputs != inputs_ || outputs != 1 || position < 0 || position > inputs) return false;
  const PluginTensorDesc& tensor = tensors[position].desc;
  if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
  if (position == 0) return is_float(tensor.type);
  const bool follows = position == inputs || follows_input_0(position);
  return tensor.type == (follows ? tensors[0].desc.type : DataType::kFLOAT);
}

Shape Plugin::checked_output(const PluginTensorDesc* const* in, const PluginTensorDesc& out) const {
  Shape shapes[kMaxInputs];
  for (int32_t i = 0; i < inputs_; ++i) {
    expect_type(i, in[i]->type, in[0]->type);
    shapes[i] = shape_of(in[i]->dims);
  }
  if (out.type != in[0]->type) throw Refusal("the output is " + text(out.type) + ", expected " + text(in[0]->type));
  const Shape expected = output_shape(shapes), seen = shape_of(out.dims);
  if (compatible(expected, seen)) return expected;
  throw Refusal("the output has shape " + tensorrt::text(seen) + ", expected " + tensorrt::text(expected));
}

int32_t Plugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t inputs,
                                const nvinfer1::DynamicPluginTensorDesc* out, int32_t outputs) noexcept {
  return status_of(guarded(op_, [&] {
    expect_counts(inputs, outputs);
    const PluginTensorDesc* descriptions[kMaxInputs];
    for (int32_t i = 0; i < inputs; ++i) descriptions[i] = &in[i].desc;
    checked_output(descriptions, out[0].desc);
    check_largest(in);
  }));
}

int32_t Plugin::onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                              int32_t outputs) noexcept {
  return status_of(guarded(op_, [&] {
    expect_counts(inputs, outputs);
    const PluginTensorDesc* descriptions[kMaxInputs];
    for (int32_t i = 0; i < inputs; ++i) descriptions[i] = &in[i];
    const Shape shape = checked_output(descriptions, out[0]);
    for (int32_t i = 0; i < shape.rank; ++i) {
      if (shape.extent[i] != kUnknown) continue;
      throw Refusal("the output's shape is " + tensorrt::text(shape) + " at run time, expected to know it whole");
    }
  }));
}

int32_t Plugin::finish(cudaError_t status) const noexcept {
  if (status != cudaSuccess) {
    char message[256];
    std::snprintf(message, sizeof(message), "%s (%s)", cudaGetErrorName(status), cudaGetErrorString(status));
    log_error(op_, message);
  }
  return static_cast<int32_t>(status);
}

}  // namespace vmkla::tensorrt
