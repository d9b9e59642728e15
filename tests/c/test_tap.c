/* The TAP head of the C library against plain loops in double: its results directly, its gradients by finite differences of
 * those loops (double kernels) and against the double kernels (float kernels). */
#include "check.h"

typedef struct {
  const precision *p;
  size_t (*prepared)(const dalign_tap_args *);
  dalign_status (*prepare)(const dalign_tap_args *);
  size_t (*state)(const dalign_tap_args *, size_t, int64_t *);
  size_t (*workspace)(const dalign_tap_args *);
  dalign_status (*run)(const dalign_tap_args *, int64_t, int64_t, void *);
  int64_t (*groups)(const dalign_tap_args *);
  int64_t (*parameters)(const dalign_tap_args *);
  size_t (*backward_workspace)(const dalign_tap_args *);
  dalign_status (*backward)(const dalign_tap_args *, int64_t, int64_t, void *);
  dalign_status (*reduce)(const dalign_tap_args *);
} kernels;

#define KERNELS_OF(type)                 \
  {&type,                                \
   dalign_tap_prepared_##type,           \
   dalign_tap_prepare_##type,            \
   dalign_tap_state_##type,              \
   dalign_tap_workspace_##type,          \
   dalign_tap_##type,                    \
   dalign_tap_groups_##type,             \
   dalign_tap_parameters_##type,         \
   dalign_tap_backward_workspace_##type, \
   dalign_tap_backward_##type,           \
   dalign_tap_reduce_##type}
static const kernels both[2] = {KERNELS_OF(f32), KERNELS_OF(f64)};

enum { LAYERS = 4, ARRAYS = 4 + 2 * LAYERS };

/* Layers: kernel sizes, 0 behind the last; channels of all but the last. */
typedef struct {
  int64_t pairs, n, m, d, energy_d, channels;
  int64_t kernel[LAYERS];
  int lengths, shared, last_relu, precise, alignments, no_value;
  double energy_scale, position_scale, scale;
  double kept; /* share of the state that fits in */
  uint64_t seed;
} setting;

/* Numbers in double, rounded to the kernel's type; the kernel's own copies of them. */
typedef struct {
  const kernels *k;
  setting s;
  dalign_tap_args args;
  dalign_tap_layer layer[LAYERS];
  int layers;
  int64_t x_count, y_count, *x_lengths, *y_lengths, *x_of, *y_of, *state_at;
  double *number[ARRAYS]; /* x, y, frames of E, then weights and biases */
  int64_t count[ARRAYS];
  void *given[ARRAYS], *grad[ARRAYS];
  void *value, *alignment, *transport, *by_value, *by_alignment, *by_transport;
  double *partials;
} problem;

static int64_t rows_of(const problem *q, int64_t pair) {
  return q->x_lengths ? q->x_lengths[q->x_of ? q->x_of[pair] : pair] : q->s.n;
}
static int64_t columns_of(const problem *q, int64_t pair) {
  return q->y_lengths ? q->y_lengths[q->y_of ? q->y_of[pair] : pair] : q->s.m;
}

/* ---------------------------------------------------------------- making one */

static void *random_array(const precision *p, int64_t count, double scale, uint64_t *seed) {
  void *numbers = result_array(p, count);
  for (int64_t k = 0; k < count; k++) set(p, numbers, k, scale * (2 * uniform(seed) - 1));
  return numbers;
}

/* Numbers that float holds, so that both precisions see one problem. */
static void make_array(problem *q, int which, int64_t count, double scale, uint64_t *seed) {
  q->count[which] = count;
  q->number[which] = malloc((size_t)count * sizeof(double));
  q->given[which] = result_array(q->k->p, count);
  for (int64_t k = 0; k < count; k++) {
    q->number[which][k] = (double)(float)(scale * (2 * uniform(seed) - 1));
    set(q->k->p, q->given[which], k, q->number[which][k]);
  }
}

static void raise_number(problem *q, int which, double by) {
  q->number[which][0] = (double)(float)(q->number[which][0] + by);
  set(q->k->p, q->given[which], 0, q->number[which][0]);
}

static int64_t *random_integers(int64_t count, int64_t low, int64_t high, uint64_t *seed) {
  int64_t *numbers = malloc((size_t)count * sizeof(int64_t));
  for (int64_t k = 0; k < count; k++) numbers[k] = random_integer(seed, low, high);
  return numbers;
}

/* As torch draws them, the last layer's three times as large: g matters beside D, and is above zero in parts. */
static void make_layers(problem *q, uint64_t *seed) {
  int64_t in = 2;
  for (q->layers = 0; q->layers < LAYERS && q->s.kernel[q->layers]; q->layers++) {
    const int last = q->layers + 1 == LAYERS || !q->s.kernel[q->layers + 1];
    const int64_t kernel = q->s.kernel[q->layers], out = last ? 1 : q->s.channels, weight = 4 + 2 * q->layers;
    const double bound = 1 / sqrt((double)(in * kernel * kernel));
    make_array(q, (int)weight, out * in * kernel * kernel, last ? 3 * bound : bound, seed);
    make_array(q, (int)weight + 1, out, bound, seed);
    if (last) raise_number(q, (int)weight + 1, .3);
    q->layer[q->layers] = (dalign_tap_layer){.kernel = kernel, .channels = out};
    q->layer[q->layers].weight = q->given[weight], q->layer[q->layers].bias = q->given[weight + 1];
    in = out;
  }
}

static void make_upstream(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  const precision *p = q->k->p;
  const int64_t cells = s->pairs * s->n * s->m;
  q->by_value = random_array(p, s->pairs, 1, seed);
  q->by_alignment = random_array(p, cells, 1, seed), q->by_transport = random_array(p, cells, 3, seed);
  for (int64_t k = 0; k < s->pairs; k++) set(p, q->by_value, k, (double)(float)get(p, q->by_value, k));
  for (int64_t k = 0; k < cells; k++) {
    set(p, q->by_alignment, k, (double)(float)get(p, q->by_alignment, k));
    set(p, q->by_transport, k, (double)(float)get(p, q->by_transport, k));
  }
  if (!s->no_value) q->args.grad_value = q->by_value;
  if (s->alignments) q->args.grad_alignment = q->by_alignment, q->args.grad_transport = q->by_transport;
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  problem q = {.k = k, .s = s, .x_count = s.pairs, .y_count = s.pairs};
  const precision *p = k->p;
  if (s.shared) {
    q.x_count = (s.pairs + 1) / 2, q.y_count = 3;
    q.x_of = random_integers(s.pairs, 0, q.x_count - 1, &seed), q.y_of = random_integers(s.pairs, 0, 2, &seed);
  }
  if (s.lengths) {
    q.x_lengths = random_integers(q.x_count, 1, s.n, &seed), q.y_lengths = random_integers(q.y_count, 1, s.m, &seed);
  }
  make_array(&q, 0, q.x_count * s.n * s.d, s.scale, &seed), make_array(&q, 1, q.y_count * s.m * s.d, s.scale, &seed);
  if (s.energy_d) {
    make_array(&q, 2, q.x_count * s.n * s.energy_d, s.scale, &seed);
    make_array(&q, 3, q.y_count * s.m * s.energy_d, s.scale, &seed);
  }
  make_layers(&q, &seed);
  q.args =
      (dalign_tap_args){.pairs = s.pairs, .x_count = q.x_count, .y_count = q.y_count, .n = s.n, .m = s.m, .d = s.d};
  q.args.x = q.given[0], q.args.y = q.given[1], q.args.x_lengths = q.x_lengths, q.args.y_lengths = q.y_lengths;
  q.args.x_of = q.x_of, q.args.y_of = q.y_of, q.args.energy_d = s.energy_d;
  q.args.energy_x = q.given[2], q.args.energy_y = q.given[3];
  q.args.energy_scale = s.energy_scale, q.args.position_scale = s.position_scale;
  q.args.layers = q.layers, q.args.last_relu = s.last_relu, q.args.precise = s.precise;
  make_upstream(&q, &seed);
  q.value = result_array(p, s.pairs);
  q.alignment = result_array(p, s.pairs * s.n * s.m), q.transport = result_array(p, s.pairs * s.n * s.m);
  q.args.value = q.value, q.args.alignment = q.alignment, q.args.transport = q.transport;
  return q;
}

static int64_t grad_count(const problem *q, int which) {
  const setting *s = &q->s;
  const int64_t of_frames[4] = {s->n * s->d, s->m * s->d, s->n * s->energy_d, s->m * s->energy_d};
  return which < 4 ? s->pairs * of_frames[which] : q->count[which];
}

static void ask_for_gradients(problem *q) {
  for (int k = 0; k < ARRAYS; k++) q->grad[k] = q->number[k] ? result_array(q->k->p, grad_count(q, k)) : NULL;
  q->args.grad_x = q->grad[0], q->args.grad_y = q->grad[1];
  q->args.grad_energy_x = q->grad[2], q->args.grad_energy_y = q->grad[3];
  for (int l = 0; l < q->layers; l++)
    q->layer[l].grad_weight = q->grad[4 + 2 * l], q->layer[l].grad_bias = q->grad[5 + 2 * l];
}

static void free_problem(problem *q) {
  void *all[] = {q->x_lengths,    q->y_lengths,    q->x_of,       q->y_of,         q->state_at,
                 q->value,        q->alignment,    q->transport,  q->by_value,     q->partials,
                 q->by_alignment, q->by_transport, q->args.state, q->args.prepared};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
  for (int k = 0; k < ARRAYS; k++) free(q->number[k]), free(q->given[k]), free(q->grad[k]);
}

/* ---------------------------------------------------------------- running it */

static void prepare(problem *q) {
  q->args.layer = q->layer;
  free(q->args.prepared), q->args.prepared = scratch(q->k->prepared(&q->args));
  check(q->k->prepare(&q->args) == DALIGN_OK, "preparation refuses");
  free(q->state_at), free(q->args.state);
  q->args.state = NULL, q->args.state_at = q->state_at = malloc((size_t)q->s.pairs * sizeof(int64_t) + 1);
  const size_t whole = q->k->state(&q->args, SIZE_MAX, q->state_at), budget = (size_t)(q->s.kept * (double)whole);
  if (budget) q->args.state = scratch(q->k->state(&q->args, budget, q->state_at));
}

/* Ranges of `step` pairs, and of `step` groups, each in memory of its own. */
static void run(problem *q, int64_t step, int back) {
  const int64_t count = back ? q->k->groups(&q->args) : q->s.pairs;
  if (back)
    free(q->partials), q->partials = filled((size_t)(count * q->k->parameters(&q->args)) * sizeof(double), 0xFF);
  q->args.partials = q->partials;
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t end = begin + step < count ? begin + step : count;
    void *memory = scratch(back ? q->k->backward_workspace(&q->args) : q->k->workspace(&q->args));
    check((back ? q->k->backward : q->k->run)(&q->args, begin, end, memory) == DALIGN_OK, "the kernel refuses");
    free(memory);
  }
  if (back) check(q->k->reduce(&q->args) == DALIGN_OK, "the last sum refuses");
}

static void run_all(problem *q) {
  ask_for_gradients(q);
  prepare(q);
  run(q, q->s.pairs, 0);
  run(q, q->s.pairs + 64, 1);
}

/* ---------------------------------------------------------------- what it should be */

static double distance_of(const problem *q, int frames, int64_t pair, int64_t i, int64_t j) {
  const int64_t d = frames ? q->s.energy_d : q->s.d;
  const double *x = q->number[2 * frames] + ((q->x_of ? q->x_of[pair] : pair) * q->s.n + i) * d;
  const double *y = q->number[2 * frames + 1] + ((q->y_of ? q->y_of[pair] : pair) * q->s.m + j) * d;
  double sum = 0;
  for (int64_t k = 0; k < d; k++) sum += (x[k] - y[k]) * (x[k] - y[k]);
  return sqrt(sum);
}

/* in (channels, n, m) to out. */
static double *convolve(const problem *q, int l, const double *in, int64_t channels, int64_t n, int64_t m) {
  const int64_t kernel = q->layer[l].kernel, half = kernel / 2, outs = q->layer[l].channels;
  const double *weight = q->number[4 + 2 * l], *bias = q->number[5 + 2 * l];
  double *out = malloc((size_t)(outs * n * m) * sizeof(double));
  for (int64_t cell = 0; cell < outs * n * m; cell++) {
    const int64_t o = cell / (n * m), i = cell / m % n, j = cell % m;
    double sum = bias[o];
    for (int64_t c = 0; c < channels; c++)
      for (int64_t ty = 0; ty < kernel; ty++)
        for (int64_t tx = 0; tx < kernel; tx++) {
          const int64_t y = i + ty - half, x = j + tx - half;
          if (y >= 0 && y < n && x >= 0 && x < m)
            sum += weight[((o * channels + c) * kernel + ty) * kernel + tx] * in[(c * n + y) * m + x];
        }
    out[cell] = sum > 0 || (l + 1 == q->layers && !q->s.last_relu) ? sum : 0;
  }
  return out;
}

typedef struct {
  double value, *alignment; /* (n, m) of the pair */
} aligned_pair;

static double *cost_of_pair(const problem *q, int64_t pair, const double *distance) {
  const setting *s = &q->s;
  const int64_t n = rows_of(q, pair), m = columns_of(q, pair);
  double *map = malloc((size_t)(2 * n * m) * sizeof(double));
  memcpy(map, distance, (size_t)(n * m) * sizeof(double));
  for (int64_t c = 0; c < n * m; c++)
    map[n * m + c] = fabs((double)(c / m + 1) / (double)n - (double)(c % m + 1) / (double)m);
  double *cost = malloc((size_t)(n * m) * sizeof(double));
  for (int64_t c = 0; c < n * m; c++) {
    const double energy = s->energy_d ? distance_of(q, 1, pair, c / m, c % m) : distance[c];
    cost[c] = s->energy_scale * energy + s->position_scale * map[n * m + c];
  }
  int64_t channels = 2;
  for (int l = 0; l < q->layers; l++) {
    double *next = convolve(q, l, map, channels, n, m);
    free(map);
    map = next, channels = q->layer[l].channels;
  }
  for (int64_t c = 0; q->layers && c < n * m; c++) cost[c] += map[c];
  free(map);
  return cost;
}

static aligned_pair align_pair(const problem *q, int64_t pair) {
  const int64_t n = rows_of(q, pair), m = columns_of(q, pair);
  double *distance = malloc((size_t)(n * m) * sizeof(double));
  for (int64_t c = 0; c < n * m; c++) distance[c] = distance_of(q, 0, pair, c / m, c % m);
  double *cost = cost_of_pair(q, pair, distance), value = 0;
  for (int64_t i = 0; i < n; i++) {
    double least = INFINITY, sum = 0;
    for (int64_t j = 0; j < m; j++) least = fmin(least, cost[i * m + j]);
    for (int64_t j = 0; j < m; j++) sum += cost[i * m + j] = exp(least - cost[i * m + j]);
    for (int64_t j = 0; j < m; j++) value += (cost[i * m + j] /= sum) * distance[i * m + j] / (double)n;
  }
  free(distance);
  return (aligned_pair){value, cost};
}

/* What the upstream gradients are the gradients of, of pairs [begin, end). */
static double objective(const problem *q, int64_t begin, int64_t end) {
  const precision *p = q->k->p;
  double sum = 0;
  for (int64_t pair = begin; pair < end; pair++) {
    const int64_t n = rows_of(q, pair), m = columns_of(q, pair);
    aligned_pair a = align_pair(q, pair);
    if (q->args.grad_value) sum += get(p, q->by_value, pair) * a.value;
    for (int64_t c = 0; q->args.grad_alignment && c < n * m; c++) {
      const int64_t at = (pair * q->s.n + c / m) * q->s.m + c % m;
      sum += (get(p, q->by_alignment, at) + get(p, q->by_transport, at) / (double)n) * a.alignment[c];
    }
    free(a.alignment);
  }
  return sum;
}

/* ---------------------------------------------------------------- comparing */

static double largest_of(const problem *q, int which) {
  double largest = 0;
  for (int64_t k = 0; k < grad_count(q, which); k++) largest = fmax(largest, fabs(get(q->k->p, q->grad[which], k)));
  return largest;
}

/* A factor on what a direct float sum errs, for points in the place of taps. */
static double looseness(const problem *q) { return q->k->p == &f32 && !q->s.precise ? 12 : 1; }

static void check_results(const problem *q) {
  const setting *s = &q->s;
  const precision *p = q->k->p;
  const double eps = p->epsilon, allowed = 20 * eps * looseness(q) * (1 + s->scale);
  for (int64_t pair = 0; pair < s->pairs; pair++) {
    const int64_t n = rows_of(q, pair), m = columns_of(q, pair);
    aligned_pair a = align_pair(q, pair);
    check_near("value", pair, get(p, q->value, pair), a.value, allowed * a.value + eps);
    for (int64_t i = 0; i < s->n; i++)
      for (int64_t j = 0; j < s->m; j++) {
        const int64_t at = (pair * s->n + i) * s->m + j;
        const double expected = i < n && j < m ? a.alignment[i * m + j] : 0;
        check_near("A", at, get(p, q->alignment, at), expected, allowed * (expected + .01));
        check_near("T", at, get(p, q->transport, at), expected / (double)n, allowed * (expected + .01) / (double)n);
      }
    free(a.alignment);
  }
}

/* One number's derivative, by differences; steps of that size and a fourth of it tell whether a relu bends between them. */
static void check_derivative(problem *q, int which, int64_t entry, int64_t begin, int64_t end, double got) {
  double found[2];
  for (int k = 0; k < 2; k++) {
    const double step = k ? 2.5e-6 : 1e-5, middle = q->number[which][entry];
    q->number[which][entry] = middle + step;
    const double above = objective(q, begin, end);
    q->number[which][entry] = middle - step;
    found[k] = (above - objective(q, begin, end)) / (2 * step);
    q->number[which][entry] = middle;
  }
  const double doubt = fabs(found[1] - found[0]);
  check_near("derivative", entry, got, found[1], 2e-7 * (1 + fabs(found[1])) + 2 * doubt);
  check(doubt < 1e-3 * (1 + fabs(found[1])), "a derivative that differences do not see");
}

/* Some entries of each array. Gradients of frames are those of one pair each. */
static void check_derivatives(problem *q, int entries) {
  uint64_t seed = q->s.seed + 1;
  for (int which = 0; which < ARRAYS; which++)
    for (int k = 0; q->number[which] && k < entries; k++) {
      const int64_t entry = random_integer(&seed, 0, grad_count(q, which) - 1), pairs = q->s.pairs;
      const double got = get(q->k->p, q->grad[which], entry);
      if (which >= 4) {
        check_derivative(q, which, entry, 0, pairs, got);
        continue;
      }
      const int64_t of_pair = grad_count(q, which) / pairs, pair = entry / of_pair;
      const int64_t *of = which % 2 ? q->y_of : q->x_of;
      check_derivative(q, which, (of ? of[pair] : pair) * of_pair + entry % of_pair, pair, pair + 1, got);
    }
}

static void check_against_double(const problem *q, const problem *wide, double tolerance) {
  static const char *const names[ARRAYS] = {
      "grad_x", "grad_y", "grad_energy_x", "grad_energy_y", "w1", "b1", "w2", "b2", "w3", "b3", "w4", "b4"};
  for (int which = 0; which < ARRAYS; which++) {
    const double allowed = tolerance * (q->number[which] ? largest_of(wide, which) : 0) + 1e-9;
    for (int64_t k = 0; q->number[which] && k < grad_count(q, which); k++)
      check_near(names[which], k, get(q->k->p, q->grad[which], k), get(wide->k->p, wide->grad[which], k), allowed);
  }
}

static void describe(const kernels *k, const setting *s) {
  describe_case("%s, %lld pairs, %lld x %lld, d %lld, E %lld, channels %lld, kernels %lld %lld %lld %lld, relu %d, "
                "precise %d, kept %g, seed %llu",
                k->p->name, (long long)s->pairs, (long long)s->n, (long long)s->m, (long long)s->d,
                (long long)s->energy_d, (long long)s->channels, (long long)s->kernel[0], (long long)s->kernel[1],
                (long long)s->kernel[2], (long long)s->kernel[3], s->last_relu, s->precise, s->kept,
                (unsigned long long)s->seed);
}

/* Double against loops and differences, float against loops and double. */
static void try(setting s, int entries) {
  if (left_out()) return;
  describe(&both[1], &s);
  problem wide = make_problem(&both[1], s);
  run_all(&wide);
  check_results(&wide);
  check_derivatives(&wide, entries);
  describe(&both[0], &s);
  problem q = make_problem(&both[0], s);
  run_all(&q);
  check_results(&q);
  check_against_double(&q, &wide, 5e-5);
  free_problem(&q);
  free_problem(&wide);
}

/* ---------------------------------------------------------------- tests */

static const setting usual = {.pairs = 2,
                              .n = 9,
                              .m = 7,
                              .d = 3,
                              .channels = 4,
                              .kernel = {5, 5, 3},
                              .last_relu = 1,
                              .alignments = 1,
                              .energy_scale = 1,
                              .scale = 1,
                              .kept = 1,
                              .seed = 1};

static void test_sizes(void) {
  static const int64_t sizes[][2] = {{1, 1}, {1, 6}, {6, 1}, {4, 4}, {5, 3}, {8, 13}, {16, 16}, {3, 40}, {33, 2}};
  for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++)
    for (int relu = 0; relu < 2; relu++) {
      setting s = usual;
      s.n = sizes[c][0], s.m = sizes[c][1], s.last_relu = relu, s.seed = 10 + c;
      try(s, 3);
    }
}

static void test_options(void) {
  static const int64_t heads[][LAYERS] = {{5, 5, 3, 0}, {7, 7, 5, 0}, {5, 5, 5, 3}, {3, 3, 0, 0}, {1, 5, 1, 0}, {0}};
  uint64_t seed = 5;
  for (int round = 0; round < 36; round++) {
    setting s = usual;
    memcpy(s.kernel, heads[round % 6], sizeof s.kernel);
    s.pairs = random_integer(&seed, 1, 5), s.n = random_integer(&seed, 1, 14), s.m = random_integer(&seed, 1, 14);
    s.d = random_integer(&seed, 1, 20), s.channels = random_integer(&seed, 1, 9);
    s.lengths = round % 3 == 0, s.shared = round % 4 == 1, s.last_relu = round % 2, s.precise = round % 5 == 0;
    s.alignments = round % 3 != 1, s.no_value = round % 7 == 3 && s.alignments, s.kept = round % 4 / 3.;
    s.scale = pow(10, 2 * uniform(&seed) - 1), s.seed = random_bits(&seed);
    if (round % 6 == 5) {
      s.energy_d = random_integer(&seed, 1, 6), s.energy_scale = .3, s.position_scale = 5 * uniform(&seed);
    }
    try(s, 2);
  }
}

/* As many channels as the papers have, more tiles than a block holds, more rows than a window. */
static void test_papers(void) {
  static const int64_t heads[][LAYERS + 1] = {{30, 5, 5, 3, 0}, {64, 5, 5, 3, 0}, {30, 7, 7, 5, 0}, {30, 5, 5, 5, 3}};
  for (int round = 0; round < 8; round++) {
    setting s = usual;
    memcpy(s.kernel, heads[round / 2] + 1, sizeof s.kernel);
    s.channels = heads[round / 2][0], s.pairs = 2, s.n = round < 4 ? 71 : 23, s.m = 30, s.lengths = round % 2, s.d = 16,
    s.kept = round % 2;
    s.last_relu = round % 2 == 0, s.seed = 40 + (uint64_t)round;
    try(s, 0);
    s.pairs = 12, s.n = 5, s.m = 8, s.precise = round / 4, s.seed += 10;
    try(s, 0);
  }
}

/* Bits do not depend on ranges, nor on what is kept. */
static void test_ranges(void) {
  for (int k = 0; k < 2; k++)
    for (int round = 0; round < 4; round++) {
      if (left_out()) continue;
      setting s = usual;
      s.pairs = round % 2 ? 90 : 40, s.n = round < 2 ? 24 : 44, s.m = 21, s.lengths = round % 2, s.channels = 6,
      s.seed = 70 + (uint64_t)round;
      describe(&both[k], &s);
      problem whole = make_problem(&both[k], s);
      s.kept = round / 3.;
      problem parts = make_problem(&both[k], s);
      ask_for_gradients(&whole), prepare(&whole), run(&whole, s.pairs, 0), run(&whole, 64, 1);
      ask_for_gradients(&parts), prepare(&parts), run(&parts, 1 + round, 0), run(&parts, 1, 1);
      check(both[k].groups(&whole.args) > 1, "one group shows nothing");
      check_same("value", both[k].p, whole.value, parts.value, s.pairs);
      check_same("A", both[k].p, whole.alignment, parts.alignment, s.pairs * s.n * s.m);
      for (int which = 0; which < ARRAYS; which++)
        if (whole.grad[which])
          check_same("gradient", both[k].p, whole.grad[which], parts.grad[which], grad_count(&whole, which));
      free_problem(&whole), free_problem(&parts);
    }
}

/* Frames that are equal, and pairs through which nothing goes back. */
static void test_zeros(void) {
  for (int k = 0; k < 2; k++) {
    setting s = usual;
    s.alignments = 0, s.pairs = 3;
    describe(&both[k], &s);
    problem q = make_problem(&both[k], s);
    for (int64_t c = 0; c < s.m * s.d; c++) set(both[k].p, q.given[0], c, get(both[k].p, q.given[1], c));
    set(both[k].p, q.by_value, 1, 0);
    run_all(&q);
    for (int which = 0; which < ARRAYS; which++)
      for (int64_t c = 0; q.grad[which] && c < grad_count(&q, which); c++)
        check(isfinite(get(both[k].p, q.grad[which], c)), "a gradient is not finite");
    for (int64_t c = 0; c < s.n * s.d; c++)
      check(get(both[k].p, q.grad[0], s.n * s.d + c) == 0, "a pair without upstream gradient has one");
    free_problem(&q);
  }
}

/* A NaN in a pair is nobody else's. */
static void test_nan(void) {
  for (int k = 0; k < 2; k++) {
    setting s = usual;
    s.pairs = 3, s.channels = 30;
    describe(&both[k], &s);
    problem q = make_problem(&both[k], s), clean = make_problem(&both[k], s);
    set(both[k].p, q.given[0], s.n * s.d + 4, NAN);
    run_all(&q), run_all(&clean);
    for (int64_t pair = 0; pair < s.pairs; pair++) {
      const double expected = pair == 1 ? NAN : get(both[k].p, clean.value, pair);
      check_near("value", pair, get(both[k].p, q.value, pair), expected, 0);
    }
    check(isnan(get(both[k].p, q.grad[0], s.n * s.d + 4)), "the gradient of a NaN is a number");
    check_same("grad_x", both[k].p, q.grad[0], clean.grad[0], s.n * s.d);
    check_same("grad_y", both[k].p, at(both[k].p, q.grad[1], 2 * s.m * s.d),
               at(both[k].p, clean.grad[1], 2 * s.m * s.d), s.m * s.d);
    free_problem(&q), free_problem(&clean);
  }
}

static void test_misuse(void) {
  for (int k = 0; k < 2; k++) {
    setting s = usual;
    s.lengths = 1;
    problem q = make_problem(&both[k], s);
    describe(&both[k], &s);
    ask_for_gradients(&q), prepare(&q);
    const dalign_tap_args good = q.args;
    dalign_tap_layer layer[LAYERS];
    int64_t numbers[2] = {0, s.n + 1};
#define BAD(what)                                                                             \
  do {                                                                                        \
    check(both[k].run(&q.args, 0, 0, NULL) == DALIGN_BAD_ARGUMENT, "taken: " what);           \
    check(both[k].backward(&q.args, 0, 0, NULL) == DALIGN_BAD_ARGUMENT, "taken back: " what); \
    q.args = good, memcpy(layer, q.layer, sizeof layer);                                      \
  } while (0)
    memcpy(layer, q.layer, sizeof layer);
    q.args.n = 0;
    BAD("no frames");
    q.args.x_lengths = numbers;
    BAD("a length of zero");
    q.args.y_of = numbers;
    BAD("a sequence that is not there");
    q.args.x_count = 1;
    BAD("fewer sequences than pairs");
    q.args.layers = 1;
    BAD("a single layer");
    q.args.layer = layer, layer[1].kernel = 4;
    BAD("an even kernel");
    q.args.layer = layer, layer[2].channels = 2;
    BAD("two outputs");
    q.args.prepared = NULL;
    BAD("weights that are not prepared");
    q.args.energy_d = 3;
    BAD("energies without frames");
    check(both[k].backward(&q.args, 0, 0, NULL) == DALIGN_BAD_ARGUMENT, "no room for sums");
    free_problem(&q);
  }
}

static void run_group(const char *name, void (*test)(void)) {
  start_group(name);
  test();
  end_group();
}

int main(void) {
  run_group("sizes", test_sizes);
  run_group("heads, lengths, shared sequences, budgets", test_options);
  run_group("the papers' heads", test_papers);
  run_group("ranges", test_ranges);
  run_group("zeros", test_zeros);
  run_group("NaN", test_nan);
  run_group("misuse", test_misuse);
  return report();
}
