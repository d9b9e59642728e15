/* gdtw_chain.h: the chain of knots at a warp: derivatives of F, groups of tied knots, the reduced linear system. What
 * polish and adjoint share.
 *
 * Knots that ties join form a group and move as one; a group with a pin stands. H is tridiagonal: w_i L_i'' on the
 * diagonal and q_i = lambda_i R''_i / dt_i for each edge; edges inside of a group cancel. So the reduced system is
 * tridiagonal too, an M-matrix: elimination without pivoting. */
#ifndef DALIGN_GDTW_CHAIN_H
#define DALIGN_GDTW_CHAIN_H

/* Products of a knot with two segments (of even and of odd number), so that D numbers are read once for each. */
typedef struct {
  int segment[2];
  double product[2][3];
} gdtw_products;

typedef struct {
  const gdtw_item *it;
  double *phi;
  int *segment, *pin, *tie; /* tie[n - 1] is loose */
  gdtw_products *products;
  double *g;                        /* dF/dphi */
  double *force;                    /* lambda_i R'_i of the edges */
  double *bend, *stiff;             /* w_i L_i'', q_i */
  int *group, *stands;              /* group of a knot; whether a group has a pin */
  double *diagonal, *off, *c, *sum; /* of the groups; c and sum: elimination */
  int groups, singular;
} gdtw_chain;

/* ------------------------------------------------------------------------------------------------ derivatives */

/* L_i on a segment, continued beyond it, and its derivatives with respect to phi. */
static gdtw_jet gdtw_loss_at(gdtw_chain *c, int i, int segment, double phi) {
  const gdtw_item *it = c->it;
  const double h = it->ty[segment + 1] - it->ty[segment], u = (phi - it->ty[segment]) / h;
  gdtw_jet jet;
  if (it->args->loss == DALIGN_GDTW_SQUARES) {
    gdtw_products *p = &c->products[i];
    const int slot = segment & 1;
    double *product = p->product[slot];
    if (p->segment[slot] != segment) {
      if (it->is_float)
        DALIGN_NAME(gdtw_products_, f32)(it, i, segment, product);
      else
        DALIGN_NAME(gdtw_products_, f64)(it, i, segment, product);
      p->segment[slot] = segment;
    }
    jet = (gdtw_jet){product[0] - 2 * u * product[1] + u * u * product[2], 2 * (u * product[2] - product[1]),
                     2 * product[2]};
  } else {
    jet = it->is_float ? DALIGN_NAME(gdtw_loss_, f32)(it, i, segment, u)
                       : DALIGN_NAME(gdtw_loss_, f64)(it, i, segment, u);
  }
  return (gdtw_jet){jet.value, jet.first / h, jet.second / (h * h)};
}

static void gdtw_derivatives(gdtw_chain *c) {
  const gdtw_item *it = c->it;
  for (int i = 0; i < it->n; i++) {
    const gdtw_jet l = gdtw_loss_at(c, i, c->segment[i], c->phi[i]);
    c->g[i] = it->w[i] * l.first, c->bend[i] = it->w[i] * l.second;
  }
  for (int i = 0; i + 1 < it->n; i++) {
    const gdtw_jet r = gdtw_regularizer(it, i, c->phi[i + 1] - c->phi[i]);
    c->force[i] = it->lambda[i] * r.first, c->stiff[i] = it->lambda[i] * r.second / it->dt[i];
    c->g[i] -= c->force[i], c->g[i + 1] += c->force[i];
  }
}

static double gdtw_objective(gdtw_chain *c) {
  const gdtw_item *it = c->it;
  double sum = 0;
  for (int i = 0; i < it->n; i++) sum += it->w[i] * gdtw_loss_at(c, i, c->segment[i], c->phi[i]).value;
  for (int i = 0; i + 1 < it->n; i++)
    sum += it->lambda[i] * it->dt[i] * gdtw_regularizer(it, i, c->phi[i + 1] - c->phi[i]).value;
  return sum;
}

/* The slopes of L_i (times w_i) before and behind a sample. */
static void gdtw_slopes_at_sample(gdtw_chain *c, int i, int sample, double *before, double *behind) {
  *before = c->it->w[i] * gdtw_loss_at(c, i, sample - 1, c->it->ty[sample]).first;
  *behind = c->it->w[i] * gdtw_loss_at(c, i, sample, c->it->ty[sample]).first;
}

/* ------------------------------------------------------------------------------------------------ groups */

static void gdtw_find_groups(gdtw_chain *c) {
  int g = -1;
  for (int i = 0; i < c->it->n; i++) {
    if (i == 0 || !c->tie[i - 1]) c->stands[++g] = 0;
    c->group[i] = g;
    c->stands[g] |= c->pin[i] != GDTW_FREE;
  }
  c->groups = g + 1;
}

static void gdtw_reduce_matrix(gdtw_chain *c) {
  for (int g = 0; g < c->groups; g++) c->diagonal[g] = 0;
  for (int i = 0; i < c->it->n; i++) c->diagonal[c->group[i]] += c->bend[i];
  for (int i = 0; i + 1 < c->it->n; i++) {
    const int g = c->group[i];
    if (g == c->group[i + 1]) continue;
    c->diagonal[g] += c->stiff[i], c->diagonal[g + 1] += c->stiff[i];
    c->off[g] = -c->stiff[i];
  }
}

/* Sums of a vector over the groups. */
static void gdtw_reduce_vector(const gdtw_chain *c, const double *v, double *sums) {
  for (int g = 0; g < c->groups; g++) sums[g] = 0;
  for (int i = 0; i < c->it->n; i++) sums[c->group[i]] += v[i];
}

/* The pivot in place of one that is nothing but rounding: +inf stops all movement along its direction, which is what the
 * adjoint takes; a small number makes a long step to the next constraint, which is what Newton takes. */
static double gdtw_flat_pivot(double diagonal, double largest, int move) {
  return move ? gdtw_most(1e-13 * largest, 1e-300) + (diagonal > 0 ? 1e-8 * diagonal : 0) : INFINITY;
}

/* (Z^T H Z) step = sum over the groups that move; 0 for those that stand. */
static void gdtw_solve_groups(gdtw_chain *c, const double *sum, int move, double *step) {
  double largest = 0;
  for (int g = 0; g < c->groups; g++) largest = gdtw_most(largest, c->diagonal[g]);
  c->singular = 0;
  for (int g = 0; g < c->groups; g++) {
    const int joined = g && !c->stands[g - 1];
    double pivot = c->diagonal[g] - (joined ? c->off[g - 1] * c->c[g - 1] : 0);
    const double right = sum[g] - (joined ? c->off[g - 1] * c->sum[g - 1] : 0);
    c->c[g] = c->sum[g] = 0;
    if (c->stands[g]) continue;
    c->singular += pivot <= 1e-12 * largest;
    if (pivot <= (move ? 1e-13 : 1e-12) * largest) pivot = gdtw_flat_pivot(c->diagonal[g], largest, move);
    if (g + 1 < c->groups && !c->stands[g + 1]) c->c[g] = c->off[g] / pivot;
    c->sum[g] = right / pivot;
  }
  for (int g = c->groups - 1; g >= 0; g--)
    step[g] = c->stands[g] ? 0 : c->sum[g] - (g + 1 < c->groups ? c->c[g] * step[g + 1] : 0);
}

/* ------------------------------------------------------------------------------------------------ admissible forces */

typedef struct {
  double low, high;
} gdtw_range;

/* Forces on knot i that something there can hold: one number where F is smooth, those between the slopes before and behind
 * a sample, and any against a bound. */
static gdtw_range gdtw_forces(gdtw_chain *c, int i) {
  const gdtw_item *it = c->it;
  if (c->pin[i] == GDTW_FIXED) return (gdtw_range){-INFINITY, INFINITY};
  gdtw_range s = {c->g[i], c->g[i]};
  const int sample = gdtw_sample_at(it, c->phi[i], c->segment[i]);
  if (sample >= 0) {
    double before, behind;
    gdtw_slopes_at_sample(c, i, sample, &before, &behind);
    const double rest = c->g[i] - it->w[i] * gdtw_loss_at(c, i, c->segment[i], c->phi[i]).first;
    s = (gdtw_range){rest + before, rest + behind};
  }
  if (c->phi[i] - it->low[i] <= it->tolerance) s.low = -INFINITY;
  if (it->high[i] - c->phi[i] <= it->tolerance) s.high = INFINITY;
  return s;
}

/* Forces that the tie of edge i can carry. */
static gdtw_range gdtw_tie_forces(const gdtw_chain *c, int i) {
  const int tie = i + 1 < c->it->n ? c->tie[i] : GDTW_LOOSE;
  return (gdtw_range){tie == GDTW_MIN || tie == GDTW_EQUAL ? -INFINITY : 0,
                      tie == GDTW_MAX || tie == GDTW_EQUAL ? INFINITY : 0};
}

/* ------------------------------------------------------------------------------------------------ memory */

static void gdtw_cut_chain(gdtw_chain *c, const dalign_gdtw_args *a, dalign_arena *memory) {
  const size_t n = (size_t)a->n;
  double **const numbers[] = {&c->phi, &c->g, &c->force, &c->bend, &c->stiff, &c->c, &c->diagonal, &c->off, &c->sum};
  int **const words[] = {&c->segment, &c->pin, &c->tie, &c->group, &c->stands};
  for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
    *numbers[k] = dalign_arena_take(memory, n * sizeof(double));
  for (size_t k = 0; k < sizeof words / sizeof *words; k++) *words[k] = dalign_arena_take(memory, n * sizeof(int));
  c->products = dalign_arena_take(memory, n * sizeof *c->products);
}

static void gdtw_open_chain(gdtw_chain *c, const gdtw_item *it) {
  c->it = it;
  c->singular = 0;
  for (int i = 0; i < it->n; i++) c->products[i].segment[0] = c->products[i].segment[1] = -1;
}

#endif
