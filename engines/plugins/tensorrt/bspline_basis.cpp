#include "bspline_basis.h"

#include <cmath>
#include <sstream>

#include "fields.h"
#include "log.h"

namespace vmkla::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

enum Input { kX, kGrid };

}  // namespace

const nvinfer1::PluginFieldCollection& BSplineBasis::field_names() noexcept {
  static const PluginField fields[] = {
      {"order", nullptr, PluginFieldType::kINT32, 1},
      {"uniform", nullptr, PluginFieldType::kINT32, 1},
      {"grid_min", nullptr, PluginFieldType::kFLOAT32, 1},
      {"grid_step", nullptr, PluginFieldType::kFLOAT32, 1},
  };
  static const nvinfer1::PluginFieldCollection collection{4, fields};
  return collection;
}

BSplineBasis* BSplineBasis::from_fields(const nvinfer1::PluginFieldCollection* fields) {
  const int64_t order = integer_field(fields, "order"), uniform = integer_field(fields, "uniform");
  const float grid_min = float_field(fields, "grid_min"), grid_step = float_field(fields, "grid_step");
  if (order < 1 || order > cuda::kMaxOrder) {
    throw Refusal("field order is " + std::to_string(order) + ", expected 1 to " + std::to_string(cuda::kMaxOrder));
  }
  if (uniform != 0 && uniform != 1) {
    throw Refusal("field uniform is " + std::to_string(uniform) + ", expected 0 or 1");
  }
  if (uniform == 1 && !(std::isfinite(grid_min) && std::isfinite(grid_step) && grid_step > 0.0f)) {
    throw Refusal("fields grid_min and grid_step are " + std::to_string(grid_min) + " and " +
                  std::to_string(grid_step) + ", expected finite ones and a step above 0 with uniform knots");
  }
  return new BSplineBasis(Attributes{static_cast<int32_t>(order), static_cast<int32_t>(uniform), grid_min, grid_step});
}

BSplineBasis::BSplineBasis(const Attributes& attributes)
    : Plugin(kOp, 2),
      attributes_(attributes),
      fields_{{"order", &attributes_.order, PluginFieldType::kINT32, 1},
              {"uniform", &attributes_.uniform, PluginFieldType::kINT32, 1},
              {"grid_min", &attributes_.grid_min, PluginFieldType::kFLOAT32, 1},
              {"grid_step", &attributes_.grid_step, PluginFieldType::kFLOAT32, 1}},
      collection_{4, fields_} {
  std::ostringstream text;
  text.precision(9);
  text << "order=" << attributes_.order << " uniform=" << attributes_.uniform << " grid_min=" << attributes_.grid_min
       << " grid_step=" << attributes_.grid_step;
  identity_ = text.str();
}

nvinfer1::IPluginV3* BSplineBasis::clone() noexcept {
  nvinfer1::IPluginV3* copy = nullptr;
  guarded(kOp, [&] { copy = new BSplineBasis(*this); });
  return copy;
}

const nvinfer1::PluginFieldCollection* BSplineBasis::getFieldsToSerialize() noexcept { return &collection_; }

Shape BSplineBasis::output_shape(const Shape* inputs) const {
  const Shape &x = inputs[kX], &grid = inputs[kGrid];
  const int64_t order = attributes_.order;
  if (x.rank < 1 || x.rank >= nvinfer1::Dims::MAX_DIMS) {
    throw Refusal("input x has shape " + text(x) + ", expected (..., in) with 1 to " +
                  std::to_string(nvinfer1::Dims::MAX_DIMS - 1) + " extents");
  }
  if (grid.rank != 1) {
    throw Refusal("input grid has shape " + text(grid) + ", expected (knots,): one grid for all features");
  }
  const int64_t knots = grid.last();
  if (knots != kUnknown && (knots < 2 * order + 2 || knots > cuda::kMaxKnots)) {
    throw Refusal("input grid has shape " + text(grid) + ", expected " + std::to_string(2 * order + 2) + " to " +
                  std::to_string(cuda::kMaxKnots) + " knots for order " + std::to_string(order));
  }
  Shape result = x;
  result.extent[result.rank++] = knots == kUnknown ? kUnknown : knots - order - 1;
  return result;
}

void BSplineBasis::write_output_shape(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs& output,
                                      nvinfer1::IExprBuilder& builder) const {
  const nvinfer1::IDimensionExpr* knots = inputs[kGrid].d[0];
  const int64_t lost = attributes_.order + 1;
  output = inputs[kX];
  output.d[output.nbDims++] =
      knots->isConstant()
          ? builder.constant(knots->getConstantValue() - lost)
          : builder.operation(nvinfer1::DimensionOperation::kSUB, *knots, *builder.constant(lost));
}

int32_t BSplineBasis::enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc*,
                              const void* const* inputs, void* const* outputs, void*,
                              cudaStream_t stream) noexcept {
  cuda::BsplineArguments arguments{};
  arguments.element = element_of(in[kX].type);
  arguments.count = shape_of(in[kX].dims).elements();
  arguments.knots = in[kGrid].dims.d[0];
  arguments.order = attributes_.order;
  // The fast path is the cubic one; knots of any other order are read from the grid, uniform or not.
  arguments.uniform = attributes_.uniform == 1 && attributes_.order == 3;
  arguments.grid_min = attributes_.grid_min;
  arguments.grid_step = attributes_.grid_step;
  arguments.x = inputs[kX];
  arguments.grid = static_cast<const float*>(inputs[kGrid]);
  arguments.bases = outputs[0];
  return finish(cuda::launch_bspline(arguments, stream));
}

}  // namespace vmkla::tensorrt
