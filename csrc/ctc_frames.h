/* ctc_frames.h: from the frames as given to an item's logarithms, and from E to results as asked for (part of ctc.c, once
 * per element type). */

/* ------------------------------------------------------------------------------------------------ softmax of a frame */

DALIGN_INLINE vec FN(load_classes_)(const REAL *x, int64_t i, int64_t classes) {
  REAL lanes[LANES];
  if (i + LANES <= classes) return v_loadu(x + i);
  for (int r = 0; r < LANES; r++) lanes[r] = i + r < classes ? x[i + r] : (REAL)-INFINITY;
  return v_loadu(lanes);
}

DALIGN_INLINE void FN(store_classes_)(REAL *x, int64_t i, int64_t classes, vec v) {
  REAL lanes[LANES];
  if (i + LANES <= classes) {
    v_storeu(x + i, v);
    return;
  }
  v_storeu(lanes, v);
  for (int64_t r = 0; i + r < classes; r++) x[i + r] = lanes[r];
}

static double FN(sum_of_lanes_)(vec v) {
  REAL lanes[LANES];
  v_storeu(lanes, v);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int r = 0; r < half; r++) lanes[r] += lanes[r + half];
  return (double)lanes[0];
}

static REAL FN(largest_class_)(const REAL *x, int64_t classes) {
  REAL lanes[LANES], largest = (REAL)-INFINITY;
  vec best[4];
  for (int i = 0; i < 4; i++) best[i] = v_set1(largest);
  int64_t c = 0;
  for (; c + 4 * LANES <= classes; c += 4 * LANES)
    for (int i = 0; i < 4; i++) best[i] = v_max(best[i], v_loadu(x + c + i * LANES));
  for (; c < classes; c += LANES) best[0] = v_max(best[0], FN(load_classes_)(x, c, classes));
  v_storeu(lanes, v_max(v_max(best[0], best[1]), v_max(best[2], best[3])));
  for (int r = 0; r < LANES; r++) largest = lanes[r] > largest ? lanes[r] : largest;
  return largest;
}

/* log sum exp of a frame less its largest number, NaN where the frame holds one; out, unless NULL, gets weight times the
 * softmax. What the largest classes add to the sum, 1 each, is kept apart, so that a sum near 1 keeps the digits of its logarithm. */
static double FN(softmax_)(const REAL *x, REAL largest, int64_t classes, REAL *out, double weight) {
  const vec best = v_set1(largest), one = v_set1((REAL)1);
  vec others = v_zero(), count = v_zero(), check = v_zero();
  for (int64_t i = 0; i < classes; i += LANES) {
    const vec c = v_sub(best, FN(load_classes_)(x, i, classes));
    const scaled e = exp2_split(c, v_set1(-LOG2E), v_set1(-LOG2E_LOW));
    const vec p = v_ldexp(e.m, e.e);
    others = v_add(others, v_keep_below(p, v_zero(), c));
    count = v_add(count, v_keep_below(one, v_zero(), c));
    check = v_add(check, v_keep_below(c, c, v_set1((REAL)INFINITY)));
    if (out) FN(store_classes_)(out, i, classes, p);
  }
  const double padding = (double)((classes + LANES - 1) / LANES * LANES); /* whose c is +inf */
  const double rest = FN(sum_of_lanes_)(others), ties = padding - FN(sum_of_lanes_)(count);
  const vec scale = v_set1((REAL)(weight / (ties + rest)));
  for (int64_t i = 0; out && i < classes; i += LANES)
    FN(store_classes_)(out, i, classes, v_mul(FN(load_classes_)(out, i, classes), scale));
  return log1p(ties - 1 + rest) + 0 * FN(sum_of_lanes_)(check);
}

/* A frame of logits: its softmax where the gradient goes, and its largest number, from which the item's logits count. */
static REAL FN(read_logits_)(problem *p, int64_t t) {
  const int64_t classes = p->args->classes;
  const int is_own = p->given_f32 == DALIGN_F32;
  const void *given = FN(ctc_frame_given_)(p, t);
  const REAL *x = is_own ? given : p->frame;
  REAL *out = p->args->grad && is_own ? FN(ctc_grad_frame_)(p, t) : p->args->grad ? p->frame : NULL;
  for (int64_t c = 0; !is_own && c < classes; c++) p->frame[c] = load_given(given, c, p->given_f32);
  const REAL largest = FN(largest_class_)(x, classes);
  const double log_sum = FN(softmax_)(x, largest, classes, out, p->weight);
  p->log_sum -= log_sum;
  p->log_sums[t] = log_sum;
  if (log_sum != log_sum) p->found |= CTC_NAN;
  for (int64_t c = 0; out && !is_own && c < classes; c++)
    store_given(FN(ctc_grad_frame_)(p, t), c, (double)p->frame[c], p->given_f32);
  return largest;
}

/* The item's logarithms by class and frame; 0 in frames behind the last, which no row looks at. */
static void FN(read_frames_)(problem *p) {
  for (int64_t t = 0; t < p->blocks * BLOCK; t++) {
    REAL *logs = p->logs + t / BLOCK * p->distinct * BLOCK + t % BLOCK;
    const void *given = t < p->frames ? FN(ctc_frame_given_)(p, t) : NULL;
    const REAL origin = given && p->args->from_logits ? FN(read_logits_)(p, t) : 0;
    for (int64_t d = 0; d < p->distinct; d++)
      logs[d * BLOCK] = given ? load_given(given, p->class_of_row[d], p->given_f32) - origin : 0;
  }
}

/* ------------------------------------------------------------------------------------------------ results */

static void *FN(alignment_frame_)(const problem *p, int64_t t) {
  const int64_t at = (p->item * p->args->frames + t) * p->args->columns;
  return p->given_f32 ? (void *)((float *)p->args->alignment + at) : (void *)((double *)p->args->alignment + at);
}

static void FN(fill_numbers_)(const problem *p, void *numbers, int64_t count, double number) {
  for (int64_t i = 0; i < count; i++) store_given(numbers, i, number, p->given_f32);
}

/* The number in all frames of the item from one on, 0 behind its last. */
static void FN(fill_results_)(const problem *p, int64_t from, double number) {
  const dalign_ctc_args *a = p->args;
  for (int64_t t = from; t < a->frames; t++) {
    const double filling = t < p->frames ? number : 0;
    if (a->grad) FN(fill_numbers_)(p, FN(ctc_grad_frame_)(p, t), a->classes, filling);
    if (!a->alignment) continue;
    FN(fill_numbers_)(p, FN(alignment_frame_)(p, t), a->columns, 0);
    FN(fill_numbers_)(p, FN(alignment_frame_)(p, t), 2 * p->labels + 1, filling);
  }
}

/* 1 / sum of E of each frame. */
static void FN(scale_frames_)(problem *p) {
  for (int h = 0; h < BLOCK; h += LANES) {
    REAL lanes[LANES];
    vec sum = v_zero();
    for (int64_t d = 0; d < p->distinct; d++) sum = v_add(sum, v_load(p->sums + d * BLOCK + h));
    v_storeu(lanes, sum);
    for (int r = 0; r < LANES; r++) p->scale[h + r] = lanes[r] > 0 ? 1 / (double)lanes[r] : 0;
  }
}

/* weight p of row d of the table at a frame: what the softmax left, or, where the double kernel works on floats, with the digits
 * that a difference of numbers near 1 needs. */
static double FN(softmax_of_row_)(const problem *p, const void *grad, int64_t t, int64_t d) {
  if (!p->args->from_logits) return 0;
  if (p->given_f32 == DALIGN_F32) return (double)load_given(grad, p->class_of_row[d], p->given_f32);
  const double log_p = (double)p->logs[(t / BLOCK * p->distinct + d) * BLOCK + t % BLOCK] - p->log_sums[t];
  return p->weight * exp(log_p);
}

static void FN(write_grad_)(const problem *p, int64_t t, int at) {
  void *grad = FN(ctc_grad_frame_)(p, t);
  const double scale = -p->weight * p->scale[at];
  if (!p->args->from_logits) FN(fill_numbers_)(p, grad, p->args->classes, 0);
  for (int64_t d = 0; d < p->distinct; d++) {
    const double mass = (double)p->sums[d * BLOCK + at];
    store_given(grad, p->class_of_row[d], FN(softmax_of_row_)(p, grad, t, d) + scale * mass, p->given_f32);
  }
}

static void FN(write_alignment_of_frame_)(const problem *p, int64_t t, int at, int64_t begin, int64_t end) {
  void *row = FN(alignment_frame_)(p, t);
  const REAL *blanks = p->blank_mass + at * p->padded, *labels = p->label_mass + at * p->padded;
  FN(fill_numbers_)(p, row, p->args->columns, 0);
  for (int64_t k = begin; k < end && k <= p->labels; k++) {
    store_given(row, 2 * k, p->scale[at] * (double)blanks[k], p->given_f32);
    if (k < p->labels) store_given(row, 2 * k + 1, p->scale[at] * (double)labels[k], p->given_f32);
  }
}

/* From E of a block, positions [begin, end). */
static void FN(write_block_of_results_)(problem *p, int64_t block, int64_t begin, int64_t end) {
  FN(scale_frames_)(p);
  for (int t = 0; t < FN(ctc_frames_in_)(p, block); t++) {
    if (p->args->grad) FN(write_grad_)(p, block * BLOCK + t, t);
    if (p->args->alignment) FN(write_alignment_of_frame_)(p, block * BLOCK + t, t, begin, end);
  }
}
