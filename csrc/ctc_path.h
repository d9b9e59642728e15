/* ctc_path.h: the most probable path (part of ctc.c, once per element type), sums of logarithms in double.
 *
 *   V(t, s) = log p(t, s) + max(V(t-1, s), V(t-1, s-1), V(t-1, s-2) where allowed)
 *
 * Of each frame a byte a state tells the step that was best. These are kept for one segment of about sqrt(T) frames, going back;
 * the sweep forward keeps V where a segment begins. */
#undef viterbi
#define viterbi FN(ctc_viterbi)

typedef struct {
  const dalign_ctc_args *args;
  const REAL *logs;
  int64_t frames, labels, states, segment; /* segment: its frames */
  const int64_t *label;
  double *best[2]; /* (states,) V of a frame and of the one before */
  double *kept;    /* (segments, states) V of the frame before each segment */
  uint8_t *step;   /* (segment, states) */
} viterbi;

static void FN(cut_viterbi_)(viterbi *v, dalign_arena *a, int64_t frames, int64_t states) {
  v->segment = 1;
  while (v->segment * v->segment < frames) v->segment++;
  const int64_t segments = (frames + v->segment - 1) / v->segment;
  for (int i = 0; i < 2; i++) v->best[i] = dalign_arena_take(a, sizeof(double) * (size_t)states);
  v->kept = dalign_arena_take(a, sizeof(double) * (size_t)(segments * states));
  v->step = dalign_arena_take(a, (size_t)(v->segment * states));
}

static double FN(log_on_path_)(const viterbi *v, int64_t t, int64_t s) {
  return (double)v->logs[t * v->args->frame_stride + (s % 2 ? v->label[s / 2] : v->args->blank)];
}

/* V of frame t into best[t % 2], and the steps into it. Frame 0 is entered from a state before the first. */
static void FN(viterbi_frame_)(const viterbi *v, int64_t t, uint8_t *step) {
  const double *from = v->best[(t + 1) % 2];
  double *to = v->best[t % 2];
  for (int64_t s = 0; s < v->states; s++) {
    double best = t > 0 ? from[s] : s < 2 ? 0 : -INFINITY;
    uint8_t taken = 0;
    if (t > 0 && s > 0 && from[s - 1] > best) best = from[s - 1], taken = 1;
    if (t > 0 && s > 1 && s % 2 && v->label[s / 2] != v->label[s / 2 - 1] && from[s - 2] > best)
      best = from[s - 2], taken = 2;
    to[s] = best + FN(log_on_path_)(v, t, s);
    step[s] = taken;
  }
}

static void FN(viterbi_frames_)(const viterbi *v, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; t++) FN(viterbi_frame_)(v, t, v->step + (t - begin) * v->states);
}

static int64_t FN(segment_end_)(const viterbi *v, int64_t segment) {
  const int64_t end = (segment + 1) * v->segment;
  return end < v->frames ? end : v->frames;
}

/* V of all frames; the last segment's steps stay. */
static void FN(viterbi_sweep_)(const viterbi *v) {
  for (int64_t k = 0; k * v->segment < v->frames; k++) {
    const size_t row = sizeof(double) * (size_t)v->states;
    if (k > 0) memcpy(v->kept + k * v->states, v->best[(k * v->segment + 1) % 2], row);
    FN(viterbi_frames_)(v, k * v->segment, FN(segment_end_)(v, k));
  }
}

/* States of the frames, back from the last one's. */
static void FN(trace_states_)(const viterbi *v, int64_t s, int64_t *states) {
  const int64_t last = (v->frames - 1) / v->segment;
  for (int64_t k = last; k >= 0; k--) {
    const int64_t begin = k * v->segment, end = FN(segment_end_)(v, k);
    if (k < last) {
      const size_t row = sizeof(double) * (size_t)v->states;
      if (k > 0) memcpy(v->best[(begin + 1) % 2], v->kept + k * v->states, row);
      FN(viterbi_frames_)(v, begin, end);
    }
    for (int64_t t = end - 1; t >= begin; t--) {
      states[t] = s;
      s -= v->step[(t - begin) * v->states + s];
    }
  }
}

/* Frames and mean logarithm of each label. */
static void FN(measure_labels_)(const viterbi *v, const int64_t *states, int64_t *spans, double *scores) {
  for (int64_t t = 0; t < v->frames; t++) {
    const int64_t s = states[t], k = s / 2;
    if (s % 2 == 0) continue;
    if (spans[2 * k] < 0) spans[2 * k] = t, scores[k] = 0;
    spans[2 * k + 1] = t + 1;
    scores[k] += FN(log_on_path_)(v, t, s);
  }
  for (int64_t k = 0; k < v->labels; k++) scores[k] /= (double)(spans[2 * k + 1] - spans[2 * k]);
}

static int FN(path_has_nan_)(const viterbi *v) {
  for (int64_t t = 0; t < v->frames; t++)
    for (int64_t s = 0; s < v->states; s += s > 0 ? 2 : 1) {
      const double log_p = FN(log_on_path_)(v, t, s);
      if (log_p != log_p || log_p == INFINITY) return 1;
    }
  return 0;
}

static void FN(path_of_item_)(const dalign_ctc_args *a, const dalign_ctc_path *path, int64_t b, void *workspace) {
  dalign_arena arena = dalign_arena_over(workspace);
  viterbi v = {.args = a,
               .logs = (const REAL *)a->log_probs + b * a->item_stride,
               .frames = a->input_lengths[b],
               .labels = a->label_lengths[b],
               .states = 2 * a->label_lengths[b] + 1,
               .label = a->labels + a->label_begin[b]};
  int64_t *states = path->states + b * a->frames, *spans = path->spans + b * path->labels * 2;
  double *scores = path->scores + b * path->labels, best = v.labels ? -INFINITY : 0;
  FN(cut_viterbi_)(&v, &arena, v.frames, v.states);
  int64_t last = v.states - 1;
  if (v.frames > 0) {
    FN(viterbi_sweep_)(&v);
    const double *ends = v.best[(v.frames - 1) % 2];
    if (last > 0 && !(ends[last] > ends[last - 1])) last--;
    best = FN(path_has_nan_)(&v) ? NAN : ends[last];
  }
  const double filling = best == best ? -INFINITY : NAN;
  for (int64_t t = 0; t < a->frames; t++) states[t] = -1;
  for (int64_t k = 0; k < path->labels; k++)
    spans[2 * k] = spans[2 * k + 1] = -1, scores[k] = k < v.labels ? filling : 0;
  path->value[b] = 0 - best;
  if (!(best > -INFINITY) || v.frames == 0) return;
  FN(trace_states_)(&v, last, states);
  FN(measure_labels_)(&v, states, spans, scores);
}

size_t FN(dalign_ctc_align_workspace)(const dalign_ctc_args *args) {
  viterbi v;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_viterbi_)(&v, &a, args->frames, 2 * FN(ctc_longest_)(args) + 1);
  return dalign_arena_bytes(&a);
}

dalign_status FN(dalign_ctc_align)(const dalign_ctc_args *args, const dalign_ctc_path *path, int64_t begin, int64_t end,
                                   void *workspace) {
  for (int64_t b = begin; b < end; b++) {
    if (FN(ctc_args_bad_)(args, b) || args->label_lengths[b] > path->labels) return DALIGN_BAD_ARGUMENT;
    FN(path_of_item_)(args, path, b, workspace);
  }
  return DALIGN_OK;
}
