// A libcuda.so.1 for tests on machines without a GPU: the part of the driver's API that vmkla uses, over host
// memory. cuda-bindings and PyCUDA themselves run on it, so their own code is under test, not a copy of it.
//
// Work on a stream is done as late as the API allows: when somebody waits for it. Data that is read too early
// is therefore stale, and a buffer that is overwritten too early gives a wrong result, every time. Device memory
// begins as 0xFF (NaN), copies are held to the bounds of their allocations, calls need a current context, and
// what is not released is counted.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace {

enum Status {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidContext = 201,
    kInvalidHandle = 400,
    kNotFound = 500,
    kIllegalAddress = 700,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901,
};

struct Meaning {
    int code;
    char const* name;
    char const* text;
};

// The words of the driver itself.
Meaning const kMeanings[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        "operation failed due to a previous error during capture"},
};

using Work = std::function<int()>;

struct Graph {
    std::vector<Work> nodes;
};

struct Stream {
    std::deque<Work> queue;
    std::unique_ptr<Graph> capture;
    bool capture_broken = false;
};

struct Event {
    Stream* stream = nullptr;
    long recorded = 0, reached = 0;
};

struct Context {
    int device;
    int retained = 0;
};

using Pointer = unsigned long long;

std::recursive_mutex g_lock;
bool g_initialized = false;
int g_sticky = kSuccess;  // a failure on the GPU shows at every later call, as in the driver
Context g_contexts[2] = {{0}, {1}};
thread_local std::vector<Context*> t_current;
std::map<Pointer, size_t> g_device, g_pinned;
std::map<Stream*, std::unique_ptr<Stream>> g_streams;
std::map<Event*, std::unique_ptr<Event>> g_events;
std::map<Graph*, std::unique_ptr<Graph>> g_graphs, g_executables;
std::map<std::string, int> g_failures;
std::map<std::string, long> g_calls;
long g_pageable_copies = 0;

int devices() {
    char const* text = std::getenv("STAND_IN_GPUS");
    return text ? std::atoi(text) : 1;
}

bool within(std::map<Pointer, size_t> const& blocks, Pointer at, size_t bytes) {
    auto after = blocks.upper_bound(at);
    if (after == blocks.begin()) return false;
    auto const& block = *std::prev(after);
    return at + bytes <= block.first + block.second;
}

// Counts a call, and gives the status that a test asked for once.
int enter(char const* name, bool needs_context = true) {
    ++g_calls[name];
    auto planned = g_failures.find(name);
    if (planned != g_failures.end()) {
        int const status = planned->second;
        g_failures.erase(planned);
        return status;
    }
    if (!g_initialized) return kNotInitialized;
    if (needs_context && t_current.empty()) return kInvalidContext;
    return g_sticky;
}

// Does what lies in a stream's queue until `enough`. The lock is not held meanwhile: work may call into Python.
int drain(Stream* stream, std::function<bool()> const& enough) {
    while (!enough()) {
        Work work;
        {
            std::lock_guard<std::recursive_mutex> lock(g_lock);
            if (stream->queue.empty()) return g_sticky;
            work = stream->queue.front();
            stream->queue.pop_front();
        }
        int const status = work();
        if (status) g_sticky = status;
    }
    return g_sticky;
}

Stream* find(void* handle) {
    auto found = g_streams.find(static_cast<Stream*>(handle));
    return found == g_streams.end() ? nullptr : found->second.get();
}

int submit(void* handle, Work work) {
    Stream* stream = find(handle);
    if (!stream) return kInvalidHandle;
    if (stream->capture) {
        stream->capture->nodes.push_back(std::move(work));
    } else {
        stream->queue.push_back(std::move(work));
    }
    return kSuccess;
}

// A call that no capturing stream bears.
int refuse_in_capture() {
    for (auto& entry : g_streams) {
        if (entry.second->capture) {
            entry.second->capture_broken = true;
            return kCaptureUnsupported;
        }
    }
    return kSuccess;
}

Meaning const* meaning(int code) {
    for (auto const& row : kMeanings) {
        if (row.code == code) return &row;
    }
    return nullptr;
}

int copy(void* stream, Pointer device, void* host, size_t bytes, bool to_device) {
    if (!within(g_device, device, bytes)) return kInvalidValue;
    if (!within(g_pinned, reinterpret_cast<Pointer>(host), bytes)) ++g_pageable_copies;
    return submit(stream, [=] {
        if (!within(g_device, device, bytes)) return static_cast<int>(kIllegalAddress);
        void* memory = reinterpret_cast<void*>(device);
        std::memcpy(to_device ? memory : host, to_device ? host : memory, bytes);
        return static_cast<int>(kSuccess);
    });
}

}  // namespace

#define ENTER(...)                                          \
    std::lock_guard<std::recursive_mutex> lock(g_lock);     \
    if (int status = enter(__VA_ARGS__)) return status

extern "C" {

// For the tests.

long stand_in_calls(char const* name) { return g_calls[name]; }
void stand_in_fail(char const* name, int status) { g_failures[name] = status; }
long stand_in_pageable_copies() { return g_pageable_copies; }
long stand_in_pending() {
    long sum = 0;
    for (auto const& entry : g_streams) sum += static_cast<long>(entry.second->queue.size());
    return sum;
}
size_t stand_in_device_bytes() {
    size_t sum = 0;
    for (auto const& block : g_device) sum += block.second;
    return sum;
}
long stand_in_live() {
    return static_cast<long>(g_device.size() + g_pinned.size() + g_streams.size() + g_events.size() +
        g_graphs.size() + g_executables.size()) + g_contexts[0].retained + g_contexts[1].retained;
}
void stand_in_reset() {
    g_sticky = kSuccess;
    g_failures.clear();
    g_calls.clear();
    g_pageable_copies = 0;
}

// What is left after a failure of the GPU, which nobody can give back then. Its memory stays until the end.
void stand_in_forget() {
    g_device.clear();
    g_pinned.clear();
    g_streams.clear();
    g_events.clear();
    g_graphs.clear();
    g_executables.clear();
    for (Context& context : g_contexts) context.retained = 0;
}

// Start, devices and contexts.

int cuInit(unsigned) {
    std::lock_guard<std::recursive_mutex> lock(g_lock);
    g_initialized = devices() > 0;
    if (!g_initialized) return kNoDevice;
    return enter("cuInit", false);
}

int cuDriverGetVersion(int* version) {
    *version = 13000;
    return kSuccess;
}

int cuGetErrorName(int code, char const** text) {
    Meaning const* row = meaning(code);
    *text = row ? row->name : nullptr;
    return row ? kSuccess : kInvalidValue;
}

int cuGetErrorString(int code, char const** text) {
    Meaning const* row = meaning(code);
    *text = row ? row->text : nullptr;
    return row ? kSuccess : kInvalidValue;
}

int cuDeviceGetCount(int* count) {
    ENTER("cuDeviceGetCount", false);
    *count = devices();
    return kSuccess;
}

int cuDeviceGet(int* device, int ordinal) {
    ENTER("cuDeviceGet", false);
    if (ordinal < 0 || ordinal >= devices()) return kInvalidDevice;
    *device = ordinal;
    return kSuccess;
}

int cuDeviceGetName(char* name, int length, int device) {
    ENTER("cuDeviceGetName", false);
    std::strncpy(name, device ? "Second stand-in GPU" : "Stand-in GPU", static_cast<size_t>(length));
    return kSuccess;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    ENTER("cuDeviceGetAttribute", false);
    std::map<int, int> const known{{16, 16}, {75, 8}, {76, 7}};  // multiprocessors, compute capability
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    ENTER("cuDevicePrimaryCtxRetain", false);
    ++g_contexts[device].retained;
    *context = &g_contexts[device];
    return kSuccess;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER("cuDevicePrimaryCtxRelease", false);
    if (g_contexts[device].retained < 1) return kInvalidContext;
    --g_contexts[device].retained;
    return kSuccess;
}

int cuCtxPushCurrent_v2(void* context) {
    ENTER("cuCtxPushCurrent", false);
    if (static_cast<Context*>(context)->retained < 1) return kInvalidContext;
    t_current.push_back(static_cast<Context*>(context));
    return kSuccess;
}

int cuCtxPopCurrent_v2(void** context) {
    ENTER("cuCtxPopCurrent");
    if (context) *context = t_current.back();
    t_current.pop_back();
    return kSuccess;
}

int cuCtxGetDevice(int* device) {
    ENTER("cuCtxGetDevice");
    *device = t_current.back()->device;
    return kSuccess;
}

// Memory.

int cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
    ENTER("cuMemAlloc");
    if (int status = refuse_in_capture()) return status;
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory || !bytes) return bytes ? kOutOfMemory : kInvalidValue;
    std::memset(memory, 0xFF, bytes);
    *pointer = reinterpret_cast<Pointer>(memory);
    g_device[*pointer] = bytes;
    return kSuccess;
}

int cuMemFree_v2(Pointer pointer) {
    ENTER("cuMemFree");
    for (auto& entry : g_streams) drain(entry.second.get(), [] { return false; });  // it waits for the device
    if (!g_device.erase(pointer)) return kInvalidValue;
    std::free(reinterpret_cast<void*>(pointer));
    return kSuccess;
}

int cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
    ENTER("cuMemHostAlloc");
    *pointer = std::malloc(bytes);
    std::memset(*pointer, 0xFF, bytes);
    g_pinned[reinterpret_cast<Pointer>(*pointer)] = bytes;
    return kSuccess;
}

int cuMemFreeHost(void* pointer) {
    ENTER("cuMemFreeHost");
    if (!g_pinned.erase(reinterpret_cast<Pointer>(pointer))) return kInvalidValue;
    std::free(pointer);
    return kSuccess;
}

int cuMemcpyHtoDAsync_v2(Pointer device, void const* host, size_t bytes, void* stream) {
    ENTER("cuMemcpyHtoDAsync");
    return copy(stream, device, const_cast<void*>(host), bytes, true);
}

int cuMemcpyDtoHAsync_v2(void* host, Pointer device, size_t bytes, void* stream) {
    ENTER("cuMemcpyDtoHAsync");
    return copy(stream, device, host, bytes, false);
}

// Streams and events.

int cuStreamCreate(void** stream, unsigned) {
    ENTER("cuStreamCreate");
    auto made = std::make_unique<Stream>();
    *stream = made.get();
    g_streams[made.get()] = std::move(made);
    return kSuccess;
}

int cuStreamDestroy_v2(void* stream) {
    ENTER("cuStreamDestroy");
    return g_streams.erase(static_cast<Stream*>(stream)) ? kSuccess : kInvalidHandle;
}

int cuStreamSynchronize(void* handle) {
    Stream* stream;
    {
        ENTER("cuStreamSynchronize");
        stream = find(handle);
        if (!stream) return kInvalidHandle;
        if (stream->capture) return refuse_in_capture();
    }
    return drain(stream, [] { return false; });
}

int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    ENTER("cuLaunchHostFunc");
    return submit(stream, [=] {
        function(data);
        return static_cast<int>(kSuccess);
    });
}

// What a kernel does that reads where it must not: the stand-in of a GPU's own failure.
int stand_in_launch_failure(void* stream) {
    ENTER("stand_in_launch_failure");
    return submit(stream, [] { return static_cast<int>(kIllegalAddress); });
}

int cuEventCreate(void** event, unsigned) {
    ENTER("cuEventCreate");
    auto made = std::make_unique<Event>();
    *event = made.get();
    g_events[made.get()] = std::move(made);
    return kSuccess;
}

int cuEventDestroy_v2(void* event) {
    ENTER("cuEventDestroy");
    return g_events.erase(static_cast<Event*>(event)) ? kSuccess : kInvalidHandle;
}

int cuEventRecord(void* handle, void* stream) {
    ENTER("cuEventRecord");
    auto* event = static_cast<Event*>(handle);
    if (!g_events.count(event)) return kInvalidHandle;
    event->stream = find(stream);
    long const mark = ++event->recorded;
    return submit(stream, [=] {
        event->reached = mark;
        return static_cast<int>(kSuccess);
    });
}

int cuEventSynchronize(void* handle) {
    auto* event = static_cast<Event*>(handle);
    {
        ENTER("cuEventSynchronize");
        if (!g_events.count(event)) return kInvalidHandle;
        if (!event->stream) return kSuccess;
    }
    return drain(event->stream, [=] { return event->reached >= event->recorded; });
}

// Graphs.

int cuStreamBeginCapture_v2(void* handle, int) {
    ENTER("cuStreamBeginCapture");
    Stream* stream = find(handle);
    if (!stream || stream->capture) return kInvalidHandle;
    stream->capture = std::make_unique<Graph>();
    stream->capture_broken = false;
    return kSuccess;
}

int cuStreamEndCapture(void* handle, void** graph) {
    ENTER("cuStreamEndCapture");
    Stream* stream = find(handle);
    if (!stream || !stream->capture) return kInvalidHandle;
    auto made = std::move(stream->capture);
    *graph = nullptr;
    if (stream->capture_broken) return kCaptureInvalidated;
    *graph = made.get();
    g_graphs[made.get()] = std::move(made);
    return kSuccess;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    ENTER("cuGraphInstantiateWithFlags");
    auto found = g_graphs.find(static_cast<Graph*>(graph));
    if (found == g_graphs.end()) return kInvalidHandle;
    auto made = std::make_unique<Graph>(*found->second);
    *executable = made.get();
    g_executables[made.get()] = std::move(made);
    return kSuccess;
}

int cuGraphLaunch(void* executable, void* stream) {
    ENTER("cuGraphLaunch");
    auto found = g_executables.find(static_cast<Graph*>(executable));
    if (found == g_executables.end()) return kInvalidHandle;
    for (auto const& node : found->second->nodes) {
        if (int status = submit(stream, node)) return status;
    }
    return kSuccess;
}

int cuGraphDestroy(void* graph) {
    ENTER("cuGraphDestroy");
    return g_graphs.erase(static_cast<Graph*>(graph)) ? kSuccess : kInvalidHandle;
}

int cuGraphExecDestroy(void* executable) {
    ENTER("cuGraphExecDestroy");
    return g_executables.erase(static_cast<Graph*>(executable)) ? kSuccess : kInvalidHandle;
}

// How cuda-bindings finds the functions: under their plain names, the newest version of each.
int cuGetProcAddress_v2(char const* name, void** function, int, unsigned long long, int* found) {
    static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    std::string wanted = name;
    if (wanted == "cuGraphInstantiate") wanted += "WithFlags";  // since CUDA 12
    *function = dlsym(self, (wanted + "_v2").c_str());
    if (!*function) *function = dlsym(self, wanted.c_str());
    if (found) *found = *function ? 0 : 1;
    return *function ? kSuccess : kNotFound;
}

}  // extern "C"
