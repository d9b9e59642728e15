/* CTC of the C library: values, gradients, alignments, Hessian products and best paths against a plain recursion in the log
 * domain, memory of exactly the size asked for, strides, ranges, misuse. */
#include "check.h"

/* ---------------------------------------------------------------- both precisions */

typedef struct {
  const precision *p;
  size_t (*workspace)(const dalign_ctc_args *);
  dalign_status (*run)(const dalign_ctc_args *, int64_t, int64_t, void *);
  size_t (*hvp_workspace)(const dalign_ctc_args *);
  dalign_status (*hvp)(const dalign_ctc_args *, const void *, void *, int64_t, int64_t, void *);
  size_t (*align_workspace)(const dalign_ctc_args *);
  dalign_status (*align)(const dalign_ctc_args *, const dalign_ctc_path *, int64_t, int64_t, void *);
} kernels;

static dalign_status hvp_of_f32(const dalign_ctc_args *a, const void *t, void *p, int64_t b, int64_t e, void *w) {
  return dalign_ctc_hvp_f32(a, (const float *)t, (float *)p, b, e, w);
}

static dalign_status hvp_of_f64(const dalign_ctc_args *a, const void *t, void *p, int64_t b, int64_t e, void *w) {
  return dalign_ctc_hvp_f64(a, (const double *)t, (double *)p, b, e, w);
}

#define KERNELS(suffix)                                                                                               \
  {&suffix,         dalign_ctc_workspace_##suffix,       dalign_ctc_##suffix,      dalign_ctc_hvp_workspace_##suffix, \
   hvp_of_##suffix, dalign_ctc_align_workspace_##suffix, dalign_ctc_align_##suffix}
static const kernels both[2] = {KERNELS(f32), KERNELS(f64)};

/* ---------------------------------------------------------------- problems */

typedef struct {
  int64_t batch, frames, classes, longest, blank;
  double scale;   /* of the logarithms, which are random */
  double blocked; /* share of the classes at -inf */
  double repeats; /* share of the labels that are those before them */
  int varied, from_logits, time_first, no_gradient;
  uint64_t seed;
} setting;

typedef struct {
  const kernels *k;
  setting s;
  dalign_ctc_args args;
  int64_t *input_lengths, *labels, *label_begin, *label_lengths;
  void *log_probs, *value, *grad, *weights, *alignment;
} problem;

/* Labels one behind the other: those of item b at label_begin[b]. */
static void make_labels(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  int64_t count = 0;
  for (int64_t b = 0; b < s->batch; b++) {
    q->input_lengths[b] = s->varied ? random_integer(seed, 0, s->frames) : s->frames;
    q->label_lengths[b] = s->varied ? random_integer(seed, 0, s->longest) : s->longest;
    q->label_begin[b] = count;
    for (int64_t k = 0; k < q->label_lengths[b]; k++, count++)
      q->labels[count] =
          k > 0 && uniform(seed) < s->repeats ? q->labels[count - 1] : random_integer(seed, 0, s->classes - 1);
  }
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  problem q = {.k = k, .s = s};
  const size_t integers = (size_t)s.batch * sizeof(int64_t);
  const int64_t numbers = s.batch * s.frames * s.classes, columns = 2 * s.longest + 1;
  q.input_lengths = filled(integers, 0), q.label_begin = filled(integers, 0), q.label_lengths = filled(integers, 0);
  q.labels = filled(integers * (size_t)s.longest, 0);
  q.log_probs = result_array(k->p, numbers), q.grad = result_array(k->p, numbers);
  q.value = result_array(k->p, s.batch), q.weights = result_array(k->p, s.batch);
  q.alignment = result_array(k->p, s.batch * s.frames * columns);
  make_labels(&q, &seed);
  const int64_t item = s.time_first ? s.classes : s.frames * s.classes;
  const int64_t frame = s.time_first ? s.batch * s.classes : s.classes;
  for (int64_t b = 0; b < s.batch; b++) {
    set(k->p, q.weights, b, .5 + uniform(&seed));
    for (int64_t t = 0; t < q.input_lengths[b]; t++)
      for (int64_t c = 0; c < s.classes; c++)
        set(k->p, q.log_probs, b * item + t * frame + c,
            uniform(&seed) < s.blocked ? -INFINITY : -s.scale * uniform(&seed));
  }
  q.args = (dalign_ctc_args){.batch = s.batch,
                             .frames = s.frames,
                             .classes = s.classes,
                             .item_stride = item,
                             .frame_stride = frame,
                             .log_probs = q.log_probs,
                             .from_logits = s.from_logits,
                             .blank = s.blank,
                             .input_lengths = q.input_lengths,
                             .labels = q.labels,
                             .label_begin = q.label_begin,
                             .label_lengths = q.label_lengths,
                             .value = q.value,
                             .grad = s.no_gradient ? NULL : q.grad,
                             .grad_item_stride = item,
                             .grad_frame_stride = frame,
                             .weights = q.weights,
                             .alignment = s.no_gradient ? NULL : q.alignment,
                             .columns = columns};
  describe_case(
      "%s batch %lld frames %lld classes %lld longest %lld blank %lld scale %g blocked %g repeats %g varied %d "
      "logits %d time first %d seed %llu",
      k->p->name, (long long)s.batch, (long long)s.frames, (long long)s.classes, (long long)s.longest,
      (long long)s.blank, s.scale, s.blocked, s.repeats, s.varied, s.from_logits, s.time_first,
      (unsigned long long)s.seed);
  return q;
}

static void free_problem(problem *q) {
  void *memory[] = {q->input_lengths, q->labels, q->label_begin, q->label_lengths, q->log_probs,
                    q->value,         q->grad,   q->weights,     q->alignment};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

static dalign_status run(const problem *q) {
  void *workspace = scratch(q->k->workspace(&q->args));
  const dalign_status status = q->k->run(&q->args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

/* ---------------------------------------------------------------- the plain recursion */

static int64_t states_of(const problem *q, int64_t b) { return 2 * q->label_lengths[b] + 1; }

static int64_t class_of(const problem *q, int64_t b, int64_t s) {
  return s % 2 ? q->labels[q->label_begin[b] + s / 2] : q->s.blank;
}

static double given_log(const problem *q, int64_t b, int64_t t, int64_t c) {
  return get(q->k->p, q->log_probs, b * q->args.item_stride + t * q->args.frame_stride + c);
}

static double log_add(double a, double b) {
  const double high = fmax(a, b), low = fmin(a, b);
  return high == -INFINITY ? high : high + log1p(exp(low - high));
}

/* log of the sum of a frame's exponentials: 0 where logarithms are given. */
static double log_total(const problem *q, int64_t b, int64_t t) {
  double sum = -INFINITY;
  for (int64_t c = 0; c < q->s.classes; c++) sum = log_add(sum, given_log(q, b, t, c));
  return q->s.from_logits ? sum : 0;
}

static int may_skip(const problem *q, int64_t b, int64_t s) {
  return s % 2 && s > 1 && class_of(q, b, s) != class_of(q, b, s - 2);
}

/* log of the sums of paths up to (forward) each state with its frame; (frames, states). */
static double *forward_sums(const problem *q, int64_t b) {
  const int64_t n = states_of(q, b);
  double *sums = filled((size_t)(q->input_lengths[b] * n) * sizeof *sums, 0);
  for (int64_t t = 0; t < q->input_lengths[b]; t++)
    for (int64_t s = 0; s < n; s++) {
      const double *before = sums + (t - 1) * n;
      double sum = t == 0 ? (s < 2 ? 0 : -INFINITY) : before[s];
      if (t > 0 && s > 0) sum = log_add(sum, before[s - 1]);
      if (t > 0 && may_skip(q, b, s)) sum = log_add(sum, before[s - 2]);
      sums[t * n + s] = sum + given_log(q, b, t, class_of(q, b, s)) - log_total(q, b, t);
    }
  return sums;
}

/* log of the sums of paths that go on from each state, without its frame. */
static double *backward_sums(const problem *q, int64_t b) {
  const int64_t n = states_of(q, b), frames = q->input_lengths[b];
  double *sums = filled((size_t)(frames * n) * sizeof *sums, 0);
  for (int64_t t = frames - 1; t >= 0; t--)
    for (int64_t s = 0; s < n; s++) {
      double sum = t == frames - 1 && s >= n - 2 ? 0 : -INFINITY;
      for (int64_t to = s; t < frames - 1 && to <= s + 2 && to < n; to++)
        if (to < s + 2 || may_skip(q, b, to))
          sum = log_add(sum,
                        sums[(t + 1) * n + to] + given_log(q, b, t + 1, class_of(q, b, to)) - log_total(q, b, t + 1));
      sums[t * n + s] = sum;
    }
  return sums;
}

static double expected_value(const problem *q, int64_t b, const double *forward) {
  const int64_t n = states_of(q, b), frames = q->input_lengths[b];
  if (frames == 0) return n == 1 ? 0 : INFINITY;
  const double *last = forward + (frames - 1) * n;
  return -(n > 1 ? log_add(last[n - 1], last[n - 2]) : last[0]);
}

/* ---------------------------------------------------------------- checks */

static void check_frame(const problem *q, int64_t b, int64_t t, const double *mass, int has_path, double tolerance) {
  const precision *p = q->k->p;
  const int64_t n = states_of(q, b);
  const double weight = get(p, q->weights, b), total = log_total(q, b, t);
  for (int64_t s = 0; s < q->args.columns; s++)
    check_near("alignment", s, get(p, q->alignment, (b * q->s.frames + t) * q->args.columns + s), s < n ? mass[s] : 0,
               tolerance);
  for (int64_t c = 0; c < q->s.classes; c++) {
    double expected = q->s.from_logits && has_path ? exp(given_log(q, b, t, c) - total) : 0;
    for (int64_t s = 0; s < n; s++) expected -= class_of(q, b, s) == c ? mass[s] : 0;
    check_near("gradient", c, get(p, q->grad, b * q->args.grad_item_stride + t * q->args.grad_frame_stride + c),
               weight * expected, tolerance);
  }
}

static void check_results(const problem *q, int64_t b, double value, const double *forward, double tolerance) {
  const precision *p = q->k->p;
  const int64_t n = states_of(q, b);
  const int has_path = value < INFINITY;
  double *backward = backward_sums(q, b), *mass = filled((size_t)n * sizeof *mass, 0);
  for (int64_t t = 0; t < q->input_lengths[b]; t++) {
    for (int64_t s = 0; s < n; s++) mass[s] = has_path ? exp(forward[t * n + s] + backward[t * n + s] + value) : 0;
    check_frame(q, b, t, mass, has_path, tolerance);
  }
  for (int64_t t = q->input_lengths[b]; t < q->s.frames; t++)
    for (int64_t c = 0; c < q->s.classes; c++)
      check(get(p, q->grad, b * q->args.grad_item_stride + t * q->args.grad_frame_stride + c) == 0,
            "a gradient behind the length");
  free(backward);
  free(mass);
}

static void check_setting(const kernels *k, setting s) {
  if (left_out()) return;
  problem q = make_problem(k, s);
  check(run(&q) == DALIGN_OK, "status is not OK");
  for (int64_t b = 0; b < s.batch; b++) {
    double *forward = forward_sums(&q, b);
    const double value = expected_value(&q, b, forward), size = s.scale * (double)s.frames;
    const double own = value < INFINITY ? (double)s.frames * 0x1p-52 * fabs(value) : 0; /* a rounding a frame */
    check_near("value", b, get(k->p, q.value, b), value,
               4 * k->p->epsilon * (value < INFINITY ? fabs(value) : 0) + own + 1e-15 * size);
    if (!s.no_gradient) check_results(&q, b, value, forward, 100 * k->p->epsilon + 1e-14 * size);
    free(forward);
  }
  free_problem(&q);
}

static setting plain_setting(int64_t batch, int64_t frames, int64_t classes, int64_t longest) {
  return (setting){.batch = batch,
                   .frames = frames,
                   .classes = classes,
                   .longest = longest,
                   .scale = 3,
                   .seed = (uint64_t)(frames * 1000 + longest)};
}

/* ---------------------------------------------------------------- groups */

static void test_sizes(const kernels *k) {
  static const int64_t frames[] = {0, 1, 2, 15, 16, 17, 33, 70}, longest[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 40};
  for (size_t a = 0; a < sizeof frames / sizeof *frames; a++)
    for (size_t b = 0; b < sizeof longest / sizeof *longest; b++)
      check_setting(k, plain_setting(1, frames[a], 5, longest[b]));
}

static void test_classes(const kernels *k) {
  for (int64_t classes = 1; classes < 70; classes += classes < 20 ? 1 : 7)
    for (int logits = 0; logits < 2; logits++) {
      setting s = plain_setting(1, 30, classes, 9);
      s.from_logits = logits, s.blank = classes / 2;
      check_setting(k, s);
    }
}

static void test_options(const kernels *k) {
  for (int option = 0; option < 240; option++) {
    uint64_t seed = (uint64_t)option;
    setting s =
        plain_setting(4, random_integer(&seed, 1, 120), random_integer(&seed, 2, 30), random_integer(&seed, 0, 50));
    s.blank = random_integer(&seed, 0, s.classes - 1);
    s.scale = (double[]){1, 30, 3000, 1e5}[option % 4]; /* the last is too wide for float exponents */
    s.blocked = option / 4 % 3 ? 0 : .03;
    s.repeats = option / 12 % 2 ? .4 : 0;
    s.varied = option / 24 % 2, s.from_logits = option / 48 % 2, s.time_first = option / 96 % 2, s.seed = seed;
    s.no_gradient = option % 17 == 0;
    check_setting(k, s);
  }
}

/* Longer than what stays in the cache, and as long as can be. */
static void test_long(const kernels *k) {
  static const int64_t sizes[][2] = {{600, 20}, {900, 100}, {700, 300}, {300, 300}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++) {
    setting s = plain_setting(1, sizes[l][0], 20, sizes[l][1]);
    check_setting(k, s);
    s.scale = 100, s.from_logits = 1;
    check_setting(k, s);
  }
}

static void test_nan(const kernels *k) {
  for (int logits = 0; logits < 2; logits++) {
    setting s = plain_setting(3, 40, 6, 5);
    s.from_logits = logits;
    problem q = make_problem(k, s);
    set(k->p, q.log_probs, q.args.item_stride + 20 * q.args.frame_stride + q.labels[q.label_begin[1] + 2], NAN);
    check(run(&q) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < 3; b++) {
      check(isnan(get(k->p, q.value, b)) == (b == 1), "NaN of a value does not stay in its item");
      for (int64_t i = 0; i < 40 * 6; i++)
        check(isnan(get(k->p, q.grad, b * q.args.item_stride + i)) == (b == 1), "NaN of a gradient does not stay");
    }
    free_problem(&q);
  }
}

/* Items one by one, each in a range of its own: the same bits. */
static void test_ranges(const kernels *k) {
  setting s = plain_setting(5, 90, 8, 30);
  s.varied = 1;
  problem whole = make_problem(k, s), parts = make_problem(k, s);
  run(&whole);
  void *workspace = scratch(k->workspace(&parts.args));
  for (int64_t b = 4; b >= 0; b--) check(k->run(&parts.args, b, b + 1, workspace) == DALIGN_OK, "status is not OK");
  free(workspace);
  check_same("value", k->p, whole.value, parts.value, 5);
  check_same("gradient", k->p, whole.grad, parts.grad, 5 * 90 * 8);
  free_problem(&whole);
  free_problem(&parts);
}

/* <tangent, alignment>, the tangent by states or by classes. */
static double along_tangent(const problem *q, const void *tangent, int by_states) {
  const int64_t columns = q->args.columns, width = by_states ? columns : q->s.classes;
  double sum = 0;
  run(q);
  for (int64_t row = 0; row < q->s.batch * q->s.frames; row++)
    for (int64_t s = 0; s < states_of(q, row / q->s.frames); s++) {
      const int64_t at = row * width + (by_states ? s : class_of(q, row / q->s.frames, s));
      sum += get(q->k->p, tangent, at) * get(q->k->p, q->alignment, row * columns + s);
    }
  return sum;
}

static void hessian_product(problem *q, const void *tangent, void *product, int by_states) {
  dalign_ctc_args args = q->args;
  args.columns = by_states ? args.columns : 0;
  args.alignment = NULL;
  void *workspace = scratch(q->k->hvp_workspace(&args));
  check(q->k->hvp(&args, tangent, product, 0, args.batch, workspace) == DALIGN_OK, "status is not OK");
  free(workspace);
}

/* The change of <tangent, alignment> along a random direction, by differences and by the product. */
static void check_product(problem *q, const void *tangent, const void *product, int by_states, uint64_t *seed) {
  const precision *p = q->k->p;
  const int64_t numbers = q->s.batch * q->s.frames * q->s.classes;
  const double step = p == &f32 ? 1e-2 : 1e-5;
  void *direction = result_array(p, numbers), *kept = result_array(p, numbers);
  double sums[2], found = 0;
  memcpy(kept, q->log_probs, (size_t)numbers * p->size);
  for (int64_t i = 0; i < numbers; i++) {
    set(p, direction, i, uniform(seed) - .5);
    found += get(p, direction, i) * get(p, product, i);
  }
  for (int side = 0; side < 2; side++) {
    for (int64_t i = 0; i < numbers; i++)
      set(p, q->log_probs, i, get(p, kept, i) + (side ? step : -step) * get(p, direction, i));
    sums[side] = along_tangent(q, tangent, by_states);
  }
  check_near("product along a direction", by_states, found, (sums[1] - sums[0]) / (2 * step), p == &f32 ? 3e-2 : 1e-6);
  free(direction);
  free(kept);
}

static void test_hvp(const kernels *k) {
  for (int option = 0; option < 24; option++) {
    const int by_states = option % 2;
    setting s = plain_setting(2, 4 + 3 * option, 5, 1 + option);
    s.varied = option / 2 % 2, s.repeats = .3, s.blocked = option % 3 ? 0 : .05;
    problem q = make_problem(k, s);
    const int64_t numbers = s.batch * s.frames * (by_states ? q.args.columns : s.classes);
    void *tangent = result_array(k->p, numbers), *product = result_array(k->p, s.batch * s.frames * s.classes);
    uint64_t seed = s.seed;
    for (int64_t i = 0; i < numbers; i++) set(k->p, tangent, i, uniform(&seed) - .5);
    hessian_product(&q, tangent, product, by_states);
    check_product(&q, tangent, product, by_states, &seed);
    free(tangent);
    free(product);
    free_problem(&q);
  }
}

/* The best path costs what the plain recursion's does, and its states, spans and scores agree with each other. */
static void check_path(const problem *q, const dalign_ctc_path *path, int64_t b) {
  const int64_t n = states_of(q, b), frames = q->input_lengths[b], *states = path->states + b * q->s.frames;
  double *best = filled((size_t)n * 2 * sizeof *best, 0), sum = 0;
  for (int64_t t = 0; t < frames; t++)
    for (int64_t s = 0; s < n; s++) {
      const double *from = best + (t + 1) % 2 * n;
      double top = t == 0 ? (s < 2 ? 0 : -INFINITY) : from[s];
      if (t > 0 && s > 0) top = fmax(top, from[s - 1]);
      if (t > 0 && may_skip(q, b, s)) top = fmax(top, from[s - 2]);
      best[t % 2 * n + s] = top + given_log(q, b, t, class_of(q, b, s));
    }
  const double *last = best + (frames + 1) % 2 * n;
  const double top = frames == 0 ? (n == 1 ? 0 : -INFINITY) : n > 1 ? fmax(last[n - 1], last[n - 2]) : last[0];
  check_near("value of the path", b, path->value[b], -top, 1e-12 * fabs(top < INFINITY && top > -INFINITY ? top : 0));
  if (top > -INFINITY) {
    for (int64_t t = 0; t < frames; t++) {
      const int64_t step = t > 0 ? states[t] - states[t - 1] : 0;
      check(states[t] >= 0 && states[t] < n && (t > 0 || states[t] < 2), "a path's state does not exist");
      check(step >= 0 && (step < 2 || (step == 2 && may_skip(q, b, states[t]))),
            "a path takes a step that is not allowed");
      sum += given_log(q, b, t, class_of(q, b, states[t]));
      const int64_t *span = path->spans + (b * path->labels + states[t] / 2) * 2;
      if (states[t] % 2) check(span[0] <= t && t < span[1], "a label's frame is outside of its span");
    }
    check_near("logarithms along the path", b, sum, top, 1e-12 * fabs(top));
  }
  for (int64_t t = top > -INFINITY ? frames : 0; t < q->s.frames; t++) check(states[t] == -1, "no -1 behind the path");
  free(best);
}

static void test_paths(const kernels *k) {
  for (int option = 0; option < 60; option++) {
    uint64_t seed = (uint64_t)option;
    setting s = plain_setting(3, random_integer(&seed, 1, 90), 6, random_integer(&seed, 0, 30));
    s.varied = option % 2, s.repeats = .3, s.blocked = option % 3 ? 0 : .02, s.seed = seed;
    problem q = make_problem(k, s);
    dalign_ctc_path path = {filled(3 * sizeof(double), 0xFF), filled((size_t)(3 * s.frames) * sizeof(int64_t), 0x55),
                            filled((size_t)(6 * s.longest) * sizeof(int64_t), 0x55),
                            filled((size_t)(3 * s.longest) * sizeof(double), 0xFF), s.longest};
    void *workspace = scratch(k->align_workspace(&q.args));
    check(k->align(&q.args, &path, 0, 3, workspace) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < 3; b++) check_path(&q, &path, b);
    void *memory[] = {workspace, path.value, path.states, path.spans, path.scores};
    for (int m = 0; m < 5; m++) free(memory[m]);
    free_problem(&q);
  }
}

static void test_misuse(const kernels *k) {
  problem q = make_problem(k, plain_setting(1, 10, 4, 3));
  void *workspace = scratch(k->workspace(&q.args));
  describe_case("%s misuse", k->p->name);
  for (int kind = 0; kind < 8; kind++) {
    dalign_ctc_args bad = q.args;
    const int64_t labels[3] = {1, kind == 0 ? 4 : -1, 2}, wrong = kind == 2 ? 11 : -1, first = 0;
    if (kind < 2) bad.labels = labels, bad.label_begin = &first;
    if (kind == 2 || kind == 3) bad.input_lengths = &wrong;
    if (kind == 4) bad.label_lengths = &wrong;
    if (kind == 5) bad.blank = 4;
    if (kind == 6) bad.blank = -1;
    if (kind == 7) bad.columns = 6;
    check(k->run(&bad, 0, 1, workspace) == DALIGN_BAD_ARGUMENT, "misuse %d is not refused", kind);
  }
  check(k->run(&q.args, 1, 2, workspace) == DALIGN_BAD_ARGUMENT, "an item beyond the batch is not refused");
  free(workspace);
  free_problem(&q);
}

int main(void) {
  static const struct {
    const char *name;
    void (*run)(const kernels *);
  } groups[] = {{"frames and labels of all sizes", test_sizes},
                {"classes", test_classes},
                {"options", test_options},
                {"long", test_long},
                {"NaN", test_nan},
                {"ranges", test_ranges},
                {"Hessian product", test_hvp},
                {"best paths", test_paths},
                {"misuse", test_misuse}};
  for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
    for (int k = 0; k < 2; k++) {
      char name[128];
      snprintf(name, sizeof name, "%s, %s", groups[g].name, both[k].p->name);
      start_group(name);
      groups[g].run(&both[k]);
      end_group();
    }
  return report();
}
