#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef DALIGN_TEST_DOUBLE
#define expl exp
#define fabsl fabs
#define fminl fmin
#define logl log
#define sqrtl sqrt
#endif

/* The three steps in the order of dalign_softdtw_args.step_weights: down, right, diagonal. */
static const int step_i[3] = {1, 0, 1};
static const int step_j[3] = {0, 1, 1};

/* ---------------------------------------------------------------- costs */

static wide clamped_log(wide a) {
  const wide log_a = logl(a);
  return log_a < -100 ? -100 : log_a; /* a NaN stays */
}

static wide dot(int64_t d, const double *x, const double *y) {
  wide sum = 0;
  for (int64_t k = 0; k < d; k++) sum += (wide)x[k] * y[k];
  return sum;
}

static wide squared_distance(int64_t d, const double *x, const double *y) {
  wide sum = 0;
  for (int64_t k = 0; k < d; k++) {
    const wide difference = (wide)x[k] - y[k];
    sum += difference * difference;
  }
  return sum;
}

static wide manhattan(int64_t d, const double *x, const double *y) {
  wide sum = 0;
  for (int64_t k = 0; k < d; k++) sum += fabsl((wide)x[k] - y[k]);
  return sum;
}

static wide cosine(int64_t d, const double *x, const double *y) {
  const wide xx = dot(d, x, x), yy = dot(d, y, y);
  if (xx == 0 || yy == 0) return 1;
  return 1 - dot(d, x, y) / (sqrtl(xx) * sqrtl(yy));
}

static wide bce(int64_t d, const double *x, const double *y) {
  wide sum = 0;
  for (int64_t k = 0; k < d; k++) sum -= y[k] * clamped_log(x[k]) + (1 - (wide)y[k]) * clamped_log(1 - (wide)x[k]);
  return sum;
}

wide reference_cost(dalign_metric metric, int64_t d, const double *x, const double *y, int64_t label) {
  switch (metric) {
    case DALIGN_SQEUCLIDEAN: return squared_distance(d, x, y);
    case DALIGN_EUCLIDEAN: return sqrtl(squared_distance(d, x, y));
    case DALIGN_MANHATTAN: return manhattan(d, x, y);
    case DALIGN_COSINE: return cosine(d, x, y);
    case DALIGN_NLL: return -(wide)x[label];
    case DALIGN_BCE: return bce(d, x, y);
  }
  return NAN;
}

/* d cosine / d x; the gradient for y is the same with the roles changed. */
static void cosine_gradient(int64_t d, const double *x, const double *y, double *grad) {
  const wide xx = dot(d, x, x), yy = dot(d, y, y), xy = dot(d, x, y);
  const wide norms = sqrtl(xx) * sqrtl(yy);
  for (int64_t k = 0; k < d; k++) grad[k] = norms == 0 ? 0 : (double)((x[k] * (xy / xx) - y[k]) / norms);
}

static double sign(double a) { return (a > 0) - (a < 0); }

/* d bce / d x of one number. Where a logarithm is clamped it does not move. */
static double bce_gradient(double x, double y) {
  const double from_log_x = logl(x) > -100 ? y / x : 0;
  const double from_log_1_x = logl(1 - (wide)x) > -100 ? (1 - y) / (1 - x) : 0;
  return from_log_1_x - from_log_x;
}

void reference_cost_gradient(dalign_metric metric, int64_t d, const double *x, const double *y, int64_t label,
                             double *grad_x, double *grad_y) {
  if (metric == DALIGN_NLL) {
    for (int64_t k = 0; k < d; k++) grad_x[k] = k == label ? -1 : 0;
    return;
  }
  if (metric == DALIGN_COSINE) {
    cosine_gradient(d, x, y, grad_x);
    cosine_gradient(d, y, x, grad_y);
    return;
  }
  const double distance = metric == DALIGN_EUCLIDEAN ? (double)sqrtl(squared_distance(d, x, y)) : 0;
  for (int64_t k = 0; k < d; k++) {
    const double difference = x[k] - y[k];
    switch (metric) {
      case DALIGN_SQEUCLIDEAN: grad_x[k] = 2 * difference; break;
      case DALIGN_EUCLIDEAN: grad_x[k] = distance == 0 ? 0 : difference / distance; break;
      case DALIGN_MANHATTAN: grad_x[k] = sign(difference); break;
      default: grad_x[k] = bce_gradient(x[k], y[k]); break;
    }
    grad_y[k] = metric == DALIGN_BCE ? (double)(clamped_log(1 - (wide)x[k]) - clamped_log(x[k])) : -grad_x[k];
  }
}

/* ---------------------------------------------------------------- soft-DTW */

int reference_in_band(const reference_problem *problem, int64_t i, int64_t j) {
  const int64_t n = problem->n, m = problem->m;
  const int64_t longer = n > m ? n - 1 : m - 1;
  if (problem->band < 0 || problem->band == INFINITY) return 1;
  return fabs((double)(i * (m - 1) - j * (n - 1))) <= problem->band * (double)longer;
}

/* A cell that paths may use. */
static int is_open(const reference_problem *problem, int64_t i, int64_t j) {
  return reference_in_band(problem, i, j) && problem->cost[i * problem->m + j] != INFINITY;
}

/* Does step k lead into cell (i, j) from inside the lattice? */
static int enters(const reference_problem *problem, int k, int64_t i, int64_t j) {
  return i >= step_i[k] && j >= step_j[k] && problem->step_weights[k] != INFINITY;
}

void reference_paths(const reference_problem *problem, unsigned char *on_path) {
  const int64_t n = problem->n, m = problem->m;
  unsigned char *from_start = calloc((size_t)(n * m), 1), *to_end = calloc((size_t)(n * m), 1);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      if (!is_open(problem, i, j)) continue;
      if (i == 0 && j == 0) from_start[0] = 1;
      for (int k = 0; k < 3; k++)
        if (enters(problem, k, i, j) && from_start[(i - step_i[k]) * m + j - step_j[k]]) from_start[i * m + j] = 1;
    }
  to_end[n * m - 1] = (unsigned char)is_open(problem, n - 1, m - 1);
  for (int64_t i = n - 1; i >= 0; i--)
    for (int64_t j = m - 1; j >= 0; j--)
      for (int k = 0; k < 3; k++)
        if (to_end[i * m + j] && enters(problem, k, i, j) && is_open(problem, i - step_i[k], j - step_j[k]))
          to_end[(i - step_i[k]) * m + j - step_j[k]] = 1;
  for (int64_t c = 0; c < n * m; c++) on_path[c] = from_start[c] && to_end[c];
  free(from_start);
  free(to_end);
}

/* Fills R (n, m), +inf where no path comes, and P (n, m, 3): the probability that a path which is at (i, j) came by
 * step k. A NaN cost spreads to every later cell, and so does -inf. */
static void forward(const reference_problem *problem, wide *R, double *P) {
  const int64_t n = problem->n, m = problem->m;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      const int64_t c = i * m + j;
      const wide cost = problem->cost[c] == -INFINITY ? NAN : problem->cost[c];
      wide a[3] = {INFINITY, INFINITY, INFINITY}, least = INFINITY;
      double sum = 0;
      R[c] = INFINITY;
      P[3 * c] = P[3 * c + 1] = P[3 * c + 2] = 0;
      if (!is_open(problem, i, j)) continue;
      if (i == 0 && j == 0) {
        R[c] = cost;
        continue;
      }
      for (int k = 0; k < 3; k++) {
        if (!enters(problem, k, i, j)) continue;
        a[k] = R[(i - step_i[k]) * m + j - step_j[k]] + problem->step_weights[k] * cost;
        if (a[k] < least || isnan((double)a[k])) least = a[k];
      }
      if (least == INFINITY) continue;
      for (int k = 0; k < 3; k++)
        if (enters(problem, k, i, j)) sum += P[3 * c + k] = exp((double)((least - a[k]) / problem->gamma));
      for (int k = 0; k < 3; k++)
        if (P[3 * c + k] != 0) P[3 * c + k] /= sum;
      R[c] = least - problem->gamma * (wide)log(sum);
    }
}

/* Mean weight of the steps into a cell: the alignment is mass times this. The first cell counts once. */
static double mean_weight(const reference_problem *problem, const double *P, int64_t c) {
  double sum = c == 0;
  for (int k = 0; k < 3; k++)
    if (P[3 * c + k] != 0) sum += problem->step_weights[k] * P[3 * c + k];
  return sum;
}

/* mass (n, m) from the last cell back, with the probabilities of forward. */
static void backward(const reference_problem *problem, const double *P, int reachable, double *mass) {
  const int64_t n = problem->n, m = problem->m;
  memset(mass, 0, (size_t)(n * m) * sizeof *mass);
  mass[n * m - 1] = reachable;
  for (int64_t i = n - 1; i >= 0; i--)
    for (int64_t j = m - 1; j >= 0; j--)
      for (int k = 0; k < 3; k++)
        if (enters(problem, k, i, j))
          mass[(i - step_i[k]) * m + j - step_j[k]] += mass[i * m + j] * P[3 * (i * m + j) + k];
}

wide reference_softdtw(const reference_problem *problem, double *alignment, double *mass) {
  const size_t cells = (size_t)(problem->n * problem->m);
  wide *R = malloc(cells * sizeof *R);
  double *P = malloc(3 * cells * sizeof *P), *own_mass = malloc(cells * sizeof *own_mass);
  forward(problem, R, P);
  const wide value = R[cells - 1];
  backward(problem, P, value != INFINITY, own_mass);
  for (size_t c = 0; c < cells; c++) {
    if (mass) mass[c] = own_mass[c];
    if (alignment) alignment[c] = own_mass[c] == 0 ? 0 : own_mass[c] * mean_weight(problem, P, (int64_t)c);
  }
  free(R);
  free(P);
  free(own_mass);
  return value;
}

/* ---------------------------------------------------------------- second derivative
 *
 * Every quantity of the two sweeps above gets its derivative along the tangent, marked d_:
 *   d_a_k = d_R(from) + w_k tangent,  d_R = sum_k P_k d_a_k,  d_P_k = -P_k (d_a_k - d_R) / gamma
 *   d_mass(from) += d_mass P_k + mass d_P_k,  product = d_mass mean(w) + mass sum_k w_k d_P_k */

static void forward_derivative(const reference_problem *problem, const double *tangent, const double *P, double *d_R,
                               double *d_P) {
  const int64_t n = problem->n, m = problem->m;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      const int64_t c = i * m + j;
      double d_a[3] = {0, 0, 0};
      d_R[c] = c == 0 ? tangent[0] : 0;
      for (int k = 0; k < 3; k++) {
        if (P[3 * c + k] == 0) continue;
        d_a[k] = d_R[(i - step_i[k]) * m + j - step_j[k]] + problem->step_weights[k] * tangent[c];
        d_R[c] += P[3 * c + k] * d_a[k];
      }
      for (int k = 0; k < 3; k++) d_P[3 * c + k] = -P[3 * c + k] * (d_a[k] - d_R[c]) / problem->gamma;
    }
}

static void backward_derivative(const reference_problem *problem, const double *P, const double *mass,
                                const double *d_P, double *product) {
  const int64_t n = problem->n, m = problem->m;
  double *d_mass = calloc((size_t)(n * m), sizeof *d_mass);
  for (int64_t i = n - 1; i >= 0; i--)
    for (int64_t j = m - 1; j >= 0; j--) {
      const int64_t c = i * m + j;
      product[c] = d_mass[c] * mean_weight(problem, P, c);
      for (int k = 0; k < 3; k++) {
        if (P[3 * c + k] == 0) continue;
        d_mass[(i - step_i[k]) * m + j - step_j[k]] += d_mass[c] * P[3 * c + k] + mass[c] * d_P[3 * c + k];
        product[c] += mass[c] * problem->step_weights[k] * d_P[3 * c + k];
      }
    }
  free(d_mass);
}

void reference_hvp(const reference_problem *problem, const double *tangent, double *product) {
  const size_t cells = (size_t)(problem->n * problem->m);
  wide *R = malloc(cells * sizeof *R);
  double *P = malloc(3 * cells * sizeof *P), *d_P = malloc(3 * cells * sizeof *d_P);
  double *mass = malloc(cells * sizeof *mass), *d_R = malloc(cells * sizeof *d_R);
  double *reachable_tangent = malloc(cells * sizeof *reachable_tangent);
  unsigned char *on_path = malloc(cells);
  reference_paths(problem, on_path);
  for (size_t c = 0; c < cells; c++) reachable_tangent[c] = on_path[c] ? tangent[c] : 0;
  forward(problem, R, P);
  backward(problem, P, R[cells - 1] != INFINITY, mass);
  forward_derivative(problem, reachable_tangent, P, d_R, d_P);
  backward_derivative(problem, P, mass, d_P, product);
  free(R);
  free(P);
  free(d_P);
  free(mass);
  free(d_R);
  free(reachable_tangent);
  free(on_path);
}

/* ---------------------------------------------------------------- all paths, one by one */

typedef struct {
  const reference_problem *problem;
  double *counts; /* (n, m): weight with which the present path counts each cell */
  wide least, sum;
  double *alignment; /* NULL in the first walk, which looks for the least cost */
} walk;

static void walk_from(walk *w, int64_t i, int64_t j, wide cost) {
  const int64_t n = w->problem->n, m = w->problem->m;
  if (!is_open(w->problem, i, j)) return;
  if (i == n - 1 && j == m - 1) {
    if (w->alignment == NULL) {
      w->least = fminl(w->least, cost);
      return;
    }
    const wide weight = expl((w->least - cost) / w->problem->gamma);
    w->sum += weight;
    for (int64_t c = 0; c < n * m; c++) w->alignment[c] += (double)weight * w->counts[c];
    return;
  }
  for (int k = 0; k < 3; k++) {
    const int64_t to_i = i + step_i[k], to_j = j + step_j[k];
    if (to_i >= n || to_j >= m || !enters(w->problem, k, to_i, to_j) || !is_open(w->problem, to_i, to_j)) continue;
    w->counts[to_i * m + to_j] = w->problem->step_weights[k];
    walk_from(w, to_i, to_j, cost + w->problem->step_weights[k] * w->problem->cost[to_i * m + to_j]);
    w->counts[to_i * m + to_j] = 0;
  }
}

wide reference_enumerate(const reference_problem *problem, double *alignment) {
  const size_t cells = (size_t)(problem->n * problem->m);
  walk w = {problem, calloc(cells, sizeof(double)), INFINITY, 0, NULL};
  w.counts[0] = 1;
  memset(alignment, 0, cells * sizeof *alignment);
  walk_from(&w, 0, 0, problem->cost[0]);
  if (w.least < INFINITY) {
    w.alignment = alignment;
    walk_from(&w, 0, 0, problem->cost[0]);
    for (size_t c = 0; c < cells; c++) alignment[c] /= (double)w.sum;
  }
  free(w.counts);
  return w.least < INFINITY ? w.least - problem->gamma * logl(w.sum) : INFINITY;
}
