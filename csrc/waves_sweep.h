/* waves_sweep.h: ends, what a wave's recursion is made of, and the way from block to block (part of waves.h). */

/* ------------------------------------------------------------------------------------------------ ends */

/* Lanes [low, high] of a wave outside which no path starts, or ends. */
typedef struct {
  int64_t low, high;
} FN(span);

static void FN(widen_)(const waves *w, FN(span) * s, int64_t t, int64_t i, int64_t j) {
  if (i < 0 || j < 0 || i >= w->it.n || j >= w->it.m) return;
  const int64_t wave = w->order == WAVES_ROWS ? i : w->order == WAVES_COLUMNS ? j : i + j;
  const int64_t lane = w->order == WAVES_ROWS ? j : i;
  if (wave != t) return;
  if (lane < s->low) s->low = lane;
  if (lane > s->high) s->high = lane;
}

/* The first and the last cell in wave t of a side of the lattice: `count` cells along x in column j, from row i on by sign. */
static void FN(widen_by_side_)(const waves *w, FN(span) * s, int64_t t, const dalign_ends *ends, int is_end) {
  const int64_t i = is_end ? w->it.n - 1 : 0, j = is_end ? w->it.m - 1 : 0, sign = is_end ? -1 : 1;
  const int64_t along_x = ddtw_least_of(ends->along_x, w->it.n), along_y = ddtw_least_of(ends->along_y, w->it.m);
  if (along_x > 0) {
    FN(widen_)(w, s, t, i, j);
    FN(widen_)(w, s, t, i + sign * (along_x - 1), j);
    const int64_t met =
        w->order == WAVES_ROWS ? t : t - j; /* the row of column j that this wave meets, but by columns */
    if (w->order != WAVES_COLUMNS && met * sign >= i * sign && (met - i) * sign < along_x) FN(widen_)(w, s, t, met, j);
  }
  if (along_y > 0) {
    FN(widen_)(w, s, t, i, j);
    FN(widen_)(w, s, t, i, j + sign * (along_y - 1));
    const int64_t met = w->order == WAVES_COLUMNS ? t : t - i;
    if (w->order != WAVES_ROWS && met * sign >= j * sign && (met - j) * sign < along_y) FN(widen_)(w, s, t, i, met);
  }
}

static FN(span) FN(span_)(const waves *w, int64_t t, const dalign_ends *ends, int is_end) {
  FN(span) s = {INT64_MAX, -1};
  if (ends->cost) {
    s.low = FN(low_lane_)(w, t), s.high = FN(high_lane_)(w, t);
  } else {
    const int64_t from_corner = is_end ? w->waves - 1 - t : t; /* as far as the cells are along a side, at most */
    if (from_corner < ends->along_x || from_corner < ends->along_y) FN(widen_by_side_)(w, &s, t, ends, is_end);
  }
  return s;
}

static inline int FN(meets_)(FN(span) s, int64_t k) { return s.high >= k && s.low < k + LANES; }

/* exp(-cost / gamma) as m 2^e. */
static double FN(boltzmann_)(const waves *w, double cost, double *e) {
  const double power = cost * w->rate_exact, whole = nearbyint(power);
  *e = whole;
  return exp2(fma(cost, w->rate_exact, -whole));
}

/* The factor exp(-(cost of starting or ending) / gamma) in the lanes of a vector, its exponents from base on. */
static scaled FN(end_factors_)(waves *w, int64_t t, int64_t k, int is_end, double base) {
  REAL m[LANES], e[LANES];
  for (int r = 0; r < LANES; r++) {
    m[r] = 0, e[r] = SCALED_NONE;
    if (k + r < FN(low_lane_)(w, t) || k + r > FN(high_lane_)(w, t)) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    const double cost = is_end ? ddtw_end(&w->it, i, j) : ddtw_start(&w->it, i, j);
    if (cost == INFINITY) continue;
    double exponent;
    m[r] = (REAL)FN(boltzmann_)(w, cost, &exponent);
    exponent -= base;
    if (!(fabs(exponent) < WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = isnan(cost) ? WAVES_NAN : WAVES_TOO_FAR;
    e[r] = (REAL)exponent;
  }
  scaled s = {v_loadu(m), v_loadu(e)};
  return s;
}

/* Z, and its tangent where there is one, gain what ends in wave t. */
static void FN(add_ends_)(waves *w, int64_t t) {
  const FN(span) s = FN(span_)(w, t, &w->it.args->end, 1);
  const lanes_row p = FN(prefix_row_)(w, t);
  for (int64_t k = s.low; k <= s.high; k++) {
    if (p.m[k] == 0) continue;
    const double cost = ddtw_end(&w->it, FN(row_of_)(w, t, k), FN(column_of_)(w, t, k));
    if (cost == INFINITY) continue;
    double e;
    const double m = FN(boltzmann_)(w, cost, &e);
    e += (double)p.e[k] + w->base;
    if (w->sum_m == 0) w->sum_e = e;
    const double largest = e > w->sum_e ? e : w->sum_e, old = exp2(w->sum_e - largest), new = m *exp2(e - largest);
    w->sum_m = w->sum_m * old + new *(double)p.m[k];
    if (p.q) w->sum_q = w->sum_q * old + new *(double)p.q[k];
    w->sum_e = largest;
  }
}

/* ------------------------------------------------------------------------------------------------ a wave */

DALIGN_INLINE scaled FN(load_lanes_)(lanes_row r, int64_t k) {
  scaled s = {v_loadu(r.m + k), v_loadu(r.e + k)};
  return s;
}

DALIGN_INLINE void FN(store_lanes_)(lanes_row r, int64_t k, scaled s) {
  v_store(r.m + k, s.m);
  v_store(r.e + k, s.e);
}

static void FN(clear_lanes_)(lanes_row r, int64_t from, int64_t to) {
  for (int64_t k = from; k < to; k += LANES) FN(store_lanes_)(r, k, scaled_zero());
  for (int64_t k = from; r.q && k < to; k += LANES) v_store(r.q + k, v_zero());
}

static void FN(clear_margins_)(const waves *w, lanes_row r, int64_t t) {
  FN(clear_lanes_)(r, FN(begin_)(w, t) - w->margin, FN(begin_)(w, t));
  FN(clear_lanes_)(r, FN(end_)(w, t), FN(end_)(w, t) + w->margin);
}

/* Numbers not normalised. A NaN exponent comes from a blocked cell, whose mantissa is 0. */
DALIGN_INLINE scaled FN(product_)(scaled a, scaled b) {
  scaled s = {v_mul(a.m, b.m), v_max(v_add(a.e, b.e), v_set1(SCALED_NONE))};
  return s;
}

DALIGN_INLINE scaled FN(sum_)(const scaled *terms, int count) {
  vec e = v_set1(SCALED_NONE), m = v_zero();
  for (int k = 0; k < count; k++) e = v_max(terms[k].e, e);
  for (int k = 0; k < count; k++) m = v_add(m, v_ldexp(terms[k].m, v_sub(terms[k].e, e)));
  scaled s = {m, e};
  return s;
}

/* exp(-w c / gamma). */
DALIGN_INLINE scaled FN(weighted_exp2_)(const waves *w, vec c, vec weight) {
  const vec rate = v_mul(weight, v_set1(w->rate));
  const vec rest = v_fma(weight, v_set1(w->rate), v_sub(v_zero(), rate));
  return exp2_split(c, rate, v_muladd(weight, v_set1(w->rate_low), rest));
}

DALIGN_INLINE scaled FN(start_)(waves *w, int64_t t, int64_t k, vec c) {
  const scaled factor = FN(end_factors_)(w, t, k, 0, w->base);
  return FN(product_)(factor, exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)));
}

/* What is the same for all vectors of a wave. */
typedef struct {
  lanes_row from[DALIGN_DDTW_STEPS];
  const REAL *weights[DALIGN_DDTW_STEPS], *allow[DALIGN_DDTW_STEPS]; /* of a class; of a channel, NULL: none blocked */
} FN(wave);

static void FN(open_wave_)(waves *w, int64_t t, FN(wave) * v) {
  FN(fetch_weights_of_wave_)(w, t);
  for (int k = 0; k < w->steps; k++) {
    v->from[k] = FN(row_at_)(FN(prefix_row_)(w, t - w->step_back[k]), -w->step_over[k]);
  }
  for (int g = 0; g < w->classes; g++) v->weights[g] = FN(weights_row_)(w, w->class_weights, g, t);
  for (int c = 0; c < w->channels; c++) v->allow[c] = w->masked[c] ? FN(weights_row_)(w, w->allow, c, t) : NULL;
}

/* What a blocked step's exponent gains, so that it is not the largest, to which sums are brought. */
DALIGN_INLINE vec FN(bar_)(vec open) { return v_mul(v_sub(open, v_set1(1)), v_set1(-SCALED_NONE)); }

/* P before step k, 0 where the step is blocked. */
DALIGN_INLINE scaled FN(before_)(const waves *w, const FN(wave) * v, int step, int64_t k) {
  scaled p = FN(load_lanes_)(v->from[step], k);
  const REAL *allow = v->allow[w->channel[step]];
  if (allow) {
    const vec open = v_loadu(allow + k);
    p.m = v_mul(p.m, open);
    p.e = v_add(p.e, FN(bar_)(open));
  }
  return p;
}

/* ------------------------------------------------------------------------------------------------ from block to block */

static REAL FN(largest_lane_)(vec v) {
  REAL lanes[LANES], largest = SCALED_NONE;
  v_storeu(lanes, v);
  for (int r = 0; r < LANES; r++) largest = lanes[r] > largest ? lanes[r] : largest;
  return largest;
}

/* Exponents of a row's lanes less `base`; the largest distance from it among numbers that are not 0. */
static REAL FN(rebase_)(lanes_row r, int64_t from, int64_t to, REAL base) {
  vec distance = v_zero();
  for (int64_t k = from; k < to; k += LANES) {
    const vec e = v_loadu(r.e + k), moved = v_sub(e, v_set1(base));
    distance = v_max(v_abs(v_keep_below(moved, v_set1(SCALED_NONE / 2), e)), distance);
    v_storeu(r.e + k, moved);
  }
  return FN(largest_lane_)(distance);
}

static REAL FN(largest_exponent_)(lanes_row r, int64_t from, int64_t to) {
  vec largest = v_set1(SCALED_NONE);
  for (int64_t k = from; k < to; k += LANES) largest = v_max(v_loadu(r.e + k), largest);
  return FN(largest_lane_)(largest);
}

static inline lanes_row FN(kept_row_)(const waves *w, int64_t slot, int64_t wave, int64_t first_lane) {
  return FN(row_at_)(w->kept, (slot * w->back + wave) * w->pitch + w->margin - first_lane);
}

/* The last waves of the block in memory, as the next one finds them: exponents count from the largest among them. */
static void FN(keep_waves_)(waves *w, int64_t block) {
  const int64_t slot = w->blocks > 1 ? block + 1 : 0, lane = FN(first_lane_of_block_)(w, w->end);
  REAL base = SCALED_NONE, farthest = 0;
  for (int64_t x = 0; x < w->back; x++) {
    const int64_t t = w->end - w->back + x;
    const REAL largest = FN(largest_exponent_)(FN(prefix_row_)(w, t), FN(begin_)(w, t), FN(end_)(w, t));
    base = largest > base ? largest : base;
  }
  if (base <= SCALED_NONE / 2) base = 0;
  for (int64_t x = 0; x < w->back; x++) {
    const int64_t t = w->end - w->back + x, from = FN(begin_)(w, t) - w->margin,
                  count = FN(end_)(w, t) + w->margin - from;
    const lanes_row out = FN(kept_row_)(w, slot, x, lane), in = FN(prefix_row_)(w, t);
    memcpy(out.m + from, in.m + from, sizeof(REAL) * (size_t)count);
    memcpy(out.e + from, in.e + from, sizeof(REAL) * (size_t)count);
    if (in.q) memcpy(out.q + from, in.q + from, sizeof(REAL) * (size_t)count);
    const REAL distance = FN(rebase_)(out, from, from + count, base);
    farthest = distance > farthest ? distance : farthest;
  }
  w->kept_base[slot] = w->base + (double)base;
  if (!(farthest < (REAL)WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = WAVES_TOO_FAR;
}

static void FN(restore_waves_)(waves *w, int64_t block) {
  const int64_t slot = w->blocks > 1 ? block : 0;
  const size_t bytes = sizeof(REAL) * (size_t)(w->back * w->pitch);
  const lanes_row from = FN(kept_row_)(w, slot, 0, w->margin);
  memcpy(w->prefix.m, from.m, bytes);
  memcpy(w->prefix.e, from.e, bytes);
  if (from.q) memcpy(w->prefix.q, from.q, bytes);
  w->base = w->kept_base[slot];
}

/* Before the first wave there is nothing. */
static void FN(keep_nothing_)(waves *w) {
  FN(clear_lanes_)(w->kept, 0, w->back * w->pitch);
  w->kept_base[0] = 0;
}

/* ------------------------------------------------------------------------------------------------ shares of all paths */

/* Turns P B into a share of all paths: ldexp(P.m B.m factor, P.e + B.e + offset). */
typedef struct {
  vec factor, offset;
} FN(share);

DALIGN_INLINE vec FN(share_of_)(scaled p, scaled b, FN(share) z) {
  return v_ldexp(v_mul(v_mul(p.m, b.m), z.factor), v_add(v_add(p.e, b.e), z.offset));
}

/* The waves that block - 1 will look at count from their largest exponent. */
static void FN(rebase_ring_)(waves *w) {
  REAL base = SCALED_NONE, farthest = 0;
  const int64_t last = ddtw_least_of(w->first + w->back, w->waves - 1);
  for (int c = 0; c < w->channels; c++)
    for (int64_t t = w->first; t <= last; t++) {
      const REAL largest = FN(largest_exponent_)(FN(ring_row_)(w, c, t), FN(begin_)(w, t), FN(end_)(w, t));
      base = largest > base ? largest : base;
    }
  if (base <= SCALED_NONE / 2) return;
  for (int c = 0; c < w->channels; c++)
    for (int64_t t = w->first; t <= last; t++) {
      const REAL distance = FN(rebase_)(FN(ring_row_)(w, c, t), FN(begin_)(w, t), FN(end_)(w, t), base);
      farthest = distance > farthest ? distance : farthest;
    }
  w->ring_base += (double)base;
  if (!(farthest < (REAL)WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = WAVES_TOO_FAR;
}

/* ------------------------------------------------------------------------------------------------ all blocks */

/* Z, from the first block to the last; sweep computes P of the block in memory. */
static void FN(go_forward_)(waves *w, void (*sweep)(waves *)) {
  const int64_t count = (w->waves + w->block - 1) / w->block;
  FN(keep_nothing_)(w);
  w->sum_m = w->sum_e = w->sum_q = 0;
  for (int64_t block = 0; block < count; block++) {
    FN(enter_block_)(w, block);
    if (w->fit != WAVES_FIT) return;
    FN(restore_waves_)(w, block);
    sweep(w);
    for (int64_t t = w->first; t < w->end; t++) FN(add_ends_)(w, t);
    if (block + 1 < count) FN(keep_waves_)(w, block);
    if (w->fit != WAVES_FIT) return;
  }
  w->ready = count - 1, w->is_seen = 1;
}

/* Derivatives, from the last block, which nothing follows, to the first; adjoint goes back through the block in memory. */
static void FN(go_back_)(waves *w, void (*sweep)(waves *), void (*adjoint)(waves *)) {
  const int64_t count = (w->waves + w->block - 1) / w->block;
  FN(clear_lanes_)(w->ring, 0, (w->steps + 1) * (w->back + 1) * w->ring_pitch);
  w->mean_cost = 0, w->ring_base = 0;
  for (int64_t block = count - 1; block >= 0; block--) {
    if (block != w->ready) {
      FN(enter_block_)(w, block);
      FN(restore_waves_)(w, block);
      sweep(w);
    }
    w->ready = -1;
    adjoint(w);
    if (!w->is_trial) FN(unload_block_)(w);
    FN(rebase_ring_)(w);
    if (w->fit != WAVES_FIT) return;
  }
}

/* ------------------------------------------------------------------------------------------------ an item */

static void FN(set_rates_)(waves *w, double largest_weight) {
  const double log2_e = 1.4426950408889634074, log2_e_low = 2.0355273740931033e-17;
  w->rate_exact = -log2_e / w->gamma;
  w->rate = (REAL)w->rate_exact;
  w->rate_low = (REAL)((fma(-(double)w->rate, w->gamma, -log2_e) - log2_e_low) / w->gamma);
  w->cost_limit = (REAL)(WAVES_FARTHEST / (largest_weight * -w->rate_exact * (double)w->block));
  if (!(w->rate > -(REAL)1e30 && w->cost_limit > 0)) w->fit = WAVES_TOO_FAR;
}

static void FN(enter_item_)(waves *w, ddtw_item it, double gamma, double reach) {
  w->it = it;
  w->gamma = gamma, w->reach = reach;
  w->fit = WAVES_FIT, w->is_trial = 0, w->is_seen = 0, w->ready = -1;
  w->width = w->order == WAVES_ROWS ? it.m : it.n;
  w->waves = w->order == WAVES_ROWS ? it.n : w->order == WAVES_COLUMNS ? it.m : it.n + it.m - 1;
  FN(set_rates_)(w, FN(prepare_weights_)(w));
}

/* -gamma log Z; +inf where no path is left. */
static double FN(value_)(const waves *w) {
  const double ln2 = .69314718055994530942;
  return w->sum_m == 0 ? INFINITY : -w->gamma * (log(w->sum_m) + ln2 * w->sum_e);
}
