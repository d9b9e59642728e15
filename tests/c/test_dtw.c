/* Hard DTW of the C library: values and paths against a plain recursion in double, memory of exactly the size asked for,
 * threads, ranges, misuse. */
#include "check.h"

#include <pthread.h>

/* ---------------------------------------------------------------- both precisions */

typedef struct {
  const precision *p;
  size_t (*shared)(const dalign_dtw_args *);
  size_t (*worker)(const dalign_dtw_args *);
  dalign_status (*run)(const dalign_dtw_args *, int64_t, int64_t, void *);
  dalign_status (*open)(const dalign_dtw_args *, int64_t, void *);
  void (*work)(void *, void *);
  void (*close)(void *);
} kernels;

#define KERNELS(suffix)        \
  {&suffix,                    \
   dalign_dtw_shared_##suffix, \
   dalign_dtw_worker_##suffix, \
   dalign_dtw_##suffix,        \
   dalign_dtw_open_##suffix,   \
   dalign_dtw_work_##suffix,   \
   dalign_dtw_close_##suffix}
static const kernels both[2] = {KERNELS(f32), KERNELS(f64)};

/* ---------------------------------------------------------------- problems */

typedef struct {
  int count;
  int64_t x[6], y[6];
  double weights[6];
} step_set;

static const step_set step_sets[] = {{3, {1, 0, 1}, {0, 1, 1}, {1, 1, 1}},
                                     {3, {1, 1, 0}, {1, 0, 1}, {2, 1, 1}},
                                     {3, {1, 1, 1}, {0, 1, 2}, {1, 1, 1}},
                                     {3, {1, 2, 1}, {1, 1, 2}, {1, 1, 1}},
                                     {5, {1, 0, 4, 3, 1}, {0, 1, 4, 1, 4}, {1, 2, 1.5, 0, .5}},
                                     {1, {1}, {1}, {1}}};
enum { STEP_SETS = sizeof step_sets / sizeof *step_sets };

typedef struct {
  int64_t batch, n, m;
  const step_set *steps;
  double band, itakura, blocked;
  int free_start, free_end, varied;
  uint64_t seed;
} setting;

typedef struct {
  const kernels *k;
  setting s;
  dalign_dtw_args args;
  int64_t *x_lengths, *y_lengths, *path, *path_length;
  void *cost, *value;
} problem;

static int64_t rows_of(const problem *q, int64_t b) { return q->x_lengths ? q->x_lengths[b] : q->s.n; }
static int64_t columns_of(const problem *q, int64_t b) { return q->y_lengths ? q->y_lengths[b] : q->s.m; }

static double cost_at(const problem *q, int64_t b, int64_t i, int64_t j) {
  return get(q->k->p, q->cost, (b * q->s.n + i) * q->s.m + j);
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  const size_t lengths = (size_t)s.batch * sizeof(int64_t);
  problem q = {.k = k, .s = s};
  q.cost = result_array(k->p, s.batch * s.n * s.m);
  q.value = result_array(k->p, s.batch);
  q.path = filled(lengths * 2 * (size_t)(s.n + s.m - 1), 0x55);
  q.path_length = filled(lengths, 0x55);
  if (s.varied) q.x_lengths = malloc(lengths), q.y_lengths = malloc(lengths);
  for (int64_t b = 0; b < s.batch; b++) {
    if (s.varied) q.x_lengths[b] = random_integer(&seed, 1, s.n), q.y_lengths[b] = random_integer(&seed, 1, s.m);
    for (int64_t i = 0; i < rows_of(&q, b); i++)
      for (int64_t j = 0; j < columns_of(&q, b); j++)
        set(k->p, q.cost, (b * s.n + i) * s.m + j, uniform(&seed) < s.blocked ? INFINITY : uniform(&seed));
  }
  q.args = (dalign_dtw_args){.batch = s.batch,
                             .n = s.n,
                             .m = s.m,
                             .x_lengths = q.x_lengths,
                             .y_lengths = q.y_lengths,
                             .steps = s.steps->count,
                             .step_x = s.steps->x,
                             .step_y = s.steps->y,
                             .step_weights = s.steps->weights,
                             .band = s.band,
                             .itakura = s.itakura,
                             .free_start = s.free_start,
                             .free_end = s.free_end,
                             .limit = INFINITY,
                             .cost = q.cost,
                             .value = q.value,
                             .path = q.path,
                             .path_length = q.path_length};
  describe_case("%s batch %lld n %lld m %lld steps %d band %g itakura %g blocked %g free %d %d varied %d seed %llu",
                k->p->name, (long long)s.batch, (long long)s.n, (long long)s.m, (int)(s.steps - step_sets), s.band,
                s.itakura, s.blocked, s.free_start, s.free_end, s.varied, (unsigned long long)s.seed);
  return q;
}

static void free_problem(problem *q) {
  void *memory[] = {q->x_lengths, q->y_lengths, q->path, q->path_length, q->cost, q->value};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

static dalign_status run(const problem *q) {
  void *workspace = scratch(q->k->shared(&q->args) + q->k->worker(&q->args));
  const dalign_status status = q->k->run(&q->args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

/* ---------------------------------------------------------------- what to expect */

static int is_allowed(const problem *q, int64_t b, int64_t i, int64_t j) {
  const double n = (double)rows_of(q, b) - 1, m = (double)columns_of(q, b) - 1, slope = q->s.itakura;
  const double u = (double)i * m, v = (double)j * n, rest_u = (n - (double)i) * m, rest_v = (m - (double)j) * n;
  if (q->s.band >= 0 && fabs(u - v) > q->s.band * (n > m ? n : m)) return 0;
  if (slope == 0 || n == 0 || m == 0) return 1;
  return u <= slope * v && v <= slope * u && rest_u <= slope * rest_v && rest_v <= slope * rest_u;
}

static double allowed_cost(const problem *q, int64_t b, int64_t i, int64_t j) {
  return is_allowed(q, b, i, j) ? cost_at(q, b, i, j) : INFINITY;
}

/* The plain recursion; *end: the column where the path ends. */
static double expected_value(const problem *q, int64_t b) {
  const int64_t n = rows_of(q, b), m = columns_of(q, b);
  const step_set *steps = q->s.steps;
  double *sum = malloc((size_t)(n * m) * sizeof *sum), value = INFINITY;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      const double c = allowed_cost(q, b, i, j);
      double best = i == 0 && (j == 0 || q->s.free_start) ? c : INFINITY;
      for (int k = 0; k < steps->count && c < INFINITY && i + j > 0; k++)
        if (steps->x[k] <= i && steps->y[k] <= j)
          best = fmin(best, sum[(i - steps->x[k]) * m + j - steps->y[k]] + steps->weights[k] * c);
      sum[i * m + j] = best;
    }
  for (int64_t j = q->s.free_end ? 0 : m - 1; j < m; j++) value = fmin(value, sum[(n - 1) * m + j]);
  free(sum);
  return value;
}

static double step_weight(const step_set *steps, int64_t dx, int64_t dy) {
  double weight = INFINITY;
  for (int k = 0; k < steps->count; k++)
    if (steps->x[k] == dx && steps->y[k] == dy) weight = fmin(weight, steps->weights[k]);
  return weight;
}

static void check_path(const problem *q, int64_t b, double value, double tolerance) {
  const int64_t room = q->s.n + q->s.m - 1, length = q->path_length[b], *path = q->path + b * room * 2;
  check(value < INFINITY ? length >= 1 && length <= room : length == 0, "path of item %lld has length %lld",
        (long long)b, (long long)length);
  for (int64_t k = 2 * length; k < 2 * room; k++) check(path[k] == -1, "no -1 behind the path");
  if (length < 1 || length > room) return;
  double sum = allowed_cost(q, b, path[0], path[1]);
  check(path[0] == 0 && (q->s.free_start || path[1] == 0), "the path begins elsewhere");
  check(path[2 * length - 2] == rows_of(q, b) - 1 && (q->s.free_end || path[2 * length - 1] == columns_of(q, b) - 1),
        "the path ends elsewhere");
  for (int64_t k = 1; k < length; k++) {
    const double weight = step_weight(q->s.steps, path[2 * k] - path[2 * k - 2], path[2 * k + 1] - path[2 * k - 1]);
    check(weight < INFINITY, "the path takes a step that was not given");
    sum += weight * allowed_cost(q, b, path[2 * k], path[2 * k + 1]);
  }
  check_near("cost along the path of item", b, sum, value, tolerance);
}

static void check_setting(const kernels *k, setting s) {
  if (left_out()) return;
  problem q = make_problem(k, s);
  check(run(&q) == DALIGN_OK, "status is not OK");
  for (int64_t b = 0; b < s.batch; b++) {
    const double expected = expected_value(&q, b);
    const double tolerance = k->p->epsilon * (8 + 4 * (expected < INFINITY ? fabs(expected) : 0));
    check_near("value", b, get(k->p, q.value, b), expected, tolerance);
    check_path(&q, b, expected, tolerance);
  }
  void *with_path = result_array(k->p, s.batch);
  memcpy(with_path, q.value, (size_t)s.batch * k->p->size);
  q.args.path = q.args.path_length = NULL;
  check(run(&q) == DALIGN_OK, "status is not OK");
  check_same("value without path", k->p, q.value, with_path, s.batch);
  free(with_path);
  free_problem(&q);
}

static setting plain_setting(int64_t batch, int64_t n, int64_t m) {
  return (setting){.batch = batch, .n = n, .m = m, .steps = step_sets, .band = -1, .seed = (uint64_t)(n * 1000 + m)};
}

/* ---------------------------------------------------------------- groups */

static void test_sizes(const kernels *k) {
  static const int64_t sizes[] = {1, 2, 3, 7, 15, 16, 17, 33, 63, 64, 65, 130};
  for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++)
    for (size_t b = 0; b < sizeof sizes / sizeof *sizes; b++)
      for (int steps = 0; steps < STEP_SETS; steps++) {
        setting s = plain_setting(1, sizes[a], sizes[b]);
        s.steps = step_sets + steps;
        check_setting(k, s);
      }
}

static void test_long(const kernels *k) {
  static const int64_t sizes[][2] = {{1, 700}, {700, 1}, {20, 900}, {900, 20}, {300, 500}, {520, 410}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (int steps = 0; steps < STEP_SETS; steps++) {
      setting s = plain_setting(1, sizes[l][0], sizes[l][1]);
      s.steps = step_sets + steps;
      check_setting(k, s);
      s.free_start = s.free_end = 1;
      check_setting(k, s);
    }
}

static void test_options(const kernels *k) {
  static const double bands[] = {-1, .5, 1, 3.7, 20}, slopes[] = {0, 1, 1.5, 3};
  for (int option = 0; option < 160; option++) {
    uint64_t seed = (uint64_t)option;
    setting s = plain_setting(3, random_integer(&seed, 1, 150), random_integer(&seed, 1, 150));
    s.steps = step_sets + option % STEP_SETS;
    s.band = bands[option % 5];
    s.itakura = slopes[option / 5 % 4];
    s.free_start = option / 20 % 2, s.free_end = option / 40 % 2, s.varied = option / 80 % 2;
    s.blocked = option % 3 ? 0 : .1;
    check_setting(k, s);
  }
}

static void test_limit(const kernels *k) {
  problem q = make_problem(k, plain_setting(1, 200, 150));
  run(&q);
  const double value = get(k->p, q.value, 0);
  q.args.limit = value * 1.001;
  run(&q);
  check(get(k->p, q.value, 0) == value && q.path_length[0] > 0, "a path below the limit is not found");
  for (double part = .999; part > .1; part *= .6) {
    q.args.limit = value * part;
    run(&q);
    check(get(k->p, q.value, 0) == INFINITY && q.path_length[0] == 0, "a path above the limit is found");
  }
  free_problem(&q);
}

static void test_nan(const kernels *k) {
  for (int kind = 0; kind < 2; kind++) {
    problem q = make_problem(k, plain_setting(3, 90, 140));
    set(k->p, q.cost, 90 * 140 + 70 * 140 + 99, kind ? NAN : -INFINITY);
    run(&q);
    for (int64_t b = 0; b < 3; b++) check(isnan(get(k->p, q.value, b)) == (b == 1), "NaN does not stay in its item");
    check(q.path_length[1] == 0, "an item with a NaN has a path");
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- features, chosen pairs */

/* Frames give what their lattice of costs gives; items may name any sequences. */
static void test_features(const kernels *k) {
  enum { P = 3, Q = 4, N = 70, M = 90, D = 5, ITEMS = 5 };
  static const int64_t x_items[ITEMS] = {0, 2, 2, 1, 0}, y_items[ITEMS] = {3, 0, 1, 1, 2};
  static const int64_t x_lengths[P] = {70, 1, 33}, y_lengths[Q] = {90, 64, 2, 80};
  uint64_t seed = 1;
  void *x = result_array(k->p, P * N * D), *y = result_array(k->p, Q * M * D), *value = result_array(k->p, ITEMS);
  void *one = result_array(k->p, 1), *cost = result_array(k->p, N * M);
  for (int64_t c = 0; c < P * N * D; c++) set(k->p, x, c, uniform(&seed));
  for (int64_t c = 0; c < Q * M * D; c++) set(k->p, y, c, uniform(&seed));
  dalign_dtw_args a = {.batch = ITEMS,
                       .n = N,
                       .m = M,
                       .x_lengths = x_lengths,
                       .y_lengths = y_lengths,
                       .x_items = x_items,
                       .y_items = y_items,
                       .steps = 3,
                       .step_x = step_sets[0].x,
                       .step_y = step_sets[0].y,
                       .step_weights = step_sets[0].weights,
                       .band = -1,
                       .limit = INFINITY,
                       .metric = DALIGN_MANHATTAN,
                       .d = D,
                       .x = x,
                       .y = y,
                       .value = value};
  void *workspace = scratch(k->shared(&a) + k->worker(&a));
  describe_case("%s pairs", k->p->name);
  check(k->run(&a, 0, ITEMS, workspace) == DALIGN_OK, "status is not OK");
  free(workspace);
  for (int64_t b = 0; b < ITEMS; b++) {
    const dalign_cost_args c = {
        1, N, M, D, DALIGN_MANHATTAN, at(k->p, x, x_items[b] * N * D), at(k->p, y, y_items[b] * M * D)};
    dalign_dtw_args given = a;
    workspace = scratch(k->p->cost_workspace(&c));
    k->p->cost(&c, cost, 0, 1, workspace);
    free(workspace);
    given.batch = 1, given.x_items = given.y_items = NULL, given.cost = cost, given.value = one;
    given.x_lengths = x_lengths + x_items[b], given.y_lengths = y_lengths + y_items[b];
    workspace = scratch(k->shared(&given) + k->worker(&given));
    k->run(&given, 0, 1, workspace);
    check_near("value", b, get(k->p, value, b), get(k->p, one, 0), 1e-4 * k->p->epsilon / 0x1p-23 * get(k->p, one, 0));
    free(workspace);
  }
  void *memory[] = {x, y, value, one, cost};
  for (int m = 0; m < 5; m++) free(memory[m]);
}

/* ---------------------------------------------------------------- small items of features, several at once */

typedef struct {
  int64_t batch, n, m, d;
  dalign_metric metric;
  double band, limit;
  int varied; /* every fifth item is shorter than the others */
} small_setting;

typedef struct {
  const kernels *k;
  dalign_dtw_args args;
  void *x, *y, *value;
  int64_t *x_lengths, *y_lengths, *path, *path_length;
} small_items;

static small_items make_small_items(const kernels *k, small_setting s) {
  uint64_t seed = (uint64_t)(s.n * 100 + s.m);
  const size_t lengths = (size_t)s.batch * sizeof(int64_t);
  small_items q = {.k = k, .x_lengths = malloc(lengths), .y_lengths = malloc(lengths)};
  q.x = result_array(k->p, s.batch * s.n * s.d), q.y = result_array(k->p, s.batch * s.m * s.d);
  q.value = result_array(k->p, s.batch);
  q.path = filled(lengths * 2 * (size_t)(s.n + s.m - 1), 0x55), q.path_length = filled(lengths, 0x55);
  for (int64_t c = 0; c < s.batch * s.n * s.d; c++) set(k->p, q.x, c, uniform(&seed));
  for (int64_t c = 0; c < s.batch * s.m * s.d; c++) set(k->p, q.y, c, uniform(&seed));
  for (int64_t b = 0; b < s.batch; b++) {
    q.x_lengths[b] = s.varied && b % 5 == 4 ? random_integer(&seed, 1, s.n) : s.n;
    q.y_lengths[b] = s.varied && b % 5 == 4 ? random_integer(&seed, 1, s.m) : s.m;
  }
  q.args = (dalign_dtw_args){.batch = s.batch,
                             .n = s.n,
                             .m = s.m,
                             .x_lengths = q.x_lengths,
                             .y_lengths = q.y_lengths,
                             .steps = 3,
                             .step_x = step_sets[0].x,
                             .step_y = step_sets[0].y,
                             .step_weights = step_sets[0].weights,
                             .band = s.band,
                             .limit = s.limit,
                             .metric = s.metric,
                             .d = s.d,
                             .x = q.x,
                             .y = q.y,
                             .value = q.value,
                             .path = q.path,
                             .path_length = q.path_length};
  describe_case("%s small items %lld n %lld m %lld d %lld metric %d band %g limit %g varied %d", k->p->name,
                (long long)s.batch, (long long)s.n, (long long)s.m, (long long)s.d, (int)s.metric, s.band, s.limit,
                s.varied);
  return q;
}

static void free_small_items(small_items *q) {
  void *memory[] = {q->x, q->y, q->value, q->x_lengths, q->y_lengths, q->path, q->path_length};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

static void run_range(const small_items *q, int64_t begin, int64_t end) {
  void *workspace = scratch(q->k->shared(&q->args) + q->k->worker(&q->args));
  check(q->k->run(&q->args, begin, end, workspace) == DALIGN_OK, "status is not OK");
  free(workspace);
}

static void open_work_close(const small_items *q, int64_t b) {
  void *shared = scratch(q->k->shared(&q->args)), *worker = scratch(q->k->worker(&q->args));
  check(q->k->open(&q->args, b, shared) == DALIGN_OK, "status is not OK");
  q->k->work(shared, worker);
  q->k->close(shared);
  free(shared);
  free(worker);
}

/* Sum of the costs along an item's path, in double. */
static double cost_along(const small_items *q, int64_t b) {
  const dalign_dtw_args *a = &q->args;
  const int64_t *path = q->path + b * 2 * (a->n + a->m - 1);
  double sum = 0;
  for (int64_t k = 0; k < q->path_length[b]; k++) {
    double cost = 0;
    for (int64_t c = 0; c < a->d; c++) {
      const double away = get(q->k->p, q->x, (b * a->n + path[2 * k]) * a->d + c) -
                          get(q->k->p, q->y, (b * a->m + path[2 * k + 1]) * a->d + c);
      cost += a->metric == DALIGN_MANHATTAN ? fabs(away) : away * away;
    }
    sum += a->metric == DALIGN_EUCLIDEAN ? sqrt(cost) : cost;
  }
  return sum;
}

static int same_paths(const small_items *a, const small_items *b) {
  const size_t lengths = (size_t)a->args.batch * sizeof(int64_t);
  return !memcmp(a->path_length, b->path_length, lengths) &&
         !memcmp(a->path, b->path, lengths * 2 * (size_t)(a->args.n + a->args.m - 1));
}

/* Items together give what each gives alone (of two paths that are equally good but for rounding, floats may take either),
 * and other ranges and values without paths the same bits. */
static void check_small_items(const kernels *k, small_setting s) {
  if (left_out()) return;
  small_items together = make_small_items(k, s), alone = make_small_items(k, s);
  run_range(&together, 0, s.batch);
  for (int64_t b = 0; b < s.batch; b++) {
    open_work_close(&alone, b);
    const double value = get(k->p, alone.value, b),
                 tolerance = k->p->epsilon * (8 + 8 * (value < INFINITY ? value : 0));
    check_near("value", b, get(k->p, together.value, b), value, tolerance);
    check((together.path_length[b] > 0) == (value < INFINITY), "item %lld: a path without a value", (long long)b);
    if (value < INFINITY) check_near("cost along the path", b, cost_along(&together, b), value, tolerance);
  }
  if (k->p == &f64) check(same_paths(&together, &alone), "the paths differ");
  run_range(&alone, 0, s.batch / 3);
  run_range(&alone, s.batch / 3, s.batch);
  check_same("value of ranges", k->p, alone.value, together.value, s.batch);
  check(same_paths(&together, &alone), "the paths of ranges differ");
  alone.args.path = alone.args.path_length = NULL;
  run_range(&alone, 0, s.batch);
  check_same("value without path", k->p, alone.value, together.value, s.batch);
  free_small_items(&together);
  free_small_items(&alone);
}

static void test_small_items(const kernels *k) {
  static const int64_t sizes[][2] = {{1, 1}, {1, 9}, {9, 1}, {2, 3}, {5, 5}, {16, 18}, {37, 70}, {70, 37}, {130, 131}};
  static const double bands[] = {-1, .5, 1, 3.7, 20};
  static const int64_t numbers[] = {1, 1, 2, 5, 9};
  for (int option = 0; option < 120; option++) {
    const int64_t *size = sizes[option % 9];
    small_setting s = {.batch = 1 + option % 37, .n = size[0], .m = size[1], .d = numbers[option % 5]};
    s.metric = (dalign_metric)(option % 3), s.band = bands[option / 3 % 5], s.varied = option / 60 % 2;
    s.limit = option % 7 ? INFINITY : (double)(size[0] + size[1]) * .1;
    check_small_items(k, s);
  }
}

/* A frame that is not finite touches its own item alone, wherever it stands in the block. */
static void test_small_items_nan(const kernels *k) {
  for (int kind = 0; kind < 2; kind++) {
    small_setting s = {.batch = 21, .n = 20, .m = 30, .d = 1, .band = -1, .limit = INFINITY};
    small_items q = make_small_items(k, s);
    set(k->p, q.x, 5 * s.n + 7, kind ? NAN : INFINITY);
    set(k->p, q.y, 18 * s.m + 29, kind ? NAN : INFINITY);
    run_range(&q, 0, s.batch);
    for (int64_t b = 0; b < s.batch; b++) {
      const double value = get(k->p, q.value, b);
      if (b != 5 && b != 18) check(value < INFINITY && q.path_length[b] > 0, "item %lld has no path", (long long)b);
      if (b == 5 || b == 18) check(kind ? isnan(value) : value == INFINITY, "what is not finite is lost");
    }
    free_small_items(&q);
  }
}

/* ---------------------------------------------------------------- threads, misuse */

typedef struct {
  const kernels *k;
  void *shared;
  size_t worker;
} pipeline;

static void *pipeline_thread(void *pointer) {
  const pipeline *line = pointer;
  void *worker = scratch(line->worker);
  line->k->work(line->shared, worker);
  free(worker);
  return NULL;
}

static void run_threads(const problem *q, int threads) {
  for (int64_t b = 0; b < q->s.batch; b++) {
    pipeline line = {q->k, scratch(q->k->shared(&q->args)), q->k->worker(&q->args)};
    pthread_t others[4];
    check(q->k->open(&q->args, b, line.shared) == DALIGN_OK, "status is not OK");
    for (int t = 1; t < threads; t++) pthread_create(&others[t], NULL, pipeline_thread, &line);
    pipeline_thread(&line);
    for (int t = 1; t < threads; t++) pthread_join(others[t], NULL);
    q->k->close(line.shared);
    free(line.shared);
  }
}

static void test_threads(const kernels *k) {
  for (int steps = 0; steps < STEP_SETS; steps++) {
    setting s = plain_setting(2, 410, 390);
    s.steps = step_sets + steps, s.free_end = 1;
    problem q = make_problem(k, s);
    const size_t path = (size_t)(s.batch * 2 * (s.n + s.m - 1)) * sizeof(int64_t);
    run(&q);
    void *value = result_array(k->p, s.batch), *cells = malloc(path);
    memcpy(value, q.value, (size_t)s.batch * k->p->size), memcpy(cells, q.path, path);
    for (int threads = 1; threads <= 3; threads++) {
      run_threads(&q, threads);
      check_same("value", k->p, q.value, value, s.batch);
      check(!memcmp(q.path, cells, path), "the path differs with %d threads", threads);
    }
    free(value);
    free(cells);
    free_problem(&q);
  }
}

static void expect_bad(problem *q, const char *what) {
  void *memory = scratch(1 << 22);
  check(q->k->run(&q->args, 0, q->s.batch, memory) == DALIGN_BAD_ARGUMENT, "%s is taken", what);
  check(q->k->open(&q->args, 0, memory) == DALIGN_BAD_ARGUMENT, "open: %s is taken", what);
  free(memory);
}

static void test_misuse(const kernels *k) {
  static const int64_t far[3] = {1, 5, 1}, back[3] = {1, -1, 1}, none[3] = {0, 1, 1}, lengths[2] = {4, 1};
  static const double negative[3] = {1, -1, 1}, endless[3] = {1, INFINITY, 1}, bands[] = {0, .49, NAN};
  problem q = make_problem(k, plain_setting(2, 3, 4));
  const dalign_dtw_args good = q.args;
#define BAD(field, number) q.args.field = number, expect_bad(&q, #field " " #number), q.args = good
  BAD(step_x, far);
  BAD(step_y, far);
  BAD(step_x, back);
  BAD(step_weights, negative);
  BAD(step_weights, endless);
  BAD(steps, 0);
  BAD(steps, 17);
  BAD(itakura, .5);
  BAD(itakura, NAN);
  BAD(limit, NAN);
  BAD(n, 0);
  BAD(m, -1);
  BAD(value, NULL);
  BAD(path_length, NULL);
  BAD(cost, NULL);
  BAD(x_lengths, lengths);
  for (int b = 0; b < 3; b++) BAD(band, bands[b]);
  q.args.step_x = none, q.args.step_y = step_sets[0].x; /* (0, 1), (1, 0), (1, 1): fine */
  check(run(&q) == DALIGN_OK, "steps in another order are refused");
  q.args.step_y = none;
  expect_bad(&q, "a step that stands still");
  free_problem(&q);
}

static void run_group(const char *name, void (*test)(const kernels *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(&both[k]);
  end_group();
}

int main(void) {
  run_group("sizes and steps", test_sizes);
  run_group("long pairs, free ends", test_long);
  run_group("bands, parallelograms, blocked cells, lengths", test_options);
  run_group("limit", test_limit);
  run_group("NaN and -inf stay in their item", test_nan);
  run_group("features and chosen pairs", test_features);
  run_group("small items of features", test_small_items);
  run_group("small items that are not finite", test_small_items_nan);
  run_group("1, 2, 3 threads", test_threads);
  run_group("misuse", test_misuse);
  return report();
}
