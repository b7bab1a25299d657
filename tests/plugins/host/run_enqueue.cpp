#include "run_enqueue.h"

#include <cuda_runtime_api.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

#include "check.h"
#include "library.h"

namespace host {
namespace {

constexpr size_t kGuard = 4096;
constexpr char kGuardByte = 0x5B;

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

std::vector<char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Device memory with a guard behind it.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    check(cudaMalloc(&data_, bytes + kGuard), "cudaMalloc");
    check(cudaMemset(data_, kGuardByte, bytes + kGuard), "cudaMemset");
  }
  explicit Memory(const std::vector<char>& content) : Memory(content.size()) { set(content); }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;

  void* data() const { return data_; }
  void set(const std::vector<char>& content) {
    check(cudaMemcpy(data_, content.data(), content.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  // The content, once nothing was written behind it.
  std::vector<char> get() const {
    std::vector<char> all(bytes_ + kGuard);
    check(cudaMemcpy(all.data(), data_, all.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (size_t i = bytes_; i < all.size(); ++i) EXPECT_EQUAL(static_cast<int>(all[i]), static_cast<int>(kGuardByte));
    all.resize(bytes_);
    return all;
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

struct Node {
  std::unique_ptr<nv::IPluginV3> plugin;
  std::vector<nv::PluginTensorDesc> in;
  nv::PluginTensorDesc out;
  size_t workspace;
};

int64_t number(const std::string& text) { return std::stoll(text); }

size_t bytes_of(const nv::PluginTensorDesc& tensor) {
  size_t bytes = tensor.type == nv::DataType::kHALF ? 2 : 4;
  for (int32_t i = 0; i < tensor.dims.nbDims; ++i) bytes *= static_cast<size_t>(tensor.dims.d[i]);
  return bytes;
}

Node scan_node(Session& session, nv::DataType element, const std::vector<std::string>& a) {
  const ScanSizes sizes{number(a[3]), number(a[4]), number(a[5]), number(a[6]), number(a[7]), number(a[8])};
  ScanSizes max = sizes;
  max.b = number(a[9]);
  Node node{session.scan(), {}, tensor(sizes.inputs()[0], element), 0};
  std::vector<nv::DynamicPluginTensorDesc> profile;
  for (size_t i = 0; i < 6; ++i) {
    node.in.push_back(tensor(sizes.inputs()[i], scan_type(i, element)));
    profile.push_back(dynamic(sizes.inputs()[i], max.inputs()[i], scan_type(i, element)));
  }
  const nv::DynamicPluginTensorDesc out = dynamic(sizes.inputs()[0], max.inputs()[0], element);
  EXPECT_EQUAL(build(*node.plugin).configurePlugin(profile.data(), 6, &out, 1), 0);
  node.workspace = build(*node.plugin).getWorkspaceSize(profile.data(), 6, &out, 1);
  return node;
}

Node spline_node(Session& session, nv::DataType element, const std::vector<std::string>& a) {
  Fields fields = spline_fields(static_cast<int32_t>(number(a[3])), static_cast<int32_t>(number(a[4])),
                                std::stof(a[5]), std::stof(a[6]));
  const int64_t knots = number(a[7]);
  std::vector<int64_t> x, bases;
  for (size_t i = 8; i < a.size(); ++i) x.push_back(number(a[i]));
  bases = x;
  bases.push_back(knots - number(a[3]) - 1);
  return {session.create("BSplineBasis", fields), {tensor(x, element), tensor({knots}, nv::DataType::kFLOAT)},
          tensor(bases, element), 0};
}

}  // namespace

void run_enqueue(const std::vector<std::string>& a) {
  Session session;
  const nv::DataType element = a.at(2) == "half" ? nv::DataType::kHALF : nv::DataType::kFLOAT;
  const Node node = a[0] == "scan" ? scan_node(session, element, a) : spline_node(session, element, a);
  // As TensorRT: the engine's plugin comes from the serialized fields and is cloned for each context.
  const std::unique_ptr<nv::IPluginV3> deserialized(
      session.creator(core(*node.plugin).getPluginName())
          ->createPlugin("node", runtime(*node.plugin).getFieldsToSerialize(), nv::TensorRTPhase::kRUNTIME));
  const std::unique_ptr<nv::IPluginV3> plugin(runtime(*deserialized).attachToContext(nullptr));
  const int32_t inputs = static_cast<int32_t>(node.in.size());
  EXPECT_EQUAL(runtime(*plugin).onShapeChange(node.in.data(), inputs, &node.out, 1), 0);

  std::vector<std::unique_ptr<Memory>> memory;
  std::vector<const void*> addresses;
  for (size_t i = 0; i < node.in.size(); ++i) {
    const std::vector<char> content = read(a[1] + "/" + std::to_string(i) + ".bin");
    EXPECT_EQUAL(content.size(), bytes_of(node.in[i]));
    memory.push_back(std::make_unique<Memory>(content));
    addresses.push_back(memory.back()->data());
  }
  Memory output(bytes_of(node.out)), workspace(node.workspace);
  void* outputs[] = {output.data()};
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  const auto enqueue = [&] {
    EXPECT_EQUAL(
        runtime(*plugin).enqueue(node.in.data(), &node.out, addresses.data(), outputs, workspace.data(), stream), 0);
  };
  enqueue();
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  write(a[1] + "/direct.bin", output.get());
  workspace.get();

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  enqueue();
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  output.set(std::vector<char>(bytes_of(node.out), 0x7F));
  workspace.set(std::vector<char>(node.workspace, 0x7F));
  check(cudaGraphLaunch(executable, stream), "cudaGraphLaunch");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  write(a[1] + "/graph.bin", output.get());
  workspace.get();
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  for (const auto& line : session.logger.lines) std::cout << line.second << "\n";
  EXPECT(session.logger.lines.empty());
}

}  // namespace host
