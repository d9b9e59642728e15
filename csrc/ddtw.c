/* ddtw.c: the general lattice of differentiable dynamic time warping: any steps, weights, ends and operator.
 *
 *   D(i, j) = mu({ D(i - step_x[s], j - step_y[s]) + W_s(i, j) C(i, j) }_s  and  C(i, j) + start(i, j))
 *   value   = mu({ D(i, j) + end(i, j) })
 *
 * (Zeitler and Mueller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", 2026, Algorithms 1 and 2.)
 *
 * Softmin runs in waves (ddtw_body.h). A wave is a set of cells none of which follows another: a row where every step
 * advances x, a column where every step advances y, else a diagonal i + j = t. Its cells lie side by side in memory, so the
 * cells before all of them by one step are one unaligned vector load away, and there is no dependency inside a wave.
 * Everything happens in P = exp(-D / gamma) as a mantissa and an exponent per cell:
 *   P(i, j) = sum_s P(before) exp(-W_s C / gamma)  (+ exp(-(C + start) / gamma)),   Z = sum over ends P exp(-end / gamma)
 *   q_s(i, j) = B(i, j) exp(-W_s C / gamma),   B(i, j) = sum_s q_s(i + step_x, j + step_y)  (+ exp(-end / gamma))
 * and the share of paths that enter a cell by step s is P(before) q_s / Z, which gives every derivative.
 * Waves come in blocks that fit into the cache. Going back, P of a block is computed again from the waves before it; the
 * waves kept between blocks are all that a long lattice needs. Exponents count from a base (a double) per block. Where they
 * would grow too large for a float to hold exactly, doubles take over, and where even these would, ddtw_cells.h.
 *
 * The other operators, best paths and second derivatives go cell by cell in double (ddtw_cells.h).
 */
#include "dalign.h"
#include "memory.h"
#include "simd/names.h"

#include <math.h>
#include <string.h>

#include "ddtw_cells.h"
#include "waves_order.h"

#define DALIGN_F32 0
#include "simd/real.h"
#include "ddtw_body.h"
#undef DALIGN_F32
#define DALIGN_F32 1
#include "simd/real.h"
#include "ddtw_body.h"

/* ------------------------------------------------------------------------------------------------ public functions */

typedef union {
  DALIGN_NAME(waves_type, f32) f32;
  DALIGN_NAME(waves_type, f64) f64;
  ddtw_cells cells;
  ddtw_second second;
} ddtw_work;

/* One after the other they use the same memory. */
static size_t ddtw_workspace(const dalign_ddtw_args *a, int is_float) {
  ddtw_work w;
  dalign_arena cells = {0};
  ddtw_cut_cells(&w.cells, a, &cells);
  size_t bytes = dalign_arena_bytes(&cells);
  if (a->smoothing != DALIGN_SOFTMIN) return bytes;
  dalign_arena wide = {0}, narrow = {0};
  DALIGN_NAME(cut_waves_, f64)(&w.f64, a, NULL, ddtw_needs_gradient(a), &wide);
  bytes = ddtw_larger(bytes, dalign_arena_bytes(&wide));
  if (!is_float) return bytes;
  DALIGN_NAME(cut_waves_, f32)(&w.f32, a, NULL, ddtw_needs_gradient(a), &narrow);
  return ddtw_larger(bytes, dalign_arena_bytes(&narrow));
}

static void ddtw_run_item(const dalign_ddtw_args *a, int is_float, int64_t item, void *workspace) {
  const ddtw_item it = ddtw_item_of(a, is_float, item);
  dalign_arena narrow = dalign_arena_over(workspace), wide = narrow, cells = narrow;
  ddtw_work w;
  if (a->smoothing == DALIGN_SOFTMIN) {
    if (is_float) {
      DALIGN_NAME(cut_waves_, f32)(&w.f32, a, NULL, ddtw_needs_gradient(a), &narrow);
      if (DALIGN_NAME(run_waves_, f32)(&w.f32, it) == WAVES_FIT) return;
    }
    DALIGN_NAME(cut_waves_, f64)(&w.f64, a, NULL, ddtw_needs_gradient(a), &wide);
    if (DALIGN_NAME(run_waves_, f64)(&w.f64, it) == WAVES_FIT) return;
  }
  ddtw_cut_cells(&w.cells, a, &cells);
  ddtw_run_cells(&w.cells, it);
}

static dalign_status ddtw_run(const dalign_ddtw_args *a, int is_float, int64_t begin, int64_t end, void *workspace) {
  const dalign_status status = ddtw_check(a);
  for (int64_t item = begin; status == DALIGN_OK && item < end; item++) ddtw_run_item(a, is_float, item, workspace);
  return status;
}

static size_t ddtw_hvp_workspace(const dalign_ddtw_args *a) {
  ddtw_second h;
  dalign_arena arena = {0};
  ddtw_cut_second(&h, a, &arena);
  return dalign_arena_bytes(&arena);
}

static dalign_status ddtw_hvp(const dalign_ddtw_args *a, const dalign_ddtw_direction *direction, int is_float,
                              int64_t begin, int64_t end, void *workspace) {
  const dalign_status status = ddtw_check(a);
  if (status != DALIGN_OK) return status;
  if (a->smoothing != DALIGN_SOFTMIN) return DALIGN_BAD_ARGUMENT;
  ddtw_second h = {.direction = direction};
  dalign_arena arena = dalign_arena_over(workspace);
  ddtw_cut_second(&h, a, &arena);
  for (int64_t item = begin; item < end; item++) ddtw_run_second(&h, ddtw_item_of(a, is_float, item));
  return DALIGN_OK;
}

#define DDTW_PUBLIC(type, is_float)                                                                                    \
  size_t DALIGN_NAME(dalign_ddtw_workspace, type)(const dalign_ddtw_args *args) {                                      \
    return ddtw_workspace(args, is_float);                                                                             \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_ddtw, type)(const dalign_ddtw_args *args, int64_t begin, int64_t end,               \
                                               void *memory) {                                                         \
    return ddtw_run(args, is_float, begin, end, memory);                                                               \
  }                                                                                                                    \
  size_t DALIGN_NAME(dalign_ddtw_hvp_workspace, type)(const dalign_ddtw_args *args) {                                  \
    return ddtw_hvp_workspace(args);                                                                                   \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_ddtw_hvp, type)(const dalign_ddtw_args *args,                                       \
                                                   const dalign_ddtw_direction *direction, int64_t begin, int64_t end, \
                                                   void *memory) {                                                     \
    return ddtw_hvp(args, direction, is_float, begin, end, memory);                                                    \
  }
DDTW_PUBLIC(f32, 1)
DDTW_PUBLIC(f64, 0)
