/* dilate.c: path functionals of a softmin lattice, such as the temporal term of DILATE.
 *
 *   T = <Omega, H>,   H = d value / d C
 *
 * is the mean over all paths, each with its probability, of the sum of Omega along the path. In the waves of ddtw.c every
 * path sum P travels with its twin Q, the same sum with each path counted by its penalty so far:
 *   P(i, j) = k sum P(before),   Q(i, j) = k sum Q(before) + Omega P(i, j),   k = exp(-C / gamma)
 * T = Q / P at the end. Back from there go B and R, the same of what follows a cell, and
 *   d T / d C = -(Q B + P R - T P B) / (Z gamma),   d T / d Omega = P B / Z:
 * the covariance of a path's penalty with its going through the cell. That is a Hessian product of the value (with Omega)
 * in one sweep each way. Le Guen and Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting
 * Models", 2019, has the functional and computes it from the whole lattice.
 *
 * From features, costs of a block of waves are computed where they are needed (cost_tile.h), and a formula gives Omega.
 */
#include "dalign.h"
#include "memory.h"
#include "simd/names.h"

#include <math.h>
#include <string.h>

#include "ddtw_item.h"
#include "waves_order.h"

static int dilate_needs_gradient(const dalign_dilate_args *p) {
  return p->lattice.grad_cost || p->grad_x || p->grad_y || p->grad_omega || p->lattice.mean_cost;
}

static void dilate_put_values(const dalign_dilate_args *p, const ddtw_item *it, double value, double functional) {
  ddtw_put(p->lattice.value, it->is_float, it->item, value);
  ddtw_put(p->functional, it->is_float, it->item, functional);
}

static void dilate_fill_frames(void *array, const ddtw_item *it, int64_t frames, int64_t length, int64_t d,
                               double inside) {
  for (int64_t k = 0; array && k < frames * d; k++)
    ddtw_put(array, it->is_float, it->item * frames * d + k, k < length * d ? inside : 0);
}

/* Zeros beyond the lengths, and this number inside. */
static void dilate_fill_gradients(const dalign_dilate_args *p, const ddtw_item *it, double inside) {
  const dalign_ddtw_args *a = &p->lattice;
  if (a->grad_cost) ddtw_fill_item(a, a->grad_cost, it->is_float, it->item, it->n, it->m, inside);
  if (p->grad_omega) ddtw_fill_item(a, p->grad_omega, it->is_float, it->item, it->n, it->m, inside);
  dilate_fill_frames(p->grad_x, it, a->n, it->n, p->d, inside);
  dilate_fill_frames(p->grad_y, it, a->m, it->m, p->d, inside);
  if (a->mean_cost) a->mean_cost[it->item] = inside;
}

#define DALIGN_F32 0
#include "simd/real.h"
#include "dilate_body.h"
#undef DALIGN_F32
#define DALIGN_F32 1
#include "simd/real.h"
#include "dilate_body.h"

/* ------------------------------------------------------------------------------------------------ public functions */

typedef union {
  DALIGN_NAME(waves_type, f32) f32;
  DALIGN_NAME(waves_type, f64) f64;
} dilate_work;

static dalign_status dilate_check(const dalign_dilate_args *p) {
  const dalign_ddtw_args *a = &p->lattice;
  const dalign_status status = ddtw_check(a);
  if (status != DALIGN_OK) return status;
  if (a->smoothing != DALIGN_SOFTMIN || a->grad_weights || a->grad_start || a->grad_end || a->path)
    return DALIGN_BAD_ARGUMENT;
  if (p->penalty < DALIGN_PENALTY_SQUARED || p->penalty > DALIGN_PENALTY_GIVEN) return DALIGN_BAD_ARGUMENT;
  if (p->penalty == DALIGN_PENALTY_GIVEN ? !p->omega : p->grad_omega != NULL) return DALIGN_BAD_ARGUMENT;
  if (isnan(p->band) || (p->band >= 0 && p->band < .5)) return DALIGN_BAD_ARGUMENT;
  if (!a->cost && (p->d < 1 || a->grad_cost || (p->metric == DALIGN_NLL && p->grad_y))) return DALIGN_BAD_ARGUMENT;
  return a->cost && (p->grad_x || p->grad_y) ? DALIGN_BAD_ARGUMENT : DALIGN_OK;
}

static size_t dilate_workspace(const dalign_dilate_args *p, int is_float) {
  dilate_work w;
  dalign_arena wide = {0}, narrow = {0};
  DALIGN_NAME(cut_waves_, f64)(&w.f64, &p->lattice, p, dilate_needs_gradient(p), &wide);
  if (!is_float) return dalign_arena_bytes(&wide);
  DALIGN_NAME(cut_waves_, f32)(&w.f32, &p->lattice, p, dilate_needs_gradient(p), &narrow);
  return ddtw_larger(dalign_arena_bytes(&wide), dalign_arena_bytes(&narrow));
}

static void dilate_run_item(const dalign_dilate_args *p, int is_float, int64_t item, void *workspace) {
  const ddtw_item it = ddtw_item_of(&p->lattice, is_float, item);
  dalign_arena narrow = dalign_arena_over(workspace), wide = narrow;
  dilate_work w;
  double gamma = p->lattice.gamma;
  if (is_float) {
    DALIGN_NAME(cut_waves_, f32)(&w.f32, &p->lattice, p, dilate_needs_gradient(p), &narrow);
    if (DALIGN_NAME(run_path_, f32)(&w.f32, it, gamma) == WAVES_FIT) return;
  }
  DALIGN_NAME(cut_waves_, f64)(&w.f64, &p->lattice, p, dilate_needs_gradient(p), &wide);
  while (DALIGN_NAME(run_path_, f64)(&w.f64, it, gamma) != WAVES_FIT) gamma *= 16;
}

static dalign_status dilate_run(const dalign_dilate_args *p, int is_float, int64_t begin, int64_t end,
                                void *workspace) {
  const dalign_status status = dilate_check(p);
  for (int64_t item = begin; status == DALIGN_OK && item < end; item++) dilate_run_item(p, is_float, item, workspace);
  return status;
}

#define DILATE_PUBLIC(type, is_float)                                                                        \
  size_t DALIGN_NAME(dalign_dilate_workspace, type)(const dalign_dilate_args *args) {                        \
    return dilate_workspace(args, is_float);                                                                 \
  }                                                                                                          \
  dalign_status DALIGN_NAME(dalign_dilate, type)(const dalign_dilate_args *args, int64_t begin, int64_t end, \
                                                 void *memory) {                                             \
    return dilate_run(args, is_float, begin, end, memory);                                                   \
  }
DILATE_PUBLIC(f32, 1)
DILATE_PUBLIC(f64, 0)
