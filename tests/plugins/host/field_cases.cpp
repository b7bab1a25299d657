// Fields: what creators take and refuse, and what plugins serialize.
#include <cmath>
#include <limits>

#include "check.h"
#include "library.h"

namespace host {
namespace {

using Type = nv::PluginFieldType;

template <typename T>
T value_of(const nv::PluginField& field) {
  T value;
  std::memcpy(&value, field.data, sizeof(value));
  return value;
}

void expect_serialized(nv::IPluginV3& plugin, int32_t order, int32_t uniform, float grid_min, float grid_step) {
  const nv::PluginFieldCollection* fields = runtime(plugin).getFieldsToSerialize();
  EXPECT(fields != nullptr);
  EXPECT_EQUAL(fields->nbFields, 4);
  const char* const names[] = {"order", "uniform", "grid_min", "grid_step"};
  const Type types[] = {Type::kINT32, Type::kINT32, Type::kFLOAT32, Type::kFLOAT32};
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQUAL(std::string(fields->fields[i].name), names[i]);
    EXPECT(fields->fields[i].type == types[i]);
    EXPECT_EQUAL(fields->fields[i].length, 1);
  }
  EXPECT_EQUAL(value_of<int32_t>(fields->fields[0]), order);
  EXPECT_EQUAL(value_of<int32_t>(fields->fields[1]), uniform);
  EXPECT_EQUAL(value_of<float>(fields->fields[2]), grid_min);
  EXPECT_EQUAL(value_of<float>(fields->fields[3]), grid_step);
}

// Everything but `name` as the ONNX parser hands it over.
Fields fields_without(const std::string& name) {
  Fields fields;
  if (name != "order") fields.add<int32_t>("order", Type::kINT32, {3});
  if (name != "uniform") fields.add<int32_t>("uniform", Type::kINT32, {1});
  if (name != "grid_min") fields.add<float>("grid_min", Type::kFLOAT32, {-2.25f});
  if (name != "grid_step") fields.add<float>("grid_step", Type::kFLOAT32, {0.125f});
  return fields;
}

void expect_refused(Session& session, Fields& fields, const std::string& message) {
  for (const nv::TensorRTPhase phase : {nv::TensorRTPhase::kBUILD, nv::TensorRTPhase::kRUNTIME}) {
    EXPECT(session.create("BSplineBasis", fields, phase) == nullptr);
    const std::string seen = session.logger.take();
    if (seen.find(message) == std::string::npos) EXPECT_EQUAL(seen, message);
  }
}

template <typename Integer>
void expect_integer_type(Session& session, Type type) {
  Fields fields = fields_without("order");
  fields.add<Integer>("order", type, {5});
  const auto plugin = session.create("BSplineBasis", fields);
  EXPECT(plugin != nullptr);
  if (plugin != nullptr) expect_serialized(*plugin, 5, 1, -2.25f, 0.125f);
}

}  // namespace

CASE(field_names) {
  Session session;
  // The ONNX parser passes just the attributes that are named here.
  const nv::PluginFieldCollection* scan = session.creator("SelectiveScan2d")->getFieldNames();
  EXPECT(scan != nullptr && scan->nbFields == 0);
  const nv::PluginFieldCollection* spline = session.creator("BSplineBasis")->getFieldNames();
  EXPECT_EQUAL(spline->nbFields, 4);
  std::string names;
  for (int32_t i = 0; i < spline->nbFields; ++i) names += std::string(spline->fields[i].name) + " ";
  EXPECT_EQUAL(names, "order uniform grid_min grid_step ");
}

CASE(fields_of_every_type) {
  Session session;
  expect_integer_type<int8_t>(session, Type::kINT8);
  expect_integer_type<int16_t>(session, Type::kINT16);
  expect_integer_type<int32_t>(session, Type::kINT32);
  expect_integer_type<int64_t>(session, Type::kINT64);
  Fields fields = fields_without("grid_min");
  fields.add<double>("grid_min", Type::kFLOAT64, {-2.25});
  const auto plugin = session.create("BSplineBasis", fields);
  EXPECT(plugin != nullptr);
  if (plugin != nullptr) expect_serialized(*plugin, 3, 1, -2.25f, 0.125f);
  EXPECT(session.logger.lines.empty());
}

CASE(fields_refused) {
  Session session;
  for (const char* name : {"order", "uniform", "grid_min", "grid_step"}) {
    Fields fields = fields_without(name);
    expect_refused(session, fields, std::string("field ") + name + " is missing");
    const bool integer = std::string(name) == "order" || std::string(name) == "uniform";
    Fields other_type = fields_without(name);
    if (integer) {
      other_type.add<float>(name, Type::kFLOAT32, {1.0f});
    } else {
      other_type.add<int32_t>(name, Type::kINT32, {1});
    }
    expect_refused(session, other_type, std::string("field ") + name + " has PluginFieldType");
    Fields text = fields_without(name);
    text.add<char>(name, Type::kCHAR, {'3'});
    expect_refused(session, text, std::string("field ") + name + " has PluginFieldType 6");
    Fields two = fields_without(name);
    two.add<int32_t>(name, Type::kINT32, {1, 1});
    expect_refused(session, two, std::string("field ") + name + " holds 2 values");
    Fields none = fields_without(name);
    none.add<int32_t>(name, Type::kINT32, {});
    expect_refused(session, none, std::string("field ") + name + " holds 0 values");
    Fields null = fields_without(name);
    null.without_data(name, integer ? Type::kINT32 : Type::kFLOAT32);
    expect_refused(session, null, std::string("field ") + name + " holds 0 values");
  }
  EXPECT(session.creator("BSplineBasis")->createPlugin("node", nullptr, nv::TensorRTPhase::kBUILD) == nullptr);
}

CASE(field_values_refused) {
  Session session;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  for (const int32_t order : {-1, 0, 17}) {
    Fields fields = spline_fields(order);
    expect_refused(session, fields, "field order is " + std::to_string(order));
  }
  Fields wide = fields_without("order");
  wide.add<int64_t>("order", Type::kINT64, {(int64_t{1} << 32) + 3});
  expect_refused(session, wide, "field order is 4294967299");
  Fields neither = spline_fields(3, 2);
  expect_refused(session, neither, "field uniform is 2");
  for (const float step : {0.0f, -0.5f, kNan, kInf}) {
    Fields fields = spline_fields(3, 1, -1.0f, step);
    expect_refused(session, fields, "grid_step");
  }
  for (const float first : {kNan, -kInf}) {
    Fields fields = spline_fields(3, 1, first, 0.5f);
    expect_refused(session, fields, "grid_min");
  }
  // Without uniform knots the two are not looked at.
  Fields unused = spline_fields(2, 0, 0.0f, 0.0f);
  EXPECT(session.create("BSplineBasis", unused) != nullptr);
}

CASE(unknown_fields_are_named) {
  Session session;
  Fields fields = spline_fields();
  fields.add<char>("plugin_namespace", Type::kCHAR, {'v', 'm', 'k', 'l', 'a'})
      .add<char>("plugin_version", Type::kCHAR, {'1'});
  EXPECT(session.create("BSplineBasis", fields) != nullptr);
  EXPECT(session.logger.lines.empty());
  fields.add<int32_t>("ordre", Type::kINT32, {3});
  EXPECT(session.create("BSplineBasis", fields) != nullptr);
  EXPECT_EQUAL(session.logger.lines.size(), 1u);
  EXPECT(session.logger.lines.at(0).first == nv::ILogger::Severity::kWARNING);
  EXPECT(session.logger.take().find("ordre") != std::string::npos);
  Fields scan;
  scan.add<int32_t>("R", Type::kINT32, {3});
  EXPECT(session.create("SelectiveScan2d", scan) != nullptr);
  EXPECT(session.logger.take().find("field R") != std::string::npos);
}

CASE(serialize_round_trip) {
  Session session;
  const float awkward = 0.1f + 1e-7f;
  Fields fields = spline_fields(4, 1, -awkward, awkward);
  const auto first = session.create("BSplineBasis", fields);
  const nv::PluginFieldCollection* serialized = runtime(*first).getFieldsToSerialize();
  const std::unique_ptr<nv::IPluginV3> second(
      session.creator("BSplineBasis")->createPlugin("node", serialized, nv::TensorRTPhase::kRUNTIME));
  EXPECT(second != nullptr);
  if (second != nullptr) expect_serialized(*second, 4, 1, -awkward, awkward);

  const auto scan = session.scan();
  const nv::PluginFieldCollection* nothing = runtime(*scan).getFieldsToSerialize();
  EXPECT(nothing != nullptr && nothing->nbFields == 0);
  const std::unique_ptr<nv::IPluginV3> again(
      session.creator("SelectiveScan2d")->createPlugin("node", nothing, nv::TensorRTPhase::kRUNTIME));
  EXPECT(again != nullptr);
  EXPECT(session.creator("SelectiveScan2d")->createPlugin("node", nullptr, nv::TensorRTPhase::kRUNTIME) != nullptr);
  EXPECT(session.logger.lines.empty());
}

CASE(clones_stand_alone) {
  Session session;
  Fields fields = spline_fields(5, 1, -0.75f, 0.0625f);
  auto original = session.create("BSplineBasis", fields);
  const std::unique_ptr<nv::IPluginV3> clone(original->clone());
  const std::unique_ptr<nv::IPluginV3> attached(runtime(*original).attachToContext(nullptr));
  EXPECT(clone != nullptr && attached != nullptr && clone != original && attached != original);
  const nv::PluginFieldCollection& of_original = *runtime(*original).getFieldsToSerialize();
  for (nv::IPluginV3* copy : {clone.get(), attached.get()}) {
    const nv::PluginFieldCollection& own = *runtime(*copy).getFieldsToSerialize();
    EXPECT(&own != &of_original && own.fields != of_original.fields);
    for (int32_t i = 0; i < own.nbFields; ++i) EXPECT(own.fields[i].data != of_original.fields[i].data);
  }
  original.reset();
  // Their fields point into themselves, not into what was freed.
  expect_serialized(*clone, 5, 1, -0.75f, 0.0625f);
  expect_serialized(*attached, 5, 1, -0.75f, 0.0625f);
  const auto scan = session.scan();
  const std::unique_ptr<nv::IPluginV3> scan_clone(scan->clone()), scan_attached(runtime(*scan).attachToContext(nullptr));
  EXPECT(scan_clone != nullptr && scan_attached != nullptr && scan_clone != scan);
}

CASE(timing_cache_tells_plugins_apart) {
  Session session;
  const auto cubic = session.spline(3, 0), same = session.spline(3, 0), quadratic = session.spline(2, 0);
  const auto id = [](nv::IPluginV3& plugin) { return std::string(build(plugin).getTimingCacheID()); };
  EXPECT_EQUAL(id(*cubic), id(*same));
  EXPECT(id(*cubic) != id(*quadratic));
  EXPECT(id(*cubic).find("order=3") != std::string::npos);
  EXPECT(!id(*session.scan()).empty());
  EXPECT_EQUAL(build(*cubic).getNbTactics(), 0);
  EXPECT_EQUAL(runtime(*cubic).setTactic(0), 0);
}

}  // namespace host
