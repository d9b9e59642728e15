// Ops of cost: all pairs of frames, and the adjoint.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                       \
  template <> struct Kernels<Real> {                                       \
    static constexpr auto cost_workspace = dalign_cost_workspace_##suffix; \
    static constexpr auto cost = dalign_cost_##suffix;                     \
    static constexpr auto cost_backward = dalign_cost_backward_##suffix;   \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

dalign_cost_args cost_args(Arguments &arguments, const Tensor &x, const Tensor &y, const std::string &metric_name) {
  const dalign_metric metric = metric_of(metric_name);
  check_features(x, y, metric);
  dalign_cost_args args{x.size(0), x.size(1), y.size(1), x.size(2), metric, arguments.pointer(x), arguments.pointer(y)};
  if (metric == DALIGN_NLL) check_labels(static_cast<const int64_t *>(args.y), nullptr, args.batch, args.m, args.d);
  return args;
}
Tensor cost(const Tensor &x, const Tensor &y, std::string metric) {
  Arguments arguments;
  const dalign_cost_args args = cost_args(arguments, x, y, metric);
  Tensor result = fresh(x, {args.batch, args.n, args.m});
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
} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("cost(Tensor x, Tensor y, str metric) -> Tensor");
  m.def(
      "cost_backward(Tensor x, Tensor y, str metric, Tensor grad_cost, bool need_x, bool need_y) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("cost", TORCH_BOX(&cost));
  m.impl("cost_backward", TORCH_BOX(&cost_backward));
}
