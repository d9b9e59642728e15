// Ops of dtw: value and best path.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                               \
  template <> struct Kernels<Real> {                               \
    static constexpr auto dtw_shared = dalign_dtw_shared_##suffix; \
    static constexpr auto dtw_worker = dalign_dtw_worker_##suffix; \
    static constexpr auto dtw = dalign_dtw_##suffix;               \
    static constexpr auto dtw_open = dalign_dtw_open_##suffix;     \
    static constexpr auto dtw_work = dalign_dtw_work_##suffix;     \
    static constexpr auto dtw_close = dalign_dtw_close_##suffix;   \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

template <class Real> struct DtwSweep {
  const dalign_dtw_args &args;
  size_t shared_bytes() const { return Kernels<Real>::dtw_shared(&args); }
  size_t worker_bytes() const { return Kernels<Real>::dtw_worker(&args); }
  int run(int64_t begin, int64_t end, void *memory) const { return Kernels<Real>::dtw(&args, begin, end, memory); }
  int open(int64_t item, int, void *shared) const { return Kernels<Real>::dtw_open(&args, item, shared); }
  static void work(void *shared, void *worker) { Kernels<Real>::dtw_work(shared, worker); }
  static int close(void *shared) {
    Kernels<Real>::dtw_close(shared);
    return DALIGN_OK;
  }
};
// What every DTW op takes besides its costs.
struct PathOptions {
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const std::vector<int64_t> &steps; // x and y of the first, x and y of the second, ...
  const std::vector<double> &step_weights;
  double band;
  double itakura;
  bool free_start;
  bool free_end;
};

// The arrays of steps that dalign_dtw_args points into.
struct Steps {
  explicit Steps(const PathOptions &options) : weights(options.step_weights) {
    const size_t count = options.steps.size() / 2;
    STD_TORCH_CHECK(options.steps.size() == 2 * count && count == weights.size() && count >= 1 &&
                        count <= DALIGN_DTW_STEPS,
                    "steps must be 1 to ", static_cast<int>(DALIGN_DTW_STEPS), " pairs with a weight each");
    for (size_t k = 0; k < count; ++k) {
      x.push_back(options.steps[2 * k]);
      y.push_back(options.steps[2 * k + 1]);
    }
  }
  std::vector<int64_t> x, y;
  const std::vector<double> &weights;
};

dalign_dtw_args path_args(const Steps &steps, int64_t batch, int64_t n, int64_t m, const PathOptions &options) {
  dalign_dtw_args args{};
  args.batch = batch;
  args.n = n;
  args.m = m;
  args.steps = static_cast<int>(steps.x.size());
  args.step_x = steps.x.data();
  args.step_y = steps.y.data();
  args.step_weights = steps.weights.data();
  args.band = options.band;
  args.itakura = options.itakura;
  args.free_start = options.free_start;
  args.free_end = options.free_end;
  args.limit = std::numeric_limits<double>::infinity();
  return args;
}

void features_of_path(Arguments &arguments, dalign_dtw_args &args, const Tensor &x, const Tensor &y,
                      dalign_metric metric) {
  args.metric = metric;
  args.d = x.size(2);
  args.x = arguments.pointer(x);
  args.y = arguments.pointer(y);
  if (metric == DALIGN_NLL)
    check_labels(static_cast<const int64_t *>(args.y), args.y_lengths, y.size(0), args.m, args.d);
}

using ValueAndPath = std::tuple<Tensor, Tensor, Tensor>;

// Value (B,), path (B, N + M - 1, 2) and its length (B,); empty paths (B, 0, 2) when none are needed.
ValueAndPath best_paths(dalign_dtw_args &args, const Tensor &like, bool need_path) {
  Tensor value = torch::stable::new_empty(like, {args.batch});
  const int64_t longest = need_path ? args.n + args.m - 1 : 0;
  Tensor path = torch::stable::new_empty(like, {args.batch, longest, 2}, ScalarType::Long);
  Tensor length = torch::stable::new_empty(like, {need_path ? args.batch : 0}, ScalarType::Long);
  args.value = value.mutable_data_ptr();
  args.path = static_cast<int64_t *>(pointer_if(path, need_path));
  args.path_length = static_cast<int64_t *>(pointer_if(length, need_path));
  with_real(like, "the input", [&](auto real) { sweep_batch(DtwSweep<decltype(real)>{args}); });
  return {value, path, length};
}

ValueAndPath dtw(const Tensor &cost, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
                 std::vector<int64_t> steps, std::vector<double> step_weights, double band, double itakura,
                 bool free_start, bool free_end, bool need_path) {
  STD_TORCH_CHECK(cost.dim() == 3 && cost.size(1) > 0 && cost.size(2) > 0,
                  "cost must have shape (B, N, M) with N, M >= 1");
  Arguments arguments;
  const PathOptions options{x_lengths, y_lengths, steps, step_weights, band, itakura, free_start, free_end};
  const Steps arrays(options);
  dalign_dtw_args args = path_args(arrays, cost.size(0), cost.size(1), cost.size(2), options);
  args.x_lengths = lengths_of(arguments, x_lengths, args.batch, args.n, "x_lengths");
  args.y_lengths = lengths_of(arguments, y_lengths, args.batch, args.m, "y_lengths");
  args.cost = arguments.pointer(cost);
  return best_paths(args, cost, need_path);
}

ValueAndPath dtw_features(const Tensor &x, const Tensor &y, std::string metric, const OptionalTensor &x_lengths,
                          const OptionalTensor &y_lengths, std::vector<int64_t> steps, std::vector<double> step_weights,
                          double band, double itakura, bool free_start, bool free_end, bool need_path) {
  const dalign_metric kind = metric_of(metric);
  check_features(x, y, kind);
  Arguments arguments;
  const PathOptions options{x_lengths, y_lengths, steps, step_weights, band, itakura, free_start, free_end};
  const Steps arrays(options);
  dalign_dtw_args args = path_args(arrays, x.size(0), x.size(1), y.size(1), options);
  args.x_lengths = lengths_of(arguments, x_lengths, args.batch, args.n, "x_lengths");
  args.y_lengths = lengths_of(arguments, y_lengths, args.batch, args.m, "y_lengths");
  features_of_path(arguments, args, x, y, kind);
  return best_paths(args, x, need_path);
}

const int64_t *items_of(Arguments &arguments, const Tensor &items, int64_t count, int64_t sequences, const char *name) {
  STD_TORCH_CHECK(items.dim() == 1 && items.size(0) == count && items.scalar_type() == ScalarType::Long &&
                      items.is_cpu(),
                  name, " must be an int64 CPU tensor with one entry per pair");
  const int64_t *values = static_cast<const int64_t *>(arguments.pointer(items));
  for (int64_t k = 0; k < count; ++k)
    STD_TORCH_CHECK(values[k] >= 0 && values[k] < sequences, name, "[", k, "] is outside [0, ", sequences, ")");
  return values;
}

// Values of chosen pairs of two collections: pair k aligns x[x_items[k]] and y[y_items[k]]. A value above limit is +inf.
Tensor dtw_pairs(const Tensor &x, const Tensor &y, std::string metric, const Tensor &x_items, const Tensor &y_items,
                 const OptionalTensor &x_lengths, const OptionalTensor &y_lengths, std::vector<int64_t> steps,
                 std::vector<double> step_weights, double band, double itakura, bool free_start, bool free_end,
                 double limit) {
  const dalign_metric kind = metric_of(metric);
  STD_TORCH_CHECK(kind != DALIGN_NLL && x.dim() == 3 && y.dim() == 3 && x.size(2) == y.size(2) && x.size(1) > 0 &&
                      y.size(1) > 0 && x.size(2) > 0 && x.scalar_type() == y.scalar_type(),
                  "x and y must be (P, N, D) and (Q, M, D) of one dtype");
  Arguments arguments;
  const PathOptions options{x_lengths, y_lengths, steps, step_weights, band, itakura, free_start, free_end};
  const Steps arrays(options);
  dalign_dtw_args args = path_args(arrays, x_items.size(0), x.size(1), y.size(1), options);
  args.x_lengths = lengths_of(arguments, x_lengths, x.size(0), args.n, "x_lengths");
  args.y_lengths = lengths_of(arguments, y_lengths, y.size(0), args.m, "y_lengths");
  args.x_items = items_of(arguments, x_items, args.batch, x.size(0), "x_items");
  args.y_items = items_of(arguments, y_items, args.batch, y.size(0), "y_items");
  args.limit = limit;
  features_of_path(arguments, args, x, y, kind);
  return std::get<0>(best_paths(args, x, false));
}
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("dtw(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, int[] steps, "
        "float[] step_weights, float band, float itakura, bool free_start, bool free_end, bool need_path) "
        "-> (Tensor, Tensor, Tensor)");
  m.def("dtw_features(Tensor x, Tensor y, str metric, Tensor? x_lengths, Tensor? y_lengths, int[] steps, "
        "float[] step_weights, float band, float itakura, bool free_start, bool free_end, bool need_path) "
        "-> (Tensor, Tensor, Tensor)");
  m.def("dtw_pairs(Tensor x, Tensor y, str metric, Tensor x_items, Tensor y_items, Tensor? x_lengths, Tensor? "
        "y_lengths, int[] steps, "
        "float[] step_weights, float band, float itakura, bool free_start, bool free_end, float limit) "
        "-> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("dtw", TORCH_BOX(&dtw));
  m.impl("dtw_features", TORCH_BOX(&dtw_features));
  m.impl("dtw_pairs", TORCH_BOX(&dtw_pairs));
}
