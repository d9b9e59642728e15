// Ops of CTC (csrc/ctc.c). Tensors come batch-first; log-probabilities may have any strides, as long as classes lie side by
// side: a (T, B, C) tensor seen as (B, T, C) is not copied.
#include "ops.h"

using namespace dalign_ops;

namespace {

template <class Real> struct Ctc;

#define DALIGN_KERNELS(Real, suffix)                                             \
  template <> struct Ctc<Real> {                                                 \
    static constexpr auto workspace = dalign_ctc_workspace_##suffix;             \
    static constexpr auto run = dalign_ctc_##suffix;                             \
    static constexpr auto hvp_workspace = dalign_ctc_hvp_workspace_##suffix;     \
    static constexpr auto hvp = dalign_ctc_hvp_##suffix;                         \
    static constexpr auto align_workspace = dalign_ctc_align_workspace_##suffix; \
    static constexpr auto align = dalign_ctc_align_##suffix;                     \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// ---------------------------------------------------------------- arguments

// What every op takes besides its log-probabilities.
struct Targets {
  const Tensor &labels; // (B, S), or (sum of label_lengths,)
  const Tensor &input_lengths;
  const Tensor &label_lengths;
  int64_t blank;
};

// A batch as the kernels take it, and the arrays that it points into.
struct Batch {
  dalign_ctc_args args{};
  Arguments arguments;
  std::vector<int64_t> label_begin;
  int64_t longest = 0; // of the label lengths
};

const int64_t *integers(Arguments &arguments, const Tensor &tensor, int64_t count, const char *name) {
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == count && tensor.scalar_type() == ScalarType::Long &&
                      tensor.is_cpu(),
                  name, " must be an int64 CPU tensor of shape (", count, ",)");
  return static_cast<const int64_t *>(arguments.pointer(tensor));
}

void set_log_probs(Batch &batch, const Tensor &log_probs) {
  STD_TORCH_CHECK(log_probs.dim() == 3 && log_probs.size(2) > 0, "log_probs must have shape (B, T, C) with C >= 1");
  const bool is_plain = log_probs.stride(2) == 1;
  if (is_plain) batch.args.log_probs = log_probs.const_data_ptr();
  const Tensor &kept = is_plain ? log_probs : batch.arguments.keep(log_probs);
  batch.args.log_probs = kept.const_data_ptr();
  batch.args.batch = kept.size(0);
  batch.args.frames = kept.size(1);
  batch.args.classes = kept.size(2);
  batch.args.item_stride = kept.stride(0);
  batch.args.frame_stride = kept.stride(1);
}

// Where each item's labels begin, and that all of them exist.
void set_labels(Batch &batch, const Targets &targets) {
  dalign_ctc_args &args = batch.args;
  const bool padded = targets.labels.dim() == 2;
  STD_TORCH_CHECK(targets.labels.scalar_type() == ScalarType::Long && targets.labels.is_cpu() &&
                      (padded ? targets.labels.size(0) == args.batch : targets.labels.dim() == 1),
                  "targets must be an int64 CPU tensor of shape (B, S) or (sum of target_lengths,)");
  args.labels = static_cast<const int64_t *>(batch.arguments.pointer(targets.labels));
  args.label_lengths = integers(batch.arguments, targets.label_lengths, args.batch, "target_lengths");
  int64_t begin = 0;
  for (int64_t b = 0; b < args.batch; ++b) {
    const int64_t length = args.label_lengths[b];
    const int64_t room = padded ? targets.labels.size(1) : targets.labels.size(0) - begin;
    STD_TORCH_CHECK(length >= 0 && length <= room, "target_lengths[", b, "] = ", length, " is outside [0, ", room, "]");
    batch.label_begin.push_back(begin);
    for (int64_t k = begin; k < begin + length; ++k)
      STD_TORCH_CHECK(args.labels[k] >= 0 && args.labels[k] < args.classes, "targets of item ", b, " hold ",
                      args.labels[k], ", which is not a class in [0, ", args.classes, ")");
    begin += padded ? room : length;
    batch.longest = std::max(batch.longest, length);
  }
  args.label_begin = batch.label_begin.data();
}

void set_batch(Batch &batch, const Tensor &log_probs, const Targets &targets) {
  set_log_probs(batch, log_probs);
  dalign_ctc_args &args = batch.args;
  STD_TORCH_CHECK(targets.blank >= 0 && targets.blank < args.classes, "blank = ", targets.blank, " is outside [0, ",
                  args.classes, ")");
  args.blank = targets.blank;
  args.input_lengths = integers(batch.arguments, targets.input_lengths, args.batch, "input_lengths");
  for (int64_t b = 0; b < args.batch; ++b)
    STD_TORCH_CHECK(args.input_lengths[b] >= 0 && args.input_lengths[b] <= args.frames, "input_lengths[", b,
                    "] = ", args.input_lengths[b], " is outside [0, ", args.frames, "]");
  set_labels(batch, targets);
}

// All items, each on one thread.
template <class Kernel> void each_item(const Batch &batch, size_t bytes, Kernel kernel) {
  const int64_t cells = batch.args.batch * batch.args.frames * (2 * batch.longest + 1);
  const int64_t threads = std::min(useful_threads(cells), std::max<int64_t>(batch.args.batch, 1));
  const Workspace workspace(threads * aligned(bytes));
  check_status(for_each_item(batch.args.batch, threads, workspace, aligned(bytes), kernel));
}

void run(const Batch &batch, const Tensor &like) {
  with_real(like, "log_probs", [&](auto real) {
    using Kernel = Ctc<decltype(real)>;
    each_item(batch, Kernel::workspace(&batch.args), [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernel::run(&batch.args, begin, end, memory));
    });
  });
}

// ---------------------------------------------------------------- ops

// Value (B,), and weights[b] d value / d log_probs in the same pass, laid out as log_probs (empty when it is not needed).
std::tuple<Tensor, Tensor> ctc(const Tensor &log_probs, const Tensor &targets, const Tensor &input_lengths,
                               const Tensor &target_lengths, int64_t blank, bool from_logits,
                               const OptionalTensor &weights, bool need_grad) {
  Batch batch;
  set_batch(batch, log_probs, {targets, input_lengths, target_lengths, blank});
  dalign_ctc_args &args = batch.args;
  Tensor value = torch::stable::new_empty(log_probs, {args.batch});
  Tensor grad = torch::stable::new_empty(log_probs, {0});
  args.from_logits = from_logits;
  args.value = value.mutable_data_ptr();
  if (weights) {
    STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == args.batch &&
                        weights->scalar_type() == log_probs.scalar_type(),
                    "weights must have shape (B,) and the dtype of log_probs");
    args.weights = batch.arguments.pointer(*weights);
  }
  if (need_grad) {
    grad = torch::stable::empty_like(log_probs.stride(2) == 1 ? log_probs : torch::stable::contiguous(log_probs));
    STD_TORCH_CHECK(grad.stride(2) == 1 || args.classes == 1, "dalign: gradients of this layout are not supported");
    in_large_pages(grad);
    args.grad = grad.mutable_data_ptr();
    args.grad_item_stride = grad.stride(0);
    args.grad_frame_stride = grad.stride(1);
  }
  run(batch, log_probs);
  return {value, grad};
}

// Probability of each state at each frame (B, T, columns); columns >= 2 max(target_lengths) + 1.
Tensor ctc_alignment(const Tensor &log_probs, const Tensor &targets, const Tensor &input_lengths,
                     const Tensor &target_lengths, int64_t blank, int64_t columns) {
  Batch batch;
  set_batch(batch, log_probs, {targets, input_lengths, target_lengths, blank});
  dalign_ctc_args &args = batch.args;
  STD_TORCH_CHECK(columns >= 2 * batch.longest + 1, "columns must be at least ", 2 * batch.longest + 1);
  Tensor value = torch::stable::new_empty(log_probs, {args.batch});
  Tensor alignment = fresh(log_probs, {args.batch, args.frames, columns});
  args.value = value.mutable_data_ptr();
  args.alignment = alignment.mutable_data_ptr();
  args.columns = columns;
  run(batch, log_probs);
  return alignment;
}

// d <tangent, alignment> / d log_probs; tangent is (B, T, C), or (B, T, columns) by states.
Tensor ctc_hvp(const Tensor &log_probs, const Tensor &tangent, const Tensor &targets, const Tensor &input_lengths,
               const Tensor &target_lengths, int64_t blank, bool by_states) {
  Batch batch;
  set_batch(batch, log_probs, {targets, input_lengths, target_lengths, blank});
  dalign_ctc_args &args = batch.args;
  STD_TORCH_CHECK(tangent.dim() == 3 && tangent.size(0) == args.batch && tangent.size(1) == args.frames &&
                      (by_states ? tangent.size(2) >= 2 * batch.longest + 1 : tangent.size(2) == args.classes) &&
                      tangent.scalar_type() == log_probs.scalar_type(),
                  "tangent must have shape (B, T, C), or (B, T, 2 S + 1) by states, and the dtype of log_probs");
  args.columns = by_states ? tangent.size(2) : 0;
  Tensor product = fresh(log_probs, {args.batch, args.frames, args.classes});
  with_real(log_probs, "log_probs", [&](auto real) {
    using Real = decltype(real);
    const Real *const direction = static_cast<const Real *>(batch.arguments.pointer(tangent));
    Real *const out = product.mutable_data_ptr<Real>();
    each_item(batch, Ctc<Real>::hvp_workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Ctc<Real>::hvp(&args, direction, out, begin, end, memory));
    });
  });
  return product;
}

// Most probable path: minus its log-probability (B,), states (B, T), spans (B, S, 2) and scores (B, S) of the labels.
std::tuple<Tensor, Tensor, Tensor, Tensor> ctc_align(const Tensor &log_probs, const Tensor &targets,
                                                     const Tensor &input_lengths, const Tensor &target_lengths,
                                                     int64_t blank, int64_t labels) {
  Batch batch;
  set_batch(batch, log_probs, {targets, input_lengths, target_lengths, blank});
  const dalign_ctc_args &args = batch.args;
  STD_TORCH_CHECK(labels >= batch.longest, "labels must be at least ", batch.longest);
  Tensor value = torch::stable::new_empty(log_probs, {args.batch}, ScalarType::Double);
  Tensor states = torch::stable::new_empty(log_probs, {args.batch, args.frames}, ScalarType::Long);
  Tensor spans = torch::stable::new_empty(log_probs, {args.batch, labels, 2}, ScalarType::Long);
  Tensor scores = torch::stable::new_empty(log_probs, {args.batch, labels}, ScalarType::Double);
  const dalign_ctc_path path{value.mutable_data_ptr<double>(), states.mutable_data_ptr<int64_t>(),
                             spans.mutable_data_ptr<int64_t>(), scores.mutable_data_ptr<double>(), labels};
  with_real(log_probs, "log_probs", [&](auto real) {
    using Kernel = Ctc<decltype(real)>;
    each_item(batch, Kernel::align_workspace(&args), [&](int64_t begin, int64_t end, void *memory) {
      return static_cast<int>(Kernel::align(&args, &path, begin, end, memory));
    });
  });
  return {value, states, spans, scores};
}

} // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("ctc(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
        "bool from_logits, Tensor? weights, bool need_grad) -> (Tensor, Tensor)");
  m.def("ctc_alignment(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
        "int columns) -> Tensor");
  m.def("ctc_hvp(Tensor log_probs, Tensor tangent, Tensor targets, Tensor input_lengths, Tensor target_lengths, "
        "int blank, bool by_states) -> Tensor");
  m.def("ctc_align(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
        "int labels) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("ctc", TORCH_BOX(&ctc));
  m.impl("ctc_alignment", TORCH_BOX(&ctc_alignment));
  m.impl("ctc_hvp", TORCH_BOX(&ctc_hvp));
  m.impl("ctc_align", TORCH_BOX(&ctc_align));
}
