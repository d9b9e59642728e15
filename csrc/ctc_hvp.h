/* ctc_hvp.h: Hessian product of CTC (part of ctc.c, once per element type), one state at a time in the log domain, in double.
 *
 * With L = log A, pi(s' -> s) = exp(L(t-1, s') + log p(t, s) - L(t, s)) the probability that a path in state s at frame t
 * came from s', and V the tangent of the logarithms,
 *   T(t, s)  = V(t, s) + sum_s' pi(s' -> s) T(t-1, s')                                the tangent of L
 *   pi'      = pi (T(t-1, s') - (T(t, s) - V(t, s)))                                  the tangent of pi
 *   E(t, s') = sum_s pi(s' -> s) E(t+1, s),  F(t, s') = sum_s pi F(t+1, s) + pi' E(t+1, s)
 * and the product is F, added by class. Memory: L and T, two doubles a state and frame. */
#undef hessian
#define hessian FN(ctc_hessian)

typedef struct {
  const dalign_ctc_args *args;
  const REAL *logs, *tangent;
  int64_t item, frames, states;
  const int64_t *label;
  double *log_sum, *slope;         /* (frames, states) L and T */
  double *mass[2], *mass_slope[2]; /* (states,) E and F of a frame and of the one before */
} hessian;

static void FN(cut_ctc_hessian_)(hessian *h, dalign_arena *a, int64_t frames, int64_t states) {
  const size_t row = sizeof(double) * (size_t)states;
  h->log_sum = dalign_arena_take(a, row * (size_t)frames);
  h->slope = dalign_arena_take(a, row * (size_t)frames);
  for (int i = 0; i < 2; i++) h->mass[i] = dalign_arena_take(a, row), h->mass_slope[i] = dalign_arena_take(a, row);
}

static int64_t FN(class_of_state_)(const hessian *h, int64_t s) { return s % 2 ? h->label[s / 2] : h->args->blank; }

static double FN(log_of_state_)(const hessian *h, int64_t t, int64_t s) {
  return (double)h->logs[t * h->args->frame_stride + FN(class_of_state_)(h, s)];
}

static double FN(tangent_of_state_)(const hessian *h, int64_t t, int64_t s) {
  const dalign_ctc_args *a = h->args;
  const int64_t frame = h->item * a->frames + t;
  return (double)(a->columns > 0 ? h->tangent[frame * a->columns + s]
                                 : h->tangent[frame * a->classes + FN(class_of_state_)(h, s)]);
}

/* States from which s can be entered are s, s - 1, ..., s - steps + 1. */
static int FN(steps_into_)(const hessian *h, int64_t s) {
  if (s < 2) return (int)s + 1;
  return s % 2 && h->label[s / 2] != h->label[s / 2 - 1] ? 3 : 2;
}

/* log sum exp of count numbers from first on, and the tangent of that from theirs. */
static double FN(log_sum_exp_)(const double *first, const double *slopes, int count, double *slope) {
  double largest = -INFINITY, sum = 0;
  *slope = 0;
  for (int i = 0; i < count; i++) largest = first[i] > largest ? first[i] : largest;
  if (largest == -INFINITY) return largest;
  for (int i = 0; i < count; i++) sum += exp(first[i] - largest);
  for (int i = 0; i < count; i++)
    if (first[i] > -INFINITY) *slope += exp(first[i] - largest) / sum * slopes[i];
  return largest + log(sum);
}

/* L and T of a frame. */
static void FN(hessian_frame_)(hessian *h, int64_t t) {
  const int64_t row = t * h->states;
  for (int64_t s = 0; s < h->states; s++) {
    const double log_p = FN(log_of_state_)(h, t, s);
    double sum = s < 2 ? 0 : -INFINITY, slope = 0;
    if (t > 0) {
      const int steps = FN(steps_into_)(h, s);
      const int64_t first = row - h->states + s - steps + 1;
      sum = FN(log_sum_exp_)(h->log_sum + first, h->slope + first, steps, &slope);
    }
    h->log_sum[row + s] = sum + log_p;
    h->slope[row + s] = sum + log_p > -INFINITY ? slope + FN(tangent_of_state_)(h, t, s) : 0;
  }
}

/* Passes E and F of state s at frame t on to where paths came from. */
static void FN(hessian_state_back_)(const hessian *h, int64_t t, int64_t s, double mass, double mass_slope) {
  const int64_t at = t * h->states + s, from = at - h->states;
  const double log_p = FN(log_of_state_)(h, t, s), v = FN(tangent_of_state_)(h, t, s);
  for (int64_t i = 0; i < FN(steps_into_)(h, s); i++) {
    if (!(h->log_sum[from - i] > -INFINITY)) continue;
    const double pi = exp(h->log_sum[from - i] + log_p - h->log_sum[at]);
    const double change = pi * (h->slope[from - i] - (h->slope[at] - v));
    h->mass[(t - 1) % 2][s - i] += pi * mass;
    h->mass_slope[(t - 1) % 2][s - i] += pi * mass_slope + change * mass;
  }
}

static void FN(hessian_frame_back_)(const hessian *h, int64_t t, REAL *product) {
  if (t > 0)
    for (int64_t s = 0; s < h->states; s++) h->mass[(t - 1) % 2][s] = h->mass_slope[(t - 1) % 2][s] = 0;
  for (int64_t s = 0; s < h->states; s++) {
    const double mass = h->mass[t % 2][s], mass_slope = h->mass_slope[t % 2][s];
    if (mass == 0 && mass_slope == 0) continue; /* its logarithm may be -inf */
    REAL *sum = product + FN(class_of_state_)(h, s);
    *sum = (REAL)((double)*sum + mass_slope);
    if (t > 0) FN(hessian_state_back_)(h, t, s, mass, mass_slope);
  }
}

/* E and F of the last frame: paths end in its last two states. */
static double FN(end_hessian_)(hessian *h) {
  const int64_t count = h->states > 1 ? 2 : 1, last = (h->frames - 1) * h->states, first = h->states - count;
  double slope;
  const double total = FN(log_sum_exp_)(h->log_sum + last + first, h->slope + last + first, (int)count, &slope);
  const int64_t now = (h->frames - 1) % 2;
  for (int64_t s = 0; s < h->states; s++) {
    const int ends = s >= first && h->log_sum[last + s] > -INFINITY;
    h->mass[now][s] = ends ? exp(h->log_sum[last + s] - total) : 0;
    h->mass_slope[now][s] = ends ? h->mass[now][s] * (h->slope[last + s] - slope) : 0;
  }
  return total;
}

static void FN(hessian_of_item_)(const dalign_ctc_args *a, int64_t b, const REAL *tangent, REAL *product,
                                 void *workspace) {
  dalign_arena arena = dalign_arena_over(workspace);
  hessian h = {.args = a,
               .logs = (const REAL *)a->log_probs + b * a->item_stride,
               .tangent = tangent,
               .item = b,
               .frames = a->input_lengths[b],
               .states = 2 * a->label_lengths[b] + 1,
               .label = a->labels + a->label_begin[b]};
  FN(cut_ctc_hessian_)(&h, &arena, h.frames, h.states);
  REAL *item = product + b * a->frames * a->classes;
  for (int64_t i = 0; i < a->frames * a->classes; i++) item[i] = 0;
  if (h.frames == 0) return;
  for (int64_t t = 0; t < h.frames; t++) FN(hessian_frame_)(&h, t);
  const double total = FN(end_hessian_)(&h);
  if (total == -INFINITY) return;
  for (int64_t t = h.frames - 1; t >= 0; t--) FN(hessian_frame_back_)(&h, t, item + t * a->classes);
  if (total != total)
    for (int64_t i = 0; i < h.frames * a->classes; i++) item[i] = (REAL)NAN;
}

size_t FN(dalign_ctc_hvp_workspace)(const dalign_ctc_args *args) {
  hessian h;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_ctc_hessian_)(&h, &a, args->frames, 2 * FN(ctc_longest_)(args) + 1);
  return dalign_arena_bytes(&a);
}

dalign_status FN(dalign_ctc_hvp)(const dalign_ctc_args *args, const REAL *tangent, REAL *product, int64_t begin,
                                 int64_t end, void *workspace) {
  for (int64_t b = begin; b < end; b++) {
    if (FN(ctc_args_bad_)(args, b) || (args->columns > 0 && args->columns < 2 * args->label_lengths[b] + 1))
      return DALIGN_BAD_ARGUMENT;
    FN(hessian_of_item_)(args, b, tangent, product, workspace);
  }
  return DALIGN_OK;
}
