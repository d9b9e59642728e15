// The torch ops of dalign: checks, contiguity, allocation, threads. The only file that includes torch (stable ABI
// headers alone); every number is computed by the C library behind dalign.h.
//
// Python has already told the user about wrong shapes and values; what is checked again here keeps memory safe when an
// op is called directly or from a compiled graph.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dalign.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---------------------------------------------------------------- the C library, by type

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                                     \
  template <> struct Kernels<Real> {                                                     \
    static constexpr auto cost_workspace = dalign_cost_workspace_##suffix;               \
    static constexpr auto cost = dalign_cost_##suffix;                                   \
    static constexpr auto cost_backward = dalign_cost_backward_##suffix;                 \
    static constexpr auto softdtw_state = dalign_softdtw_state_##suffix;                 \
    static constexpr auto softdtw_shared = dalign_softdtw_shared_##suffix;               \
    static constexpr auto softdtw_worker = dalign_softdtw_worker_##suffix;               \
    static constexpr auto softdtw_forward = dalign_softdtw_forward_##suffix;             \
    static constexpr auto softdtw_backward = dalign_softdtw_backward_##suffix;           \
    static constexpr auto softdtw_gradient = dalign_softdtw_gradient_##suffix;           \
    static constexpr auto softdtw_open = dalign_softdtw_open_##suffix;                   \
    static constexpr auto softdtw_work = dalign_softdtw_work_##suffix;                   \
    static constexpr auto softdtw_close = dalign_softdtw_close_##suffix;                 \
    static constexpr auto softdtw_hvp_workspace = dalign_softdtw_hvp_workspace_##suffix; \
    static constexpr auto softdtw_hvp = dalign_softdtw_hvp_##suffix;                     \
    static constexpr auto dtw_shared = dalign_dtw_shared_##suffix;                       \
    static constexpr auto dtw_worker = dalign_dtw_worker_##suffix;                       \
    static constexpr auto dtw = dalign_dtw_##suffix;                                     \
    static constexpr auto dtw_open = dalign_dtw_open_##suffix;                           \
    static constexpr auto dtw_work = dalign_dtw_work_##suffix;                           \
    static constexpr auto dtw_close = dalign_dtw_close_##suffix;                         \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// Calls body(Real{}) with the C++ type of a tensor.
template <class Body> void with_real(const Tensor &tensor, const char *name, Body body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return body(float{});
    case ScalarType::Double: return body(double{});
    default: STD_TORCH_CHECK(false, name, " must be float32 or float64");
  }
}

void check_status(int status) {
  STD_TORCH_CHECK(status != DALIGN_BAD_ARGUMENT, "dalign: a kernel refused its arguments (is gamma positive?)");
  STD_TORCH_CHECK(status == DALIGN_OK, "dalign: a kernel failed with status ", status);
}

// ---------------------------------------------------------------- memory

constexpr size_t kAlignment = 64; // one cache line, one 512-bit vector
constexpr size_t kKeptBytes =
    64 << 20; // the largest state (32 MiB), kept tiles (4 MiB), and frames and rows beside them

constexpr size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct FreeBlock {
  void operator()(std::byte *data) const { ::operator delete(data, std::align_val_t(kAlignment)); }
};

struct Block {
  std::unique_ptr<std::byte, FreeBlock> data;
  size_t bytes = 0;
};

// One aligned block per call. The calling thread keeps the last one up to kKeptBytes for its next call: a training loop
// asks for the same sizes again and again, and to get large blocks fresh from the system is 5 % of the time of a long pair.
class Workspace {
public:
  explicit Workspace(size_t bytes) {
    std::swap(block_, kept());
    if (block_.bytes > bytes && block_.data) return;
    block_.data.reset();
    block_.bytes = aligned(bytes + 1);
    block_.data.reset(
        static_cast<std::byte *>(::operator new(block_.bytes, std::align_val_t(kAlignment), std::nothrow)));
    STD_TORCH_CHECK(block_.data, "dalign: out of memory, could not allocate a workspace of ", bytes, " bytes");
  }
  ~Workspace() {
    if (block_.bytes <= kKeptBytes) std::swap(block_, kept());
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  std::byte *at(size_t offset) const { return block_.data.get() + offset; }

private:
  static Block &kept() {
    static thread_local Block block;
    return block;
  }

  Block block_;
};

// ---------------------------------------------------------------- threads

constexpr int64_t kCellsPerThread = 16384;   // a lattice cell takes about 1 ns, waking a thread some microseconds
constexpr int64_t kPipelinedCells = 1 << 17; // from here several threads on one pair are faster than one

int64_t useful_threads(int64_t cells) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::clamp<int64_t>(cells / kCellsPerThread, 1, threads);
}

// kernel(begin, end, workspace) -> status over all items of [0, batch), every thread with a workspace of its own. Items
// go out by a counter: they differ in length. Nothing may throw inside parallel_for.
template <class Kernel>
int for_each_item(int64_t batch, int64_t threads, const Workspace &workspace, size_t bytes, Kernel kernel) {
  if (batch == 0) return DALIGN_OK;
  if (threads == 1) return kernel(0, batch, workspace.at(0));
  const int64_t chunk = std::max<int64_t>(1, batch / (threads * 8));
  std::atomic<int64_t> next{0};
  std::atomic<int> status{DALIGN_OK};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t worker, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(chunk)) < batch;) {
      const int result = kernel(begin, std::min(begin + chunk, batch), workspace.at(worker * bytes));
      if (result != DALIGN_OK) status = result;
    }
  });
  return status;
}

// What the sweeps over a batch of lattices have in common: bytes of memory, a range of items on one thread, and one item
// on several threads by open, work, close.
template <class Real> struct SoftdtwSweep {
  const dalign_softdtw_args &args;
  dalign_pass pass;
  size_t shared_bytes() const { return Kernels<Real>::softdtw_shared(&args, pass); }
  size_t worker_bytes() const { return Kernels<Real>::softdtw_worker(&args); }
  int run(int64_t begin, int64_t end, void *memory) const {
    switch (pass) {
      case DALIGN_FORWARD: return Kernels<Real>::softdtw_forward(&args, begin, end, memory);
      case DALIGN_BACKWARD: return Kernels<Real>::softdtw_backward(&args, begin, end, memory);
      default: return Kernels<Real>::softdtw_gradient(&args, begin, end, memory);
    }
  }
  int open(int64_t item, int retry, void *shared) const {
    return Kernels<Real>::softdtw_open(&args, pass, item, retry, shared);
  }
  static void work(void *shared, void *worker) { Kernels<Real>::softdtw_work(shared, worker); }
  static int close(void *shared) { return Kernels<Real>::softdtw_close(shared); }
};

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

// All threads on one item: open, work, close, and once more where the kernel asks for it.
template <class Sweep> int pipeline(const Sweep &sweep, int64_t item, int64_t threads, const Workspace &workspace) {
  const size_t worker_bytes = aligned(sweep.worker_bytes());
  std::byte *const shared = workspace.at(0);
  std::byte *const workers = workspace.at(aligned(sweep.shared_bytes()));
  for (int retry = 0;; retry = 1) {
    const int opened = sweep.open(item, retry, shared);
    if (opened != DALIGN_OK) return opened;
    int closed = DALIGN_AGAIN;
    while (closed == DALIGN_AGAIN) {
      torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) Sweep::work(shared, workers + i * worker_bytes);
      });
      closed = Sweep::close(shared);
    }
    if (closed != DALIGN_RETRY) return closed;
  }
}

// A sweep over the whole batch: as many rounds of one item per thread as fill every thread, then long items one by one
// with all threads on each.
template <class Sweep> void sweep_batch(const Sweep &sweep) {
  const int64_t batch = sweep.args.batch, cells = sweep.args.n * sweep.args.m;
  const int64_t threads = useful_threads(batch * cells);
  const bool pipelined = threads > 1 && cells >= kPipelinedCells;
  const int64_t by_item = pipelined ? batch - batch % threads : batch;
  const size_t bytes = aligned(sweep.shared_bytes()) + aligned(sweep.worker_bytes());
  const int64_t workers = pipelined ? threads : std::min(threads, std::max<int64_t>(batch, 1));
  const Workspace workspace(workers * bytes);
  check_status(for_each_item(by_item, workers, workspace, bytes,
                             [&](int64_t begin, int64_t end, void *memory) { return sweep.run(begin, end, memory); }));
  for (int64_t item = by_item; item < batch; ++item) check_status(pipeline(sweep, item, threads, workspace));
}

template <class Real> void sweep(const dalign_softdtw_args &args, dalign_pass pass) {
  sweep_batch(SoftdtwSweep<Real>{args, pass});
}

// ---------------------------------------------------------------- arguments

// Holds contiguous copies alive while C structs point into them.
class Arguments {
public:
  const Tensor &keep(const Tensor &tensor) {
    tensors_.push_back(torch::stable::contiguous(tensor));
    return tensors_.back();
  }
  const void *pointer(const Tensor &tensor) { return keep(tensor).const_data_ptr(); }

private:
  std::vector<Tensor> tensors_;
};

dalign_metric metric_of(const std::string &name) {
  static const std::pair<const char *, dalign_metric> metrics[] = {{"sqeuclidean", DALIGN_SQEUCLIDEAN},
                                                                   {"euclidean", DALIGN_EUCLIDEAN},
                                                                   {"manhattan", DALIGN_MANHATTAN},
                                                                   {"cosine", DALIGN_COSINE},
                                                                   {"nll", DALIGN_NLL},
                                                                   {"bce", DALIGN_BCE}};
  for (const auto &[known, metric] : metrics) {
    if (name == known) return metric;
  }
  STD_TORCH_CHECK(false, "metric '", name, "' is unknown");
}

double gamma_of(const Tensor &gamma) {
  STD_TORCH_CHECK(gamma.dim() == 0 && gamma.scalar_type() == ScalarType::Double && gamma.is_cpu(),
                  "gamma must be a 0-dim float64 tensor on the CPU");
  const double value = *gamma.const_data_ptr<double>();
  STD_TORCH_CHECK(value > 0, "gamma must be positive, got ", value);
  return value;
}

const int64_t *lengths_of(Arguments &arguments, const OptionalTensor &lengths, int64_t batch, int64_t longest,
                          const char *name) {
  if (!lengths) return nullptr;
  STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == batch && lengths->scalar_type() == ScalarType::Long &&
                      lengths->is_cpu(),
                  name, " must be an int64 CPU tensor of shape (", batch, ",)");
  const int64_t *values = static_cast<const int64_t *>(arguments.pointer(*lengths));
  for (int64_t b = 0; b < batch; ++b) {
    STD_TORCH_CHECK(values[b] >= 1 && values[b] <= longest, name, "[", b, "] = ", values[b], " is outside [1, ",
                    longest, "]");
  }
  return values;
}

// Class indices that will be read: the first lengths[b] of a row.
void check_labels(const int64_t *labels, const int64_t *lengths, int64_t batch, int64_t m, int64_t classes) {
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t j = 0; j < (lengths ? lengths[b] : m); ++j) {
      const int64_t label = labels[b * m + j];
      STD_TORCH_CHECK(label >= 0 && label < classes, "y[", b, ", ", j, "] = ", label, " is not a class in [0, ",
                      classes, ")");
    }
  }
}

void check_features(const Tensor &x, const Tensor &y, dalign_metric metric) {
  const bool labels = metric == DALIGN_NLL;
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape (B, N, D)");
  STD_TORCH_CHECK(y.dim() == (labels ? 2 : 3), "y must have shape ", labels ? "(B, M)" : "(B, M, D)");
  STD_TORCH_CHECK(x.size(0) == y.size(0), "x and y must have the same batch size, got ", x.size(0), " and ", y.size(0));
  STD_TORCH_CHECK(x.size(1) > 0 && x.size(2) > 0 && y.size(1) > 0, "x and y need at least one frame and one feature");
  STD_TORCH_CHECK(labels || x.size(2) == y.size(2), "x and y must have the same number of features");
  STD_TORCH_CHECK(y.scalar_type() == (labels ? ScalarType::Long : x.scalar_type()),
                  labels ? "y must hold int64 class indices" : "x and y must have the same dtype");
}

dalign_cost_args cost_args(Arguments &arguments, const Tensor &x, const Tensor &y, const std::string &metric_name) {
  const dalign_metric metric = metric_of(metric_name);
  check_features(x, y, metric);
  dalign_cost_args args{x.size(0), x.size(1), y.size(1), x.size(2), metric, arguments.pointer(x), arguments.pointer(y)};
  if (metric == DALIGN_NLL) check_labels(static_cast<const int64_t *>(args.y), nullptr, args.batch, args.m, args.d);
  return args;
}

// What every soft-DTW op takes besides its costs.
struct Options {
  const Tensor &gamma;
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const std::vector<double> &step_weights;
  double band;
};

dalign_softdtw_args lattice_args(Arguments &arguments, int64_t batch, int64_t n, int64_t m, const Options &options) {
  STD_TORCH_CHECK(options.step_weights.size() == 3, "step_weights must be three numbers (down, right, diagonal)");
  dalign_softdtw_args args{};
  args.batch = batch;
  args.n = n;
  args.m = m;
  args.x_lengths = lengths_of(arguments, options.x_lengths, batch, n, "x_lengths");
  args.y_lengths = lengths_of(arguments, options.y_lengths, batch, m, "y_lengths");
  args.gamma = gamma_of(options.gamma);
  std::copy(options.step_weights.begin(), options.step_weights.end(), args.step_weights);
  args.band = options.band;
  return args;
}

dalign_softdtw_args given_costs(Arguments &arguments, const Tensor &cost, const Options &options) {
  STD_TORCH_CHECK(cost.dim() == 3 && cost.size(1) > 0 && cost.size(2) > 0,
                  "cost must have shape (B, N, M) with N, M >= 1");
  dalign_softdtw_args args = lattice_args(arguments, cost.size(0), cost.size(1), cost.size(2), options);
  args.cost = arguments.pointer(cost);
  return args;
}

dalign_softdtw_args given_features(Arguments &arguments, const Tensor &x, const Tensor &y, const std::string &metric,
                                   const Options &options) {
  const dalign_metric kind = metric_of(metric);
  check_features(x, y, kind);
  dalign_softdtw_args args = lattice_args(arguments, x.size(0), x.size(1), y.size(1), options);
  args.metric = kind;
  args.d = x.size(2);
  args.x = arguments.pointer(x);
  args.y = arguments.pointer(y);
  if (kind == DALIGN_NLL)
    check_labels(static_cast<const int64_t *>(args.y), args.y_lengths, args.batch, args.m, args.d);
  return args;
}

// ---------------------------------------------------------------- results

// A result of the shape of like, or an empty tensor when it is not wanted.
Tensor wanted(const Tensor &like, bool need) {
  return need ? torch::stable::new_empty(like, like.sizes()) : torch::stable::new_empty(like, {0});
}

void *pointer_if(const Tensor &tensor, bool need) { return need ? tensor.mutable_data_ptr() : nullptr; }

// Mean cost <H, C> (B,), or an empty tensor when it is not wanted.
Tensor wanted_mean_cost(const Tensor &like, int64_t batch, bool need) {
  return torch::stable::new_empty(like, {need ? batch : 0}, ScalarType::Double);
}

// ---------------------------------------------------------------- soft-DTW from given costs, in two passes

using ValueAndState = std::tuple<Tensor, Tensor>;

// Value, and the state that backward reads when keep is set ((B, 0) when not).
ValueAndState forward(dalign_softdtw_args &args, const Tensor &like, bool keep) {
  Tensor value = torch::stable::new_empty(like, {args.batch});
  Tensor state;
  with_real(like, "the input", [&](auto real) {
    using Real = decltype(real);
    args.state_stride = keep ? static_cast<int64_t>(aligned(Kernels<Real>::softdtw_state(&args))) : 0;
    state = torch::stable::new_empty(like, {args.batch, args.state_stride}, ScalarType::Byte);
    args.value = value.mutable_data_ptr<Real>();
    args.state = keep ? state.mutable_data_ptr<uint8_t>() : nullptr;
    sweep<Real>(args, DALIGN_FORWARD);
  });
  return {value, state};
}

// Points args at what forward left, or runs it again when nothing was kept.
void restore(Arguments &arguments, dalign_softdtw_args &args, const Tensor &like, const Tensor &value,
             const Tensor &state) {
  STD_TORCH_CHECK(value.dim() == 1 && value.size(0) == args.batch && value.scalar_type() == like.scalar_type(),
                  "value must be what forward returned");
  STD_TORCH_CHECK(state.dim() == 2 && state.size(0) == args.batch && state.scalar_type() == ScalarType::Byte,
                  "state must be what forward returned");
  const bool kept = state.size(1) > 0;
  const ValueAndState source = kept ? ValueAndState{value, state} : forward(args, like, true);
  const Tensor &kept_value = arguments.keep(std::get<0>(source));
  args.value = const_cast<void *>(kept_value.const_data_ptr()); // backward only reads it
  const Tensor &kept_state = arguments.keep(std::get<1>(source));
  args.state = const_cast<void *>(kept_state.const_data_ptr());
  args.state_stride = kept_state.size(1);
}

// The backward pass into the results that args names; returns the mean cost <H, C> (B,), empty when it is not wanted.
Tensor backward(Arguments &arguments, dalign_softdtw_args &args, const Tensor &like, const Tensor &value,
                const Tensor &state, const Tensor &grad_value, bool need_mean_cost) {
  STD_TORCH_CHECK(grad_value.dim() == 1 && grad_value.size(0) == args.batch &&
                      grad_value.scalar_type() == like.scalar_type(),
                  "grad_value must have the shape and dtype of value");
  restore(arguments, args, like, value, state);
  args.grad_value = arguments.pointer(grad_value);
  Tensor mean_cost = wanted_mean_cost(like, args.batch, need_mean_cost);
  args.mean_cost = static_cast<double *>(pointer_if(mean_cost, need_mean_cost));
  with_real(like, "the input", [&](auto real) {
    using Real = decltype(real);
    STD_TORCH_CHECK(args.state_stride >= static_cast<int64_t>(Kernels<Real>::softdtw_state(&args)),
                    "state must be what forward returned for the same shapes and band");
    sweep<Real>(args, DALIGN_BACKWARD);
  });
  return mean_cost;
}

// ---------------------------------------------------------------- ops: costs

Tensor cost(const Tensor &x, const Tensor &y, std::string metric) {
  Arguments arguments;
  const dalign_cost_args args = cost_args(arguments, x, y, metric);
  Tensor result = torch::stable::new_empty(x, {args.batch, args.n, args.m});
  with_real(x, "x", [&](auto real) {
    using Real = decltype(real);
    const int64_t threads = std::min(useful_threads(result.numel()), std::max<int64_t>(args.batch, 1));
    const size_t bytes = aligned(Kernels<Real>::cost_workspace(&args));
    const Workspace workspace(threads * bytes);
    Real *const out = result.mutable_data_ptr<Real>();
    check_status(for_each_item(args.batch, threads, workspace, bytes, [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernels<Real>::cost(&args, out, begin, end, memory));
    }));
  });
  return result;
}

std::tuple<Tensor, Tensor> cost_backward(const Tensor &x, const Tensor &y, std::string metric, const Tensor &grad_cost,
                                         bool need_x, bool need_y) {
  Arguments arguments;
  const dalign_cost_args args = cost_args(arguments, x, y, metric);
  STD_TORCH_CHECK(grad_cost.dim() == 3 && grad_cost.size(0) == args.batch && grad_cost.size(1) == args.n &&
                      grad_cost.size(2) == args.m && grad_cost.scalar_type() == x.scalar_type(),
                  "grad_cost must have shape (B, N, M) and the dtype of x");
  STD_TORCH_CHECK(!need_y || args.metric != DALIGN_NLL, "class indices have no gradient");
  Tensor grad_x = wanted(x, need_x), grad_y = wanted(y, need_y);
  with_real(x, "x", [&](auto real) {
    using Real = decltype(real);
    const int64_t threads = std::min(useful_threads(grad_cost.numel()), std::max<int64_t>(args.batch, 1));
    const size_t bytes = aligned(Kernels<Real>::cost_workspace(&args));
    const Workspace workspace(threads * bytes);
    const Real *const grad = static_cast<const Real *>(arguments.pointer(grad_cost));
    Real *const out_x = static_cast<Real *>(pointer_if(grad_x, need_x));
    Real *const out_y = static_cast<Real *>(pointer_if(grad_y, need_y));
    check_status(for_each_item(args.batch, threads, workspace, bytes, [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernels<Real>::cost_backward(&args, grad, out_x, out_y, begin, end, memory));
    }));
  });
  return {grad_x, grad_y};
}

// ---------------------------------------------------------------- ops: soft-DTW from given costs

ValueAndState softdtw(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths,
                      const OptionalTensor &y_lengths, std::vector<double> step_weights, double band, bool keep) {
  Arguments arguments;
  dalign_softdtw_args args = given_costs(arguments, cost, {gamma, x_lengths, y_lengths, step_weights, band});
  return forward(args, cost, keep);
}

std::tuple<Tensor, Tensor> softdtw_backward(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths,
                                            const OptionalTensor &y_lengths, std::vector<double> step_weights,
                                            double band, const Tensor &value, const Tensor &state,
                                            const Tensor &grad_value, bool need_mean_cost) {
  Arguments arguments;
  dalign_softdtw_args args = given_costs(arguments, cost, {gamma, x_lengths, y_lengths, step_weights, band});
  Tensor grad_cost = torch::stable::new_empty(cost, cost.sizes());
  args.grad_cost = grad_cost.mutable_data_ptr();
  Tensor mean_cost = backward(arguments, args, cost, value, state, grad_value, need_mean_cost);
  return {grad_cost, mean_cost};
}

Tensor softdtw_alignment(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths,
                         const OptionalTensor &y_lengths, std::vector<double> step_weights, double band) {
  Arguments arguments;
  dalign_softdtw_args args = given_costs(arguments, cost, {gamma, x_lengths, y_lengths, step_weights, band});
  Tensor value = torch::stable::new_empty(cost, {args.batch});
  Tensor alignment = torch::stable::new_empty(cost, cost.sizes());
  args.value = value.mutable_data_ptr();
  args.grad_cost = alignment.mutable_data_ptr();
  with_real(cost, "cost", [&](auto real) { sweep<decltype(real)>(args, DALIGN_GRADIENT); });
  return alignment;
}

Tensor softdtw_hvp(const Tensor &cost, const Tensor &tangent, const Tensor &gamma, const OptionalTensor &x_lengths,
                   const OptionalTensor &y_lengths, std::vector<double> step_weights, double band) {
  Arguments arguments;
  const dalign_softdtw_args args = given_costs(arguments, cost, {gamma, x_lengths, y_lengths, step_weights, band});
  STD_TORCH_CHECK(tangent.dim() == 3 && tangent.size(0) == args.batch && tangent.size(1) == args.n &&
                      tangent.size(2) == args.m && tangent.scalar_type() == cost.scalar_type(),
                  "tangent must have the shape and dtype of cost");
  Tensor product = torch::stable::new_empty(cost, cost.sizes());
  with_real(cost, "cost", [&](auto real) {
    using Real = decltype(real);
    const int64_t threads = std::min(useful_threads(cost.numel()), std::max<int64_t>(args.batch, 1));
    const size_t bytes = aligned(Kernels<Real>::softdtw_hvp_workspace(&args));
    const Workspace workspace(threads * bytes);
    const Real *const direction = static_cast<const Real *>(arguments.pointer(tangent));
    Real *const out = product.mutable_data_ptr<Real>();
    check_status(for_each_item(args.batch, threads, workspace, bytes, [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernels<Real>::softdtw_hvp(&args, direction, out, begin, end, memory));
    }));
  });
  return product;
}

// ---------------------------------------------------------------- ops: soft-DTW from features, the costs fused

// Value and, in the same pass, the gradients that are needed: no state has to be kept between forward and backward.
std::tuple<Tensor, Tensor, Tensor, Tensor> softdtw_features(const Tensor &x, const Tensor &y, std::string metric,
                                                            const Tensor &gamma, const OptionalTensor &x_lengths,
                                                            const OptionalTensor &y_lengths,
                                                            std::vector<double> step_weights, double band, bool need_x,
                                                            bool need_y, bool need_mean_cost) {
  Arguments arguments;
  dalign_softdtw_args args = given_features(arguments, x, y, metric, {gamma, x_lengths, y_lengths, step_weights, band});
  STD_TORCH_CHECK(!need_y || args.metric != DALIGN_NLL, "class indices have no gradient");
  Tensor value = torch::stable::new_empty(x, {args.batch}), mean_cost = wanted_mean_cost(x, args.batch, need_mean_cost);
  Tensor grad_x = wanted(x, need_x), grad_y = wanted(y, need_y);
  args.value = value.mutable_data_ptr();
  args.grad_x = pointer_if(grad_x, need_x);
  args.grad_y = pointer_if(grad_y, need_y);
  args.mean_cost = static_cast<double *>(pointer_if(mean_cost, need_mean_cost));
  const bool need_any = need_x || need_y || need_mean_cost;
  with_real(x, "x", [&](auto real) { sweep<decltype(real)>(args, need_any ? DALIGN_GRADIENT : DALIGN_FORWARD); });
  return {value, grad_x, grad_y, mean_cost};
}

// ---------------------------------------------------------------- ops: hard DTW

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

STABLE_TORCH_LIBRARY(dalign, m) {
  m.def("cost(Tensor x, Tensor y, str metric) -> Tensor");
  m.def(
      "cost_backward(Tensor x, Tensor y, str metric, Tensor grad_cost, bool need_x, bool need_y) -> (Tensor, Tensor)");
  m.def("softdtw(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, float[] step_weights, float band, "
        "bool keep) -> (Tensor, Tensor)");
  m.def("softdtw_backward(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, float[] step_weights, "
        "float band, Tensor value, Tensor state, Tensor grad_value, bool need_mean_cost) -> (Tensor, Tensor)");
  m.def("softdtw_alignment(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, float[] step_weights, "
        "float band) -> Tensor");
  m.def("softdtw_hvp(Tensor cost, Tensor tangent, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, "
        "float[] step_weights, float band) -> Tensor");
  m.def("softdtw_features(Tensor x, Tensor y, str metric, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, "
        "float[] step_weights, float band, bool need_x, bool need_y, bool need_mean_cost) "
        "-> (Tensor, Tensor, Tensor, Tensor)");
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
  m.impl("cost", TORCH_BOX(&cost));
  m.impl("cost_backward", TORCH_BOX(&cost_backward));
  m.impl("softdtw", TORCH_BOX(&softdtw));
  m.impl("softdtw_backward", TORCH_BOX(&softdtw_backward));
  m.impl("softdtw_alignment", TORCH_BOX(&softdtw_alignment));
  m.impl("softdtw_hvp", TORCH_BOX(&softdtw_hvp));
  m.impl("softdtw_features", TORCH_BOX(&softdtw_features));
  m.impl("dtw", TORCH_BOX(&dtw));
  m.impl("dtw_features", TORCH_BOX(&dtw_features));
  m.impl("dtw_pairs", TORCH_BOX(&dtw_pairs));
}
