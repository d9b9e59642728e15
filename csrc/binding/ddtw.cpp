// Ops of ddtw: the general lattice, its gradients, best paths and second derivatives.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                          \
  template <> struct Kernels<Real> {                                          \
    static constexpr auto workspace = dalign_ddtw_workspace_##suffix;         \
    static constexpr auto run = dalign_ddtw_##suffix;                         \
    static constexpr auto hvp_workspace = dalign_ddtw_hvp_workspace_##suffix; \
    static constexpr auto hvp = dalign_ddtw_hvp_##suffix;                     \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// What every op takes besides its costs.
struct Lattice {
  const Tensor &gamma;
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const std::vector<int64_t> &steps;  // x and y of the first, x and y of the second, ...
  const OptionalTensor &step_weights; // (B|1, N|1, M|1, S)
  const std::vector<int64_t> &start;  // cells along x and along y, used when start_cost is not there
  const OptionalTensor &start_cost;   // (B|1, N, M)
  const std::vector<int64_t> &end;
  const OptionalTensor &end_cost;
};

// The arrays that dalign_ddtw_args points into.
struct Problem {
  Arguments arguments;
  std::vector<int64_t> step_x, step_y;
  dalign_ddtw_args args{};
};

dalign_smoothing smoothing_of(const std::string &name) {
  static const std::pair<const char *, dalign_smoothing> operators[] = {{"softmin", DALIGN_SOFTMIN},
                                                                        {"sparsemin", DALIGN_SPARSEMIN},
                                                                        {"smoothmin", DALIGN_SMOOTHMIN},
                                                                        {"hardmin", DALIGN_HARDMIN}};
  for (const auto &[known, smoothing] : operators) {
    if (name == known) return smoothing;
  }
  STD_TORCH_CHECK(false, "smoothing '", name, "' is unknown");
}

bool is_one_or(int64_t size, int64_t whole) { return size == 1 || size == whole; }

void set_steps(Problem &problem, const Lattice &lattice) {
  const size_t count = lattice.steps.size() / 2;
  STD_TORCH_CHECK(lattice.steps.size() == 2 * count && count >= 1 && count <= DALIGN_DDTW_STEPS, "steps must be 1 to ",
                  static_cast<int>(DALIGN_DDTW_STEPS), " pairs");
  for (size_t k = 0; k < count; ++k) {
    problem.step_x.push_back(lattice.steps[2 * k]);
    problem.step_y.push_back(lattice.steps[2 * k + 1]);
  }
  problem.args.steps = static_cast<int>(count);
  problem.args.step_x = problem.step_x.data();
  problem.args.step_y = problem.step_y.data();
}

void check_weights(const Tensor &weights, const dalign_ddtw_args &args, ScalarType dtype) {
  STD_TORCH_CHECK(weights.dim() == 4 && is_one_or(weights.size(0), args.batch) && is_one_or(weights.size(1), args.n) &&
                      is_one_or(weights.size(2), args.m) && weights.size(3) == args.steps &&
                      weights.scalar_type() == dtype,
                  "step_weights must have shape (B|1, N|1, M|1, S) and the dtype of cost");
}

void set_weights(Problem &problem, const Lattice &lattice, ScalarType dtype) {
  if (!lattice.step_weights) return;
  dalign_ddtw_args &args = problem.args;
  check_weights(*lattice.step_weights, args, dtype);
  const Tensor &weights = problem.arguments.keep(*lattice.step_weights);
  args.weights = weights.const_data_ptr();
  for (int64_t axis = 3, stride = 1; axis >= 0; stride *= weights.size(axis--))
    args.weight_strides[axis] = weights.size(axis) == 1 ? 0 : stride;
}

void check_ends(const Tensor &cost, const dalign_ddtw_args &args, ScalarType dtype, const char *name) {
  STD_TORCH_CHECK(cost.dim() == 3 && is_one_or(cost.size(0), args.batch) && cost.size(1) == args.n &&
                      cost.size(2) == args.m && cost.scalar_type() == dtype,
                  name, " must have shape (B|1, N, M) and the dtype of cost");
}

dalign_ends ends_of(Problem &problem, const std::vector<int64_t> &sides, const OptionalTensor &cost, ScalarType dtype,
                    const char *name) {
  STD_TORCH_CHECK(sides.size() == 2 && sides[0] >= 0 && sides[1] >= 0, name, " must be two numbers of cells");
  dalign_ends ends{sides[0], sides[1], nullptr, 0};
  if (!cost) return ends;
  check_ends(*cost, problem.args, dtype, name);
  ends.cost = problem.arguments.pointer(*cost);
  ends.stride = cost->size(0) == 1 ? 0 : problem.args.n * problem.args.m;
  return ends;
}

void set_lattice(Problem &problem, const Tensor &cost, const Lattice &lattice, const std::string &smoothing) {
  STD_TORCH_CHECK(cost.dim() == 3 && cost.size(1) > 0 && cost.size(2) > 0,
                  "cost must have shape (B, N, M) with N, M >= 1");
  dalign_ddtw_args &args = problem.args;
  args.batch = cost.size(0);
  args.n = cost.size(1);
  args.m = cost.size(2);
  args.x_lengths = lengths_of(problem.arguments, lattice.x_lengths, args.batch, args.n, "x_lengths");
  args.y_lengths = lengths_of(problem.arguments, lattice.y_lengths, args.batch, args.m, "y_lengths");
  args.smoothing = smoothing_of(smoothing);
  args.gamma = gamma_of(lattice.gamma);
  set_steps(problem, lattice);
  set_weights(problem, lattice, cost.scalar_type());
  args.start = ends_of(problem, lattice.start, lattice.start_cost, cost.scalar_type(), "start");
  args.end = ends_of(problem, lattice.end, lattice.end_cost, cost.scalar_type(), "end");
  args.cost = problem.arguments.pointer(cost);
}

// Zeros to which items add, of the shape of a tensor; empty when they are not wanted.
Tensor sums_for(const Tensor &cost, const OptionalTensor &like, bool need) {
  if (!need) return torch::stable::new_empty(cost, {0});
  STD_TORCH_CHECK(like.has_value(), "a gradient is wanted for what was not given");
  Tensor sums = torch::stable::new_empty(cost, like->sizes());
  torch::stable::zero_(sums);
  return sums;
}

// Whether items share elements of a sum, so that their order must be fixed.
bool is_shared(const OptionalTensor &tensor, bool need, int64_t batch) {
  return need && tensor && tensor->size(0) < batch;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The gradients that are needed, which args is made to point to.
Gradients wanted_gradients(dalign_ddtw_args &args, const Tensor &cost, const Lattice &lattice, bool need_cost,
                           bool need_weights, bool need_start, bool need_end) {
  Tensor grad_cost = wanted(cost, need_cost), grad_weights = sums_for(cost, lattice.step_weights, need_weights);
  Tensor grad_start = sums_for(cost, lattice.start_cost, need_start);
  Tensor grad_end = sums_for(cost, lattice.end_cost, need_end);
  args.grad_cost = pointer_if(grad_cost, need_cost);
  args.grad_weights = pointer_if(grad_weights, need_weights);
  args.grad_start = pointer_if(grad_start, need_start);
  args.grad_end = pointer_if(grad_end, need_end);
  return {grad_cost, grad_weights, grad_start, grad_end};
}

bool shares_sums(const dalign_ddtw_args &args, const Lattice &lattice) {
  return is_shared(lattice.step_weights, args.grad_weights, args.batch) ||
         is_shared(lattice.start_cost, args.grad_start, args.batch) ||
         is_shared(lattice.end_cost, args.grad_end, args.batch);
}

void set_grad_value(Problem &problem, const OptionalTensor &grad_value, const Tensor &cost) {
  if (!grad_value) return;
  STD_TORCH_CHECK(grad_value->dim() == 1 && grad_value->size(0) == problem.args.batch &&
                      grad_value->scalar_type() == cost.scalar_type(),
                  "grad_value must have the shape and dtype of value");
  problem.args.grad_value = problem.arguments.pointer(*grad_value);
}

// run(begin, end, memory) over the batch, with `bytes` of memory a thread; one thread where items share sums.
template <class Run> void run_batch(const dalign_ddtw_args &args, bool one_thread, size_t bytes, Run run) {
  const int64_t useful = useful_threads(args.batch * args.n * args.m);
  const int64_t threads = one_thread ? 1 : std::min(useful, std::max<int64_t>(args.batch, 1));
  const Workspace workspace(threads * aligned(bytes));
  check_status(for_each_item(args.batch, threads, workspace, aligned(bytes), run));
}

template <class Real> void run_lattice(const dalign_ddtw_args &args, bool one_thread) {
  run_batch(args, one_thread, Kernels<Real>::workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
    return static_cast<int>(Kernels<Real>::run(&args, begin, end, memory));
  });
}

// Value (B,) and the gradients that are needed, times grad_value; mean_cost (B,) as in dalign.h.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
ddtw(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
     std::vector<int64_t> steps, const OptionalTensor &step_weights, std::vector<int64_t> start,
     const OptionalTensor &start_cost, std::vector<int64_t> end, const OptionalTensor &end_cost, std::string smoothing,
     const OptionalTensor &grad_value, bool need_cost, bool need_weights, bool need_start, bool need_end,
     bool need_mean_cost) {
  const Lattice lattice{gamma, x_lengths, y_lengths, steps, step_weights, start, start_cost, end, end_cost};
  Problem problem;
  set_lattice(problem, cost, lattice, smoothing);
  set_grad_value(problem, grad_value, cost);
  dalign_ddtw_args &args = problem.args;
  Tensor value = torch::stable::new_empty(cost, {args.batch});
  Tensor mean_cost = torch::stable::new_empty(cost, {need_mean_cost ? args.batch : 0}, ScalarType::Double);
  args.value = value.mutable_data_ptr();
  args.mean_cost = static_cast<double *>(pointer_if(mean_cost, need_mean_cost));
  const auto [grad_cost, grad_weights, grad_start, grad_end] =
      wanted_gradients(args, cost, lattice, need_cost, need_weights, need_start, need_end);
  with_real(cost, "cost", [&](auto real) { run_lattice<decltype(real)>(args, shares_sums(args, lattice)); });
  return {value, grad_cost, grad_weights, grad_start, grad_end, mean_cost};
}

// Value (B,), best path (B, N + M - 1, 2) with -1 behind its end, and its length (B,).
std::tuple<Tensor, Tensor, Tensor> ddtw_path(const Tensor &cost, const OptionalTensor &x_lengths,
                                             const OptionalTensor &y_lengths, std::vector<int64_t> steps,
                                             const OptionalTensor &step_weights, std::vector<int64_t> start,
                                             const OptionalTensor &start_cost, std::vector<int64_t> end,
                                             const OptionalTensor &end_cost) {
  Tensor gamma = torch::stable::new_empty(cost, {}, ScalarType::Double);
  *gamma.mutable_data_ptr<double>() = 1;
  Problem problem;
  set_lattice(problem, cost, {gamma, x_lengths, y_lengths, steps, step_weights, start, start_cost, end, end_cost},
              "hardmin");
  dalign_ddtw_args &args = problem.args;
  Tensor value = torch::stable::new_empty(cost, {args.batch});
  Tensor path = torch::stable::new_empty(cost, {args.batch, args.n + args.m - 1, 2}, ScalarType::Long);
  Tensor length = torch::stable::new_empty(cost, {args.batch}, ScalarType::Long);
  args.value = value.mutable_data_ptr();
  args.path = path.mutable_data_ptr<int64_t>();
  args.path_length = length.mutable_data_ptr<int64_t>();
  with_real(cost, "cost", [&](auto real) { run_lattice<decltype(real)>(args, false); });
  return {value, path, length};
}

const void *direction_of(Problem &problem, const OptionalTensor &direction) {
  return direction ? problem.arguments.pointer(*direction) : nullptr;
}

// Derivative of grad_value times the gradients along a direction, and of value (B,) in float64.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
ddtw_hvp(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
         std::vector<int64_t> steps, const OptionalTensor &step_weights, std::vector<int64_t> start,
         const OptionalTensor &start_cost, std::vector<int64_t> end, const OptionalTensor &end_cost,
         const OptionalTensor &grad_value, const OptionalTensor &along_cost, const OptionalTensor &along_weights,
         const OptionalTensor &along_start, const OptionalTensor &along_end, bool need_weights, bool need_start,
         bool need_end) {
  const Lattice lattice{gamma, x_lengths, y_lengths, steps, step_weights, start, start_cost, end, end_cost};
  Problem problem;
  set_lattice(problem, cost, lattice, "softmin");
  set_grad_value(problem, grad_value, cost);
  dalign_ddtw_args &args = problem.args;
  if (along_cost)
    STD_TORCH_CHECK(along_cost->dim() == 3 && along_cost->size(0) == args.batch && along_cost->size(1) == args.n &&
                        along_cost->size(2) == args.m && along_cost->scalar_type() == cost.scalar_type(),
                    "the direction must have the shape and dtype of cost");
  STD_TORCH_CHECK(!along_weights || step_weights, "a direction in step_weights needs step_weights");
  STD_TORCH_CHECK((!along_start || start_cost) && (!along_end || end_cost), "a direction in ends needs their costs");
  if (along_weights) {
    check_weights(*along_weights, args, cost.scalar_type());
    STD_TORCH_CHECK(along_weights->numel() == step_weights->numel(), "the direction must be like step_weights");
  }
  if (along_start) {
    check_ends(*along_start, args, cost.scalar_type(), "the direction in start");
    STD_TORCH_CHECK(along_start->numel() == start_cost->numel(), "the direction must be like start");
  }
  if (along_end) {
    check_ends(*along_end, args, cost.scalar_type(), "the direction in end");
    STD_TORCH_CHECK(along_end->numel() == end_cost->numel(), "the direction must be like end");
  }
  Tensor slope = torch::stable::new_empty(cost, {args.batch}, ScalarType::Double);
  const dalign_ddtw_direction direction{direction_of(problem, along_cost), direction_of(problem, along_weights),
                                        direction_of(problem, along_start), direction_of(problem, along_end),
                                        slope.mutable_data_ptr<double>()};
  const auto [grad_cost, grad_weights, grad_start, grad_end] =
      wanted_gradients(args, cost, lattice, true, need_weights, need_start, need_end);
  with_real(cost, "cost", [&](auto real) {
    using Real = decltype(real);
    run_batch(args, shares_sums(args, lattice), Kernels<Real>::hvp_workspace(&args),
              [&](int64_t first, int64_t last, void *memory) {
                return static_cast<int>(Kernels<Real>::hvp(&args, &direction, first, last, memory));
              });
  });
  return {grad_cost, grad_weights, grad_start, grad_end, slope};
}

} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("ddtw(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, int[] steps, Tensor? step_weights, "
        "int[] start, Tensor? start_cost, int[] end, Tensor? end_cost, str smoothing, Tensor? grad_value, "
        "bool need_cost, bool need_weights, bool need_start, bool need_end, bool need_mean_cost) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("ddtw_path(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, int[] steps, Tensor? step_weights, "
        "int[] start, Tensor? start_cost, int[] end, Tensor? end_cost) -> (Tensor, Tensor, Tensor)");
  m.def("ddtw_hvp(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, int[] steps, Tensor? step_weights, "
        "int[] start, Tensor? start_cost, int[] end, Tensor? end_cost, Tensor? grad_value, Tensor? along_cost, "
        "Tensor? along_weights, Tensor? along_start, Tensor? along_end, bool need_weights, bool need_start, "
        "bool need_end) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("ddtw", TORCH_BOX(&ddtw));
  m.impl("ddtw_path", TORCH_BOX(&ddtw_path));
  m.impl("ddtw_hvp", TORCH_BOX(&ddtw_hvp));
}
