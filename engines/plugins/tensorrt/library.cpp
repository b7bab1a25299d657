// The library's entry points, and its registration where nobody calls them.
//
// IPluginRegistry::loadLibrary (which trtexec --dynamicPlugins and vmkla build use) opens the library, hands it a
// logger finder and registers what getCreators returns. DeepStream's custom-lib-path, trtexec --staticPlugins and
// Polygraphy only open it: for them it registers itself while it is being opened, as REGISTER_TENSORRT_PLUGIN does, but
// without linking TensorRT. loadLibrary refuses creators that are registered already, so getCreators takes that back,
// and says so: loaded into a registry of a builder's own, the library is then in that one alone. Open it or load it.
//
// The library is linked with -z nodelete and creators are never freed: a registry holds bare pointers to them that may
// outlive dlclose and static destruction.
#include <NvInferRuntime.h>

#include "bspline_basis.h"
#include "creator.h"
#include "host.h"
#include "log.h"
#include "selective_scan2d.h"

namespace vmkla::tensorrt {
namespace {

constexpr int32_t kCreators = 2;

nvinfer1::IPluginCreatorInterface* const* creators() noexcept {
  static auto& scan = *new Creator<SelectiveScan2d>;
  static auto& spline = *new Creator<BSplineBasis>;
  static nvinfer1::IPluginCreatorInterface* const list[kCreators] = {&scan, &spline};
  return list;
}

// Where the library registered itself, and which of them that registry took.
nvinfer1::IPluginRegistry* own_registry = nullptr;
bool registered[kCreators] = {};

__attribute__((constructor)) void register_when_opened() noexcept {
  own_registry = host_registry();
  if (own_registry == nullptr) return;
  for (int32_t i = 0; i < kCreators; ++i) registered[i] = own_registry->registerCreator(*creators()[i], kNamespace);
}

void leave_registration_to_caller() noexcept {
  bool any = false;
  for (int32_t i = 0; i < kCreators; ++i) {
    any = any || registered[i];
    if (registered[i]) own_registry->deregisterCreator(*creators()[i]);
    registered[i] = false;
  }
  if (any) {
    log_info("plugins", "getCreators was called, so the library left TensorRT's global registry, which it had joined "
                        "when it was opened; the caller registers its plugins");
  }
}

}  // namespace
}  // namespace vmkla::tensorrt

extern "C" {

#define VMKLA_EXPORT __attribute__((visibility("default")))

VMKLA_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
  vmkla::tensorrt::leave_registration_to_caller();
  count = vmkla::tensorrt::kCreators;
  return vmkla::tensorrt::creators();
}

VMKLA_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  const bool usable = vmkla::tensorrt::is_host(__builtin_return_address(0));
  vmkla::tensorrt::set_logger_finder(usable ? finder : nullptr);
}

// The TensorRT headers that this library was compiled with, as getInferLibVersion counts: 10.3.0 is 100300. A library
// serves the releases of its major version.
VMKLA_EXPORT int32_t vmkla_tensorrt_version() noexcept { return vmkla::tensorrt::kHeadersVersion; }

}  // extern "C"
