/* softdtw_hvp.h: Hessian product of soft-DTW (part of softdtw.c, once per element type), one cell at a time in double.
 *
 * Along a tangent V of the costs, with pi_s(i,j) the probability that the soft path enters (i,j) by step s,
 *   T(i,j)  = sum_s pi_s(i,j) (T(pred_s) + w_s V(i,j))                       the tangent of R
 *   E(i,j)  = sum_s pi_s(succ_s) E(succ_s),  H = E sum_s w_s pi_s            the mass, and d value / d C
 *   pi_s'   = pi_s (T(i,j) - T(pred_s) - w_s V(i,j)) / gamma                 the tangent of pi
 *   F(i,j)  = sum_s pi_s(succ_s) F(succ_s) + pi_s'(succ_s) E(succ_s)         the tangent of E
 *   product = F sum_s w_s pi_s + E sum_s w_s pi_s'
 * Memory: five doubles a cell (R goes when pi is known, T stays). */
#undef hessian
#define hessian FN(softdtw_hessian)

/* Arrays over the item's lattice: pi of the three steps, T, and two rows of (E, F). */
typedef struct {
  double *down, *right, *diagonal, *tangent, *above;
  double *mass[2], *slope[2];
  int64_t *low, *high;
} hessian;

static void FN(cut_hessian_)(hessian *h, dalign_arena *a, int64_t n, int64_t m) {
  const size_t lattice = sizeof(double) * (size_t)(n * m), line = sizeof(double) * (size_t)(m + 1);
  h->down = dalign_arena_take(a, lattice), h->right = dalign_arena_take(a, lattice);
  h->diagonal = dalign_arena_take(a, lattice), h->tangent = dalign_arena_take(a, lattice);
  h->above = dalign_arena_take(a, 2 * line);
  for (int k = 0; k < 2; k++) h->mass[k] = dalign_arena_take(a, line), h->slope[k] = dalign_arena_take(a, line);
  h->low = dalign_arena_take(a, sizeof(int64_t) * (size_t)n),
  h->high = dalign_arena_take(a, sizeof(int64_t) * (size_t)n);
}

/* softmin of three with its probabilities. */
static double FN(softmin3_)(const double *value, double gamma, double *probability) {
  double least = INFINITY, sum = 0;
  for (int k = 0; k < 3; k++) {
    if (value[k] != value[k]) return probability[0] = probability[1] = probability[2] = NAN;
    if (value[k] < least) least = value[k];
  }
  for (int k = 0; k < 3; k++) probability[k] = 0;
  if (!(least < INFINITY)) return least;
  for (int k = 0; k < 3; k++) sum += probability[k] = exp((least - value[k]) / gamma);
  for (int k = 0; k < 3; k++) probability[k] /= sum;
  return least - gamma * log(sum);
}

/* w cost, where a blocked step or cell is +inf whatever the other is. */
static double FN(step_cost_)(double weight, double cost) {
  return weight == INFINITY || cost == (double)INFINITY ? (double)INFINITY : weight * cost;
}

/* R, pi and T of one row; R of the row above in above[0], this row's into above[1]. */
static void FN(hessian_row_)(const dalign_softdtw_args *a, hessian *h, int64_t i, int64_t m, const REAL *cost,
                             const REAL *tangent) {
  const double *w = a->step_weights;
  double *previous = h->above + (i % 2) * (m + 1), *current = h->above + (1 - i % 2) * (m + 1);
  for (int64_t j = 0; j <= m; j++) current[j] = INFINITY;
  for (int64_t j = h->low[i]; j <= h->high[i]; j++) {
    const int64_t at = i * m + j;
    const double c = (double)cost[j], value[3] = {(i ? previous[j + 1] : INFINITY) + FN(step_cost_)(w[DOWN], c),
                                                  current[j] + FN(step_cost_)(w[RIGHT], c),
                                                  (i ? previous[j] : INFINITY) + FN(step_cost_)(w[DIAGONAL], c)};
    double pi[3] = {0, 0, 0}, v = (double)tangent[j];
    current[j + 1] = i || j ? FN(softmin3_)(value, a->gamma, pi) : c;
    h->down[at] = pi[DOWN], h->right[at] = pi[RIGHT], h->diagonal[at] = pi[DIAGONAL];
    double t = i || j ? 0 : v;
    if (pi[DOWN] > 0) t += pi[DOWN] * (h->tangent[at - m] + w[DOWN] * v);
    if (pi[RIGHT] > 0) t += pi[RIGHT] * (h->tangent[at - 1] + w[RIGHT] * v);
    if (pi[DIAGONAL] > 0) t += pi[DIAGONAL] * (h->tangent[at - m - 1] + w[DIAGONAL] * v);
    h->tangent[at] = t;
  }
}

/* Passes mass e and its tangent f of the cell at `at` on to a predecessor, and adds what the step gives to the product. */
static void FN(hessian_step_)(const dalign_softdtw_args *a, const hessian *h, int step, double pi, int64_t at,
                              int64_t from, double v, double e, double f, double *mass, double *slope,
                              double *product) {
  if (!(pi > 0)) return;
  const double w = a->step_weights[step];
  const double change = pi * (h->tangent[at] - (h->tangent[from] + w * v)) / a->gamma;
  *mass += pi * e;
  *slope += pi * f + change * e;
  *product += w * (pi * f + change * e);
}

static void FN(hessian_row_back_)(const dalign_softdtw_args *a, hessian *h, int64_t i, int64_t m, const REAL *tangent,
                                  REAL *product) {
  double *mass = h->mass[i % 2], *slope = h->slope[i % 2], *mass_up = h->mass[1 - i % 2],
         *slope_up = h->slope[1 - i % 2];
  for (int64_t j = 0; j <= m; j++) mass_up[j] = slope_up[j] = 0;
  for (int64_t j = h->high[i]; j >= h->low[i]; j--) {
    const int64_t at = i * m + j;
    const double e = mass[j], f = slope[j], v = (double)tangent[j];
    product[j] = 0;
    if (e == 0 && f == 0) continue; /* no path from here to the end: tangents of such cells may be anything */
    double sum = i || j ? 0 : f;
    FN(hessian_step_)(a, h, DOWN, h->down[at], at, at - m, v, e, f, mass_up + j, slope_up + j, &sum);
    FN(hessian_step_)(a, h, RIGHT, h->right[at], at, at - 1, v, e, f, mass + j - 1, slope + j - 1, &sum);
    FN(hessian_step_)(a, h, DIAGONAL, h->diagonal[at], at, at - m - 1, v, e, f, mass_up + j - 1, slope_up + j - 1,
                      &sum);
    product[j] = (REAL)sum;
  }
}

static void FN(hessian_item_)(const dalign_softdtw_args *a, int64_t b, const REAL *tangent, REAL *product,
                              void *workspace) {
  const int64_t n = a->x_lengths ? a->x_lengths[b] : a->n, m = a->y_lengths ? a->y_lengths[b] : a->m,
                item = b * a->n * a->m;
  const REAL *cost = (const REAL *)a->cost + item;
  hessian h;
  dalign_arena arena = dalign_arena_over(workspace);
  FN(cut_hessian_)(&h, &arena, n, m);
  for (int64_t i = 0; i < a->n * a->m; i++) product[item + i] = 0;
  for (int64_t i = 0; i < n; i++) {
    FN(band_columns_)(i, n, m, a->band, &h.low[i], &h.high[i]);
    FN(hessian_row_)(a, &h, i, m, cost + i * a->m, tangent + item + i * a->m);
  }
  const double value = h.above[(1 - (n - 1) % 2) * (m + 1) + m];
  if (value == INFINITY) return;
  for (int k = 0; k < 2; k++)
    for (int64_t j = 0; j <= m; j++) h.mass[k][j] = h.slope[k][j] = 0;
  h.mass[(n - 1) % 2][m - 1] = 1;
  for (int64_t i = n - 1; i >= 0; i--)
    FN(hessian_row_back_)(a, &h, i, m, tangent + item + i * a->m, product + item + i * a->m);
  if (fabs(value) < INFINITY) return;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) product[item + i * a->m + j] = (REAL)NAN;
}

size_t FN(dalign_softdtw_hvp_workspace)(const dalign_softdtw_args *args) {
  if (args->n < 1 || args->m < 1) return 0;
  hessian h;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_hessian_)(&h, &a, args->n, args->m);
  return dalign_arena_bytes(&a);
}

dalign_status FN(dalign_softdtw_hvp)(const dalign_softdtw_args *args, const REAL *tangent, REAL *product, int64_t begin,
                                     int64_t end, void *workspace) {
  for (int64_t b = begin; b < end; b++) {
    if (!args->cost || FN(shape_bad_)(args) || FN(item_bad_)(args, b)) return DALIGN_BAD_ARGUMENT;
    FN(hessian_item_)(args, b, tangent, product, workspace);
  }
  return DALIGN_OK;
}
