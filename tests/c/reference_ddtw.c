/* The slow versions that reference_ddtw.h describes: Algorithms 1 and 2 of Zeitler and Mueller 2026 as they stand. */
#include "reference_ddtw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef DALIGN_TEST_DOUBLE
#define expl exp
#define logl log
#endif

/* ---------------------------------------------------------------- operators: value, and derivative p */

static wide softmin(const wide *q, wide *p, int64_t count, wide gamma, wide least) {
  wide sum = 0;
  for (int64_t k = 0; k < count; k++) sum += p[k] = expl((least - q[k]) / gamma);
  for (int64_t k = 0; k < count; k++) p[k] /= sum;
  return least - gamma * logl(sum);
}

/* <p, q> with p = softmax(-q / gamma). */
static wide smoothmin(const wide *q, wide *p, int64_t count, wide gamma, wide least) {
  softmin(q, p, count, gamma, least);
  wide mean = 0;
  for (int64_t k = 0; k < count; k++)
    if (p[k] > 0) mean += p[k] * (q[k] - least);
  for (int64_t k = 0; k < count; k++)
    if (p[k] > 0) p[k] *= 1 - (q[k] - least - mean) / gamma;
  return least + mean;
}

static wide positive_part(wide z) { return z > 0 ? z : 0; }

/* The projection of z = (least - q) / gamma on the simplex: p = max(z - t, 0), t found by halving [-1, 0]. */
static wide sparsemin(const wide *q, wide *p, int64_t count, wide gamma, wide least) {
  wide low = -1, high = 0, value = 0;
  for (int round = 0; round < 100; round++) {
    const wide t = (low + high) / 2;
    wide sum = 0;
    for (int64_t k = 0; k < count; k++) sum += positive_part((least - q[k]) / gamma - t);
    if (sum > 1)
      low = t;
    else
      high = t;
  }
  for (int64_t k = 0; k < count; k++) {
    p[k] = positive_part((least - q[k]) / gamma - high);
    if (p[k] > 0) value += p[k] * (q[k] - least) + gamma / 2 * p[k] * p[k];
  }
  return least + value - gamma / 2;
}

static wide hardmin(const wide *q, wide *p, int64_t count, wide least) {
  int64_t first = 0;
  while (q[first] != least) first++;
  for (int64_t k = 0; k < count; k++) p[k] = k == first;
  return least;
}

static wide minimum(const reference_lattice *l, const wide *q, wide *p, int64_t count) {
  wide least = INFINITY;
  for (int64_t k = 0; k < count; k++) least = q[k] < least ? q[k] : least;
  for (int64_t k = 0; k < count; k++) p[k] = 0;
  if (isinf((double)least)) return INFINITY;
  switch (l->smoothing) {
    case DALIGN_SOFTMIN: return softmin(q, p, count, l->gamma, least);
    case DALIGN_SMOOTHMIN: return smoothmin(q, p, count, l->gamma, least);
    case DALIGN_SPARSEMIN: return sparsemin(q, p, count, l->gamma, least);
    default: return hardmin(q, p, count, least);
  }
}

/* ---------------------------------------------------------------- Algorithms 1 and 2 */

/* What the minimum of cell (i, j) is taken of, the start last. */
static void terms(const reference_lattice *l, const wide *sums, int64_t i, int64_t j, wide *q) {
  const int64_t cell = i * l->m + j;
  const double cost = l->cost[cell];
  for (int s = 0; s < l->steps; s++) {
    const int64_t a = i - l->step_x[s], b = j - l->step_y[s];
    const double weight = l->weights[cell * l->steps + s];
    const int open = a >= 0 && b >= 0 && !isinf(weight) && !isinf(cost);
    q[s] = open ? sums[a * l->m + b] + (wide)weight * (wide)cost : (wide)INFINITY;
  }
  q[l->steps] = isinf(cost) ? (wide)INFINITY : (wide)cost + (wide)l->start[cell];
}

static void clear(const reference_lattice *l, reference_gradients *g) {
  const size_t cells = (size_t)(l->n * l->m) * sizeof(double);
  memset(g->cost, 0, cells);
  memset(g->start, 0, cells);
  memset(g->end, 0, cells);
  memset(g->weights, 0, cells * (size_t)l->steps);
  g->mean_cost = 0;
}

/* The mass of a cell goes on by its terms. */
static void hand_on(const reference_lattice *l, const wide *sums, int64_t i, int64_t j, wide *mass,
                    reference_gradients *g) {
  wide q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1];
  const int64_t cell = i * l->m + j;
  terms(l, sums, i, j, q);
  minimum(l, q, p, l->steps + 1);
  wide slope = mass[cell] * p[l->steps];
  g->start[cell] = (double)slope;
  if (slope != 0) g->mean_cost += (double)slope * l->start[cell];
  for (int s = 0; s < l->steps; s++) {
    const wide part = mass[cell] * p[s];
    if (part == 0) continue;
    mass[(i - l->step_x[s]) * l->m + j - l->step_y[s]] += part;
    slope += part * (wide)l->weights[cell * l->steps + s];
    g->weights[cell * l->steps + s] = (double)(part * (wide)l->cost[cell]);
  }
  g->cost[cell] = (double)slope;
  if (slope != 0) g->mean_cost += (double)slope * l->cost[cell];
}

wide reference_ddtw(const reference_lattice *l, reference_gradients *g) {
  const int64_t cells = l->n * l->m;
  wide *sums = malloc((size_t)cells * sizeof(wide)), *totals = calloc((size_t)cells, sizeof(wide));
  wide *mass = malloc((size_t)cells * sizeof(wide)), q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1];
  clear(l, g);
  for (int64_t cell = 0; cell < cells; cell++) {
    terms(l, sums, cell / l->m, cell % l->m, q);
    sums[cell] = minimum(l, q, p, l->steps + 1);
    totals[cell] = sums[cell] + (wide)l->end[cell];
  }
  const wide value = minimum(l, totals, mass, cells);
  for (int64_t cell = 0; cell < cells; cell++) {
    g->end[cell] = (double)mass[cell];
    if (mass[cell] != 0) g->mean_cost += (double)mass[cell] * l->end[cell];
  }
  for (int64_t cell = cells - 1; cell >= 0; cell--)
    if (mass[cell] != 0) hand_on(l, sums, cell / l->m, cell % l->m, mass, g);
  free(sums);
  free(totals);
  free(mass);
  return value;
}
