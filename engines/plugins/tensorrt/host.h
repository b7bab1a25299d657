// The TensorRT of this process. The plugin library links none; what it needs it asks of the loader.
#pragma once
#include <NvInferRuntime.h>

namespace vmkla::tensorrt {

// The headers that this library was compiled with, as getInferLibVersion counts: 10.3.0 is 100300.
constexpr int32_t kHeadersVersion = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;

// Whether code at `address` belongs to a TensorRT of the headers' major version. ILogger, ILoggerFinder and
// IPluginRegistry have other virtual tables in another one, and a call through the wrong table ends the process.
bool is_host(const void* address) noexcept;

// The registry of the process's TensorRT of that major version; a program that opens plugins before it loads TensorRT
// (Polygraphy does) gets it loaded, as by a library that links it. Null when there is none.
nvinfer1::IPluginRegistry* host_registry() noexcept;

}  // namespace vmkla::tensorrt
