/* dilate_strips.h: both sweeps for the three steps of weight 1, a strip of LANES rows at a time (part of dilate_body.h).
 *
 * Within a block of waves a strip needs nothing of the one below, so it runs through all waves of the block with its last
 * wave in registers. Lanes of wave t of what goes before (i, j):
 *   left (i, j-1):      wave t - 1
 *   up (i-1, j):        the same a lane further up, where the strip above enters
 *   corner (i-1, j-1):  what was up one wave before
 * Backwards the strip below enters, and what follows a cell takes in memory the place of what goes before it, which is not
 * needed any more. A cell's factor exp(-C / gamma) is kept from the way there, in the place of the derivative. */

/* ------------------------------------------------------------------------------------------------ a cell */

DALIGN_INLINE twin FN(sum_three_)(twin a, twin b, twin c) {
  const vec e = v_max(v_max(a.e, b.e), c.e);
  const vec by_a = v_pow2(v_sub(a.e, e)), by_b = v_pow2(v_sub(b.e, e)), by_c = v_pow2(v_sub(c.e, e));
  const twin sum = {v_muladd(a.m, by_a, v_muladd(b.m, by_b, v_mul(c.m, by_c))), e,
                    v_muladd(a.q, by_a, v_muladd(b.q, by_b, v_mul(c.q, by_c)))};
  return sum;
}

DALIGN_INLINE twin FN(shift_up_)(twin v, twin in) {
  const twin up = {v_shift_up(v.m, in.m), v_shift_up(v.e, in.e), v_shift_up(v.q, in.q)};
  return up;
}

DALIGN_INLINE twin FN(shift_down_)(twin v, twin in) {
  const twin down = {v_shift_down(v.m, in.m), v_shift_down(v.e, in.e), v_shift_down(v.q, in.q)};
  return down;
}

/* A mantissa grows by at most 3 sqrt(2) a cell, so a few cells may go by before it is brought back. */
DALIGN_INLINE int FN(is_due_)(int64_t t) { return t % 4 == 3; }

/* i - j, or i/n - j/m, of lane i in wave t = i + j is a number of the lane less one of the wave. */
typedef struct {
  vec lanes;
  double per_wave;
} FN(apart);

static FN(apart) FN(apart_)(const waves *w, int64_t k) {
  const int is_relative = w->path->penalty == DALIGN_PENALTY_RELATIVE;
  const double of_i = is_relative ? 1 / (double)w->it.n : 1, of_j = is_relative ? 1 / (double)w->it.m : 1;
  REAL lanes[LANES];
  for (int r = 0; r < LANES; r++) lanes[r] = (REAL)((double)(k + r) * (of_i + of_j));
  const FN(apart) a = {v_loadu(lanes), of_j};
  return a;
}

DALIGN_INLINE vec FN(strip_penalty_)(const waves *w, const FN(apart) * a, int64_t t, int64_t k, dalign_penalty kind) {
  if (kind == DALIGN_PENALTY_GIVEN) return v_load(FN(block_row_)(w, w->penalty, t) + k);
  const vec apart = v_sub(a->lanes, v_set1((REAL)((double)t * a->per_wave)));
  return kind == DALIGN_PENALTY_ABSOLUTE ? v_abs(apart) : v_mul(apart, apart);
}

/* ------------------------------------------------------------------------------------------------ strips of a block */

/* Waves [from, to) of the block in which a strip has cells. Asked for strip after strip, up or down. */
typedef struct {
  int64_t from, to;
} FN(stay);

static void FN(stay_further_down_)(const waves *w, FN(stay) * s, int64_t k) {
  while (s->from < w->end && FN(end_)(w, s->from) <= k) s->from++;
  while (s->to < w->end && FN(begin_)(w, s->to) <= k) s->to++;
}

static void FN(stay_further_up_)(const waves *w, FN(stay) * s, int64_t k) {
  while (s->to > w->first && FN(begin_)(w, s->to - 1) > k) s->to--;
  while (s->from > w->first && FN(end_)(w, s->from - 1) > k) s->from--;
}

/* Waves outside of which no path starts, or ends, in the strip. */
static FN(span) FN(ends_of_strip_)(const waves *w, int64_t k, int is_end) {
  const dalign_ends *ends = is_end ? &w->it.args->end : &w->it.args->start;
  const int64_t n = w->it.n, m = w->it.m, last_row = ddtw_least_of(k + LANES, n) - 1;
  const int64_t along_x = ddtw_least_of(ends->along_x, n), along_y = ddtw_least_of(ends->along_y, m);
  FN(span) s = {INT64_MAX, -1};
  if (ends->cost) s.low = 0, s.high = w->waves;
  const int64_t first = is_end && n - along_x > k ? n - along_x : k; /* rows that end, or start, in a corner's column */
  const int64_t last = is_end ? last_row : ddtw_least_of(last_row, along_x - 1), column = is_end ? m - 1 : 0;
  if (first <= last) s.low = first + column, s.high = last + column;
  if (along_y > 0 && (is_end ? last_row == n - 1 : k == 0)) {
    const int64_t low = is_end ? n - 1 + m - along_y : 0;
    s.low = ddtw_least_of(s.low, low);
    s.high = low + along_y - 1 > s.high ? low + along_y - 1 : s.high;
  }
  return s;
}

/* ------------------------------------------------------------------------------------------------ forward */

DALIGN_INLINE void FN(sweep_strip_)(waves *w, int64_t k, FN(stay) stay, dalign_penalty kind) {
  const FN(span) starts = FN(ends_of_strip_)(w, k, 0);
  const FN(apart) apart = FN(apart_)(w, k);
  const int is_kept = w->slope != w->cost;
  twin left = FN(load_twin_)(FN(prefix_row_)(w, stay.from - 1), k);
  twin corner = FN(load_twin_)(FN(prefix_row_)(w, stay.from - 2), k - 1);
  for (int64_t t = stay.from; t < stay.to; t++) {
    const twin up = FN(shift_up_)(left, FN(load_twin_)(FN(prefix_row_)(w, t - 1), k - LANES));
    const vec c = v_load(FN(cost_row_)(w, t) + k), penalty = FN(strip_penalty_)(w, &apart, t, k, kind);
    const scaled factor = exp2_split(c, v_set1(w->rate), v_set1(w->rate_low));
    if (is_kept) v_store(FN(block_row_)(w, w->slope, t) + k, factor.m);
    twin p = FN(step_twin_)(w, FN(sum_three_)(left, up, corner), factor, penalty);
    if (t >= starts.low && t <= starts.high) {
      const twin both[2] = {p, FN(start_twin_)(w, t, k, c, penalty)};
      p = FN(sum_twins_)(both, 2);
    }
    if (FN(is_due_)(t)) p = FN(normalise_twin_)(p);
    FN(store_twin_)(FN(prefix_row_)(w, t), k, p);
    left = p, corner = up;
  }
}

static void FN(sweep_strips_)(waves *w) {
  for (int64_t t = w->first; t < w->end; t++) FN(clear_margins_)(w, FN(prefix_row_)(w, t), t);
  FN(stay) stay = {w->first, w->first};
  for (int64_t k = FN(begin_)(w, w->first); k < FN(end_)(w, w->end - 1); k += LANES) {
    FN(stay_further_down_)(w, &stay, k);
    if (w->penalty)
      FN(sweep_strip_)(w, k, stay, DALIGN_PENALTY_GIVEN);
    else if (w->path->penalty == DALIGN_PENALTY_ABSOLUTE)
      FN(sweep_strip_)(w, k, stay, DALIGN_PENALTY_ABSOLUTE);
    else
      FN(sweep_strip_)(w, k, stay, DALIGN_PENALTY_SQUARED);
  }
}

/* ------------------------------------------------------------------------------------------------ backward */

/* What follows the cells of a wave: in the block, or kept from the one behind it. */
static inline lanes_row FN(follow_row_)(const waves *w, int64_t t) {
  return t < w->end ? FN(prefix_row_)(w, t) : FN(ring_row_)(w, 0, t);
}

DALIGN_INLINE void FN(return_strip_)(waves *w, int64_t k, FN(stay) stay, FN(upstream) u, dalign_penalty kind,
                                     int is_all) {
  const FN(span) ends = FN(ends_of_strip_)(w, k, 1);
  const FN(apart) apart = FN(apart_)(w, k);
  vec mean = v_zero();
  twin right = FN(load_twin_)(FN(follow_row_)(w, stay.to), k);
  twin corner = FN(load_twin_)(FN(follow_row_)(w, stay.to + 1), k + 1);
  twin in = FN(load_twin_)(FN(follow_row_)(w, stay.to), k + LANES);
  for (int64_t t = stay.to - 1; t >= stay.from; t--) {
    const lanes_row prefix = FN(prefix_row_)(w, t);
    REAL *slope = FN(block_row_)(w, w->slope, t) + k;
    const twin down = FN(shift_down_)(right, in), p = FN(load_twin_)(prefix, k);
    twin b = FN(sum_three_)(right, down, corner);
    if (t >= ends.low && t <= ends.high) {
      const scaled ended = FN(end_factors_)(w, t, k, 1, w->ring_base);
      const twin both[2] = {b, {ended.m, ended.e, v_zero()}};
      b = FN(sum_twins_)(both, 2);
    }
    const vec c = v_load(FN(cost_row_)(w, t) + k), penalty = FN(strip_penalty_)(w, &apart, t, k, kind);
    const scaled factor = {v_load(slope), v_round(v_mul(c, v_set1(w->rate)))};
    const FN(slopes) slopes = FN(slopes_of_)(p, b, u);
    v_store(slope, slopes.slope);
    if (is_all) {
      mean = v_add(mean, v_keep_below(v_mul(slopes.slope, c), c, v_set1((REAL)INFINITY)));
      if (w->mass) v_store(FN(block_row_)(w, w->mass, t) + k, slopes.mass);
    }
    twin q = FN(step_twin_)(w, b, factor, FN(paid_)(w, penalty, p.m));
    if (FN(is_due_)(t)) q = FN(normalise_twin_)(q);
    in = FN(load_twin_)(prefix, k + LANES);
    FN(store_twin_)(prefix, k, q);
    right = q, corner = down;
  }
  if (is_all) FN(add_mean_)(w, mean);
}

/* The block before this one looks at its first waves. */
static void FN(hand_back_)(waves *w) {
  for (int64_t t = w->first; t < ddtw_least_of(w->first + w->back + 1, w->end); t++) {
    const lanes_row from = FN(prefix_row_)(w, t), to = FN(ring_row_)(w, 0, t);
    const int64_t begin = FN(begin_)(w, t) - w->margin, count = FN(end_)(w, t) + w->margin - begin;
    const size_t bytes = sizeof(REAL) * (size_t)count;
    memcpy(to.m + begin, from.m + begin, bytes);
    memcpy(to.e + begin, from.e + begin, bytes);
    memcpy(to.q + begin, from.q + begin, bytes);
  }
}

static void FN(return_strips_)(waves *w) {
  const FN(upstream) u = FN(upstream_)(w);
  const int is_all = w->mass || w->it.args->mean_cost;
  FN(stay) stay = {w->end, w->end};
  for (int64_t k = FN(end_)(w, w->end - 1) - LANES; k >= FN(begin_)(w, w->first); k -= LANES) {
    FN(stay_further_up_)(w, &stay, k);
    if (w->penalty)
      FN(return_strip_)(w, k, stay, u, DALIGN_PENALTY_GIVEN, 1);
    else if (is_all)
      FN(return_strip_)(w, k, stay, u, w->path->penalty, 1);
    else if (w->path->penalty == DALIGN_PENALTY_ABSOLUTE)
      FN(return_strip_)(w, k, stay, u, DALIGN_PENALTY_ABSOLUTE, 0);
    else
      FN(return_strip_)(w, k, stay, u, DALIGN_PENALTY_SQUARED, 0);
  }
  FN(hand_back_)(w);
}

/* Three steps of weight 1, none blocked, by diagonals. */
static int FN(has_strips_)(const waves *w) {
  return w->unit && w->steps == 3 && w->channels == 1 && !w->masked[0] && w->order == WAVES_DIAGONALS;
}
