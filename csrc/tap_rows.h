/* tap_rows.h: rows of the alignment and the way back through them. Included once per element type.
 *
 *   c_ij = a E_ij + g_ij + b Dt_ij,   A_i = softmax(-c_i),   value = sum_ij A_ij D_ij / n
 *
 * (a, b of dalign_tap_args; E is D unless energies have frames of their own). With upstream gradients v of the value, alpha
 * of A and tau of T = A / n,
 *   G_ij = v D_ij / n + alpha_ij + tau_ij / n,   dc_ij = -A_ij (G_ij - sum_k A_ik G_ik). */

/* Planes of a pair, all (n, row). */
typedef struct {
  int64_t row;
  REAL *distance, *energy; /* energy is distance where it has no frames of its own */
  REAL *gap;               /* g, after its relu if it has one */
  REAL *alignment;
  REAL *across; /* (row,) j / m */
} FN(tap_planes);

static vec FN(position_cost_)(const FN(tap_planes) * p, double weight, vec at_x, int64_t j) {
  return v_mul(v_set1((REAL)weight), v_abs(v_sub(at_x, v_loadu(p->across + j))));
}

/* Lanes behind the m-th cost +inf. */
static vec FN(cost_lanes_)(const dalign_tap_args *a, const FN(tap_planes) * p, vec at_x, int64_t i, int64_t j,
                           int64_t m) {
  const int64_t at = i * p->row + j;
  vec cost = v_mul(v_set1((REAL)a->energy_scale), v_loadu(p->energy + at));
  if (p->gap) cost = v_add(cost, v_loadu(p->gap + at));
  if (a->position_scale != 0) cost = v_add(cost, FN(position_cost_)(p, a->position_scale, at_x, j));
  if (j + LANES <= m) return cost;
  REAL lanes[LANES];
  v_storeu(lanes, cost);
  for (int64_t r = m - j; r < LANES; r++) lanes[r] = (REAL)INFINITY;
  return v_loadu(lanes);
}

static double FN(lane_sum_)(vec v) {
  REAL lanes[LANES];
  double sum = 0;
  v_storeu(lanes, v);
  for (int r = 0; r < LANES; r++) sum += (double)lanes[r];
  return sum;
}

/* exp(-c): the rate of a power of two and what its rounding leaves. */
static vec FN(exp_of_minus_)(vec cost) {
  static const double rate = -1.4426950408889634, rest = -2.0355273740931033e-17;
  const REAL high = (REAL)rate, low = (REAL)(rate - (double)high + rest);
  const scaled power = exp2_split(cost, v_set1(high), v_set1(low));
  return v_ldexp(power.m, power.e);
}

/* Row i of A, and its sum_j A_ij D_ij. */
static double FN(align_row_)(const dalign_tap_args *a, const FN(tap_planes) * p, const tap_grid *g, int64_t i) {
  REAL *alignment = p->alignment + i * p->row;
  const vec at_x = v_set1((REAL)((double)(i + 1) / (double)g->n));
  vec least = v_set1((REAL)INFINITY), sum = v_zero(), weighted = v_zero();
  int nan = 0;
  for (int64_t j = 0; j < g->m; j += LANES) {
    const vec cost = FN(cost_lanes_)(a, p, at_x, i, j, g->m);
    v_storeu(alignment + j, cost);
    least = v_min(least, cost);
    nan |= !v_all_below(v_sub(v_zero(), v_abs(cost)), v_set1(1));
  }
  const vec bottom = v_set1(v_least(least));
  for (int64_t j = 0; j < g->m; j += LANES) {
    const vec power = FN(exp_of_minus_)(v_sub(v_loadu(alignment + j), bottom));
    v_storeu(alignment + j, power);
    sum = v_add(sum, power);
    weighted = v_muladd(power, v_loadu(p->distance + i * p->row + j), weighted);
  }
  const double total = nan ? NAN : FN(lane_sum_)(sum);
  const vec inverse = v_set1((REAL)(1 / total));
  for (int64_t j = 0; j < p->row; j += LANES)
    v_storeu(alignment + j, j < g->m ? v_mul(v_loadu(alignment + j), inverse) : v_zero());
  return FN(lane_sum_)(weighted) / total;
}

/* G of row i, in the row of `into`. */
static void FN(fill_upstream_)(const dalign_tap_args *a, const FN(tap_planes) * p, const tap_grid *g, int64_t pair,
                               int64_t i, REAL *into) {
  const REAL one = (REAL)(1 / (double)g->n);
  const REAL *value = a->grad_value, *rows = a->grad_alignment, *mass = a->grad_transport;
  const REAL along = value ? value[pair] * one : 0, *distance = p->distance + i * p->row;
  const int64_t at = (pair * a->n + i) * a->m;
  for (int64_t j = 0; j < g->m; j++) into[j] = along * distance[j];
  for (int64_t j = 0; rows && j < g->m; j++) into[j] += rows[at + j];
  for (int64_t j = 0; mass && j < g->m; j++) into[j] += mass[at + j] * one;
}

/* sum_j a_j b_j; b NULL: sum_j a_j. In double, in eight parts that the compiler takes at once. */
static double FN(sum_products_)(const REAL *a, const REAL *b, int64_t count) {
  double parts[8] = {0}, sum = 0;
  int64_t j = 0;
  for (; j + 8 <= count; j += 8)
    for (int k = 0; k < 8; k++) parts[k] += (double)a[j + k] * (b ? (double)b[j + k] : 1);
  for (; j < count; j++) sum += (double)a[j] * (b ? (double)b[j] : 1);
  for (int k = 0; k < 8; k++) sum += parts[k];
  return sum;
}

/* dc of row i into `into`, which holds G, and the direct part of dD into `slope`. A row of dc adds up to zero, and hardly any
 * rounding is left of it: the last layer's bias gets nothing but such sums. */
static void FN(align_row_back_)(const dalign_tap_args *a, const FN(tap_planes) * p, const tap_grid *g, int64_t pair,
                                int64_t i, double *into, const REAL *upstream, REAL *slope) {
  const REAL *alignment = p->alignment + i * p->row, *value = a->grad_value;
  const REAL along = value ? value[pair] * (REAL)(1 / (double)g->n) : 0;
  const double mass = FN(sum_products_)(alignment, NULL, g->m);
  const double mean = FN(sum_products_)(alignment, upstream, g->m) / mass;
  for (int64_t j = 0; j < g->m; j++) {
    into[j] = -(double)alignment[j] * ((double)upstream[j] - mean);
    slope[j] = along * alignment[j];
  }
}
