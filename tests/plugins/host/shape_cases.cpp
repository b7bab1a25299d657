// Types, formats and shapes: while TensorRT builds, when it configures, and at run time.
#include <random>

#include "check.h"
#include "cuda/launch.h"
#include "library.h"

namespace host {
namespace {

constexpr nv::DataType kElements[] = {nv::DataType::kFLOAT, nv::DataType::kHALF};
constexpr int32_t kDataTypes = nv::EnumMax<nv::DataType>(), kFormats = nv::EnumMax<nv::TensorFormat>();

// What getOutputShapes says of these inputs; empty when it refuses them.
std::vector<int64_t> output_shape(nv::IPluginV3& plugin, ExprBuilder& builder,
                                  const std::vector<nv::DimsExprs>& inputs) {
  nv::DimsExprs output{};
  const int32_t status = build(plugin).getOutputShapes(inputs.data(), static_cast<int32_t>(inputs.size()), nullptr, 0,
                                                       &output, 1, builder);
  return status == 0 ? ExprBuilder::values(output) : std::vector<int64_t>{};
}

std::vector<nv::DimsExprs> expressions(ExprBuilder& builder, const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<nv::DimsExprs> result;
  for (const auto& shape : shapes) result.push_back(builder.dims(shape));
  return result;
}

struct Tensors {
  std::vector<nv::PluginTensorDesc> in;
  nv::PluginTensorDesc out;
};

Tensors scan_tensors(const ScanSizes& sizes, nv::DataType element) {
  Tensors result;
  const auto shapes = sizes.inputs();
  for (size_t i = 0; i < shapes.size(); ++i) result.in.push_back(tensor(shapes[i], scan_type(i, element)));
  result.out = tensor(shapes[0], element);
  return result;
}

int32_t on_shape_change(nv::IPluginV3& plugin, const Tensors& tensors) {
  return runtime(plugin).onShapeChange(tensors.in.data(), static_cast<int32_t>(tensors.in.size()), &tensors.out, 1);
}

int32_t configure(nv::IPluginV3& plugin, const Tensors& tensors) {
  std::vector<nv::DynamicPluginTensorDesc> in;
  for (const nv::PluginTensorDesc& one : tensors.in) in.push_back({one, one.dims, one.dims, one.dims});
  const nv::DynamicPluginTensorDesc out{tensors.out, tensors.out.dims, tensors.out.dims, tensors.out.dims};
  return build(plugin).configurePlugin(in.data(), static_cast<int32_t>(in.size()), &out, 1);
}

Tensors spline_tensors(const std::vector<int64_t>& x, int64_t knots, int64_t order, nv::DataType element) {
  std::vector<int64_t> bases = x;
  bases.push_back(knots - order - 1);
  return {{tensor(x, element), tensor({knots}, nv::DataType::kFLOAT)}, tensor(bases, element)};
}

// Every position of a plugin's tensors with every type and format: only the right ones are supported.
void expect_formats(nv::IPluginV3& plugin, std::vector<nv::DataType> (*types_for)(nv::DataType)) {
  for (const nv::DataType element : kElements) {
    const std::vector<nv::DataType> types = types_for(element);
    const int32_t inputs = static_cast<int32_t>(types.size()) - 1;
    std::vector<nv::DynamicPluginTensorDesc> tensors;
    for (const nv::DataType type : types) tensors.push_back(dynamic({1}, {1}, type));
    for (int32_t position = 0; position <= inputs; ++position) {
      const nv::PluginTensorDesc right = tensors[position].desc;
      for (int32_t type = 0; type < kDataTypes; ++type) {
        for (int32_t format = 0; format < kFormats; ++format) {
          nv::PluginTensorDesc& tensor = tensors[position].desc;
          tensor.type = static_cast<nv::DataType>(type);
          tensor.format = static_cast<nv::TensorFormat>(format);
          const bool fits = tensor.type == right.type ||
                            (position == 0 && (tensor.type == kElements[0] || tensor.type == kElements[1]));
          const bool expected = fits && tensor.format == nv::TensorFormat::kLINEAR;
          const bool seen = build(plugin).supportsFormatCombination(position, tensors.data(), inputs, 1);
          if (seen == expected) continue;
          std::cout << "position " << position << ", type " << type << ", format " << format << ": ";
          EXPECT_EQUAL(seen, expected);
        }
      }
      tensors[position].desc = right;
      EXPECT(!build(plugin).supportsFormatCombination(position, tensors.data(), inputs + 1, 1));
      EXPECT(!build(plugin).supportsFormatCombination(position, tensors.data(), inputs, 2));
    }
    EXPECT(!build(plugin).supportsFormatCombination(-1, tensors.data(), inputs, 1));
    EXPECT(!build(plugin).supportsFormatCombination(inputs + 1, tensors.data(), inputs, 1));
  }
}

}  // namespace

CASE(capabilities) {
  Session session;
  for (const auto& plugin : {session.scan(), session.spline()}) {
    EXPECT_EQUAL(std::string(core(*plugin).getInterfaceInfo().kind), "PLUGIN_V3ONE_CORE");
    EXPECT_EQUAL(std::string(build(*plugin).getInterfaceInfo().kind), "PLUGIN_V3ONE_BUILD");
    EXPECT_EQUAL(std::string(runtime(*plugin).getInterfaceInfo().kind), "PLUGIN_V3ONE_RUNTIME");
    // Interface 2 is the one with aliased outputs: no output here shares an input's memory.
    EXPECT_EQUAL(build(*plugin).getInterfaceInfo().major, 1);
    EXPECT(plugin->getCapabilityInterface(static_cast<nv::PluginCapabilityType>(99)) == nullptr);
    EXPECT_EQUAL(std::string(core(*plugin).getPluginVersion()), "1");
    EXPECT_EQUAL(std::string(core(*plugin).getPluginNamespace()), "vmkla");
    EXPECT_EQUAL(build(*plugin).getNbOutputs(), 1);
    EXPECT(build(*plugin).getFormatCombinationLimit() >= 2);
  }
  EXPECT_EQUAL(std::string(core(*session.scan()).getPluginName()), "SelectiveScan2d");
  EXPECT_EQUAL(std::string(core(*session.spline()).getPluginName()), "BSplineBasis");
}

CASE(output_types) {
  Session session;
  const auto scan = session.scan();
  for (const nv::DataType element : kElements) {
    std::vector<nv::DataType> inputs;
    for (size_t i = 0; i < 6; ++i) inputs.push_back(scan_type(i, element));
    nv::DataType output = nv::DataType::kBOOL;
    EXPECT_EQUAL(build(*scan).getOutputDataTypes(&output, 1, inputs.data(), 6), 0);
    EXPECT(output == element);
    EXPECT(build(*scan).getOutputDataTypes(&output, 1, inputs.data(), 5) != 0);
    EXPECT(build(*scan).getOutputDataTypes(&output, 2, inputs.data(), 6) != 0);
    for (size_t i = 0; i < 6; ++i) {
      auto wrong = inputs;
      wrong[i] = i == 0 ? nv::DataType::kINT8 : (inputs[i] == kElements[0] ? kElements[1] : kElements[0]);
      EXPECT(build(*scan).getOutputDataTypes(&output, 1, wrong.data(), 6) != 0);
      EXPECT(session.logger.take().find("input " + std::to_string(i) + " is ") != std::string::npos);
    }
    const nv::DataType spline_inputs[] = {element, nv::DataType::kFLOAT};
    EXPECT_EQUAL(build(*session.spline()).getOutputDataTypes(&output, 1, spline_inputs, 2), 0);
    EXPECT(output == element);
  }
}

CASE(formats_of_scan) {
  Session session;
  expect_formats(*session.scan(), [](nv::DataType element) {
    std::vector<nv::DataType> types;
    for (size_t i = 0; i < 6; ++i) types.push_back(scan_type(i, element));
    types.push_back(element);
    return types;
  });
}

CASE(formats_of_spline) {
  Session session;
  expect_formats(*session.spline(), [](nv::DataType element) {
    return std::vector<nv::DataType>{element, nv::DataType::kFLOAT, element};
  });
}

CASE(scan_shapes) {
  Session session;
  const auto scan = session.scan();
  std::mt19937 random(4);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  for (int round = 0; round < 300; ++round) {
    ExprBuilder builder;
    const ScanSizes sizes{draw(0, 9), draw(1, 64), draw(1, 64), draw(1, 200), draw(1, 64), draw(1, 40)};
    const auto shapes = sizes.inputs();
    // Any part of the extents may be unknown while building.
    std::vector<nv::DimsExprs> inputs;
    for (const auto& shape : shapes) {
      std::vector<bool> known;
      for (size_t i = 0; i < shape.size(); ++i) known.push_back(draw(0, 3) != 0);
      inputs.push_back(builder.dims(shape, known));
    }
    EXPECT(output_shape(*scan, builder, inputs) == shapes[0]);
    // One extent off, all known: refused with the input's shape.
    const size_t which = static_cast<size_t>(draw(0, 5));
    auto wrong = shapes;
    int64_t& extent = wrong[which][static_cast<size_t>(draw(0, static_cast<int64_t>(wrong[which].size()) - 1))];
    extent += draw(1, 3);
    EXPECT(output_shape(*scan, builder, expressions(builder, wrong)).empty());
    EXPECT(session.logger.take().find(", expected (") != std::string::npos);
  }
  EXPECT(session.logger.lines.empty());
}

CASE(scan_shapes_refused) {
  Session session;
  const auto scan = session.scan();
  ExprBuilder builder;
  const ScanSizes sizes;
  for (size_t i = 0; i < 6; ++i) {
    auto shapes = sizes.inputs();
    shapes[i].push_back(1);
    EXPECT(output_shape(*scan, builder, expressions(builder, shapes)).empty());
    const char* const names[] = {"u", "p", "dt_weight", "A", "D", "delta_bias"};
    EXPECT(session.logger.take().find(std::string("input ") + names[i] + " has shape (") != std::string::npos);
  }
  for (const ScanSizes& bad : {ScanSizes{1, 8, 8, 0, 16, 4}, ScanSizes{1, 8, 8, 32, 0, 4}, ScanSizes{1, 8, 8, 32, 16, 0},
                               ScanSizes{1, 8, 8, 32, vmkla::cuda::kMaxStates + 1, 4},
                               ScanSizes{1, 8, 8, vmkla::cuda::kMaxChannels + 1, 16, 4},
                               ScanSizes{1, 8, 8, 32, 16, vmkla::cuda::kMaxRank + 1}}) {
    EXPECT(output_shape(*scan, builder, expressions(builder, bad.inputs())).empty());
    EXPECT(session.logger.take().find("expected each at least 1, d at most 16777216, n at most 256 and R at most 1048576") !=
           std::string::npos);
  }
  for (const ScanSizes& bad : {ScanSizes{1, 1 << 16, 1 << 15, 32, 16, 4}, ScanSizes{1 << 30, 1 << 10, 1 << 10, 64, 16, 4}}) {
    EXPECT(output_shape(*scan, builder, expressions(builder, bad.inputs())).empty());
    EXPECT(session.logger.take().find("expected fewer than 2^31 pixels in an image") != std::string::npos);
  }
  const auto shapes = expressions(builder, sizes.inputs());
  nv::DimsExprs output{};
  EXPECT(build(*scan).getOutputShapes(shapes.data(), 5, nullptr, 0, &output, 1, builder) != 0);
  EXPECT(build(*scan).getOutputShapes(shapes.data(), 6, shapes.data(), 1, &output, 1, builder) != 0);
  EXPECT(session.logger.take().find("shape inputs") != std::string::npos);
}

CASE(spline_shapes) {
  Session session;
  std::mt19937 random(5);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  for (int round = 0; round < 300; ++round) {
    ExprBuilder builder;
    const int64_t order = draw(1, 5), knots = draw(2 * order + 2, 40);
    const auto spline = session.spline(static_cast<int32_t>(order));
    std::vector<int64_t> x;
    std::vector<bool> known;
    for (int64_t rank = draw(1, 7); rank > 0; --rank) {
      x.push_back(draw(0, 100));
      known.push_back(draw(0, 1) == 0);
    }
    std::vector<int64_t> expected = x;
    expected.push_back(knots - order - 1);
    // A constant where the knots are one: what comes after is then static as well.
    nv::DimsExprs inputs[] = {builder.dims(x, known), builder.dims({knots})}, output{};
    EXPECT_EQUAL(build(*spline).getOutputShapes(inputs, 2, nullptr, 0, &output, 1, builder), 0);
    EXPECT(ExprBuilder::values(output) == expected);
    EXPECT(output.d[x.size()]->isConstant());
    for (size_t i = 0; i < x.size(); ++i) EXPECT(output.d[i] == inputs[0].d[i]);
    inputs[1].d[0] = builder.unknown(knots);
    EXPECT_EQUAL(build(*spline).getOutputShapes(inputs, 2, nullptr, 0, &output, 1, builder), 0);
    EXPECT(ExprBuilder::values(output) == expected);
    EXPECT(!output.d[x.size()]->isConstant());
  }
  EXPECT(session.logger.lines.empty());
}

CASE(spline_shapes_refused) {
  Session session;
  const auto spline = session.spline(3);
  const auto refused = [&](const std::vector<int64_t>& x, const std::vector<int64_t>& grid, const char* message) {
    ExprBuilder builder;
    EXPECT(output_shape(*spline, builder, expressions(builder, {x, grid})).empty());
    EXPECT(session.logger.take().find(message) != std::string::npos);
  };
  refused({}, {12}, "input x has shape ()");
  refused({1, 1, 1, 1, 1, 1, 1, 4}, {12}, "expected (..., in) with 1 to 7 extents");
  refused({2, 4}, {4, 12}, "one grid for all features");
  refused({2, 4}, {}, "input grid has shape ()");
  refused({2, 4}, {7}, "input grid has shape (7,), expected 8 to 128 knots");
  refused({2, 4}, {129}, "input grid has shape (129,)");
}

CASE(configure_and_shape_change) {
  Session session;
  const auto scan = session.scan();
  for (const nv::DataType element : kElements) {
    const Tensors right = scan_tensors({}, element);
    EXPECT_EQUAL(configure(*scan, right), 0);
    EXPECT_EQUAL(on_shape_change(*scan, right), 0);
    for (size_t i = 0; i <= 6; ++i) {
      const auto wrong = [&](auto change) {
        Tensors tensors = right;
        change(i < 6 ? tensors.in[i] : tensors.out);
        EXPECT(configure(*scan, tensors) != 0);
        EXPECT(on_shape_change(*scan, tensors) != 0);
      };
      wrong([](nv::PluginTensorDesc& tensor) { tensor.dims.d[tensor.dims.nbDims - 1] += 1; });
      wrong([](nv::PluginTensorDesc& tensor) { tensor.dims.nbDims -= 1; });
      wrong([](nv::PluginTensorDesc& tensor) { tensor.type = nv::DataType::kINT32; });
      // Unknown is right while building and wrong at run time, where it shows in the output.
      Tensors tensors = right;
      nv::PluginTensorDesc& tensor = i < 6 ? tensors.in[i] : tensors.out;
      tensor.dims.d[0] = -1;
      EXPECT_EQUAL(configure(*scan, tensors), 0);
      if (i == 0) EXPECT(on_shape_change(*scan, tensors) != 0);
    }
    EXPECT(runtime(*scan).onShapeChange(right.in.data(), 5, &right.out, 1) != 0);
    const auto spline = session.spline(3);
    const Tensors bases = spline_tensors({2, 5, 7}, 12, 3, element);
    EXPECT_EQUAL(configure(*spline, bases), 0);
    EXPECT_EQUAL(on_shape_change(*spline, bases), 0);
    EXPECT(on_shape_change(*spline, spline_tensors({2, 5, 7}, 12, 2, element)) != 0);
    EXPECT(configure(*spline, spline_tensors({2, 5, 7}, 7, 3, element)) != 0);
  }
}

CASE(profiles_beyond_the_launcher) {
  // The workspace of a refused shape is 0, as that of an empty one: configurePlugin has to tell them apart.
  Session session;
  const auto scan = session.scan();
  const auto configured = [&](const ScanSizes& smallest, const ScanSizes& largest) {
    std::vector<nv::DynamicPluginTensorDesc> in;
    for (size_t i = 0; i < 6; ++i) {
      in.push_back(dynamic(smallest.inputs()[i], largest.inputs()[i], scan_type(i, nv::DataType::kHALF)));
    }
    const nv::DynamicPluginTensorDesc out = dynamic(smallest.inputs()[0], largest.inputs()[0], nv::DataType::kHALF);
    return build(*scan).configurePlugin(in.data(), 6, &out, 1) == 0;
  };
  const ScanSizes smallest{1, 64, 64, 32, 16, 4};
  EXPECT(configured(smallest, {8, 512, 512, 32, 16, 4}));
  EXPECT(configured({0, 64, 64, 32, 16, 4}, smallest));
  EXPECT(configured(smallest, {1, 1 << 16, (1 << 15) - 1, 32, 16, 4}));
  EXPECT(session.logger.lines.empty());
  for (const ScanSizes& largest : {ScanSizes{1, 1 << 16, 1 << 15, 32, 16, 4}, ScanSizes{1 << 30, 1 << 12, 1 << 10, 32, 16, 4}}) {
    EXPECT_EQUAL(vmkla::cuda::scan2d_workspace_bytes(largest.b, largest.H, largest.W, 32, 16, 4), 0u);
    EXPECT(!configured(smallest, largest));
    EXPECT(session.logger.take().find("vmkla SelectiveScan2d: input u has shape (") == 0);
  }
}

CASE(workspace) {
  Session session;
  const auto scan = session.scan();
  for (const int64_t batch : {1, 3, 8}) {
    for (const nv::DataType element : kElements) {
      const ScanSizes opt{1, 64, 48, 96, 16, 6}, max{batch, 64, 48, 96, 16, 6};
      std::vector<nv::DynamicPluginTensorDesc> in;
      for (size_t i = 0; i < 6; ++i) in.push_back(dynamic(opt.inputs()[i], max.inputs()[i], scan_type(i, element)));
      const nv::DynamicPluginTensorDesc out = dynamic(opt.inputs()[0], max.inputs()[0], element);
      const size_t bytes = build(*scan).getWorkspaceSize(in.data(), 6, &out, 1);
      // At least the two partial sums of y.
      EXPECT(bytes >= static_cast<size_t>(2 * max.b * max.H * max.W * max.d * 4));
      EXPECT_EQUAL(bytes, vmkla::cuda::scan2d_workspace_bytes(max.b, max.H, max.W, max.d, max.n, max.R));
    }
  }
  const Tensors bases = spline_tensors({2, 5, 7}, 12, 3, nv::DataType::kFLOAT);
  std::vector<nv::DynamicPluginTensorDesc> in;
  for (const nv::PluginTensorDesc& one : bases.in) in.push_back({one, one.dims, one.dims, one.dims});
  const nv::DynamicPluginTensorDesc out{bases.out, bases.out.dims, bases.out.dims, bases.out.dims};
  EXPECT_EQUAL(build(*session.spline()).getWorkspaceSize(in.data(), 2, &out, 1), 0u);
}

}  // namespace host
