// Reading the fields that a creator is handed: the ONNX parser's (int32, float32, char), Python's (also int64,
// float64) and those that this library serialized itself.
#pragma once
#include <NvInferRuntime.h>

namespace vmkla::tensorrt {

// Both throw Refusal when the field is missing, holds not exactly one value, or is of another type.
int64_t integer_field(const nvinfer1::PluginFieldCollection* fields, const char* name);
float float_field(const nvinfer1::PluginFieldCollection* fields, const char* name);

// Says so when there are fields with other names than those that `known` lists: they have no effect.
void warn_of_unknown_fields(const char* op, const nvinfer1::PluginFieldCollection* fields,
                            const nvinfer1::PluginFieldCollection& known);

}  // namespace vmkla::tensorrt
