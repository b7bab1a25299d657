// SelectiveScan2d: inputs (u, p, dt_weight, A, D, delta_bias), output y. Definition: vmkla/ops/scan.py.
#pragma once
#include "plugin.h"

namespace vmkla::tensorrt {

class SelectiveScan2d : public Plugin {
 public:
  static constexpr const char* kOp = "SelectiveScan2d";
  static constexpr int64_t kRoutes = 4;

  // It has none: R and n follow from the shapes.
  static const nvinfer1::PluginFieldCollection& field_names() noexcept;
  static SelectiveScan2d* from_fields(const nvinfer1::PluginFieldCollection* fields);

  SelectiveScan2d() : Plugin(kOp, 6) {}

  const char* getPluginName() const noexcept override { return kOp; }
  nvinfer1::IPluginV3* clone() noexcept override;
  const char* getTimingCacheID() noexcept override { return "scan"; }
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return &field_names(); }

 protected:
  bool follows_input_0(int32_t index) const noexcept override { return index < 3; }
  Shape output_shape(const Shape* inputs) const override;
  void check_largest(const nvinfer1::DynamicPluginTensorDesc* inputs) const override;
  void write_output_shape(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs& output,
                          nvinfer1::IExprBuilder& builder) const override;
};

}  // namespace vmkla::tensorrt
