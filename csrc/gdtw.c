/* gdtw.c: generalised time warping in continuous time, the optimisation problem inside of DecDTW.
 *
 *   min over phi of  sum_i w_i L(x_i - y(phi_i)) + sum_i lambda_i dt_i R((phi_{i+1} - phi_i) / dt_i - s0)
 *   under bounds of the slopes and of phi_i       (Xu, Garg, Milford and Gould 2023; dalign.h has the whole problem)
 *
 * Forward. Dynamic programming over a coarse lattice of warps and over finer ones around its best path (gdtw_lattice.h, in
 * float) finds the valley; an active-set method (gdtw_polish.h, in double) goes to its bottom, a point that satisfies the
 * conditions of Karush, Kuhn and Tucker up to rounding. Saved are phi, the segment of y that each knot reads, and the
 * working set: pins (bounds, and samples of y, whose kinks hold a knot like a constraint) and ties (slope bounds).
 *
 * Backward. The implicit function theorem on that working set (gdtw_adjoint.h): a tridiagonal system and O(n d).
 *
 * Memory: rows of the coarse lattice, n (m + some) floats, and O((n + m) d) for features in float. */
#include "dalign.h"
#include "memory.h"
#include "simd/names.h"

#include <math.h>
#include <string.h>

#include "gdtw_item.h"

#define DALIGN_F32 0
#include "simd/real.h"
#include "gdtw_features.h"
#undef DALIGN_F32
#define DALIGN_F32 1
#include "simd/real.h"
#include "gdtw_features.h"

/* Float vectors from here on. */
#include "gdtw_minplus.h"
#include "gdtw_lattice.h"

#include "gdtw_chain.h"
#include "gdtw_polish.h"
#include "gdtw_multipliers.h"
#include "gdtw_adjoint.h"

/* ------------------------------------------------------------------------------------------------ arguments */

static int gdtw_is_penalty(dalign_gdtw_penalty kind, double p) {
  if (kind == DALIGN_GDTW_POWER) return p > 1 && p < INFINITY;
  return kind == DALIGN_GDTW_HUBER ? p > 0 && p < INFINITY : kind == DALIGN_GDTW_SQUARES;
}

static int gdtw_are_lengths(const int64_t *lengths, int64_t batch, int64_t longest) {
  for (int64_t b = 0; lengths && b < batch; b++)
    if (lengths[b] < 1 || lengths[b] > longest) return 0;
  return 1;
}

/* All that the size of the workspace depends on. */
static int gdtw_has_size(const dalign_gdtw_args *a) {
  return a->batch >= 0 && a->n >= 1 && a->m >= 1 && a->d >= 1 && a->n <= DALIGN_GDTW_LONGEST &&
         a->m <= DALIGN_GDTW_LONGEST && a->quality >= DALIGN_GDTW_FAST && a->quality <= DALIGN_GDTW_THOROUGH;
}

static dalign_status gdtw_check(const dalign_gdtw_args *a) {
  if (!gdtw_has_size(a)) return DALIGN_BAD_ARGUMENT;
  if (!gdtw_is_penalty(a->loss, a->loss_parameter) || !gdtw_is_penalty(a->regularizer, a->regularizer_parameter))
    return DALIGN_BAD_ARGUMENT;
  if (!a->x || !a->y || !a->phi || !a->objective || !a->status || !a->state) return DALIGN_BAD_ARGUMENT;
  if (!a->reg_weight.at && a->n > 1) return DALIGN_BAD_ARGUMENT;
  const int lengths = gdtw_are_lengths(a->x_lengths, a->batch, a->n) && gdtw_are_lengths(a->y_lengths, a->batch, a->m);
  return lengths ? DALIGN_OK : DALIGN_BAD_ARGUMENT;
}

/* ------------------------------------------------------------------------------------------------ forward */

typedef struct {
  gdtw_item item;
  gdtw_lattice lattice;
  gdtw_polish polish;
  gdtw_multipliers multipliers;
} gdtw_forward;

static void gdtw_cut_forward(gdtw_forward *f, const dalign_gdtw_args *a, dalign_arena *memory) {
  gdtw_cut_item(&f->item, a, memory);
  gdtw_cut_lattice(&f->lattice, a, &gdtw_schedules[a->quality], memory);
  gdtw_cut_polish(&f->polish, a, memory);
  gdtw_cut_multipliers(&f->multipliers, a, memory);
}

static int gdtw_are_finite(const gdtw_item *it) {
  const int64_t x = it->n * it->d, y = it->m * it->d;
  return it->is_float ? DALIGN_NAME(gdtw_is_finite_, f32)(it->x, x) && DALIGN_NAME(gdtw_is_finite_, f32)(it->y, y)
                      : DALIGN_NAME(gdtw_is_finite_, f64)(it->x, x) && DALIGN_NAME(gdtw_is_finite_, f64)(it->y, y);
}

/* Results of an item without a solution. */
static void gdtw_put_none(const dalign_gdtw_args *a, int64_t b, dalign_gdtw_status status, double objective) {
  a->status[b] = status, a->objective[b] = objective;
  for (int64_t i = 0; i < a->n; i++) a->phi[b * a->n + i] = NAN;
  memset(a->state + b * a->n * 3, 0, (size_t)a->n * 3 * sizeof *a->state);
}

static void gdtw_put_counts(gdtw_forward *f, int steps) {
  const dalign_gdtw_args *a = f->item.args;
  gdtw_chain *c = &f->polish.chain;
  if (!a->counts) return;
  int64_t *counts = a->counts + f->item.index * DALIGN_GDTW_COUNTS;
  gdtw_find_multipliers(&f->multipliers, c);
  counts[DALIGN_GDTW_DEGENERATE] = gdtw_superfluous_pins(c);
  counts[DALIGN_GDTW_SINGULAR] = c->singular;
  counts[DALIGN_GDTW_WEAK] = gdtw_count_weak(&f->multipliers, c);
  counts[DALIGN_GDTW_STEPS] = steps;
}

static void gdtw_put_solution(gdtw_forward *f, int steps) {
  const gdtw_item *it = &f->item;
  const dalign_gdtw_args *a = it->args;
  gdtw_chain *c = &f->polish.chain;
  double *phi = a->phi + it->index * a->n;
  int32_t *state = a->state + it->index * a->n * 3;
  for (int64_t i = 0; i < a->n; i++) {
    const int64_t k = i < it->n ? i : it->n - 1;
    phi[i] = it->origin + c->phi[k];
    state[3 * i] = c->segment[k], state[3 * i + 1] = c->pin[k], state[3 * i + 2] = c->tie[k];
  }
  a->status[it->index] = steps < 0 ? DALIGN_GDTW_NOT_CONVERGED : DALIGN_GDTW_OPTIMAL;
  a->objective[it->index] = gdtw_objective(c);
  gdtw_put_counts(f, steps < 0 ? gdtw_most_steps(it) : steps);
}

static void gdtw_run_forward(gdtw_forward *f, const dalign_gdtw_args *a, int is_float, int64_t b) {
  gdtw_item *it = &f->item;
  if (a->blocked) a->blocked[b] = -1;
  if (a->counts) memset(a->counts + b * DALIGN_GDTW_COUNTS, 0, DALIGN_GDTW_COUNTS * sizeof *a->counts);
  if (!(gdtw_read_item(it, a, is_float, b) & gdtw_are_finite(it))) {
    gdtw_put_none(a, b, DALIGN_GDTW_INVALID, NAN);
    return;
  }
  const int blocked = gdtw_reach(it);
  if (blocked >= 0) {
    if (a->blocked) a->blocked[b] = blocked;
    gdtw_put_none(a, b, DALIGN_GDTW_INFEASIBLE, INFINITY);
    return;
  }
  gdtw_open_chain(&f->polish.chain, it);
  gdtw_stage(&f->lattice, it);
  gdtw_search(&f->lattice, &gdtw_schedules[a->quality], f->polish.chain.phi);
  gdtw_put_solution(f, gdtw_polish_warp(&f->polish));
}

static dalign_status gdtw_run(const dalign_gdtw_args *a, int is_float, int64_t begin, int64_t end, void *workspace) {
  const dalign_status status = gdtw_check(a);
  dalign_arena memory = dalign_arena_over(workspace);
  gdtw_forward f;
  if (status != DALIGN_OK) return status;
  gdtw_cut_forward(&f, a, &memory);
  for (int64_t b = begin; b < end; b++) gdtw_run_forward(&f, a, is_float, b);
  return DALIGN_OK;
}

static size_t gdtw_workspace(const dalign_gdtw_args *a) {
  dalign_arena memory = {0};
  gdtw_forward f;
  if (!gdtw_has_size(a)) return 0;
  gdtw_cut_forward(&f, a, &memory);
  return dalign_arena_bytes(&memory);
}

/* ------------------------------------------------------------------------------------------------ backward */

typedef struct {
  gdtw_item item;
  gdtw_adjoint adjoint;
} gdtw_backward;

static void gdtw_cut_backward(gdtw_backward *f, const dalign_gdtw_args *a, dalign_arena *memory) {
  gdtw_cut_item(&f->item, a, memory);
  gdtw_cut_adjoint(&f->adjoint, a, memory);
}

static void gdtw_fill_features(void *gradient, int is_float, int64_t first, int64_t count, double number) {
  for (int64_t k = first; gradient && k < first + count; k++)
    if (is_float)
      ((float *)gradient)[k] = (float)number;
    else
      ((double *)gradient)[k] = number;
}

static void gdtw_fill(double *gradient, int64_t b, int64_t width, double number) {
  for (int64_t k = b * width; gradient && k < (b + 1) * width; k++) gradient[k] = number;
}

static void gdtw_fill_gradients(const dalign_gdtw_args *a, int is_float, int64_t b, double number) {
  gdtw_fill_features(a->grad_x, is_float, b * a->n * a->d, a->n * a->d, number);
  gdtw_fill_features(a->grad_y, is_float, b * a->m * a->d, a->m * a->d, number);
  gdtw_fill(a->grad_x_times, b, a->n, number);
  gdtw_fill(a->grad_y_times, b, a->m, number);
  gdtw_fill(a->grad_reg_weight, b, a->n - 1, number);
  gdtw_fill(a->grad_slope_min, b, a->n - 1, number);
  gdtw_fill(a->grad_slope_max, b, a->n - 1, number);
  gdtw_fill(a->grad_nominal_slope, b, 1, number);
  gdtw_fill(a->grad_band_min, b, a->n, number);
  gdtw_fill(a->grad_band_max, b, a->n, number);
}

static void gdtw_run_backward(gdtw_backward *f, const dalign_gdtw_args *a, int is_float, int64_t b) {
  const int32_t status = a->status[b];
  gdtw_fill_gradients(a, is_float, b, status == DALIGN_GDTW_INVALID ? NAN : 0);
  if (status != DALIGN_GDTW_OPTIMAL) return;
  gdtw_read_item(&f->item, a, is_float, b);
  gdtw_run_adjoint(&f->adjoint, &f->item);
}

static dalign_status gdtw_run_back(const dalign_gdtw_args *a, int is_float, int64_t begin, int64_t end,
                                   void *workspace) {
  const dalign_status status = gdtw_check(a);
  dalign_arena memory = dalign_arena_over(workspace);
  gdtw_backward f;
  if (status != DALIGN_OK) return status;
  gdtw_cut_backward(&f, a, &memory);
  for (int64_t b = begin; b < end; b++) gdtw_run_backward(&f, a, is_float, b);
  return DALIGN_OK;
}

static size_t gdtw_backward_workspace(const dalign_gdtw_args *a) {
  dalign_arena memory = {0};
  gdtw_backward f;
  if (!gdtw_has_size(a)) return 0;
  gdtw_cut_backward(&f, a, &memory);
  return dalign_arena_bytes(&memory);
}

/* ------------------------------------------------------------------------------------------------ public functions */

#define GDTW_PUBLIC(type, is_float)                                                                               \
  size_t DALIGN_NAME(dalign_gdtw_workspace, type)(const dalign_gdtw_args *args) { return gdtw_workspace(args); }  \
  size_t DALIGN_NAME(dalign_gdtw_backward_workspace, type)(const dalign_gdtw_args *args) {                        \
    return gdtw_backward_workspace(args);                                                                         \
  }                                                                                                               \
  dalign_status DALIGN_NAME(dalign_gdtw, type)(const dalign_gdtw_args *args, int64_t begin, int64_t end,          \
                                               void *memory) {                                                    \
    return gdtw_run(args, is_float, begin, end, memory);                                                          \
  }                                                                                                               \
  dalign_status DALIGN_NAME(dalign_gdtw_backward, type)(const dalign_gdtw_args *args, int64_t begin, int64_t end, \
                                                        void *memory) {                                           \
    return gdtw_run_back(args, is_float, begin, end, memory);                                                     \
  }
GDTW_PUBLIC(f32, 1)
GDTW_PUBLIC(f64, 0)
