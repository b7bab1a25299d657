// What a plugin meets of TensorRT: logger, registry and dimension expressions, each doing what TensorRT's headers say
// of it, and short ways to write tensors and fields.
#pragma once
#include <NvInferRuntime.h>

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace host {

namespace nv = nvinfer1;

constexpr int32_t kHeaders = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;

class Logger : public nv::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    lines.emplace_back(severity, message);
  }
  // The last message's text, and forgets all.
  std::string take() {
    const std::string last = lines.empty() ? "" : lines.back().second;
    lines.clear();
    return last;
  }
  std::vector<std::pair<Severity, std::string>> lines;
};

class LoggerFinder : public nv::ILoggerFinder {
 public:
  explicit LoggerFinder(nv::ILogger* logger) : logger_(logger) {}
  ~LoggerFinder() override = default;
  nv::ILogger* findLogger() override {
    ++calls;
    if (throws) throw std::runtime_error("no logger for this thread");
    return logger_;
  }
  int calls = 0;
  bool throws = false;

 private:
  nv::ILogger* logger_;
};

// A registry that keeps creators by namespace, name and version, and refuses one that it has.
class Registry : public nv::IPluginRegistry {
 public:
  ~Registry() noexcept override = default;
  std::map<std::string, nv::IPluginCreatorInterface*> creators;

  bool registerCreator(nv::IPluginCreatorInterface& creator, const char* name_space) noexcept override;
  bool deregisterCreator(const nv::IPluginCreatorInterface& creator) noexcept override;
  nv::IPluginCreatorInterface* getCreator(const char* name, const char* version,
                                          const char* name_space) noexcept override;
  // As loadLibrary is documented: null when any of the library's creators is registered already.
  PluginLibraryHandle loadLibrary(const char* path) noexcept override;

  // Not asked for by plugins.
  void setErrorRecorder(nv::IErrorRecorder*) noexcept override {}
  nv::IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool isParentSearchEnabled() const override { return false; }
  void setParentSearchEnabled(bool) override {}
  void deregisterLibrary(PluginLibraryHandle) noexcept override {}
  nv::IPluginCreatorInterface* const* getAllCreators(int32_t*) const noexcept override { return nullptr; }
  nv::IPluginResource* acquirePluginResource(const char*, nv::IPluginResource*) noexcept override { return nullptr; }
  int32_t releasePluginResource(const char*) noexcept override { return 0; }
#if NV_TENSORRT_MAJOR >= 11
  nv::IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept override { return nullptr; }
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#if NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 10
  nv::IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept override { return nullptr; }
#endif
  bool registerCreator(nv::IPluginCreator&, const char*) noexcept override { return false; }
  bool deregisterCreator(const nv::IPluginCreator&) noexcept override { return false; }
  nv::IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept override { return nullptr; }
  nv::IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept override { return nullptr; }
#pragma GCC diagnostic pop
#endif
};

// What the program's getInferLibVersion and getPluginRegistry answer.
extern int32_t host_version;
Registry& registry();

// Dimension expressions that compute: a constant, or an unknown with the value that it will have.
class ExprBuilder : public nv::IExprBuilder {
 public:
  ExprBuilder();
  ~ExprBuilder() noexcept override;
  // An extent that is not known while building; `value` is what it turns out to be.
  const nv::IDimensionExpr* unknown(int64_t value);
  nv::DimsExprs dims(const std::vector<int64_t>& extents, const std::vector<bool>& known = {});
  // What an expression comes to once the unknown extents are known.
  static int64_t value(const nv::IDimensionExpr* expression);
  static std::vector<int64_t> values(const nv::DimsExprs& dims);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

nv::Dims dims(const std::vector<int64_t>& extents);
nv::PluginTensorDesc tensor(const std::vector<int64_t>& extents, nv::DataType type,
                            nv::TensorFormat format = nv::TensorFormat::kLINEAR);
// With a profile from `extents` to `max`; an extent that differs is unknown in the description.
nv::DynamicPluginTensorDesc dynamic(const std::vector<int64_t>& extents, const std::vector<int64_t>& max,
                                    nv::DataType type);

// Fields that own their values.
class Fields {
 public:
  template <typename T>
  Fields& add(const std::string& name, nv::PluginFieldType type, std::vector<T> values) {
    std::vector<char>& bytes = data_.emplace_back(values.size() * sizeof(T) + 1);
    // One byte off: a field's data need not be aligned.
    if (!values.empty()) std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
    names_.push_back(name);
    fields_.emplace_back(names_.back().c_str(), bytes.data() + 1, type, static_cast<int32_t>(values.size()));
    return *this;
  }
  Fields& without_data(const std::string& name, nv::PluginFieldType type) {
    names_.push_back(name);
    fields_.emplace_back(names_.back().c_str(), nullptr, type, 1);
    return *this;
  }
  const nv::PluginFieldCollection* collection() {
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
  }

 private:
  std::deque<std::vector<char>> data_;
  std::deque<std::string> names_;
  std::vector<nv::PluginField> fields_;
  nv::PluginFieldCollection collection_{};
};

}  // namespace host
