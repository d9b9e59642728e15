/* Body of ddtw.c for one element type: value and derivatives of softmin in waves. */
#include "waves.h"

/* ------------------------------------------------------------------------------------------------ forward */

DALIGN_INLINE scaled FN(forward_weighted_)(const waves *w, const FN(wave) * v, int64_t k, vec c) {
  scaled factor[DALIGN_DDTW_STEPS], terms[DALIGN_DDTW_STEPS];
  for (int g = 0; g < w->classes; g++) factor[g] = FN(weighted_exp2_)(w, c, v_loadu(v->weights[g] + k));
  for (int s = 0; s < w->steps; s++)
    terms[s] = FN(product_)(FN(before_)(w, v, s, k), factor[w->class_of[w->channel[s]]]);
  return FN(sum_)(terms, w->steps);
}

DALIGN_INLINE scaled FN(forward_unit_)(const waves *w, const FN(wave) * v, int steps, int64_t k, vec c) {
  scaled terms[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) terms[s] = FN(before_)(w, v, s, k);
  const scaled factor = exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)), sum = FN(sum_)(terms, steps);
  return FN(product_)(sum, factor);
}

/* P of a wave. steps: their number where the compiler shall know it (0: any). */
DALIGN_INLINE void FN(forward_wave_)(waves *w, int64_t t, const FN(wave) * v, int unit, int steps) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0);
  const lanes_row out = FN(prefix_row_)(w, t);
  const REAL *cost = FN(cost_row_)(w, t);
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k);
    scaled p = unit ? FN(forward_unit_)(w, v, steps ? steps : w->steps, k, c) : FN(forward_weighted_)(w, v, k, c);
    if (FN(meets_)(starts, k)) {
      const scaled both[2] = {p, FN(start_)(w, t, k, c)};
      p = FN(sum_)(both, 2);
    }
    FN(store_lanes_)(out, k, scaled_normalise(p.m, p.e));
  }
}

static void FN(sweep_block_)(waves *w) {
  FN(wave) v;
  for (int64_t t = w->first; t < w->end; t++) {
    FN(open_wave_)(w, t, &v);
    FN(clear_margins_)(w, FN(prefix_row_)(w, t), t);
    if (!w->unit)
      FN(forward_wave_)(w, t, &v, 0, 0);
    else if (w->steps == 2)
      FN(forward_wave_)(w, t, &v, 1, 2);
    else if (w->steps == 3)
      FN(forward_wave_)(w, t, &v, 1, 3);
    else
      FN(forward_wave_)(w, t, &v, 1, 0);
  }
}

/* ------------------------------------------------------------------------------------------------ backward */

/* B: what follows a cell. */
DALIGN_INLINE scaled FN(follow_)(const lanes_row *next, int steps, int64_t k) {
  scaled terms[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) terms[s] = FN(load_lanes_)(next[s], k);
  return FN(sum_)(terms, steps);
}

static void FN(add_start_slopes_)(waves *w, int64_t t, int64_t k, vec shares) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->is_trial) return;
  REAL share[LANES];
  v_storeu(share, shares);
  for (int r = 0; r < LANES; r++) {
    if (share[r] == 0) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    w->mean_cost += (double)share[r] * ddtw_start(&w->it, i, j);
    if (a->grad_start) ddtw_add(a->grad_start, w->it.is_float, ddtw_end_at(&w->it, &a->start, i, j), (double)share[r]);
  }
}

static void FN(add_end_slopes_)(waves *w, int64_t t, int64_t k, vec shares) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->is_trial) return;
  REAL share[LANES];
  v_storeu(share, shares);
  for (int r = 0; r < LANES; r++) {
    if (share[r] == 0) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    w->mean_cost += (double)share[r] * ddtw_end(&w->it, i, j);
    if (a->grad_end) ddtw_add(a->grad_end, w->it.is_float, ddtw_end_at(&w->it, &a->end, i, j), (double)share[r]);
  }
}

static void FN(add_weight_slopes_)(waves *w, int64_t t, int64_t k, int step, vec shares, vec c) {
  REAL share[LANES], cost[LANES];
  v_storeu(share, shares);
  v_storeu(cost, c);
  for (int r = 0; r < LANES; r++)
    if (share[r] != 0)
      ddtw_add_weight(&w->it, &w->weights, FN(row_of_)(w, t, k + r), FN(column_of_)(w, t, k + r), w->step[step],
                      (double)share[r] * (double)cost[r]);
}

/* H of weighted steps: every step's share times its weight. */
static vec FN(weighted_slope_)(waves *w, const FN(wave) * v, int64_t t, int64_t k, vec c, const scaled *q,
                               FN(share) z) {
  vec slope = v_zero();
  for (int s = 0; s < w->steps; s++) {
    const int channel = w->channel[s];
    const vec share = FN(share_of_)(FN(load_lanes_)(v->from[s], k), q[channel], z);
    slope = v_muladd(share, v_loadu(v->weights[w->class_of[channel]] + k), slope);
    if (w->it.args->grad_weights && !w->is_trial) FN(add_weight_slopes_)(w, t, k, s, share, c);
  }
  return slope;
}

DALIGN_INLINE void FN(backward_wave_)(waves *w, int64_t t, const FN(wave) * v, FN(share) z, int unit, int steps,
                                      int channels) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0), ends = FN(span_)(w, t, &w->it.args->end, 1);
  const lanes_row prefix = FN(prefix_row_)(w, t);
  REAL *cost = FN(cost_row_)(w, t);
  lanes_row next[DALIGN_DDTW_STEPS], out[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) {
    next[s] = FN(row_at_)(FN(ring_row_)(w, w->channel[s], t + w->step_back[s]), w->step_over[s]);
  }
  for (int c = 0; c < channels; c++) out[c] = FN(ring_row_)(w, c, t);
  vec mean = v_zero();
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k);
    const scaled p = FN(load_lanes_)(prefix, k);
    scaled b = FN(follow_)(next, steps, k);
    if (FN(meets_)(ends, k)) {
      const scaled both[2] = {b, FN(end_factors_)(w, t, k, 1, w->ring_base)};
      FN(add_end_slopes_)(w, t, k, FN(share_of_)(p, both[1], z));
      b = FN(sum_)(both, 2);
    }
    const scaled one = unit ? exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)) : scaled_zero();
    scaled q[DALIGN_DDTW_STEPS];
    for (int x = 0; x < channels; x++) {
      const scaled factor = unit ? one : FN(weighted_exp2_)(w, c, v_loadu(v->weights[w->class_of[x]] + k));
      const scaled product = FN(product_)(b, factor);
      q[x] = scaled_normalise(v->allow[x] ? v_mul(product.m, v_loadu(v->allow[x] + k)) : product.m, product.e);
      FN(store_lanes_)(out[x], k, q[x]);
    }
    vec slope = unit && !w->it.args->grad_weights ? FN(share_of_)(p, b, z) : FN(weighted_slope_)(w, v, t, k, c, q, z);
    if (FN(meets_)(starts, k)) {
      const vec started = FN(share_of_)(FN(start_)(w, t, k, c), b, z);
      FN(add_start_slopes_)(w, t, k, started);
      if (!unit || w->it.args->grad_weights) slope = v_add(slope, started);
    }
    mean = v_add(mean, v_keep_below(v_mul(slope, c), c, v_set1((REAL)INFINITY)));
    v_store(cost + k, slope);
  }
  REAL sums[LANES];
  v_storeu(sums, mean);
  for (int r = 0; r < LANES; r++) w->mean_cost += (double)sums[r];
}

static void FN(backward_block_)(waves *w) {
  FN(wave) v;
  const double offset = w->base + w->ring_base - w->sum_e;
  const FN(share) z = {v_set1((REAL)(ddtw_factor(&w->it) / w->sum_m)), v_set1((REAL)offset)};
  for (int64_t t = w->end - 1; t >= w->first; t--) {
    FN(open_wave_)(w, t, &v);
    for (int c = 0; c < w->channels; c++) FN(clear_margins_)(w, FN(ring_row_)(w, c, t), t);
    if (!w->unit)
      FN(backward_wave_)(w, t, &v, z, 0, w->steps, w->channels);
    else if (w->steps == 3 && w->channels == 1)
      FN(backward_wave_)(w, t, &v, z, 1, 3, 1);
    else if (w->steps == 3 && w->channels == 2)
      FN(backward_wave_)(w, t, &v, z, 1, 3, 2);
    else if (w->steps == 2 && w->channels == 1)
      FN(backward_wave_)(w, t, &v, z, 1, 2, 1);
    else
      FN(backward_wave_)(w, t, &v, z, 1, w->steps, w->channels);
  }
}

/* Whether the way back adds to what the caller has, and so cannot be begun again in another element type. */
static int FN(adds_)(const waves *w) {
  const dalign_ddtw_args *a = w->it.args;
  return a->grad_start || a->grad_end || (a->grad_weights && !w->weights.count);
}

/* ------------------------------------------------------------------------------------------------ an item */

/* WAVES_FIT, and the results stand; or why this element type is not the right one. */
static waves_fit FN(run_waves_)(waves *w, ddtw_item it) {
  const dalign_ddtw_args *a = it.args;
  FN(enter_item_)(w, it, a->gamma, INFINITY);
  if (w->fit == WAVES_FIT) FN(go_forward_)(w, FN(sweep_block_));
  if (w->fit == WAVES_TOO_FAR) return w->fit;
  const double value = w->fit == WAVES_NAN ? NAN : FN(value_)(w);
  ddtw_put(a->value, it.is_float, it.item, value);
  if (!ddtw_needs_gradient(a)) return WAVES_FIT;
  if (!(value < INFINITY)) {
    ddtw_fill_gradients(&it, isnan(value) ? NAN : 0);
    return WAVES_FIT;
  }
  ddtw_clear_gradients(&it, &w->weights);
  w->is_trial = FN(adds_)(w);
  FN(go_back_)(w, FN(sweep_block_), FN(backward_block_));
  if (w->fit == WAVES_FIT && w->is_trial) {
    w->is_trial = 0;
    FN(go_back_)(w, FN(sweep_block_), FN(backward_block_));
  }
  if (w->fit != WAVES_FIT) return w->fit;
  ddtw_hand_out_weights(&it, &w->weights);
  if (a->mean_cost) a->mean_cost[it.item] = w->mean_cost;
  return WAVES_FIT;
}
