/* gdtw_item.h: one item of GDTW as its solver and its adjoint see it: the geometry in double, on the caller's memory.
 *
 * Times count from y's first one (phi too, inside), so that a late start costs no digits. Bounds are cut to y's span, and
 * slope bounds are kept as bounds of the increments phi_{i+1} - phi_i. */
#ifndef DALIGN_GDTW_ITEM_H
#define DALIGN_GDTW_ITEM_H
#include "dalign.h"
#include "memory.h"
#include "simd/names.h"

#include <math.h>
#include <string.h>

/* What holds a knot, and what ties it to the next one. */
enum { GDTW_FREE = 0, GDTW_LOW = 1, GDTW_HIGH = 2, GDTW_KINK = 3, GDTW_FIXED = 4 };
enum { GDTW_LOOSE = 0, GDTW_MIN = 1, GDTW_MAX = 2, GDTW_EQUAL = 3 };

typedef struct {
  const dalign_gdtw_args *args;
  int is_float; /* the features are float, else double */
  int64_t index, d;
  int n, m;                             /* knots, samples of y */
  const void *x, *y;                    /* of this item */
  double *t, *dt, *w;                   /* knots' times, edges, weights of the trapezoidal rule */
  double *ty;                           /* of the samples; m + 1 with a single sample, see gdtw_sample_times */
  double *lambda, *step_min, *step_max; /* of the edges */
  double *low, *high;                   /* bounds of the knots */
  double *reach_low, *reach_high;       /* what a feasible warp can reach of them */
  double s0, origin, span, tolerance;
  int uniform; /* samples at equal distances */
  int squares; /* loss and regulariser are both quadratic */
} gdtw_item;

/* Of two numbers neither of which is NaN (fmax and fmin are calls). */
static inline double gdtw_most(double a, double b) { return a > b ? a : b; }
static inline double gdtw_least(double a, double b) { return a < b ? a : b; }

/* ------------------------------------------------------------------------------------------------ penalties */

typedef struct {
  double value, first, second;
} gdtw_jet;

/* |e|^p, its second derivative taken as 0 at e = 0 where it is infinite (p < 2). */
static inline gdtw_jet gdtw_power(double e, double p) {
  const double a = fabs(e), sign = e < 0 ? -1 : 1;
  if (a < 1e-290) return (gdtw_jet){0, 0, p == 2 ? 2 : 0};
  const double below = pow(a, p - 2);
  return (gdtw_jet){below * a * a, sign * p * below * a, p * (p - 1) * below};
}

static inline gdtw_jet gdtw_huber(double e, double p) {
  const double a = fabs(e);
  if (a <= p) return (gdtw_jet){e * e, 2 * e, 2};
  return (gdtw_jet){2 * p * a - p * p, e < 0 ? -2 * p : 2 * p, 0};
}

static inline gdtw_jet gdtw_penalty(dalign_gdtw_penalty kind, double p, double e) {
  if (kind == DALIGN_GDTW_SQUARES) return (gdtw_jet){e * e, 2 * e, 2};
  return kind == DALIGN_GDTW_POWER ? gdtw_power(e, p) : gdtw_huber(e, p);
}

/* R and its derivatives at the slope of an edge over which phi grows by step. */
static inline gdtw_jet gdtw_regularizer(const gdtw_item *it, int edge, double step) {
  return gdtw_penalty(it->args->regularizer, it->args->regularizer_parameter, step / it->dt[edge] - it->s0);
}

/* ------------------------------------------------------------------------------------------------ geometry */

static inline double gdtw_at(const dalign_series *s, int64_t item, int64_t i) {
  return s->at[item * s->item + i * s->step];
}

/* The segment k with ty_k <= v < ty_{k+1}, the last one at the end. */
static inline int gdtw_segment(const gdtw_item *it, double v) {
  const int last = it->m > 2 ? it->m - 2 : 0;
  const double at = v / it->span * (last + 1);
  int low = at > 0 ? at < last ? (int)at : last : 0;
  if (it->ty[low] <= v && (low == last || v < it->ty[low + 1])) return low;
  if (it->uniform) { /* rounding took the neighbour */
    while (low > 0 && v < it->ty[low]) low--;
    while (low < last && v >= it->ty[low + 1]) low++;
    return low;
  }
  low = 0;
  for (int high = last + 1; high - low > 1;) {
    const int middle = (low + high) / 2;
    *(it->ty[middle] <= v ? &low : &high) = middle;
  }
  return low;
}

/* The sample inside of y's span at which a knot in that segment stands, or -1. */
static inline int gdtw_sample_at(const gdtw_item *it, double phi, int segment) {
  if (segment >= 1 && fabs(phi - it->ty[segment]) <= it->tolerance) return segment;
  if (segment + 1 <= it->m - 2 && fabs(phi - it->ty[segment + 1]) <= it->tolerance) return segment + 1;
  return -1;
}

/* Increment of phi over a tied edge. */
static inline double gdtw_tied_step(const gdtw_item *it, int edge, int tie) {
  return tie == GDTW_MAX ? it->step_max[edge] : it->step_min[edge];
}

static inline double gdtw_clamp(double v, double low, double high) { return v < low ? low : v > high ? high : v; }

/* ------------------------------------------------------------------------------------------------ reading an item */

static inline int gdtw_length(const int64_t *lengths, int64_t item, int64_t longest) {
  return (int)(lengths ? lengths[item] : longest);
}

static void gdtw_cut_item(gdtw_item *it, const dalign_gdtw_args *a, dalign_arena *memory) {
  const size_t n = (size_t)a->n * sizeof(double), m = (size_t)(a->m + 1) * sizeof(double);
  double **const of_knots[] = {&it->t,        &it->dt,  &it->w,    &it->lambda,    &it->step_min,
                               &it->step_max, &it->low, &it->high, &it->reach_low, &it->reach_high};
  for (size_t k = 0; k < sizeof of_knots / sizeof *of_knots; k++) *of_knots[k] = dalign_arena_take(memory, n);
  it->ty = dalign_arena_take(memory, m);
}

/* Times from 0 on; whether they are finite and grow. */
static int gdtw_times(const dalign_series *given, int64_t item, int count, double *times) {
  if (!given->at) {
    for (int k = 0; k < count; k++) times[k] = count > 1 ? (double)k / (count - 1) : 0;
    return 1;
  }
  const double first = gdtw_at(given, item, 0);
  int fine = isfinite(first);
  for (int k = 0; k < count; k++) {
    times[k] = gdtw_at(given, item, k) - first;
    fine &= isfinite(times[k]) && (k == 0 || times[k] > times[k - 1]);
  }
  return fine;
}

/* A single sample gets a twin one unit later, which nothing reads but the interpolation: y is constant, phi is 0. */
static int gdtw_sample_times(gdtw_item *it) {
  const dalign_series *given = &it->args->y_times;
  const int fine = gdtw_times(given, it->index, it->m, it->ty);
  it->origin = given->at ? gdtw_at(given, it->index, 0) : 0;
  it->span = it->m > 1 ? it->ty[it->m - 1] : 1;
  it->tolerance = 1e-12 * it->span;
  if (it->m == 1) it->ty[1] = 1;
  it->uniform = 1;
  const double h = it->span / (it->m > 1 ? it->m - 1 : 1);
  for (int k = 0; given->at && k < it->m; k++) it->uniform &= fabs(it->ty[k] - k * h) <= 1e-9 * h;
  return fine;
}

static void gdtw_weights(gdtw_item *it) {
  if (it->n == 1) it->w[0] = 1;
  for (int i = 0; i < it->n && it->n > 1; i++)
    it->w[i] = .5 * ((i > 0 ? it->dt[i - 1] : 0) + (i + 1 < it->n ? it->dt[i] : 0));
}

/* s0 where it is not given. */
static double gdtw_nominal_slope(const gdtw_item *it) {
  const dalign_gdtw_args *a = it->args;
  if (it->n == 1 || it->m == 1) return 0;
  if (a->fixed_start && a->fixed_end) return it->span / it->t[it->n - 1];
  return a->x_times.at || a->y_times.at ? 1 : (double)(it->n - 1) / (it->m - 1);
}

/* lambda, s0 and slopes; whether they are numbers. */
static int gdtw_read_edges(gdtw_item *it) {
  const dalign_gdtw_args *a = it->args;
  int fine = 1;
  it->s0 = a->nominal_slope.at ? gdtw_at(&a->nominal_slope, it->index, 0) : gdtw_nominal_slope(it);
  for (int i = 0; i + 1 < it->n; i++) {
    const double least = a->slope_min.at ? gdtw_at(&a->slope_min, it->index, i) : 0;
    const double most = a->slope_max.at ? gdtw_at(&a->slope_max, it->index, i) : INFINITY;
    it->lambda[i] = gdtw_at(&a->reg_weight, it->index, i);
    it->step_min[i] = least * it->dt[i];
    it->step_max[i] = most * it->dt[i];
    fine &= isfinite(it->lambda[i]) && it->lambda[i] >= 0 && !isnan(it->step_min[i]) && !isnan(it->step_max[i]);
  }
  return fine && isfinite(it->s0);
}

static int gdtw_is_end(const gdtw_item *it, int i) {
  return (i == 0 && it->args->fixed_start) || (i == it->n - 1 && it->args->fixed_end);
}

/* Bounds of knot i: band, y's span, and a fixed end, each taken together with the others. */
static int gdtw_read_bounds(gdtw_item *it) {
  const dalign_gdtw_args *a = it->args;
  const double last = it->m > 1 ? it->span : 0;
  int fine = 1;
  for (int i = 0; i < it->n; i++) {
    const double low = a->band_min.at ? gdtw_at(&a->band_min, it->index, i) - it->origin : -INFINITY;
    const double high = a->band_max.at ? gdtw_at(&a->band_max, it->index, i) - it->origin : INFINITY;
    it->low[i] = i == it->n - 1 && a->fixed_end ? last : 0;
    it->high[i] = i == 0 && a->fixed_start ? 0 : last;
    if (low > it->low[i]) it->low[i] = low;
    if (high < it->high[i]) it->high[i] = high;
    if (gdtw_is_end(it, i) && fabs(it->high[i] - it->low[i]) <= 1e-9 * it->span)
      it->low[i] = it->high[i] = i == 0 && a->fixed_start ? 0 : last;
    fine &= !isnan(low) && !isnan(high);
  }
  return fine;
}

/* Whether all numbers of the geometry are what they may be. */
static int gdtw_read_item(gdtw_item *it, const dalign_gdtw_args *a, int is_float, int64_t index) {
  const size_t size = is_float ? sizeof(float) : sizeof(double);
  it->args = a, it->is_float = is_float, it->index = index, it->d = a->d;
  it->n = gdtw_length(a->x_lengths, index, a->n);
  it->m = gdtw_length(a->y_lengths, index, a->m);
  it->x = (const char *)a->x + (size_t)(index * a->n * a->d) * size;
  it->y = (const char *)a->y + (size_t)(index * a->m * a->d) * size;
  it->squares = a->loss == DALIGN_GDTW_SQUARES && a->regularizer == DALIGN_GDTW_SQUARES;
  int fine = gdtw_times(&a->x_times, index, it->n, it->t);
  for (int i = 0; i + 1 < it->n; i++) it->dt[i] = it->t[i + 1] - it->t[i];
  gdtw_weights(it);
  fine &= gdtw_sample_times(it);
  fine &= gdtw_read_edges(it);
  return gdtw_read_bounds(it) & fine;
}

/* ------------------------------------------------------------------------------------------------ what can be reached */

/* Intervals that bounds and slopes leave, forwards and then backwards. Returns the first knot without room, or -1. */
static int gdtw_reach(gdtw_item *it) {
  double *low = it->reach_low, *high = it->reach_high;
  const double room = 1e-9 * it->span;
  for (int i = 0; i < it->n; i++) {
    low[i] = i ? gdtw_most(it->low[i], low[i - 1] + it->step_min[i - 1]) : it->low[i];
    high[i] = i ? gdtw_least(it->high[i], high[i - 1] + it->step_max[i - 1]) : it->high[i];
    if (low[i] > high[i] + room || (i && it->step_min[i - 1] > it->step_max[i - 1] + room)) return i;
  }
  for (int i = it->n - 2; i >= 0; i--) {
    low[i] = gdtw_most(low[i], low[i + 1] - it->step_max[i]);
    high[i] = gdtw_least(high[i], high[i + 1] - it->step_min[i]);
  }
  for (int i = 0; i < it->n; i++)
    if (low[i] > high[i]) low[i] = high[i] = .5 * (low[i] + high[i]);
  return -1;
}

/* The nearest warp, knot after knot, that meets all constraints: what can be reached leaves room for the next one. */
static void gdtw_repair(const gdtw_item *it, double *phi) {
  for (int i = 0; i < it->n; i++) {
    double low = it->reach_low[i], high = it->reach_high[i];
    if (i)
      low = gdtw_most(low, phi[i - 1] + it->step_min[i - 1]), high = gdtw_least(high, phi[i - 1] + it->step_max[i - 1]);
    phi[i] = gdtw_least(gdtw_most(phi[i], low), gdtw_most(low, high));
  }
}

#endif
