// The plugin library under test, opened as TensorRT opens it.
#pragma once
#include <NvInferRuntime.h>

#include <memory>
#include <string>

#include "standins.h"

namespace host {

std::string& library_path();

// Opens the library and looks its entry points up; ends the program when one is missing.
struct Library {
  Library();
  nv::IPluginCreatorInterface* const* (*get_creators)(int32_t&);
  void (*set_logger_finder)(nv::ILoggerFinder*);
  int32_t (*version)();
  void* handle;
};

// The library with a logger, after getCreators: what most cases begin with.
struct Session {
  Session();
  nv::IPluginCreatorV3One* creator(const char* name);
  std::unique_ptr<nv::IPluginV3> create(const char* name, Fields& fields,
                                        nv::TensorRTPhase phase = nv::TensorRTPhase::kBUILD);
  std::unique_ptr<nv::IPluginV3> scan();
  std::unique_ptr<nv::IPluginV3> spline(int32_t order = 3, int32_t uniform = 0);

  Logger logger;
  LoggerFinder finder{&logger};
  Library library;
};

Fields spline_fields(int32_t order = 3, int32_t uniform = 1, float grid_min = -2.25f, float grid_step = 0.125f);

nv::IPluginV3OneCore& core(nv::IPluginV3& plugin);
nv::IPluginV3OneBuild& build(nv::IPluginV3& plugin);
nv::IPluginV3OneRuntime& runtime(nv::IPluginV3& plugin);

// The sizes of a scan, and its tensors' extents in the order of the inputs.
struct ScanSizes {
  int64_t b = 2, H = 8, W = 6, d = 32, n = 16, R = 4;
  std::vector<std::vector<int64_t>> inputs() const {
    return {{b, H, W, d}, {b, H, W, 4 * (2 * n + R)}, {4, R, d}, {4, n, d}, {d}, {4, d}};
  }
};

// The type of a scan's input for an element type.
inline nv::DataType scan_type(size_t input, nv::DataType element) { return input < 3 ? element : nv::DataType::kFLOAT; }

}  // namespace host
