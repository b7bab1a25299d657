// The part of ONNX Runtime's C ABI that this library uses, declared by ourselves.
//
// ONNX Runtime's headers are in no package registry, and its C ABI only ever grows at the end: OrtApi is a
// table of function pointers whose slots never move, OrtCustomOp a table that the runtime reads up to the
// member its `version` stands for. So a dozen slot numbers are enough, and the static_asserts below hold
// them. docs/adr/0002-onnxruntime-abi.md tells how they were checked.
//
// Everything lives in a namespace, so that a check may include ONNX Runtime's own header beside this one.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vmkla::ort {

// Oldest API that the library accepts: onnxruntime 1.20.
constexpr uint32_t kApiVersion = 20;
constexpr const char* kOldestRuntime = "1.20";

// Opaque objects of the runtime.
struct OrtStatus;  // a null pointer means success
struct OrtValue;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtTensorTypeAndShapeInfo;

// OrtErrorCode
constexpr int kFail = 1;
constexpr int kInvalidArgument = 2;

// ONNXTensorElementDataType
constexpr int kFloat = 1;
constexpr int kFloat16 = 10;

// OrtCustomOpInputOutputCharacteristic and OrtMemType
constexpr int kRequired = 0;
constexpr int kDefaultMemory = 0;

using Slot = void (*)();

// A member's comment is its slot. `unused_a_b` stands for the slots a to b.
struct OrtApi {
  OrtStatus* (*CreateStatus)(int code, const char* message);  // 0
  Slot unused_1;
  const char* (*GetErrorMessage)(const OrtStatus* status);  // 2
  Slot unused_3_25[23];
  OrtStatus* (*CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** out);                       // 26
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const struct OrtCustomOp* op);             // 27
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);                // 28
  Slot unused_29_50[22];
  OrtStatus* (*GetTensorMutableData)(OrtValue* value, void** out);  // 51
  Slot unused_52_60[9];
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);                  // 61
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* extents, size_t count);    // 62
  Slot unused_63_64[2];
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);  // 65
  Slot unused_66_84[19];
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name, float* out);   // 85
  OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name, int64_t* out); // 86
  Slot unused_87_89[3];
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index, const OrtValue** out);  // 90
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index, const int64_t* extents,
                                        size_t count, OrtValue** out);  // 91
  Slot unused_92;
  void (*ReleaseStatus)(OrtStatus* status);  // 93
  Slot unused_94_98[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);  // 99
  Slot unused_100_273[174];
  // Calls fn(usr_data, i) for i in [0, total) on the session's own threads; num_batch 0: no grouping.
  OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext* context, void (*fn)(void*, size_t),
                                          size_t total, size_t num_batch, void* usr_data);  // 274
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null when the runtime is older than `version`
  const char* (*GetVersionString)();
};

// What a library hands over for each op. Enums of the C header are int here: the same in the ABI.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char* (*GetName)(const OrtCustomOp* op);
  const char* (*GetExecutionProviderType)(const OrtCustomOp* op);  // null: the CPU
  int (*GetInputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp* op);
  int (*GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp* op);
  void (*KernelCompute)(void* kernel, OrtKernelContext* context);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const OrtCustomOp* op, size_t index);
  int (*GetOutputCharacteristic)(const OrtCustomOp* op, size_t index);
  int (*GetInputMemoryType)(const OrtCustomOp* op, size_t index);
  Slot variadic[4];  // asked for variadic inputs and outputs only; we have none
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext* context);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp* op, OrtShapeInferContext* context);  // may be null
  int (*GetStartVersion)(const OrtCustomOp* op);
  int (*GetEndVersion)(const OrtCustomOp* op);
  Slot aliasing[4];  // may be null
};

namespace layout {
constexpr size_t slot(size_t offset) { return offset / sizeof(Slot); }
static_assert(sizeof(Slot) == 8 && sizeof(void*) == 8, "64-bit machines only");
static_assert(slot(offsetof(OrtApi, GetErrorMessage)) == 2);
static_assert(slot(offsetof(OrtApi, CreateCustomOpDomain)) == 26);
static_assert(slot(offsetof(OrtApi, CustomOpDomain_Add)) == 27);
static_assert(slot(offsetof(OrtApi, AddCustomOpDomain)) == 28);
static_assert(slot(offsetof(OrtApi, GetTensorMutableData)) == 51);
static_assert(slot(offsetof(OrtApi, GetDimensionsCount)) == 61);
static_assert(slot(offsetof(OrtApi, GetDimensions)) == 62);
static_assert(slot(offsetof(OrtApi, GetTensorTypeAndShape)) == 65);
static_assert(slot(offsetof(OrtApi, KernelInfoGetAttribute_float)) == 85);
static_assert(slot(offsetof(OrtApi, KernelInfoGetAttribute_int64)) == 86);
static_assert(slot(offsetof(OrtApi, KernelContext_GetInput)) == 90);
static_assert(slot(offsetof(OrtApi, KernelContext_GetOutput)) == 91);
static_assert(slot(offsetof(OrtApi, ReleaseStatus)) == 93);
static_assert(slot(offsetof(OrtApi, ReleaseTensorTypeAndShapeInfo)) == 99);
static_assert(slot(offsetof(OrtApi, KernelContext_ParallelFor)) == 274);
static_assert(offsetof(OrtApiBase, GetVersionString) == 8);
static_assert(sizeof(OrtCustomOp) == 208);
static_assert(offsetof(OrtCustomOp, CreateKernel) == 8);
static_assert(offsetof(OrtCustomOp, GetInputType) == 32);
static_assert(offsetof(OrtCustomOp, KernelDestroy) == 72);
static_assert(offsetof(OrtCustomOp, GetInputMemoryType) == 96);
static_assert(offsetof(OrtCustomOp, CreateKernelV2) == 136);
static_assert(offsetof(OrtCustomOp, KernelComputeV2) == 144);
static_assert(offsetof(OrtCustomOp, InferOutputShapeFn) == 152);
static_assert(offsetof(OrtCustomOp, GetStartVersion) == 160);
static_assert(offsetof(OrtCustomOp, GetEndVersion) == 168);
}  // namespace layout

}  // namespace vmkla::ort
