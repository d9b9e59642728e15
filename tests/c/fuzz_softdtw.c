/* fuzz_softdtw: a libFuzzer target over shapes, lengths, bands, weights, metrics and numbers of all kinds.
 *
 * The input is decoded to one small batch. Forward, backward, the pipeline and the Hessian product run in memory of
 * exactly the size asked for; what must hold for any numbers is checked, and small well-behaved problems are compared
 * with the scalar reference. A check that fails aborts, which libFuzzer reports with the input. */
#include "check.h"
#include "reference.h"

enum { LARGEST_SIDE = 80, LARGEST_BATCH = 3, LARGEST_DEPTH = 20, REFERENCE_CELLS = 600 };

/* What the present input was decoded to, for the report. */
static char present_input[256];

#define HOLD(condition)                                                                                  \
  do {                                                                                                   \
    if (!(condition)) {                                                                                  \
      fprintf(stderr, "does not hold: %s (%s:%d)\n%s\n", #condition, __FILE__, __LINE__, present_input); \
      abort();                                                                                           \
    }                                                                                                    \
  } while (0)

static void hold_near(const char *what, int64_t index, double got, double expected, double tolerance) {
  if (is_near(got, expected, tolerance)) return;
  fprintf(stderr, "%s[%lld] is %.17g, expected %.17g (allowed %.3g)\n", what, (long long)index, got, expected,
          tolerance);
  HOLD(is_near(got, expected, tolerance));
}

/* ---------------------------------------------------------------- decoding */

typedef struct {
  const uint8_t *bytes;
  size_t left;
  uint64_t seed; /* numbers when the bytes have run out */
} source;

static unsigned byte(source *s) {
  if (s->left == 0) return (unsigned)(random_bits(&s->seed) & 0xFF);
  s->left--;
  return *s->bytes++;
}

static int64_t pick(source *s, int64_t low, int64_t high) { return low + (int64_t)byte(s) % (high - low + 1); }

/* What kinds of numbers an input holds. */
typedef enum { ORDINARY, MIXED_SCALES, SPECIAL } number_kind;

/* Finite numbers far below zero are left out: as costs they make a dead end weigh more than all paths, beyond what an
 * exponent in double can tell apart. */
static double special_number(source *s, const precision *p) {
  const double numbers[] = {INFINITY, -INFINITY, NAN, 0, -0.0, p->huge, -1e6, 1 / p->huge, 1e-44, 1e20, -1e3, 1};
  return numbers[byte(s) % (sizeof numbers / sizeof *numbers)];
}

static double number(source *s, const precision *p, number_kind kind) {
  const unsigned b = byte(s);
  const double ordinary = (double)b / 64 + 1e-3 * uniform(&s->seed);
  if (kind == ORDINARY || b < 200) return ordinary;
  if (kind == MIXED_SCALES) return ordinary * pow(10, (double)pick(s, -6, 6));
  return b < 240 ? INFINITY : special_number(s, p);
}

typedef struct {
  const precision *p;
  number_kind kind;
  int lattice, varied, threads;
  dalign_softdtw_args args;
  int64_t numbers_cost, numbers_x, numbers_y;
  int64_t *x_lengths, *y_lengths;
  void *cost, *x, *y, *grad_value;
} input;

static double decode_weight(source *s) {
  static const double weights[] = {1, 1, 1, 1, 2, .1, 0, INFINITY, 1.5, .3, 1e3, 1e-5};
  return weights[byte(s) % (sizeof weights / sizeof *weights)];
}

static void decode_settings(source *s, input *in) {
  dalign_softdtw_args *a = &in->args;
  const unsigned flags = byte(s);
  in->p = precisions[flags & 1];
  in->lattice = flags >> 1 & 1;
  in->varied = flags >> 2 & 1;
  in->kind = (number_kind)((flags >> 3 & 15) % 3);
  in->threads = 1;
  a->batch = pick(s, 1, LARGEST_BATCH);
  a->n = pick(s, 1, LARGEST_SIDE);
  a->m = pick(s, 1, LARGEST_SIDE);
  a->d = pick(s, 1, LARGEST_DEPTH);
  a->metric = (dalign_metric)pick(s, 0, 5);
  a->gamma = pow(10, (double)pick(s, -4, 3));
  for (int k = 0; k < 3; k++) a->step_weights[k] = flags & 0x80 ? decode_weight(s) : 1;
  const int64_t band = pick(s, 0, 40);
  a->band = band < 10 ? -1 : (double)(band - 9) / 2;
}

static void decode_lengths(source *s, input *in) {
  const size_t bytes = (size_t)in->args.batch * sizeof(int64_t);
  if (!in->varied) return;
  in->x_lengths = filled(bytes, 0);
  in->y_lengths = filled(bytes, 0);
  for (int64_t b = 0; b < in->args.batch; b++) {
    in->x_lengths[b] = pick(s, 1, in->args.n);
    in->y_lengths[b] = pick(s, 1, in->args.m);
  }
  in->args.x_lengths = in->x_lengths;
  in->args.y_lengths = in->y_lengths;
}

static void *decode_numbers(source *s, const input *in, int64_t count) {
  void *numbers = result_array(in->p, count);
  for (int64_t k = 0; k < count; k++) set(in->p, numbers, k, number(s, in->p, in->kind));
  return numbers;
}

/* Probabilities for bce; log-probabilities are negative. */
static void *decode_frames(source *s, const input *in, int64_t count) {
  void *numbers = decode_numbers(s, in, count);
  for (int64_t k = 0; k < count; k++) {
    const double a = get(in->p, numbers, k);
    if (in->args.metric == DALIGN_BCE && in->kind != SPECIAL) set(in->p, numbers, k, .001 + .998 * fmod(a, 1));
    if (in->args.metric == DALIGN_NLL) set(in->p, numbers, k, -a);
  }
  return numbers;
}

static void *decode_labels(source *s, const input *in) {
  const int64_t count = in->args.batch * in->args.m;
  int64_t *labels = filled((size_t)count * sizeof(int64_t), 0);
  for (int64_t k = 0; k < count; k++) labels[k] = pick(s, 0, in->args.d - 1);
  return labels;
}

static input decode(const uint8_t *bytes, size_t size) {
  source s = {bytes, size, size};
  input in = {.p = NULL};
  decode_settings(&s, &in);
  dalign_softdtw_args *a = &in.args;
  decode_lengths(&s, &in);
  in.grad_value = decode_numbers(&(source){NULL, 0, 1}, &(input){.p = in.p, .kind = ORDINARY}, a->batch);
  if (byte(&s) & 1) a->grad_value = in.grad_value;
  in.threads = (int)pick(&s, 1, 3);
  if (in.lattice) {
    in.numbers_cost = a->batch * a->n * a->m;
    a->cost = in.cost = decode_numbers(&s, &in, in.numbers_cost);
    return in;
  }
  in.numbers_x = a->batch * a->n * a->d;
  in.numbers_y = a->metric == DALIGN_NLL ? 0 : a->batch * a->m * a->d;
  a->x = in.x = decode_frames(&s, &in, in.numbers_x);
  a->y = in.y = a->metric == DALIGN_NLL ? decode_labels(&s, &in) : decode_frames(&s, &in, in.numbers_y);
  return in;
}

static void free_input(input *in) {
  void *memory[] = {in->x_lengths, in->y_lengths, in->cost, in->x, in->y, in->grad_value};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

static int64_t rows_of(const input *in, int64_t b) { return in->x_lengths ? in->x_lengths[b] : in->args.n; }
static int64_t columns_of(const input *in, int64_t b) { return in->y_lengths ? in->y_lengths[b] : in->args.m; }

/* ---------------------------------------------------------------- running */

/* value, gradients and mean cost, all NaN before the run. */
typedef struct {
  void *value, *grad_cost, *grad_x, *grad_y;
  double *mean_cost;
} results;

static results make_results(const input *in) {
  const precision *p = in->p;
  return (results){result_array(p, in->args.batch), in->numbers_cost ? result_array(p, in->numbers_cost) : NULL,
                   in->numbers_x ? result_array(p, in->numbers_x) : NULL,
                   in->numbers_y ? result_array(p, in->numbers_y) : NULL,
                   filled((size_t)in->args.batch * sizeof(double), 0xFF)};
}

static void free_results(results *r) {
  free(r->value);
  free(r->grad_cost);
  free(r->grad_x);
  free(r->grad_y);
  free(r->mean_cost);
}

static dalign_softdtw_args with_results(const input *in, const results *r) {
  dalign_softdtw_args a = in->args;
  a.value = r->value;
  a.grad_cost = r->grad_cost;
  a.grad_x = r->grad_x;
  a.grad_y = r->grad_y;
  a.mean_cost = r->mean_cost;
  return a;
}

static void *make_state(const input *in, dalign_softdtw_args *a) {
  a->state_stride = (int64_t)in->p->state(a);
  return a->state = scratch((size_t)(a->batch * a->state_stride));
}

static void run_plain(const input *in, results *r) {
  dalign_softdtw_args a = with_results(in, r);
  void *state = make_state(in, &a);
  void *workspace = scratch(in->p->shared(&a, DALIGN_BACKWARD) + in->p->worker(&a));
  HOLD(in->p->forward(&a, 0, a.batch, workspace) == DALIGN_OK);
  HOLD(in->p->backward(&a, 0, a.batch, workspace) == DALIGN_OK);
  free(workspace);
  free(state);
}

/* Without state, into fresh memory. */
static void run_gradient(const input *in, results *r) {
  dalign_softdtw_args a = with_results(in, r);
  void *workspace = scratch(in->p->shared(&a, DALIGN_GRADIENT) + in->p->worker(&a));
  HOLD(in->p->gradient(&a, 0, a.batch, workspace) == DALIGN_OK);
  free(workspace);
}

/* The workers one after the other: threads would only make an input's run depend on the weather. */
static void run_item(const input *in, const dalign_softdtw_args *a, dalign_pass pass, int64_t item) {
  void *shared = scratch(in->p->shared(a, pass));
  dalign_status status = DALIGN_RETRY;
  for (int retry = 0; status == DALIGN_RETRY; retry++) {
    HOLD(retry < 4);
    HOLD(in->p->open(a, pass, item, retry > 0, shared) == DALIGN_OK);
    for (int k = 0; k < in->threads; k++) {
      void *worker = scratch(in->p->worker(a));
      in->p->work(shared, worker);
      free(worker);
    }
    status = in->p->close(shared);
  }
  HOLD(status == DALIGN_OK);
  free(shared);
}

static void run_pipeline(const input *in, results *r) {
  dalign_softdtw_args a = with_results(in, r);
  void *state = make_state(in, &a);
  for (int64_t b = 0; b < a.batch; b++) run_item(in, &a, DALIGN_FORWARD, b);
  for (int64_t b = a.batch - 1; b >= 0; b--) run_item(in, &a, DALIGN_BACKWARD, b);
  free(state);
}

/* ---------------------------------------------------------------- what holds for any numbers */

static void hold_padding(const input *in, const void *numbers, int64_t b, int64_t frames, int64_t used, int64_t width,
                         int64_t used_width) {
  for (int64_t i = 0; numbers && i < frames; i++)
    for (int64_t k = 0; k < width; k++)
      if (i >= used || k >= used_width) HOLD(get(in->p, numbers, (b * frames + i) * width + k) == 0);
}

static void hold_numbers(const input *in, const void *numbers, int64_t first, int64_t count, int (*property)(double)) {
  for (int64_t k = 0; numbers && k < count; k++) HOLD(property(get(in->p, numbers, first + k)));
}

static int is_zero(double a) { return a == 0; }
static int is_finite(double a) { return isfinite(a); }

/* No path: gradients of 0. A finite value of ordinary numbers: finite gradients. */
static void hold_gradients(const input *in, const results *r, int64_t b) {
  const dalign_softdtw_args *a = &in->args;
  const double value = get(in->p, r->value, b);
  int (*property)(double) = NULL;
  if (isfinite(value) && in->kind != SPECIAL) property = is_finite;
  if (value == INFINITY && in->kind != SPECIAL) property = is_zero;
  if (property == NULL) return;
  hold_numbers(in, r->grad_cost, b * a->n * a->m, a->n * a->m, property);
  hold_numbers(in, r->grad_x, b * a->n * a->d, a->n * a->d, property);
  hold_numbers(in, r->grad_y, b * a->m * a->d, a->m * a->d, property);
  HOLD(property(r->mean_cost[b]));
}

static int unit_weights(const dalign_softdtw_args *a) {
  return a->step_weights[0] == 1 && a->step_weights[1] == 1 && a->step_weights[2] == 1;
}

/* With unit weights the gradient is the mass through each cell: at most 1, at least 1 in each row and column. */
static void hold_mass(const input *in, const results *r, int64_t b) {
  const dalign_softdtw_args *a = &in->args;
  const double slack = 1e3 * in->p->epsilon, grad = a->grad_value ? get(in->p, a->grad_value, b) : 1;
  double columns[LARGEST_SIDE] = {0};
  if (!in->lattice || !unit_weights(a) || !isfinite(get(in->p, r->value, b)) || in->kind == SPECIAL || grad == 0)
    return;
  for (int64_t i = 0; i < rows_of(in, b); i++) {
    double row = 0;
    for (int64_t j = 0; j < columns_of(in, b); j++) {
      const double mass = get(in->p, r->grad_cost, (b * a->n + i) * a->m + j) / grad;
      HOLD(mass >= 0 && mass <= 1 + slack);
      row += mass;
      columns[j] += mass;
    }
    HOLD(row >= 1 - slack);
  }
  for (int64_t j = 0; j < columns_of(in, b); j++) HOLD(columns[j] >= 1 - slack);
}

static void hold_always(const input *in, const results *r) {
  const dalign_softdtw_args *a = &in->args;
  for (int64_t b = 0; b < a->batch; b++) {
    const int64_t rows = rows_of(in, b), columns = columns_of(in, b);
    hold_padding(in, r->grad_cost, b, a->n, rows, a->m, columns);
    hold_padding(in, r->grad_x, b, a->n, rows, a->d, a->d);
    hold_padding(in, r->grad_y, b, a->m, columns, a->d, a->d);
    hold_gradients(in, r, b);
    hold_mass(in, r, b);
  }
}

static void hold_same(const precision *p, const void *one, const void *other, int64_t count) {
  if (one && count > 0) HOLD(memcmp(one, other, (size_t)count * p->size) == 0);
}

static void hold_same_results(const input *in, const results *one, const results *other) {
  hold_same(in->p, one->value, other->value, in->args.batch);
  hold_same(in->p, one->grad_cost, other->grad_cost, in->numbers_cost);
  hold_same(in->p, one->grad_x, other->grad_x, in->numbers_x);
  hold_same(in->p, one->grad_y, other->grad_y, in->numbers_y);
  hold_same(&f64, one->mean_cost, other->mean_cost, in->args.batch);
}

/* ---------------------------------------------------------------- small lattices against the reference */

static wide *lattice_costs(const input *in, int64_t b) {
  const int64_t rows = rows_of(in, b), columns = columns_of(in, b);
  wide *cost = malloc((size_t)(rows * columns) * sizeof *cost);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      cost[i * columns + j] = get(in->p, in->cost, (b * in->args.n + i) * in->args.m + j);
  return cost;
}

static reference_problem reference_of(const input *in, int64_t b, const wide *cost) {
  reference_problem r = {rows_of(in, b), columns_of(in, b), in->args.gamma, {0, 0, 0}, in->args.band, cost};
  memcpy(r.step_weights, in->args.step_weights, sizeof r.step_weights);
  return r;
}

/* Largest number on a path, NaN when a path meets a number that makes the item NaN. */
static double largest_on_path(const reference_problem *r, const unsigned char *on_path) {
  double largest = 0;
  for (int64_t c = 0; c < r->n * r->m; c++) {
    if (!on_path[c]) continue;
    if (isnan((double)r->cost[c]) || r->cost[c] == -INFINITY) return NAN;
    largest = fmax(largest, fabs((double)r->cost[c]));
  }
  return largest;
}

static double largest_weight(const dalign_softdtw_args *a) {
  double largest = 1;
  for (int k = 0; k < 3; k++)
    if (isfinite(a->step_weights[k])) largest = fmax(largest, a->step_weights[k]);
  return largest;
}

/* Costs of half a unit in the last place move exponents by `blur`; where that is small results have to agree. */
static void hold_reference(const input *in, const results *got, int64_t b, const reference_problem *r, double largest) {
  const dalign_softdtw_args *a = &in->args;
  const double steps = (double)(r->n + r->m), size = largest * largest_weight(a) * steps + a->gamma * steps;
  const double blur = in->p->epsilon * size / a->gamma, grad = a->grad_value ? get(in->p, a->grad_value, b) : 1;
  if (!(size < sqrt(in->p->huge)) || blur > 1e-2) return;
  double *alignment = malloc((size_t)(r->n * r->m) * sizeof *alignment);
  const double value = (double)reference_softdtw(r, alignment, NULL);
  hold_near("value", b, get(in->p, got->value, b), value, 8 * in->p->epsilon * size);
  for (int64_t i = 0; i < r->n; i++)
    for (int64_t j = 0; j < r->m; j++)
      hold_near("grad_cost", i * r->m + j, get(in->p, got->grad_cost, (b * a->n + i) * a->m + j),
                grad * alignment[i * r->m + j], fabs(grad) * largest_weight(a) * (8 * blur + 64 * in->p->epsilon));
  free(alignment);
}

static void hold_small_lattices(const input *in, const results *got) {
  for (int64_t b = 0; in->lattice && b < in->args.batch; b++) {
    if (rows_of(in, b) * columns_of(in, b) > REFERENCE_CELLS) continue;
    wide *cost = lattice_costs(in, b);
    const reference_problem r = reference_of(in, b, cost);
    unsigned char *on_path = malloc((size_t)(r.n * r.m));
    reference_paths(&r, on_path);
    const double largest = largest_on_path(&r, on_path), value = get(in->p, got->value, b);
    if (isnan(largest)) {
      HOLD(isnan(value));
    } else if (!on_path[0]) {
      HOLD(value == INFINITY || isnan(value)); /* a NaN may stand where no path passes */
    } else if (!isnan(value) || in->kind != SPECIAL) {
      hold_reference(in, got, b, &r, largest);
    }
    free(on_path);
    free(cost);
  }
}

/* ---------------------------------------------------------------- Hessian product */

/* The Hessian is linear and symmetric; here: a tangent of 0 gives 0, and padding stays 0. */
static void run_hvp(const input *in) {
  const dalign_softdtw_args *a = &in->args;
  void *tangent = result_array(in->p, in->numbers_cost), *product = result_array(in->p, in->numbers_cost);
  void *workspace = scratch(in->p->hvp_workspace(a));
  HOLD(in->p->hvp(a, tangent, product, 0, a->batch, workspace) == DALIGN_OK); /* all NaN: memory is what counts */
  for (int64_t k = 0; k < in->numbers_cost; k++) set(in->p, tangent, k, 0);
  HOLD(in->p->hvp(a, tangent, product, 0, a->batch, workspace) == DALIGN_OK);
  for (int64_t b = 0; b < a->batch; b++) hold_padding(in, product, b, a->n, rows_of(in, b), a->m, columns_of(in, b));
  if (in->kind != SPECIAL) hold_numbers(in, product, 0, in->numbers_cost, is_zero);
  free(tangent);
  free(product);
  free(workspace);
}

/* ---------------------------------------------------------------- costs */

static void run_cost(const input *in) {
  const dalign_softdtw_args *s = &in->args;
  const dalign_cost_args a = {s->batch, s->n, s->m, s->d, s->metric, in->x, in->y};
  void *cost = result_array(in->p, a.batch * a.n * a.m), *grad_x = result_array(in->p, in->numbers_x);
  void *grad_y = in->numbers_y ? result_array(in->p, in->numbers_y) : NULL;
  void *workspace = scratch(in->p->cost_workspace(&a));
  HOLD(in->p->cost(&a, cost, 0, a.batch, workspace) == DALIGN_OK);
  HOLD(in->p->cost_backward(&a, cost, grad_x, grad_y, 0, a.batch, workspace) == DALIGN_OK);
  if (in->kind != SPECIAL) hold_numbers(in, cost, 0, a.batch * a.n * a.m, is_finite);
  free(cost);
  free(grad_x);
  free(grad_y);
  free(workspace);
}

static void describe_input(const input *in) {
  const dalign_softdtw_args *a = &in->args;
  snprintf(present_input, sizeof present_input,
           "%s batch %lld n %lld m %lld d %lld metric %d gamma %g weights %g %g %g band %g kind %d lengths %d",
           in->p->name, (long long)a->batch, (long long)a->n, (long long)a->m, (long long)a->d,
           in->lattice ? -1 : (int)a->metric, a->gamma, a->step_weights[0], a->step_weights[1], a->step_weights[2],
           a->band, (int)in->kind, in->varied);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  input in = decode(bytes, size);
  describe_input(&in);
  results plain = make_results(&in), pipeline = make_results(&in), gradient = make_results(&in);
  run_plain(&in, &plain);
  hold_always(&in, &plain);
  hold_small_lattices(&in, &plain);
  run_pipeline(&in, &pipeline);
  hold_same_results(&in, &plain, &pipeline);
  run_gradient(&in, &gradient);
  hold_same_results(&in, &plain, &gradient);
  if (in.lattice) {
    run_hvp(&in);
  } else {
    run_cost(&in);
  }
  free_results(&plain);
  free_results(&pipeline);
  free_results(&gradient);
  free_input(&in);
  return 0;
}
