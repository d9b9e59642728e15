// Ops of dilate: soft-DTW and a functional of its paths, with the gradients of their weighted sum.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                    \
  template <> struct Kernels<Real> {                                    \
    static constexpr auto workspace = dalign_dilate_workspace_##suffix; \
    static constexpr auto run = dalign_dilate_##suffix;                 \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// What both ops take besides costs or features.
struct Options {
  const Tensor &gamma;
  const OptionalTensor &x_lengths;
  const OptionalTensor &y_lengths;
  const std::vector<int64_t> &steps; // x and y of the first, x and y of the second, ...
  const std::vector<double> &step_weights;
  const std::vector<int64_t> &start; // cells along x and along y
  const std::vector<int64_t> &end;
  double band;
  const std::string &penalty;
  const OptionalTensor &omega;
  const OptionalTensor &grad_value;
  const OptionalTensor &grad_functional;
};

// The arrays that dalign_dilate_args points into.
struct Problem {
  Arguments arguments;
  std::vector<int64_t> step_x, step_y;
  Tensor step_weights;
  dalign_dilate_args args{};
};

dalign_penalty penalty_of(const std::string &name) {
  static const std::pair<const char *, dalign_penalty> penalties[] = {{"squared", DALIGN_PENALTY_SQUARED},
                                                                      {"absolute", DALIGN_PENALTY_ABSOLUTE},
                                                                      {"relative", DALIGN_PENALTY_RELATIVE},
                                                                      {"given", DALIGN_PENALTY_GIVEN}};
  for (const auto &[known, penalty] : penalties) {
    if (name == known) return penalty;
  }
  STD_TORCH_CHECK(false, "penalty '", name, "' is unknown");
}

template <class Real> void copy_weights(Problem &problem, const std::vector<double> &weights) {
  Real *const numbers = problem.step_weights.mutable_data_ptr<Real>();
  std::copy(weights.begin(), weights.end(), numbers);
  problem.args.lattice.weights = numbers;
  problem.args.lattice.weight_strides[3] = 1;
}

void set_steps(Problem &problem, const Tensor &like, const Options &options) {
  const size_t count = options.step_weights.size();
  STD_TORCH_CHECK(options.steps.size() == 2 * count && count >= 1 && count <= DALIGN_DDTW_STEPS, "steps must be 1 to ",
                  static_cast<int>(DALIGN_DDTW_STEPS), " pairs with a weight each");
  for (size_t k = 0; k < count; ++k) {
    problem.step_x.push_back(options.steps[2 * k]);
    problem.step_y.push_back(options.steps[2 * k + 1]);
  }
  problem.args.lattice.steps = static_cast<int>(count);
  problem.args.lattice.step_x = problem.step_x.data();
  problem.args.lattice.step_y = problem.step_y.data();
  problem.step_weights = torch::stable::new_empty(like, {static_cast<int64_t>(count)});
  with_real(like, "the input", [&](auto real) { copy_weights<decltype(real)>(problem, options.step_weights); });
}

const void *factors(Problem &problem, const OptionalTensor &factor, const Tensor &like) {
  if (!factor) return nullptr;
  STD_TORCH_CHECK(factor->dim() == 1 && factor->size(0) == problem.args.lattice.batch &&
                      factor->scalar_type() == like.scalar_type(),
                  "a gradient of the values must have shape (B,) and their dtype");
  return problem.arguments.pointer(*factor);
}

void set_penalty(Problem &problem, const Tensor &like, const Options &options) {
  dalign_dilate_args &args = problem.args;
  const dalign_ddtw_args &lattice = args.lattice;
  args.penalty = penalty_of(options.penalty);
  STD_TORCH_CHECK((args.penalty == DALIGN_PENALTY_GIVEN) == options.omega.has_value(),
                  "omega belongs to penalty 'given' alone");
  if (!options.omega) return;
  const Tensor &omega = *options.omega;
  STD_TORCH_CHECK(omega.dim() == 3 && (omega.size(0) == 1 || omega.size(0) == lattice.batch) &&
                      omega.size(1) == lattice.n && omega.size(2) == lattice.m &&
                      omega.scalar_type() == like.scalar_type(),
                  "omega must have shape (B|1, N, M) and the dtype of the costs");
  args.omega = problem.arguments.pointer(omega);
  args.omega_stride = omega.size(0) == 1 ? 0 : lattice.n * lattice.m;
}

void set_options(Problem &problem, const Tensor &like, int64_t n, int64_t m, const Options &options) {
  dalign_ddtw_args &lattice = problem.args.lattice;
  lattice.batch = like.size(0);
  lattice.n = n;
  lattice.m = m;
  lattice.x_lengths = lengths_of(problem.arguments, options.x_lengths, lattice.batch, n, "x_lengths");
  lattice.y_lengths = lengths_of(problem.arguments, options.y_lengths, lattice.batch, m, "y_lengths");
  lattice.gamma = gamma_of(options.gamma);
  STD_TORCH_CHECK(options.start.size() == 2 && options.end.size() == 2, "start and end must be two numbers of cells");
  lattice.start = {options.start[0], options.start[1], nullptr, 0};
  lattice.end = {options.end[0], options.end[1], nullptr, 0};
  problem.args.band = options.band;
  set_steps(problem, like, options);
  set_penalty(problem, like, options);
  lattice.grad_value = factors(problem, options.grad_value, like);
  problem.args.grad_functional = factors(problem, options.grad_functional, like);
}

// Value, functional, derivative in omega, mean cost, which args is made to point to.
struct Results {
  Tensor value, functional, grad_omega, mean_cost;
};

Results set_results(Problem &problem, const Tensor &like, bool need_omega, bool need_mean_cost) {
  dalign_ddtw_args &lattice = problem.args.lattice;
  const std::vector<int64_t> cells{need_omega ? lattice.batch : 0, lattice.n, lattice.m};
  Results results{torch::stable::new_empty(like, {lattice.batch}), torch::stable::new_empty(like, {lattice.batch}),
                  fresh(like, cells),
                  torch::stable::new_empty(like, {need_mean_cost ? lattice.batch : 0}, ScalarType::Double)};
  lattice.value = results.value.mutable_data_ptr();
  problem.args.functional = results.functional.mutable_data_ptr();
  problem.args.grad_omega = pointer_if(results.grad_omega, need_omega);
  lattice.mean_cost = static_cast<double *>(pointer_if(results.mean_cost, need_mean_cost));
  return results;
}

void run(const dalign_dilate_args &args, const Tensor &like) {
  const dalign_ddtw_args &lattice = args.lattice;
  with_real(like, "the input", [&](auto real) {
    using Real = decltype(real);
    const int64_t useful = useful_threads(lattice.batch * lattice.n * lattice.m);
    const int64_t threads = std::min(useful, std::max<int64_t>(lattice.batch, 1));
    const size_t bytes = aligned(Kernels<Real>::workspace(&args));
    const Workspace workspace(threads * bytes);
    check_status(for_each_item(lattice.batch, threads, workspace, bytes, [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernels<Real>::run(&args, begin, end, memory));
    }));
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
dilate(const Tensor &cost, const Tensor &gamma, const OptionalTensor &x_lengths, const OptionalTensor &y_lengths,
       std::vector<int64_t> steps, std::vector<double> step_weights, std::vector<int64_t> start,
       std::vector<int64_t> end, double band, std::string penalty, const OptionalTensor &omega,
       const OptionalTensor &grad_value, const OptionalTensor &grad_functional, bool need_cost, bool need_omega,
       bool need_mean_cost) {
  STD_TORCH_CHECK(cost.dim() == 3 && cost.size(1) > 0 && cost.size(2) > 0,
                  "cost must have shape (B, N, M) with N, M >= 1");
  Problem problem;
  set_options(problem, cost, cost.size(1), cost.size(2),
              {gamma, x_lengths, y_lengths, steps, step_weights, start, end, band, penalty, omega, grad_value,
               grad_functional});
  Tensor grad_cost = wanted(cost, need_cost);
  problem.args.lattice.cost = problem.arguments.pointer(cost);
  problem.args.lattice.grad_cost = pointer_if(grad_cost, need_cost);
  const Results results = set_results(problem, cost, need_omega, need_mean_cost);
  run(problem.args, cost);
  return {results.value, results.functional, grad_cost, results.grad_omega, results.mean_cost};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
dilate_features(const Tensor &x, const Tensor &y, std::string metric, const Tensor &gamma,
                const OptionalTensor &x_lengths, const OptionalTensor &y_lengths, std::vector<int64_t> steps,
                std::vector<double> step_weights, std::vector<int64_t> start, std::vector<int64_t> end, double band,
                std::string penalty, const OptionalTensor &omega, const OptionalTensor &grad_value,
                const OptionalTensor &grad_functional, bool need_x, bool need_y, bool need_omega, bool need_mean_cost) {
  const dalign_metric kind = metric_of(metric);
  check_features(x, y, kind);
  STD_TORCH_CHECK(!need_y || kind != DALIGN_NLL, "class indices have no gradient");
  Problem problem;
  set_options(problem, x, x.size(1), y.size(1),
              {gamma, x_lengths, y_lengths, steps, step_weights, start, end, band, penalty, omega, grad_value,
               grad_functional});
  dalign_dilate_args &args = problem.args;
  args.metric = kind;
  args.d = x.size(2);
  args.x = problem.arguments.pointer(x);
  args.y = problem.arguments.pointer(y);
  if (kind == DALIGN_NLL)
    check_labels(static_cast<const int64_t *>(args.y), args.lattice.y_lengths, y.size(0), args.lattice.m, args.d);
  Tensor grad_x = wanted(x, need_x), grad_y = wanted(y, need_y);
  args.grad_x = pointer_if(grad_x, need_x);
  args.grad_y = pointer_if(grad_y, need_y);
  const Results results = set_results(problem, x, need_omega, need_mean_cost);
  run(args, x);
  return {results.value, results.functional, grad_x, grad_y, results.grad_omega, results.mean_cost};
}

} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("dilate(Tensor cost, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, int[] steps, float[] step_weights, "
        "int[] start, int[] end, float band, str penalty, Tensor? omega, Tensor? grad_value, Tensor? grad_functional, "
        "bool need_cost, bool need_omega, bool need_mean_cost) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("dilate_features(Tensor x, Tensor y, str metric, Tensor gamma, Tensor? x_lengths, Tensor? y_lengths, "
        "int[] steps, float[] step_weights, int[] start, int[] end, float band, str penalty, Tensor? omega, "
        "Tensor? grad_value, Tensor? grad_functional, bool need_x, bool need_y, bool need_omega, bool need_mean_cost) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("dilate", TORCH_BOX(&dilate));
  m.impl("dilate_features", TORCH_BOX(&dilate_features));
}
