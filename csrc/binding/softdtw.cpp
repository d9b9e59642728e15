// Ops of softdtw: from given costs in two passes, from features in one.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                                     \
  template <> struct Kernels<Real> {                                                     \
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
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

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
template <class Real> void sweep(const dalign_softdtw_args &args, dalign_pass pass) {
  sweep_batch(SoftdtwSweep<Real>{args, pass});
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
  Tensor grad_cost = fresh(cost, cost.sizes());
  args.grad_cost = grad_cost.mutable_data_ptr();
  Tensor mean_cost = backward(arguments, args, cost, value, state, grad_value, need_mean_cost);
  return {grad_cost, mean_cost};
}

Tensor softdtw_alignment(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths,
                         const OptionalTensor &y_lengths, std::vector<double> step_weights, double band) {
  Arguments arguments;
  dalign_softdtw_args args = given_costs(arguments, cost, {gamma, x_lengths, y_lengths, step_weights, band});
  Tensor value = torch::stable::new_empty(cost, {args.batch});
  Tensor alignment = fresh(cost, cost.sizes());
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
  Tensor product = fresh(cost, cost.sizes());
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
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
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
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("softdtw", TORCH_BOX(&softdtw));
  m.impl("softdtw_backward", TORCH_BOX(&softdtw_backward));
  m.impl("softdtw_alignment", TORCH_BOX(&softdtw_alignment));
  m.impl("softdtw_hvp", TORCH_BOX(&softdtw_hvp));
  m.impl("softdtw_features", TORCH_BOX(&softdtw_features));
}
