#include "log.h"

#include <atomic>
#include <cstdio>

namespace vmkla::tensorrt {
namespace {

using Severity = nvinfer1::ILogger::Severity;

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

void log(Severity severity, const char* op, const char* message) noexcept {
  char text[1024];
  std::snprintf(text, sizeof(text), "vmkla %s: %s", op, message);
  nvinfer1::ILoggerFinder* finder = logger_finder.load();
  if (finder != nullptr) {
    try {
      // Each time anew: the finder answers for the thread that called the plugin.
      if (nvinfer1::ILogger* logger = finder->findLogger()) {
        logger->log(severity, text);
        return;
      }
    } catch (...) {
      std::fprintf(stderr, "vmkla: TensorRT's logger finder threw\n");
    }
  }
  std::fprintf(stderr, "%s\n", text);
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept { logger_finder.store(finder); }

void log_error(const char* op, const char* message) noexcept { log(Severity::kERROR, op, message); }
void log_warning(const char* op, const char* message) noexcept { log(Severity::kWARNING, op, message); }
void log_info(const char* op, const char* message) noexcept { log(Severity::kINFO, op, message); }

}  // namespace vmkla::tensorrt
