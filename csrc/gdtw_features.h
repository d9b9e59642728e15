/* gdtw_features.h: what GDTW needs of the features, for one element type. Sums are double. */

/* Independent sums, so that they go side by side. */
enum { FN(GDTW_SUMS) = 8 };

static int FN(gdtw_is_finite_)(const void *numbers, int64_t count) {
  const REAL *p = numbers;
  REAL zeros[FN(GDTW_SUMS)] = {0};
  int64_t k = 0;
  for (; k + FN(GDTW_SUMS) <= count; k += FN(GDTW_SUMS))
    for (int q = 0; q < FN(GDTW_SUMS); q++) zeros[q] += p[k + q] * 0;
  for (; k < count; k++) zeros[0] += p[k] * 0;
  for (int q = 1; q < FN(GDTW_SUMS); q++) zeros[0] += zeros[q];
  return zeros[0] == 0;
}

/* With e = x_i - y_k and g = y_{k+1} - y_k: e.e, e.g, g.g, from which |x_i - y(v)|^2 follows on the whole segment. */
static void FN(gdtw_products_)(const gdtw_item *it, int i, int k, double *c) {
  const REAL *x = (const REAL *)it->x + i * it->d, *y = (const REAL *)it->y + k * it->d;
  const REAL *next = y + (it->m > 1 ? it->d : 0);
  double ee[FN(GDTW_SUMS)] = {0}, eg[FN(GDTW_SUMS)] = {0}, gg[FN(GDTW_SUMS)] = {0};
  int64_t f = 0;
  for (; f + FN(GDTW_SUMS) <= it->d; f += FN(GDTW_SUMS))
    for (int q = 0; q < FN(GDTW_SUMS); q++) {
      const double e = (double)x[f + q] - (double)y[f + q], g = (double)next[f + q] - (double)y[f + q];
      ee[q] += e * e, eg[q] += e * g, gg[q] += g * g;
    }
  for (int q = 0; f < it->d; f++, q++) {
    const double e = (double)x[f] - (double)y[f], g = (double)next[f] - (double)y[f];
    ee[q] += e * e, eg[q] += e * g, gg[q] += g * g;
  }
  c[0] = c[1] = c[2] = 0;
  for (int q = 0; q < FN(GDTW_SUMS); q++) c[0] += ee[q], c[1] += eg[q], c[2] += gg[q];
}

/* L_i at u of segment k and its derivatives with respect to u. */
static gdtw_jet FN(gdtw_loss_)(const gdtw_item *it, int i, int k, double u) {
  const REAL *x = (const REAL *)it->x + i * it->d, *y = (const REAL *)it->y + k * it->d;
  const REAL *next = y + (it->m > 1 ? it->d : 0);
  gdtw_jet sum = {0, 0, 0};
  for (int64_t f = 0; f < it->d; f++) {
    const double g = (double)next[f] - (double)y[f], e = (double)x[f] - (double)y[f] - u * g;
    const gdtw_jet l = gdtw_penalty(it->args->loss, it->args->loss_parameter, e);
    sum.value += l.value, sum.first -= l.first * g, sum.second += l.second * g * g;
  }
  return sum;
}

/* Floats for the lattice: x as it is, y feature by feature, pitch apart, padded with its last frame. */
static void FN(gdtw_stage_)(const gdtw_item *it, float *x, float *y, int64_t pitch) {
  const REAL *given_x = it->x, *given_y = it->y;
  for (int64_t k = 0; k < it->n * it->d; k++) x[k] = (float)given_x[k];
  for (int64_t k = 0; k < pitch; k++) {
    const REAL *frame = given_y + (k < it->m ? k : it->m - 1) * it->d;
    for (int64_t f = 0; f < it->d; f++) y[f * pitch + k] = (float)frame[f];
  }
}

/* Adds to gradients of x_i, y_k, y_{k+1} those of  z dL_i/dphi  (with a minus: the adjoint) and of  o L_i,  both weighted
 * already. With s = (y_{k+1} - y_k) / h and e = x_i - (1-u) y_k - u y_{k+1}:  dL/dphi = -l'(e) s. */
static void FN(gdtw_adjoint_row_)(const gdtw_item *it, int i, int k, double u, double h, double z, double o,
                                  void *grad_x, void *grad_y) {
  const REAL *x = (const REAL *)it->x + i * it->d, *y = (const REAL *)it->y + k * it->d;
  const int64_t ahead = it->m > 1 ? it->d : 0;
  REAL *gx = grad_x ? (REAL *)grad_x + i * it->d : NULL, *gy = grad_y ? (REAL *)grad_y + k * it->d : NULL;
  for (int64_t f = 0; f < it->d; f++) {
    const double g = (double)y[f + ahead] - (double)y[f], e = (double)x[f] - (double)y[f] - u * g;
    const gdtw_jet l = gdtw_penalty(it->args->loss, it->args->loss_parameter, e);
    const double by_e = z * l.second * g / h + o * l.first, by_s = z * l.first / h;
    if (gx) gx[f] += (REAL)by_e;
    if (gy) gy[f] -= (REAL)((1 - u) * by_e + by_s);
    if (gy) gy[f + ahead] -= (REAL)(u * by_e - by_s);
  }
}
