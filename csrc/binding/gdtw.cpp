// Ops of gdtw: warps in continuous time, and the gradients of functions of them.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                                    \
  template <> struct Kernels<Real> {                                                    \
    static constexpr auto workspace = dalign_gdtw_workspace_##suffix;                   \
    static constexpr auto run = dalign_gdtw_##suffix;                                   \
    static constexpr auto backward_workspace = dalign_gdtw_backward_workspace_##suffix; \
    static constexpr auto backward = dalign_gdtw_backward_##suffix;                     \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// About how many nanoseconds a knot takes: forward some thousand lattice points besides its share of the first lattice,
// backward its features.
inline int64_t forward_work(const dalign_gdtw_args &args) { return args.batch * args.n * (2048 + 6 * args.m); }
inline int64_t backward_work(const dalign_gdtw_args &args) { return args.batch * args.n * (64 + 4 * args.d); }

// What both ops take in the same order.
struct Inputs {
  const Tensor &x;
  const Tensor &y;
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const OptionalTensor &x_times; // (B, N) float64 of any strides, as the other numbers of knots and edges
  const OptionalTensor &y_times;
  const Tensor &reg_weight;
  const OptionalTensor &nominal_slope; // (B,)
  const OptionalTensor &slope_min;
  const OptionalTensor &slope_max;
  const OptionalTensor &band_min;
  const OptionalTensor &band_max;
  bool fixed_start;
  bool fixed_end;
  const std::string &loss;
  double loss_parameter;
  const std::string &regularizer;
  double regularizer_parameter;
  const std::string &quality;
};

template <class Value, size_t size>
Value named(const std::pair<const char *, Value> (&known)[size], const std::string &name, const char *what) {
  for (const auto &[text, value] : known) {
    if (name == text) return value;
  }
  STD_TORCH_CHECK(false, what, " '", name, "' is unknown");
}

dalign_gdtw_penalty penalty_of(const std::string &name, const char *what) {
  static const std::pair<const char *, dalign_gdtw_penalty> known[] = {
      {"squares", DALIGN_GDTW_SQUARES}, {"power", DALIGN_GDTW_POWER}, {"huber", DALIGN_GDTW_HUBER}};
  return named(known, name, what);
}

dalign_gdtw_quality quality_of(const std::string &name) {
  static const std::pair<const char *, dalign_gdtw_quality> known[] = {
      {"fast", DALIGN_GDTW_FAST}, {"default", DALIGN_GDTW_DEFAULT}, {"thorough", DALIGN_GDTW_THOROUGH}};
  return named(known, name, "quality");
}

// Numbers (B, count) where they lie: an expanded tensor has strides of 0.
dalign_series series_of(const OptionalTensor &numbers, int64_t batch, int64_t count, const char *name) {
  if (!numbers) return {nullptr, 0, 0};
  STD_TORCH_CHECK(numbers->dim() == 2 && numbers->size(0) == batch && numbers->size(1) == count &&
                      numbers->scalar_type() == ScalarType::Double && numbers->is_cpu(),
                  name, " must be a float64 CPU tensor of shape (", batch, ", ", count, ")");
  // Without numbers the pointer may be null, which would stand for "not given".
  static const double nothing = 0;
  const bool empty = batch == 0 || count == 0;
  return {empty ? &nothing : numbers->const_data_ptr<double>(), numbers->stride(0), numbers->stride(1)};
}

dalign_series slope_of(const OptionalTensor &numbers, int64_t batch) {
  if (!numbers) return {nullptr, 0, 0};
  STD_TORCH_CHECK(numbers->dim() == 1 && numbers->size(0) == batch && numbers->scalar_type() == ScalarType::Double &&
                      numbers->is_cpu(),
                  "nominal_slope must be a float64 CPU tensor of shape (", batch, ",)");
  return {numbers->const_data_ptr<double>(), numbers->stride(0), 0};
}

dalign_gdtw_args args_of(Arguments &arguments, const Inputs &inputs) {
  check_features(inputs.x, inputs.y, DALIGN_SQEUCLIDEAN);
  dalign_gdtw_args args{};
  args.batch = inputs.x.size(0);
  args.n = inputs.x.size(1);
  args.m = inputs.y.size(1);
  args.d = inputs.x.size(2);
  args.x = arguments.pointer(inputs.x);
  args.y = arguments.pointer(inputs.y);
  args.x_lengths = lengths_of(arguments, inputs.x_lengths, args.batch, args.n, "x_lengths");
  args.y_lengths = lengths_of(arguments, inputs.y_lengths, args.batch, args.m, "y_lengths");
  args.x_times = series_of(inputs.x_times, args.batch, args.n, "x_times");
  args.y_times = series_of(inputs.y_times, args.batch, args.m, "y_times");
  args.reg_weight = series_of(inputs.reg_weight, args.batch, args.n - 1, "reg_weight");
  args.nominal_slope = slope_of(inputs.nominal_slope, args.batch);
  args.slope_min = series_of(inputs.slope_min, args.batch, args.n - 1, "slope_min");
  args.slope_max = series_of(inputs.slope_max, args.batch, args.n - 1, "slope_max");
  args.band_min = series_of(inputs.band_min, args.batch, args.n, "band_min");
  args.band_max = series_of(inputs.band_max, args.batch, args.n, "band_max");
  args.fixed_start = inputs.fixed_start;
  args.fixed_end = inputs.fixed_end;
  args.loss = penalty_of(inputs.loss, "loss");
  args.loss_parameter = inputs.loss_parameter;
  args.regularizer = penalty_of(inputs.regularizer, "regularizer");
  args.regularizer_parameter = inputs.regularizer_parameter;
  args.quality = quality_of(inputs.quality);
  return args;
}

// kernel(begin, end, workspace) over the batch, with as many threads as the work (in nanoseconds) keeps busy.
template <class Kernel> void over_items(int64_t batch, int64_t work, size_t workspace_bytes, Kernel kernel) {
  const int64_t threads = std::min(useful_threads(work), std::max<int64_t>(batch, 1));
  const size_t bytes = aligned(workspace_bytes);
  const Workspace workspace(threads * bytes);
  const int status = for_each_item(batch, threads, workspace, bytes, kernel);
  STD_TORCH_CHECK(status != DALIGN_BAD_ARGUMENT, "dalign: gdtw refused its arguments (is p > 1, delta > 0?)");
  check_status(status);
}

// ---------------------------------------------------------------- forward

// phi (B, N) and objective (B,) float64, status (B,) int32, blocked (B,), counts (B, 4), state (B, N, 3) int32.
using Warp = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Warp gdtw(const Tensor &x, const Tensor &y, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
          const OptionalTensor &x_times, const OptionalTensor &y_times, const Tensor &reg_weight,
          const OptionalTensor &nominal_slope, const OptionalTensor &slope_min, const OptionalTensor &slope_max,
          const OptionalTensor &band_min, const OptionalTensor &band_max, bool fixed_start, bool fixed_end,
          std::string loss, double loss_parameter, std::string regularizer, double regularizer_parameter,
          std::string quality) {
  Arguments arguments;
  dalign_gdtw_args args = args_of(arguments, {x, y, x_lengths, y_lengths, x_times, y_times, reg_weight, nominal_slope,
                                              slope_min, slope_max, band_min, band_max, fixed_start, fixed_end, loss,
                                              loss_parameter, regularizer, regularizer_parameter, quality});
  Tensor phi = torch::stable::new_empty(x, {args.batch, args.n}, ScalarType::Double);
  Tensor objective = torch::stable::new_empty(x, {args.batch}, ScalarType::Double);
  Tensor status = torch::stable::new_empty(x, {args.batch}, ScalarType::Int);
  Tensor blocked = torch::stable::new_empty(x, {args.batch}, ScalarType::Long);
  Tensor counts = torch::stable::new_empty(x, {args.batch, DALIGN_GDTW_COUNTS}, ScalarType::Long);
  Tensor state = torch::stable::new_empty(x, {args.batch, args.n, 3}, ScalarType::Int);
  args.phi = phi.mutable_data_ptr<double>();
  args.objective = objective.mutable_data_ptr<double>();
  args.status = status.mutable_data_ptr<int32_t>();
  args.blocked = blocked.mutable_data_ptr<int64_t>();
  args.counts = counts.mutable_data_ptr<int64_t>();
  args.state = state.mutable_data_ptr<int32_t>();
  with_real(x, "x", [&](auto real) {
    using Kernel = Kernels<decltype(real)>;
    over_items(args.batch, forward_work(args), Kernel::workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernel::run(&args, begin, end, memory));
    });
  });
  return {phi, objective, status, blocked, counts, state};
}

// ---------------------------------------------------------------- backward

// Gradients of x, y, x_times, y_times, reg_weight, nominal_slope, slope_min, slope_max, band_min, band_max; each empty
// unless wanted.
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
constexpr size_t kGradients = std::tuple_size_v<Gradients>;

double *numbers(const Tensor &tensor, bool need) { return static_cast<double *>(pointer_if(tensor, need)); }

void check_double(const Tensor &tensor, const char *name, int64_t count) {
  STD_TORCH_CHECK(tensor.numel() == count && tensor.scalar_type() == ScalarType::Double, name,
                  " must have the size of its output and be float64");
}

Gradients gdtw_backward(const Tensor &x, const Tensor &y, const OptionalTensor &x_lengths,
                        const OptionalTensor &y_lengths, const OptionalTensor &x_times, const OptionalTensor &y_times,
                        const Tensor &reg_weight, const OptionalTensor &nominal_slope, const OptionalTensor &slope_min,
                        const OptionalTensor &slope_max, const OptionalTensor &band_min, const OptionalTensor &band_max,
                        bool fixed_start, bool fixed_end, std::string loss, double loss_parameter,
                        std::string regularizer, double regularizer_parameter, std::string quality, const Tensor &phi,
                        const Tensor &objective, const Tensor &status, const Tensor &state, const Tensor &grad_phi,
                        const Tensor &grad_objective, std::vector<int64_t> need) {
  STD_TORCH_CHECK(need.size() == kGradients, "need must say for each gradient whether it is wanted (1) or not (0)");
  Arguments arguments;
  dalign_gdtw_args args = args_of(arguments, {x, y, x_lengths, y_lengths, x_times, y_times, reg_weight, nominal_slope,
                                              slope_min, slope_max, band_min, band_max, fixed_start, fixed_end, loss,
                                              loss_parameter, regularizer, regularizer_parameter, quality});
  check_double(phi, "phi", args.batch * args.n);
  check_double(grad_phi, "grad_phi", args.batch * args.n);
  check_double(objective, "objective", args.batch);
  check_double(grad_objective, "grad_objective", args.batch);
  STD_TORCH_CHECK(status.numel() == args.batch && status.scalar_type() == ScalarType::Int &&
                      state.numel() == args.batch * args.n * 3 && state.scalar_type() == ScalarType::Int,
                  "status (B,) and state (B, N, 3) must be int32, as gdtw gives them");
  // The kernel reads them only: one struct serves both ways.
  args.phi = const_cast<double *>(static_cast<const double *>(arguments.pointer(phi)));
  args.objective = const_cast<double *>(static_cast<const double *>(arguments.pointer(objective)));
  args.status = const_cast<int32_t *>(static_cast<const int32_t *>(arguments.pointer(status)));
  args.state = const_cast<int32_t *>(static_cast<const int32_t *>(arguments.pointer(state)));
  args.grad_phi = static_cast<const double *>(arguments.pointer(grad_phi));
  args.grad_objective = static_cast<const double *>(arguments.pointer(grad_objective));

  const auto of = [&](size_t which, std::vector<int64_t> shape) {
    if (!need[which]) shape = {0};
    return torch::stable::new_empty(x, shape, ScalarType::Double);
  };
  const int64_t batch = args.batch, n = args.n;
  Gradients gradients{wanted(x, need[0]),    wanted(y, need[1]), of(2, {batch, n}),     of(3, {batch, args.m}),
                      of(4, {batch, n - 1}), of(5, {batch}),     of(6, {batch, n - 1}), of(7, {batch, n - 1}),
                      of(8, {batch, n}),     of(9, {batch, n})};
  args.grad_x = pointer_if(std::get<0>(gradients), need[0]);
  args.grad_y = pointer_if(std::get<1>(gradients), need[1]);
  args.grad_x_times = numbers(std::get<2>(gradients), need[2]);
  args.grad_y_times = numbers(std::get<3>(gradients), need[3]);
  args.grad_reg_weight = numbers(std::get<4>(gradients), need[4]);
  args.grad_nominal_slope = numbers(std::get<5>(gradients), need[5]);
  args.grad_slope_min = numbers(std::get<6>(gradients), need[6]);
  args.grad_slope_max = numbers(std::get<7>(gradients), need[7]);
  args.grad_band_min = numbers(std::get<8>(gradients), need[8]);
  args.grad_band_max = numbers(std::get<9>(gradients), need[9]);
  with_real(x, "x", [&](auto real) {
    using Kernel = Kernels<decltype(real)>;
    over_items(batch, backward_work(args), Kernel::backward_workspace(&args),
               [&](int64_t begin, int64_t end, void *memory) {
                 return static_cast<int>(Kernel::backward(&args, begin, end, memory));
               });
  });
  return gradients;
}

} // namespace

#define DALIGN_GDTW_INPUTS                                                                                \
  "Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor? x_times, Tensor? y_times, "          \
  "Tensor reg_weight, Tensor? nominal_slope, Tensor? slope_min, Tensor? slope_max, Tensor? band_min, "    \
  "Tensor? band_max, bool fixed_start, bool fixed_end, str loss, float loss_parameter, str regularizer, " \
  "float regularizer_parameter, str quality"

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("gdtw(" DALIGN_GDTW_INPUTS ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("gdtw_backward(" DALIGN_GDTW_INPUTS ", Tensor phi, Tensor objective, Tensor status, Tensor state, "
        "Tensor grad_phi, Tensor grad_objective, int[] need) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("gdtw", TORCH_BOX(&gdtw));
  m.impl("gdtw_backward", TORCH_BOX(&gdtw_backward));
}
