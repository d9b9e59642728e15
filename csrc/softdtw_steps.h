/* softdtw_steps.h: the two recursions over a tile (part of softdtw.c, once per element type). */
#undef step_rates
#define step_rates FN(softdtw_step_rates)

/* exp(-w C / gamma) = 2^(C (rate + rate_low)); a blocked step has rate 0, allow 0 and bar SCALED_NONE. */
typedef struct {
  vec rate, rate_low, weight, allow, bar;
} step_rates;

#ifndef DALIGN_SOFTDTW_STEPS
#define DALIGN_SOFTDTW_STEPS
enum { DOWN = 0, RIGHT = 1, DIAGONAL = 2 };
#endif

/* lane 0 of a start's diagonal step counts its cost once, whatever the step's weight. */
static step_rates FN(load_weights_)(const problem *p, int step, int is_start) {
  REAL lanes[5][LANES];
  for (int r = 0; r < LANES; r++) {
    const int first = is_start && r == 0;
    lanes[0][r] = first ? p->rate[3] : p->rate[step];
    lanes[1][r] = first ? p->rate_low[3] : p->rate_low[step];
    lanes[2][r] = first ? 1 : p->weight[step];
    lanes[3][r] = first ? 1 : p->allow[step];
    lanes[4][r] = first ? 0 : p->bar[step];
  }
  step_rates w = {v_loadu(lanes[0]), v_loadu(lanes[1]), v_loadu(lanes[2]), v_loadu(lanes[3]), v_loadu(lanes[4])};
  return w;
}

DALIGN_INLINE scaled FN(load_scaled_)(const REAL *m, const REAL *e) {
  scaled s = {v_load(m), v_load(e)};
  return s;
}

DALIGN_INLINE void FN(store_scaled_)(REAL *m, REAL *e, scaled s) {
  v_store(m, s.m);
  v_store(e, s.e);
}

DALIGN_INLINE scaled FN(set_scaled_)(REAL m, REAL e) {
  scaled s = {v_set1(m), v_set1(e)};
  return s;
}

DALIGN_INLINE scaled FN(shift_up_)(scaled v, scaled in) {
  scaled s = {v_shift_up(v.m, in.m), v_shift_up(v.e, in.e)};
  return s;
}

DALIGN_INLINE scaled FN(shift_down_)(scaled v, scaled in) {
  scaled s = {v_shift_down(v.m, in.m), v_shift_down(v.e, in.e)};
  return s;
}

/* value k^w with k = exp(-c / gamma); not normalised. */
DALIGN_INLINE scaled FN(take_step_)(scaled value, vec c, const step_rates *w) {
  const scaled k = exp2_split(c, w->rate, w->rate_low);
  scaled s;
  s.m = v_mul(v_mul(value.m, k.m), w->allow);
  s.e = v_max(v_add(v_add(value.e, k.e), w->bar), v_set1(SCALED_NONE)); /* the constant where a sum is NaN: 0 * inf */
  return s;
}

/* P(i,j) and the mean weight of the steps that enter the cell. */
DALIGN_INLINE scaled FN(weighted_sum_)(scaled down, scaled right, scaled diagonal, const step_rates *w, vec *mean) {
  const vec e = v_max(v_max(down.e, right.e), diagonal.e);
  const vec a = v_ldexp(down.m, v_sub(down.e, e)), b = v_ldexp(right.m, v_sub(right.e, e));
  const vec c = v_ldexp(diagonal.m, v_sub(diagonal.e, e)), sum = v_add(v_add(a, b), c);
  const vec weights = v_muladd(a, w[DOWN].weight, v_muladd(b, w[RIGHT].weight, v_mul(c, w[DIAGONAL].weight)));
  *mean = v_div(weights, v_max(sum, v_set1((REAL)1e-30)));
  return scaled_normalise(sum, e);
}

/* Steps [from, to) of strips [first, first + count). Lane r of strip s at step t holds column t - s LANES - r:
 *   left = P(i, j-1), up = the lane above a step ago, diagonal = up a step ago. */
DALIGN_INLINE void FN(forward_steps_)(const problem *p, worker *w, int first, int count, int from, int to, int keep,
                                      int weighted, int is_start, int is_last) {
  const vec rate = v_set1(p->rate[3]), rate_low = v_set1(p->rate_low[3]);
  step_rates weights[3];
  if (weighted)
    for (int k = 0; k < 3; k++) weights[k] = FN(load_weights_)(p, k, is_start && k == DIAGONAL);
  scaled left[TILE_STRIPS], diagonal[TILE_STRIPS];
  for (int s = 0; s < count; s++) {
    const int at = (first + s) * LANES;
    left[s] = FN(load_scaled_)(w->left_m + at, w->left_e + at);
    diagonal[s] = FN(load_scaled_)(w->diagonal_m + at, w->diagonal_e + at);
  }
  scaled above = scaled_zero();
  if (first) above = FN(load_scaled_)(w->left_m + (first - 1) * LANES, w->left_e + (first - 1) * LANES);
  for (int t = from; t < to; t++) {
    if (!first) above = FN(set_scaled_)(w->in_m[0][t], w->in_e[0][t]);
    for (int s = count - 1; s >= 0; s--) {
      const int at = ((first + s) * TILE_PITCH + t) * LANES;
      const vec c = v_load(w->cost + at);
      const scaled up = FN(shift_up_)(left[s], s ? left[s ? s - 1 : 0] : above);
      scaled next;
      if (weighted) {
        vec mean;
        next = FN(weighted_sum_)(FN(take_step_)(up, c, &weights[DOWN]), FN(take_step_)(left[s], c, &weights[RIGHT]),
                                 FN(take_step_)(diagonal[s], c, &weights[DIAGONAL]), weights, &mean);
        if (keep) v_store(w->mean_weight + at, mean);
      } else {
        next = scaled_times(scaled_add3(diagonal[s], left[s], up), exp2_split(c, rate, rate_low));
      }
      diagonal[s] = up;
      left[s] = next;
      if (keep) FN(store_scaled_)(w->prefix_m + at, w->prefix_e + at, next);
    }
    /* The last lane is the group's bottom row. Reversed, so that what the other lanes spill is overwritten later. */
    if (is_last) {
      v_storeu(w->out_m[0] + TILE_STEPS - t, left[count - 1].m);
      v_storeu(w->out_e[0] + TILE_STEPS - t, left[count - 1].e);
    }
  }
  for (int s = 0; s < count; s++) {
    const int at = (first + s) * LANES;
    FN(store_scaled_)(w->left_m + at, w->left_e + at, left[s]);
    FN(store_scaled_)(w->diagonal_m + at, w->diagonal_e + at, diagonal[s]);
  }
}

/* Element of the bottom row that forward_steps stored at step t. */
#undef OUT_UP
#undef OUT_DOWN
#define OUT_UP(t) (TILE_STEPS - (t) + LANES - 1)
#define OUT_DOWN(t) (TILE_STEPS - 1 - (t))

/* What turns P B into E: E = ldexp(P.m B.m factor, P.e + B.e + offset). */
typedef struct {
  REAL factor, offset;
} FN(edge_scale);

/* Steps [from, to) of the adjoint, from the last to the first; B(i,j) from q of the cells below, right and diagonal.
 * H takes the place of P in prefix_m. In the unweighted case the three q are one. */
DALIGN_INLINE void FN(backward_steps_)(const problem *p, worker *w, int first, int count, int from, int to,
                                       int weighted, int is_last, FN(edge_scale) scale) {
  const vec rate = v_set1(p->rate[3]), rate_low = v_set1(p->rate_low[3]);
  const vec factor = v_set1(scale.factor), offset = v_set1(scale.offset);
  step_rates weights[3];
  if (weighted)
    for (int k = 0; k < 3; k++) weights[k] = FN(load_weights_)(p, k, 0);
  /* state: q_right (or q), diagonal; weighted: q_down, q_diag */
  REAL *state = w->adjoint;
  const int row = GROUP_ROWS;
  scaled q[TILE_STRIPS], diagonal[TILE_STRIPS], q_down[TILE_STRIPS], q_diagonal[TILE_STRIPS];
  for (int s = 0; s < count; s++) {
    const int at = (first + s) * LANES;
    q[s] = FN(load_scaled_)(state + at, state + row + at);
    diagonal[s] = FN(load_scaled_)(state + 2 * row + at, state + 3 * row + at);
    if (!weighted) continue;
    q_down[s] = FN(load_scaled_)(state + 4 * row + at, state + 5 * row + at);
    q_diagonal[s] = FN(load_scaled_)(state + 6 * row + at, state + 7 * row + at);
  }
  scaled below = scaled_zero(), below_diagonal = scaled_zero();
  if (!is_last) {
    const int at = (first + count) * LANES, down = weighted ? 4 * row : 0;
    below = FN(load_scaled_)(state + down + at, state + down + row + at);
    if (weighted) below_diagonal = FN(load_scaled_)(state + 6 * row + at, state + 7 * row + at);
  }
  for (int t = to - 1; t >= from; t--) {
    if (is_last) {
      below = FN(set_scaled_)(w->in_m[0][t], w->in_e[0][t]);
      if (weighted) below_diagonal = FN(set_scaled_)(w->in_m[1][t], w->in_e[1][t]);
    }
    for (int s = 0; s < count; s++) {
      const int at = ((first + s) * TILE_PITCH + t) * LANES, end = s == count - 1;
      const vec c = v_load(w->cost + at);
      const scaled prefix = FN(load_scaled_)(w->prefix_m + at, w->prefix_e + at);
      const scaled down = weighted ? FN(shift_down_)(q_down[s], end ? below : q_down[end ? s : s + 1])
                                   : FN(shift_down_)(q[s], end ? below : q[end ? s : s + 1]);
      const scaled_parts sum = scaled_add3(diagonal[s], q[s], down);
      const scaled b = {v_add(sum.two, sum.third), sum.e};
      const vec mass = v_ldexp(v_mul(v_mul(prefix.m, b.m), factor), v_add(v_add(prefix.e, b.e), offset));
      if (weighted) {
        v_store(w->prefix_m + at, v_mul(mass, v_load(w->mean_weight + at)));
        diagonal[s] = FN(shift_down_)(q_diagonal[s], end ? below_diagonal : q_diagonal[end ? s : s + 1]);
        const scaled right = FN(take_step_)(b, c, &weights[RIGHT]);
        const scaled straight = FN(take_step_)(b, c, &weights[DOWN]);
        const scaled across = FN(take_step_)(b, c, &weights[DIAGONAL]);
        q[s] = scaled_normalise(right.m, right.e);
        q_down[s] = scaled_normalise(straight.m, straight.e);
        q_diagonal[s] = scaled_normalise(across.m, across.e);
      } else {
        v_store(w->prefix_m + at, mass);
        diagonal[s] = down;
        q[s] = scaled_times(sum, exp2_split(c, rate, rate_low));
      }
    }
    if (first == 0) {
      v_storeu(w->out_m[0] + OUT_DOWN(t), weighted ? q_down[0].m : q[0].m);
      v_storeu(w->out_e[0] + OUT_DOWN(t), weighted ? q_down[0].e : q[0].e);
      if (weighted) {
        v_storeu(w->out_m[1] + OUT_DOWN(t), q_diagonal[0].m);
        v_storeu(w->out_e[1] + OUT_DOWN(t), q_diagonal[0].e);
      }
    }
  }
  for (int s = 0; s < count; s++) {
    const int at = (first + s) * LANES;
    FN(store_scaled_)(state + at, state + row + at, q[s]);
    FN(store_scaled_)(state + 2 * row + at, state + 3 * row + at, diagonal[s]);
    if (!weighted) continue;
    FN(store_scaled_)(state + 4 * row + at, state + 5 * row + at, q_down[s]);
    FN(store_scaled_)(state + 6 * row + at, state + 7 * row + at, q_diagonal[s]);
  }
}

static void FN(forward_segment_)(const problem *p, worker *w, int first, int count, int from, int to, int keep,
                                 int is_start, int is_last) {
#define PLAIN(c) FN(forward_steps_)(p, w, first, c, from, to, 0, 0, 0, is_last)
#define KEEP(c) FN(forward_steps_)(p, w, first, c, from, to, 1, 0, 0, is_last)
#define WEIGHTED(c) FN(forward_steps_)(p, w, first, c, from, to, 1, 1, is_start, is_last)
  if (p->weighted) {
    EACH_COUNT(count, WEIGHTED)
  } else if (keep) {
    EACH_COUNT(count, KEEP)
  } else {
    EACH_COUNT(count, PLAIN)
  }
#undef PLAIN
#undef KEEP
#undef WEIGHTED
}

static void FN(backward_segment_)(const problem *p, worker *w, int first, int count, int from, int to, int is_last,
                                  FN(edge_scale) scale) {
#define PLAIN(c) FN(backward_steps_)(p, w, first, c, from, to, 0, is_last, scale)
#define WEIGHTED(c) FN(backward_steps_)(p, w, first, c, from, to, 1, is_last, scale)
  if (p->weighted) {
    EACH_COUNT(count, WEIGHTED)
  } else {
    EACH_COUNT(count, PLAIN)
  }
#undef PLAIN
#undef WEIGHTED
}

/* Cuts [0, TILE_STEPS) where a strip begins or ends; calls body(first, count, from, to) for each part in which strips
 * [first, first + count) are at work. */
#define EACH_SEGMENT_START(w, strips, from, next, first, count)                                  \
  int next = TILE_STEPS, first = -1, count = 0;                                                  \
  for (int s = 0; s < (strips); s++) {                                                           \
    if ((w)->begin[s] > (from) && (w)->begin[s] < next) next = (w)->begin[s];                    \
    if ((w)->end[s] > (from) && (w)->end[s] < next) next = (w)->end[s];                          \
    if ((w)->begin[s] <= (from) && (from) < (w)->end[s]) first = first < 0 ? s : first, count++; \
  }

static void FN(forward_tile_)(const problem *p, worker *w, int strips, int keep, int is_start) {
  for (int from = 0; from < TILE_STEPS;) {
    EACH_SEGMENT_START(w, strips, from, next, first, count)
    if (is_start && from == 0) next = 1;
    if (count)
      FN(forward_segment_)(p, w, first, count, from, next, keep, is_start && from == 0, first + count == strips);
    from = next;
  }
}

static void FN(backward_tile_)(const problem *p, worker *w, int strips, FN(edge_scale) scale) {
  for (int to = TILE_STEPS; to > 0;) {
    int from = 0, first = -1, count = 0;
    for (int s = 0; s < strips; s++) {
      if (w->begin[s] < to && w->begin[s] > from) from = w->begin[s];
      if (w->end[s] < to && w->end[s] > from) from = w->end[s];
      if (w->begin[s] < to && to <= w->end[s]) first = first < 0 ? s : first, count++;
    }
    if (count) FN(backward_segment_)(p, w, first, count, from, to, first + count == strips, scale);
    to = from;
  }
}
