#include "host.h"

#include <dlfcn.h>

// Which library that is. A test sets them to TensorRT-RTX, which installs without a GPU and has a real registry.
#ifndef VMKLA_HOST_LIBRARY
#define VMKLA_HOST_LIBRARY "libnvinfer.so"
#define VMKLA_HOST_MAJOR NV_TENSORRT_MAJOR
#endif

#define VMKLA_TEXT_OF(x) #x
#define VMKLA_TEXT(x) VMKLA_TEXT_OF(x)

namespace vmkla::tensorrt {
namespace {

constexpr const char* kLibrary = VMKLA_HOST_LIBRARY "." VMKLA_TEXT(VMKLA_HOST_MAJOR);

template <typename Function>
Function* function_in(void* scope, const char* name) noexcept {
  return reinterpret_cast<Function*>(dlsym(scope, name));
}

bool has_tensorrt(void* scope) noexcept { return dlsym(scope, "getInferLibVersion") != nullptr; }

bool matches(void* scope) noexcept {
  const auto version = function_in<int32_t()>(scope, "getInferLibVersion");
  return version != nullptr && version() / 10000 == VMKLA_HOST_MAJOR;
}

}  // namespace

bool is_host(const void* address) noexcept {
  Dl_info place{};
  void* library = dladdr(address, &place) != 0 ? dlopen(place.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  // A program that holds TensorRT itself cannot be opened like a library, but is the global scope.
  if (library == nullptr) return matches(RTLD_DEFAULT);
  const bool result = matches(library);
  dlclose(library);
  return result;
}

nvinfer1::IPluginRegistry* host_registry() noexcept {
  // By its name first: Python and GStreamer load libraries out of the global scope. Never closed: its registry is going
  // to hold this library's creators.
  void* library = dlopen(kLibrary, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr && !has_tensorrt(RTLD_DEFAULT)) library = dlopen(kLibrary, RTLD_LAZY);
  void* const scope = library != nullptr ? library : RTLD_DEFAULT;
  if (!matches(scope)) return nullptr;
  const auto get = function_in<nvinfer1::IPluginRegistry*()>(scope, "getPluginRegistry");
  return get == nullptr ? nullptr : get();
}

}  // namespace vmkla::tensorrt
