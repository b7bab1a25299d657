// What the two plugins have in common: IPluginV3 with its three capabilities. A plugin has one output; its inputs are
// those of the ONNX node. Linear format only; input 0 chooses between FP32 and FP16, and says so for the output.
#pragma once
#include <NvInferRuntime.h>

#include "../cuda/launch.h"
#include "shape.h"

namespace vmkla::tensorrt {

constexpr const char* kNamespace = "vmkla";
constexpr const char* kVersion = "1";

class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
 public:
  static constexpr int32_t kMaxInputs = 6;

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;

  // IPluginV3OneCore
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t outputs, const nvinfer1::DataType* input_types,
                             int32_t inputs) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count, const nvinfer1::DimsExprs* shapes,
                          int32_t shape_count, nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t inputs,
                          const nvinfer1::DynamicPluginTensorDesc* out, int32_t outputs) noexcept override;

  // IPluginV3OneRuntime
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t inputs, const nvinfer1::PluginTensorDesc* out,
                        int32_t outputs) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

 protected:
  Plugin(const char* op, int32_t inputs) : op_(op), inputs_(inputs) {}

  // Whether input `index` has the type of input 0; otherwise it is FP32.
  virtual bool follows_input_0(int32_t index) const noexcept = 0;
  // The output's shape; throws Refusal when the inputs do not fit together as far as they are known.
  virtual Shape output_shape(const Shape* inputs) const = 0;
  // Throws Refusal when the largest shapes of a profile are more than enqueue takes.
  virtual void check_largest(const nvinfer1::DynamicPluginTensorDesc*) const {}
  // The same as output_shape in expressions, for inputs that were checked.
  virtual void write_output_shape(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs& output,
                                  nvinfer1::IExprBuilder& builder) const = 0;

  const char* op() const { return op_; }
  // What enqueue returns: 0, or the CUDA error after a message.
  int32_t finish(cudaError_t status) const noexcept;

 private:
  void expect_counts(int32_t inputs, int32_t outputs) const;
  void expect_type(int32_t position, nvinfer1::DataType seen, nvinfer1::DataType of_input_0) const;
  Shape checked_output(const nvinfer1::PluginTensorDesc* const* in, const nvinfer1::PluginTensorDesc& out) const;

  const char* op_;
  int32_t inputs_;
};

inline cuda::Element element_of(nvinfer1::DataType type) {
  return type == nvinfer1::DataType::kHALF ? cuda::Element::kHalf : cuda::Element::kFloat;
}

}  // namespace vmkla::tensorrt
