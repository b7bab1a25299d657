#include "fields.h"

#include <cstring>
#include <string>

#include "log.h"

namespace vmkla::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

bool is_named(const PluginField& field, const char* name) {
  return field.name != nullptr && std::strcmp(field.name, name) == 0;
}

const PluginField& only_value(const PluginFieldCollection* fields, const char* name, const char* kind) {
  for (int32_t i = 0; fields != nullptr && fields->fields != nullptr && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (!is_named(field, name)) continue;
    if (field.length == 1 && field.data != nullptr) return field;
    throw Refusal(std::string("field ") + name + " holds " + std::to_string(field.data == nullptr ? 0 : field.length) +
                  " values, expected one " + kind);
  }
  throw Refusal(std::string("field ") + name + " is missing, expected " + kind);
}

Refusal wrong_type(const PluginField& field, const char* kind) {
  return Refusal(std::string("field ") + field.name + " has PluginFieldType " +
                 std::to_string(static_cast<int32_t>(field.type)) + ", expected " + kind);
}

// A field's data need not be aligned.
template <typename Value>
Value value_of(const PluginField& field) {
  Value value;
  std::memcpy(&value, field.data, sizeof(value));
  return value;
}

constexpr const char* kInteger = "an integer (int8, int16, int32 or int64)";
constexpr const char* kFloat = "a float (float32 or float64)";

}  // namespace

int64_t integer_field(const PluginFieldCollection* fields, const char* name) {
  const PluginField& field = only_value(fields, name, kInteger);
  switch (field.type) {
    case PluginFieldType::kINT8: return value_of<int8_t>(field);
    case PluginFieldType::kINT16: return value_of<int16_t>(field);
    case PluginFieldType::kINT32: return value_of<int32_t>(field);
    case PluginFieldType::kINT64: return value_of<int64_t>(field);
    default: throw wrong_type(field, kInteger);
  }
}

float float_field(const PluginFieldCollection* fields, const char* name) {
  const PluginField& field = only_value(fields, name, kFloat);
  switch (field.type) {
    case PluginFieldType::kFLOAT32: return value_of<float>(field);
    case PluginFieldType::kFLOAT64: return static_cast<float>(value_of<double>(field));
    default: throw wrong_type(field, kFloat);
  }
}

void warn_of_unknown_fields(const char* op, const PluginFieldCollection* fields, const PluginFieldCollection& known) {
  for (int32_t i = 0; fields != nullptr && fields->fields != nullptr && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    // Every node has these two; a parser that hands all attributes on means no harm.
    bool expected = is_named(field, "plugin_namespace") || is_named(field, "plugin_version");
    for (int32_t k = 0; k < known.nbFields; ++k) expected = expected || is_named(field, known.fields[k].name);
    if (expected) continue;
    const std::string name = field.name == nullptr ? "without a name" : field.name;
    log_warning(op, ("field " + name + " is not one of this plugin's and has no effect").c_str());
  }
}

}  // namespace vmkla::tensorrt
