/* Body of dilate.c for one element type: value, functional and their derivatives, in waves. */
#include "waves.h"

#undef twin
#define twin FN(dilate_twin)

/* m 2^e and its tangent q 2^e. */
typedef struct {
  vec m, e, q;
} twin;

/* ------------------------------------------------------------------------------------------------ twins */

DALIGN_INLINE twin FN(load_twin_)(lanes_row r, int64_t k) {
  const twin v = {v_loadu(r.m + k), v_loadu(r.e + k), v_loadu(r.q + k)};
  return v;
}

DALIGN_INLINE void FN(store_twin_)(lanes_row r, int64_t k, twin v) {
  v_store(r.m + k, v.m);
  v_store(r.e + k, v.e);
  v_store(r.q + k, v.q);
}

DALIGN_INLINE twin FN(sum_twins_)(const twin *terms, int count) {
  vec e = v_set1(SCALED_NONE), m = v_zero(), q = v_zero();
  for (int s = 0; s < count; s++) e = v_max(terms[s].e, e);
  for (int s = 0; s < count; s++) {
    const vec down = v_sub(terms[s].e, e);
    m = v_add(m, v_ldexp(terms[s].m, down));
    q = v_add(q, v_ldexp(terms[s].q, down));
  }
  const twin sum = {m, e, q};
  return sum;
}

/* Where no path comes by, a given penalty may be anything. */
DALIGN_INLINE vec FN(paid_)(const waves *w, vec penalty, vec m) {
  return w->penalty ? v_keep_below(penalty, v_zero(), m) : penalty;
}

/* A step by a factor into a cell with that penalty. */
DALIGN_INLINE twin FN(step_twin_)(const waves *w, twin v, scaled factor, vec penalty) {
  twin next;
  next.m = v_mul(v.m, factor.m);
  next.e = v_max(v_add(v.e, factor.e), v_set1(SCALED_NONE));
  next.q = v_muladd(FN(paid_)(w, penalty, next.m), next.m, v_mul(v.q, factor.m));
  return next;
}

/* 1 <= m < 2, so the exponent moves by what m's own was: within the range in which a power of two is a number. */
DALIGN_INLINE twin FN(normalise_twin_)(twin v) {
  const scaled s = scaled_normalise(v.m, v.e);
  const twin w = {s.m, s.e, v_ldexp(v.q, v_min(v_sub(v.e, s.e), v_set1(100)))};
  return w;
}

DALIGN_INLINE twin FN(mask_twin_)(twin v, const REAL *allow, int64_t k) {
  if (!allow) return v;
  const vec open = v_loadu(allow + k);
  const twin w = {v_mul(v.m, open), v_add(v.e, FN(bar_)(open)), v_mul(v.q, open)};
  return w;
}

/* ------------------------------------------------------------------------------------------------ penalties */

/* Omega in the lanes of a vector. */
DALIGN_INLINE vec FN(penalty_)(const waves *w, int64_t t, int64_t k) {
  if (w->penalty) return v_load(FN(block_row_)(w, w->penalty, t) + k);
  REAL lanes[LANES];
  for (int r = 0; r < LANES; r++) lanes[r] = (REAL)r;
  const vec lane = v_add(v_loadu(lanes), v_set1((REAL)k));
  const vec fixed = v_set1((REAL)t);
  const vec i = w->order == WAVES_ROWS ? fixed : lane;
  const vec j = w->order == WAVES_ROWS ? lane : w->order == WAVES_COLUMNS ? fixed : v_sub(fixed, lane);
  if (w->path->penalty == DALIGN_PENALTY_RELATIVE) {
    const vec apart =
        v_sub(v_mul(i, v_set1((REAL)(1 / (double)w->it.n))), v_mul(j, v_set1((REAL)(1 / (double)w->it.m))));
    return v_mul(apart, apart);
  }
  const vec apart = v_sub(i, j);
  return w->path->penalty == DALIGN_PENALTY_ABSOLUTE ? v_abs(apart) : v_mul(apart, apart);
}

/* ------------------------------------------------------------------------------------------------ forward */

DALIGN_INLINE twin FN(forward_twin_)(const waves *w, const FN(wave) * v, int64_t k, vec c, vec penalty, int unit,
                                     int steps) {
  twin terms[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) terms[s] = FN(mask_twin_)(FN(load_twin_)(v->from[s], k), v->allow[w->channel[s]], k);
  if (unit) {
    const twin sum = FN(sum_twins_)(terms, steps);
    return FN(step_twin_)(w, sum, exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)), penalty);
  }
  for (int s = 0; s < steps; s++) {
    const vec weight = v_loadu(v->weights[w->class_of[w->channel[s]]] + k);
    terms[s] = FN(step_twin_)(w, terms[s], FN(weighted_exp2_)(w, c, weight), v_mul(weight, penalty));
  }
  return FN(sum_twins_)(terms, steps);
}

DALIGN_INLINE twin FN(start_twin_)(waves *w, int64_t t, int64_t k, vec c, vec penalty) {
  const scaled p = FN(start_)(w, t, k, c);
  const twin v = {p.m, p.e, v_mul(FN(paid_)(w, penalty, p.m), p.m)};
  return v;
}

DALIGN_INLINE void FN(forward_twins_)(waves *w, int64_t t, const FN(wave) * v, int unit, int steps) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0);
  const lanes_row out = FN(prefix_row_)(w, t);
  const REAL *cost = FN(cost_row_)(w, t);
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k), penalty = FN(penalty_)(w, t, k);
    twin p = FN(forward_twin_)(w, v, k, c, penalty, unit, steps);
    if (FN(meets_)(starts, k)) {
      const twin both[2] = {p, FN(start_twin_)(w, t, k, c, penalty)};
      p = FN(sum_twins_)(both, 2);
    }
    FN(store_twin_)(out, k, FN(normalise_twin_)(p));
  }
}

static void FN(sweep_twins_)(waves *w) {
  FN(wave) v;
  for (int64_t t = w->first; t < w->end; t++) {
    FN(open_wave_)(w, t, &v);
    FN(clear_margins_)(w, FN(prefix_row_)(w, t), t);
    FN(forward_twins_)(w, t, &v, w->unit, w->steps);
  }
}

/* ------------------------------------------------------------------------------------------------ backward
 *
 * With P, Q = sum over paths up to a cell and of their penalties, B, R the same behind it, a cell's derivatives are
 *   d value / d C = P B / Z =: h,     d T / d C = -(Q B + P R - T P B) / (Z gamma),     d T / d Omega = h
 * by unit weights; by others the same for each step into the cell, times its weight. */

typedef struct {
  vec value, functional; /* grad_value / Z, -grad_functional / (Z gamma): mantissas */
  vec mass;              /* grad_functional / Z */
  vec mean, offset;      /* T; the exponent of 1 / Z */
} FN(upstream);

typedef struct {
  vec slope, mass;
} FN(slopes);

DALIGN_INLINE FN(slopes) FN(slopes_of_)(twin p, twin b, FN(upstream) u) {
  const vec both = v_mul(p.m, b.m), e = v_add(v_add(p.e, b.e), u.offset);
  const vec apart = v_muladd(p.m, b.q, v_fma(p.q, b.m, v_sub(v_zero(), v_mul(u.mean, both))));
  const FN(slopes)
      s = {v_ldexp(v_muladd(apart, u.functional, v_mul(both, u.value)), e), v_ldexp(v_mul(both, u.mass), e)};
  return s;
}

DALIGN_INLINE twin FN(follow_twin_)(waves *w, int64_t t, int64_t k, const lanes_row *next, int steps, int is_end) {
  twin terms[DALIGN_DDTW_STEPS + 1];
  for (int s = 0; s < steps; s++) terms[s] = FN(load_twin_)(next[s], k);
  if (!is_end) return FN(sum_twins_)(terms, steps);
  const scaled ended = FN(end_factors_)(w, t, k, 1, w->ring_base);
  const twin b = {ended.m, ended.e, v_zero()};
  terms[steps] = b;
  return FN(sum_twins_)(terms, steps + 1);
}

static void FN(add_mean_)(waves *w, vec mean) {
  REAL sums[LANES];
  v_storeu(sums, mean);
  for (int r = 0; r < LANES; r++) w->mean_cost += (double)sums[r];
}

/* Every step's part times its weight. */
static FN(slopes) FN(weighted_slopes_)(const waves *w, const FN(wave) * v, int64_t k, const twin *q, FN(upstream) u) {
  FN(slopes) sum = {v_zero(), v_zero()};
  for (int s = 0; s < w->steps; s++) {
    const int channel = w->channel[s];
    const vec weight = v_loadu(v->weights[w->class_of[channel]] + k);
    const FN(slopes) part = FN(slopes_of_)(FN(load_twin_)(v->from[s], k), q[channel], u);
    sum.slope = v_muladd(part.slope, weight, sum.slope);
    sum.mass = v_muladd(part.mass, weight, sum.mass);
  }
  return sum;
}

DALIGN_INLINE void FN(backward_twins_)(waves *w, int64_t t, const FN(wave) * v, FN(upstream) u, int unit, int steps,
                                       int channels) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0), ends = FN(span_)(w, t, &w->it.args->end, 1);
  const lanes_row prefix = FN(prefix_row_)(w, t);
  REAL *cost = FN(cost_row_)(w, t), *out = FN(block_row_)(w, w->slope, t);
  lanes_row next[DALIGN_DDTW_STEPS], ring[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++)
    next[s] = FN(row_at_)(FN(ring_row_)(w, w->channel[s], t + w->step_back[s]), w->step_over[s]);
  for (int c = 0; c < channels; c++) ring[c] = FN(ring_row_)(w, c, t);
  vec mean = v_zero();
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k), penalty = FN(penalty_)(w, t, k);
    const twin p = FN(load_twin_)(prefix, k), b = FN(follow_twin_)(w, t, k, next, steps, FN(meets_)(ends, k));
    const scaled one = unit ? exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)) : scaled_zero();
    twin q[DALIGN_DDTW_STEPS];
    for (int x = 0; x < channels; x++) {
      const vec weight = unit ? v_set1(1) : v_loadu(v->weights[w->class_of[x]] + k);
      const vec paid = FN(paid_)(w, unit ? penalty : v_mul(weight, penalty), p.m);
      q[x] = FN(step_twin_)(w, b, unit ? one : FN(weighted_exp2_)(w, c, weight), paid);
      q[x] = FN(normalise_twin_)(FN(mask_twin_)(q[x], v->allow[x], k));
      FN(store_twin_)(ring[x], k, q[x]);
    }
    FN(slopes) slopes = unit ? FN(slopes_of_)(p, b, u) : FN(weighted_slopes_)(w, v, k, q, u);
    if (!unit && FN(meets_)(starts, k)) {
      const FN(slopes) started = FN(slopes_of_)(FN(start_twin_)(w, t, k, c, penalty), b, u);
      slopes.slope = v_add(slopes.slope, started.slope), slopes.mass = v_add(slopes.mass, started.mass);
    }
    mean = v_add(mean, v_keep_below(v_mul(slopes.slope, c), c, v_set1((REAL)INFINITY)));
    v_store(out + k, slopes.slope);
    if (w->mass) v_store(FN(block_row_)(w, w->mass, t) + k, slopes.mass);
  }
  FN(add_mean_)(w, mean);
}

static double FN(grad_functional_)(const waves *w) {
  return w->path->grad_functional ? ddtw_get(w->path->grad_functional, w->it.is_float, w->it.item) : 1;
}

static FN(upstream) FN(upstream_)(const waves *w) {
  const double along = FN(grad_functional_)(w);
  const FN(upstream) u = {v_set1((REAL)(ddtw_factor(&w->it) / w->sum_m)),
                          v_set1((REAL)(-along / (w->sum_m * w->gamma))), v_set1((REAL)(along / w->sum_m)),
                          v_set1((REAL)(w->sum_q / w->sum_m)), v_set1((REAL)(w->base + w->ring_base - w->sum_e))};
  return u;
}

static void FN(backward_path_block_)(waves *w) {
  FN(wave) v;
  const FN(upstream) u = FN(upstream_)(w);
  for (int64_t t = w->end - 1; t >= w->first; t--) {
    FN(open_wave_)(w, t, &v);
    for (int c = 0; c < w->channels; c++) FN(clear_margins_)(w, FN(ring_row_)(w, c, t), t);
    FN(backward_twins_)(w, t, &v, u, w->unit, w->steps, w->channels);
  }
}

#include "dilate_strips.h"

/* ------------------------------------------------------------------------------------------------ an item */

static void FN(prepare_frames_)(waves *w) {
  const dalign_dilate_args *p = w->path;
  if (p->lattice.cost) return;
  const size_t size = w->it.is_float ? sizeof(float) : sizeof(double);
  const int64_t x_at = w->it.item * p->lattice.n * p->d, y_at = w->it.item * p->lattice.m * p->d;
  const char *x = (const char *)p->x + (size_t)x_at * size, *y = (const char *)p->y + (size_t)y_at * size;
  if (p->metric == DALIGN_NLL) y = (const char *)p->y + sizeof(int64_t) * (size_t)(w->it.item * p->lattice.m);
  if (FN(dalign_features_prepare)(&w->frames, p->metric, w->it.n, w->it.m, p->d, x, y, w->it.is_float,
                                  dilate_needs_gradient(p), w->frames_memory))
    w->fit = WAVES_NAN;
  w->frames.x_alone = !p->grad_y;
}

static void FN(finish_frames_)(const waves *w) {
  const dalign_dilate_args *p = w->path;
  if (!p->grad_x && !p->grad_y) return;
  const size_t size = w->it.is_float ? sizeof(float) : sizeof(double);
  const size_t x_at = (size_t)(w->it.item * p->lattice.n * p->d) * size;
  const size_t y_at = (size_t)(w->it.item * p->lattice.m * p->d) * size;
  FN(dalign_features_finish)(&w->frames, (const char *)p->x + x_at,
                             p->metric == DALIGN_NLL ? NULL : (const char *)p->y + y_at, 1,
                             p->grad_x ? (char *)p->grad_x + x_at : NULL, p->grad_y ? (char *)p->grad_y + y_at : NULL);
}

/* Of the band, in |i (m-1) - j (n-1)|. */
static double FN(reach_)(const waves *w, ddtw_item it) {
  if (w->path->band < 0 || it.n + it.m == 2) return INFINITY;
  return w->path->band * (double)((it.n > it.m ? it.n : it.m) - 1);
}

/* WAVES_FIT, and the results stand; or why this element type, or this gamma, is not the right one. */
static waves_fit FN(run_path_)(waves *w, ddtw_item it, double gamma) {
  const dalign_dilate_args *p = w->path;
  FN(enter_item_)(w, it, gamma, FN(reach_)(w, it));
  if (w->fit == WAVES_FIT) FN(prepare_frames_)(w);
  void (*const sweep)(waves *) = FN(has_strips_)(w) ? FN(sweep_strips_) : FN(sweep_twins_);
  void (*const adjoint)(waves *) = FN(has_strips_)(w) ? FN(return_strips_) : FN(backward_path_block_);
  if (w->fit == WAVES_FIT) FN(go_forward_)(w, sweep);
  if (w->fit == WAVES_TOO_FAR) return w->fit;
  const double value = w->fit == WAVES_NAN ? NAN : FN(value_)(w);
  dilate_put_values(p, &it, value, value < INFINITY ? w->sum_q / w->sum_m : isnan(value) ? NAN : 0);
  if (!dilate_needs_gradient(p)) return WAVES_FIT;
  dilate_fill_gradients(p, &it, isnan(value) ? NAN : 0);
  if (!(value < INFINITY)) return WAVES_FIT;
  FN(go_back_)(w, sweep, adjoint);
  if (w->fit != WAVES_FIT) return w->fit;
  FN(finish_frames_)(w);
  if (p->lattice.mean_cost) p->lattice.mean_cost[it.item] = w->mean_cost;
  return WAVES_FIT;
}
