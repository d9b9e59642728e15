/* GDTW of the C library: feasibility, the conditions of Karush, Kuhn and Tucker and the objective by formulas of their own,
 * gradients against finite differences of the whole solve, known answers, ranges, memory of exactly the size asked for,
 * items without a solution, misuse. */
#include "check.h"

/* ---------------------------------------------------------------- both precisions */

typedef struct {
  const precision *p;
  size_t (*workspace)(const dalign_gdtw_args *);
  size_t (*backward_workspace)(const dalign_gdtw_args *);
  dalign_status (*run)(const dalign_gdtw_args *, int64_t, int64_t, void *);
  dalign_status (*backward)(const dalign_gdtw_args *, int64_t, int64_t, void *);
} kernels;

#define KERNELS(suffix)                                                                                    \
  {&suffix, dalign_gdtw_workspace_##suffix, dalign_gdtw_backward_workspace_##suffix, dalign_gdtw_##suffix, \
   dalign_gdtw_backward_##suffix}
static const kernels both[2] = {KERNELS(f32), KERNELS(f64)};

/* ---------------------------------------------------------------- problems */

enum { WITH_TIMES = 1, WITH_SLOPES = 2, WITH_BAND = 4, FREE_START = 8, FREE_END = 16, WITH_S0 = 32, TIGHT = 64 };

typedef struct {
  int64_t batch, n, m, d;
  int constraints;
  dalign_gdtw_penalty loss, regularizer;
  double loss_parameter, regularizer_parameter;
  dalign_gdtw_quality quality;
  int varied; /* items of different lengths */
  uint64_t seed;
} setting;

typedef struct {
  const kernels *k;
  setting s;
  dalign_gdtw_args args;
  int64_t *x_lengths, *y_lengths;
  void *x, *y, *grad_x, *grad_y;
  /* Inputs and their gradients, each of the size of the gradient. */
  double *t, *ty, *lambda, *least, *most, *s0, *low, *high;
  double *grad_t, *grad_ty, *grad_lambda, *grad_least, *grad_most, *grad_s0, *grad_low, *grad_high;
  double *grad_phi, *grad_objective;
} problem;

static double *numbers(int64_t count) { return filled((size_t)(count > 0 ? count : 1) * sizeof(double), 0xFF); }
static int64_t knots_of(const problem *q, int64_t b) { return q->x_lengths ? q->x_lengths[b] : q->s.n; }
static int64_t samples_of(const problem *q, int64_t b) { return q->y_lengths ? q->y_lengths[b] : q->s.m; }

/* A random walk, so that alignments are not all alike. */
static void walk(const kernels *k, void *frames, int64_t count, int64_t d, uint64_t *seed) {
  for (int64_t f = 0; f < d; f++) {
    double at = 0;
    for (int64_t i = 0; i < count; i++) {
      at += (uniform(seed) - .5) / sqrt((double)count);
      set(k->p, frames, i * d + f, (float)at);
    }
  }
}

static void random_times(double *t, int64_t count, uint64_t *seed) {
  t[0] = uniform(seed) * 4 - 2;
  for (int64_t k = 1; k < count; k++) t[k] = t[k - 1] + .2 + uniform(seed);
}

static void fill_edges(problem *q, int64_t b, double ratio, uint64_t *seed) {
  const int tight = q->s.constraints & TIGHT;
  for (int64_t i = b * (q->s.n - 1); i < (b + 1) * (q->s.n - 1); i++) {
    q->lambda[i] = pow(10, -3 + 2.5 * uniform(seed));
    q->least[i] = ratio * (tight ? .7 + .2 * uniform(seed) : .5 * uniform(seed));
    q->most[i] = ratio * (tight ? 1.1 + .2 * uniform(seed) : 1.5 + uniform(seed));
  }
}

/* Inputs of item b; bounds leave room for the straight line from end to end of the item. */
static void fill_item(problem *q, int64_t b, uint64_t *seed) {
  const setting *s = &q->s;
  const int64_t n = knots_of(q, b), m = samples_of(q, b);
  double *t = q->t + b * s->n, *ty = q->ty + b * s->m;
  random_times(t, s->n, seed);
  random_times(ty, s->m, seed);
  for (int64_t i = 0; i < s->n && !(s->constraints & WITH_TIMES); i++) t[i] = n > 1 ? (double)i / (double)(n - 1) : 0;
  for (int64_t i = 0; i < s->m && !(s->constraints & WITH_TIMES); i++) ty[i] = m > 1 ? (double)i / (double)(m - 1) : 0;
  const double span = ty[m - 1] - ty[0], ratio = n > 1 ? span / (t[n - 1] - t[0]) : 1, half = .05 + .2 * uniform(seed);
  fill_edges(q, b, ratio, seed);
  q->s0[b] = ratio * (.8 + .4 * uniform(seed));
  for (int64_t i = 0; i < s->n; i++) {
    const double line = ty[0] + (t[i] - t[0]) * ratio;
    q->low[b * s->n + i] = line - half * span * (.5 + uniform(seed));
    q->high[b * s->n + i] = line + half * span * (.5 + uniform(seed));
  }
  walk(q->k, at(q->k->p, q->x, b * s->n * s->d), s->n, s->d, seed);
  walk(q->k, at(q->k->p, q->y, b * s->m * s->d), s->m, s->d, seed);
}

static void point_at_inputs(problem *q) {
  const setting *s = &q->s;
  dalign_gdtw_args *a = &q->args;
  a->x = q->x, a->y = q->y, a->x_lengths = q->x_lengths, a->y_lengths = q->y_lengths;
  a->reg_weight = (dalign_series){q->lambda, s->n - 1, 1};
  if (s->constraints & WITH_TIMES)
    a->x_times = (dalign_series){q->t, s->n, 1}, a->y_times = (dalign_series){q->ty, s->m, 1};
  if (s->constraints & WITH_S0) a->nominal_slope = (dalign_series){q->s0, 1, 0};
  if (s->constraints & (WITH_SLOPES | TIGHT))
    a->slope_min = (dalign_series){q->least, s->n - 1, 1}, a->slope_max = (dalign_series){q->most, s->n - 1, 1};
  if (s->constraints & WITH_BAND)
    a->band_min = (dalign_series){q->low, s->n, 1}, a->band_max = (dalign_series){q->high, s->n, 1};
  a->fixed_start = !(s->constraints & FREE_START), a->fixed_end = !(s->constraints & FREE_END);
}

static void point_at_gradients(problem *q) {
  dalign_gdtw_args *a = &q->args;
  a->grad_phi = q->grad_phi, a->grad_objective = q->grad_objective;
  a->grad_x = q->grad_x, a->grad_y = q->grad_y, a->grad_x_times = q->grad_t, a->grad_y_times = q->grad_ty;
  a->grad_reg_weight = q->grad_lambda, a->grad_slope_min = q->grad_least, a->grad_slope_max = q->grad_most;
  a->grad_nominal_slope = q->grad_s0, a->grad_band_min = q->grad_low, a->grad_band_max = q->grad_high;
}

static void take_results(problem *q) {
  dalign_gdtw_args *a = &q->args;
  a->phi = numbers(a->batch * a->n), a->objective = numbers(a->batch);
  a->status = filled((size_t)a->batch * sizeof *a->status, 0x55);
  a->state = filled((size_t)(a->batch * a->n * 3) * sizeof *a->state, 0x55);
  a->blocked = filled((size_t)a->batch * sizeof *a->blocked, 0x55);
  a->counts = filled((size_t)(a->batch * DALIGN_GDTW_COUNTS) * sizeof *a->counts, 0x55);
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed * 977 + 1;
  problem q = {.k = k, .s = s};
  double **const inputs[] = {&q.t, &q.ty, &q.lambda, &q.least, &q.most, &q.s0, &q.low, &q.high};
  double **const gradients[] = {&q.grad_t,    &q.grad_ty, &q.grad_lambda, &q.grad_least,
                                &q.grad_most, &q.grad_s0, &q.grad_low,    &q.grad_high};
  const int64_t widths[] = {s.n, s.m, s.n - 1, s.n - 1, s.n - 1, 1, s.n, s.n};
  for (int i = 0; i < 8; i++) *inputs[i] = numbers(s.batch * widths[i]), *gradients[i] = numbers(s.batch * widths[i]);
  q.x = result_array(k->p, s.batch * s.n * s.d), q.y = result_array(k->p, s.batch * s.m * s.d);
  q.grad_x = result_array(k->p, s.batch * s.n * s.d), q.grad_y = result_array(k->p, s.batch * s.m * s.d);
  q.grad_phi = numbers(s.batch * s.n), q.grad_objective = numbers(s.batch);
  if (s.varied) q.x_lengths = malloc((size_t)s.batch * 8), q.y_lengths = malloc((size_t)s.batch * 8);
  for (int64_t b = 0; b < s.batch; b++) {
    if (s.varied) q.x_lengths[b] = random_integer(&seed, 2, s.n), q.y_lengths[b] = random_integer(&seed, 2, s.m);
    fill_item(&q, b, &seed);
    q.grad_objective[b] = uniform(&seed) - .5;
    for (int64_t i = 0; i < knots_of(&q, b); i++) q.grad_phi[b * s.n + i] = uniform(&seed) - .5;
  }
  q.args = (dalign_gdtw_args){.batch = s.batch,
                              .n = s.n,
                              .m = s.m,
                              .d = s.d,
                              .loss = s.loss,
                              .regularizer = s.regularizer,
                              .loss_parameter = s.loss_parameter,
                              .regularizer_parameter = s.regularizer_parameter,
                              .quality = s.quality};
  point_at_inputs(&q);
  point_at_gradients(&q);
  take_results(&q);
  describe_case(
      "%s batch %lld n %lld m %lld d %lld constraints %d loss %d %g regularizer %d %g quality %d varied %d seed "
      "%llu",
      k->p->name, (long long)s.batch, (long long)s.n, (long long)s.m, (long long)s.d, s.constraints, (int)s.loss,
      s.loss_parameter, (int)s.regularizer, s.regularizer_parameter, (int)s.quality, s.varied,
      (unsigned long long)s.seed);
  return q;
}

static void free_problem(problem *q) {
  dalign_gdtw_args *a = &q->args;
  void *memory[] = {q->x_lengths, q->y_lengths, q->x,        q->y,         q->grad_x,      q->grad_y,
                    q->t,         q->ty,        q->lambda,   q->least,     q->most,        q->s0,
                    q->low,       q->high,      q->grad_t,   q->grad_ty,   q->grad_lambda, q->grad_least,
                    q->grad_most, q->grad_s0,   q->grad_low, q->grad_high, q->grad_phi,    q->grad_objective,
                    a->phi,       a->objective, a->status,   a->state,     a->blocked,     a->counts};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) free(memory[i]);
}

static dalign_status solve_range(const problem *q, int64_t begin, int64_t end) {
  void *workspace = scratch(q->k->workspace(&q->args));
  const dalign_status status = q->k->run(&q->args, begin, end, workspace);
  free(workspace);
  return status;
}

static dalign_status back_range(const problem *q, int64_t begin, int64_t end) {
  void *workspace = scratch(q->k->backward_workspace(&q->args));
  const dalign_status status = q->k->backward(&q->args, begin, end, workspace);
  free(workspace);
  return status;
}

static dalign_status solve(const problem *q) { return solve_range(q, 0, q->s.batch); }

/* ---------------------------------------------------------------- the problem by its formulas */

typedef struct {
  double value, slope;
} penalty;

static penalty penalty_of(dalign_gdtw_penalty kind, double p, double e) {
  const double a = fabs(e), sign = e < 0 ? -1 : 1;
  if (kind == DALIGN_GDTW_SQUARES) return (penalty){e * e, 2 * e};
  if (kind == DALIGN_GDTW_POWER) return (penalty){pow(a, p), a > 0 ? sign * p * pow(a, p - 1) : 0};
  return a <= p ? (penalty){e * e, 2 * e} : (penalty){2 * p * a - p * p, 2 * p * sign};
}

/* L_i and its slope on segment k. */
static penalty loss_of(const problem *q, int64_t b, int64_t i, int64_t k, double phi) {
  const setting *s = &q->s;
  const double *ty = q->ty + b * s->m, h = ty[k + 1] - ty[k], u = (phi - ty[k]) / h;
  penalty sum = {0, 0};
  for (int64_t f = 0; f < s->d; f++) {
    const double y = get(q->k->p, q->y, (b * s->m + k) * s->d + f);
    const double g = get(q->k->p, q->y, (b * s->m + k + 1) * s->d + f) - y;
    const penalty l = penalty_of(s->loss, s->loss_parameter, get(q->k->p, q->x, (b * s->n + i) * s->d + f) - y - u * g);
    sum.value += l.value, sum.slope -= l.slope * g / h;
  }
  return sum;
}

static double weight_of(const problem *q, int64_t b, int64_t i) {
  const double *t = q->t + b * q->s.n;
  const int64_t n = knots_of(q, b);
  return ((i > 0 ? t[i] - t[i - 1] : 0) + (i + 1 < n ? t[i + 1] - t[i] : 0)) / 2;
}

static double nominal_slope(const problem *q, int64_t b) {
  const int64_t n = knots_of(q, b), m = samples_of(q, b);
  const double *t = q->t + b * q->s.n, *ty = q->ty + b * q->s.m;
  if (q->s.constraints & WITH_S0) return q->s0[b];
  if (!(q->s.constraints & (FREE_START | FREE_END))) return (ty[m - 1] - ty[0]) / (t[n - 1] - t[0]);
  return q->s.constraints & WITH_TIMES ? 1 : (double)(n - 1) / (double)(m - 1);
}

/* R of edge i whose ends are so much further apart than they are. */
static penalty regularizer_of(const problem *q, int64_t b, int64_t i, double further) {
  const double *t = q->t + b * q->s.n, *phi = q->args.phi + b * q->s.n;
  const double slope = (phi[i + 1] - phi[i] + further) / (t[i + 1] - t[i]);
  return penalty_of(q->s.regularizer, q->s.regularizer_parameter, slope - nominal_slope(q, b));
}

static double low_of(const problem *q, int64_t b, int64_t i) {
  const double *ty = q->ty + b * q->s.m;
  if (i == knots_of(q, b) - 1 && q->args.fixed_end) return ty[samples_of(q, b) - 1];
  return q->s.constraints & WITH_BAND ? fmax(ty[0], q->low[b * q->s.n + i]) : ty[0];
}

static double high_of(const problem *q, int64_t b, int64_t i) {
  const double *ty = q->ty + b * q->s.m, last = ty[samples_of(q, b) - 1];
  if (i == 0 && q->args.fixed_start) return ty[0];
  return q->s.constraints & WITH_BAND ? fmin(last, q->high[b * q->s.n + i]) : last;
}

static void steps_of(const problem *q, int64_t b, int64_t i, double *least, double *most) {
  const double dt = q->t[b * q->s.n + i + 1] - q->t[b * q->s.n + i];
  const int64_t e = b * (q->s.n - 1) + i;
  const int bounded = q->s.constraints & (WITH_SLOPES | TIGHT);
  *least = bounded ? q->least[e] * dt : 0;
  *most = bounded ? q->most[e] * dt : INFINITY;
}

/* ---------------------------------------------------------------- checks of a solution */

static double span_of(const problem *q, int64_t b) {
  return q->ty[b * q->s.m + samples_of(q, b) - 1] - q->ty[b * q->s.m];
}

static void check_feasible(const problem *q, int64_t b) {
  const double *phi = q->args.phi + b * q->s.n, allowed = 1e-13 * span_of(q, b) + 1e-14;
  for (int64_t i = 0; i < knots_of(q, b); i++) {
    check(phi[i] >= low_of(q, b, i) - allowed && phi[i] <= high_of(q, b, i) + allowed, "knot %lld is out of bounds",
          (long long)i);
    if (i + 1 == knots_of(q, b)) break;
    double least, most;
    steps_of(q, b, i, &least, &most);
    const double step = phi[i + 1] - phi[i];
    check(step >= least - allowed && step <= most + allowed, "edge %lld has slope step %g outside [%g, %g]",
          (long long)i, step, least, most);
  }
  for (int64_t i = knots_of(q, b); i < q->s.n; i++)
    check(phi[i] == phi[knots_of(q, b) - 1], "phi behind the item is not its last number");
}

/* The sample at which phi stands, inside of y's span, or -1; segment: one that it lies in. */
static int64_t sample_at(const problem *q, int64_t b, double phi, int64_t *segment) {
  const double *ty = q->ty + b * q->s.m, allowed = 2e-12 * span_of(q, b);
  const int64_t m = samples_of(q, b);
  *segment = 0;
  while (*segment < m - 2 && ty[*segment + 1] <= phi) ++*segment;
  for (int64_t k = 1; k < m - 1; k++)
    if (fabs(phi - ty[k]) <= allowed) return k;
  return -1;
}

typedef struct {
  double low, high;
} range;

/* Forces that knot i can hold, of the loss and of bounds; within a rounding of phi, as |e|^1.5 makes 1e-8 of 1e-16. */
static range knot_forces(const problem *q, int64_t b, int64_t i, double rounding) {
  const double phi = q->args.phi[b * q->s.n + i], allowed = 2e-12 * span_of(q, b), w = weight_of(q, b, i);
  int64_t segment;
  const int64_t sample = sample_at(q, b, phi, &segment), left = sample >= 0 ? sample - 1 : segment;
  range r = {w * loss_of(q, b, i, left, phi - rounding).slope,
             w * loss_of(q, b, i, sample >= 0 ? sample : segment, phi + rounding).slope};
  if (phi - low_of(q, b, i) <= allowed) r.low = -INFINITY;
  if (high_of(q, b, i) - phi <= allowed) r.high = INFINITY;
  return r;
}

static range edge_forces(const problem *q, int64_t b, int64_t i, double rounding) {
  if (i < 0 || i + 1 == knots_of(q, b)) return (range){0, 0};
  const double lambda = q->lambda[b * (q->s.n - 1) + i];
  return (range){lambda * regularizer_of(q, b, i, -rounding).slope, lambda * regularizer_of(q, b, i, rounding).slope};
}

/* Multipliers that the slope bounds of edge i can have. */
static range tie_forces(const problem *q, int64_t b, int64_t i) {
  const double *phi = q->args.phi + b * q->s.n, allowed = 2e-12 * span_of(q, b);
  double least, most;
  if (i + 1 == knots_of(q, b)) return (range){0, 0};
  steps_of(q, b, i, &least, &most);
  return (range){phi[i + 1] - phi[i] - least <= allowed ? -INFINITY : 0,
                 most - (phi[i + 1] - phi[i]) <= allowed ? INFINITY : 0};
}

/* The largest force around, of those that are numbers. */
static double largest_force(const problem *q, int64_t b) {
  double largest = 0;
  for (int64_t i = 0; i < knots_of(q, b); i++) {
    const range knot = knot_forces(q, b, i, 0), edge = edge_forces(q, b, i, 0);
    if (isfinite(knot.low)) largest = fmax(largest, fabs(knot.low));
    if (isfinite(knot.high)) largest = fmax(largest, fabs(knot.high));
    largest = fmax(largest, fabs(edge.low));
  }
  return largest;
}

/* There are multipliers mu_i = mu_{i-1} + s_i of the edges, of the right sign, from 0 to 0, with forces s_i that the knots can
 * hold: the interval of those that can be reached from the left never becomes empty, up to 1e-10 of the largest force. */
static void check_multipliers(const problem *q, int64_t b) {
  const double rounding = 0x1p-51 * span_of(q, b), scale = largest_force(q, b);
  range mu = {0, 0};
  double worst = 0;
  for (int64_t i = 0; i < knots_of(q, b); i++) {
    const range knot = knot_forces(q, b, i, rounding), tie = tie_forces(q, b, i);
    const range before = edge_forces(q, b, i - 1, rounding), behind = edge_forces(q, b, i, rounding);
    mu.low += knot.low + before.low - behind.high, mu.high += knot.high + before.high - behind.low;
    worst = fmax(worst, fmax(mu.low - tie.high, tie.low - mu.high));
    mu.low = fmin(fmax(mu.low, tie.low), tie.high), mu.high = fmin(fmax(mu.high, tie.low), tie.high);
  }
  check(worst <= 1e-10 * scale, "no multipliers: off by %g of %g", worst, scale);
}

static void check_objective(const problem *q, int64_t b) {
  const double *phi = q->args.phi + b * q->s.n;
  double sum = 0;
  for (int64_t i = 0; i < knots_of(q, b); i++) {
    int64_t segment;
    sample_at(q, b, phi[i], &segment);
    sum += weight_of(q, b, i) * loss_of(q, b, i, segment, phi[i]).value;
    if (i + 1 == knots_of(q, b)) break;
    const double dt = q->t[b * q->s.n + i + 1] - q->t[b * q->s.n + i];
    sum += q->lambda[b * (q->s.n - 1) + i] * dt * regularizer_of(q, b, i, 0).value;
  }
  check_near("objective", b, q->args.objective[b], sum, 1e-12 * fabs(sum) + 1e-15);
}

static void check_solution(const problem *q, int64_t b) {
  check(q->args.status[b] == DALIGN_GDTW_OPTIMAL, "status %d", (int)q->args.status[b]);
  if (q->args.status[b] != DALIGN_GDTW_OPTIMAL) return;
  check(q->args.blocked[b] == -1, "an optimal item has a blocked knot");
  check_feasible(q, b);
  check_multipliers(q, b);
  check_objective(q, b);
}

/* ---------------------------------------------------------------- random problems of every kind */

static const struct {
  dalign_gdtw_penalty kind;
  double p;
} penalties[] = {{DALIGN_GDTW_SQUARES, 0}, {DALIGN_GDTW_SQUARES, 0}, {DALIGN_GDTW_SQUARES, 0},
                 {DALIGN_GDTW_POWER, 1.5}, {DALIGN_GDTW_POWER, 3},   {DALIGN_GDTW_HUBER, .3}};

static setting random_setting(uint64_t number, int64_t longest) {
  uint64_t seed = number * 31 + 7;
  setting s = {.batch = 1, .quality = DALIGN_GDTW_FAST, .seed = number};
  s.n = random_integer(&seed, 2, longest), s.m = random_integer(&seed, 2, longest), s.d = random_integer(&seed, 1, 4);
  s.constraints = (int)random_integer(&seed, 0, 127);
  const int64_t loss = random_integer(&seed, 0, 5), regularizer = random_integer(&seed, 0, 5);
  s.loss = penalties[loss].kind, s.loss_parameter = penalties[loss].p;
  s.regularizer = penalties[regularizer].kind, s.regularizer_parameter = penalties[regularizer].p;
  return s;
}

static void test_solutions(const kernels *k) {
  for (uint64_t number = 0; number < 1500; number++) {
    if (left_out()) continue;
    setting s = random_setting(number, number % 10 ? 24 : 90);
    if (number % 25 == 0) s.quality = number % 50 ? DALIGN_GDTW_DEFAULT : DALIGN_GDTW_THOROUGH;
    if (number % 7 == 0) s.batch = 3, s.varied = 1;
    problem q = make_problem(k, s);
    check(solve(&q) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < s.batch; b++) check_solution(&q, b);
    free_problem(&q);
  }
}

/* More work may not make the result worse, and float features have the warp of their values in double. */
static void test_qualities(void) {
  int better = 0;
  for (uint64_t number = 0; number < 60; number++) {
    if (left_out()) continue;
    setting s = random_setting(number, 60);
    double objective[3];
    for (int quality = 0; quality < 3; quality++) {
      s.quality = quality;
      problem one = make_problem(&both[0], s), other = make_problem(&both[1], s);
      solve(&one), solve(&other);
      objective[quality] = other.args.objective[0];
      check_same("phi of floats", &f64, one.args.phi, other.args.phi, s.n);
      check_same("objective of floats", &f64, one.args.objective, other.args.objective, 1);
      free_problem(&one), free_problem(&other);
    }
    better += objective[2] < objective[0] * (1 - 1e-9);
    check(objective[2] <= objective[0] * 1.001 + 1e-15, "thorough %g, fast %g", objective[2], objective[0]);
  }
  check(better < 20, "fast misses the valley of thorough in %d of 60", better);
}

/* ---------------------------------------------------------------- finite differences of the whole solve */

/* J = <v, phi> + o F of all items. */
static double outcome(const problem *q) {
  double sum = 0;
  for (int64_t b = 0; b < q->s.batch; b++) {
    if (q->args.status[b] != DALIGN_GDTW_OPTIMAL) return NAN;
    sum += q->grad_objective[b] * q->args.objective[b];
    for (int64_t i = 0; i < knots_of(q, b); i++) sum += q->grad_phi[b * q->s.n + i] * q->args.phi[b * q->s.n + i];
  }
  return sum;
}

/* What stands in front of a difference: the number of a feature is one of its precision. */
typedef struct {
  const char *name;
  void *input, *gradient;
  int64_t count;
  int given;
} direction;

/* Differences to both sides along a random direction; where they agree, the gradient must agree with both. */
static void check_direction(problem *q, const direction *w, uint64_t *seed, int64_t *compared) {
  const double step = 1e-6;
  const size_t bytes = (size_t)w->count * sizeof(double);
  double *before = malloc(bytes + 1), *along = malloc(bytes + 1), *input = w->input, *gradient = w->gradient;
  double outcomes[3], product = 0;
  memcpy(before, input, bytes);
  for (int64_t i = 0; i < w->count; i++) along[i] = uniform(seed) - .5, product += gradient[i] * along[i];
  for (int side = -1; side <= 1; side++) {
    for (int64_t i = 0; i < w->count; i++) input[i] = before[i] + side * step * along[i];
    solve(q);
    outcomes[side + 1] = outcome(q);
  }
  memcpy(input, before, bytes);
  const double left = (outcomes[1] - outcomes[0]) / step, right = (outcomes[2] - outcomes[1]) / step;
  if (fabs(left - right) <= 1e-3 * (1e-2 + fabs(left))) {
    ++*compared;
    check(fabs(product - (left + right) / 2) <= 1e-4 * (1e-2 + fabs(product)),
          "%s: gradient %.9g, differences %.9g %.9g", w->name, product, left, right);
  }
  free(before), free(along);
}

static void test_gradients(void) {
  int64_t compared[10] = {0}, tried[10] = {0};
  for (uint64_t number = 0; number < 400; number++) {
    if (left_out()) continue;
    const setting s = random_setting(number, 18);
    problem q = make_problem(&both[1], s);
    const int times = s.constraints & WITH_TIMES, slopes = s.constraints & (WITH_SLOPES | TIGHT);
    const direction all[] = {{"x", q.x, q.grad_x, s.n * s.d, 1},
                             {"y", q.y, q.grad_y, s.m * s.d, 1},
                             {"x_times", q.t, q.grad_t, s.n, times},
                             {"y_times", q.ty, q.grad_ty, s.m, times},
                             {"reg_weight", q.lambda, q.grad_lambda, s.n - 1, 1},
                             {"slope_min", q.least, q.grad_least, s.n - 1, slopes},
                             {"slope_max", q.most, q.grad_most, s.n - 1, slopes},
                             {"nominal_slope", q.s0, q.grad_s0, 1, s.constraints & WITH_S0},
                             {"band_min", q.low, q.grad_low, s.n, s.constraints & WITH_BAND},
                             {"band_max", q.high, q.grad_high, s.n, s.constraints & WITH_BAND}};
    uint64_t seed = number;
    solve(&q);
    check(back_range(&q, 0, 1) == DALIGN_OK, "status is not OK");
    for (int w = 0; w < 10; w++)
      if (all[w].given && (q.args.counts[DALIGN_GDTW_DEGENERATE] == 0 || w < 2))
        tried[w]++, check_direction(&q, &all[w], &seed, &compared[w]);
    free_problem(&q);
  }
  for (int w = 0; w < 10; w++)
    check(4 * compared[w] >= 3 * tried[w], "input %d: only %lld of %lld directions are smooth", w,
          (long long)compared[w], (long long)tried[w]);
}

/* Gradients of float features are those of double ones, rounded. */
static void test_float_gradients(void) {
  for (uint64_t number = 0; number < 60; number++) {
    if (left_out()) continue;
    const setting s = random_setting(number, 30);
    problem one = make_problem(&both[0], s), other = make_problem(&both[1], s);
    solve(&one), solve(&other);
    back_range(&one, 0, 1), back_range(&other, 0, 1);
    double largest = 0;
    for (int64_t i = 0; i < s.n * s.d; i++) largest = fmax(largest, fabs(get(&f64, other.grad_x, i)));
    for (int64_t i = 0; i < s.m * s.d; i++) largest = fmax(largest, fabs(get(&f64, other.grad_y, i)));
    for (int64_t i = 0; i < s.n * s.d; i++)
      check_near("grad_x", i, get(&f32, one.grad_x, i), get(&f64, other.grad_x, i), 1e-6 * largest);
    for (int64_t i = 0; i < s.m * s.d; i++)
      check_near("grad_y", i, get(&f32, one.grad_y, i), get(&f64, other.grad_y, i), 1e-5 * largest);
    check_same("grad_reg_weight", &f64, one.grad_lambda, other.grad_lambda, s.n - 1);
    free_problem(&one), free_problem(&other);
  }
}

/* ---------------------------------------------------------------- known answers */

static setting plain_setting(int64_t n, int64_t m) {
  return (setting){.batch = 1, .n = n, .m = m, .d = 3, .quality = DALIGN_GDTW_DEFAULT, .seed = 5};
}

static void set_all(double *array, int64_t count, double number) {
  for (int64_t i = 0; i < count; i++) array[i] = number;
}

/* Equal sequences are aligned by the identity at no cost; constant ones, and with a huge weight any, by the line. */
static void test_lines(const kernels *k) {
  enum { N = 40 };
  for (int kind = 0; kind < 3; kind++) {
    problem q = make_problem(k, plain_setting(N, N));
    if (kind == 0) memcpy(q.y, q.x, (size_t)(N * 3) * k->p->size);
    for (int64_t i = 0; i < N * 3 && kind == 1; i++) set(k->p, q.x, i, 1), set(k->p, q.y, i, 2);
    if (kind == 2) set_all(q.lambda, N - 1, 1e9);
    solve(&q);
    check_solution(&q, 0);
    for (int64_t i = 0; i < N; i++) check_near("phi", i, q.args.phi[i], (double)i / (N - 1), kind == 2 ? 1e-7 : 1e-12);
    if (kind < 2) check_near("objective", 0, q.args.objective[0], kind ? 3 : 0, 1e-12);
    free_problem(&q);
  }
}

/* Without a weight and with free ends every knot goes to the best y it can reach; flat directions are counted. */
static void test_no_weight(const kernels *k) {
  problem q = make_problem(k, plain_setting(30, 20));
  set_all(q.lambda, 29, 0);
  solve(&q);
  check_solution(&q, 0);
  for (int64_t i = 0; i < 20 * 3; i++) set(k->p, q.y, i, 1);
  solve(&q);
  check_solution(&q, 0);
  check(q.args.counts[DALIGN_GDTW_SINGULAR] > 0 || q.args.counts[DALIGN_GDTW_WEAK] > 0, "flat directions not counted");
  check(back_range(&q, 0, 1) == DALIGN_OK, "status is not OK");
  for (int64_t i = 0; i < 30 * 3; i++) check(isfinite(get(k->p, q.grad_x, i)), "a gradient is not finite");
  free_problem(&q);
}

/* Other units of y's time: phi in them, the objective for lambda in the old ones. */
static void test_units(void) {
  setting s = plain_setting(33, 27);
  s.constraints = WITH_TIMES | WITH_SLOPES;
  problem one = make_problem(&both[1], s), other = make_problem(&both[1], s);
  for (int64_t i = 0; i < s.m; i++) other.ty[i] = 1000 + 60 * (one.ty[i] - one.ty[0]);
  for (int64_t i = 0; i < s.n - 1; i++)
    other.lambda[i] = one.lambda[i] / 3600, other.least[i] = 60 * one.least[i], other.most[i] = 60 * one.most[i];
  solve(&one), solve(&other);
  check_near("objective", 0, other.args.objective[0], one.args.objective[0], 1e-9 * one.args.objective[0]);
  for (int64_t i = 0; i < s.n; i++)
    check_near("phi", i, (other.args.phi[i] - 1000) / 60, one.args.phi[i] - one.ty[0], 1e-8);
  free_problem(&one), free_problem(&other);
}

/* ---------------------------------------------------------------- ranges */

static void check_same_results(const problem *one, const problem *other) {
  const setting *s = &one->s;
  check_same("phi", &f64, one->args.phi, other->args.phi, s->batch * s->n);
  check_same("objective", &f64, one->args.objective, other->args.objective, s->batch);
  check_same("grad_x", one->k->p, one->grad_x, other->grad_x, s->batch * s->n * s->d);
  check_same("grad_y", one->k->p, one->grad_y, other->grad_y, s->batch * s->m * s->d);
  check_same("grad_reg_weight", &f64, one->grad_lambda, other->grad_lambda, s->batch * (s->n - 1));
  check_same("grad_band_min", &f64, one->grad_low, other->grad_low, s->batch * s->n);
  check(!memcmp(one->args.state, other->args.state, (size_t)(s->batch * s->n * 3) * 4), "states differ");
}

/* Item by item, from the last to the first, gives the bits of one call. */
static void test_ranges(const kernels *k) {
  const setting s = {.batch = 7,
                     .n = 30,
                     .m = 41,
                     .d = 5,
                     .constraints = WITH_SLOPES | WITH_BAND | WITH_TIMES,
                     .quality = DALIGN_GDTW_DEFAULT,
                     .varied = 1,
                     .seed = 3};
  problem together = make_problem(k, s), alone = make_problem(k, s);
  solve(&together);
  back_range(&together, 0, s.batch);
  for (int64_t b = s.batch - 1; b >= 0; b--) solve_range(&alone, b, b + 1), back_range(&alone, b, b + 1);
  check_same_results(&together, &alone);
  free_problem(&together), free_problem(&alone);
}

/* Series that all items, or all edges, share. */
static void test_shared(const kernels *k) {
  setting s = plain_setting(25, 30);
  s.batch = 2, s.constraints = WITH_SLOPES;
  problem spread = make_problem(k, s), shared = make_problem(k, s);
  set_all(spread.lambda, 2 * 24, .25), set_all(spread.least, 2 * 24, .5), set_all(spread.most, 2 * 24, 2);
  const double lambda = .25, least = .5, most = 2;
  shared.args.reg_weight = (dalign_series){&lambda, 0, 0};
  shared.args.slope_min = (dalign_series){&least, 0, 0}, shared.args.slope_max = (dalign_series){&most, 0, 0};
  solve(&spread), solve(&shared);
  back_range(&spread, 0, 2), back_range(&shared, 0, 2);
  check_same_results(&spread, &shared);
  free_problem(&spread), free_problem(&shared);
}

/* ---------------------------------------------------------------- items without a solution, short items */

static void check_gradients_are(const problem *q, int64_t b, double number) {
  const setting *s = &q->s;
  for (int64_t i = 0; i < s->n * s->d; i++)
    check_near("grad_x", i, get(q->k->p, q->grad_x, b * s->n * s->d + i), number, 0);
  for (int64_t i = 0; i < s->m * s->d; i++)
    check_near("grad_y", i, get(q->k->p, q->grad_y, b * s->m * s->d + i), number, 0);
  for (int64_t i = 0; i + 1 < s->n; i++)
    check_near("grad_reg_weight", i, q->grad_lambda[b * (s->n - 1) + i], number, 0);
  for (int64_t i = 0; i < s->n; i++) check_near("grad_x_times", i, q->grad_t[b * s->n + i], number, 0);
}

/* The item in the middle has none; its neighbours are as without it. */
static void test_one_without(const kernels *k) {
  setting s = plain_setting(20, 22);
  s.batch = 3, s.constraints = WITH_SLOPES | WITH_BAND | WITH_TIMES;
  problem sound = make_problem(k, s);
  solve(&sound);
  back_range(&sound, 0, 3);
  for (int kind = 0; kind < 7; kind++) {
    problem q = make_problem(k, s);
    const int infeasible = kind >= 5;
    if (kind == 0) set(k->p, q.x, 20 * 3 + 7, NAN);
    if (kind == 1) set(k->p, q.y, 22 * 3 + 7, INFINITY);
    if (kind == 2) q.lambda[19 + 3] = -1;
    if (kind == 3) q.t[20 + 5] = q.t[20 + 4];
    if (kind == 4) q.high[20 + 6] = NAN;
    if (kind == 5) set_all(q.most + 19, 19, 1e-3);
    if (kind == 6) q.low[20 + 8] = q.high[20 + 8] + 1;
    solve(&q);
    back_range(&q, 0, 3);
    check(q.args.status[1] == (infeasible ? DALIGN_GDTW_INFEASIBLE : DALIGN_GDTW_INVALID), "kind %d: status %d", kind,
          (int)q.args.status[1]);
    check(kind != 6 || q.args.blocked[1] == 8, "blocked at %lld", (long long)q.args.blocked[1]);
    check((q.args.blocked[1] >= 0) == infeasible, "blocked at %lld", (long long)q.args.blocked[1]);
    for (int64_t i = 0; i < 20; i++) check(isnan(q.args.phi[20 + i]), "phi is a number");
    check_near("objective", 1, q.args.objective[1], infeasible ? INFINITY : NAN, 0);
    check_gradients_are(&q, 1, infeasible ? 0 : NAN);
    for (int64_t b = 0; b < 3; b += 2) {
      check_same("phi beside it", &f64, q.args.phi + b * 20, sound.args.phi + b * 20, 20);
      check_same("grad_x beside it", k->p, at(k->p, q.grad_x, b * 60), at(k->p, sound.grad_x, b * 60), 60);
    }
    free_problem(&q);
  }
  free_problem(&sound);
}

/* One knot: its weight is 1, the warp its best time. One sample: phi is its time. */
static void test_short(const kernels *k) {
  for (int64_t n = 1; n <= 3; n++)
    for (int64_t m = 1; m <= 3; m++)
      for (int ends = 0; ends < 4; ends++) {
        setting s = plain_setting(n, m);
        s.constraints = ends * FREE_START;
        problem q = make_problem(k, s);
        check(solve(&q) == DALIGN_OK && back_range(&q, 0, 1) == DALIGN_OK, "status is not OK");
        const int feasible = n > 1 || m == 1 || ends;
        check(q.args.status[0] == (feasible ? DALIGN_GDTW_OPTIMAL : DALIGN_GDTW_INFEASIBLE), "n %d m %d ends %d: %d",
              (int)n, (int)m, ends, (int)q.args.status[0]);
        for (int64_t i = 0; i < n && feasible; i++) {
          check(q.args.phi[i] >= 0 && q.args.phi[i] <= (m > 1), "phi %g", q.args.phi[i]);
          for (int64_t f = 0; f < 3; f++) check(isfinite(get(k->p, q.grad_x, i * 3 + f)), "no finite gradient");
        }
        if (n == 1 && m > 1 && ends == 1) check(q.args.phi[0] == 1, "a fixed end");
        if (n == 1 && m > 1 && ends == 2) check(q.args.phi[0] == 0, "a fixed start");
        if (n > 1 && m > 1) check_solution(&q, 0);
        free_problem(&q);
      }
}

/* ---------------------------------------------------------------- misuse */

static void test_misuse(const kernels *k) {
  problem q = make_problem(k, plain_setting(6, 7));
  const dalign_gdtw_args sound = q.args;
  const int64_t long_lengths[1] = {8}, no_lengths[1] = {0};
  check(solve(&q) == DALIGN_OK, "the sound one is refused");
  for (int kind = 0; kind < 15; kind++) {
    q.args = sound;
    dalign_gdtw_args *a = &q.args;
    if (kind == 0) a->batch = -1;
    if (kind == 1) a->n = 0;
    if (kind == 2) a->m = 0;
    if (kind == 3) a->d = 0;
    if (kind == 4) a->x_lengths = long_lengths;
    if (kind == 5) a->y_lengths = no_lengths;
    if (kind == 6) a->reg_weight.at = NULL;
    if (kind == 7) a->loss = DALIGN_GDTW_POWER, a->loss_parameter = 1;
    if (kind == 8) a->regularizer = DALIGN_GDTW_HUBER, a->regularizer_parameter = 0;
    if (kind == 9) a->loss = 3;
    if (kind == 10) a->quality = 3;
    if (kind == 11) a->phi = NULL;
    if (kind == 12) a->n = DALIGN_GDTW_LONGEST + 1;
    if (kind == 13) a->y = NULL;
    if (kind == 14) a->loss = DALIGN_GDTW_HUBER, a->loss_parameter = NAN;
    void *workspace = scratch(1 << 20);
    check(k->run(a, 0, 1, workspace) == DALIGN_BAD_ARGUMENT, "kind %d is not refused", kind);
    check(k->backward(a, 0, 1, workspace) == DALIGN_BAD_ARGUMENT, "kind %d is not refused by backward", kind);
    free(workspace);
  }
  q.args = sound;
  free_problem(&q);
}

/* Gradients that are not asked for. */
static void test_no_gradients(const kernels *k) {
  setting s = plain_setting(12, 14);
  s.constraints = WITH_SLOPES | WITH_BAND | WITH_TIMES | WITH_S0;
  problem q = make_problem(k, s), wanted = make_problem(k, s);
  dalign_gdtw_args *a = &q.args;
  a->grad_x_times = a->grad_y_times = a->grad_slope_min = a->grad_slope_max = a->grad_nominal_slope = NULL;
  a->grad_band_min = a->grad_band_max = NULL, a->grad_y = NULL;
  solve(&q), solve(&wanted);
  check(back_range(&q, 0, 1) == DALIGN_OK && back_range(&wanted, 0, 1) == DALIGN_OK, "status is not OK");
  check_same("grad_x", k->p, q.grad_x, wanted.grad_x, s.n * s.d);
  check_same("grad_reg_weight", &f64, q.grad_lambda, wanted.grad_lambda, s.n - 1);
  a->grad_phi = a->grad_objective = NULL;
  back_range(&q, 0, 1);
  for (int64_t i = 0; i < s.n * s.d; i++) check(get(k->p, q.grad_x, i) == 0, "a gradient of nothing");
  free_problem(&q), free_problem(&wanted);
}

int main(void) {
  static const struct {
    const char *name;
    void (*test)(const kernels *);
  } groups[] = {{"solutions", test_solutions}, {"lines", test_lines},          {"no weight", test_no_weight},
                {"ranges", test_ranges},       {"shared series", test_shared}, {"one without", test_one_without},
                {"short items", test_short},   {"misuse", test_misuse},        {"no gradients", test_no_gradients}};
  static const struct {
    const char *name;
    void (*test)(void);
  } of_both[] = {{"qualities", test_qualities},
                 {"gradients", test_gradients},
                 {"float gradients", test_float_gradients},
                 {"units", test_units}};
  for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
    for (int k = 0; k < 2; k++) {
      char name[64];
      snprintf(name, sizeof name, "gdtw %s, %s", groups[g].name, both[k].p->name);
      start_group(name);
      groups[g].test(&both[k]);
      end_group();
    }
  for (size_t g = 0; g < sizeof of_both / sizeof *of_both; g++) {
    start_group(of_both[g].name);
    of_both[g].test();
    end_group();
  }
  return report();
}
