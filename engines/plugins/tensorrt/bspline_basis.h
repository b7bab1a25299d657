// BSplineBasis: inputs (x, grid), output bases. Definition: vmkla/ops/bspline.py.
#pragma once
#include <string>

#include "plugin.h"

namespace vmkla::tensorrt {

class BSplineBasis : public Plugin {
 public:
  static constexpr const char* kOp = "BSplineBasis";

  // order, uniform (0 or 1), grid_min, grid_step; the last two count only with uniform knots.
  static const nvinfer1::PluginFieldCollection& field_names() noexcept;
  static BSplineBasis* from_fields(const nvinfer1::PluginFieldCollection* fields);

  const char* getPluginName() const noexcept override { return kOp; }
  nvinfer1::IPluginV3* clone() noexcept override;
  const char* getTimingCacheID() noexcept override { return identity_.c_str(); }
  const char* getMetadataString() noexcept override { return identity_.c_str(); }
  int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 protected:
  bool follows_input_0(int32_t) const noexcept override { return false; }
  Shape output_shape(const Shape* inputs) const override;
  void write_output_shape(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs& output,
                          nvinfer1::IExprBuilder& builder) const override;

 private:
  // What is serialized; the fields point into it.
  struct Attributes {
    int32_t order, uniform;
    float grid_min, grid_step;
  };

  explicit BSplineBasis(const Attributes& attributes);
  BSplineBasis(const BSplineBasis& other) : BSplineBasis(other.attributes_) {}

  Attributes attributes_;
  std::string identity_;
  nvinfer1::PluginField fields_[4];
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace vmkla::tensorrt
