/* test_cost: dalign_cost_* and dalign_cost_backward_* against the scalar reference. */
#include "check.h"
#include "reference.h"

static const char *const metric_names[6] = {"sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce"};

/* A call with its data; features are `offset` + `scale` * uniform. */
typedef struct {
  const precision *p;
  dalign_cost_args args;
  void *x, *y; /* y: numbers, or labels for nll */
  double offset, scale;
} pairs;

static void describe(const pairs *q) {
  const dalign_cost_args *a = &q->args;
  describe_case("%s %s batch %lld n %lld m %lld d %lld offset %g scale %g", q->p->name, metric_names[a->metric],
                (long long)a->batch, (long long)a->n, (long long)a->m, (long long)a->d, q->offset, q->scale);
}

/* One number of a frame, in the range that the metric is made for. */
static double draw(const pairs *q, int is_y, uint64_t *seed) {
  const double u = uniform(seed);
  if (q->args.metric == DALIGN_BCE) return is_y ? u > .5 : .01 + .98 * u;
  if (q->args.metric == DALIGN_NLL) return log(u + 1e-3);
  if (q->args.metric == DALIGN_COSINE) return q->offset + q->scale * (u - .5);
  return q->offset + q->scale * u;
}

static pairs make_pairs(const precision *p, dalign_metric metric, int64_t batch, int64_t n, int64_t m, int64_t d,
                        double offset, double scale, uint64_t seed) {
  pairs q = {p, {batch, n, m, d, metric, NULL, NULL}, NULL, NULL, offset, scale};
  const int64_t numbers_x = batch * n * d, numbers_y = batch * m * d;
  q.x = result_array(p, numbers_x);
  for (int64_t k = 0; k < numbers_x; k++) set(p, q.x, k, draw(&q, 0, &seed));
  if (metric == DALIGN_NLL) {
    int64_t *labels = malloc((size_t)(batch * m) * sizeof *labels);
    for (int64_t k = 0; k < batch * m; k++) labels[k] = random_integer(&seed, 0, d - 1);
    q.y = labels;
  } else {
    q.y = result_array(p, numbers_y);
    for (int64_t k = 0; k < numbers_y; k++) set(p, q.y, k, draw(&q, 1, &seed));
  }
  q.args.x = q.x;
  q.args.y = q.y;
  describe(&q);
  return q;
}

static void free_pairs(pairs *q) {
  free(q->x);
  free(q->y);
}

/* Frame i of an array of frames, as doubles. */
static void read_frame(const precision *p, const void *frames, int64_t i, int64_t d, double *frame) {
  for (int64_t k = 0; k < d; k++) frame[k] = get(p, frames, i * d + k);
}

/* Reads x_i and y_j of item b; gives the label for nll. */
static int64_t read_pair(const pairs *q, int64_t b, int64_t i, int64_t j, double *x, double *y) {
  const dalign_cost_args *a = &q->args;
  read_frame(q->p, q->x, b * a->n + i, a->d, x);
  if (a->metric == DALIGN_NLL) return ((const int64_t *)q->y)[b * a->m + j];
  read_frame(q->p, q->y, b * a->m + j, a->d, y);
  return 0;
}

static dalign_status run_cost(const pairs *q, void *cost, int64_t begin, int64_t end) {
  void *workspace = scratch(q->p->cost_workspace(&q->args));
  const dalign_status status = q->p->cost(&q->args, cost, begin, end, workspace);
  free(workspace);
  return status;
}

static dalign_status run_backward(const pairs *q, const void *grad_cost, void *grad_x, void *grad_y) {
  void *workspace = scratch(q->p->cost_workspace(&q->args));
  const dalign_status status = q->p->cost_backward(&q->args, grad_cost, grad_x, grad_y, 0, q->args.batch, workspace);
  free(workspace);
  return status;
}

/* Rounding that a careful evaluation in working precision may show: d / 2 + a few roundings of a sum without
 * cancellation. For bce 1 - x is rounded too, which a label of 0 feels by 1 / (1 - x) <= 2 half units. */
static double cost_tolerance(const pairs *q, double cost) {
  const double roundings = (double)q->args.d / 2 + 6;
  switch (q->args.metric) {
    case DALIGN_NLL: return 0;
    case DALIGN_COSINE: return roundings * q->p->epsilon;
    case DALIGN_BCE: return q->p->epsilon * (roundings * cost + (double)q->args.d);
    default: return roundings * q->p->epsilon * cost;
  }
}

static void check_cost(const pairs *q) {
  const dalign_cost_args *a = &q->args;
  double *x = malloc((size_t)a->d * sizeof *x), *y = malloc((size_t)a->d * sizeof *y);
  void *cost = result_array(q->p, a->batch * a->n * a->m);
  check(run_cost(q, cost, 0, a->batch) == DALIGN_OK, "status is not OK");
  for (int64_t b = 0; b < a->batch; b++)
    for (int64_t i = 0; i < a->n; i++)
      for (int64_t j = 0; j < a->m; j++) {
        const int64_t cell = (b * a->n + i) * a->m + j;
        const int64_t label = read_pair(q, b, i, j, x, y);
        const double expected = (double)reference_cost(a->metric, a->d, x, y, label);
        check_near("cost", cell, get(q->p, cost, cell), expected, cost_tolerance(q, expected));
      }
  free(cost);
  free(x);
  free(y);
}

/* Expected adjoint and, for the tolerance, the same sums of magnitudes. */
typedef struct {
  double *grad_x, *grad_y, *size_x, *size_y;
} adjoint;

static adjoint make_adjoint(const dalign_cost_args *a) {
  const size_t frames_x = (size_t)(a->batch * a->n * a->d), frames_y = (size_t)(a->batch * a->m * a->d);
  return (adjoint){calloc(frames_x, sizeof(double)), calloc(frames_y, sizeof(double)), calloc(frames_x, sizeof(double)),
                   calloc(frames_y, sizeof(double))};
}

static void free_adjoint(adjoint *e) {
  free(e->grad_x);
  free(e->grad_y);
  free(e->size_x);
  free(e->size_y);
}

/* Size of the terms that number k of a frame's gradient is made of, where they may cancel: cosine subtracts two of
 * length 1 / |frame|, bce for y two logarithms. */
static double term_size(dalign_metric metric, int64_t d, const double *frame, const double *x, int64_t k,
                        double gradient) {
  if (metric == DALIGN_BCE && frame != x) return fabs(log(x[k])) + fabs(log(1 - x[k]));
  if (metric != DALIGN_COSINE) return fabs(gradient);
  double square = 0;
  for (int64_t l = 0; l < d; l++) square += frame[l] * frame[l];
  return square == 0 ? 0 : 2 / sqrt(square);
}

static adjoint expected_adjoint(const pairs *q, const void *grad_cost) {
  const dalign_cost_args *a = &q->args;
  adjoint e = make_adjoint(a);
  const size_t frame = (size_t)a->d * sizeof(double);
  double *x = malloc(frame), *y = malloc(frame), *gx = malloc(frame), *gy = malloc(frame);
  for (int64_t b = 0; b < a->batch; b++)
    for (int64_t i = 0; i < a->n; i++)
      for (int64_t j = 0; j < a->m; j++) {
        const double g = get(q->p, grad_cost, (b * a->n + i) * a->m + j);
        if (g == 0) continue;
        const int64_t row = (b * a->n + i) * a->d, column = (b * a->m + j) * a->d;
        const int64_t label = read_pair(q, b, i, j, x, y);
        memset(gy, 0, frame);
        reference_cost_gradient(a->metric, a->d, x, y, label, gx, gy);
        for (int64_t k = 0; k < a->d; k++) {
          e.grad_x[row + k] += g * gx[k];
          e.size_x[row + k] += fabs(g) * term_size(a->metric, a->d, x, x, k, gx[k]);
          if (a->metric == DALIGN_NLL) continue;
          e.grad_y[column + k] += g * gy[k];
          e.size_y[column + k] += fabs(g) * term_size(a->metric, a->d, y, x, k, gy[k]);
        }
      }
  free(x);
  free(y);
  free(gx);
  free(gy);
  return e;
}

static void check_adjoint(const pairs *q, const void *grad_cost) {
  const dalign_cost_args *a = &q->args;
  const int64_t numbers_x = a->batch * a->n * a->d, numbers_y = a->batch * a->m * a->d;
  const int has_y = a->metric != DALIGN_NLL;
  adjoint e = expected_adjoint(q, grad_cost);
  void *grad_x = result_array(q->p, numbers_x), *grad_y = has_y ? result_array(q->p, numbers_y) : NULL;
  const double share = q->p->epsilon * ((double)(a->n > a->m ? a->n : a->m) / 2 + (double)a->d / 2 + 8);
  check(run_backward(q, grad_cost, grad_x, grad_y) == DALIGN_OK, "status is not OK");
  for (int64_t k = 0; k < numbers_x; k++)
    check_near("grad_x", k, get(q->p, grad_x, k), e.grad_x[k], share * e.size_x[k]);
  for (int64_t k = 0; has_y && k < numbers_y; k++)
    check_near("grad_y", k, get(q->p, grad_y, k), e.grad_y[k], share * e.size_y[k]);
  if (has_y) { /* either result alone has the same bits */
    void *alone = result_array(q->p, numbers_x > numbers_y ? numbers_x : numbers_y);
    run_backward(q, grad_cost, alone, NULL);
    check_same("grad_x without grad_y", q->p, alone, grad_x, numbers_x);
    run_backward(q, grad_cost, NULL, alone);
    check_same("grad_y without grad_x", q->p, alone, grad_y, numbers_y);
    free(alone);
  }
  free(grad_x);
  free(grad_y);
  free_adjoint(&e);
}

/* A gradient of mixed sign, a tenth of it zero as outside a band. */
static void *draw_grad_cost(const pairs *q, uint64_t seed) {
  const int64_t cells = q->args.batch * q->args.n * q->args.m;
  void *grad = result_array(q->p, cells);
  for (int64_t k = 0; k < cells; k++) set(q->p, grad, k, uniform(&seed) < .1 ? 0 : uniform(&seed) - .3);
  return grad;
}

static void check_pairs(pairs q) {
  if (left_out()) {
    free_pairs(&q);
    return;
  }
  void *grad_cost = draw_grad_cost(&q, 77);
  describe(&q);
  check_cost(&q);
  check_adjoint(&q, grad_cost);
  free(grad_cost);
  free_pairs(&q);
}

/* ---------------------------------------------------------------- groups */

static void test_sizes(const precision *p) {
  static const int64_t sizes[][2] = {{1, 1},   {1, 9},   {9, 1},   {2, 3},   {7, 8},   {15, 17}, {16, 16},
                                     {17, 15}, {31, 33}, {63, 65}, {65, 64}, {5, 127}, {129, 4}};
  static const int64_t depths[] = {1, 2, 3, 7, 12, 13, 16, 17, 31, 33, 64, 128};
  for (int metric = 0; metric < 6; metric++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (size_t k = 0; k < sizeof depths / sizeof *depths; k++)
        check_pairs(make_pairs(p, (dalign_metric)metric, 1 + (int64_t)(s % 2), sizes[s][0], sizes[s][1], depths[k], 0,
                               1, s * 100 + k));
}

/* The three metrics of differences have to look at differences: x^2 - 2 x y + y^2 loses all digits here. */
static void test_offset(const precision *p) {
  for (int metric = 0; metric < 3; metric++)
    for (double offset = 1; offset < 1e5; offset *= 100) {
      check_pairs(make_pairs(p, (dalign_metric)metric, 2, 19, 33, 12, offset, 1e-2, 5));
      check_pairs(make_pairs(p, (dalign_metric)metric, 1, 40, 17, 64, -offset, 1, 6));
    }
}

/* Features far from 1, still far from overflow of their squares. */
static void test_scales(const precision *p) {
  for (int metric = 0; metric < 4; metric++)
    for (double scale = 1e-12; scale < 1e13; scale *= 1e4)
      check_pairs(make_pairs(p, (dalign_metric)metric, 1, 18, 21, 13, 0, scale, 7));
}

/* Distance 0, zero frames: gradients are 0 by convention, the cosine cost is 1. */
static void test_conventions(const precision *p) {
  for (int metric = 0; metric < 4; metric++) {
    pairs q = make_pairs(p, (dalign_metric)metric, 1, 20, 20, 5, -.5, 1, 8);
    memcpy(q.y, q.x, (size_t)(20 * 5) * p->size);
    for (int k = 0; k < 5; k++) {
      set(p, q.x, 3 * 5 + k, 0);
      set(p, q.y, 3 * 5 + k, 0);
      set(p, q.y, 11 * 5 + k, 0);
    }
    check_pairs(q);
  }
}

/* Probabilities of exactly 0 and 1: logarithms stop at -100. */
static void test_clamped_bce(const precision *p) {
  pairs q = make_pairs(p, DALIGN_BCE, 1, 4, 4, 1, 0, 1, 9);
  static const double x[4] = {0, 1, .5, .25}, y[4] = {0, 1, .5, 1};
  for (int k = 0; k < 4; k++) {
    set(p, q.x, k, x[k]);
    set(p, q.y, k, y[k]);
  }
  check_cost(&q);
  free_pairs(&q);
}

/* An infinite frame has infinite costs in its row alone, a log-probability of -inf in its cell alone. */
static void test_infinite(const precision *p) {
  for (int metric = 0; metric < 3; metric++)
    for (int sign = -1; sign <= 1; sign += 2) {
      pairs q = make_pairs(p, (dalign_metric)metric, 2, 18, 35, 7, 0, 1, 10);
      set(p, q.x, 5 * 7 + 3, sign * INFINITY);
      check_cost(&q);
      free_pairs(&q);
    }
  pairs q = make_pairs(p, DALIGN_NLL, 2, 18, 35, 7, 0, 1, 11);
  set(p, q.x, 5 * 7 + 3, -INFINITY);
  check_cost(&q);
  free_pairs(&q);
}

/* Squares that overflow give +inf, a blocked cell, and no NaN. */
static void test_overflow(const precision *p) {
  pairs q = make_pairs(p, DALIGN_SQEUCLIDEAN, 1, 17, 17, 3, 0, 1, 12);
  for (int k = 0; k < 17 * 3; k++) set(p, q.x, k, p->huge);
  void *cost = result_array(p, 17 * 17);
  check(run_cost(&q, cost, 0, 1) == DALIGN_OK, "status is not OK");
  for (int k = 0; k < 17 * 17; k++) check(get(p, cost, k) == INFINITY, "cost[%d] is %g, not +inf", k, get(p, cost, k));
  free(cost);
  free_pairs(&q);
}

/* A NaN frame makes its own row NaN; nothing else moves by a bit. */
static void test_nan(const precision *p) {
  for (int metric = 0; metric < 6; metric++) {
    pairs q = make_pairs(p, (dalign_metric)metric, 2, 18, 35, 7, 0, 1, 13);
    const int64_t cells = 2 * 18 * 35, row = 18 + 5;
    void *before = result_array(p, cells), *after = result_array(p, cells);
    run_cost(&q, before, 0, 2);
    for (int k = 0; k < 7; k++) set(p, q.x, row * 7 + k, NAN);
    run_cost(&q, after, 0, 2);
    for (int64_t j = 0; j < 35; j++) {
      check(isnan(get(p, after, row * 35 + j)), "cost of a NaN frame is %g", get(p, after, row * 35 + j));
      set(p, after, row * 35 + j, get(p, before, row * 35 + j));
    }
    check_same("cost of the other rows", p, after, before, cells);
    free(before);
    free(after);
    free_pairs(&q);
  }
}

/* [begin, end) leaves the other items alone and gives the bits of the whole. */
static void test_range(const precision *p) {
  for (int metric = 0; metric < 6; metric++) {
    pairs q = make_pairs(p, (dalign_metric)metric, 5, 13, 19, 6, 0, 1, 16);
    const int64_t item = 13 * 19;
    void *whole = result_array(p, 5 * item), *part = result_array(p, 5 * item), *untouched = result_array(p, 5 * item);
    run_cost(&q, whole, 0, 5);
    run_cost(&q, part, 2, 4);
    check_same("items before the range", p, part, untouched, 2 * item);
    check_same("items of the range", p, at(p, part, 2 * item), at(p, whole, 2 * item), 2 * item);
    check_same("items after the range", p, at(p, part, 4 * item), untouched, item);
    free(whole);
    free(part);
    free(untouched);
    free_pairs(&q);
  }
}

/* Arrays that start at a number, not at a vector. */
static void test_alignment(const precision *p) {
  pairs q = make_pairs(p, DALIGN_SQEUCLIDEAN, 1, 33, 31, 9, 0, 1, 17);
  void *moved = result_array(p, 1 + 33 * 9), *cost = result_array(p, 33 * 31), *shifted = result_array(p, 1 + 33 * 31);
  run_cost(&q, cost, 0, 1);
  memcpy(at(p, moved, 1), q.x, (size_t)(33 * 9) * p->size);
  q.args.x = at(p, moved, 1);
  run_cost(&q, at(p, shifted, 1), 0, 1);
  check_same("cost at an odd address", p, at(p, shifted, 1), cost, 33 * 31);
  free(moved);
  free(cost);
  free(shifted);
  free_pairs(&q);
}

static void expect_bad(const pairs *q, const char *what) {
  void *cost = result_array(q->p, 2 * 3 * 4), *workspace = scratch(1 << 20);
  check(q->p->cost(&q->args, cost, 0, 2, workspace) == DALIGN_BAD_ARGUMENT, "%s: no BAD_ARGUMENT", what);
  free(cost);
  free(workspace);
}

static void test_bad_arguments(const precision *p) {
  pairs q = make_pairs(p, DALIGN_NLL, 2, 3, 4, 5, 0, 1, 18);
  int64_t *labels = q.y;
  labels[6] = 5;
  expect_bad(&q, "label d");
  labels[6] = -1;
  expect_bad(&q, "label -1");
  labels[6] = INT64_MAX;
  expect_bad(&q, "label INT64_MAX");
  labels[6] = 0;
  q.args.n = -1;
  expect_bad(&q, "n = -1");
  q.args.n = 3;
  q.args.d = -1;
  expect_bad(&q, "d = -1");
  q.args.d = 5;
  q.args.metric = (dalign_metric)17;
  expect_bad(&q, "metric 17");
  free_pairs(&q);
}

static void test_empty(const precision *p) {
  pairs q = make_pairs(p, DALIGN_SQEUCLIDEAN, 0, 3, 4, 5, 0, 1, 19);
  check(run_cost(&q, NULL, 0, 0) == DALIGN_OK, "an empty batch is not OK");
  free_pairs(&q);
}

static void run_group(const char *name, void (*test)(const precision *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(precisions[k]);
  end_group();
}

int main(void) {
  run_group("all metrics, odd sizes and depths", test_sizes);
  run_group("common offset", test_offset);
  run_group("feature scales 1e-12 .. 1e12", test_scales);
  run_group("distance 0 and zero frames", test_conventions);
  run_group("bce at probabilities 0 and 1", test_clamped_bce);
  run_group("infinite frames", test_infinite);
  run_group("overflow blocks", test_overflow);
  run_group("NaN stays in its row", test_nan);
  run_group("range of items", test_range);
  run_group("unaligned arrays", test_alignment);
  run_group("bad arguments", test_bad_arguments);
  run_group("empty batch", test_empty);
  return report();
}
