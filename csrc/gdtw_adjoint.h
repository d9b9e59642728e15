/* gdtw_adjoint.h: gradients of phi and of F by the implicit function theorem, in O(n d).
 *
 * With v = dJ/dphi, Z the directions that the working set leaves (groups without a pin) and H the Hessian of F:
 *
 *   z = Z (Z^T H Z)^{-1} Z^T v,     rho = v - H z = sum of eta_c grad c over the active constraints c(phi, theta) = 0
 *   dJ/dtheta = -z^T d(grad F)/dtheta - sum_c eta_c dc/dtheta
 *
 * and J = F adds its explicit derivative; v then holds grad F too. The eta follow along each group from its ends to its
 * pin. With segment k of knot i, h = ty_{k+1} - ty_k, u = (phi_i - ty_k) / h:
 *
 *   dL_i/dty_k = -(1-u) L_i',  d(L_i')/dty_k = L_i'/h - (1-u) L_i'',  dL_i/dty_{k+1} = -u L_i',  d(L_i')/dty_{k+1} = -L_i'/h - u L_i''
 *
 * and with r = (phi_{i+1} - phi_i) / dt_i:  d(dt_i R)/d dt_i = R - r R',  d(R')/d dt_i = -r R''/dt_i. */
#ifndef DALIGN_GDTW_ADJOINT_H
#define DALIGN_GDTW_ADJOINT_H

typedef struct {
  gdtw_chain chain;
  gdtw_multipliers multipliers;
  double *v, *z, *reduced, *reduced_z; /* of the knots; of the groups */
  double *rho;
  double *grad_dt;
  double grad_s0, factor; /* dJ/dF */
} gdtw_adjoint;

/* Row of a (batch, width) gradient, or NULL. */
static double *gdtw_row_of_gradient(double *gradient, int64_t item, int64_t width) {
  return gradient ? gradient + item * width : NULL;
}

static void gdtw_add(double *row, int64_t k, double number) {
  if (row) row[k] += number;
}

/* ------------------------------------------------------------------------------------------------ the saved solution */

/* phi is put back exactly to where pins hold it: the origin of the times may have cost digits. */
static void gdtw_load_chain(gdtw_chain *c) {
  const gdtw_item *it = c->it;
  const dalign_gdtw_args *a = it->args;
  const double *phi = a->phi + it->index * a->n;
  const int32_t *state = a->state + it->index * a->n * 3;
  for (int i = 0; i < it->n; i++, state += 3) {
    const double *ty = it->ty + state[0];
    c->segment[i] = state[0], c->pin[i] = state[1], c->tie[i] = state[2];
    c->phi[i] = phi[i] - it->origin;
    if (c->pin[i] == GDTW_LOW || c->pin[i] == GDTW_FIXED) c->phi[i] = it->low[i];
    if (c->pin[i] == GDTW_HIGH) c->phi[i] = it->high[i];
    if (c->pin[i] == GDTW_KINK) c->phi[i] = c->phi[i] - ty[0] < ty[1] - c->phi[i] ? ty[0] : ty[1];
  }
}

static void gdtw_load_gradient(gdtw_adjoint *s) {
  const gdtw_item *it = s->chain.it;
  const dalign_gdtw_args *a = it->args;
  s->factor = a->grad_objective ? a->grad_objective[it->index] : 0;
  for (int i = 0; i < it->n; i++)
    s->v[i] = (a->grad_phi ? a->grad_phi[it->index * a->n + i] : 0) + s->factor * s->chain.g[i];
}

/* ------------------------------------------------------------------------------------------------ the linear system */

static void gdtw_solve_adjoint(gdtw_adjoint *s) {
  gdtw_chain *c = &s->chain;
  const int n = c->it->n;
  gdtw_find_groups(c);
  gdtw_reduce_matrix(c);
  gdtw_reduce_vector(c, s->v, s->reduced);
  gdtw_solve_groups(c, s->reduced, 0, s->reduced_z);
  for (int i = 0; i < n; i++) s->z[i] = s->reduced_z[c->group[i]];
  for (int i = 0; i < n; i++) s->rho[i] = s->v[i] - c->bend[i] * s->z[i];
  for (int i = 0; i + 1 < n; i++) {
    const double pull = c->stiff[i] * (s->z[i + 1] - s->z[i]);
    s->rho[i] += pull, s->rho[i + 1] -= pull;
  }
}

/* ------------------------------------------------------------------------------------------------ features and times of y */

static void gdtw_knot_gradients(gdtw_adjoint *s, void *grad_x, void *grad_y, double *grad_ty) {
  gdtw_chain *c = &s->chain;
  const gdtw_item *it = c->it;
  for (int i = 0; i < it->n; i++) {
    const int k = c->segment[i];
    const double h = it->ty[k + 1] - it->ty[k], u = (c->phi[i] - it->ty[k]) / h;
    const double z = s->z[i] * it->w[i], o = s->factor * it->w[i];
    if (z == 0 && o == 0) continue;
    if (grad_x || grad_y)
      (it->is_float ? DALIGN_NAME(gdtw_adjoint_row_, f32) : DALIGN_NAME(gdtw_adjoint_row_, f64))(it, i, k, u, z / h, o,
                                                                                                 grad_x, grad_y);
    if (!grad_ty || it->m == 1) continue;
    const gdtw_jet l = gdtw_loss_at(c, i, k, c->phi[i]);
    grad_ty[k] += z * ((1 - u) * l.second - l.first / h) - o * (1 - u) * l.first;
    grad_ty[k + 1] += z * (u * l.second + l.first / h) - o * u * l.first;
  }
}

/* ------------------------------------------------------------------------------------------------ edges */

static void gdtw_edge_gradients(gdtw_adjoint *s, double *grad_lambda) {
  gdtw_chain *c = &s->chain;
  const gdtw_item *it = c->it;
  s->grad_s0 = 0;
  for (int i = 0; i + 1 < it->n; i++) {
    const double step = c->phi[i + 1] - c->phi[i], slope = step / it->dt[i], opening = s->z[i + 1] - s->z[i];
    const gdtw_jet r = gdtw_regularizer(it, i, step);
    const double lambda = it->lambda[i];
    gdtw_add(grad_lambda, i, s->factor * it->dt[i] * r.value - opening * r.first);
    s->grad_s0 += opening * lambda * r.second - s->factor * lambda * it->dt[i] * r.first;
    s->grad_dt[i] = opening * c->stiff[i] * slope + s->factor * lambda * (r.value - r.first * slope);
  }
}

/* The weights of the trapezoidal rule are sums of halves of the edges. */
static void gdtw_weight_gradients(gdtw_adjoint *s) {
  gdtw_chain *c = &s->chain;
  const int n = c->it->n;
  for (int i = 0; i < n && n > 1; i++) {
    const gdtw_jet l = gdtw_loss_at(c, i, c->segment[i], c->phi[i]);
    const double half = .5 * (s->factor * l.value - s->z[i] * l.first);
    if (i > 0) s->grad_dt[i - 1] += half;
    if (i + 1 < n) s->grad_dt[i] += half;
  }
}

/* ------------------------------------------------------------------------------------------------ constraints */

/* Rows of the item's gradients. */
typedef struct {
  double *slope_min, *slope_max, *band_min, *band_max, *x_times, *y_times;
} gdtw_rows;

static void gdtw_tie_gradient(gdtw_adjoint *s, const gdtw_rows *rows, int edge, double eta) {
  const gdtw_item *it = s->chain.it;
  const int tie = s->chain.tie[edge], low = tie == GDTW_MIN || (tie == GDTW_EQUAL && eta < 0);
  gdtw_add(low ? rows->slope_min : rows->slope_max, edge, eta * it->dt[edge]);
  s->grad_dt[edge] += eta * gdtw_tied_step(it, edge, tie) / it->dt[edge];
}

/* Whether the bound of knot i is the band's and not an end of y. */
static int gdtw_is_band(const gdtw_item *it, int i, int high) {
  const dalign_series *band = high ? &it->args->band_max : &it->args->band_min;
  if (!band->at || gdtw_is_end(it, i)) return 0;
  return high ? it->high[i] < it->span : it->low[i] > 0;
}

static void gdtw_bound_gradient(const gdtw_item *it, const gdtw_rows *rows, int i, int high, double eta) {
  if (gdtw_is_band(it, i, high) && it->m > 1)
    gdtw_add(high ? rows->band_max : rows->band_min, i, eta);
  else
    gdtw_add(rows->y_times, high ? it->m - 1 : 0, eta);
}

static void gdtw_pin_gradient(const gdtw_chain *c, const gdtw_rows *rows, int i, double eta) {
  const gdtw_item *it = c->it;
  if (c->pin[i] == GDTW_KINK) {
    gdtw_add(rows->y_times, c->segment[i] + (c->phi[i] == it->ty[c->segment[i] + 1]), eta);
  } else if (c->pin[i] == GDTW_FIXED && gdtw_is_end(it, i)) {
    gdtw_bound_gradient(it, rows, i, i > 0 || !it->args->fixed_start, eta);
  } else if (c->pin[i] == GDTW_FIXED) {
    gdtw_bound_gradient(it, rows, i, 0, .5 * eta);
    gdtw_bound_gradient(it, rows, i, 1, .5 * eta);
  } else {
    gdtw_bound_gradient(it, rows, i, c->pin[i] == GDTW_HIGH, eta);
  }
}

/* The pin that carries a group: a bound rather than a sample. */
static int gdtw_carrying_pin(const gdtw_chain *c, int first, int last) {
  int pin = -1;
  for (int i = first; i <= last; i++)
    if (c->pin[i] && (pin < 0 || (c->pin[pin] == GDTW_KINK && c->pin[i] != GDTW_KINK))) pin = i;
  return pin;
}

/* eta of the ties from both ends of a group towards its pin (to its right end without one), and of the pin. */
static void gdtw_group_gradients(gdtw_adjoint *s, const gdtw_rows *rows, int first, int last) {
  const int pin = gdtw_carrying_pin(&s->chain, first, last), middle = pin < 0 ? last : pin;
  double left = 0, right = 0;
  for (int i = first; i < middle; i++) {
    left -= s->rho[i];
    gdtw_tie_gradient(s, rows, i, left);
  }
  for (int i = last; i > middle; i--) {
    right += s->rho[i];
    gdtw_tie_gradient(s, rows, i - 1, right);
  }
  if (pin >= 0) gdtw_pin_gradient(&s->chain, rows, pin, right - left + s->rho[pin]);
}

static void gdtw_constraint_gradients(gdtw_adjoint *s, const gdtw_rows *rows) {
  for (int i = 0, first = 0; i < s->chain.it->n; i++) {
    if (s->chain.tie[i]) continue;
    gdtw_group_gradients(s, rows, first, i);
    first = i + 1;
  }
}

/* ------------------------------------------------------------------------------------------------ times */

/* s0 = (last - first time of y) / (last - first time of x) where it is not given and both ends are fixed. */
static void gdtw_nominal_slope_gradient(const gdtw_adjoint *s, const gdtw_rows *rows) {
  const gdtw_item *it = s->chain.it;
  const dalign_gdtw_args *a = it->args;
  if (a->nominal_slope.at || !a->fixed_start || !a->fixed_end || it->n == 1 || it->m == 1) return;
  const double per_span = s->grad_s0 / it->t[it->n - 1];
  gdtw_add(rows->y_times, it->m - 1, per_span);
  gdtw_add(rows->y_times, 0, -per_span);
  gdtw_add(rows->x_times, it->n - 1, -per_span * it->s0);
  gdtw_add(rows->x_times, 0, per_span * it->s0);
}

static void gdtw_time_gradients(const gdtw_adjoint *s, const gdtw_rows *rows) {
  gdtw_nominal_slope_gradient(s, rows);
  for (int i = 0; rows->x_times && i + 1 < s->chain.it->n; i++) {
    rows->x_times[i + 1] += s->grad_dt[i];
    rows->x_times[i] -= s->grad_dt[i];
  }
}

/* ------------------------------------------------------------------------------------------------ the whole */

static void *gdtw_features_of(void *gradient, const gdtw_item *it, int64_t frames) {
  const size_t size = it->is_float ? sizeof(float) : sizeof(double);
  return gradient ? (char *)gradient + (size_t)(it->index * frames * it->d) * size : NULL;
}

/* Adds all gradients of an item to its rows, which hold zeros. */
static void gdtw_run_adjoint(gdtw_adjoint *s, const gdtw_item *it) {
  const dalign_gdtw_args *a = it->args;
  const int64_t b = it->index;
  const gdtw_rows rows = {
      gdtw_row_of_gradient(a->grad_slope_min, b, a->n - 1), gdtw_row_of_gradient(a->grad_slope_max, b, a->n - 1),
      gdtw_row_of_gradient(a->grad_band_min, b, a->n),      gdtw_row_of_gradient(a->grad_band_max, b, a->n),
      gdtw_row_of_gradient(a->grad_x_times, b, a->n),       gdtw_row_of_gradient(a->grad_y_times, b, a->m)};
  gdtw_open_chain(&s->chain, it);
  gdtw_load_chain(&s->chain);
  gdtw_derivatives(&s->chain);
  gdtw_load_gradient(s);
  if (gdtw_superfluous_pins(&s->chain)) {
    gdtw_find_multipliers(&s->multipliers, &s->chain);
    gdtw_cut_ties(&s->multipliers, &s->chain);
  }
  gdtw_solve_adjoint(s);
  gdtw_knot_gradients(s, gdtw_features_of(a->grad_x, it, a->n), gdtw_features_of(a->grad_y, it, a->m), rows.y_times);
  gdtw_edge_gradients(s, gdtw_row_of_gradient(a->grad_reg_weight, b, a->n - 1));
  if (rows.x_times) gdtw_weight_gradients(s);
  gdtw_constraint_gradients(s, &rows);
  gdtw_time_gradients(s, &rows);
  if (a->nominal_slope.at) gdtw_add(a->grad_nominal_slope, b, s->grad_s0);
}

static void gdtw_cut_adjoint(gdtw_adjoint *s, const dalign_gdtw_args *a, dalign_arena *memory) {
  gdtw_cut_chain(&s->chain, a, memory);
  gdtw_cut_multipliers(&s->multipliers, a, memory);
  double **const numbers[] = {&s->v, &s->z, &s->reduced, &s->reduced_z, &s->rho, &s->grad_dt};
  for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
    *numbers[k] = dalign_arena_take(memory, (size_t)a->n * sizeof(double));
}

#endif
