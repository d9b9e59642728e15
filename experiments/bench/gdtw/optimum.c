/* optimum.c: how often the lattice search of csrc/gdtw.c misses the best warp known. Built and run by optimum.py.
 *
 * optimum FIRST COUNT LEAST MOST [grids]: random problems of seeds [FIRST, FIRST + COUNT), each with LEAST to MOST knots and
 * as many samples. A line for each: its kind, numbers of knots and samples, and for each quality, and for a search much
 * finer than any of them, the objective and milliseconds of thread CPU time. With grids only problems without bounds, and
 * in a last column the method of the DecDTW paper. */
#include "gdtw.c"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KINDS = 8, MOST_FEATURES = 6 };
static const char *const kind_names[KINDS] = {"plain",  "slopes", "band",    "free",
                                              "uneven", "tight",  "related", "free slopes"};

enum { SCHEDULES = 4 };
static const char *const schedule_names[SCHEDULES] = {"fast", "default", "thorough", "finest"};
static const gdtw_schedule finest = {511, 1 << 23, 16383, 2047, 2047, 4, 256};

static const gdtw_schedule *schedule_of(int number) { return number < 3 ? &gdtw_schedules[number] : &finest; }

/* ---------------------------------------------------------------- random problems */

static uint64_t state;

static double uniform(void) { /* splitmix64 */
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static double between(double low, double high) { return low + (high - low) * uniform(); }

/* A function on [0, 1]: waves of random phase, slower ones larger. */
enum { MOST_WAVES = 128 };
typedef struct {
  int waves;
  double amplitude[MOST_WAVES], phase[MOST_WAVES];
} function;

static function random_function(int waves) {
  function s = {.waves = waves};
  for (int k = 0; k < waves; k++) s.amplitude[k] = between(-1, 1) / sqrt(1 + k), s.phase[k] = between(0, 6.2831853);
  return s;
}

static double value_of(const function *s, double at) {
  double sum = 0;
  for (int k = 0; k < s->waves; k++) sum += s->amplitude[k] * sin(3.14159265 * (k + 1) * at + s->phase[k]);
  return sum;
}

typedef struct {
  dalign_gdtw_args args;
  int kind;
  double *memory, *x, *y, *tx, *ty, *low, *high, lambda, least, most;
} problem;

static void fill_times(double *t, int64_t count, int uneven) {
  t[0] = 0;
  for (int64_t k = 1; k < count; k++) t[k] = t[k - 1] + (uneven ? between(.3, 1.7) : 1);
  for (int64_t k = 0; k < count; k++) t[k] /= t[count - 1];
}

/* y is x played along a random growing warp and changed a little, or another function altogether. */
static void fill_features(problem *p, int related) {
  const dalign_gdtw_args *a = &p->args;
  const double bend = between(-.15, .15), change = related ? between(.02, .3) : 1;
  const int waves = (int)between(6, fmin((double)a->m / 2, MOST_WAVES) + 1); /* up to half a wave in two frames */
  for (int64_t f = 0; f < a->d; f++) {
    const function shape = random_function(waves), other = random_function(waves);
    for (int64_t i = 0; i < a->n; i++) p->x[i * a->d + f] = value_of(&shape, p->tx[i]);
    for (int64_t k = 0; k < a->m; k++) {
      const double v = p->ty[k], warped = v + bend * sin(6.2831853 * v);
      p->y[k * a->d + f] = (related ? value_of(&shape, warped) : 0) + change * value_of(&other, v);
    }
  }
}

static void fill_problem(problem *p) {
  dalign_gdtw_args *a = &p->args;
  const int uneven = p->kind == 4, tight = p->kind == 5;
  fill_times(p->tx, a->n, uneven);
  fill_times(p->ty, a->m, uneven);
  fill_features(p, p->kind == 6 || uniform() < .5);
  p->lambda = pow(10, between(-4, log10(.3)));
  a->reg_weight = (dalign_series){&p->lambda, 0, 0};
  a->x_times = (dalign_series){p->tx, 0, 1}, a->y_times = (dalign_series){p->ty, 0, 1};
  a->fixed_start = a->fixed_end = p->kind != 3 && p->kind != 7;
  p->least = tight ? .6 : .3, p->most = tight ? 1.6 : 2.2;
  if (p->kind == 1 || tight || p->kind == 7)
    a->slope_min = (dalign_series){&p->least, 0, 0}, a->slope_max = (dalign_series){&p->most, 0, 0};
  const double half = between(.05, .2);
  for (int64_t i = 0; i < a->n; i++) p->low[i] = p->tx[i] - half, p->high[i] = p->tx[i] + half;
  if (p->kind == 2) a->band_min = (dalign_series){p->low, 0, 1}, a->band_max = (dalign_series){p->high, 0, 1};
}

static problem random_problem(uint64_t seed, int kind, int least, int most) {
  problem p = {.kind = kind};
  state = seed * 7919 + 1;
  dalign_gdtw_args *a = &p.args;
  a->batch = 1, a->n = (int64_t)between(least, most + 1), a->m = (int64_t)between(least, most + 1);
  a->d = (int64_t)between(3, MOST_FEATURES + 1);
  p.memory = malloc((size_t)(most * (2 * MOST_FEATURES + 4)) * sizeof(double));
  p.x = p.memory, p.y = p.x + most * MOST_FEATURES, p.tx = p.y + most * MOST_FEATURES;
  p.ty = p.tx + most, p.low = p.ty + most, p.high = p.low + most;
  a->x = p.x, a->y = p.y;
  return p;
}

/* ---------------------------------------------------------------- solving */

static double milliseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Objective after search and polish. */
static double solve(const dalign_gdtw_args *a, const gdtw_schedule *s, double *time) {
  dalign_arena count = {0};
  gdtw_forward f;
  gdtw_cut_item(&f.item, a, &count);
  gdtw_cut_lattice(&f.lattice, a, s, &count);
  gdtw_cut_polish(&f.polish, a, &count);
  void *memory = malloc(dalign_arena_bytes(&count));
  dalign_arena arena = dalign_arena_over(memory);
  gdtw_cut_item(&f.item, a, &arena);
  gdtw_cut_lattice(&f.lattice, a, s, &arena);
  gdtw_cut_polish(&f.polish, a, &arena);
  double value = INFINITY;
  const double start = milliseconds();
  if (gdtw_read_item(&f.item, a, 0, 0) && gdtw_reach(&f.item) < 0) {
    gdtw_open_chain(&f.polish.chain, &f.item);
    gdtw_stage(&f.lattice, &f.item);
    gdtw_search(&f.lattice, s, f.polish.chain.phi);
    gdtw_polish_warp(&f.polish);
    value = gdtw_objective(&f.polish.chain);
  }
  *time = milliseconds() - start;
  free(memory);
  return value;
}

/* ---------------------------------------------------------------- the paper's method
 *
 * Its section 4.1 and its authors' program: max(m + 1, 50) values from bound to bound of each knot, all edges between
 * neighbours, then three times the same between bounds an eighth as far apart around the path, cut to the last ones. The
 * path of the last grid is the result. All in double. */

enum { PASSES = 4 };

typedef struct {
  const problem *p;
  int values;
  double *low, *high, *cost,
      *before; /* bounds of the knots; of paths that end at a value of this knot, and the last one */
  int *from;   /* (n, values) */
} grids;

static double grid_value(const grids *g, int64_t i, int k) {
  return g->low[i] + (g->high[i] - g->low[i]) * k / (g->values - 1);
}

/* w_i |x_i - y(v)|^2 */
static double node_cost(const problem *p, int64_t i, double v) {
  const dalign_gdtw_args *a = &p->args;
  const double w = ((i ? p->tx[i] - p->tx[i - 1] : 0) + (i + 1 < a->n ? p->tx[i + 1] - p->tx[i] : 0)) / 2;
  int64_t k = (int64_t)(v * (double)(a->m - 1)); /* y's times are uniform */
  k = k < 0 ? 0 : k > a->m - 2 ? a->m - 2 : k;
  const double u = (v - p->ty[k]) / (p->ty[k + 1] - p->ty[k]);
  double sum = 0;
  for (int64_t f = 0; f < a->d; f++) {
    const double e = p->x[i * a->d + f] - (1 - u) * p->y[k * a->d + f] - u * p->y[(k + 1) * a->d + f];
    sum += e * e;
  }
  return w * sum;
}

static double edge_cost(const problem *p, int64_t i, double step) {
  const double dt = p->tx[i + 1] - p->tx[i], slope = step / dt - 1;
  return step < 0 ? INFINITY : p->lambda * dt * slope * slope;
}

/* Costs of paths to the values of knot i + 1. */
static void grid_step(grids *g, int64_t i) {
  for (int k = 0; k < g->values; k++) {
    const double v = grid_value(g, i + 1, k);
    double least = INFINITY;
    int best = 0;
    for (int j = 0; j < g->values; j++) {
      const double cost = g->before[j] + edge_cost(g->p, i, v - grid_value(g, i, j));
      if (cost < least) least = cost, best = j;
    }
    g->cost[k] = least + node_cost(g->p, i + 1, v);
    g->from[(i + 1) * g->values + k] = best;
  }
}

/* The best path through the grid, into phi. */
static void grid_path(grids *g, double *phi) {
  const int64_t n = g->p->args.n;
  for (int k = 0; k < g->values; k++) g->before[k] = node_cost(g->p, 0, grid_value(g, 0, k));
  for (int64_t i = 0; i + 1 < n; i++) {
    grid_step(g, i);
    memcpy(g->before, g->cost, (size_t)g->values * sizeof *g->before);
  }
  int k = 0;
  for (int q = 0; q < g->values; q++) k = g->before[q] < g->before[k] ? q : k;
  for (int64_t i = n - 1; i >= 0; i--) {
    phi[i] = grid_value(g, i, k);
    k = g->from[i * g->values + k];
  }
}

static void grid_shrink(grids *g, const double *phi) {
  for (int64_t i = 0; i < g->p->args.n; i++) {
    const double half = .5 * .125 * (g->high[i] - g->low[i]);
    g->low[i] = fmax(g->low[i], phi[i] - half), g->high[i] = fmin(g->high[i], phi[i] + half);
  }
}

static double objective_of(const problem *p, const double *phi) {
  double sum = 0;
  for (int64_t i = 0; i < p->args.n; i++) sum += node_cost(p, i, phi[i]);
  for (int64_t i = 0; i + 1 < p->args.n; i++) sum += edge_cost(p, i, phi[i + 1] - phi[i]);
  return sum;
}

static double solve_by_grids(const problem *p, double *time) {
  const int64_t n = p->args.n;
  grids g = {.p = p, .values = p->args.m + 1 > 50 ? (int)p->args.m + 1 : 50};
  double *memory = malloc((size_t)(3 * n + 2 * g.values) * sizeof(double)), *phi = memory;
  g.low = phi + n, g.high = g.low + n, g.cost = g.high + n, g.before = g.cost + g.values;
  g.from = calloc((size_t)(n * g.values), sizeof *g.from);
  for (int64_t i = 0; i < n; i++) g.low[i] = 0, g.high[i] = 1;
  if (p->args.fixed_start) g.high[0] = 0, g.low[n - 1] = 1;
  const double start = milliseconds();
  for (int pass = 0; pass < PASSES; pass++) {
    grid_path(&g, phi);
    grid_shrink(&g, phi);
  }
  *time = milliseconds() - start;
  const double value = objective_of(p, phi);
  free(memory), free(g.from);
  return value;
}

/* ---------------------------------------------------------------- the whole */

static void print_problem(uint64_t seed, int least, int most, int with_grids) {
  const int kind = with_grids ? (seed % 2 ? 3 : 0) : (int)(seed % KINDS);
  problem p = random_problem(seed, kind, least, most);
  double time;
  fill_problem(&p);
  printf("%s,%d,%d", kind_names[kind], (int)p.args.n, (int)p.args.m);
  for (int c = 0; c < SCHEDULES; c++) {
    const double value = solve(&p.args, schedule_of(c), &time);
    printf(",%.12g,%.4f", value, time);
  }
  if (with_grids) {
    const double value = solve_by_grids(&p, &time);
    printf(",%.12g,%.4f", value, time);
  }
  printf("\n");
  free(p.memory);
}

int main(int count, char **words) {
  const int with_grids = count == 6 && !strcmp(words[5], "grids");
  if (count != 5 && !with_grids) return 2;
  const uint64_t first = strtoull(words[1], NULL, 10), problems = strtoull(words[2], NULL, 10);
  printf("kind,n,m");
  for (int c = 0; c < SCHEDULES; c++) printf(",%s,ms", schedule_names[c]);
  printf(with_grids ? ",grids,ms\n" : "\n");
  for (uint64_t seed = first; seed < first + problems; seed++)
    print_problem(seed, atoi(words[3]), atoi(words[4]), with_grids);
  return 0;
}
