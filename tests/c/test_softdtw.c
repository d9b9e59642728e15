/* test_softdtw: dalign_softdtw_* against the scalar reference.
 *
 * How far a result may be off. `share` below is what rounding alone costs in sums of a few hundred terms. Where the
 * costs are large against gamma no arithmetic helps: already rounding the costs to working precision moves the result.
 * So a result may also be off by three times the largest error that the exact recursion has on rounded costs. */
#include <pthread.h>
#include <stddef.h>

#include "check.h"
#include "reference.h"

enum { LATTICE = -1 }; /* in place of a metric: the costs are given */

static const char *const metric_names[7] = {"lattice", "sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce"};
static const int64_t odd_sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129};
enum { ODD_SIZES = sizeof odd_sizes / sizeof *odd_sizes };

typedef struct {
  const precision *p;
  int64_t batch, n, m, d;
  int metric;
  double gamma, weights[3], band;
  double scale, offset; /* numbers are offset + scale * uniform */
  double blocked;       /* share of cells that are +inf */
  int varied;           /* lengths differ; padding is NaN, labels there senseless */
  int random_gradient;  /* grad_value random in place of ones */
  uint64_t seed;
} setting;

/* ---------------------------------------------------------------- a problem: settings, data, results */

typedef struct {
  setting s;
  dalign_softdtw_args args;
  int64_t *x_lengths, *y_lengths;
  void *cost, *x, *y;
  void *value, *state, *grad_value, *grad_cost, *grad_x, *grad_y;
  double *mean_cost;
} problem;

static setting plain_setting(const precision *p, int64_t batch, int64_t n, int64_t m) {
  return (setting){.p = p,
                   .batch = batch,
                   .n = n,
                   .m = m,
                   .d = 0,
                   .metric = LATTICE,
                   .gamma = 1,
                   .weights = {1, 1, 1},
                   .band = -1,
                   .scale = 1,
                   .seed = (uint64_t)(n * 1000 + m)};
}

static void describe(const setting *s, const char *what) {
  describe_case("%s %s, %s: batch %lld n %lld m %lld d %lld gamma %g weights %g %g %g band %g scale %g offset %g "
                "blocked %g varied lengths %d seed %llu",
                s->p->name, metric_names[s->metric + 1], what, (long long)s->batch, (long long)s->n, (long long)s->m,
                (long long)s->d, s->gamma, s->weights[0], s->weights[1], s->weights[2], s->band, s->scale, s->offset,
                s->blocked, s->varied, (unsigned long long)s->seed);
}

static int64_t rows_of(const problem *q, int64_t b) { return q->x_lengths ? q->x_lengths[b] : q->s.n; }
static int64_t columns_of(const problem *q, int64_t b) { return q->y_lengths ? q->y_lengths[b] : q->s.m; }

static void draw_lengths(problem *q, uint64_t *seed) {
  const size_t bytes = (size_t)q->s.batch * sizeof(int64_t);
  if (!q->s.varied) return;
  q->x_lengths = malloc(bytes);
  q->y_lengths = malloc(bytes);
  for (int64_t b = 0; b < q->s.batch; b++) {
    q->x_lengths[b] = random_integer(seed, 1, q->s.n);
    q->y_lengths[b] = random_integer(seed, 1, q->s.m);
  }
}

static void draw_cost(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  q->cost = result_array(s->p, s->batch * s->n * s->m);
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t i = 0; i < rows_of(q, b); i++)
      for (int64_t j = 0; j < columns_of(q, b); j++) {
        const double number = s->offset + s->scale * uniform(seed);
        set(s->p, q->cost, (b * s->n + i) * s->m + j, uniform(seed) < s->blocked ? INFINITY : number);
      }
  q->args.cost = q->cost;
}

/* One number of a frame, in the range that the metric is made for. */
static double draw_feature(const setting *s, int is_y, uint64_t *seed) {
  const double u = uniform(seed);
  if (s->metric == DALIGN_BCE) return is_y ? u > .5 : .02 + .96 * u;
  if (s->metric == DALIGN_NLL) return s->scale * log(u + 1e-3);
  if (s->metric == DALIGN_COSINE) return s->offset + s->scale * (u - .5);
  return s->offset + s->scale * u;
}

static void *draw_frames(const problem *q, int is_y, uint64_t *seed) {
  const setting *s = &q->s;
  const int64_t frames = is_y ? s->m : s->n;
  void *numbers = result_array(s->p, s->batch * frames * s->d);
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t k = 0; k < (is_y ? columns_of(q, b) : rows_of(q, b)) * s->d; k++)
      set(s->p, numbers, b * frames * s->d + k, draw_feature(s, is_y, seed));
  return numbers;
}

static void *draw_labels(const problem *q, uint64_t *seed) {
  int64_t *labels = malloc((size_t)(q->s.batch * q->s.m) * sizeof *labels);
  for (int64_t b = 0; b < q->s.batch; b++)
    for (int64_t j = 0; j < q->s.m; j++)
      labels[b * q->s.m + j] = j < columns_of(q, b) ? random_integer(seed, 0, q->s.d - 1) : INT64_MIN + j;
  return labels;
}

static void draw_features(problem *q, uint64_t *seed) {
  q->x = draw_frames(q, 0, seed);
  q->y = q->s.metric == DALIGN_NLL ? draw_labels(q, seed) : draw_frames(q, 1, seed);
  q->args.metric = (dalign_metric)q->s.metric;
  q->args.d = q->s.d;
  q->args.x = q->x;
  q->args.y = q->y;
}

static void make_results(problem *q, uint64_t *seed) {
  const setting *s = &q->s;
  q->value = result_array(s->p, s->batch);
  q->mean_cost = filled((size_t)s->batch * sizeof(double), 0xFF);
  if (s->metric == LATTICE) q->grad_cost = result_array(s->p, s->batch * s->n * s->m);
  if (s->metric != LATTICE) q->grad_x = result_array(s->p, s->batch * s->n * s->d);
  if (s->metric != LATTICE && s->metric != DALIGN_NLL) q->grad_y = result_array(s->p, s->batch * s->m * s->d);
  if (s->random_gradient) {
    q->grad_value = result_array(s->p, s->batch);
    for (int64_t b = 0; b < s->batch; b++) set(s->p, q->grad_value, b, 4 * uniform(seed) - 2);
  }
  q->args.value = q->value;
  q->args.mean_cost = q->mean_cost;
  q->args.grad_cost = q->grad_cost;
  q->args.grad_x = q->grad_x;
  q->args.grad_y = q->grad_y;
  q->args.grad_value = q->grad_value;
}

/* State of exactly the size asked for, or longer. */
static void give_state(problem *q, size_t more) {
  free(q->state);
  q->args.state_stride = (int64_t)(q->s.p->state(&q->args) + more);
  q->state = scratch((size_t)(q->s.batch * q->args.state_stride));
  q->args.state = q->state;
}

static problem make_problem(setting s) {
  uint64_t seed = s.seed;
  problem q = {.s = s, .args = {.batch = s.batch, .n = s.n, .m = s.m, .gamma = s.gamma, .band = s.band}};
  memcpy(q.args.step_weights, s.weights, sizeof s.weights);
  draw_lengths(&q, &seed);
  q.args.x_lengths = q.x_lengths;
  q.args.y_lengths = q.y_lengths;
  if (s.metric == LATTICE) {
    draw_cost(&q, &seed);
  } else {
    draw_features(&q, &seed);
  }
  make_results(&q, &seed);
  give_state(&q, 0);
  describe(&s, "forward and backward");
  return q;
}

static void free_problem(problem *q) {
  void *memory[] = {q->x_lengths, q->y_lengths,  q->cost,      q->x,      q->y,      q->value,
                    q->state,     q->grad_value, q->grad_cost, q->grad_x, q->grad_y, q->mean_cost};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

/* Count of numbers in grad_cost, grad_x, grad_y; 0 where there is none. */
static void gradient_sizes(const problem *q, int64_t sizes[3]) {
  const setting *s = &q->s;
  sizes[0] = q->grad_cost ? s->batch * s->n * s->m : 0;
  sizes[1] = q->grad_x ? s->batch * s->n * s->d : 0;
  sizes[2] = q->grad_y ? s->batch * s->m * s->d : 0;
}

static void forget_results(problem *q) {
  void *const gradients[3] = {q->grad_cost, q->grad_x, q->grad_y};
  int64_t sizes[3];
  gradient_sizes(q, sizes);
  for (int k = 0; k < 3; k++)
    if (sizes[k]) memset(gradients[k], 0xFF, (size_t)sizes[k] * q->s.p->size);
  memset(q->mean_cost, 0xFF, (size_t)q->s.batch * sizeof(double));
}

/* ---------------------------------------------------------------- calls with exactly the memory asked for */

static size_t workspace_size(const problem *q, dalign_pass pass) {
  return q->s.p->shared(&q->args, pass) + q->s.p->worker(&q->args);
}

static dalign_status run_forward(const problem *q) {
  void *workspace = scratch(workspace_size(q, DALIGN_FORWARD));
  const dalign_status status = q->s.p->forward(&q->args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

static dalign_status run_backward(const problem *q) {
  void *workspace = scratch(workspace_size(q, DALIGN_BACKWARD));
  const dalign_status status = q->s.p->backward(&q->args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

/* Both at once, which takes no state. */
static dalign_status run_gradient(const problem *q) {
  dalign_softdtw_args args = q->args;
  args.state = NULL, args.state_stride = 0;
  void *workspace = scratch(workspace_size(q, DALIGN_GRADIENT));
  const dalign_status status = q->s.p->gradient(&args, 0, q->s.batch, workspace);
  free(workspace);
  return status;
}

typedef struct {
  const precision *p;
  void *shared;
  size_t worker_size;
} pipeline;

static void *pipeline_thread(void *pointer) {
  const pipeline *line = pointer;
  void *worker = scratch(line->worker_size);
  line->p->work(line->shared, worker);
  free(worker);
  return NULL;
}

static dalign_status run_item(const problem *q, dalign_pass pass, int64_t item, int threads) {
  const precision *p = q->s.p;
  pipeline line = {p, scratch(p->shared(&q->args, pass)), p->worker(&q->args)};
  dalign_status status = DALIGN_RETRY;
  for (int retry = 0; retry < 4 && status == DALIGN_RETRY; retry++) {
    status = p->open(&q->args, pass, item, retry > 0, line.shared);
    if (status != DALIGN_OK) break;
    do {
      pthread_t others[8];
      for (int k = 1; k < threads; k++) pthread_create(&others[k], NULL, pipeline_thread, &line);
      pipeline_thread(&line);
      for (int k = 1; k < threads; k++) pthread_join(others[k], NULL);
      status = p->close(line.shared);
    } while (status == DALIGN_AGAIN);
  }
  free(line.shared);
  return status;
}

static void run_pipeline(const problem *q, dalign_pass pass, int threads) {
  for (int64_t b = 0; b < q->s.batch; b++)
    check(run_item(q, pass, b, threads) == DALIGN_OK, "pipeline of %d threads: status of item %lld", threads,
          (long long)b);
}

/* ---------------------------------------------------------------- what to expect */

/* One item: results and the sizes that rounding is measured with. */
typedef struct {
  double value, value_size;  /* value_size: sum of magnitudes that the value is made of */
  double mean_cost, largest; /* largest number of each gradient, summed without cancellation */
  double *alignment, *grad_x, *grad_y;
  double largest_x, largest_y;
  unsigned char *on_path;
} outcome;

static void free_outcome(outcome *o) {
  free(o->alignment);
  free(o->grad_x);
  free(o->grad_y);
  free(o->on_path);
}

static void read_numbers(const precision *p, const void *numbers, int64_t first, int64_t count, double *out) {
  for (int64_t k = 0; k < count; k++) out[k] = get(p, numbers, first + k);
}

/* Frames of the item as doubles, (n, d) and (m, d). */
static double *item_frames(const problem *q, int64_t b, int is_y) {
  const int64_t frames = is_y ? q->s.m : q->s.n, d = q->s.d;
  double *out = calloc((size_t)(frames * d), sizeof *out);
  if (!is_y || q->s.metric != DALIGN_NLL) read_numbers(q->s.p, is_y ? q->y : q->x, b * frames * d, frames * d, out);
  return out;
}

static int64_t label_of(const problem *q, int64_t b, int64_t j) {
  return q->s.metric == DALIGN_NLL ? ((const int64_t *)q->y)[b * q->s.m + j] : 0;
}

/* The true costs of an item, (rows, columns). */
static wide *item_costs(const problem *q, int64_t b) {
  const setting *s = &q->s;
  const int64_t rows = rows_of(q, b), columns = columns_of(q, b);
  wide *cost = malloc((size_t)(rows * columns) * sizeof *cost);
  double *x = item_frames(q, b, 0), *y = item_frames(q, b, 1);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      if (s->metric == LATTICE) {
        cost[i * columns + j] = get(s->p, q->cost, (b * s->n + i) * s->m + j);
      } else {
        cost[i * columns + j] =
            reference_cost((dalign_metric)s->metric, s->d, x + i * s->d, y + j * s->d, label_of(q, b, j));
      }
    }
  free(x);
  free(y);
  return cost;
}

/* Size of the terms that number k of d cost / d frame is made of: cosine subtracts two. */
static double term_size(const problem *q, const double *frame, const double *other, int64_t k, double gradient) {
  double square = 0, other_square = 0, product = 0;
  if (q->s.metric != DALIGN_COSINE) return fabs(gradient);
  for (int64_t l = 0; l < q->s.d; l++) {
    square += frame[l] * frame[l];
    other_square += other[l] * other[l];
    product += frame[l] * other[l];
  }
  const double norms = sqrt(square * other_square);
  return norms == 0 ? 0 : (fabs(other[k]) + fabs(frame[k] * product / square)) / norms;
}

/* Gradients of the features by the chain rule, in double, with the largest sum of magnitudes beside them. */
static void chain_rule(const problem *q, int64_t b, outcome *o) {
  const int64_t rows = rows_of(q, b), columns = columns_of(q, b), d = q->s.d;
  double *x = item_frames(q, b, 0), *y = item_frames(q, b, 1);
  double *gx = calloc((size_t)d, sizeof *gx), *gy = calloc((size_t)d, sizeof *gy);
  double *size_x = calloc((size_t)(rows * d), sizeof *size_x), *size_y = calloc((size_t)(columns * d), sizeof *size_y);
  o->grad_x = calloc((size_t)(rows * d), sizeof(double));
  o->grad_y = calloc((size_t)(columns * d), sizeof(double));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      const double h = o->alignment[i * columns + j];
      if (h == 0) continue;
      reference_cost_gradient((dalign_metric)q->s.metric, d, x + i * d, y + j * d, label_of(q, b, j), gx, gy);
      for (int64_t k = 0; k < d; k++) {
        o->grad_x[i * d + k] += h * gx[k];
        o->grad_y[j * d + k] += h * gy[k];
        o->largest_x = fmax(o->largest_x, size_x[i * d + k] += h * term_size(q, x + i * d, y + j * d, k, gx[k]));
        o->largest_y = fmax(o->largest_y, size_y[j * d + k] += h * term_size(q, y + j * d, x + i * d, k, gy[k]));
      }
    }
  free(x);
  free(y);
  free(gx);
  free(gy);
  free(size_x);
  free(size_y);
}

static reference_problem reference_of(const problem *q, int64_t b, const wide *cost) {
  reference_problem r = {rows_of(q, b), columns_of(q, b), q->s.gamma, {0, 0, 0}, q->s.band, cost};
  memcpy(r.step_weights, q->s.weights, sizeof r.step_weights);
  return r;
}

static outcome solve(const problem *q, int64_t b, const wide *cost) {
  const reference_problem r = reference_of(q, b, cost);
  const int64_t cells = r.n * r.m;
  outcome o = {.alignment = malloc((size_t)cells * sizeof(double)), .on_path = malloc((size_t)cells)};
  reference_paths(&r, o.on_path);
  o.value = (double)reference_softdtw(&r, o.alignment, NULL);
  for (int64_t c = 0; c < cells; c++) {
    if (o.alignment[c] == 0) continue;
    o.mean_cost += o.alignment[c] * (double)cost[c];
    o.value_size += o.alignment[c] * (q->s.metric == DALIGN_COSINE ? 1 : fabs((double)cost[c])); /* cosine: 1 - ... */
    o.largest = fmax(o.largest, o.alignment[c]);
  }
  o.value_size += fabs(o.value);
  if (q->s.metric != LATTICE) chain_rule(q, b, &o);
  return o;
}

/* The largest differences that rounded costs make. */
typedef struct {
  double value, alignment, grad_x, grad_y, mean_cost;
} differences;

static double largest_difference(const double *a, const double *b, int64_t count) {
  double largest = 0;
  for (int64_t k = 0; k < count; k++) largest = fmax(largest, fabs(a[k] - b[k]));
  return largest;
}

static void widen(differences *e, const outcome *exact, const outcome *rounded, int64_t rows, int64_t columns,
                  int64_t d) {
  if (isinf(exact->value) || isinf(rounded->value)) return;
  e->value = fmax(e->value, fabs(rounded->value - exact->value));
  e->mean_cost = fmax(e->mean_cost, fabs(rounded->mean_cost - exact->mean_cost));
  e->alignment = fmax(e->alignment, largest_difference(exact->alignment, rounded->alignment, rows * columns));
  if (exact->grad_x == NULL) return;
  e->grad_x = fmax(e->grad_x, largest_difference(exact->grad_x, rounded->grad_x, rows * d));
  e->grad_y = fmax(e->grad_y, largest_difference(exact->grad_y, rounded->grad_y, columns * d));
}

/* Costs of the item as dalign_cost rounds them. */
static void library_costs(const problem *q, int64_t b, wide *cost) {
  const setting *s = &q->s;
  const int64_t rows = rows_of(q, b), columns = columns_of(q, b), per_label = s->metric == DALIGN_NLL ? 0 : s->d;
  char *const x = q->x, *const y = q->y;
  const dalign_cost_args args = {1,
                                 rows,
                                 columns,
                                 s->d,
                                 (dalign_metric)s->metric,
                                 x + (size_t)(b * s->n * s->d) * s->p->size,
                                 per_label ? y + (size_t)(b * s->m * s->d) * s->p->size : y + (size_t)(b * s->m) * 8};
  void *numbers = result_array(s->p, rows * columns), *workspace = scratch(s->p->cost_workspace(&args));
  check(s->p->cost(&args, numbers, 0, 1, workspace) == DALIGN_OK, "dalign_cost: status is not OK");
  for (int64_t c = 0; c < rows * columns; c++) cost[c] = get(s->p, numbers, c);
  free(numbers);
  free(workspace);
}

/* Every cost moved by up to half a unit in its last place. */
static void perturbed_costs(const problem *q, const wide *exact, int64_t cells, uint64_t seed, wide *cost) {
  for (int64_t c = 0; c < cells; c++) cost[c] = exact[c] * (1 + (wide)((uniform(&seed) - .5) * q->s.p->epsilon));
}

/* Exact outcomes of all items; the differences are found when a check first needs them. */
typedef struct {
  outcome *exact;
  differences rounding;
  int rounding_known;
} expectation;

static expectation expect(const problem *q) {
  expectation e = {.exact = malloc((size_t)q->s.batch * sizeof(outcome))};
  for (int64_t b = 0; b < q->s.batch; b++) {
    wide *cost = item_costs(q, b);
    e.exact[b] = solve(q, b, cost);
    free(cost);
  }
  return e;
}

static void free_expectation(const problem *q, expectation *e) {
  for (int64_t b = 0; b < q->s.batch; b++) free_outcome(&e->exact[b]);
  free(e->exact);
}

static const differences *rounding(const problem *q, expectation *e) {
  for (int64_t b = 0; b < q->s.batch && !e->rounding_known; b++) {
    const int64_t rows = rows_of(q, b), columns = columns_of(q, b);
    wide *cost = item_costs(q, b), *moved = malloc((size_t)(rows * columns) * sizeof *moved);
    for (int repeat = 0; repeat < 3; repeat++) {
      if (repeat == 0 && q->s.metric != LATTICE) {
        library_costs(q, b, moved);
      } else {
        perturbed_costs(q, cost, rows * columns, (uint64_t)(b * 3 + repeat), moved);
      }
      outcome rounded = solve(q, b, moved);
      widen(&e->rounding, &e->exact[b], &rounded, rows, columns, q->s.d);
      free_outcome(&rounded);
    }
    free(cost);
    free(moved);
  }
  e->rounding_known = 1;
  return &e->rounding;
}

/* ---------------------------------------------------------------- comparison */

/* Sums of the terms; and in double the recursion's numbers are exact to that share of gamma (in float it turns to double
 * where that matters). */
static double value_rounding(const problem *q, const outcome *o) {
  const double steps = (double)(q->s.n + q->s.m), of_gamma = q->s.p == &f64 ? 8 + steps / 8 : 0;
  return q->s.p->epsilon * (16 * o->value_size + of_gamma * q->s.gamma);
}

/* Under valgrind a wide number is a double, and the reference rounds as a double recursion does. */
static double reference_rounding(const problem *q, const outcome *o) {
  return sizeof(wide) > sizeof(double) ? 0 : 4 * 0x1p-52 * o->value_size / q->s.gamma;
}

/* Errors of the steps along a path add up. */
static double gradient_share(const problem *q, const outcome *o) {
  const double steps = (double)(q->s.n + q->s.m);
  return q->s.p == &f32 ? fmax(1e-5, 0x1p-24 * steps / 8) : 1e-12 + reference_rounding(q, o);
}

static void check_values(const problem *q, expectation *e) {
  for (int64_t b = 0; b < q->s.batch; b++) {
    const double got = get(q->s.p, q->value, b), expected = e->exact[b].value;
    double allowed = value_rounding(q, &e->exact[b]);
    if (!is_near(got, expected, allowed)) allowed = fmax(allowed, 3 * rounding(q, e)->value);
    check_near("value", b, got, expected, allowed);
  }
}

/* One gradient of item b: frames of `width` numbers, what `expected` holds in their beginnings; the rest must be 0. */
typedef struct {
  const char *name;
  const void *got;
  int64_t frames, width;
  const double *expected;
  int64_t used_frames, used_width;
  double share;      /* of rounding in sums */
  size_t difference; /* place in `differences` */
} gradient;

static void check_gradient(const problem *q, expectation *e, int64_t b, const gradient *g) {
  const double grad = q->grad_value ? get(q->s.p, q->grad_value, b) : 1;
  for (int64_t i = 0; i < g->frames; i++)
    for (int64_t k = 0; k < g->width; k++) {
      const int64_t index = (b * g->frames + i) * g->width + k;
      const int inside = i < g->used_frames && k < g->used_width;
      const double got = get(q->s.p, g->got, index), expected = inside ? grad * g->expected[i * g->used_width + k] : 0;
      double allowed = inside && !isinf(e->exact[b].value) ? fabs(grad) * g->share : 0;
      if (allowed > 0 && !is_near(got, expected, allowed))
        allowed = fmax(allowed, 3 * fabs(grad) * *(const double *)((const char *)rounding(q, e) + g->difference));
      check_near(g->name, index, got, expected, allowed);
    }
}

static void check_mean_cost(const problem *q, expectation *e, int64_t b) {
  const outcome *o = &e->exact[b];
  double allowed = gradient_share(q, o) * o->value_size;
  if (isinf(o->value)) allowed = 0;
  if (!is_near(q->mean_cost[b], o->mean_cost, allowed)) allowed = fmax(allowed, 3 * rounding(q, e)->mean_cost);
  check_near("mean_cost", b, q->mean_cost[b], o->mean_cost, allowed);
}

static void check_gradients(const problem *q, expectation *e) {
  const setting *s = &q->s;
  for (int64_t b = 0; b < s->batch; b++) {
    const outcome *o = &e->exact[b];
    const double share = gradient_share(q, o);
    const int64_t rows = rows_of(q, b), columns = columns_of(q, b);
    const gradient cost = {"grad_cost", q->grad_cost,       s->n,
                           s->m,        o->alignment,       rows,
                           columns,     share * o->largest, offsetof(differences, alignment)};
    const gradient x = {
        "grad_x", q->grad_x, s->n, s->d, o->grad_x, rows, s->d, share * o->largest_x, offsetof(differences, grad_x)};
    const gradient y = {
        "grad_y", q->grad_y, s->m, s->d, o->grad_y, columns, s->d, share * o->largest_y, offsetof(differences, grad_y)};
    if (q->grad_cost) check_gradient(q, e, b, &cost);
    if (q->grad_x) check_gradient(q, e, b, &x);
    if (q->grad_y) check_gradient(q, e, b, &y);
    check_mean_cost(q, e, b);
  }
}

/* Cells that no path can use have a gradient of exactly 0. */
static void check_unused_cells(const problem *q, const expectation *e) {
  if (!q->grad_cost) return;
  for (int64_t b = 0; b < q->s.batch; b++)
    for (int64_t i = 0; i < rows_of(q, b); i++)
      for (int64_t j = 0; j < columns_of(q, b); j++) {
        const double got = get(q->s.p, q->grad_cost, (b * q->s.n + i) * q->s.m + j);
        if (!e->exact[b].on_path[i * columns_of(q, b) + j])
          check(got == 0, "grad_cost of item %lld at (%lld, %lld), where no path goes, is %g", (long long)b,
                (long long)i, (long long)j, got);
      }
}

/* Forward alone, forward for backward, backward and once more backward, both at once, against the reference. */
static void check_problem(problem *q) {
  expectation e = expect(q);
  describe(&q->s, "forward without state");
  q->args.state = NULL;
  check(run_forward(q) == DALIGN_OK, "forward: status is not OK");
  check_values(q, &e);
  describe(&q->s, "forward and backward");
  q->args.state = q->state;
  memset(q->value, 0xFF, (size_t)q->s.batch * q->s.p->size);
  check(run_forward(q) == DALIGN_OK, "forward: status is not OK");
  check_values(q, &e);
  for (int times = 0; times < 2; times++) {
    forget_results(q);
    check(run_backward(q) == DALIGN_OK, "backward: status is not OK");
    check_gradients(q, &e);
    check_unused_cells(q, &e);
    describe(&q->s, "backward again from the same state");
  }
  describe(&q->s, "gradient");
  forget_results(q);
  memset(q->value, 0xFF, (size_t)q->s.batch * q->s.p->size);
  check(run_gradient(q) == DALIGN_OK, "gradient: status is not OK");
  check_values(q, &e);
  check_gradients(q, &e);
  check_unused_cells(q, &e);
  free_expectation(q, &e);
}

static void check_setting(setting s) {
  if (left_out()) return;
  problem q = make_problem(s);
  check_problem(&q);
  free_problem(&q);
}

/* ---------------------------------------------------------------- groups: the reference itself */

static void test_reference(const precision *p) {
  static const double weights[][3] = {{1, 1, 1}, {1, 1, 2}, {.1, .1, 1}, {1, 0, 2}, {INFINITY, 1, 1}};
  for (int64_t n = 1; n <= 4; n++)
    for (int64_t m = 1; m <= 5; m++)
      for (int k = 0; k < 5; k++)
        for (double gamma = 1e-3; gamma < 1e3; gamma *= 10) {
          setting s = plain_setting(p, 1, n, m);
          s.gamma = gamma;
          s.blocked = k == 1 ? .2 : 0;
          s.band = n == 4 ? 1 : -1;
          memcpy(s.weights, weights[k], sizeof s.weights);
          problem q = make_problem(s);
          wide *cost = item_costs(&q, 0);
          const reference_problem r = reference_of(&q, 0, cost);
          double recursion[20], paths[20];
          const double value = (double)reference_softdtw(&r, recursion, NULL);
          check_near("value of the recursion", 0, value, (double)reference_enumerate(&r, paths),
                     1e-12 * (1 + fabs(value)));
          for (int64_t c = 0; c < n * m; c++)
            check_near("alignment of the recursion", c, recursion[c], paths[c], 1e-12);
          free(cost);
          free_problem(&q);
        }
}

/* The reference's Hessian product is the difference quotient of its alignment. */
static void test_reference_hvp(const precision *p) {
  setting s = plain_setting(p, 1, 7, 6);
  s.weights[0] = .5;
  s.weights[2] = 2;
  s.gamma = .3;
  problem q = make_problem(s);
  wide *cost = item_costs(&q, 0);
  double tangent[42], product[42], above[42], below[42];
  uint64_t seed = 3;
  const reference_problem r = reference_of(&q, 0, cost);
  for (int c = 0; c < 42; c++) tangent[c] = uniform(&seed) - .5;
  reference_hvp(&r, tangent, product);
  for (int c = 0; c < 42; c++) cost[c] += 1e-5L * tangent[c];
  reference_softdtw(&r, above, NULL);
  for (int c = 0; c < 42; c++) cost[c] -= 2e-5L * tangent[c];
  reference_softdtw(&r, below, NULL);
  for (int c = 0; c < 42; c++)
    check_near("product of the reference", c, product[c], (above[c] - below[c]) / 2e-5, 1e-8);
  free(cost);
  free_problem(&q);
}

/* ---------------------------------------------------------------- groups: given costs */

static void test_sizes(const precision *p) {
  for (int a = 0; a < ODD_SIZES; a++)
    for (int b = 0; b < ODD_SIZES; b++) check_setting(plain_setting(p, 1, odd_sizes[a], odd_sizes[b]));
  check_setting(plain_setting(p, 2, 300, 257));
  check_setting(plain_setting(p, 2, 255, 300));
}

static void test_long_thin(const precision *p) {
  static const int64_t sizes[][2] = {{1, 3000}, {3000, 1}, {2, 2500},  {2500, 2},
                                     {7, 1500}, {1500, 9}, {17, 1100}, {1100, 18}};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    setting s = plain_setting(p, 1, sizes[k][0], sizes[k][1]);
    check_setting(s);
    s.gamma = .01;
    s.band = 1;
    check_setting(s);
  }
}

static void test_lengths(const precision *p) {
  for (int64_t size = 1; size <= 150; size += 1 + size / 5) {
    setting s = plain_setting(p, 5, size, size + size / 3);
    s.varied = s.random_gradient = 1;
    check_setting(s);
    s = plain_setting(p, 4, size + size / 4, size);
    s.varied = s.random_gradient = 1;
    s.gamma = .1;
    check_setting(s);
  }
}

static void test_bands(const precision *p) {
  static const double bands[] = {.5, 1, 1.5, 2, 3.7, 5, 8, 16, 30, 1e3, 1e300, INFINITY};
  static const int64_t sizes[][2] = {{1, 1},   {1, 20},  {20, 1},   {2, 2},    {16, 16},  {17, 33},
                                     {33, 17}, {64, 63}, {100, 15}, {15, 100}, {90, 130}, {200, 190}};
  for (size_t k = 0; k < sizeof bands / sizeof *bands; k++)
    for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++) {
      setting s = plain_setting(p, 1 + (int64_t)(l & 1), sizes[l][0], sizes[l][1]);
      s.band = bands[k];
      check_setting(s);
      s.varied = 1;
      s.batch = 3;
      s.gamma = .05;
      check_setting(s);
    }
}

static void test_weights(const precision *p) {
  const double inf = INFINITY;
  const double weights[][3] = {{1, 1, 2},       {.1, .1, 1},    {2, 1, 3},     {0, 1, 1},     {1, 0, 1},
                               {1, 1, 0},       {0, 0, 1},      {1, 0, 0},     {0, 0, 0},     {inf, 1, 1},
                               {1, inf, 1},     {1, 1, inf},    {inf, inf, 1}, {1, inf, inf}, {inf, 1, inf},
                               {inf, inf, inf}, {1e-6, 1e3, 1}, {inf, 0, 1},   {1.7, .3, .9}};
  static const int64_t sizes[][2] = {{1, 1}, {1, 5}, {5, 1}, {9, 9}, {16, 17}, {33, 31}, {31, 33}, {70, 40}};
  for (size_t k = 0; k < sizeof weights / sizeof *weights; k++)
    for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
      for (int64_t metric = LATTICE; metric <= DALIGN_SQEUCLIDEAN; metric++) {
        setting s = plain_setting(p, 1, sizes[l][0], sizes[l][1]);
        memcpy(s.weights, weights[k], sizeof s.weights);
        s.metric = (int)metric;
        s.d = metric == LATTICE ? 0 : 3;
        check_setting(s);
        s.batch = 3;
        s.varied = 1;
        s.band = 4;
        s.gamma = .1;
        check_setting(s);
      }
}

/* Costs of any sign, as minus log-likelihoods of densities have. */
static void test_signs(const precision *p) {
  for (int64_t size = 3; size < 150; size += 1 + size / 2)
    for (double gamma = .01; gamma < 200; gamma *= 10) {
      setting s = plain_setting(p, 2, size, size + 5);
      s.gamma = gamma;
      s.scale = 4;
      s.offset = -2;
      check_setting(s);
      s.offset = -4;
      check_setting(s);
    }
}

/* ---------------------------------------------------------------- groups: infinities and NaN */

/* +inf in each cell in turn. */
static void test_each_cell_blocked(const precision *p) {
  static const int64_t sizes[][2] = {{1, 1}, {1, 4}, {4, 1}, {6, 5}, {3, 18}, {18, 3}, {17, 17}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (int64_t c = 0; c < sizes[l][0] * sizes[l][1]; c++) {
      problem q = make_problem(plain_setting(p, 1, sizes[l][0], sizes[l][1]));
      set(p, q.cost, c, INFINITY);
      check_problem(&q);
      free_problem(&q);
    }
}

static void test_blocked(const precision *p) {
  static const double shares[] = {.02, .1, .2, .3, .5, 1};
  for (size_t k = 0; k < sizeof shares / sizeof *shares; k++)
    for (int64_t size = 4; size < 150; size += 1 + size / 2) {
      setting s = plain_setting(p, 4, size, size + 3);
      s.blocked = shares[k];
      s.seed += k;
      s.random_gradient = 1;
      check_setting(s);
      s.varied = 1;
      s.gamma = .01;
      s.scale = 10;
      check_setting(s);
      s.band = 5;
      s.weights[2] = 2;
      check_setting(s);
    }
}

/* A wall of blocked cells with one gap: strips and vectors without any open cell, and the numbers must survive. */
static void test_walls(const precision *p) {
  for (int64_t wall = 1; wall < 90; wall += 8)
    for (int by_row = 0; by_row < 2; by_row++) {
      const int64_t size = 97, thickness = 5;
      problem q = make_problem(plain_setting(p, 1, size, size));
      for (int64_t a = wall; a < wall + thickness; a++)
        for (int64_t b = 0; b < size; b++)
          if (b != (wall * 7) % size) set(p, q.cost, by_row ? a * size + b : b * size + a, INFINITY);
      check_problem(&q);
      free_problem(&q);
    }
}

/* All numbers of item `b` that belong to frames and cells in use. */
static void check_item_is_nan(const problem *q, int64_t b, const outcome *o) {
  const setting *s = &q->s;
  check(isnan(get(s->p, q->value, b)), "value of the bad item is %g", get(s->p, q->value, b));
  for (int64_t i = 0; i < rows_of(q, b); i++) {
    for (int64_t j = 0; q->grad_cost && j < columns_of(q, b); j++) {
      const double got = get(s->p, q->grad_cost, (b * s->n + i) * s->m + j);
      check(isnan(got) || !o->on_path[i * columns_of(q, b) + j], "grad_cost (%lld, %lld) of the bad item is %g",
            (long long)i, (long long)j, got);
    }
    for (int64_t k = 0; q->grad_x && k < s->d; k++) {
      const double got = get(s->p, q->grad_x, (b * s->n + i) * s->d + k);
      check(isnan(got), "grad_x (%lld, %lld) of the bad item is %g", (long long)i, (long long)k, got);
    }
  }
}

/* The gradients of an item but for its padding are NaN; those of the others keep their bits. */
static void check_bad_item(problem *q, int64_t bad, int64_t place, double number) {
  const setting *s = &q->s;
  void *const results[4] = {q->value, q->grad_cost, q->grad_x, q->grad_y};
  void *before[4] = {NULL, NULL, NULL, NULL};
  int64_t sizes[4] = {s->batch};
  wide *cost = item_costs(q, bad);
  const reference_problem r = reference_of(q, bad, cost);
  outcome o = {.on_path = malloc((size_t)(r.n * r.m))};
  reference_paths(&r, o.on_path);
  gradient_sizes(q, sizes + 1);
  run_forward(q);
  run_backward(q);
  for (int k = 0; k < 4; k++)
    if (sizes[k]) memcpy(before[k] = scratch((size_t)sizes[k] * s->p->size), results[k], (size_t)sizes[k] * s->p->size);
  set(s->p, s->metric == LATTICE ? q->cost : q->x, place, number);
  run_forward(q);
  forget_results(q);
  run_backward(q);
  check_item_is_nan(q, bad, &o);
  check(isnan(q->mean_cost[bad]), "mean_cost of the bad item is %g", q->mean_cost[bad]);
  forget_results(q);
  run_gradient(q);
  check_item_is_nan(q, bad, &o);
  for (int k = 0; k < 4; k++) {
    const int64_t item = sizes[k] / s->batch;
    if (sizes[k] == 0) continue;
    check_same("items before the bad one", s->p, results[k], before[k], bad * item);
    check_same("items after the bad one", s->p, at(s->p, results[k], (bad + 1) * item),
               at(s->p, before[k], (bad + 1) * item), (s->batch - bad - 1) * item);
  }
  for (int k = 0; k < 4; k++) free(before[k]);
  free_outcome(&o);
  free(cost);
}

static void test_nan(const precision *p) {
  static const int64_t sizes[][2] = {{1, 1}, {5, 4}, {20, 33}, {70, 67}};
  static const double bad[] = {NAN, -INFINITY};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (int metric = LATTICE; metric <= DALIGN_BCE; metric++)
      for (int kind = 0; kind < (metric == LATTICE ? 2 : 1); kind++)
        for (int k = 0; k < 8; k++) {
          setting s = plain_setting(p, 3, sizes[l][0], sizes[l][1]);
          s.metric = metric;
          s.d = metric == LATTICE ? 0 : 5;
          s.gamma = k % 2 ? 1e-3 : 1;
          uint64_t seed = (uint64_t)k;
          problem q = make_problem(s);
          const int64_t width = metric == LATTICE ? s.m : s.d;
          const int64_t column = metric == DALIGN_NLL ? ((int64_t *)q.y)[s.m] : random_integer(&seed, 0, width - 1);
          describe(&s, kind ? "a cost of -inf in item 1" : "a NaN in item 1");
          check_bad_item(&q, 1, (s.n + random_integer(&seed, 0, s.n - 1)) * width + column, bad[kind]);
          free_problem(&q);
        }
}

/* A NaN outside the band is not looked at, as padding is not. */
static void test_nan_outside_band(const precision *p) {
  for (int64_t size = 10; size < 140; size += 1 + size / 2) {
    setting s = plain_setting(p, 3, size, size + size / 2);
    s.band = 2;
    s.varied = 1;
    problem q = make_problem(s);
    for (int64_t b = 0; b < s.batch; b++) {
      wide *cost = item_costs(&q, b);
      const reference_problem r = reference_of(&q, b, cost);
      for (int64_t i = 0; i < r.n; i++)
        for (int64_t j = 0; j < r.m; j++)
          if (!reference_in_band(&r, i, j)) set(p, q.cost, (b * s.n + i) * s.m + j, NAN);
      free(cost);
    }
    check_problem(&q);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- groups: ranges of numbers */

static void test_gammas_lattice(const precision *p) {
  static const int64_t sizes[] = {1, 4, 40, 131};
  for (double gamma = 1e-4; gamma < 2e3; gamma *= 10)
    for (double scale = 1e-3; scale < 2e5; scale *= 10)
      for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        setting s = plain_setting(p, 2, sizes[k], sizes[k] + 2);
        s.gamma = gamma;
        s.scale = scale;
        check_setting(s);
      }
}

static void test_gammas_features(const precision *p) {
  static const double scales[] = {1, 10, 100};
  for (int metric = DALIGN_SQEUCLIDEAN; metric <= DALIGN_BCE; metric++)
    for (double gamma = 1e-4; gamma < 2e3; gamma *= 10)
      for (size_t k = 0; k < 3; k++) {
        setting s = plain_setting(p, 2, 110, 97);
        s.metric = metric;
        s.d = 12;
        s.gamma = gamma;
        s.scale = scales[k];
        s.seed = k + 1;
        check_setting(s);
      }
}

/* Costs that differ by more than any float exponent along the lattice: one side cheap, the other dear. */
static void test_steep(const precision *p) {
  for (double steep = 1; steep < 1e7; steep *= 30)
    for (int turned = 0; turned < 2; turned++) {
      setting s = plain_setting(p, 1, 90, 75);
      problem q = make_problem(s);
      for (int64_t i = 0; i < s.n; i++)
        for (int64_t j = 0; j < s.m; j++) {
          const double slope = steep * (double)(turned ? s.n - 1 - i + j : i + s.m - 1 - j);
          set(p, q.cost, i * s.m + j, get(p, q.cost, i * s.m + j) + slope);
        }
      check_problem(&q);
      free_problem(&q);
    }
}

/* Finite costs that are meant as a ban, 1e10 and far more, beside ordinary ones. The diagonal stays free. */
static void test_forbidding(const precision *p) {
  for (double forbidding = 1e6; forbidding < p->huge; forbidding = forbidding * forbidding)
    for (double gamma = 1e-4; gamma < 2e3; gamma *= 100)
      for (int64_t size = 4; size < 80; size += 1 + size) {
        setting s = plain_setting(p, 1, size, size);
        s.gamma = gamma;
        problem q = make_problem(s);
        uint64_t seed = (uint64_t)size;
        for (int64_t i = 0; i < size; i++)
          for (int64_t j = 0; j < size; j++)
            if (i != j && uniform(&seed) < .2) set(p, q.cost, i * size + j, forbidding);
        check_problem(&q);
        describe_case("%s forbidding cost %g, gamma %g, size %lld", p->name, forbidding, gamma, (long long)size);
        check(get(p, q.value, 0) < 2 * (double)size, "value is %g", get(p, q.value, 0));
        free_problem(&q);
      }
}

/* Nearly equal frames far from the origin. */
static void test_offset(const precision *p) {
  for (int metric = DALIGN_SQEUCLIDEAN; metric <= DALIGN_MANHATTAN; metric++)
    for (double offset = 1; offset < 2e3; offset *= 10)
      for (double gamma = 1e-3; gamma < 2; gamma *= 10) {
        setting s = plain_setting(p, 1, 60, 70);
        s.metric = metric;
        s.d = 12;
        s.offset = offset;
        s.scale = .1;
        s.gamma = gamma;
        check_setting(s);
      }
}

/* ---------------------------------------------------------------- groups: features */

static void test_features(const precision *p) {
  static const int64_t depths[] = {1, 2, 3, 7, 12, 13, 16, 17, 31, 33, 64, 128};
  static const int64_t sizes[][2] = {{1, 1}, {1, 17}, {18, 1}, {15, 16}, {17, 31}, {33, 64}, {65, 63}};
  for (int metric = DALIGN_SQEUCLIDEAN; metric <= DALIGN_BCE; metric++)
    for (size_t k = 0; k < sizeof depths / sizeof *depths; k++)
      for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++) {
        setting s = plain_setting(p, 1, sizes[l][0], sizes[l][1]);
        s.metric = metric;
        s.d = depths[k];
        s.seed += k;
        s.gamma = l % 2 ? .1 : 1;
        check_setting(s);
      }
}

static void test_features_varied(const precision *p) {
  for (int metric = DALIGN_SQEUCLIDEAN; metric <= DALIGN_BCE; metric++)
    for (int64_t size = 1; size < 160; size += 1 + size / 2) {
      setting s = plain_setting(p, 4, size, size + size / 3);
      s.metric = metric;
      s.d = 5;
      s.varied = s.random_gradient = 1;
      check_setting(s);
      s.band = 1 + (double)size / 10;
      s.weights[2] = 2;
      check_setting(s);
      s.n = s.m;
      s.m = size;
      s.band = .5;
      check_setting(s);
    }
}

static void test_features_large(const precision *p) {
  for (int metric = DALIGN_SQEUCLIDEAN; metric <= DALIGN_BCE; metric++) {
    setting s = plain_setting(p, 1, 300, 271);
    s.metric = metric;
    s.d = 12;
    check_setting(s);
    s.n = 129;
    s.band = 20;
    check_setting(s);
  }
}

/* ---------------------------------------------------------------- groups: Hessian product */

/* Tangents (rows, columns) of item b as the reference takes them; `tangent` gets NaN wherever no path goes. */
static double *draw_tangent(const problem *q, int64_t b, const reference_problem *r, uint64_t *seed, void *tangent) {
  const setting *s = &q->s;
  unsigned char *on_path = malloc((size_t)(r->n * r->m));
  double *numbers = calloc((size_t)(r->n * r->m), sizeof *numbers);
  reference_paths(r, on_path);
  for (int64_t i = 0; i < r->n; i++)
    for (int64_t j = 0; j < r->m; j++) {
      const int64_t index = (b * s->n + i) * s->m + j;
      if (!on_path[i * r->m + j]) continue;
      set(s->p, tangent, index, uniform(seed) - .5);
      numbers[i * r->m + j] = get(s->p, tangent, index);
    }
  free(on_path);
  return numbers;
}

static double largest_magnitude(const double *numbers, int64_t count) {
  double largest = 0;
  for (int64_t k = 0; k < count; k++) largest = fmax(largest, fabs(numbers[k]));
  return largest;
}

/* Largest difference that rounded costs make to the product. */
static double hvp_rounding(const problem *q, const reference_problem *r, const double *tangent,
                           const double *expected) {
  const int64_t cells = r->n * r->m;
  wide *cost = malloc((size_t)cells * sizeof *cost);
  double *product = malloc((size_t)cells * sizeof *product), difference = 0;
  reference_problem moved = *r;
  moved.cost = cost;
  for (uint64_t repeat = 0; repeat < 3; repeat++) {
    perturbed_costs(q, r->cost, cells, repeat, cost);
    reference_hvp(&moved, tangent, product);
    difference = fmax(difference, largest_difference(product, expected, cells));
  }
  free(cost);
  free(product);
  return difference;
}

/* `product` of item b against the reference. */
static void check_product(const problem *q, int64_t b, const reference_problem *r, const double *tangent,
                          const void *product) {
  const setting *s = &q->s;
  double *expected = malloc((size_t)(r->n * r->m) * sizeof *expected);
  reference_hvp(r, tangent, expected);
  /* Sums in double: of R's tangents, as large as those of a path, divided by gamma; then the result is rounded. */
  const double sums = 0x1p-52 * (double)(r->n + r->m) * largest_magnitude(tangent, r->n * r->m) / r->gamma;
  const double share = sums + (s->p->epsilon + 2e-12) * largest_magnitude(expected, r->n * r->m);
  double allowed = share;
  for (int64_t i = 0; i < s->n; i++)
    for (int64_t j = 0; j < s->m; j++) {
      const int64_t index = (b * s->n + i) * s->m + j;
      const int inside = i < r->n && j < r->m;
      const double got = get(s->p, product, index), number = inside ? expected[i * r->m + j] : 0;
      if (inside && allowed == share && !is_near(got, number, share))
        allowed = fmax(share, 3 * hvp_rounding(q, r, tangent, expected));
      check_near("product", index, got, number, inside ? allowed : 0);
    }
  free(expected);
}

static void check_hvp(setting s) {
  if (left_out()) return;
  problem q = make_problem(s);
  uint64_t seed = s.seed + 1;
  void *tangent = result_array(s.p, s.batch * s.n * s.m), *product = result_array(s.p, s.batch * s.n * s.m);
  void *workspace = scratch(s.p->hvp_workspace(&q.args));
  wide **cost = malloc((size_t)s.batch * sizeof *cost);
  double **tangents = malloc((size_t)s.batch * sizeof *tangents);
  describe(&s, "Hessian product");
  for (int64_t b = 0; b < s.batch; b++) {
    const reference_problem r = reference_of(&q, b, cost[b] = item_costs(&q, b));
    tangents[b] = draw_tangent(&q, b, &r, &seed, tangent);
  }
  check(s.p->hvp(&q.args, tangent, product, 0, s.batch, workspace) == DALIGN_OK, "status is not OK");
  for (int64_t b = 0; b < s.batch; b++) {
    const reference_problem r = reference_of(&q, b, cost[b]);
    check_product(&q, b, &r, tangents[b], product);
    free(cost[b]);
    free(tangents[b]);
  }
  free(cost);
  free(tangents);
  free(tangent);
  free(product);
  free(workspace);
  free_problem(&q);
}

static void test_hvp(const precision *p) {
  static const int64_t sizes[][2] = {{2, 2}, {2, 9}, {9, 2}, {5, 6}, {15, 17}, {33, 20}, {64, 65}, {90, 120}};
  static const double gammas[] = {1e-2, .1, 1, 10, 1e3};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (size_t k = 0; k < sizeof gammas / sizeof *gammas; k++) {
      setting s = plain_setting(p, 1, sizes[l][0], sizes[l][1]);
      s.gamma = gammas[k];
      check_hvp(s);
      s.varied = 1;
      s.batch = 3;
      s.weights[0] = .5;
      s.weights[2] = 2;
      check_hvp(s);
      s.band = 3;
      s.blocked = .1;
      check_hvp(s);
    }
}

/* One row or one column has one path: the product is 0. */
static void test_hvp_single_path(const precision *p) {
  for (int64_t size = 1; size < 70; size += 1 + size / 2) {
    check_hvp(plain_setting(p, 2, 1, size));
    check_hvp(plain_setting(p, 2, size, 1));
  }
}

/* Nothing but the library: its product is the difference quotient of its gradient. */
static void test_hvp_differences(const precision *p) {
  if (p != &f64) return;
  setting s = plain_setting(p, 1, 21, 19);
  s.gamma = .5;
  problem q = make_problem(s);
  const int64_t cells = s.n * s.m;
  double *cost = q.cost, *tangent = result_array(p, cells), *product = result_array(p, cells);
  double *above = result_array(p, cells), *start = result_array(p, cells);
  void *workspace = scratch(p->hvp_workspace(&q.args));
  uint64_t seed = 5;
  for (int64_t c = 0; c < cells; c++) tangent[c] = uniform(&seed) - .5;
  check(p->hvp(&q.args, tangent, product, 0, 1, workspace) == DALIGN_OK, "status is not OK");
  memcpy(start, cost, (size_t)cells * sizeof *start);
  for (int sign = 1; sign >= -1; sign -= 2) {
    for (int64_t c = 0; c < cells; c++) cost[c] = start[c] + sign * 1e-5 * tangent[c];
    run_forward(&q);
    run_backward(&q);
    if (sign == 1) memcpy(above, q.grad_cost, (size_t)cells * sizeof *above);
  }
  for (int64_t c = 0; c < cells; c++)
    check_near("product", c, product[c], (above[c] - ((double *)q.grad_cost)[c]) / 2e-5, 1e-8);
  free(tangent);
  free(product);
  free(above);
  free(start);
  free(workspace);
  free_problem(&q);
}

/* A NaN cost makes the item's product NaN. */
static void test_hvp_nan(const precision *p) {
  setting s = plain_setting(p, 3, 20, 23);
  problem q = make_problem(s);
  const int64_t item = s.n * s.m;
  void *tangent = filled((size_t)(3 * item) * p->size, 0), *product = result_array(p, 3 * item);
  void *workspace = scratch(p->hvp_workspace(&q.args));
  for (int64_t c = 0; c < 3 * item; c++) set(p, tangent, c, 1);
  set(p, q.cost, item + 77, NAN);
  check(p->hvp(&q.args, tangent, product, 0, 3, workspace) == DALIGN_OK, "status is not OK");
  for (int64_t c = 0; c < 3 * item; c++)
    check(isnan(get(p, product, c)) == (c / item == 1), "product[%lld] is %g", (long long)c, get(p, product, c));
  free(tangent);
  free(product);
  free(workspace);
  free_problem(&q);
}

/* ---------------------------------------------------------------- groups: pipeline, memory, misuse */

/* All results as one block of bytes. */
static char *gather(const problem *q, size_t *bytes) {
  void *const results[4] = {q->value, q->grad_cost, q->grad_x, q->grad_y};
  int64_t sizes[4] = {q->s.batch};
  gradient_sizes(q, sizes + 1);
  *bytes = (size_t)q->s.batch * sizeof(double);
  for (int k = 0; k < 4; k++) *bytes += (size_t)sizes[k] * q->s.p->size;
  char *block = malloc(*bytes), *to = block;
  memcpy(to, q->mean_cost, (size_t)q->s.batch * sizeof(double));
  to += (size_t)q->s.batch * sizeof(double);
  for (int k = 0; k < 4; k++) {
    if (sizes[k]) memcpy(to, results[k], (size_t)sizes[k] * q->s.p->size);
    to += (size_t)sizes[k] * q->s.p->size;
  }
  return block;
}

static void expect_same_bits(problem *q, const char *expected, const char *what) {
  size_t bytes;
  char *got = gather(q, &bytes);
  check(memcmp(got, expected, bytes) == 0, "%s: results differ in their bits", what);
  free(got);
}

static void check_pipeline(setting s) {
  if (left_out()) return;
  static const char *const names[4] = {"", "1 thread", "2 threads", "3 threads"};
  problem q = make_problem(s);
  size_t bytes;
  describe(&s, "pipeline");
  run_forward(&q);
  run_backward(&q);
  char *expected = gather(&q, &bytes);
  for (int threads = 1; threads <= 3; threads++) {
    memset(q.value, 0xFF, (size_t)s.batch * s.p->size);
    memset(q.state, 0xFF, (size_t)(s.batch * q.args.state_stride));
    run_pipeline(&q, DALIGN_FORWARD, threads);
    forget_results(&q);
    run_pipeline(&q, DALIGN_BACKWARD, threads);
    expect_same_bits(&q, expected, names[threads]);
    memset(q.value, 0xFF, (size_t)s.batch * s.p->size);
    forget_results(&q);
    run_pipeline(&q, DALIGN_GRADIENT, threads);
    expect_same_bits(&q, expected, names[threads]);
  }
  free(expected);
  free_problem(&q);
}

static void test_pipeline(const precision *p) {
  static const int64_t sizes[][2] = {{1, 1}, {1, 50}, {50, 1}, {16, 40}, {65, 130}, {257, 300}, {600, 90}, {40, 900}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++)
    for (int metric = LATTICE; metric <= DALIGN_BCE; metric++) {
      setting s = plain_setting(p, 1, sizes[l][0], sizes[l][1]);
      s.metric = metric;
      s.d = metric == LATTICE ? 0 : 6;
      check_pipeline(s);
      s.band = 6;
      s.batch = 2;
      s.varied = s.random_gradient = 1;
      check_pipeline(s);
    }
}

/* Numbers that need the wide path: close asks for another round. */
static void test_pipeline_extreme(const precision *p) {
  for (double gamma = 1e-4; gamma < 2e3; gamma *= 10)
    for (double scale = 1; scale < 200; scale *= 10) {
      setting s = plain_setting(p, 1, 200, 170);
      s.metric = DALIGN_SQEUCLIDEAN;
      s.d = 12;
      s.gamma = gamma;
      s.scale = scale;
      check_pipeline(s);
      s.metric = LATTICE;
      s.blocked = .1;
      check_pipeline(s);
    }
}

/* Results do not depend on what the memory held before, nor on a longer state. */
static void test_memory_content(const precision *p) {
  for (int metric = LATTICE; metric <= DALIGN_BCE; metric++)
    for (int64_t size = 1; size < 130; size += 1 + size * 2 / 3) {
      setting s = plain_setting(p, 2, size + 3, size);
      s.metric = metric;
      s.d = metric == LATTICE ? 0 : 5;
      s.varied = 1;
      problem q = make_problem(s);
      char *expected = NULL;
      size_t bytes;
      for (int fill = 0; fill < 3; fill++) {
        static const int fills[3] = {0, 0xFF, 0x7F};
        give_state(&q, (size_t)(64 * fill));
        void *workspace = filled(workspace_size(&q, DALIGN_BACKWARD), fills[fill]);
        memset(q.state, fills[fill], (size_t)(s.batch * q.args.state_stride));
        p->forward(&q.args, 0, s.batch, workspace);
        memset(workspace, fills[fill], workspace_size(&q, DALIGN_BACKWARD));
        forget_results(&q);
        p->backward(&q.args, 0, s.batch, workspace);
        if (expected) {
          expect_same_bits(&q, expected, "other memory");
        } else {
          expected = gather(&q, &bytes);
        }
        free(workspace);
        workspace = filled(workspace_size(&q, DALIGN_GRADIENT), fills[fill]);
        forget_results(&q);
        p->gradient(&q.args, 0, s.batch, workspace);
        expect_same_bits(&q, expected, "gradient in other memory");
        free(workspace);
      }
      free(expected);
      free_problem(&q);
    }
}

/* An item alone, in any place of any batch, has the same bits; items out of the range stay as they were. */
static void check_range(const precision *p, int at_once) {
  for (int metric = LATTICE; metric <= DALIGN_SQEUCLIDEAN; metric++) {
    setting s = plain_setting(p, 5, 40, 37);
    s.metric = metric;
    s.d = metric == LATTICE ? 0 : 5;
    s.varied = 1;
    problem whole = make_problem(s), part = make_problem(s);
    void *untouched = result_array(p, s.batch);
    run_forward(&whole);
    run_backward(&whole);
    void *workspace = scratch(workspace_size(&part, at_once ? DALIGN_GRADIENT : DALIGN_BACKWARD));
    if (at_once) {
      check(p->gradient(&part.args, 2, 4, workspace) == DALIGN_OK, "status is not OK");
    } else {
      check(p->forward(&part.args, 2, 4, workspace) == DALIGN_OK, "status is not OK");
      check(p->backward(&part.args, 2, 4, workspace) == DALIGN_OK, "status is not OK");
    }
    void *const results[2] = {metric == LATTICE ? part.grad_cost : part.grad_x,
                              metric == LATTICE ? whole.grad_cost : whole.grad_x};
    const int64_t item = metric == LATTICE ? s.n * s.m : s.n * s.d;
    check_same("values before the range", p, part.value, untouched, 2);
    check_same("values of the range", p, at(p, part.value, 2), at(p, whole.value, 2), 2);
    check_same("values after the range", p, at(p, part.value, 4), untouched, 1);
    check_same("gradients of the range", p, at(p, results[0], 2 * item), at(p, results[1], 2 * item), 2 * item);
    check(isnan(get(p, results[0], 0)) && isnan(get(p, results[0], 4 * item)), "an item out of the range was written");
    free(workspace);
    free(untouched);
    free_problem(&whole);
    free_problem(&part);
  }
}

static void test_range(const precision *p) {
  check_range(p, 0);
  check_range(p, 1);
}

/* Every subset of the results gives the bits of all of them together. */
static void test_optional_results(const precision *p) {
  for (int metric = LATTICE; metric <= DALIGN_BCE; metric++)
    for (int subset = 0; subset < 8; subset++) {
      setting s = plain_setting(p, 2, 35, 50);
      s.metric = metric;
      s.d = metric == LATTICE ? 0 : 5;
      problem all = make_problem(s), some = make_problem(s);
      if (!(subset & 1)) some.args.mean_cost = NULL;
      if (!(subset & 2)) some.args.grad_x = some.args.grad_cost = NULL;
      if (!(subset & 4)) some.args.grad_y = NULL;
      run_forward(&all);
      run_backward(&all);
      run_forward(&some);
      check(run_backward(&some) == DALIGN_OK, "status is not OK");
      if (subset & 1)
        check(memcmp(some.mean_cost, all.mean_cost, 2 * sizeof(double)) == 0, "mean_cost of subset %d", subset);
      if (some.args.grad_cost) check_same("grad_cost", p, some.grad_cost, all.grad_cost, 2 * s.n * s.m);
      if (some.args.grad_x) check_same("grad_x", p, some.grad_x, all.grad_x, 2 * s.n * s.d);
      if (some.args.grad_y) check_same("grad_y", p, some.grad_y, all.grad_y, 2 * s.m * s.d);
      free_problem(&all);
      free_problem(&some);
    }
}

/* Arrays that start at a number, not at a vector. */
static void test_alignment(const precision *p) {
  for (int metric = LATTICE; metric <= DALIGN_SQEUCLIDEAN; metric++) {
    setting s = plain_setting(p, 1, 70, 45);
    s.metric = metric;
    s.d = metric == LATTICE ? 0 : 9;
    problem straight = make_problem(s), odd = make_problem(s);
    const int64_t count = metric == LATTICE ? s.n * s.m : s.n * s.d;
    void *moved = result_array(p, count + 1), *grad = result_array(p, count + 1);
    memcpy(at(p, moved, 1), metric == LATTICE ? odd.cost : odd.x, (size_t)count * p->size);
    if (metric == LATTICE) {
      odd.args.cost = at(p, moved, 1);
      odd.args.grad_cost = at(p, grad, 1);
    } else {
      odd.args.x = at(p, moved, 1);
      odd.args.grad_x = at(p, grad, 1);
    }
    run_forward(&straight);
    run_backward(&straight);
    run_forward(&odd);
    run_backward(&odd);
    check_same("value", p, odd.value, straight.value, 1);
    check_same("gradient", p, at(p, grad, 1), metric == LATTICE ? straight.grad_cost : straight.grad_x, count);
    free(moved);
    free(grad);
    free_problem(&straight);
    free_problem(&odd);
  }
}

static void expect_bad(const problem *q, const char *what) {
  const precision *p = q->s.p;
  void *memory = scratch(1 << 22), *product = result_array(p, 2 * 3 * 4);
  memset(q->state, 0,
         (size_t)(q->s.batch * q->args.state_stride)); /* backward may look at it, and no forward wrote it */
  check(p->forward(&q->args, 0, 2, memory) == DALIGN_BAD_ARGUMENT, "%s: forward takes it", what);
  check(p->backward(&q->args, 0, 2, memory) == DALIGN_BAD_ARGUMENT, "%s: backward takes it", what);
  check(p->gradient(&q->args, 0, 2, memory) == DALIGN_BAD_ARGUMENT, "%s: gradient takes it", what);
  check(p->open(&q->args, DALIGN_FORWARD, 1, 0, memory) == DALIGN_BAD_ARGUMENT, "%s: open takes it", what);
  if (q->s.metric == LATTICE)
    check(p->hvp(&q->args, q->cost, product, 0, 2, memory) == DALIGN_BAD_ARGUMENT, "%s: hvp takes it", what);
  free(memory);
  free(product);
}

static void test_bad_settings(const precision *p) {
  static const double gammas[] = {0, -1, NAN, INFINITY}, bands[] = {0, .49, NAN}, weights[] = {-1, NAN, -INFINITY};
  problem q = make_problem(plain_setting(p, 2, 3, 4));
  for (int k = 0; k < 4; k++) {
    q.args.gamma = gammas[k];
    describe_case("%s gamma %g", p->name, gammas[k]);
    expect_bad(&q, "gamma");
  }
  q.args.gamma = 1;
  for (int k = 0; k < 3; k++) {
    q.args.band = bands[k];
    describe_case("%s band %g", p->name, bands[k]);
    expect_bad(&q, "band");
  }
  q.args.band = -1;
  for (int k = 0; k < 9; k++) {
    q.args.step_weights[k / 3] = weights[k % 3];
    describe_case("%s step weight %d is %g", p->name, k / 3, weights[k % 3]);
    expect_bad(&q, "step weight");
    q.args.step_weights[k / 3] = 1;
  }
  q.args.n = -1;
  expect_bad(&q, "n = -1");
  free_problem(&q);
}

static void test_bad_lengths(const precision *p) {
  static const int64_t lengths[] = {0, -1, 5, INT64_MAX, INT64_MIN};
  setting s = plain_setting(p, 2, 3, 4);
  s.varied = 1;
  problem q = make_problem(s);
  for (int k = 0; k < 5; k++) {
    describe_case("%s length %lld", p->name, (long long)lengths[k]);
    q.x_lengths[1] = lengths[k];
    expect_bad(&q, "x_lengths");
    q.x_lengths[1] = 1;
    q.y_lengths[1] = lengths[k];
    expect_bad(&q, "y_lengths");
    q.y_lengths[1] = 1;
  }
  free_problem(&q);
}

static void test_missing_state(const precision *p) {
  problem q = make_problem(plain_setting(p, 2, 3, 4));
  describe_case("%s backward without state", p->name);
  q.args.state = NULL;
  check(run_backward(&q) == DALIGN_BAD_ARGUMENT, "backward takes it");
  free_problem(&q);
}

static void test_bad_features(const precision *p) {
  setting s = plain_setting(p, 2, 3, 4);
  s.metric = DALIGN_NLL;
  s.d = 5;
  problem q = make_problem(s);
  static const int64_t labels[] = {-1, 5, INT64_MAX, INT64_MIN};
  for (int k = 0; k < 4; k++) {
    ((int64_t *)q.y)[6] = labels[k];
    describe_case("%s label %lld of 5", p->name, (long long)labels[k]);
    expect_bad(&q, "label");
  }
  ((int64_t *)q.y)[6] = 0;
  q.args.metric = (dalign_metric)17;
  expect_bad(&q, "metric 17");
  free_problem(&q);
}

static void test_empty(const precision *p) {
  problem q = make_problem(plain_setting(p, 0, 3, 4));
  check(run_forward(&q) == DALIGN_OK && run_backward(&q) == DALIGN_OK && run_gradient(&q) == DALIGN_OK,
        "an empty batch is not OK");
  free_problem(&q);
}

static void run_group(const char *name, void (*test)(const precision *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(precisions[k]);
  end_group();
}

int main(void) {
  run_group("the reference against all paths", test_reference);
  run_group("the reference's Hessian product against differences", test_reference_hvp);
  run_group("costs: odd sizes", test_sizes);
  run_group("costs: long and thin", test_long_thin);
  run_group("costs: lengths, poisoned padding", test_lengths);
  run_group("costs: bands", test_bands);
  run_group("costs and features: step weights", test_weights);
  run_group("costs: any sign", test_signs);
  run_group("blocked: each cell", test_each_cell_blocked);
  run_group("blocked: many cells", test_blocked);
  run_group("blocked: walls", test_walls);
  run_group("NaN and -inf stay in their item", test_nan);
  run_group("NaN outside the band", test_nan_outside_band);
  run_group("costs: gamma 1e-4 .. 1e3, scale 1e-3 .. 1e5", test_gammas_lattice);
  run_group("features: gamma 1e-4 .. 1e3, scale 1, 10, 100", test_gammas_features);
  run_group("costs: steep slopes", test_steep);
  run_group("costs: forbidding but finite", test_forbidding);
  run_group("features: common offset", test_offset);
  run_group("features: metrics and depths", test_features);
  run_group("features: lengths, bands, weights", test_features_varied);
  run_group("features: larger", test_features_large);
  run_group("Hessian product", test_hvp);
  run_group("Hessian product of a single path", test_hvp_single_path);
  run_group("Hessian product against differences", test_hvp_differences);
  run_group("Hessian product, NaN", test_hvp_nan);
  run_group("pipeline: 1, 2, 3 threads", test_pipeline);
  run_group("pipeline: extreme numbers", test_pipeline_extreme);
  run_group("content of the memory", test_memory_content);
  run_group("range of items", test_range);
  run_group("optional results", test_optional_results);
  run_group("unaligned arrays", test_alignment);
  run_group("bad gamma, band, weights", test_bad_settings);
  run_group("bad lengths", test_bad_lengths);
  run_group("missing state", test_missing_state);
  run_group("bad labels and metric", test_bad_features);
  run_group("empty batch", test_empty);
  return report();
}
