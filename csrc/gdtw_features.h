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

/* Floats for the lattice: x as it is, y in blocks of samples, each feature by feature; padded with the last frame. */
static void FN(gdtw_stage_)(const gdtw_item *it, float *x, float *y, int64_t padded, int64_t block) {
  const REAL *given_x = it->x, *given_y = it->y;
  for (int64_t k = 0; k < it->n * it->d; k++) x[k] = (float)given_x[k];
  for (int64_t k = 0; k < padded; k++) {
    const REAL *frame = given_y + (k < it->m ? k : it->m - 1) * it->d;
    float *column = y + (k - k % block) * it->d + k % block;
    for (int64_t f = 0; f < it->d; f++) column[f * block] = (float)frame[f];
  }
}

/* What knot i adds to the gradients of x_i, y_k, y_{k+1}: of  -z dL_i/dphi  (the adjoint) and of  o L_i,  both weighted
 * already. With g = y_{k+1} - y_k and e = x_i - (1-u) y_k - u y_{k+1}:  dL/dphi = -l'(e) g / h. */
typedef struct {
  const REAL *x, *y, *next;
  REAL *grad_x, *grad_y, *grad_next; /* grad_next is grad_y where y has one sample */
  int64_t d;
  double u, z, o; /* z: divided by h */
} FN(gdtw_row_adjoint);

/* by_e and by_s: derivatives with respect to e, and to g with e held. */
DALIGN_INLINE void FN(gdtw_add_feature_)(const FN(gdtw_row_adjoint) * r, int64_t f, double by_e, double by_s) {
  if (r->grad_x) r->grad_x[f] += (REAL)by_e;
  if (!r->grad_y) return;
  r->grad_y[f] -= (REAL)((1 - r->u) * by_e + by_s);
  r->grad_next[f] -= (REAL)(r->u * by_e - by_s);
}

static void FN(gdtw_adjoint_squares_)(const FN(gdtw_row_adjoint) * r) {
  for (int64_t f = 0; f < r->d; f++) {
    const double g = (double)r->next[f] - (double)r->y[f], e = (double)r->x[f] - (double)r->y[f] - r->u * g;
    FN(gdtw_add_feature_)(r, f, 2 * (r->z * g + r->o * e), 2 * r->z * e);
  }
}

static void FN(gdtw_adjoint_any_)(const FN(gdtw_row_adjoint) * r, dalign_gdtw_penalty loss, double p) {
  for (int64_t f = 0; f < r->d; f++) {
    const double g = (double)r->next[f] - (double)r->y[f], e = (double)r->x[f] - (double)r->y[f] - r->u * g;
    const gdtw_jet l = gdtw_penalty(loss, p, e);
    FN(gdtw_add_feature_)(r, f, r->z * l.second * g + r->o * l.first, r->z * l.first);
  }
}

static void FN(gdtw_adjoint_row_)(const gdtw_item *it, int i, int k, double u, double z, double o, void *grad_x,
                                  void *grad_y) {
  const int64_t ahead = it->m > 1 ? it->d : 0;
  FN(gdtw_row_adjoint)
  r = {.x = (const REAL *)it->x + i * it->d,
       .y = (const REAL *)it->y + k * it->d,
       .grad_x = grad_x ? (REAL *)grad_x + i * it->d : NULL,
       .grad_y = grad_y ? (REAL *)grad_y + k * it->d : NULL,
       .d = it->d,
       .u = u,
       .z = z,
       .o = o};
  r.next = r.y + ahead;
  r.grad_next = r.grad_y ? r.grad_y + ahead : NULL;
  if (it->args->loss == DALIGN_GDTW_SQUARES)
    FN(gdtw_adjoint_squares_)(&r);
  else
    FN(gdtw_adjoint_any_)(&r, it->args->loss, it->args->loss_parameter);
}
