// Messages of the plugin library: to the logger of the TensorRT that called it, else to stderr.
#pragma once
#include <NvInferRuntime.h>

#include <stdexcept>
#include <string>

namespace vmkla::tensorrt {

// Something about a node, its fields or its tensors is wrong; becomes a message and a return code at the ABI's edge.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Null: messages go to stderr.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;
void log_error(const char* op, const char* message) noexcept;
void log_warning(const char* op, const char* message) noexcept;
void log_info(const char* op, const char* message) noexcept;

// Runs `body`, logs what it throws, and says whether it came to its end: no exception may cross the ABI.
template <typename Body>
bool guarded(const char* op, const Body& body) noexcept {
  try {
    body();
    return true;
  } catch (const std::exception& error) {
    log_error(op, error.what());
  } catch (...) {
    log_error(op, "unknown error");
  }
  return false;
}

}  // namespace vmkla::tensorrt
