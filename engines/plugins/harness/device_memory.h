// Device memory, streams and graphs that free themselves; a CUDA error becomes an exception.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cuda/launch.h"

namespace vmkla {
namespace harness {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

// Memory between two guard zones; all of it is NaN in either type until something is written.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) {
    check(cudaMalloc(&memory_, bytes + 2 * kGuardBytes), "cudaMalloc");
    check(cudaMemset(memory_, 0xff, bytes + 2 * kGuardBytes), "cudaMemset");
  }
  ~DeviceMemory() { cudaFree(memory_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* get() const { return static_cast<char*>(memory_) + kGuardBytes; }
  const float* floats() const { return static_cast<const float*>(get()); }
  size_t bytes() const { return bytes_; }
  void poison() { check(cudaMemset(get(), 0xff, bytes_), "cudaMemset"); }
  std::vector<unsigned char> read() const { return read(get(), bytes_); }
  bool guards_hold() const {
    const void* after = static_cast<const char*>(get()) + bytes_;
    for (const auto& zone : {read(memory_, kGuardBytes), read(after, kGuardBytes)}) {
      for (const unsigned char byte : zone) {
        if (byte != 0xff) return false;
      }
    }
    return true;
  }

 private:
  static constexpr size_t kGuardBytes = 1024;
  static std::vector<unsigned char> read(const void* from, size_t bytes) {
    std::vector<unsigned char> content(bytes);
    check(cudaMemcpy(content.data(), from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
    return content;
  }

  void* memory_ = nullptr;
  size_t bytes_;
};

inline size_t size_of(cuda::Element element) { return element == cuda::Element::kHalf ? 2 : 4; }
inline const char* name_of(cuda::Element element) { return element == cuda::Element::kHalf ? "half" : "float"; }

// Values on the device, rounded to the element's type.
class DeviceTensor : public DeviceMemory {
 public:
  DeviceTensor(const std::vector<float>& values, cuda::Element element)
      : DeviceMemory(values.size() * size_of(element)) {
    std::vector<__half> halves;
    const void* from = values.data();
    if (element == cuda::Element::kHalf) {
      for (const float value : values) halves.push_back(__float2half_rn(value));
      from = halves.data();
    }
    check(cudaMemcpy(get(), from, bytes(), cudaMemcpyHostToDevice), "cudaMemcpy to the device");
  }
};

// The same values as the kernels read them.
inline std::vector<float> rounded(std::vector<float> values, cuda::Element element) {
  if (element == cuda::Element::kHalf) {
    for (float& value : values) value = __half2float(__float2half_rn(value));
  }
  return values;
}

inline std::vector<float> to_floats(const std::vector<unsigned char>& bytes, cuda::Element element) {
  std::vector<float> values;
  for (size_t i = 0; i < bytes.size(); i += size_of(element)) {
    if (element == cuda::Element::kHalf) {
      values.push_back(__half2float(*reinterpret_cast<const __half*>(bytes.data() + i)));
    } else {
      values.push_back(*reinterpret_cast<const float*>(bytes.data() + i));
    }
  }
  return values;
}

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

// What `enqueue` puts on a stream, captured once and replayed at will.
class Graph {
 public:
  Graph(const Stream& stream, const std::function<void(cudaStream_t)>& enqueue) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    enqueue(stream.get());
    check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void replay(const Stream& stream) const { check(cudaGraphLaunch(executable_, stream.get()), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace harness
}  // namespace vmkla
