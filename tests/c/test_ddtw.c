/* The general lattice of the C library: values and every derivative against the slow reference, for all operators, orders of
 * waves and layouts of weights; best paths, second derivatives, memory of exactly the size asked for, misuse. */
#include "check.h"
#include "reference_ddtw.h"

/* ---------------------------------------------------------------- both precisions */

typedef struct {
  const precision *p;
  size_t (*workspace)(const dalign_ddtw_args *);
  dalign_status (*run)(const dalign_ddtw_args *, int64_t, int64_t, void *);
  size_t (*hvp_workspace)(const dalign_ddtw_args *);
  dalign_status (*hvp)(const dalign_ddtw_args *, const dalign_ddtw_direction *, int64_t, int64_t, void *);
} kernels;

#define KERNELS(suffix)                                                                               \
  {&suffix, dalign_ddtw_workspace_##suffix, dalign_ddtw_##suffix, dalign_ddtw_hvp_workspace_##suffix, \
   dalign_ddtw_hvp_##suffix}
static const kernels both[2] = {KERNELS(f32), KERNELS(f64)};

/* ---------------------------------------------------------------- problems */

typedef struct {
  int count;
  int64_t x[6], y[6];
} step_set;

/* Rows, columns and diagonals as waves; far steps, two equal ones, and one that fits into no lattice here. */
static const step_set step_sets[] = {{3, {1, 0, 1}, {0, 1, 1}},
                                     {2, {1, 1}, {0, 1}},
                                     {3, {1, 1, 1}, {0, 1, 2}},
                                     {2, {0, 1}, {1, 1}},
                                     {3, {1, 1, 2}, {1, 2, 1}},
                                     {3, {0, 1, 3}, {1, 2, 1}},
                                     {3, {0, 3, 1}, {2, 0, 1}},
                                     {5, {1, 0, 1, 2, 1}, {0, 1, 1, 1, 3}},
                                     {3, {1, 1, 1}, {0, 1, 1}},
                                     {1, {1}, {0}},
                                     {4, {1, 0, 9, 900}, {0, 1, 17, 900}},
                                     {1, {700}, {1}}};
enum { STEP_SETS = sizeof step_sets / sizeof *step_sets };

/* What weights are told apart by: batch, rows, columns. */
static const int weight_layouts[][3] = {{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 1}};
enum { WEIGHT_LAYOUTS = sizeof weight_layouts / sizeof *weight_layouts, NO_WEIGHTS = -1 };

typedef enum { CORNER, ALONG_X, ALONG_Y, A_FEW, SHARED_COSTS, OWN_COSTS, END_KINDS } end_kind;

typedef struct {
  int64_t batch, n, m;
  const step_set *steps;
  dalign_smoothing smoothing;
  double gamma, scale, shift; /* costs are shift + scale * [0, 1] */
  double blocked;             /* the share of blocked cells */
  int weights;                /* a layout, or NO_WEIGHTS */
  int unit_weights;           /* all weights are 1 or blocked */
  double blocked_weights;
  end_kind start, end;
  int varied, factors; /* lengths; a grad_value */
  uint64_t seed;
} setting;

typedef struct {
  void *values, *grad; /* NULL: none */
  int64_t count;
} array;

typedef struct {
  const kernels *k;
  setting s;
  dalign_ddtw_args args;
  int64_t *x_lengths, *y_lengths;
  array cost, weights, start, end;
  void *value, *factor;
  double *mean_cost;
} problem;

static int64_t rows_of(const problem *q, int64_t b) { return q->x_lengths ? q->x_lengths[b] : q->s.n; }
static int64_t columns_of(const problem *q, int64_t b) { return q->y_lengths ? q->y_lengths[b] : q->s.m; }

static array make_array(const precision *p, int64_t count) {
  return (array){result_array(p, count), result_array(p, count), count};
}

static void make_costs(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  q->cost = make_array(q->k->p, s->batch * s->n * s->m);
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t i = 0; i < rows_of(q, b); i++)
      for (int64_t j = 0; j < columns_of(q, b); j++)
        set(q->k->p, q->cost.values, (b * s->n + i) * s->m + j,
            uniform(seed) < s->blocked ? INFINITY : s->shift + s->scale * uniform(seed));
}

static double random_weight(const setting *s, uint64_t *seed) {
  if (uniform(seed) < s->blocked_weights) return INFINITY;
  if (s->unit_weights) return 1;
  const double draw = uniform(seed);
  return draw < .1 ? 0 : draw < .4 ? 1 : 2 * uniform(seed);
}

static void make_weights(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  if (s->weights == NO_WEIGHTS) return;
  const int *layout = weight_layouts[s->weights];
  const int64_t sizes[4] = {s->batch, s->n, s->m, s->steps->count};
  int64_t stride = 1;
  for (int axis = 3; axis >= 0; axis--) {
    const int told_apart = axis == 3 || layout[axis];
    q->args.weight_strides[axis] = told_apart ? stride : 0;
    if (told_apart) stride *= sizes[axis];
  }
  q->weights = make_array(q->k->p, stride);
  for (int64_t c = 0; c < stride; c++) set(q->k->p, q->weights.values, c, random_weight(s, seed));
  q->args.weights = q->weights.values;
}

static dalign_ends make_ends(problem *q, end_kind kind, array *costs, uint64_t *seed) {
  const setting *s = &q->s;
  static const int64_t along[][2] = {{1, 1}, {INT64_MAX, 1}, {1, INT64_MAX}, {2, 3}};
  if (kind < SHARED_COSTS) return (dalign_ends){along[kind][0], along[kind][1], NULL, 0};
  const int64_t stride = kind == OWN_COSTS ? s->n * s->m : 0;
  *costs = make_array(q->k->p, (kind == OWN_COSTS ? s->batch : 1) * s->n * s->m);
  for (int64_t c = 0; c < costs->count; c++)
    set(q->k->p, costs->values, c, uniform(seed) < .6 ? INFINITY : s->scale * uniform(seed));
  return (dalign_ends){1, 1, costs->values, stride};
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  const size_t lengths = (size_t)s.batch * sizeof(int64_t);
  problem q = {.k = k, .s = s};
  if (s.varied) q.x_lengths = malloc(lengths), q.y_lengths = malloc(lengths);
  for (int64_t b = 0; s.varied && b < s.batch; b++)
    q.x_lengths[b] = random_integer(&seed, 1, s.n), q.y_lengths[b] = random_integer(&seed, 1, s.m);
  q.value = result_array(k->p, s.batch);
  q.mean_cost = filled((size_t)s.batch * sizeof(double), 0xFF);
  q.args = (dalign_ddtw_args){.batch = s.batch,
                              .n = s.n,
                              .m = s.m,
                              .x_lengths = q.x_lengths,
                              .y_lengths = q.y_lengths,
                              .steps = s.steps->count,
                              .step_x = s.steps->x,
                              .step_y = s.steps->y,
                              .smoothing = s.smoothing,
                              .gamma = s.gamma,
                              .value = q.value};
  make_costs(&q, &seed);
  make_weights(&q, &seed);
  q.args.cost = q.cost.values;
  q.args.start = make_ends(&q, s.start, &q.start, &seed);
  q.args.end = make_ends(&q, s.end, &q.end, &seed);
  if (s.factors) {
    q.args.grad_value = q.factor = result_array(k->p, s.batch);
    for (int64_t b = 0; b < s.batch; b++) set(k->p, q.factor, b, 3 * uniform(&seed) - 1);
  }
  describe_case("%s batch %lld n %lld m %lld steps %d smoothing %d gamma %g costs %g + %g blocked %g weights %d%s %g "
                "ends %d %d varied %d factors %d seed %llu",
                k->p->name, (long long)s.batch, (long long)s.n, (long long)s.m, (int)(s.steps - step_sets),
                (int)s.smoothing, s.gamma, s.shift, s.scale, s.blocked, s.weights, s.unit_weights ? " unit" : "",
                s.blocked_weights, (int)s.start, (int)s.end, s.varied, s.factors, (unsigned long long)s.seed);
  return q;
}

static void free_problem(problem *q) {
  const array arrays[] = {q->cost, q->weights, q->start, q->end};
  for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) free(arrays[k].values), free(arrays[k].grad);
  void *memory[] = {q->x_lengths, q->y_lengths, q->value, q->factor, q->mean_cost};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

/* Sums that kernels add to begin at 0. */
static void clear(const problem *q) {
  const array *sums[] = {&q->weights, &q->start, &q->end};
  for (int k = 0; k < 3; k++)
    for (int64_t c = 0; c < sums[k]->count; c++) set(q->k->p, sums[k]->grad, c, 0);
}

static void want_gradients(problem *q) {
  q->args.grad_cost = q->cost.grad, q->args.grad_weights = q->weights.grad;
  q->args.grad_start = q->start.grad, q->args.grad_end = q->end.grad, q->args.mean_cost = q->mean_cost;
  clear(q);
}

static dalign_status run(const problem *q) {
  void *workspace = scratch(q->k->workspace(&q->args));
  const dalign_status status = q->k->run(&q->args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

/* ---------------------------------------------------------------- one item for the reference */

typedef struct {
  reference_lattice lattice;
  double *cost, *weights, *start, *end;
  reference_gradients g;
  double value;
} item;

static double number_of(const problem *q, const array *a, int64_t index, double otherwise) {
  return a->values ? get(q->k->p, a->values, index) : otherwise;
}

static int is_side(int64_t i, int64_t j, const dalign_ends *ends) {
  return (j == 0 && i < ends->along_x) || (i == 0 && j < ends->along_y);
}

static int64_t weight_index(const problem *q, int64_t b, int64_t i, int64_t j, int s) {
  const int64_t *stride = q->args.weight_strides;
  return b * stride[0] + i * stride[1] + j * stride[2] + s * stride[3];
}

static int64_t end_index(const problem *q, const dalign_ends *ends, int64_t b, int64_t i, int64_t j) {
  return b * ends->stride + i * q->s.m + j;
}

static void read_cell(const problem *q, const item *it, int64_t b, int64_t i, int64_t j) {
  const int64_t m = it->lattice.m, cell = i * m + j;
  const dalign_ends *start = &q->args.start, *end = &q->args.end;
  it->cost[cell] = get(q->k->p, q->cost.values, (b * q->s.n + i) * q->s.m + j);
  it->start[cell] = number_of(q, &q->start, end_index(q, start, b, i, j), is_side(i, j, start) ? 0 : INFINITY);
  it->end[cell] =
      number_of(q, &q->end, end_index(q, end, b, i, j), is_side(it->lattice.n - 1 - i, m - 1 - j, end) ? 0 : INFINITY);
  for (int s = 0; s < q->args.steps; s++)
    it->weights[cell * q->args.steps + s] = number_of(q, &q->weights, weight_index(q, b, i, j, s), 1);
}

static double *doubles(int64_t count) { return filled((size_t)count * sizeof(double), 0); }

static item make_item(const problem *q, int64_t b) {
  const int64_t n = rows_of(q, b), m = columns_of(q, b), cells = n * m, weights = cells * q->args.steps;
  item it = {.cost = doubles(cells), .weights = doubles(weights), .start = doubles(cells), .end = doubles(cells)};
  it.g = (reference_gradients){doubles(cells), doubles(weights), doubles(cells), doubles(cells), 0};
  it.lattice = (reference_lattice){
      n,       m,          q->args.steps, q->args.step_x, q->args.step_y, q->args.smoothing, q->args.gamma,
      it.cost, it.weights, it.start,      it.end};
  for (int64_t cell = 0; cell < cells; cell++) read_cell(q, &it, b, cell / m, cell % m);
  it.value = (double)reference_ddtw(&it.lattice, &it.g);
  return it;
}

static void free_item(item *it) {
  double *memory[] = {it->cost, it->weights, it->start, it->end, it->g.cost, it->g.weights, it->g.start, it->g.end};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

/* What is added up along a path: costs, and gamma for every step. */
static double size_of(const problem *q, const item *it) {
  double size = q->s.gamma * (double)(it->lattice.n + it->lattice.m);
  for (int64_t c = 0; c < it->lattice.n * it->lattice.m; c++) {
    if (it->g.cost[c] != 0) size += fabs(it->g.cost[c] * it->cost[c]);
    if (it->g.start[c] != 0) size += fabs(it->g.start[c] * it->start[c]);
    if (it->g.end[c] != 0) size += fabs(it->g.end[c] * it->end[c]);
  }
  return size;
}

/* ---------------------------------------------------------------- what all items give together */

typedef struct {
  double *expected, *moved, *magnitude; /* moved: of inputs that are rounded once more */
  int64_t count;
} sums;

static sums make_sums(int64_t count) { return (sums){doubles(count), doubles(count), doubles(count), count}; }

static void free_sums(sums *s) { free(s->expected), free(s->moved), free(s->magnitude); }

static void add(sums *s, int64_t index, double expected, double moved) {
  s->expected[index] += expected;
  s->moved[index] += moved;
  s->magnitude[index] += fabs(expected);
}

/* Off by what rounded inputs explain, and by the roundings of n + m steps there and back. */
static void check_sums(const char *what, const problem *q, const sums *s, const void *got, double own) {
  double largest = 1, moved = 0;
  for (int64_t c = 0; c < s->count; c++) {
    largest = fmax(largest, s->magnitude[c]);
    moved = fmax(moved, fabs(s->moved[c] - s->expected[c]));
  }
  for (int64_t c = 0; c < s->count; c++)
    check_near(what, c, get(q->k->p, got, c), s->expected[c], own * largest + 3 * moved);
}

/* Of what the kernel computes with: doubles, but for softmin. */
static double epsilon_of(const problem *q) { return q->s.smoothing == DALIGN_SOFTMIN ? q->k->p->epsilon : f64.epsilon; }

static item shaken(const problem *q, int64_t b) {
  item it = make_item(q, b);
  uint64_t seed = 7;
  const double eps = epsilon_of(q);
  for (int64_t c = 0; c < it.lattice.n * it.lattice.m; c++) {
    it.cost[c] *= random_bits(&seed) & 1 ? 1 + eps : 1 - eps;
    for (int s = 0; s < q->args.steps; s++)
      it.weights[c * q->args.steps + s] *= random_bits(&seed) & 1 ? 1 + eps : 1 - eps;
  }
  it.value = (double)reference_ddtw(&it.lattice, &it.g);
  return it;
}

typedef struct {
  sums cost, weights, start, end;
  double own;
} totals;

static void add_item(const problem *q, totals *t, int64_t b, const item *one, const item *moved) {
  const double factor = q->factor ? get(q->k->p, q->factor, b) : 1;
  const int64_t m = one->lattice.m;
  const int steps = q->args.steps;
  for (int64_t cell = 0; cell < one->lattice.n * m; cell++) {
    const int64_t i = cell / m, j = cell % m;
    add(&t->cost, (b * q->s.n + i) * q->s.m + j, factor * one->g.cost[cell], factor * moved->g.cost[cell]);
    for (int s = 0; s < steps && t->weights.count; s++)
      add(&t->weights, weight_index(q, b, i, j, s), factor * one->g.weights[cell * steps + s],
          factor * moved->g.weights[cell * steps + s]);
    if (t->start.count)
      add(&t->start, end_index(q, &q->args.start, b, i, j), factor * one->g.start[cell], factor * moved->g.start[cell]);
    if (t->end.count)
      add(&t->end, end_index(q, &q->args.end, b, i, j), factor * one->g.end[cell], factor * moved->g.end[cell]);
  }
}

static void check_item(const problem *q, totals *t, int64_t b) {
  item one = make_item(q, b), moved = shaken(q, b);
  const double eps = q->k->p->epsilon, size = size_of(q, &one), length = (double)(one.lattice.n + one.lattice.m);
  const double factor = q->factor ? get(q->k->p, q->factor, b) : 1;
  const double own = 4 * epsilon_of(q) * length + 2 * eps + 4 * f64.epsilon * size / q->s.gamma;
  check_near("value", b, get(q->k->p, q->value, b), one.value, (4 * eps + length * f64.epsilon) * size);
  check_near("mean cost", b, q->mean_cost[b], factor * one.g.mean_cost,
             fabs(factor) * (own * size + 3 * fabs(moved.g.mean_cost - one.g.mean_cost)));
  add_item(q, t, b, &one, &moved);
  t->own = fmax(t->own, own);
  free_item(&one);
  free_item(&moved);
}

static void check_gradients(const problem *q) {
  totals t = {make_sums(q->cost.count), make_sums(q->weights.count), make_sums(q->start.count), make_sums(q->end.count),
              0};
  for (int64_t b = 0; b < q->s.batch; b++) check_item(q, &t, b);
  check_sums("derivative in the costs", q, &t.cost, q->cost.grad, t.own);
  check_sums("derivative in the weights", q, &t.weights, q->weights.grad, t.own);
  check_sums("derivative in the starts", q, &t.start, q->start.grad, t.own);
  check_sums("derivative in the ends", q, &t.end, q->end.grad, t.own);
  free_sums(&t.cost), free_sums(&t.weights), free_sums(&t.start), free_sums(&t.end);
}

/* To the same bits, unless only the way back needed wider numbers, whose value it then is. */
static void check_value_alone(const problem *q, const void *alone) {
  const double size = 4 * q->s.scale * (double)(q->s.n + q->s.m);
  if (q->s.scale <= 1) check_same("value alone", q->k->p, alone, q->value, q->s.batch);
  for (int64_t b = 0; b < q->s.batch; b++)
    check_near("value alone", b, get(q->k->p, alone, b), get(q->k->p, q->value, b), 4 * q->k->p->epsilon * size);
}

/* Everything at once; then the value alone. */
static void check_setting(const kernels *k, setting s) {
  if (left_out()) return;
  problem q = make_problem(k, s);
  want_gradients(&q);
  check(run(&q) == DALIGN_OK, "status is not OK");
  check_gradients(&q);
  void *value = result_array(k->p, s.batch);
  q.args.grad_cost = q.args.grad_weights = q.args.grad_start = q.args.grad_end = NULL, q.args.mean_cost = NULL;
  q.args.value = value;
  check(run(&q) == DALIGN_OK, "status is not OK");
  check_value_alone(&q, value);
  free(value);
  free_problem(&q);
}

static setting plain_setting(int64_t batch, int64_t n, int64_t m) {
  return (setting){.batch = batch,
                   .n = n,
                   .m = m,
                   .steps = step_sets,
                   .gamma = .7,
                   .scale = 1,
                   .weights = NO_WEIGHTS,
                   .seed = (uint64_t)(n * 1000 + m)};
}

/* ---------------------------------------------------------------- groups */

static void test_sizes(const kernels *k) {
  static const int64_t sizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 33, 49};
  for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++)
    for (size_t b = 0; b < sizeof sizes / sizeof *sizes; b++)
      for (int steps = 0; steps < STEP_SETS; steps++) {
        setting s = plain_setting(1, sizes[a], sizes[b]);
        s.steps = step_sets + steps;
        if (steps % 2) s.start = ALONG_Y, s.end = ALONG_X;
        check_setting(k, s);
      }
}

static void test_long(const kernels *k) {
  static const int64_t sizes[][2] = {{1, 500}, {500, 1}, {4, 300}, {300, 4}, {90, 120}, {130, 70}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (int steps = 0; steps < STEP_SETS; steps++) {
      setting s = plain_setting(1, sizes[l][0], sizes[l][1]);
      s.steps = step_sets + steps;
      s.start = ALONG_X, s.end = ALONG_Y;
      s.weights = steps % 3 ? NO_WEIGHTS : 0;
      check_setting(k, s);
    }
}

static setting drawn_setting(int option, int64_t longest) {
  uint64_t seed = (uint64_t)option * 77 + 5;
  setting s =
      plain_setting(random_integer(&seed, 1, 3), random_integer(&seed, 1, longest), random_integer(&seed, 1, longest));
  s.seed = seed;
  s.steps = step_sets + random_integer(&seed, 0, STEP_SETS - 1);
  s.weights = (int)random_integer(&seed, NO_WEIGHTS, WEIGHT_LAYOUTS - 1);
  s.unit_weights = uniform(&seed) < .3;
  s.blocked_weights = uniform(&seed) < .5 ? 0 : .2;
  s.blocked = uniform(&seed) < .6 ? 0 : .1;
  s.start = (end_kind)random_integer(&seed, 0, END_KINDS - 1);
  s.end = (end_kind)random_integer(&seed, 0, END_KINDS - 1);
  s.varied = uniform(&seed) < .5, s.factors = uniform(&seed) < .5;
  s.gamma = pow(10, 2.5 * uniform(&seed) - 1.5);
  s.shift = uniform(&seed) < .3 ? -.5 : 0;
  return s;
}

static void test_options(const kernels *k) {
  for (int option = 0; option < 700; option++) check_setting(k, drawn_setting(option, 45));
}

static void test_operators(const kernels *k) {
  static const dalign_smoothing operators[] = {DALIGN_SPARSEMIN, DALIGN_SMOOTHMIN, DALIGN_HARDMIN};
  for (int option = 0; option < 240; option++) {
    setting s = drawn_setting(option, 30);
    s.smoothing = operators[option % 3];
    s.gamma = fmax(s.gamma, .3); /* smoothmin's derivatives explode where gamma is small */
    check_setting(k, s);
  }
}

/* Floats that become doubles, and doubles that become logarithms. */
static void test_extremes(const kernels *k) {
  static const double gammas[] = {1e-4, 1e-2, 1, 1e3}, scales[] = {1e-3, 100, 1e6, 1e12};
  for (int option = 0; option < 160; option++) {
    setting s = drawn_setting(option, 60);
    s.gamma = gammas[option % 4], s.scale = scales[option / 4 % 4];
    s.shift *= s.scale;
    check_setting(k, s);
  }
}

static void test_nan(const kernels *k) {
  for (int kind = 0; kind < 8; kind++) {
    setting s = plain_setting(3, 40, 50);
    s.smoothing = (dalign_smoothing)(kind / 2);
    s.start = s.end = OWN_COSTS, s.weights = WEIGHT_LAYOUTS - 1, s.varied = kind % 2;
    problem q = make_problem(k, s);
    set(k->p, q.cost.values, 40 * 50, kind % 2 ? NAN : -INFINITY);
    want_gradients(&q);
    check(run(&q) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < 3; b++) {
      check(isnan(get(k->p, q.value, b)) == (b == 1), "NaN does not stay in its item");
      for (int64_t c = 0; c < 40 * 50; c++) {
        const int inside = c / 50 < rows_of(&q, b) && c % 50 < columns_of(&q, b);
        check(isnan(get(k->p, q.cost.grad, b * 40 * 50 + c)) == (b == 1 && inside), "derivative %lld of item %lld",
              (long long)c, (long long)b);
        check(isnan(get(k->p, q.start.grad, b * 40 * 50 + c)) == (b == 1 && inside), "start");
      }
    }
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- best paths */

/* Least cost of a step from one cell of a path to the next; +inf where there is no such step. */
static double step_cost(const item *it, const int64_t *from) {
  const int64_t i = from[2], j = from[3], cell = i * it->lattice.m + j;
  double least = INFINITY;
  for (int s = 0; s < it->lattice.steps; s++) {
    const double weight = it->weights[cell * it->lattice.steps + s];
    if (it->lattice.step_x[s] == i - from[0] && it->lattice.step_y[s] == j - from[1] && weight < INFINITY)
      least = fmin(least, weight * it->cost[cell]);
  }
  return least;
}

static double cost_along(const item *it, const int64_t *path, int64_t length) {
  const int64_t m = it->lattice.m, *last = path + 2 * length - 2;
  double sum = it->start[path[0] * m + path[1]] + it->cost[path[0] * m + path[1]];
  for (int64_t k = 1; k < length; k++) sum += step_cost(it, path + 2 * k - 2);
  return sum + it->end[last[0] * m + last[1]];
}

static void check_path(const problem *q, int64_t b) {
  const int64_t room = q->s.n + q->s.m - 1, length = q->args.path_length[b], *path = q->args.path + b * room * 2;
  item it = make_item(q, b);
  check(it.value < INFINITY ? length >= 1 && length <= room : length == 0, "path of item %lld has length %lld",
        (long long)b, (long long)length);
  for (int64_t c = 2 * length; c < 2 * room; c++) check(path[c] == -1, "no -1 behind the path");
  if (length > 0)
    check_near("cost along the path of item", b, cost_along(&it, path, length), it.value,
               f64.epsilon * (double)room * size_of(q, &it));
  free_item(&it);
}

static void test_paths(const kernels *k) {
  for (int option = 0; option < 240; option++) {
    if (left_out()) continue;
    setting s = drawn_setting(option, 60);
    s.smoothing = DALIGN_HARDMIN;
    problem q = make_problem(k, s);
    const size_t numbers = (size_t)(s.batch * (s.n + s.m - 1));
    q.args.path = filled(2 * numbers * sizeof(int64_t), 0x55);
    q.args.path_length = filled((size_t)s.batch * sizeof(int64_t), 0x55);
    check(run(&q) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < s.batch; b++) check_path(&q, b);
    free(q.args.path);
    free(q.args.path_length);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- second derivatives */

typedef struct {
  array cost, weights, start, end;
} direction;

static array along(const problem *q, const array *of, uint64_t *seed) {
  array a = {.count = of->count};
  if (!of->values) return a;
  a.values = result_array(q->k->p, of->count);
  for (int64_t c = 0; c < of->count; c++) set(q->k->p, a.values, c, 2 * uniform(seed) - 1);
  return a;
}

/* The item, moved along the direction. */
static item moved_item(const problem *q, const direction *d, int64_t b, double by) {
  item it = make_item(q, b);
  const int64_t m = it.lattice.m;
  for (int64_t cell = 0; cell < it.lattice.n * m; cell++) {
    const int64_t i = cell / m, j = cell % m;
    it.cost[cell] += by * number_of(q, &d->cost, (b * q->s.n + i) * q->s.m + j, 0);
    it.start[cell] += by * number_of(q, &d->start, end_index(q, &q->args.start, b, i, j), 0);
    it.end[cell] += by * number_of(q, &d->end, end_index(q, &q->args.end, b, i, j), 0);
    for (int s = 0; s < q->args.steps; s++)
      it.weights[cell * q->args.steps + s] += by * number_of(q, &d->weights, weight_index(q, b, i, j, s), 0);
  }
  it.value = (double)reference_ddtw(&it.lattice, &it.g);
  return it;
}

static void difference(double *a, const double *b, int64_t count, double by) {
  for (int64_t c = 0; c < count; c++) a[c] = (a[c] - b[c]) / by;
}

/* Central differences of the reference's derivatives; `own` allows for their third-order term. */
static void check_second(const problem *q, const direction *d, const double *slope) {
  const double by = 1e-5;
  totals t = {make_sums(q->cost.count), make_sums(q->weights.count), make_sums(q->start.count), make_sums(q->end.count),
              1e-6 + 64 * q->k->p->epsilon};
  for (int64_t b = 0; b < q->s.batch; b++) {
    item up = moved_item(q, d, b, by), down = moved_item(q, d, b, -by);
    const int64_t cells = up.lattice.n * up.lattice.m;
    const double rise = isinf(up.value) ? 0 : (up.value - down.value) / (2 * by);
    check_near("slope", b, slope[b], rise, t.own * (1 + fabs(rise)));
    difference(up.g.cost, down.g.cost, cells, 2 * by);
    difference(up.g.start, down.g.start, cells, 2 * by);
    difference(up.g.end, down.g.end, cells, 2 * by);
    difference(up.g.weights, down.g.weights, cells * q->args.steps, 2 * by);
    add_item(q, &t, b, &up, &up);
    free_item(&up);
    free_item(&down);
  }
  check_sums("second derivative in the costs", q, &t.cost, q->cost.grad, t.own);
  check_sums("second derivative in the weights", q, &t.weights, q->weights.grad, t.own);
  check_sums("second derivative in the starts", q, &t.start, q->start.grad, t.own);
  check_sums("second derivative in the ends", q, &t.end, q->end.grad, t.own);
  free_sums(&t.cost), free_sums(&t.weights), free_sums(&t.start), free_sums(&t.end);
}

static void test_second(const kernels *k) {
  for (int option = 0; option < 160; option++) {
    if (left_out()) continue;
    setting s = drawn_setting(option, 13);
    uint64_t seed = s.seed;
    s.gamma = fmax(s.gamma, .3);
    problem q = make_problem(k, s);
    direction d = {along(&q, &q.cost, &seed), along(&q, &q.weights, &seed), along(&q, &q.start, &seed),
                   along(&q, &q.end, &seed)};
    double *slope = filled((size_t)s.batch * sizeof(double), 0xFF);
    const dalign_ddtw_direction given = {d.cost.values, d.weights.values, d.start.values, d.end.values, slope};
    want_gradients(&q);
    void *workspace = scratch(k->hvp_workspace(&q.args));
    check(k->hvp(&q.args, &given, 0, s.batch, workspace) == DALIGN_OK, "status is not OK");
    check_second(&q, &d, slope);
    void *memory[] = {workspace, slope, d.cost.values, d.weights.values, d.start.values, d.end.values};
    for (size_t c = 0; c < sizeof memory / sizeof *memory; c++) free(memory[c]);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- ranges, misuse */

static void test_ranges(const kernels *k) {
  setting s = plain_setting(5, 30, 40);
  s.varied = 1;
  problem whole = make_problem(k, s), parts = make_problem(k, s);
  want_gradients(&whole);
  want_gradients(&parts);
  check(run(&whole) == DALIGN_OK, "status is not OK");
  static const int64_t ranges[][2] = {{3, 5}, {0, 1}, {2, 2}, {1, 3}};
  for (int r = 0; r < 4; r++) {
    void *workspace = scratch(k->workspace(&parts.args));
    check(k->run(&parts.args, ranges[r][0], ranges[r][1], workspace) == DALIGN_OK, "status is not OK");
    free(workspace);
  }
  check_same("value", k->p, whole.value, parts.value, s.batch);
  check_same("derivative", k->p, whole.cost.grad, parts.cost.grad, whole.cost.count);
  free_problem(&whole);
  free_problem(&parts);
}

static void expect_bad(problem *q, const char *what) {
  void *memory = scratch(1 << 22);
  double slope[2];
  const dalign_ddtw_direction nothing = {.slope = slope};
  check(q->k->run(&q->args, 0, q->s.batch, memory) == DALIGN_BAD_ARGUMENT, "%s is taken", what);
  check(q->k->hvp(&q->args, &nothing, 0, q->s.batch, memory) == DALIGN_BAD_ARGUMENT, "hvp: %s is taken", what);
  free(memory);
}

static void test_misuse(const kernels *k) {
  static const int64_t back[3] = {1, -1, 1}, none[3] = {0, 1, 1}, lengths[2] = {4, 1}, long_lengths[2] = {1, 5};
  problem q = make_problem(k, plain_setting(2, 3, 4));
  const dalign_ddtw_args good = q.args;
  int64_t path;
  void *memory = scratch(k->hvp_workspace(&good));
  double slope[2];
  const dalign_ddtw_direction nothing = {.slope = slope};
#define BAD(field, number) q.args.field = number, expect_bad(&q, #field " " #number), q.args = good
  BAD(batch, -1);
  BAD(n, 0);
  BAD(m, -1);
  BAD(steps, 0);
  BAD(steps, DALIGN_DDTW_STEPS + 1);
  BAD(step_x, back);
  BAD(step_y, back);
  BAD(gamma, 0);
  BAD(gamma, -1);
  BAD(gamma, NAN);
  BAD(gamma, INFINITY);
  BAD(smoothing, (dalign_smoothing)4);
  BAD(path, &path);
  BAD(x_lengths, lengths);
  BAD(y_lengths, long_lengths);
  BAD(start.along_x, -1);
  BAD(start.along_y, -1);
  BAD(end.along_x, -1);
  BAD(end.along_y, -1);
  q.args.step_x = none, q.args.step_y = step_sets[0].x; /* (0, 1), (1, 0), (1, 1): fine */
  check(run(&q) == DALIGN_OK, "steps in another order are refused");
  q.args.step_y = none;
  expect_bad(&q, "a step that stands still");
  q.args = good, q.args.smoothing = DALIGN_HARDMIN, q.args.gamma = NAN;
  check(run(&q) == DALIGN_OK, "hardmin asks for a gamma");
  check(k->hvp(&q.args, &nothing, 0, 2, memory) == DALIGN_BAD_ARGUMENT, "hardmin has second derivatives");
  q.args = good, q.args.batch = 0;
  check(k->run(&q.args, 0, 0, memory) == DALIGN_OK, "an empty batch is refused");
  free(memory);
  free_problem(&q);
}

static void run_group(const char *name, void (*test)(const kernels *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(&both[k]);
  end_group();
}

int main(void) {
  run_group("sizes and steps", test_sizes);
  run_group("long lattices", test_long);
  run_group("weights, ends, lengths, blocked cells", test_options);
  run_group("sparsemin, smoothmin, hardmin", test_operators);
  run_group("large and small numbers", test_extremes);
  run_group("NaN and -inf stay in their item", test_nan);
  run_group("best paths", test_paths);
  run_group("second derivatives", test_second);
  run_group("ranges of items", test_ranges);
  run_group("misuse", test_misuse);
  return report();
}
