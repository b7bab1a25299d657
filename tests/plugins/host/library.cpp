#include "library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <iostream>

namespace host {
namespace {

template <typename Function>
void look_up(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function != nullptr) return;
  std::cout << library_path() << " has no " << name << "\n";
  std::exit(1);
}

}  // namespace

std::string& library_path() {
  static std::string path;
  return path;
}

Library::Library() : handle(dlopen(library_path().c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle == nullptr) {
    std::cout << dlerror() << "\n";
    std::exit(1);
  }
  look_up(handle, "getCreators", get_creators);
  look_up(handle, "setLoggerFinder", set_logger_finder);
  look_up(handle, "vmkla_tensorrt_version", version);
}

Session::Session() {
  library.set_logger_finder(&finder);
  int32_t count = 0;
  library.get_creators(count);  // says that it ends the library's own registration
  logger.lines.clear();
  finder.calls = 0;
}

nv::IPluginCreatorV3One* Session::creator(const char* name) {
  int32_t count = 0;
  nv::IPluginCreatorInterface* const* list = library.get_creators(count);
  for (int32_t i = 0; i < count; ++i) {
    auto* one = static_cast<nv::IPluginCreatorV3One*>(list[i]);
    if (std::string(one->getPluginName()) == name) return one;
  }
  std::cout << "there is no creator " << name << "\n";
  std::exit(1);
}

std::unique_ptr<nv::IPluginV3> Session::create(const char* name, Fields& fields, nv::TensorRTPhase phase) {
  return std::unique_ptr<nv::IPluginV3>(creator(name)->createPlugin("node", fields.collection(), phase));
}

std::unique_ptr<nv::IPluginV3> Session::scan() {
  Fields none;
  return create("SelectiveScan2d", none);
}

std::unique_ptr<nv::IPluginV3> Session::spline(int32_t order, int32_t uniform) {
  Fields fields = spline_fields(order, uniform);
  return create("BSplineBasis", fields);
}

Fields spline_fields(int32_t order, int32_t uniform, float grid_min, float grid_step) {
  Fields fields;
  fields.add<int32_t>("order", nv::PluginFieldType::kINT32, {order})
      .add<int32_t>("uniform", nv::PluginFieldType::kINT32, {uniform})
      .add<float>("grid_min", nv::PluginFieldType::kFLOAT32, {grid_min})
      .add<float>("grid_step", nv::PluginFieldType::kFLOAT32, {grid_step});
  return fields;
}

nv::IPluginV3OneCore& core(nv::IPluginV3& plugin) {
  return *static_cast<nv::IPluginV3OneCore*>(plugin.getCapabilityInterface(nv::PluginCapabilityType::kCORE));
}
nv::IPluginV3OneBuild& build(nv::IPluginV3& plugin) {
  return *static_cast<nv::IPluginV3OneBuild*>(plugin.getCapabilityInterface(nv::PluginCapabilityType::kBUILD));
}
nv::IPluginV3OneRuntime& runtime(nv::IPluginV3& plugin) {
  return *static_cast<nv::IPluginV3OneRuntime*>(plugin.getCapabilityInterface(nv::PluginCapabilityType::kRUNTIME));
}

}  // namespace host
