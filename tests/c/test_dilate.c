/* Path functionals of the C library against the second derivative of the general lattice, which ddtw computes cell by cell:
 * T is the derivative of the value along Omega, and T's own derivative is a Hessian product. */
#include "check.h"

typedef struct {
  const precision *p;
  size_t (*workspace)(const dalign_dilate_args *);
  dalign_status (*run)(const dalign_dilate_args *, int64_t, int64_t, void *);
} kernels;

static const kernels both[2] = {{&f32, dalign_dilate_workspace_f32, dalign_dilate_f32},
                                {&f64, dalign_dilate_workspace_f64, dalign_dilate_f64}};

static const int64_t down[] = {1, 0, 1, 2}, right[] = {0, 1, 1, 1}; /* the three steps, and one more */

typedef struct {
  int64_t batch, n, m, d;
  int steps, features, lengths, weighted;
  double gamma, scale, band, blocked;
  dalign_penalty penalty;
  int64_t along_x, along_y; /* where paths may start and end */
  uint64_t seed;
} setting;

/* The problem as the kernel sees it, and its costs and penalties in double. */
typedef struct {
  const kernels *k;
  setting s;
  dalign_dilate_args args;
  int64_t *x_lengths, *y_lengths;
  void *x, *y, *cost, *omega, *weights, *value, *functional, *by_value, *by_functional;
  void *grad_x, *grad_y, *grad_cost, *grad_omega;
  double *costs, *penalties, *step_weights;
} problem;

static int64_t rows_of(const problem *q, int64_t b) { return q->x_lengths ? q->x_lengths[b] : q->s.n; }
static int64_t columns_of(const problem *q, int64_t b) { return q->y_lengths ? q->y_lengths[b] : q->s.m; }

static void *random_array(const precision *p, int64_t count, double scale, uint64_t *seed) {
  void *numbers = result_array(p, count);
  for (int64_t k = 0; k < count; k++) set(p, numbers, k, scale * uniform(seed));
  return numbers;
}

static void make_lengths(problem *q, uint64_t *seed) {
  q->x_lengths = malloc((size_t)q->s.batch * sizeof(int64_t)),
  q->y_lengths = malloc((size_t)q->s.batch * sizeof(int64_t));
  for (int64_t b = 0; b < q->s.batch; b++) {
    q->x_lengths[b] = random_integer(seed, 1, q->s.n), q->y_lengths[b] = random_integer(seed, 1, q->s.m);
  }
}

static void make_costs(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  const precision *p = q->k->p;
  const int64_t cells = s->batch * s->n * s->m;
  q->costs = malloc((size_t)cells * sizeof(double));
  if (!s->features) {
    q->cost = random_array(p, cells, s->scale, seed);
    for (int64_t c = 0; c < cells; c++)
      if (uniform(seed) < s->blocked) set(p, q->cost, c, INFINITY);
    for (int64_t c = 0; c < cells; c++) q->costs[c] = get(p, q->cost, c);
    return;
  }
  q->x = random_array(p, s->batch * s->n * s->d, sqrt(s->scale), seed);
  q->y = random_array(p, s->batch * s->m * s->d, sqrt(s->scale), seed);
  for (int64_t c = 0; c < cells; c++) {
    const int64_t i = c / s->m, j = c / (s->n * s->m) * s->m + c % s->m;
    q->costs[c] = 0;
    for (int64_t e = 0; e < s->d; e++) {
      const double apart = get(p, q->x, i * s->d + e) - get(p, q->y, j * s->d + e);
      q->costs[c] += apart * apart;
    }
  }
}

static double penalty_of(const problem *q, int64_t b, int64_t i, int64_t j) {
  const double di = (double)i, dj = (double)j;
  switch (q->s.penalty) {
    case DALIGN_PENALTY_SQUARED: return (di - dj) * (di - dj);
    case DALIGN_PENALTY_ABSOLUTE: return fabs(di - dj);
    case DALIGN_PENALTY_RELATIVE: return pow(di / (double)rows_of(q, b) - dj / (double)columns_of(q, b), 2);
    default: return get(q->k->p, q->omega, (b * q->s.n + i) * q->s.m + j);
  }
}

/* Cells outside the band count as blocked. */
static void make_penalties(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  const int64_t cells = s->batch * s->n * s->m;
  if (s->penalty == DALIGN_PENALTY_GIVEN) q->omega = random_array(q->k->p, cells, 5, seed);
  q->penalties = malloc((size_t)cells * sizeof(double));
  for (int64_t c = 0; c < cells; c++) {
    const int64_t b = c / (s->n * s->m), i = c / s->m % s->n, j = c % s->m, n = rows_of(q, b), m = columns_of(q, b);
    q->penalties[c] = penalty_of(q, b, i, j);
    const double off = fabs((double)(i * (m - 1) - j * (n - 1))), reach = s->band * (double)((n > m ? n : m) - 1);
    if (s->band >= 0 && i < n && j < m && off > reach) q->costs[c] = INFINITY;
  }
}

static void make_weights(problem *q, uint64_t *seed) {
  q->weights = result_array(q->k->p, q->s.steps);
  q->step_weights = malloc((size_t)q->s.steps * sizeof(double));
  for (int k = 0; k < q->s.steps; k++) {
    set(q->k->p, q->weights, k, q->s.weighted ? .1 + uniform(seed) : 1);
    q->step_weights[k] = get(q->k->p, q->weights, k);
  }
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  problem q = {.k = k, .s = s};
  const precision *p = k->p;
  if (s.lengths) make_lengths(&q, &seed);
  make_costs(&q, &seed);
  make_penalties(&q, &seed);
  make_weights(&q, &seed);
  q.value = result_array(p, s.batch), q.functional = result_array(p, s.batch);
  q.by_value = random_array(p, s.batch, 1, &seed), q.by_functional = random_array(p, s.batch, 1, &seed);
  dalign_ddtw_args lattice = {.batch = s.batch, .n = s.n, .m = s.m, .x_lengths = q.x_lengths, .y_lengths = q.y_lengths};
  lattice.steps = s.steps, lattice.step_x = down, lattice.step_y = right;
  lattice.weights = q.weights, lattice.weight_strides[3] = 1;
  lattice.gamma = s.gamma;
  lattice.start = lattice.end = (dalign_ends){s.along_x, s.along_y, NULL, 0};
  lattice.cost = q.cost, lattice.value = q.value, lattice.grad_value = q.by_value;
  q.args = (dalign_dilate_args){.lattice = lattice, .band = s.band, .penalty = s.penalty, .omega = q.omega};
  q.args.omega_stride = s.n * s.m;
  q.args.metric = DALIGN_SQEUCLIDEAN, q.args.d = s.d, q.args.x = q.x, q.args.y = q.y;
  q.args.functional = q.functional, q.args.grad_functional = q.by_functional;
  return q;
}

static void ask_for_gradients(problem *q) {
  const setting *s = &q->s;
  const precision *p = q->k->p;
  if (s->features) {
    q->args.grad_x = q->grad_x = result_array(p, s->batch * s->n * s->d);
    q->args.grad_y = q->grad_y = result_array(p, s->batch * s->m * s->d);
  } else {
    q->args.lattice.grad_cost = q->grad_cost = result_array(p, s->batch * s->n * s->m);
  }
  if (s->penalty == DALIGN_PENALTY_GIVEN) q->args.grad_omega = q->grad_omega = result_array(p, s->batch * s->n * s->m);
}

static void free_problem(problem *q) {
  void *all[] = {q->x_lengths, q->y_lengths, q->x,          q->y,        q->cost,          q->omega,
                 q->weights,   q->value,     q->functional, q->by_value, q->by_functional, q->grad_x,
                 q->grad_y,    q->grad_cost, q->grad_omega, q->costs,    q->penalties,     q->step_weights};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
}

static dalign_status run(problem *q) {
  void *memory = scratch(q->k->workspace(&q->args));
  const dalign_status status = q->k->run(&q->args, 0, q->s.batch, memory);
  free(memory);
  return status;
}

/* ---------------------------------------------------------------- what it should be */

typedef struct {
  double *value, *slope, *mass, *hessian; /* value, T; H; the Hessian product of Omega */
} expected;

static expected expect(const problem *q) {
  const setting *s = &q->s;
  const size_t cells = (size_t)(s->batch * s->n * s->m) * sizeof(double), items = (size_t)s->batch * sizeof(double);
  expected e = {malloc(items), malloc(items), malloc(cells), malloc(cells)};
  dalign_ddtw_args a = q->args.lattice;
  a.cost = q->costs, a.weights = q->step_weights, a.value = e.value, a.grad_value = NULL, a.grad_cost = e.mass;
  void *memory = scratch(dalign_ddtw_workspace_f64(&a));
  check(dalign_ddtw_f64(&a, 0, s->batch, memory) == DALIGN_OK, "ddtw refuses");
  free(memory);
  const dalign_ddtw_direction along = {.cost = q->penalties, .slope = e.slope};
  a.grad_cost = e.hessian;
  memory = scratch(dalign_ddtw_hvp_workspace_f64(&a));
  check(dalign_ddtw_hvp_f64(&a, &along, 0, s->batch, memory) == DALIGN_OK, "ddtw's second derivative refuses");
  free(memory);
  return e;
}

static void free_expected(expected *e) { free(e->value), free(e->slope), free(e->mass), free(e->hessian); }

static double largest_of(const double *numbers, int64_t count) {
  double largest = 1e-30;
  for (int64_t k = 0; k < count; k++) largest = fabs(numbers[k]) > largest ? fabs(numbers[k]) : largest;
  return largest;
}

/* grad_value H + grad_functional (Hessian Omega), of which features take their adjoint. */
static void check_gradients(const problem *q, const expected *e, double tolerance) {
  const setting *s = &q->s;
  const precision *p = q->k->p;
  const int64_t cells = s->batch * s->n * s->m, x_count = s->batch * s->n * s->d, y_count = s->batch * s->m * s->d;
  double *slope = malloc((size_t)cells * sizeof(double));
  double *grad_x = calloc((size_t)x_count, sizeof(double)), *grad_y = calloc((size_t)y_count, sizeof(double));
  for (int64_t c = 0; c < cells; c++) {
    const int64_t b = c / (s->n * s->m), i = c / s->m, j = b * s->m + c % s->m;
    slope[c] = get(p, q->by_value, b) * e->mass[c] + get(p, q->by_functional, b) * e->hessian[c];
    for (int64_t k = 0; s->features && k < s->d; k++) {
      const double part = 2 * slope[c] * (get(p, q->x, i * s->d + k) - get(p, q->y, j * s->d + k));
      grad_x[i * s->d + k] += part, grad_y[j * s->d + k] -= part;
    }
  }
  const double allowed = tolerance * largest_of(slope, cells);
  for (int64_t c = 0; q->grad_cost && c < cells; c++)
    check_near("grad_cost", c, get(p, q->grad_cost, c), slope[c], allowed);
  for (int64_t c = 0; q->grad_omega && c < cells; c++)
    check_near("grad_omega", c, get(p, q->grad_omega, c), get(p, q->by_functional, c / (s->n * s->m)) * e->mass[c],
               tolerance);
  const double x_allowed = tolerance * largest_of(grad_x, x_count), y_allowed = tolerance * largest_of(grad_y, y_count);
  for (int64_t c = 0; q->grad_x && c < x_count; c++)
    check_near("grad_x", c, get(p, q->grad_x, c), grad_x[c], x_allowed);
  for (int64_t c = 0; q->grad_y && c < y_count; c++)
    check_near("grad_y", c, get(p, q->grad_y, c), grad_y[c], y_allowed);
  free(slope), free(grad_x), free(grad_y);
}

static void try(const kernels *k, setting s) {
  if (left_out()) return;
  describe_case("%s, %lld x %lld x %lld, d %lld, steps %d, features %d, gamma %g, scale %g, band %g, penalty %d",
                k->p->name, (long long)s.batch, (long long)s.n, (long long)s.m, (long long)s.d, s.steps, s.features,
                s.gamma, s.scale, s.band, (int)s.penalty);
  problem q = make_problem(k, s);
  expected e = expect(&q);
  const double eps = k->p->epsilon, cells = (double)(s.n + s.m);
  for (int pass = 0; pass < 2; pass++) {
    if (pass) ask_for_gradients(&q);
    check(run(&q) == DALIGN_OK, "the kernel refuses");
    for (int64_t b = 0; b < s.batch; b++) {
      const double size = fabs(e.value[b]) + s.gamma;
      check_near("value", b, get(k->p, q.value, b), e.value[b], 40 * eps * cells * size);
      const double slope = isinf(e.value[b]) ? 0 : e.slope[b];
      check_near("functional", b, get(k->p, q.functional, b), slope,
                 (100 + s.scale / s.gamma) * eps * cells * (fabs(slope) + 1));
    }
  }
  check_gradients(&q, &e, (400 + 8 * s.scale / s.gamma) * eps * cells);
  free_expected(&e);
  free_problem(&q);
}

/* ---------------------------------------------------------------- tests */

static const setting usual = {.batch = 2,
                              .n = 9,
                              .m = 7,
                              .d = 3,
                              .steps = 3,
                              .gamma = .5,
                              .scale = 1,
                              .band = -1,
                              .along_x = 1,
                              .along_y = 1,
                              .seed = 1};

static void test_sizes(const kernels *k) {
  static const int64_t sizes[][2] = {{1, 1}, {1, 9}, {8, 1}, {2, 2}, {16, 16}, {17, 15}, {33, 70}, {90, 20}};
  for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++)
    for (int penalty = DALIGN_PENALTY_SQUARED; penalty <= DALIGN_PENALTY_GIVEN; penalty++)
      for (int features = 0; features < 2; features++) {
        setting s = usual;
        s.n = sizes[c][0], s.m = sizes[c][1], s.features = features, s.penalty = (dalign_penalty)penalty,
        s.seed = c + 3;
        try(k, s);
      }
}

static void test_options(const kernels *k) {
  uint64_t seed = 5;
  for (int round = 0; round < 60; round++) {
    setting s = usual;
    s.n = random_integer(&seed, 1, 40), s.m = random_integer(&seed, 1, 40), s.d = random_integer(&seed, 1, 5);
    s.features = round % 2, s.lengths = round % 3 == 0, s.weighted = round % 5 < 2, s.steps = round % 7 == 6 ? 4 : 3;
    s.band = round % 4 == 1 ? .5 + 6 * uniform(&seed) : -1;
    s.along_x = round % 6 == 2 ? INT64_MAX : 1, s.along_y = round % 6 == 4 ? INT64_MAX : 1;
    s.blocked = round % 8 == 0 ? .1 : 0;
    s.gamma = pow(10, 2 * uniform(&seed) - 1), s.scale = pow(10, 2 * uniform(&seed) - 1);
    s.penalty = (dalign_penalty)(round % 4), s.seed = random_bits(&seed);
    try(k, s);
  }
}

static void test_misuse(const kernels *k) {
  problem q = make_problem(k, usual);
  const dalign_dilate_args good = q.args;
  double cell = 0;
#define BAD(field, number)                                                   \
  do {                                                                       \
    q.args = good, q.args.field = number;                                    \
    check(run(&q) == DALIGN_BAD_ARGUMENT, #field " = " #number " is taken"); \
  } while (0)
  describe_case("%s", k->p->name);
  BAD(band, .2);
  BAD(band, NAN);
  BAD(penalty, (dalign_penalty)4);
  BAD(penalty, DALIGN_PENALTY_GIVEN);
  BAD(grad_omega, &cell);
  BAD(grad_x, &cell);
  BAD(lattice.gamma, 0);
  BAD(lattice.smoothing, DALIGN_HARDMIN);
  BAD(lattice.grad_weights, &cell);
  BAD(lattice.steps, 0);
  free_problem(&q);
}

static void run_group(const char *name, void (*test)(const kernels *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(&both[k]);
  end_group();
}

int main(void) {
  run_group("sizes and penalties", test_sizes);
  run_group("weights, bands, ends, lengths, blocked cells", test_options);
  run_group("misuse", test_misuse);
  return report();
}
