#include "standins.h"

#include <dlfcn.h>

#include <stdexcept>

namespace host {
namespace {

std::string key(const char* name, const char* version, const char* name_space) {
  return std::string(name_space) + "::" + name + " " + version;
}

std::string key(const nv::IPluginCreatorInterface& creator) {
  if (std::strcmp(creator.getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") != 0) return "";
  const auto& one = static_cast<const nv::IPluginCreatorV3One&>(creator);
  return key(one.getPluginName(), one.getPluginVersion(), one.getPluginNamespace());
}

}  // namespace

int32_t host_version = kHeaders;

Registry& registry() {
  static Registry instance;
  return instance;
}

bool Registry::registerCreator(nv::IPluginCreatorInterface& creator, const char* name_space) noexcept {
  const auto& one = static_cast<nv::IPluginCreatorV3One&>(creator);
  if (std::string(name_space) != one.getPluginNamespace()) return false;
  return creators.emplace(key(creator), &creator).second;
}

bool Registry::deregisterCreator(const nv::IPluginCreatorInterface& creator) noexcept {
  return creators.erase(key(creator)) == 1;
}

nv::IPluginCreatorInterface* Registry::getCreator(const char* name, const char* version,
                                                  const char* name_space) noexcept {
  const auto found = creators.find(key(name, version, name_space));
  return found == creators.end() ? nullptr : found->second;
}

Registry::PluginLibraryHandle Registry::loadLibrary(const char* path) noexcept {
  void* library = dlopen(path, RTLD_LAZY);
  if (library == nullptr) return nullptr;
  using GetCreators = nv::IPluginCreatorInterface* const*(int32_t&);
  const auto get_creators = reinterpret_cast<GetCreators*>(dlsym(library, "getCreators"));
  if (get_creators == nullptr) return nullptr;
  int32_t count = 0;
  nv::IPluginCreatorInterface* const* list = get_creators(count);
  for (int32_t i = 0; i < count; ++i) {
    if (creators.count(key(*list[i])) != 0) return nullptr;
  }
  for (int32_t i = 0; i < count; ++i) creators.emplace(key(*list[i]), list[i]);
  return library;
}

namespace {

class Dimension : public nv::IDimensionExpr {
 public:
  Dimension(int64_t value, bool constant) : impl_(value, constant) { mImpl = &impl_; }
  ~Dimension() noexcept override = default;
  int64_t final_value() const { return impl_.value; }

 private:
  struct Impl : nv::apiv::VDimensionExpr {
    Impl(int64_t value, bool constant) : value(value), constant(constant) {}
    bool isConstant() const override { return constant; }
    int64_t getConstantValue() const override {
      // As TensorRT: what is not known yet has no value to give.
      return constant ? value : INT64_MIN;
    }
    bool isSizeTensor() const override { return false; }
    int64_t value;
    bool constant;
  };
  Impl impl_;
};

int64_t compute(nv::DimensionOperation operation, int64_t a, int64_t b) {
  switch (operation) {
    case nv::DimensionOperation::kSUM: return a + b;
    case nv::DimensionOperation::kPROD: return a * b;
    case nv::DimensionOperation::kSUB: return a - b;
    case nv::DimensionOperation::kMAX: return a > b ? a : b;
    case nv::DimensionOperation::kMIN: return a < b ? a : b;
    default: throw std::runtime_error("no plugin here asks for this operation");
  }
}

}  // namespace

struct ExprBuilder::Impl : nv::apiv::VExprBuilder {
  const nv::IDimensionExpr* make(int64_t value, bool constant) { return &dimensions.emplace_back(value, constant); }
  const nv::IDimensionExpr* constant(int64_t value) override { return make(value, true); }
  const nv::IDimensionExpr* operation(nv::DimensionOperation operation, const nv::IDimensionExpr& first,
                                      const nv::IDimensionExpr& second) override {
    return make(compute(operation, ExprBuilder::value(&first), ExprBuilder::value(&second)),
                first.isConstant() && second.isConstant());
  }
  const nv::IDimensionExpr* declareSizeTensor(int32_t, const nv::IDimensionExpr&, const nv::IDimensionExpr&) override {
    throw std::runtime_error("no plugin here has a size tensor");
  }
  std::deque<Dimension> dimensions;
};

ExprBuilder::ExprBuilder() : impl_(std::make_unique<Impl>()) { mImpl = impl_.get(); }
ExprBuilder::~ExprBuilder() noexcept = default;

const nv::IDimensionExpr* ExprBuilder::unknown(int64_t value) { return impl_->make(value, false); }

nv::DimsExprs ExprBuilder::dims(const std::vector<int64_t>& extents, const std::vector<bool>& known) {
  nv::DimsExprs result{};
  result.nbDims = static_cast<int32_t>(extents.size());
  for (size_t i = 0; i < extents.size(); ++i) {
    result.d[i] = impl_->make(extents[i], known.empty() || known[i]);
  }
  return result;
}

int64_t ExprBuilder::value(const nv::IDimensionExpr* expression) {
  return static_cast<const Dimension*>(expression)->final_value();
}

std::vector<int64_t> ExprBuilder::values(const nv::DimsExprs& dims) {
  std::vector<int64_t> result;
  for (int32_t i = 0; i < dims.nbDims; ++i) result.push_back(value(dims.d[i]));
  return result;
}

nv::Dims dims(const std::vector<int64_t>& extents) {
  nv::Dims result{};
  result.nbDims = static_cast<int32_t>(extents.size());
  for (size_t i = 0; i < extents.size(); ++i) result.d[i] = extents[i];
  return result;
}

nv::PluginTensorDesc tensor(const std::vector<int64_t>& extents, nv::DataType type, nv::TensorFormat format) {
  nv::PluginTensorDesc result{};
  result.dims = dims(extents);
  result.type = type;
  result.format = format;
  return result;
}

nv::DynamicPluginTensorDesc dynamic(const std::vector<int64_t>& extents, const std::vector<int64_t>& max,
                                    nv::DataType type) {
  nv::DynamicPluginTensorDesc result{};
  result.desc = tensor(extents, type);
  for (size_t i = 0; i < extents.size(); ++i) {
    if (extents[i] != max[i]) result.desc.dims.d[i] = -1;
  }
  result.min = result.opt = dims(extents);
  result.max = dims(max);
  return result;
}

}  // namespace host

extern "C" {

__attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept { return host::host_version; }
__attribute__((visibility("default"))) nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
  return &host::registry();
}
// For a test that has this file as a library of its own.
__attribute__((visibility("default"))) int registered_creators() {
  return static_cast<int>(host::registry().creators.size());
}

}  // extern "C"
