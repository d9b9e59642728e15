/* Body of tap.c for one element type. */
#include "tap_blocks.h"
#include "tap_conv.h"
#include "tap_frames.h"
#include "tap_rows.h"
#if DALIGN_F32
#include "tap_winograd.h"
#endif
#include "tap_weights.h"
#include "tap_slot.h"
#include "tap_ground.h"
#include "tap_layers.h"
#if DALIGN_F32
#include "tap_tiles.h"
#endif
#include "tap_pair.h"

/* ------------------------------------------------------------------------------------------------ weights */

static size_t FN(prepared_bytes_)(const dalign_tap_args *a) {
  const tap_plan p = tap_plan_of(a, DALIGN_F32);
  FN(tap_weights) w[DALIGN_TAP_LAYERS];
  dalign_arena memory;
  FN(cut_weights_)(w, &p, NULL, &memory);
  return dalign_arena_bytes(&memory);
}

static void FN(prepare_)(const dalign_tap_args *a) {
  const tap_plan p = tap_plan_of(a, DALIGN_F32);
  FN(tap_weights) w[DALIGN_TAP_LAYERS];
  dalign_arena memory;
  FN(cut_weights_)(w, &p, a->prepared, &memory);
  for (int l = 0; l < p.layers; l++) FN(prepare_layer_)(&w[l], &p, l);
}

/* ------------------------------------------------------------------------------------------------ memory */

static size_t FN(worker_bytes_)(const dalign_tap_args *a, int back) {
  dalign_arena memory = {0};
  tap_worker w;
  FN(cut_worker_)(&w, a, back, &memory);
  return dalign_arena_bytes(&memory);
}

static size_t FN(place_state_)(const dalign_tap_args *a, size_t budget, int64_t *at) {
  const tap_plan p = tap_plan_of(a, DALIGN_F32);
  size_t used = 0;
  for (int64_t pair = 0; pair < a->pairs; pair++) {
    const size_t bytes = FN(kept_bytes_)(&p, pair);
    at[pair] = bytes <= budget - used ? (int64_t)used : -1;
    if (at[pair] >= 0) used += bytes;
  }
  return used;
}

/* ------------------------------------------------------------------------------------------------ ranges */

static void FN(run_pairs_)(const dalign_tap_args *a, int64_t begin, int64_t end, void *workspace) {
  dalign_arena memory = dalign_arena_over(workspace);
  tap_worker w;
  FN(cut_worker_)(&w, a, 0, &memory);
  while (begin < end) {
    dalign_arena scratch = dalign_arena_over(w.slot_memory);
    for (w.slots = 0; begin < end && FN(fits_)(&w, begin); begin++) FN(take_pair_)(&w, begin, &scratch);
    FN(go_forward_)(&w);
  }
}

static int FN(is_zero_map_)(const tap_plan *p, const REAL *map, int64_t pair) {
  const tap_grid g = tap_grid_of_pair(p, pair);
  for (int64_t i = 0; map && i < g.n; i++)
    for (int64_t j = 0; j < g.m; j++)
      if (map[(pair * p->args->n + i) * p->args->m + j] != 0) return 0;
  return 1;
}

/* Whether nothing goes back through the pair: most of them where a loss looks at the hardest ones alone. */
static int FN(is_idle_)(const tap_plan *p, int64_t pair) {
  const REAL *value = p->args->grad_value;
  if (value && value[pair] != 0) return 0;
  return FN(is_zero_map_)(p, p->args->grad_alignment, pair) && FN(is_zero_map_)(p, p->args->grad_transport, pair);
}

static void FN(give_zeros_)(const dalign_tap_args *a, int64_t pair) {
  REAL *results[] = {a->grad_x, a->grad_y, a->grad_energy_x, a->grad_energy_y};
  for (int k = 0; k < 4; k++) {
    const int64_t d = k < 2 ? a->d : a->energy_d, frames = k % 2 ? a->m : a->n;
    if (results[k]) FN(give_frames_)(results[k] + pair * frames * d, NULL, 0, frames, d, d);
  }
}

/* Pairs [begin, end), whose weights' gradients are one partial sum. */
static void FN(run_group_)(tap_worker *w, int64_t begin, int64_t end, double *partial) {
  const dalign_tap_args *a = w->plan.args;
  for (int l = 0; l < w->plan.layers; l++) FN(clear_sums_)(&w->sums[l], &w->plan.layer[l]);
  FN(forget_sums_)(&w->ground);
  while (begin < end) {
    dalign_arena scratch = dalign_arena_over(w->slot_memory);
    for (w->slots = 0; begin < end; begin++) {
      if (FN(is_idle_)(&w->plan, begin)) {
        FN(give_zeros_)(a, begin);
        continue;
      }
      if (!FN(fits_)(w, begin)) break;
      FN(take_pair_)(w, begin, &scratch);
    }
    if (w->slots) FN(go_back_)(w);
  }
  FN(settle_sums_)(w);
  for (int l = 0; l < w->plan.layers; l++) partial = FN(give_sums_)(&w->sums[l], &w->plan, l, partial);
}

static void FN(run_groups_)(const dalign_tap_args *a, int64_t begin, int64_t end, void *workspace) {
  dalign_arena memory = dalign_arena_over(workspace);
  tap_worker w;
  FN(cut_worker_)(&w, a, 1, &memory);
  const int64_t groups = tap_count_groups(&w.plan);
  for (int64_t group = begin; group < end; group++)
    FN(run_group_)(&w, a->pairs * group / groups, a->pairs * (group + 1) / groups,
                   a->partials + group * w.plan.parameters);
}

static void FN(reduce_)(const dalign_tap_args *a) {
  const tap_plan p = tap_plan_of(a, DALIGN_F32);
  const int64_t groups = tap_count_groups(&p);
  int64_t at = 0;
  for (int l = 0; l < p.layers; l++) {
    const tap_layer *layer = &p.layer[l];
    REAL *results[2] = {a->layer[l].grad_weight, a->layer[l].grad_bias};
    for (int k = 0; k < 2; k++) {
      const int64_t count = k ? layer->out : layer->out * layer->in * layer->kernel * layer->kernel;
      for (int64_t c = 0; results[k] && c < count; c++) {
        double sum = 0;
        for (int64_t group = 0; group < groups; group++) sum += a->partials[group * p.parameters + at + c];
        results[k][c] = (REAL)sum;
      }
      at += count;
    }
  }
}
