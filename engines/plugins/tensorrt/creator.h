// A creator for one class of plugin, which gives kOp, field_names() and from_fields(fields).
#pragma once
#include <NvInferRuntime.h>

#include "fields.h"
#include "log.h"
#include "plugin.h"

namespace vmkla::tensorrt {

template <class Op>
class Creator : public nvinfer1::IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return Op::kOp; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &Op::field_names(); }

  // Both phases get the same fields: the parser's attributes, or what getFieldsToSerialize returned.
  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    nvinfer1::IPluginV3* plugin = nullptr;
    guarded(Op::kOp, [&] {
      warn_of_unknown_fields(Op::kOp, fields, Op::field_names());
      plugin = Op::from_fields(fields);
    });
    return plugin;
  }
};

}  // namespace vmkla::tensorrt
