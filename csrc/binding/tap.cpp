// Ops of tap: a learned alignment of pairs of sequences, and the gradients of its results.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                                   \
  template <> struct Kernels<Real> {                                                   \
    static constexpr auto prepared = dalign_tap_prepared_##suffix;                     \
    static constexpr auto prepare = dalign_tap_prepare_##suffix;                       \
    static constexpr auto state = dalign_tap_state_##suffix;                           \
    static constexpr auto workspace = dalign_tap_workspace_##suffix;                   \
    static constexpr auto run = dalign_tap_##suffix;                                   \
    static constexpr auto groups = dalign_tap_groups_##suffix;                         \
    static constexpr auto backward_workspace = dalign_tap_backward_workspace_##suffix; \
    static constexpr auto backward = dalign_tap_backward_##suffix;                     \
    static constexpr auto reduce = dalign_tap_reduce_##suffix;                         \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

inline constexpr int64_t kCellWork = 128; // nanoseconds of a cell, about

// What both ops take in the same order.
struct Inputs {
  const Tensor &x; // (X, N, D)
  const Tensor &y; // (Y, M, D)
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const OptionalTensor &x_of; // (P,) int64: the sequences of each pair; without, pair p has x[p] and y[p]
  const OptionalTensor &y_of;
  const OptionalTensor &energy_x; // (X, N, K)
  const OptionalTensor &energy_y;
  const Tensor &parameters; // weight and bias of each layer, one after another
  const std::vector<int64_t> &kernels;
  const std::vector<int64_t> &channels;
  double energy_scale;
  double position_scale;
  bool last_relu;
  bool precise;
};

// The arrays that dalign_tap_args points into.
struct Problem {
  Arguments arguments;
  dalign_tap_layer layers[DALIGN_TAP_LAYERS]{};
  dalign_tap_args args{};
  std::unique_ptr<Workspace> prepared;
};

const int64_t *indices_of(Arguments &arguments, const OptionalTensor &indices, int64_t count, const char *name) {
  if (!indices) return nullptr;
  STD_TORCH_CHECK(indices->dim() == 1 && indices->scalar_type() == ScalarType::Long && indices->is_cpu(), name,
                  " must be an int64 CPU tensor of shape (P,)");
  const int64_t *values = static_cast<const int64_t *>(arguments.pointer(*indices));
  for (int64_t p = 0; p < indices->size(0); ++p) {
    STD_TORCH_CHECK(values[p] >= 0 && values[p] < count, name, "[", p, "] = ", values[p], " is outside [0, ", count,
                    ")");
  }
  return values;
}

int64_t pairs_of(const Inputs &inputs) {
  const int64_t of_x = inputs.x_of ? inputs.x_of->size(0) : inputs.x.size(0);
  const int64_t of_y = inputs.y_of ? inputs.y_of->size(0) : inputs.y.size(0);
  STD_TORCH_CHECK(of_x == of_y, "x_of and y_of (or x and y) must name as many pairs, got ", of_x, " and ", of_y);
  return of_x;
}

void set_frames(Problem &problem, const Inputs &inputs) {
  dalign_tap_args &args = problem.args;
  const Tensor &x = inputs.x, &y = inputs.y;
  STD_TORCH_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(2) == y.size(2) && x.scalar_type() == y.scalar_type(),
                  "x and y must have shapes (X, N, D) and (Y, M, D) and the same dtype");
  STD_TORCH_CHECK(x.size(1) > 0 && x.size(2) > 0 && y.size(1) > 0, "x and y need at least one frame and one feature");
  args.pairs = pairs_of(inputs);
  args.x_count = x.size(0), args.y_count = y.size(0);
  args.n = x.size(1), args.m = y.size(1), args.d = x.size(2);
  args.x = problem.arguments.pointer(x), args.y = problem.arguments.pointer(y);
  args.x_lengths = lengths_of(problem.arguments, inputs.x_lengths, args.x_count, args.n, "x_lengths");
  args.y_lengths = lengths_of(problem.arguments, inputs.y_lengths, args.y_count, args.m, "y_lengths");
  args.x_of = indices_of(problem.arguments, inputs.x_of, args.x_count, "x_of");
  args.y_of = indices_of(problem.arguments, inputs.y_of, args.y_count, "y_of");
}

void check_energy(const Tensor &energy, const Tensor &like, int64_t d, const char *name) {
  STD_TORCH_CHECK(energy.dim() == 3 && energy.size(0) == like.size(0) && energy.size(1) == like.size(1) &&
                      energy.size(2) == d && energy.scalar_type() == like.scalar_type(),
                  name, " must have a row of ", d, " numbers for each frame");
}

void set_energies(Problem &problem, const Inputs &inputs) {
  STD_TORCH_CHECK(inputs.energy_x.has_value() == inputs.energy_y.has_value(), "energy_x and energy_y go together");
  if (!inputs.energy_x) return;
  dalign_tap_args &args = problem.args;
  args.energy_d = inputs.energy_x->dim() == 3 ? inputs.energy_x->size(2) : 0;
  STD_TORCH_CHECK(args.energy_d > 0, "energy_x must have shape (X, N, K) with K > 0");
  check_energy(*inputs.energy_x, inputs.x, args.energy_d, "energy_x");
  check_energy(*inputs.energy_y, inputs.y, args.energy_d, "energy_y");
  args.energy_x = problem.arguments.pointer(*inputs.energy_x);
  args.energy_y = problem.arguments.pointer(*inputs.energy_y);
}

void set_layers(Problem &problem, const Inputs &inputs) {
  const size_t layers = inputs.kernels.size();
  const Tensor &parameters = inputs.parameters;
  STD_TORCH_CHECK(inputs.channels.size() == layers && layers <= DALIGN_TAP_LAYERS && layers != 1,
                  "kernels and channels must hold a number for each layer: none or 2 to ",
                  static_cast<int>(DALIGN_TAP_LAYERS));
  STD_TORCH_CHECK(parameters.dim() == 1 && parameters.scalar_type() == inputs.x.scalar_type(),
                  "parameters must have one dimension and the dtype of x");
  const char *numbers = static_cast<const char *>(problem.arguments.pointer(parameters));
  int64_t in = 2, used = 0;
  for (size_t l = 0; l < layers; ++l) {
    const int64_t kernel = inputs.kernels[l], out = inputs.channels[l];
    STD_TORCH_CHECK(kernel >= 1 && kernel <= DALIGN_TAP_KERNEL && out >= 1 && out <= DALIGN_TAP_CHANNELS,
                    "a layer's kernel or channels are out of range");
    problem.layers[l].kernel = kernel, problem.layers[l].channels = out;
    problem.layers[l].weight = numbers + used * parameters.element_size();
    used += out * in * kernel * kernel;
    problem.layers[l].bias = numbers + used * parameters.element_size();
    used += out;
    in = out;
  }
  STD_TORCH_CHECK(parameters.size(0) == used, "parameters must hold ", used, " numbers, got ", parameters.size(0));
  problem.args.layers = static_cast<int>(layers);
  problem.args.layer = problem.layers;
}

void set_problem(Problem &problem, const Inputs &inputs) {
  set_frames(problem, inputs);
  set_energies(problem, inputs);
  set_layers(problem, inputs);
  problem.args.energy_scale = inputs.energy_scale, problem.args.position_scale = inputs.position_scale;
  problem.args.last_relu = inputs.last_relu, problem.args.precise = inputs.precise;
}

template <class Kernel> void prepare(Problem &problem) {
  problem.prepared = std::make_unique<Workspace>(Kernel::prepared(&problem.args));
  problem.args.prepared = problem.prepared->at(0);
  check_status(Kernel::prepare(&problem.args));
}

// kernel(begin, end, workspace) over pairs or groups of them.
template <class Kernel>
void over_pairs(const dalign_tap_args &args, int64_t count, size_t workspace_bytes, Kernel kernel) {
  const int64_t work = args.pairs * args.n * args.m * kCellWork;
  const int64_t threads = std::min(useful_threads(work), std::max<int64_t>(count, 1));
  const size_t bytes = aligned(workspace_bytes);
  const Workspace workspace(threads * bytes);
  check_status(for_each_item(count, threads, workspace, bytes, kernel));
}

// ---------------------------------------------------------------- forward

// value (P,), A (P, N, M) and T (P, N, M), empty unless wanted, and what backward need not compute once more.
using Aligned = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Tensor map_if(const Tensor &like, const dalign_tap_args &args, bool need) {
  return need ? fresh(like, {args.pairs, args.n, args.m}) : torch::stable::new_empty(like, {0});
}

Aligned tap(const Tensor &x, const Tensor &y, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
            const OptionalTensor &x_of, const OptionalTensor &y_of, const OptionalTensor &energy_x,
            const OptionalTensor &energy_y, const Tensor &parameters, std::vector<int64_t> kernels,
            std::vector<int64_t> channels, double energy_scale, double position_scale, bool last_relu, bool precise,
            bool need_alignment, bool need_transport, int64_t keep_bytes) {
  Problem problem;
  set_problem(problem, {x, y, x_lengths, y_lengths, x_of, y_of, energy_x, energy_y, parameters, kernels, channels,
                        energy_scale, position_scale, last_relu, precise});
  dalign_tap_args &args = problem.args;
  Tensor value = torch::stable::new_empty(x, {args.pairs});
  Tensor alignment = map_if(x, args, need_alignment), transport = map_if(x, args, need_transport);
  Tensor state_at = torch::stable::new_empty(x, {keep_bytes > 0 ? args.pairs : 0}, ScalarType::Long);
  Tensor state = torch::stable::new_empty(x, {0}, ScalarType::Byte);
  args.value = value.mutable_data_ptr();
  args.alignment = pointer_if(alignment, need_alignment);
  args.transport = pointer_if(transport, need_transport);
  with_real(x, "x", [&](auto real) {
    using Kernel = Kernels<decltype(real)>;
    if (keep_bytes > 0) {
      int64_t *const at = state_at.mutable_data_ptr<int64_t>();
      const size_t bytes = Kernel::state(&args, static_cast<size_t>(keep_bytes), at);
      state = torch::stable::new_empty(x, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
      in_large_pages(state);
      args.state_at = at;
      args.state = pointer_if(state, bytes > 0);
    }
    prepare<Kernel>(problem);
    over_pairs(args, args.pairs, Kernel::workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernel::run(&args, begin, end, memory));
    });
  });
  return {value, alignment, transport, state, state_at};
}

// ---------------------------------------------------------------- backward

// Gradients of x (P, N, D) and y (P, M, D), of energy_x and energy_y (P, N, K), (P, M, K), pair by pair, and of the
// parameters; each empty unless wanted.
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
constexpr size_t kGradients = std::tuple_size_v<Gradients>;

const void *upstream_of(Problem &problem, const OptionalTensor &grad, const Tensor &like, int64_t count,
                        const char *name) {
  if (!grad) return nullptr;
  STD_TORCH_CHECK(grad->numel() == count && grad->scalar_type() == like.scalar_type(), name,
                  " must have the size and the dtype of its result");
  return problem.arguments.pointer(*grad);
}

void check_state(const dalign_tap_args &args, size_t bytes, const Tensor &state, const int64_t *at,
                 const Tensor &state_at) {
  bool same = static_cast<int64_t>(bytes) == state.numel();
  const int64_t *given = static_cast<const int64_t *>(state_at.const_data_ptr());
  for (int64_t p = 0; p < args.pairs && same; ++p) same = given[p] == at[p];
  STD_TORCH_CHECK(same, "state does not belong to these inputs");
}

Tensor frames_if(const Tensor &like, int64_t pairs, int64_t d, bool need) {
  return need ? fresh(like, {pairs, like.size(1), d}) : torch::stable::new_empty(like, {0});
}

void set_layer_gradients(Problem &problem, const Tensor &gradient) {
  char *numbers = static_cast<char *>(gradient.mutable_data_ptr());
  int64_t in = 2;
  for (int l = 0; l < problem.args.layers; ++l) {
    dalign_tap_layer &layer = problem.layers[l];
    layer.grad_weight = numbers;
    numbers += layer.channels * in * layer.kernel * layer.kernel * gradient.element_size();
    layer.grad_bias = numbers;
    numbers += layer.channels * gradient.element_size();
    in = layer.channels;
  }
}

template <class Kernel> void run_back(Problem &problem, const Tensor &x) {
  dalign_tap_args &args = problem.args;
  prepare<Kernel>(problem);
  const int64_t groups = Kernel::groups(&args);
  int64_t parameters = 0, in = 2;
  for (int l = 0; l < args.layers; ++l) {
    parameters += problem.layers[l].channels * (in * problem.layers[l].kernel * problem.layers[l].kernel + 1);
    in = problem.layers[l].channels;
  }
  const Tensor partials = torch::stable::new_empty(x, {groups * parameters}, ScalarType::Double);
  args.partials = partials.mutable_data_ptr<double>();
  over_pairs(args, groups, Kernel::backward_workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
    return static_cast<int>(Kernel::backward(&args, begin, end, memory));
  });
  check_status(Kernel::reduce(&args));
}

Gradients tap_backward(const Tensor &x, const Tensor &y, const OptionalTensor &x_lengths,
                       const OptionalTensor &y_lengths, const OptionalTensor &x_of, const OptionalTensor &y_of,
                       const OptionalTensor &energy_x, const OptionalTensor &energy_y, const Tensor &parameters,
                       std::vector<int64_t> kernels, std::vector<int64_t> channels, double energy_scale,
                       double position_scale, bool last_relu, bool precise, const Tensor &state, const Tensor &state_at,
                       const OptionalTensor &grad_value, const OptionalTensor &grad_alignment,
                       const OptionalTensor &grad_transport, std::vector<int64_t> need) {
  STD_TORCH_CHECK(need.size() == kGradients, "need must say for each gradient whether it is wanted (1) or not (0)");
  Problem problem;
  set_problem(problem, {x, y, x_lengths, y_lengths, x_of, y_of, energy_x, energy_y, parameters, kernels, channels,
                        energy_scale, position_scale, last_relu, precise});
  dalign_tap_args &args = problem.args;
  const int64_t cells = args.pairs * args.n * args.m;
  args.grad_value = upstream_of(problem, grad_value, x, args.pairs, "grad_value");
  args.grad_alignment = upstream_of(problem, grad_alignment, x, cells, "grad_alignment");
  args.grad_transport = upstream_of(problem, grad_transport, x, cells, "grad_transport");
  const bool energies = energy_x.has_value();
  STD_TORCH_CHECK(energies || (!need[2] && !need[3]), "there are no energies to have gradients");
  Gradients gradients{frames_if(x, args.pairs, args.d, need[0]), frames_if(y, args.pairs, args.d, need[1]),
                      frames_if(x, args.pairs, args.energy_d, need[2]),
                      frames_if(y, args.pairs, args.energy_d, need[3]), wanted(parameters, need[4])};
  args.grad_x = pointer_if(std::get<0>(gradients), need[0]);
  args.grad_y = pointer_if(std::get<1>(gradients), need[1]);
  args.grad_energy_x = pointer_if(std::get<2>(gradients), need[2]);
  args.grad_energy_y = pointer_if(std::get<3>(gradients), need[3]);
  if (need[4]) set_layer_gradients(problem, std::get<4>(gradients));
  with_real(x, "x", [&](auto real) {
    using Kernel = Kernels<decltype(real)>;
    if (state.numel() > 0) {
      STD_TORCH_CHECK(state_at.numel() == args.pairs && state_at.scalar_type() == ScalarType::Long,
                      "state_at must be an int64 tensor of shape (P,)");
      // The kernel reads it only: one struct serves both ways.
      args.state = const_cast<void *>(problem.arguments.pointer(state));
      args.state_at = static_cast<const int64_t *>(problem.arguments.pointer(state_at));
      std::vector<int64_t> at(static_cast<size_t>(args.pairs));
      check_state(args, Kernel::state(&args, static_cast<size_t>(state.numel()), at.data()), state, at.data(),
                  state_at);
    }
    run_back<Kernel>(problem, x);
  });
  return gradients;
}

} // namespace

#define DALIGN_TAP_INPUTS                                                                                          \
  "Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor? x_of, Tensor? y_of, Tensor? energy_x, "       \
  "Tensor? energy_y, Tensor parameters, int[] kernels, int[] channels, float energy_scale, float position_scale, " \
  "bool last_relu, bool precise"

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("tap(" DALIGN_TAP_INPUTS ", bool need_alignment, bool need_transport, int keep_bytes) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("tap_backward(" DALIGN_TAP_INPUTS
        ", Tensor state, Tensor state_at, Tensor? grad_value, Tensor? grad_alignment, "
        "Tensor? grad_transport, int[] need) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("tap", TORCH_BOX(&tap));
  m.impl("tap_backward", TORCH_BOX(&tap_backward));
}
