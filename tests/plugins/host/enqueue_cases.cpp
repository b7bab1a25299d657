// enqueue: a return code and a message where it cannot run.
#include <cuda_runtime_api.h>

#include "check.h"
#include "library.h"

namespace host {
namespace {

bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

}  // namespace

CASE(enqueue_without_gpu) {
  if (has_gpu()) skip("this machine has a GPU, where enqueue works");
  Session session;
  const ScanSizes sizes;
  std::vector<nv::PluginTensorDesc> in;
  std::vector<std::vector<float>> memory;
  std::vector<const void*> inputs;
  const auto shapes = sizes.inputs();
  for (size_t i = 0; i < shapes.size(); ++i) {
    in.push_back(tensor(shapes[i], nv::DataType::kFLOAT));
    size_t count = 1;
    for (const int64_t extent : shapes[i]) count *= static_cast<size_t>(extent);
    inputs.push_back(memory.emplace_back(count, 1.0f).data());
  }
  const nv::PluginTensorDesc out = tensor(shapes[0], nv::DataType::kFLOAT);
  std::vector<float> y(memory[0].size(), 7.0f);
  void* outputs[] = {y.data()};
  std::vector<char> workspace(1 << 22);
  const auto scan = session.scan();
  EXPECT(runtime(*scan).enqueue(in.data(), &out, inputs.data(), outputs, workspace.data(), nullptr) != 0);
  EXPECT_EQUAL(session.logger.take().find("vmkla SelectiveScan2d: "), 0u);
  EXPECT_EQUAL(y[0], 7.0f);

  const auto spline = session.spline(3);
  const nv::PluginTensorDesc spline_in[] = {tensor({2, 16}, nv::DataType::kFLOAT), tensor({12}, nv::DataType::kFLOAT)};
  const nv::PluginTensorDesc spline_out = tensor({2, 16, 8}, nv::DataType::kFLOAT);
  EXPECT(runtime(*spline).enqueue(spline_in, &spline_out, inputs.data(), outputs, nullptr, nullptr) != 0);
  EXPECT_EQUAL(session.logger.take().find("vmkla BSplineBasis: "), 0u);
}

CASE(enqueue_of_wrong_arguments) {
  // What the launcher refuses comes back as its code, GPU or not.
  Session session;
  const auto spline = session.spline(3);
  const nv::PluginTensorDesc in[] = {tensor({2, 16}, nv::DataType::kFLOAT), tensor({4}, nv::DataType::kFLOAT)};
  const nv::PluginTensorDesc out = tensor({2, 16, 0}, nv::DataType::kFLOAT);
  float value = 0.0f;
  const void* inputs[] = {&value, &value};
  void* outputs[] = {&value};
  EXPECT_EQUAL(runtime(*spline).enqueue(in, &out, inputs, outputs, nullptr, nullptr),
               static_cast<int32_t>(cudaErrorInvalidValue));
  EXPECT_EQUAL(session.logger.take().find("vmkla BSplineBasis: cudaErrorInvalidValue"), 0u);

  ScanSizes sizes;
  sizes.n = 257;
  std::vector<nv::PluginTensorDesc> scan_in;
  for (const auto& shape : sizes.inputs()) scan_in.push_back(tensor(shape, nv::DataType::kFLOAT));
  const void* scan_inputs[] = {&value, &value, &value, &value, &value, &value};
  alignas(16) char workspace[16];
  EXPECT_EQUAL(runtime(*session.scan()).enqueue(scan_in.data(), &scan_in[0], scan_inputs, outputs, workspace, nullptr),
               static_cast<int32_t>(cudaErrorInvalidValue));
  EXPECT_EQUAL(session.logger.take().find("vmkla SelectiveScan2d: cudaErrorInvalidValue"), 0u);
}

}  // namespace host
