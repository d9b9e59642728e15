// Ops of decode: best paths, prefix beam search at once or in steps, and n-gram models.
#include "ops.h"

namespace {

using namespace dalign_ops;

template <class Real> struct Kernels;

#define DALIGN_KERNELS(Real, suffix)                                        \
  template <> struct Kernels<Real> {                                        \
    static constexpr auto greedy = dalign_decode_greedy_##suffix;           \
    static constexpr auto beam_state = dalign_decode_beam_state_##suffix;   \
    static constexpr auto beam = dalign_decode_beam_##suffix;               \
    static constexpr auto beam_open = dalign_decode_beam_open_##suffix;     \
    static constexpr auto beam_step = dalign_decode_beam_step_##suffix;     \
    static constexpr auto beam_answer = dalign_decode_beam_answer_##suffix; \
    static constexpr auto beam_prefix = dalign_decode_beam_prefix_##suffix; \
  };
DALIGN_KERNELS(float, f32)
DALIGN_KERNELS(double, f64)
#undef DALIGN_KERNELS

// ---------------------------------------------------------------- arguments

const int64_t *input_lengths_of(Arguments &arguments, const OptionalTensor &lengths, int64_t batch, int64_t frames) {
  if (!lengths) return nullptr;
  STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == batch && lengths->scalar_type() == ScalarType::Long &&
                      lengths->is_cpu(),
                  "input_lengths must be an int64 CPU tensor of shape (", batch, ",)");
  const int64_t *values = static_cast<const int64_t *>(arguments.pointer(*lengths));
  for (int64_t b = 0; b < batch; ++b)
    STD_TORCH_CHECK(values[b] >= 0 && values[b] <= frames, "input_lengths[", b, "] = ", values[b], " is outside [0, ",
                    frames, "]");
  return values;
}

dalign_emissions emissions_of(Arguments &arguments, const Tensor &log_probs, const OptionalTensor &input_lengths,
                              int64_t blank) {
  STD_TORCH_CHECK(log_probs.dim() == 3 && log_probs.size(2) > 0, "log_probs must have shape (T, B, C) with C >= 1");
  dalign_emissions emissions{};
  emissions.frames = log_probs.size(0);
  emissions.batch = log_probs.size(1);
  emissions.classes = log_probs.size(2);
  STD_TORCH_CHECK(blank >= 0 && blank < emissions.classes, "blank must be in [0, ", emissions.classes, ")");
  emissions.log_probs = arguments.pointer(log_probs);
  emissions.input_lengths = input_lengths_of(arguments, input_lengths, emissions.batch, emissions.frames);
  emissions.blank = blank;
  return emissions;
}

const Tensor &array_of(Arguments &arguments, const Tensor &array, ScalarType type, int64_t size) {
  STD_TORCH_CHECK(array.dim() == 1 && array.size(0) == size && array.scalar_type() == type && array.is_cpu(),
                  "ngram must be five 1-dim CPU tensors: first, label, suffix (int64), share, backoff (float64)");
  return arguments.keep(array);
}

// A model from its arrays: first (nodes + 1,), label, suffix, share, backoff (nodes,).
dalign_ngram ngram_of(Arguments &arguments, const std::vector<Tensor> &arrays, int64_t classes, int64_t contexts) {
  STD_TORCH_CHECK(arrays.size() == 5 && arrays[0].dim() == 1 && arrays[0].size(0) >= 2,
                  "ngram must be five 1-dim tensors: first, label, suffix, share, backoff");
  const int64_t nodes = arrays[0].size(0) - 1;
  const auto whole = [&](size_t k, int64_t size) {
    return array_of(arguments, arrays[k], ScalarType::Long, size).const_data_ptr<int64_t>();
  };
  const auto real = [&](size_t k) {
    return array_of(arguments, arrays[k], ScalarType::Double, nodes).const_data_ptr<double>();
  };
  const dalign_ngram model{classes,         nodes,           contexts, whole(0, nodes + 1),
                           whole(1, nodes), whole(2, nodes), real(3),  real(4)};
  STD_TORCH_CHECK(dalign_ngram_check_f64(&model) == DALIGN_OK, "ngram: these arrays are no n-gram model of ", classes,
                  " classes");
  return model;
}

// ---------------------------------------------------------------- best paths

std::tuple<Tensor, Tensor, Tensor, Tensor> ctc_greedy_decode(const Tensor &log_probs,
                                                             const OptionalTensor &input_lengths, int64_t blank) {
  Arguments arguments;
  dalign_greedy_args args{};
  args.emissions = emissions_of(arguments, log_probs, input_lengths, blank);
  const int64_t batch = args.emissions.batch, frames = args.emissions.frames;
  Tensor labels = torch::stable::new_empty(log_probs, {batch, frames}, ScalarType::Long);
  Tensor spans = torch::stable::new_empty(log_probs, {batch, frames, 2}, ScalarType::Long);
  Tensor length = torch::stable::new_empty(log_probs, {batch}, ScalarType::Long);
  Tensor score = torch::stable::new_empty(log_probs, {batch}, ScalarType::Double);
  args.labels = labels.mutable_data_ptr<int64_t>();
  args.spans = spans.mutable_data_ptr<int64_t>();
  args.length = length.mutable_data_ptr<int64_t>();
  args.score = score.mutable_data_ptr<double>();
  with_real(log_probs, "log_probs", [&](auto real) {
    const int64_t threads = std::min(useful_threads(log_probs.numel()), std::max<int64_t>(batch, 1));
    const Workspace none(0);
    check_status(for_each_item(batch, threads, none, 0, [&](int64_t begin, int64_t end, void *) {
      return static_cast<int>(Kernels<decltype(real)>::greedy(&args, begin, end));
    }));
  });
  return {labels, spans, length, score};
}

// ---------------------------------------------------------------- beams

// What every beam op takes besides log-probabilities and their lengths.
struct BeamOptions {
  int64_t blank, width, top;
  double token_threshold, scorer_weight, length_bonus;
};

// labels (B, K, T), length, log_prob, score (B, K), found (B,)
using BeamResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

BeamResults empty_results(const Tensor &like, int64_t batch, int64_t top, int64_t frames) {
  STD_TORCH_CHECK(top >= 1, "top must be at least 1");
  return {torch::stable::new_empty(like, {batch, top, frames}, ScalarType::Long),
          torch::stable::new_empty(like, {batch, top}, ScalarType::Long),
          torch::stable::new_empty(like, {batch, top}, ScalarType::Double),
          torch::stable::new_empty(like, {batch, top}, ScalarType::Double),
          torch::stable::new_empty(like, {batch}, ScalarType::Long)};
}

void write_to(dalign_beam_args &args, const BeamResults &results) {
  const auto &[labels, length, log_prob, score, found] = results;
  args.labels = labels.mutable_data_ptr<int64_t>();
  args.length = length.mutable_data_ptr<int64_t>();
  args.log_prob = log_prob.mutable_data_ptr<double>();
  args.score = score.mutable_data_ptr<double>();
  args.found = found.mutable_data_ptr<int64_t>();
}

dalign_beam_args beam_args(Arguments &arguments, const Tensor &log_probs, const OptionalTensor &input_lengths,
                           const BeamOptions &options) {
  dalign_beam_args args{};
  args.emissions = emissions_of(arguments, log_probs, input_lengths, options.blank);
  args.width = options.width;
  args.top = options.top;
  args.token_threshold = options.token_threshold;
  args.scorer_weight = options.scorer_weight;
  args.length_bonus = options.length_bonus;
  return args;
}

template <class Real> size_t state_bytes(const dalign_beam_args &args) {
  const size_t bytes = Kernels<Real>::beam_state(&args);
  STD_TORCH_CHECK(bytes > 0, "a beam of width ", args.width, " over ", args.emissions.frames, " frames and ",
                  args.emissions.classes, " classes is too large");
  return aligned(bytes);
}

BeamResults ctc_beam_decode(const Tensor &log_probs, const OptionalTensor &input_lengths, int64_t blank, int64_t width,
                            int64_t top, double token_threshold, double scorer_weight, double length_bonus,
                            std::vector<Tensor> ngram, int64_t contexts) {
  Arguments arguments;
  dalign_beam_args args =
      beam_args(arguments, log_probs, input_lengths, {blank, width, top, token_threshold, scorer_weight, length_bonus});
  const dalign_emissions &emissions = args.emissions;
  dalign_ngram model{};
  if (!ngram.empty()) {
    model = ngram_of(arguments, ngram, emissions.classes, contexts);
    args.ngram = &model;
  }
  BeamResults results = empty_results(log_probs, emissions.batch, top, emissions.frames);
  write_to(args, results);
  with_real(log_probs, "log_probs", [&](auto real) {
    using Real = decltype(real);
    const size_t bytes = state_bytes<Real>(args);
    const int64_t work =
        emissions.batch * emissions.frames * (emissions.classes + 100 * std::min<int64_t>(width, 1000));
    const int64_t threads = std::min(useful_threads(work), std::max<int64_t>(emissions.batch, 1));
    const Workspace workspace(threads * bytes);
    check_status(
        for_each_item(emissions.batch, threads, workspace, bytes, [&](int64_t begin, int64_t end, void *memory) {
          return static_cast<int>(Kernels<Real>::beam(&args, begin, end, memory));
        }));
  });
  return results;
}

// A search whose scorer is asked in Python: its state, and the results that its steps write, of one item.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
ctc_beam_open(const Tensor &log_probs, const OptionalTensor &input_lengths, int64_t blank, int64_t width, int64_t top,
              double token_threshold, double scorer_weight, double length_bonus) {
  Arguments arguments;
  dalign_beam_args args =
      beam_args(arguments, log_probs, input_lengths, {blank, width, top, token_threshold, scorer_weight, length_bonus});
  STD_TORCH_CHECK(args.emissions.batch == 1, "a search in steps takes one item");
  args.asks = 1;
  BeamResults results = empty_results(log_probs, 1, top, args.emissions.frames);
  write_to(args, results);
  Tensor state;
  with_real(log_probs, "log_probs", [&](auto real) {
    using Real = decltype(real);
    state = torch::stable::new_empty(log_probs, {static_cast<int64_t>(state_bytes<Real>(args))}, ScalarType::Byte);
    check_status(Kernels<Real>::beam_open(&args, state.mutable_data_ptr()));
  });
  return std::tuple_cat(std::make_tuple(state), results);
}

// Questions as tensors: row (R,), label (R,), and of each row that is asked about its prefix (K, L) with lengths (K,).
template <class Real>
std::tuple<Tensor, Tensor, Tensor, Tensor> questions_of(const dalign_beam_args &args, void *state, const Tensor &like,
                                                        const dalign_questions &asked) {
  Tensor row = torch::stable::new_empty(like, {asked.count}, ScalarType::Long);
  Tensor label = torch::stable::new_empty(like, {asked.count}, ScalarType::Long);
  int64_t rows = 0;
  for (int64_t k = 0; k < asked.count; ++k) {
    if (k == 0 || asked.row[k] != asked.row[k - 1]) ++rows;
    row.mutable_data_ptr<int64_t>()[k] = rows - 1;
    label.mutable_data_ptr<int64_t>()[k] = asked.label[k];
  }
  Tensor prefixes = torch::stable::new_empty(like, {rows, args.emissions.frames}, ScalarType::Long);
  Tensor lengths = torch::stable::new_empty(like, {rows}, ScalarType::Long);
  for (int64_t k = asked.count - 1; k >= 0; --k) {
    const int64_t place = row.mutable_data_ptr<int64_t>()[k];
    if (k > 0 && asked.row[k] == asked.row[k - 1]) continue;
    check_status(Kernels<Real>::beam_prefix(&args, state, asked.row[k],
                                            prefixes.mutable_data_ptr<int64_t>() + place * args.emissions.frames,
                                            lengths.mutable_data_ptr<int64_t>() + place));
  }
  return {row, label, prefixes, lengths};
}

void check_results(const BeamResults &results, int64_t top, int64_t frames) {
  const auto &[labels, length, log_prob, score, found] = results;
  STD_TORCH_CHECK(labels.numel() == top * frames && length.numel() == top && log_prob.numel() == top &&
                      score.numel() == top && found.numel() == 1,
                  "results must be those of ctc_beam_open");
}

// Goes on with the answers (none at first) to the last questions, until there are new ones, or none: then it is done.
std::tuple<Tensor, Tensor, Tensor, Tensor>
ctc_beam_step(const Tensor &log_probs, const OptionalTensor &input_lengths, int64_t blank, int64_t width, int64_t top,
              double token_threshold, double scorer_weight, double length_bonus, Tensor state, Tensor labels,
              Tensor length, Tensor log_prob, Tensor score, Tensor found, const Tensor &answers) {
  Arguments arguments;
  dalign_beam_args args =
      beam_args(arguments, log_probs, input_lengths, {blank, width, top, token_threshold, scorer_weight, length_bonus});
  STD_TORCH_CHECK(args.emissions.batch == 1, "a search in steps takes one item");
  args.asks = 1;
  const BeamResults results{labels, length, log_prob, score, found};
  check_results(results, top, args.emissions.frames);
  write_to(args, results);
  STD_TORCH_CHECK(answers.dim() == 1 && answers.scalar_type() == ScalarType::Double, "answers must be float64 (R,)");
  const double *const answer = static_cast<const double *>(arguments.pointer(answers));
  dalign_questions asked{};
  std::tuple<Tensor, Tensor, Tensor, Tensor> questions;
  with_real(log_probs, "log_probs", [&](auto real) {
    using Real = decltype(real);
    STD_TORCH_CHECK(state.scalar_type() == ScalarType::Byte &&
                        state.numel() == static_cast<int64_t>(state_bytes<Real>(args)),
                    "state must be that of ctc_beam_open");
    void *const memory = state.mutable_data_ptr();
    STD_TORCH_CHECK(Kernels<Real>::beam_answer(&args, memory, answer, answers.size(0)) == DALIGN_OK,
                    "answers must be log-probabilities, one for each question");
    const int status = Kernels<Real>::beam_step(&args, 0, memory, &asked);
    if (status != DALIGN_ASK) check_status(status);
    questions = questions_of<Real>(args, memory, log_probs, asked);
  });
  return questions;
}

// ---------------------------------------------------------------- n-gram models

// log p of each label after those before it, and of the end: (L + 1,).
Tensor ngram_log_probs(const Tensor &labels, std::vector<Tensor> ngram, int64_t classes, int64_t contexts) {
  Arguments arguments;
  const dalign_ngram model = ngram_of(arguments, ngram, classes, contexts);
  STD_TORCH_CHECK(labels.dim() == 1 && labels.scalar_type() == ScalarType::Long && labels.is_cpu(),
                  "labels must be an int64 CPU tensor of shape (L,)");
  const int64_t *const values = static_cast<const int64_t *>(arguments.pointer(labels));
  Tensor log_probs = torch::stable::new_empty(labels, {labels.size(0) + 1}, ScalarType::Double);
  STD_TORCH_CHECK(dalign_ngram_log_probs_f64(&model, values, labels.size(0), log_probs.mutable_data_ptr<double>()) ==
                      DALIGN_OK,
                  "labels must be in [0, ", classes, ")");
  return log_probs;
}

} // namespace

#define BEAM_ARGUMENTS                                                                                    \
  "Tensor log_probs, Tensor? input_lengths, int blank, int width, int top, float token_threshold, float " \
  "scorer_weight, "                                                                                       \
  "float length_bonus"

STABLE_TORCH_LIBRARY_FRAGMENT(dalign, m) {
  m.def("ctc_greedy_decode(Tensor log_probs, Tensor? input_lengths, int blank) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("ctc_beam_decode(" BEAM_ARGUMENTS
        ", Tensor[] ngram, int contexts) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("ctc_beam_open(" BEAM_ARGUMENTS ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("ctc_beam_step(" BEAM_ARGUMENTS
        ", Tensor(a!) state, Tensor(b!) labels, Tensor(c!) length, Tensor(d!) log_prob, Tensor(e!) score, "
        "Tensor(f!) found, Tensor answers) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("ngram_log_probs(Tensor labels, Tensor[] ngram, int classes, int contexts) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dalign, CPU, m) {
  m.impl("ctc_greedy_decode", TORCH_BOX(&ctc_greedy_decode));
  m.impl("ctc_beam_decode", TORCH_BOX(&ctc_beam_decode));
  m.impl("ctc_beam_open", TORCH_BOX(&ctc_beam_open));
  m.impl("ctc_beam_step", TORCH_BOX(&ctc_beam_step));
  m.impl("ngram_log_probs", TORCH_BOX(&ngram_log_probs));
}
