// Shapes as TensorRT knows them: whole at run time, in parts while it builds.
#pragma once
#include <NvInferRuntime.h>

#include <string>

namespace vmkla::tensorrt {

constexpr int64_t kUnknown = -1;

struct Shape {
  int32_t rank = 0;
  int64_t extent[nvinfer1::Dims::MAX_DIMS] = {};

  int64_t last() const { return extent[rank - 1]; }
  int64_t elements() const {
    int64_t count = 1;
    for (int32_t i = 0; i < rank; ++i) count *= extent[i];
    return count;
  }
};

inline Shape shape_of(const nvinfer1::Dims& dims) {
  Shape shape;
  if (dims.nbDims < 0 || dims.nbDims > nvinfer1::Dims::MAX_DIMS) return shape;
  shape.rank = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) shape.extent[i] = dims.d[i] < 0 ? kUnknown : dims.d[i];
  return shape;
}

inline Shape shape_of(const nvinfer1::DimsExprs& dims) {
  Shape shape;
  if (dims.nbDims < 0 || dims.nbDims > nvinfer1::Dims::MAX_DIMS) return shape;
  shape.rank = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) {
    shape.extent[i] = dims.d[i]->isConstant() ? dims.d[i]->getConstantValue() : kUnknown;
  }
  return shape;
}

inline std::string text(const Shape& shape) {
  std::string result = "(";
  for (int32_t i = 0; i < shape.rank; ++i) {
    result += (i ? ", " : "") + (shape.extent[i] == kUnknown ? std::string("?") : std::to_string(shape.extent[i]));
  }
  return result + (shape.rank == 1 ? ",)" : ")");
}

inline bool compatible(int64_t a, int64_t b) { return a == kUnknown || b == kUnknown || a == b; }

// Whether the two can be one shape, as far as their extents are known.
inline bool compatible(const Shape& a, const Shape& b) {
  bool result = a.rank == b.rank;
  for (int32_t i = 0; result && i < a.rank; ++i) result = compatible(a.extent[i], b.extent[i]);
  return result;
}

}  // namespace vmkla::tensorrt
