/* ddtw_cells.h: the general lattice cell by cell, in double, for every operator: Algorithms 1 and 2 as they stand (part of
 * ddtw.c, included once). Softmin comes here only for its second derivative and for numbers that no scaled arithmetic
 * holds.
 *
 * Rows come in blocks. A sweep keeps the rows that the next block looks back at; the gradient goes through the blocks from
 * the last to the first, each time computing D of one block again. */

#include "ddtw_item.h"
#include "waves_order.h"

/* ------------------------------------------------------------------------------------------------ operators */

typedef double ddtw_operator(const double *q, double *p, int64_t count, double gamma);

static double ddtw_least(const double *q, int64_t count) {
  double least = INFINITY;
  for (int64_t k = 0; k < count; k++) least = q[k] < least ? q[k] : least;
  return least;
}

/* p = softmax(-q / gamma); the sum that p was divided by. */
static double ddtw_softmax(const double *q, double *p, int64_t count, double gamma, double least) {
  double sum = 0;
  for (int64_t k = 0; k < count; k++) sum += p[k] = exp((least - q[k]) / gamma);
  for (int64_t k = 0; k < count; k++) p[k] /= sum;
  return sum;
}

static double ddtw_softmin(const double *q, double *p, int64_t count, double gamma) {
  const double least = ddtw_least(q, count);
  return least - gamma * log(ddtw_softmax(q, p, count, gamma, least));
}

static double ddtw_smoothmin(const double *q, double *p, int64_t count, double gamma) {
  const double least = ddtw_least(q, count);
  ddtw_softmax(q, p, count, gamma, least);
  double mean = 0;
  for (int64_t k = 0; k < count; k++) mean += p[k] > 0 ? p[k] * (q[k] - least) : 0;
  for (int64_t k = 0; k < count; k++) p[k] = p[k] > 0 ? p[k] * (1 - (q[k] - least - mean) / gamma) : 0;
  return least + mean;
}

/* p_k = max(z_k - t, 0) with z = (least - q) / gamma and t such that they add up to 1. Newton's method from t = -1, where
 * the sum is at least 1: the sum is convex and piecewise linear in t, so t rises to the root in finitely many steps. */
static double ddtw_sparsemin(const double *q, double *p, int64_t count, double gamma) {
  const double least = ddtw_least(q, count);
  double t = -1, before = -INFINITY;
  while (t > before) {
    double sum = 0, number = 0;
    for (int64_t k = 0; k < count; k++) {
      const double z = (least - q[k]) / gamma;
      if (z > t) sum += z, number += 1;
    }
    before = t;
    t = (sum - 1) / number;
  }
  double value = 0;
  for (int64_t k = 0; k < count; k++) {
    const double z = (least - q[k]) / gamma;
    p[k] = z > t ? z - t : 0;
    if (p[k] > 0) value += p[k] * (.5 * p[k] - z);
  }
  return least + gamma * (value - .5);
}

static double ddtw_hardmin(const double *q, double *p, int64_t count, double gamma) {
  (void)gamma;
  const double least = ddtw_least(q, count);
  int64_t first = 0;
  while (q[first] != least) first++;
  for (int64_t k = 0; k < count; k++) p[k] = k == first;
  return least;
}

/* mu(q) and p = d mu / d q; all +inf: +inf and p = 0. */
static double ddtw_mu(const ddtw_item *it, const double *q, double *p, int64_t count) {
  static ddtw_operator *const operators[] = {ddtw_softmin, ddtw_sparsemin, ddtw_smoothmin, ddtw_hardmin};
  if (ddtw_least(q, count) == INFINITY) {
    for (int64_t k = 0; k < count; k++) p[k] = 0;
    return INFINITY;
  }
  return operators[it->args->smoothing](q, p, count, it->args->gamma);
}

/* ------------------------------------------------------------------------------------------------ memory */

typedef struct {
  ddtw_item it;
  int64_t rows, blocks; /* rows of a block */
  double *sums;         /* D: (reach + rows, m), of one block and of the rows before it */
  double *before;       /* (blocks, reach, m): rows before each block; one block's alone when no way back is wanted */
  double *adjoint;      /* E: (reach + 1, m), a ring of rows */
  ddtw_weight_sums weights;
  double *end_q, *end_p; /* the cells where a path may end, row by row */
  int64_t *end_cells;
  int64_t ends, end_room;
  double value, mean_cost;
  double factor; /* grad_value */
} ddtw_cells;

static int ddtw_needs_way_back(const dalign_ddtw_args *a) { return ddtw_needs_gradient(a) || a->path; }

/* Blocks of that many bytes, or as many rows as make the blocks' and the kept rows' memory alike. */
static int64_t ddtw_block_rows(const dalign_ddtw_args *a, int64_t reach) {
  const int64_t fitting = DALIGN_WAVES_BLOCK_BYTES / (int64_t)sizeof(double) / a->m;
  int64_t rows = fitting > reach ? fitting : reach;
  if (rows < 1) rows = 1;
  while (rows * rows < a->n * reach) rows++;
  return ddtw_least_of(rows, a->n);
}

static int64_t ddtw_end_room(const dalign_ddtw_args *a) {
  if (a->end.cost) return a->n * a->m;
  return ddtw_least_of(a->end.along_x, a->n) + ddtw_least_of(a->end.along_y, a->m);
}

static void ddtw_cut_cells(ddtw_cells *c, const dalign_ddtw_args *a, dalign_arena *arena) {
  const int64_t reach = ddtw_reach(a);
  const size_t row = sizeof(double) * (size_t)a->m;
  c->rows = ddtw_block_rows(a, reach);
  c->blocks = ddtw_needs_way_back(a) ? (a->n + c->rows - 1) / c->rows : 1;
  c->end_room = ddtw_end_room(a);
  c->sums = dalign_arena_take(arena, row * (size_t)(reach + c->rows));
  c->before = dalign_arena_take(arena, row * (size_t)(reach * c->blocks));
  c->adjoint = dalign_arena_take(arena, row * (size_t)(reach + 1));
  c->weights = ddtw_cut_weight_sums(a, arena);
  c->end_q = dalign_arena_take(arena, sizeof(double) * (size_t)c->end_room);
  c->end_p = dalign_arena_take(arena, sizeof(double) * (size_t)c->end_room);
  c->end_cells = dalign_arena_take(arena, sizeof(int64_t) * (size_t)c->end_room);
}

/* ------------------------------------------------------------------------------------------------ forward */

static inline double *ddtw_row(const ddtw_cells *c, int64_t block, int64_t i) {
  return c->sums + (i - block * c->rows + c->it.reach) * c->it.m;
}

/* f(i, j), the start last; returns how many there are. */
static int ddtw_terms(const ddtw_cells *c, int64_t block, int64_t i, int64_t j, double cost, double *q) {
  const ddtw_item *it = &c->it;
  for (int s = 0; s < it->steps; s++) {
    const int64_t from_i = i - it->step_x[s], from_j = j - it->step_y[s];
    q[s] = from_i < 0 || from_j < 0 ? INFINITY
                                    : ddtw_row(c, block, from_i)[from_j] + ddtw_times(ddtw_weight(it, i, j, s), cost);
  }
  const double start = ddtw_start(it, i, j);
  q[it->steps] = start == INFINITY || cost == INFINITY ? INFINITY : cost + start;
  return it->steps + 1;
}

/* D of a block; 0 when a cost is NaN or -inf. */
static int ddtw_sweep_block(ddtw_cells *c, int64_t block, int is_first_time) {
  const ddtw_item *it = &c->it;
  const int64_t first = block * c->rows, last = ddtw_least_of(first + c->rows, it->n);
  double q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1];
  for (int64_t i = first; i < last; i++) {
    double *row = ddtw_row(c, block, i);
    for (int64_t j = 0; j < it->m; j++) {
      const double cost = ddtw_cost(it, i, j);
      if (!(cost > -INFINITY)) return 0;
      row[j] = ddtw_mu(it, q, p, ddtw_terms(c, block, i, j, cost, q));
      if (!is_first_time) continue;
      const double end = ddtw_end(it, i, j);
      if (end == INFINITY || row[j] == INFINITY) continue;
      c->end_q[c->ends] = row[j] + end;
      c->end_cells[c->ends++] = i * it->m + j;
    }
  }
  return 1;
}

static void ddtw_load_before(ddtw_cells *c, int64_t block) {
  const int64_t count = c->it.reach * c->it.m;
  memcpy(c->sums, c->before + (c->blocks > 1 ? block * count : 0), sizeof(double) * (size_t)count);
}

/* The last rows of the block in memory become those before the next. */
static void ddtw_keep_before(ddtw_cells *c, int64_t block) {
  const int64_t count = c->it.reach * c->it.m;
  memcpy(c->before + (c->blocks > 1 ? (block + 1) * count : 0), c->sums + c->rows * c->it.m,
         sizeof(double) * (size_t)count);
}

/* Value; NaN when a cost is NaN or -inf. */
static double ddtw_forward_cells(ddtw_cells *c) {
  const int64_t blocks = (c->it.n + c->rows - 1) / c->rows;
  for (int64_t k = 0; k < c->it.reach * c->it.m; k++) c->before[k] = INFINITY;
  c->ends = 0;
  for (int64_t block = 0; block < blocks; block++) {
    ddtw_load_before(c, block);
    if (!ddtw_sweep_block(c, block, 1)) return NAN;
    if (block + 1 < blocks) ddtw_keep_before(c, block);
  }
  return c->ends ? ddtw_mu(&c->it, c->end_q, c->end_p, c->ends) : INFINITY;
}

/* ------------------------------------------------------------------------------------------------ gradients */

static inline double *ddtw_adjoint_row(const ddtw_cells *c, int64_t i) {
  return c->adjoint + i % (c->it.reach + 1) * c->it.m;
}

static void ddtw_add_weight(const ddtw_item *it, ddtw_weight_sums *w, int64_t i, int64_t j, int s, double number) {
  const int64_t *stride = it->args->weight_strides;
  if (w->count)
    w->sums[(stride[1] ? i : stride[2] ? j : 0) * it->args->steps + s] += number;
  else
    ddtw_add(it->args->grad_weights, it->is_float, ddtw_weight_at(it, i, j, s), number);
}

/* The adjoint of one cell: E goes on to the cells before it, and out to the derivatives. */
static void ddtw_backward_cell(ddtw_cells *c, int64_t block, int64_t i, int64_t j, double mass) {
  const ddtw_item *it = &c->it;
  const dalign_ddtw_args *a = it->args;
  double q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1];
  const double cost = ddtw_cost(it, i, j);
  ddtw_mu(it, q, p, ddtw_terms(c, block, i, j, cost, q));
  double slope = mass * p[it->steps];
  for (int s = 0; s < it->steps; s++) {
    const double part = mass * p[s];
    if (part == 0) continue;
    ddtw_adjoint_row(c, i - it->step_x[s])[j - it->step_y[s]] += part;
    slope += part * ddtw_weight(it, i, j, s);
    if (a->grad_weights) ddtw_add_weight(it, &c->weights, i, j, s, part * cost);
  }
  const double started = mass * p[it->steps];
  if (started != 0) {
    c->mean_cost += started * ddtw_start(it, i, j);
    if (a->grad_start) ddtw_add(a->grad_start, it->is_float, ddtw_end_at(it, &a->start, i, j), started);
  }
  if (slope != 0) c->mean_cost += slope * cost;
  if (a->grad_cost) ddtw_put(a->grad_cost, it->is_float, ddtw_cell(it, i, j), slope);
}

/* Mass that ends in the cells of row i, from the list whose last entry not yet taken is number left - 1. */
static int64_t ddtw_take_ends(ddtw_cells *c, int64_t i, int64_t left) {
  const dalign_ddtw_args *a = c->it.args;
  for (; left > 0 && c->end_cells[left - 1] >= i * c->it.m; left--) {
    const int64_t j = c->end_cells[left - 1] - i * c->it.m;
    const double mass = c->factor * c->end_p[left - 1];
    if (mass == 0) continue;
    ddtw_adjoint_row(c, i)[j] += mass;
    c->mean_cost += mass * ddtw_end(&c->it, i, j);
    if (a->grad_end) ddtw_add(a->grad_end, c->it.is_float, ddtw_end_at(&c->it, &a->end, i, j), mass);
  }
  return left;
}

static void ddtw_backward_cells(ddtw_cells *c) {
  const ddtw_item *it = &c->it;
  int64_t left = c->ends;
  memset(c->adjoint, 0, sizeof(double) * (size_t)((it->reach + 1) * it->m));
  c->mean_cost = 0;
  for (int64_t block = (it->n - 1) / c->rows; block >= 0; block--) {
    ddtw_load_before(c, block);
    ddtw_sweep_block(c, block, 0);
    for (int64_t i = ddtw_least_of((block + 1) * c->rows, it->n) - 1; i >= block * c->rows; i--) {
      left = ddtw_take_ends(c, i, left);
      double *adjoint = ddtw_adjoint_row(c, i);
      for (int64_t j = it->m - 1; j >= 0; j--) {
        const double mass = adjoint[j];
        adjoint[j] = 0; /* the row will be another one's */
        if (mass != 0)
          ddtw_backward_cell(c, block, i, j, mass);
        else if (it->args->grad_cost)
          ddtw_put(it->args->grad_cost, it->is_float, ddtw_cell(it, i, j), 0);
      }
    }
  }
}

static void ddtw_hand_out_weights(const ddtw_item *it, const ddtw_weight_sums *w) {
  const int64_t *stride = it->args->weight_strides, along = stride[1] ? stride[1] : stride[2];
  const int steps = it->args->steps;
  for (int64_t k = 0; k < w->count; k++) {
    const int64_t at = it->item * stride[0] + k / steps * along + k % steps * stride[3];
    ddtw_add(it->args->grad_weights, it->is_float, at, w->sums[k]);
  }
}

/* ------------------------------------------------------------------------------------------------ best path */

/* The term that hardmin takes in a cell. */
static int ddtw_best_term(const ddtw_cells *c, int64_t block, int64_t i, int64_t j) {
  double q[DALIGN_DDTW_STEPS + 1];
  const int count = ddtw_terms(c, block, i, j, ddtw_cost(&c->it, i, j), q);
  const double least = ddtw_least(q, count);
  int k = 0;
  while (q[k] != least) k++;
  return k;
}

static void ddtw_turn_path(int64_t *path, int64_t count) {
  for (int64_t a = 0, b = count - 1; a < b; a++, b--)
    for (int axis = 0; axis < 2; axis++) {
      const int64_t cell = path[2 * a + axis];
      path[2 * a + axis] = path[2 * b + axis];
      path[2 * b + axis] = cell;
    }
}

/* From the end to the start, block by block; returns the number of cells. */
static int64_t ddtw_trace(ddtw_cells *c, int64_t *path) {
  const ddtw_item *it = &c->it;
  int64_t end = 0, count = 0;
  while (c->end_p[end] == 0) end++;
  int64_t i = c->end_cells[end] / it->m, j = c->end_cells[end] % it->m, block = -1;
  for (;;) {
    if (i / c->rows != block) {
      block = i / c->rows;
      ddtw_load_before(c, block);
      ddtw_sweep_block(c, block, 0);
    }
    path[2 * count] = i, path[2 * count + 1] = j, count++;
    const int term = ddtw_best_term(c, block, i, j);
    if (term == it->steps) break;
    i -= it->step_x[term], j -= it->step_y[term];
  }
  ddtw_turn_path(path, count);
  return count;
}

/* ------------------------------------------------------------------------------------------------ results of an item */

/* Gradients of an item without a path (0), or with a NaN. */
static void ddtw_fill_gradients(const ddtw_item *it, double number) {
  const dalign_ddtw_args *a = it->args;
  if (a->grad_cost) ddtw_fill_item(a, a->grad_cost, it->is_float, it->item, it->n, it->m, number);
  if (a->mean_cost) a->mean_cost[it->item] = number;
  if (number == 0) return;
  for (int64_t i = 0; i < it->n; i++)
    for (int64_t j = 0; j < it->m; j++) {
      if (a->grad_start) ddtw_add(a->grad_start, it->is_float, ddtw_end_at(it, &a->start, i, j), number);
      if (a->grad_end) ddtw_add(a->grad_end, it->is_float, ddtw_end_at(it, &a->end, i, j), number);
      for (int s = 0; a->grad_weights && s < it->steps; s++)
        ddtw_add(a->grad_weights, it->is_float, ddtw_weight_at(it, i, j, s), number);
    }
}

/* Before the backward pass, which writes every cell inside the lengths. */
static void ddtw_clear_gradients(const ddtw_item *it, ddtw_weight_sums *w) {
  const dalign_ddtw_args *a = it->args;
  if (a->grad_cost && (it->n < a->n || it->m < a->m))
    ddtw_fill_item(a, a->grad_cost, it->is_float, it->item, it->n, it->m, 0);
  for (int64_t k = 0; k < w->count; k++) w->sums[k] = 0;
}

static void ddtw_write_path(ddtw_cells *c) {
  const dalign_ddtw_args *a = c->it.args;
  const int64_t room = a->n + a->m - 1;
  int64_t *path = a->path + 2 * room * c->it.item;
  const int64_t count = c->value < INFINITY ? ddtw_trace(c, path) : 0;
  for (int64_t k = 2 * count; k < 2 * room; k++) path[k] = -1;
  a->path_length[c->it.item] = count;
}

static void ddtw_run_cells(ddtw_cells *c, ddtw_item it) {
  const dalign_ddtw_args *a = it.args;
  c->it = it;
  c->factor = ddtw_factor(&it);
  c->value = ddtw_forward_cells(c);
  ddtw_put(a->value, it.is_float, it.item, c->value);
  if (a->path) ddtw_write_path(c);
  if (!ddtw_needs_gradient(a)) return;
  if (!(c->value < INFINITY)) {
    ddtw_fill_gradients(&it, isnan(c->value) ? NAN : 0);
    return;
  }
  ddtw_clear_gradients(&it, &c->weights);
  ddtw_backward_cells(c);
  ddtw_hand_out_weights(&it, &c->weights);
  if (a->mean_cost) a->mean_cost[it.item] = c->mean_cost;
}

/* ------------------------------------------------------------------------------------------------ second derivative
 *
 * The tangents of Algorithm 1 and then of Algorithm 2 along a direction (a dot): with p_s = exp((D - f_s) / gamma),
 *   f_s. = D.(before) + W_s. C + W_s C.      D. = sum_s p_s f_s.      p_s. = p_s (D. - f_s.) / gamma
 * and the same for what the adjoint hands on, E p_s. */

typedef struct {
  ddtw_cells cells; /* one block of all rows */
  const dalign_ddtw_direction *direction;
  double *tangents;         /* D. (n, m) */
  double *adjoint_tangents; /* E., a ring as E */
  double *end_tangents;
} ddtw_second;

static void ddtw_cut_second(ddtw_second *h, const dalign_ddtw_args *a, dalign_arena *arena) {
  ddtw_cells *c = &h->cells;
  const size_t row = sizeof(double) * (size_t)a->m;
  const int64_t reach = ddtw_reach(a);
  c->rows = a->n, c->blocks = 1;
  c->end_room = ddtw_end_room(a);
  c->sums = dalign_arena_take(arena, row * (size_t)(reach + a->n));
  c->before = dalign_arena_take(arena, row * (size_t)reach);
  c->adjoint = dalign_arena_take(arena, row * (size_t)(reach + 1));
  c->weights = ddtw_cut_weight_sums(a, arena);
  c->end_q = dalign_arena_take(arena, sizeof(double) * (size_t)c->end_room);
  c->end_p = dalign_arena_take(arena, sizeof(double) * (size_t)c->end_room);
  c->end_cells = dalign_arena_take(arena, sizeof(int64_t) * (size_t)c->end_room);
  h->tangents = dalign_arena_take(arena, row * (size_t)a->n);
  h->adjoint_tangents = dalign_arena_take(arena, row * (size_t)(reach + 1));
  h->end_tangents = dalign_arena_take(arena, sizeof(double) * (size_t)c->end_room);
}

static inline double ddtw_direction_at(const ddtw_second *h, const void *array, int64_t at) {
  return array ? ddtw_get(array, h->cells.it.is_float, at) : 0;
}

static inline double *ddtw_adjoint_tangent(const ddtw_second *h, int64_t i, int64_t j) {
  return h->adjoint_tangents + i % (h->cells.it.reach + 1) * h->cells.it.m + j;
}

/* f. of the terms that have weight, 0 elsewhere. */
static void ddtw_term_tangents(const ddtw_second *h, int64_t i, int64_t j, double cost, const double *p,
                               double *tangent) {
  const ddtw_item *it = &h->cells.it;
  const double along = ddtw_direction_at(h, h->direction->cost, ddtw_cell(it, i, j));
  for (int s = 0; s < it->steps; s++) {
    tangent[s] = 0;
    if (p[s] == 0) continue;
    const double weight = ddtw_direction_at(h, h->direction->weights, ddtw_weight_at(it, i, j, s));
    tangent[s] =
        h->tangents[(i - it->step_x[s]) * it->m + j - it->step_y[s]] + weight * cost + ddtw_weight(it, i, j, s) * along;
  }
  tangent[it->steps] = 0;
  if (p[it->steps] != 0)
    tangent[it->steps] = along + ddtw_direction_at(h, h->direction->start, ddtw_end_at(it, &it->args->start, i, j));
}

static double ddtw_weighted_sum(const double *p, const double *numbers, int64_t count) {
  double sum = 0;
  for (int64_t k = 0; k < count; k++) sum += p[k] * numbers[k];
  return sum;
}

static void ddtw_forward_tangents(ddtw_second *h) {
  const ddtw_cells *c = &h->cells;
  const ddtw_item *it = &c->it;
  double q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1], tangent[DALIGN_DDTW_STEPS + 1];
  for (int64_t i = 0; i < it->n; i++)
    for (int64_t j = 0; j < it->m; j++) {
      const double cost = ddtw_cost(it, i, j);
      const int count = ddtw_terms(c, 0, i, j, cost, q);
      ddtw_mu(it, q, p, count);
      ddtw_term_tangents(h, i, j, cost, p, tangent);
      h->tangents[i * it->m + j] = ddtw_weighted_sum(p, tangent, count);
    }
  for (int64_t k = 0; k < c->ends; k++) {
    const int64_t i = c->end_cells[k] / it->m, j = c->end_cells[k] % it->m;
    h->end_tangents[k] = c->end_p[k] == 0
                             ? 0
                             : h->tangents[c->end_cells[k]] +
                                   ddtw_direction_at(h, h->direction->end, ddtw_end_at(it, &it->args->end, i, j));
  }
}

static void ddtw_second_cell(ddtw_second *h, int64_t i, int64_t j, double mass, double mass_tangent) {
  ddtw_cells *c = &h->cells;
  const ddtw_item *it = &c->it;
  const dalign_ddtw_args *a = it->args;
  double q[DALIGN_DDTW_STEPS + 1], p[DALIGN_DDTW_STEPS + 1], tangent[DALIGN_DDTW_STEPS + 1];
  const double cost = ddtw_cost(it, i, j), along = ddtw_direction_at(h, h->direction->cost, ddtw_cell(it, i, j));
  ddtw_mu(it, q, p, ddtw_terms(c, 0, i, j, cost, q));
  ddtw_term_tangents(h, i, j, cost, p, tangent);
  const double mean = h->tangents[i * it->m + j];
  double slope = 0;
  for (int s = 0; s <= it->steps; s++) {
    if (p[s] == 0) continue;
    const double part = mass * p[s], moved = p[s] * (mass_tangent + mass * (mean - tangent[s]) / a->gamma);
    if (s == it->steps) {
      slope += moved;
      if (a->grad_start) ddtw_add(a->grad_start, it->is_float, ddtw_end_at(it, &a->start, i, j), moved);
      continue;
    }
    const double weight = ddtw_direction_at(h, h->direction->weights, ddtw_weight_at(it, i, j, s));
    ddtw_adjoint_row(c, i - it->step_x[s])[j - it->step_y[s]] += part;
    *ddtw_adjoint_tangent(h, i - it->step_x[s], j - it->step_y[s]) += moved;
    slope += moved * ddtw_weight(it, i, j, s) + part * weight;
    if (a->grad_weights) ddtw_add_weight(it, &c->weights, i, j, s, moved * cost + part * along);
  }
  if (a->grad_cost) ddtw_put(a->grad_cost, it->is_float, ddtw_cell(it, i, j), slope);
}

/* Mass and its tangent that end in the cells of row i; the list as in ddtw_take_ends. */
static int64_t ddtw_take_end_tangents(ddtw_second *h, int64_t i, int64_t left, double mean) {
  ddtw_cells *c = &h->cells;
  const dalign_ddtw_args *a = c->it.args;
  for (; left > 0 && c->end_cells[left - 1] >= i * c->it.m; left--) {
    const int64_t j = c->end_cells[left - 1] - i * c->it.m;
    const double mass = c->factor * c->end_p[left - 1], moved = mass * (mean - h->end_tangents[left - 1]) / a->gamma;
    ddtw_adjoint_row(c, i)[j] += mass;
    *ddtw_adjoint_tangent(h, i, j) += moved;
    if (a->grad_end) ddtw_add(a->grad_end, c->it.is_float, ddtw_end_at(&c->it, &a->end, i, j), moved);
  }
  return left;
}

static void ddtw_backward_tangents(ddtw_second *h) {
  ddtw_cells *c = &h->cells;
  const ddtw_item *it = &c->it;
  const size_t ring = sizeof(double) * (size_t)((it->reach + 1) * it->m);
  const double mean = ddtw_weighted_sum(c->end_p, h->end_tangents, c->ends);
  h->direction->slope[it->item] = mean;
  int64_t left = c->ends;
  memset(c->adjoint, 0, ring);
  memset(h->adjoint_tangents, 0, ring);
  for (int64_t i = it->n - 1; i >= 0; i--) {
    left = ddtw_take_end_tangents(h, i, left, mean);
    for (int64_t j = it->m - 1; j >= 0; j--) {
      double *mass = ddtw_adjoint_row(c, i) + j, *moved = ddtw_adjoint_tangent(h, i, j);
      const double now = *mass, now_moved = *moved;
      *mass = *moved = 0;
      if (now != 0 || now_moved != 0)
        ddtw_second_cell(h, i, j, now, now_moved);
      else if (it->args->grad_cost)
        ddtw_put(it->args->grad_cost, it->is_float, ddtw_cell(it, i, j), 0);
    }
  }
}

static void ddtw_run_second(ddtw_second *h, ddtw_item it) {
  ddtw_cells *c = &h->cells;
  c->it = it;
  c->factor = ddtw_factor(&it);
  c->value = ddtw_forward_cells(c);
  if (!(c->value < INFINITY)) {
    h->direction->slope[it.item] = isnan(c->value) ? NAN : 0;
    ddtw_fill_gradients(&it, isnan(c->value) ? NAN : 0);
    return;
  }
  ddtw_clear_gradients(&it, &c->weights);
  ddtw_forward_tangents(h);
  ddtw_backward_tangents(h);
  ddtw_hand_out_weights(&it, &c->weights);
}
