/* ddtw_item.h: one item of a general lattice as its kernels see it, whatever the element type. */
#ifndef DALIGN_DDTW_ITEM_H
#define DALIGN_DDTW_ITEM_H
#include "dalign.h"
#include "memory.h"

#include <math.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ an item */

typedef struct {
  const dalign_ddtw_args *args;
  int is_float; /* the arrays of args hold float, else double */
  int64_t item, n, m;
  int64_t reach;                     /* rows that a step looks back */
  int64_t step_x[DALIGN_DDTW_STEPS]; /* copies: the arrays of args may be anywhere */
  int64_t step_y[DALIGN_DDTW_STEPS];
  int steps;
} ddtw_item;

static inline double ddtw_get(const void *array, int is_float, int64_t at) {
  return is_float ? (double)((const float *)array)[at] : ((const double *)array)[at];
}

static inline void ddtw_put(void *array, int is_float, int64_t at, double number) {
  if (is_float)
    ((float *)array)[at] = (float)number;
  else
    ((double *)array)[at] = number;
}

static inline void ddtw_add(void *array, int is_float, int64_t at, double number) {
  ddtw_put(array, is_float, at, ddtw_get(array, is_float, at) + number);
}

static inline int64_t ddtw_reach(const dalign_ddtw_args *a) {
  int64_t reach = 0;
  for (int s = 0; s < a->steps; s++) reach = a->step_x[s] > reach ? a->step_x[s] : reach;
  return reach < a->n ? reach : a->n; /* a step longer than the lattice never fits */
}

static inline ddtw_item ddtw_item_of(const dalign_ddtw_args *a, int is_float, int64_t item) {
  ddtw_item it = {.args = a, .is_float = is_float, .item = item, .steps = a->steps};
  it.n = a->x_lengths ? a->x_lengths[item] : a->n;
  it.m = a->y_lengths ? a->y_lengths[item] : a->m;
  it.reach = ddtw_reach(a);
  for (int s = 0; s < a->steps; s++) it.step_x[s] = a->step_x[s], it.step_y[s] = a->step_y[s];
  return it;
}

static inline int64_t ddtw_cell(const ddtw_item *it, int64_t i, int64_t j) {
  return (it->item * it->args->n + i) * it->args->m + j;
}

static inline double ddtw_cost(const ddtw_item *it, int64_t i, int64_t j) {
  return ddtw_get(it->args->cost, it->is_float, ddtw_cell(it, i, j));
}

static inline int64_t ddtw_weight_at(const ddtw_item *it, int64_t i, int64_t j, int s) {
  const int64_t *stride = it->args->weight_strides;
  return it->item * stride[0] + i * stride[1] + j * stride[2] + s * stride[3];
}

static inline double ddtw_weight(const ddtw_item *it, int64_t i, int64_t j, int s) {
  return it->args->weights ? ddtw_get(it->args->weights, it->is_float, ddtw_weight_at(it, i, j, s)) : 1;
}

static inline double ddtw_factor(const ddtw_item *it) {
  return it->args->grad_value ? ddtw_get(it->args->grad_value, it->is_float, it->item) : 1;
}

static inline int64_t ddtw_end_at(const ddtw_item *it, const dalign_ends *ends, int64_t i, int64_t j) {
  return it->item * ends->stride + i * it->args->m + j;
}

/* Cost of starting, or ending, in a cell i, j frames away from the corner; +inf where a path must not. */
static inline double ddtw_end_cost(const ddtw_item *it, const dalign_ends *ends, int64_t i, int64_t j, int64_t at) {
  if (ends->cost) return ddtw_get(ends->cost, it->is_float, at);
  return (j == 0 && i < ends->along_x) || (i == 0 && j < ends->along_y) ? 0 : INFINITY;
}

static inline double ddtw_start(const ddtw_item *it, int64_t i, int64_t j) {
  const dalign_ends *start = &it->args->start;
  return ddtw_end_cost(it, start, i, j, ddtw_end_at(it, start, i, j));
}

static inline double ddtw_end(const ddtw_item *it, int64_t i, int64_t j) {
  const dalign_ends *end = &it->args->end;
  return ddtw_end_cost(it, end, it->n - 1 - i, it->m - 1 - j, ddtw_end_at(it, end, i, j));
}

/* a b, +inf where either is: also 0 inf. */
static inline double ddtw_times(double weight, double cost) {
  return weight == INFINITY || cost == INFINITY ? INFINITY : weight * cost;
}

/* ------------------------------------------------------------------------------------------------ arguments */

static inline int ddtw_is_length(const int64_t *lengths, int64_t batch, int64_t longest) {
  for (int64_t b = 0; lengths && b < batch; b++)
    if (lengths[b] < 1 || lengths[b] > longest) return 0;
  return 1;
}

static inline dalign_status ddtw_check(const dalign_ddtw_args *a) {
  if (a->batch < 0 || a->n < 1 || a->m < 1 || a->steps < 1 || a->steps > DALIGN_DDTW_STEPS) return DALIGN_BAD_ARGUMENT;
  if (a->smoothing < DALIGN_SOFTMIN || a->smoothing > DALIGN_HARDMIN) return DALIGN_BAD_ARGUMENT;
  if (a->smoothing != DALIGN_HARDMIN && !(a->gamma > 0 && a->gamma < INFINITY)) return DALIGN_BAD_ARGUMENT;
  if (a->path && a->smoothing != DALIGN_HARDMIN) return DALIGN_BAD_ARGUMENT;
  if (a->start.along_x < 0 || a->start.along_y < 0 || a->end.along_x < 0 || a->end.along_y < 0)
    return DALIGN_BAD_ARGUMENT;
  for (int s = 0; s < a->steps; s++)
    if (a->step_x[s] < 0 || a->step_y[s] < 0 || (a->step_x[s] | a->step_y[s]) == 0) return DALIGN_BAD_ARGUMENT;
  const int lengths = ddtw_is_length(a->x_lengths, a->batch, a->n) && ddtw_is_length(a->y_lengths, a->batch, a->m);
  return lengths ? DALIGN_OK : DALIGN_BAD_ARGUMENT;
}

static inline size_t ddtw_larger(size_t a, size_t b) { return a > b ? a : b; }

/* ------------------------------------------------------------------------------------------------ memory */

/* Where derivatives of weights are added up: sums of one item where cells share weights, else grad_weights itself. */
typedef struct {
  double *sums;
  int64_t count;
} ddtw_weight_sums;

static inline int ddtw_needs_gradient(const dalign_ddtw_args *a) {
  return a->grad_cost || a->grad_weights || a->grad_start || a->grad_end || a->mean_cost;
}

static inline int64_t ddtw_least_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* Elements of weights that one item has when cells share some; 0 when each cell has its own. */
static inline int64_t ddtw_shared_weights(const dalign_ddtw_args *a) {
  const int64_t *stride = a->weight_strides;
  if (!a->grad_weights || (stride[1] && stride[2])) return 0;
  return (stride[1] ? a->n : stride[2] ? a->m : 1) * a->steps;
}

static inline ddtw_weight_sums ddtw_cut_weight_sums(const dalign_ddtw_args *a, dalign_arena *arena) {
  ddtw_weight_sums w = {NULL, ddtw_shared_weights(a)};
  w.sums = dalign_arena_take(arena, sizeof(double) * (size_t)w.count);
  return w;
}

static inline void ddtw_fill_item(const dalign_ddtw_args *a, void *array, int is_float, int64_t item, int64_t n,
                                  int64_t m, double inside) {
  for (int64_t i = 0; i < a->n; i++)
    for (int64_t j = 0; j < a->m; j++)
      ddtw_put(array, is_float, (item * a->n + i) * a->m + j, i < n && j < m ? inside : 0);
}

#endif
