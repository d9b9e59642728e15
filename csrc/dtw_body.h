/* Body of dtw.c for one element type. */
#include "cost_tile.h"
#include "lattice_tile.h"
#include "memory.h"

#include "dtw_lanes.h" /* knows what the others declare */

#undef problem
#undef worker
#undef HALO
#undef PITCH
#undef TILE_NUMBERS
#define problem FN(dtw_problem)
#define worker FN(dtw_worker)
#define HISTORY (2 * DALIGN_DTW_REACH)                        /* steps before the tile */
#define HALO ((DALIGN_DTW_REACH + LANES - 1) / LANES * LANES) /* lanes before the group's first */
#define PITCH (HALO + GROUP_ROWS)
#define TILE_NUMBERS (TILE_STRIPS * TILE_PITCH * LANES + (HISTORY + TILE_STEPS) * PITCH) /* costs and R */

typedef struct {
  double *rows; /* of step_x's reach, the lowest first, m columns each; NULL: none */
  int64_t last; /* the lowest row's number */
} FN(handed);

typedef struct {
  REAL *cost; /* of the tile it works on: TILE_NUMBERS of the worker's own or kept ones */
  REAL *sum;  /* behind them, R: (HISTORY + TILE_STEPS, PITCH) */
  REAL *own;
  int begin[TILE_STRIPS], end[TILE_STRIPS];
  double base;
} worker;

typedef struct {
  dalign_dtw_args args;
  int64_t item;
  lattice_view lattice;
  int reach, history; /* of the steps given: rows up, and steps back */
  int classic;        /* the three steps of weight 1 */
  int64_t offset[DALIGN_DTW_STEPS];
  REAL weight[DALIGN_DTW_STEPS];
  double value;
  int64_t end;        /* column of the path's last cell */
  int64_t keep_every; /* a path keeps the rows under each keep_every-th group */
  double *live, *kept, *slots;
  REAL *tiles; /* all tiles of a short pair, tiles_per_group for each group; NULL: none is kept */
  double *tile_base;
  int64_t tiles_per_group;
  REAL *edges; /* history of each tile of the group that the path is in */
  double *edge_base;
  worker tracer;
  _Atomic int64_t next_unit, *done; /* columns handed over: [0, done) */
  _Atomic int found_nan, found_far;
} problem;

/* ------------------------------------------------------------------------------------------------ memory */

static int FN(reach_of_)(const dalign_dtw_args *a) {
  int reach = 1;
  for (int k = 0; k < a->steps; k++) reach = a->step_x[k] > reach ? a->step_x[k] : reach;
  return reach;
}

/* Rows under all groups where they fit, else the fewest groups apart that fit, at least as good as the square root. */
static int64_t FN(choose_keep_every_of_path_)(int64_t n, int64_t m, int reach) {
  const int64_t groups = FN(group_count_)(n), bytes = (int64_t)sizeof(double) * reach * m;
  int64_t every = 1;
  while (every * every < groups && (groups / every + (every > 1 ? every : 0)) * bytes > DALIGN_DTW_ROWS_BYTES) every++;
  return every;
}

static void FN(cut_dtw_worker_)(worker *w, dalign_arena *a) {
  w->own = dalign_arena_take(a, sizeof(REAL) * TILE_NUMBERS);
  w->cost = w->sum = NULL;
}

/* Whether the whole lattice's tiles are few enough to stay until the path has been traced. */
static int FN(keeps_tiles_)(const dalign_dtw_args *a) {
  const int64_t tiles = FN(group_count_)(a->n) * FN(tiles_of_)(0, a->m + GROUP_ROWS + 2);
  return a->path && tiles <= DALIGN_DTW_TILES_BYTES / (int64_t)(sizeof(REAL) * TILE_NUMBERS);
}

static void FN(cut_path_)(problem *p, dalign_arena *a, int64_t n, int64_t m, int64_t keep_every) {
  const size_t rows = sizeof(double) * (size_t)(FN(reach_of_)(&p->args) * m);
  const size_t tiles = (size_t)FN(tiles_of_)(0, m + GROUP_ROWS + 2);
  FN(cut_dtw_worker_)(&p->tracer, a);
  p->tiles = NULL, p->kept = NULL, p->tiles_per_group = (int64_t)tiles;
  if (FN(keeps_tiles_)(&p->args)) {
    const size_t all = (size_t)FN(group_count_)(n) * tiles;
    p->tiles = dalign_arena_take(a, sizeof(REAL) * TILE_NUMBERS * all);
    p->tile_base = dalign_arena_take(a, sizeof(double) * all);
    return;
  }
  p->kept = dalign_arena_take(a, rows * (size_t)(FN(group_count_)(n) / keep_every));
  p->slots = dalign_arena_take(a, keep_every > 1 ? rows * (size_t)keep_every : 0);
  p->edges = dalign_arena_take(a, sizeof(REAL) * tiles * HISTORY * PITCH);
  p->edge_base = dalign_arena_take(a, sizeof(double) * tiles);
}

static void FN(cut_dtw_)(problem *p, dalign_arena *a, int64_t n, int64_t m) {
  const size_t groups = (size_t)FN(group_count_)(n), rows = groups * GROUP_ROWS;
  p->lattice.low = dalign_arena_take(a, sizeof(int64_t) * rows);
  p->lattice.high = dalign_arena_take(a, sizeof(int64_t) * rows);
  p->done = dalign_arena_take(a, sizeof(_Atomic int64_t) * groups);
  p->live = dalign_arena_take(a, sizeof(double) * (size_t)(FN(reach_of_)(&p->args) * m));
  if (p->args.path) FN(cut_path_)(p, a, n, m, p->keep_every);
}

/* ------------------------------------------------------------------------------------------------ a tile */

/* Points the worker at a tile's memory. */
static void FN(take_tile_)(const problem *p, worker *w, int64_t g, int64_t k) {
  w->cost = p->tiles ? p->tiles + (size_t)(g * p->tiles_per_group + k) * TILE_NUMBERS : w->own;
  w->sum = w->cost + TILE_STRIPS * TILE_PITCH * LANES;
}

/* Steps [from, to) of strips [first, first + count), any steps. A weight of 0 makes a NaN of a blocked cell, which v_min's
 * order passes over. */
static void FN(any_steps_)(const problem *p, worker *w, int first, int count, int from, int to) {
  for (int t = from; t < to; t++)
    for (int s = first; s < first + count; s++) {
      REAL *cell = w->sum + (HISTORY + t) * PITCH + HALO + s * LANES;
      const vec c = v_load(w->cost + (s * TILE_PITCH + t) * LANES);
      vec best = v_set1((REAL)INFINITY);
      for (int k = 0; k < p->args.steps; k++)
        best = v_min(v_muladd(c, v_set1(p->weight[k]), v_loadu(cell - p->offset[k])), best);
      v_store(cell, best);
    }
}

/* The same for the three unit steps of weight 1, whose numbers stay in registers from step to step. */
DALIGN_INLINE void FN(classic_steps_)(worker *w, int first, int count, int from, int to) {
  REAL *cells = w->sum + (HISTORY + from) * PITCH + HALO + first * LANES;
  const REAL *costs = w->cost + (first * TILE_PITCH + from) * LANES;
  vec left[TILE_STRIPS], diagonal[TILE_STRIPS];
  for (int s = 0; s < count; s++) {
    left[s] = v_load(cells + s * LANES - PITCH);
    diagonal[s] = v_loadu(cells + s * LANES - 2 * PITCH - 1);
  }
  for (int t = from; t < to; t++, cells += PITCH, costs += LANES) {
    const vec above = v_load(cells - PITCH - LANES);
    for (int s = count - 1; s >= 0; s--) {
      const vec up = v_shift_up(left[s], s ? left[s ? s - 1 : 0] : above);
      left[s] = v_add(v_min(v_min(diagonal[s], left[s]), up), v_load(costs + s * TILE_PITCH * LANES));
      diagonal[s] = up;
      v_store(cells + s * LANES, left[s]);
    }
  }
}

static void FN(dtw_segment_)(const problem *p, worker *w, int first, int count, int from, int to) {
#define CLASSIC(c) FN(classic_steps_)(w, first, c, from, to)
  if (p->classic) {
    EACH_COUNT(count, CLASSIC)
  } else {
    FN(any_steps_)(p, w, first, count, from, to);
  }
#undef CLASSIC
}

static void FN(fill_steps_)(REAL *steps, int count, int lanes) {
  const vec none = v_set1((REAL)INFINITY);
  for (int t = 0; t < count; t++)
    for (int r = 0; r < lanes; r += LANES) v_store(steps + t * PITCH + r, none);
}

/* A path may begin in cell (0, 0), with free_start in every cell of row 0, at that cell's cost. */
static void FN(start_paths_)(const problem *p, worker *w, int64_t step, int t) {
  REAL *cell = w->sum + (HISTORY + t) * PITCH + HALO;
  const double start = (double)w->cost[t * LANES] - w->base;
  const int64_t column = step + t;
  if (column > 0 && !p->args.free_start) return;
  if (column == 0 || start < (double)*cell) *cell = (REAL)start;
}

/* R of the tile. Strips that do not work at a step leave +inf there. */
static void FN(dtw_tile_)(const problem *p, worker *w, int64_t g, int64_t step) {
  const int strips = FN(strips_of_)(&p->lattice, g);
  for (int s = 0; s < strips; s++) {
    REAL *strip = w->sum + HISTORY * PITCH + HALO + s * LANES;
    FN(fill_steps_)(strip, w->begin[s], LANES);
    FN(fill_steps_)(strip + w->end[s] * PITCH, TILE_STEPS - w->end[s], LANES);
  }
  for (int from = 0, next; from < TILE_STEPS; from = next) {
    int first = -1, count = 0;
    next = TILE_STEPS;
    for (int s = 0; s < strips; s++) {
      if (w->begin[s] > from && w->begin[s] < next) next = w->begin[s];
      if (w->end[s] > from && w->end[s] < next) next = w->end[s];
      if (w->begin[s] <= from && from < w->end[s]) first = first < 0 ? s : first, count++;
    }
    const int starts = g == 0 && w->begin[0] <= from && from < w->end[0] && (p->args.free_start || step + from == 0);
    if (starts) next = from + 1;
    if (count) FN(dtw_segment_)(p, w, first, count, from, next);
    if (starts) FN(start_paths_)(p, w, step, from);
  }
}

/* ------------------------------------------------------------------------------------------------ what enters a tile */

/* R of the row h above the group at the tile's steps [from, TILE_STEPS), relative to base. */
static void FN(load_halo_)(const problem *p, worker *w, const FN(handed) * above, int h, int64_t step, int from) {
  const int64_t row = above->last - h, shift = step + 1 + h; /* column at step 0 */
  REAL *lane = w->sum + HISTORY * PITCH + HALO - 1 - h;
  const double *sums = above->rows ? above->rows + h * p->lattice.m : NULL;
  int64_t low = TILE_STEPS, high = TILE_STEPS;
  if (sums && row >= 0) {
    low = FN(minimum_)(FN(maximum_)(p->lattice.low[row] - shift, from), TILE_STEPS);
    high = FN(maximum_)(FN(minimum_)(p->lattice.high[row] + 1 - shift, TILE_STEPS), low);
  }
  for (int64_t t = from; t < low; t++) lane[t * PITCH] = (REAL)INFINITY;
  for (int64_t t = low; t < high; t++) lane[t * PITCH] = (REAL)(sums[shift + t] - w->base);
  for (int64_t t = high; t < TILE_STEPS; t++) lane[t * PITCH] = (REAL)INFINITY;
}

#if DALIGN_F32
/* Least number of the rows above in the tile's columns. */
static double FN(least_above_)(const problem *p, const FN(handed) * above, int64_t step) {
  double least = INFINITY;
  for (int h = 0; above->rows && h < p->reach && h <= above->last; h++) {
    const int64_t row = above->last - h, shift = step + 1 + h;
    const int64_t from = FN(maximum_)(p->lattice.low[row], shift);
    const int64_t to = FN(minimum_)(p->lattice.high[row] + 1, shift + TILE_STEPS);
    const double *sums = above->rows + h * p->lattice.m;
    for (int64_t j = from; j < to; j++) least = sums[j] < least ? sums[j] : least;
  }
  return least;
}

/* Least number of the history in the lanes of the group's rows. */
static double FN(least_before_)(const problem *p, const worker *w, int strips) {
  REAL lanes[LANES], least = (REAL)INFINITY;
  vec best = v_set1(least);
  for (int t = HISTORY - p->history; t < HISTORY; t++)
    for (int s = 0; s < strips; s++) best = v_min(best, v_load(w->sum + t * PITCH + HALO + s * LANES));
  v_storeu(lanes, best);
  for (int r = 0; r < LANES; r++) least = lanes[r] < least ? lanes[r] : least;
  return (double)least + w->base;
}

/* Counts the history from the least number that enters the tile. */
static void FN(rebase_history_)(const problem *p, worker *w, const FN(handed) * above, int64_t g, int64_t step) {
  REAL *history = w->sum + (HISTORY - p->history) * PITCH;
  double base = FN(least_before_)(p, w, FN(strips_of_)(&p->lattice, g));
  const double entering = FN(least_above_)(p, above, step);
  base = entering < base ? entering : base;
  if (g == 0 && p->args.free_start && base > 0) base = 0;
  if (!(base < INFINITY)) return;
  const vec change = v_set1((REAL)(w->base - base));
  for (int i = 0; i < p->history * PITCH; i += LANES) v_store(history + i, v_add(v_load(history + i), change));
  w->base = base;
}
#endif

/* Before a group's first tile: nothing to the left, but of the rows above also the steps before it. */
static void FN(enter_group_)(const problem *p, worker *w, const FN(handed) * above, int64_t step) {
  FN(fill_steps_)(w->sum, HISTORY, PITCH);
  w->base = 0;
#if DALIGN_F32
  const double least = FN(least_above_)(p, above, step);
  if (least < INFINITY) w->base = least;
#endif
  for (int h = 0; h < p->reach; h++) FN(load_halo_)(p, w, above, h, step, -p->history);
}

static void FN(enter_next_tile_)(const problem *p, worker *w, const FN(handed) * above, int64_t g, int64_t step,
                                 const REAL *before) {
  (void)g;
  memcpy(w->sum, before + TILE_STEPS * PITCH, sizeof(REAL) * HISTORY * PITCH);
#if DALIGN_F32
  FN(rebase_history_)(p, w, above, g, step);
#endif
  for (int h = 0; h < p->reach; h++) FN(load_halo_)(p, w, above, h, step, 0);
}

/* Brings what enters tile k of a group, which begins at a step, into the worker. */
static void FN(enter_dtw_tile_)(const problem *p, worker *w, const FN(handed) * above, int64_t g, int64_t k,
                                int64_t step) {
  const REAL *before = w->sum;
  FN(take_tile_)(p, w, g, k);
  FN(place_strips_)(&p->lattice, g, step, w->begin, w->end);
  if (k == 0)
    FN(enter_group_)(p, w, above, step);
  else
    FN(enter_next_tile_)(p, w, above, g, step, before);
  if (p->tiles) p->tile_base[g * p->tiles_per_group + k] = w->base;
}

/* ------------------------------------------------------------------------------------------------ a group */

static int FN(dtw_stopped_)(problem *p) {
  return atomic_load_explicit(&p->found_nan, memory_order_relaxed) |
         atomic_load_explicit(&p->found_far, memory_order_relaxed);
}

static int FN(wait_for_row_)(problem *p, int64_t g, int64_t column) {
  for (int spins = 0;; spins++) {
    if (atomic_load_explicit(&p->done[g], memory_order_acquire) >= column) return 1;
    if (FN(dtw_stopped_)(p)) return 0;
    if (spins > 64) sched_yield();
  }
}

/* Copies the lowest rows' columns of this tile; the least of them. */
static double FN(hand_rows_)(const problem *p, const worker *w, int64_t g, int64_t step, double *rows) {
  double least = INFINITY;
  for (int h = 0; h < p->reach; h++) {
    const int64_t row = (g + 1) * GROUP_ROWS - 1 - h, shift = step - (GROUP_ROWS - 1 - h);
    const int64_t from = FN(maximum_)(p->lattice.low[row], shift);
    const int64_t to = FN(minimum_)(p->lattice.high[row] + 1, shift + TILE_STEPS);
    const REAL *lane = w->sum + HISTORY * PITCH + HALO + GROUP_ROWS - 1 - h;
    for (int64_t j = from; j < to; j++) {
      const double sum = (double)lane[(j - shift) * PITCH] + w->base;
      rows[h * p->lattice.m + j] = sum;
      least = sum < least ? sum : least;
    }
  }
  return least;
}

/* Looks for the cheapest end of a path in the last row's columns of this tile. */
static void FN(end_paths_)(problem *p, const worker *w, int64_t g, int64_t step) {
  const lattice_view *l = &p->lattice;
  const int64_t lane = l->n - 1 - g * GROUP_ROWS, shift = step - lane, first = p->args.free_end ? 0 : l->m - 1;
  const int64_t from = FN(maximum_)(FN(maximum_)(l->low[l->n - 1], shift), first);
  const int64_t to = FN(minimum_)(l->high[l->n - 1] + 1, shift + TILE_STEPS);
  for (int64_t j = from; j < to; j++) {
    const double sum = (double)w->sum[(HISTORY + j - shift) * PITCH + HALO + lane] + w->base;
    if (sum < p->value) p->value = sum, p->end = j;
  }
}

/* Rows that group g leaves for the next one. */
static int FN(row_is_kept_)(const problem *p, int64_t g) { return p->kept && (g + 1) % p->keep_every == 0; }

static FN(handed) FN(rows_under_)(const problem *p, int64_t g, double *else_rows) {
  const int64_t numbers = p->reach * p->lattice.m;
  FN(handed) rows = {NULL, g >= 0 ? (g + 1) * GROUP_ROWS - 1 : -1};
  if (g >= 0) rows.rows = FN(row_is_kept_)(p, g) ? p->kept + g / p->keep_every * numbers : else_rows;
  return rows;
}

static int64_t FN(clamp_)(int64_t column, int64_t m) { return column < 0 ? 0 : column > m ? m : column; }

/* The first sweep over a group: finds the value, and leaves the rows under it. */
static void FN(dtw_group_)(problem *p, worker *w, int64_t g) {
  const lattice_view *l = &p->lattice;
  const FN(handed) above = FN(rows_under_)(p, g - 1, p->live), below = FN(rows_under_)(p, g, p->live);
  const int is_last = g == l->groups - 1;
  int64_t begin, end;
  double least = INFINITY;
  FN(group_steps_)(l, g, &begin, &end);
  for (int64_t step = begin; step < end; step += TILE_STEPS) {
    const int64_t needed = FN(clamp_)(step + TILE_STEPS + p->reach, l->m);
    if (g && !FN(wait_for_row_)(p, g - 1, needed)) return;
    FN(enter_dtw_tile_)(p, w, &above, g, (step - begin) / TILE_STEPS, step);
    if (FN(fill_costs_)(l, g, step, w->begin, w->end, 1, w->cost) & COSTS_NAN) atomic_store(&p->found_nan, 1);
    if (FN(dtw_stopped_)(p)) return;
    FN(dtw_tile_)(p, w, g, step);
    if (is_last) {
      FN(end_paths_)(p, w, g, step);
      continue;
    }
    const double leaving = FN(hand_rows_)(p, w, g, step, below.rows);
    least = leaving < least ? leaving : least;
    const int64_t handed = FN(clamp_)(step + TILE_STEPS - (GROUP_ROWS - 1), l->m);
    atomic_store_explicit(&p->done[g], handed, memory_order_release);
  }
  if (!is_last && least > p->args.limit) atomic_store(&p->found_far, 1); /* every path crosses these rows */
  atomic_store_explicit(&p->done[g], l->m, memory_order_release);
}

/* ------------------------------------------------------------------------------------------------ the path */

/* Sweeps group g up to the tile that holds a step, and keeps what enters each tile. */
static int FN(sweep_for_edges_)(problem *p, int64_t g, const FN(handed) * above, int64_t last_step) {
  const lattice_view *l = &p->lattice;
  worker *w = &p->tracer;
  int64_t begin, end;
  int k = 0;
  FN(group_steps_)(l, g, &begin, &end);
  for (int64_t step = begin;; step += TILE_STEPS, k++) {
    FN(enter_dtw_tile_)(p, w, above, g, k, step);
    memcpy(p->edges + (size_t)k * HISTORY * PITCH, w->sum, sizeof(REAL) * HISTORY * PITCH);
    p->edge_base[k] = w->base;
    if (last_step < step + TILE_STEPS) return k;
    FN(fill_costs_)(l, g, step, w->begin, w->end, 0, w->cost);
    FN(dtw_tile_)(p, w, g, step);
  }
}

/* Costs and R of tile k: kept, or computed again from the tile's edge. */
static void FN(restore_dtw_tile_)(problem *p, int64_t g, const FN(handed) * above, int64_t k, int64_t step) {
  worker *w = &p->tracer;
  FN(take_tile_)(p, w, g, k);
  if (p->tiles) {
    w->base = p->tile_base[g * p->tiles_per_group + k];
    return;
  }
  memcpy(w->sum, p->edges + (size_t)k * HISTORY * PITCH, sizeof(REAL) * HISTORY * PITCH);
  w->base = p->edge_base[k];
  for (int h = 0; h < p->reach; h++) FN(load_halo_)(p, w, above, h, step, 0);
  FN(place_strips_)(&p->lattice, g, step, w->begin, w->end);
  FN(fill_costs_)(&p->lattice, g, step, w->begin, w->end, 0, w->cost);
  FN(dtw_tile_)(p, w, g, step);
}

/* The step into cell (i, j), at step t and lane of the tile in memory; -1: the path begins here. Of equal sums the longest
 * step wins, so the path is a short one. */
static int FN(step_into_)(const problem *p, int64_t i, int64_t j, int64_t t, int64_t lane) {
  const dalign_dtw_args *a = &p->args;
  const worker *w = &p->tracer;
  const REAL *cell = w->sum + (HISTORY + t) * PITCH + HALO + lane;
  const double cost = (double)w->cost[(lane / LANES * TILE_PITCH + t) * LANES + lane % LANES];
  int best_step = -1;
  double best = INFINITY;
  int64_t best_length = 0;
  if (i == 0 && (j == 0 || a->free_start)) best = cost - w->base;
  if (i == 0 && j == 0) return -1;
  for (int k = 0; k < a->steps; k++) {
    if (a->step_x[k] > i || a->step_y[k] > j) continue;
    const double sum = (double)cell[-p->offset[k]] + a->step_weights[k] * cost;
    const int64_t length = a->step_x[k] + a->step_y[k];
    if (sum < best || (sum == best && best_step >= 0 && length > best_length))
      best = sum, best_step = k, best_length = length;
  }
  return best_step;
}

typedef struct {
  int64_t i, j, length, *at; /* the path is written from its end towards lower addresses */
  int ended;
} FN(trace);

/* Follows the path through the group of its current cell. */
static void FN(trace_group_)(problem *p, FN(trace) * path, const FN(handed) * above) {
  const int64_t g = path->i / GROUP_ROWS;
  int64_t begin, end, lane = path->i % GROUP_ROWS;
  FN(group_steps_)(&p->lattice, g, &begin, &end);
  const int64_t last_step = path->j + lane;
  int64_t k = p->tiles ? (last_step - begin) / TILE_STEPS : FN(sweep_for_edges_)(p, g, above, last_step);
  for (; k >= 0 && !path->ended && path->i / GROUP_ROWS == g; k--) {
    const int64_t step = begin + k * TILE_STEPS;
    FN(restore_dtw_tile_)(p, g, above, k, step);
    while (path->i / GROUP_ROWS == g && path->j + path->i % GROUP_ROWS >= step) {
      lane = path->i % GROUP_ROWS;
      *--path->at = path->j;
      *--path->at = path->i;
      path->length++;
      const int taken = FN(step_into_)(p, path->i, path->j, path->j + lane - step, lane);
      path->ended = taken < 0;
      if (path->ended) return;
      path->i -= p->args.step_x[taken];
      path->j -= p->args.step_y[taken];
    }
  }
}

/* Rows under the groups between the last kept row above group g and g, up to the path's column. */
static void FN(fill_slots_)(problem *p, int64_t g, int64_t column) {
  worker *w = &p->tracer;
  const int64_t numbers = p->reach * p->lattice.m;
  for (int64_t k = 0; k < p->keep_every * numbers; k++) p->slots[k] = INFINITY; /* columns that no sweep comes to */
  for (int64_t b = g / p->keep_every * p->keep_every; b < g; b++) {
    const FN(handed) above = FN(rows_under_)(p, b - 1, p->slots + (b - 1 + p->keep_every) % p->keep_every * numbers);
    int64_t begin, end;
    FN(group_steps_)(&p->lattice, b, &begin, &end);
    end = FN(minimum_)(end, column + 2 * GROUP_ROWS + TILE_STEPS);
    for (int64_t step = begin; step < end; step += TILE_STEPS) {
      FN(enter_dtw_tile_)(p, w, &above, b, (step - begin) / TILE_STEPS, step);
      FN(fill_costs_)(&p->lattice, b, step, w->begin, w->end, 0, w->cost);
      FN(dtw_tile_)(p, w, b, step);
      FN(hand_rows_)(p, w, b, step, p->slots + b % p->keep_every * numbers);
    }
  }
}

/* Writes the path (L, 2) from its first cell on and its length; 0 where there is none. */
static void FN(trace_path_)(problem *p, int has_path) {
  const dalign_dtw_args *a = &p->args;
  const int64_t room = a->n + a->m - 1, numbers = p->reach * p->lattice.m;
  int64_t *path = a->path + p->item * room * 2;
  FN(trace) trace = {p->lattice.n - 1, p->end, 0, path + room * 2, !has_path};
  int64_t block = -1;
  while (!trace.ended) {
    const int64_t g = trace.i / GROUP_ROWS;
    if (!p->tiles && p->keep_every > 1 && g / p->keep_every != block)
      block = g / p->keep_every, FN(fill_slots_)(p, g, trace.j);
    const FN(handed) above = FN(rows_under_)(
        p, g - 1, p->keep_every > 1 ? p->slots + (g - 1 + p->keep_every) % p->keep_every * numbers : NULL);
    FN(trace_group_)(p, &trace, &above);
  }
  memmove(path, trace.at, sizeof(int64_t) * 2 * (size_t)trace.length);
  for (int64_t k = trace.length * 2; k < room * 2; k++) path[k] = -1;
  a->path_length[p->item] = trace.length;
}

/* ------------------------------------------------------------------------------------------------ open, work, close */

static int FN(steps_bad_)(const dalign_dtw_args *a) {
  if (a->steps < 1 || a->steps > DALIGN_DTW_STEPS) return 1;
  for (int k = 0; k < a->steps; k++) {
    if (a->step_x[k] < 0 || a->step_x[k] > DALIGN_DTW_REACH || a->step_y[k] < 0 || a->step_y[k] > DALIGN_DTW_REACH)
      return 1;
    if (a->step_x[k] + a->step_y[k] == 0 || !(a->step_weights[k] >= 0) || !(a->step_weights[k] < INFINITY)) return 1;
  }
  return 0;
}

static int FN(dtw_args_bad_)(const dalign_dtw_args *a) {
  if (a->batch < 0 || a->n < 1 || a->m < 1 || FN(steps_bad_)(a) || a->limit != a->limit) return 1;
  if (a->band != a->band || (a->band >= 0 && a->band < .5) || a->itakura != a->itakura ||
      (a->itakura > 0 && a->itakura < 1))
    return 1;
  if (!a->cost && (!a->x || !a->y || a->d < 0 || a->metric < 0 || a->metric > DALIGN_BCE)) return 1;
  return !a->value || (a->path && !a->path_length);
}

static int FN(dtw_item_bad_)(const dalign_dtw_args *a, int64_t b) {
  if (b < 0 || b >= a->batch) return 1;
  const int64_t n = FN(rows_of_)(a, b), m = FN(columns_of_)(a, b);
  if (n < 1 || n > a->n || m < 1 || m > a->m) return 1;
  if (a->cost || a->metric != DALIGN_NLL) return 0;
  const int64_t *labels = (const int64_t *)a->y + FN(y_of_)(a, b) * a->m;
  for (int64_t j = 0; j < m; j++)
    if (labels[j] < 0 || labels[j] >= a->d) return 1;
  return 0;
}

static void FN(set_steps_)(problem *p) {
  const dalign_dtw_args *a = &p->args;
  p->reach = FN(reach_of_)(a), p->history = 1, p->classic = FN(is_classic_)(a);
  for (int k = 0; k < a->steps; k++) {
    const int dx = (int)a->step_x[k], dy = (int)a->step_y[k];
    p->offset[k] = (dx + dy) * PITCH + dx;
    p->weight[k] = (REAL)a->step_weights[k];
    p->history = dx + dy > p->history ? dx + dy : p->history;
  }
}

static void FN(open_dtw_costs_)(problem *p, void *memory) {
  const dalign_dtw_args *a = &p->args;
  lattice_view *l = &p->lattice;
  const int64_t xi = FN(x_of_)(a, p->item), yi = FN(y_of_)(a, p->item);
  l->cost = NULL, l->given_f32 = DALIGN_F32, l->row_stride = a->m, l->cost_limit = (REAL)INFINITY;
  if (a->cost) {
    l->cost = (const REAL *)a->cost + p->item * a->n * a->m;
    return;
  }
  const void *y = a->metric == DALIGN_NLL ? (const void *)((const int64_t *)a->y + yi * a->m)
                                          : (const void *)((const REAL *)a->y + yi * a->m * a->d);
  if (FN(dalign_features_prepare)(&l->frames, a->metric, l->n, l->m, a->d, (const REAL *)a->x + xi * a->n * a->d, y,
                                  DALIGN_F32, 0, memory))
    atomic_store(&p->found_nan, 1);
}

static problem *FN(dtw_in_)(void *shared) {
  dalign_arena a = dalign_arena_over(shared);
  return dalign_arena_take(&a, sizeof(problem));
}

/* ------------------------------------------------------------------------------------------------ public */

/* Memory of one item of its own. */
static size_t FN(pair_bytes_)(const dalign_dtw_args *args) {
  problem p;
  dalign_arena a = dalign_arena_over(NULL);
  p.args = *args;
  p.keep_every = FN(choose_keep_every_of_path_)(args->n, args->m, FN(reach_of_)(args));
  dalign_arena_take(&a, sizeof(problem));
  FN(cut_dtw_)(&p, &a, args->n, args->m);
  const size_t frames =
      args->cost ? 0 : FN(dalign_features_bytes)(args->metric, args->n, args->m, args->d, 0) + DALIGN_ALIGNMENT;
  return dalign_arena_bytes(&a) + frames;
}

size_t FN(dalign_dtw_shared)(const dalign_dtw_args *args) {
  if (FN(dtw_args_bad_)(args)) return 0;
  const size_t pair = FN(pair_bytes_)(args), block = FN(suits_lanes_)(args) ? FN(lanes_bytes_)(args) : 0;
  return pair > block ? pair : block;
}

size_t FN(dalign_dtw_worker)(const dalign_dtw_args *args) {
  worker w;
  dalign_arena a = dalign_arena_over(NULL);
  (void)args;
  dalign_arena_take(&a, sizeof(worker));
  FN(cut_dtw_worker_)(&w, &a);
  return dalign_arena_bytes(&a);
}

dalign_status FN(dalign_dtw_open)(const dalign_dtw_args *args, int64_t item, void *shared) {
  if (FN(dtw_args_bad_)(args) || FN(dtw_item_bad_)(args, item)) return DALIGN_BAD_ARGUMENT;
  dalign_arena a = dalign_arena_over(shared);
  problem *p = dalign_arena_take(&a, sizeof(problem));
  lattice_view *l = &p->lattice;
  memset(p, 0, sizeof *p);
  p->args = *args, p->item = item, p->value = INFINITY;
  l->n = FN(rows_of_)(args, item), l->m = FN(columns_of_)(args, item);
  l->groups = FN(group_count_)(l->n);
  FN(set_steps_)(p);
  p->keep_every = FN(choose_keep_every_of_path_)(args->n, args->m, p->reach); /* the memory's, whatever the lengths */
  FN(cut_dtw_)(p, &a, args->n, args->m);
  FN(set_band_)(l, args->band, args->itakura);
  for (int64_t g = 0; g < l->groups; g++) atomic_store_explicit(&p->done[g], 0, memory_order_relaxed);
  FN(open_dtw_costs_)(p, dalign_arena_take(&a, 0));
  return DALIGN_OK;
}

void FN(dalign_dtw_work)(void *shared, void *memory) {
  problem *p = FN(dtw_in_)(shared);
  dalign_arena a = dalign_arena_over(memory);
  worker *w = dalign_arena_take(&a, sizeof(worker));
  FN(cut_dtw_worker_)(w, &a);
  while (!FN(dtw_stopped_)(p)) {
    const int64_t g = atomic_fetch_add_explicit(&p->next_unit, 1, memory_order_relaxed);
    if (g >= p->lattice.groups) return;
    FN(dtw_group_)(p, w, g);
  }
}

void FN(dalign_dtw_close)(void *shared) {
  problem *p = FN(dtw_in_)(shared);
  const int nan = atomic_load(&p->found_nan);
  const double value = nan ? NAN : atomic_load(&p->found_far) || p->value > p->args.limit ? INFINITY : p->value;
  ((REAL *)p->args.value)[p->item] = (REAL)value;
  if (p->args.path) FN(trace_path_)(p, value < INFINITY);
}

static dalign_status FN(dtw_item_)(const dalign_dtw_args *args, int64_t b, void *workspace) {
  const dalign_status status = FN(dalign_dtw_open)(args, b, workspace);
  if (status != DALIGN_OK) return status;
  FN(dalign_dtw_work)(workspace, (char *)workspace + FN(pair_bytes_)(args));
  FN(dalign_dtw_close)(workspace);
  return DALIGN_OK;
}

/* Items [begin, end) of a block that runs in lanes, and again those that lanes leave. */
static dalign_status FN(dtw_block_)(const dalign_dtw_args *args, lanes *l, int64_t begin, int64_t end,
                                    void *workspace) {
  for (int64_t b = begin; b < end; b++)
    if (FN(dtw_args_bad_)(args) || FN(dtw_item_bad_)(args, b)) return DALIGN_BAD_ARGUMENT;
  const unsigned left = FN(dtw_lanes_)(l, begin, end);
  for (int64_t b = begin; b < end && left; b++)
    if (left >> (b - begin) & 1) FN(dtw_item_)(args, b, workspace), l->n = 0; /* the band was in this memory */
  return DALIGN_OK;
}

dalign_status FN(dalign_dtw)(const dalign_dtw_args *args, int64_t begin, int64_t end, void *workspace) {
  lanes l;
  dalign_arena a = dalign_arena_over(workspace);
  const int suits = !FN(dtw_args_bad_)(args) && FN(suits_lanes_)(args);
  if (suits) FN(cut_lanes_)(&l, &a, args);
  dalign_status status = DALIGN_OK;
  for (int64_t b = begin, next; b < end && status == DALIGN_OK; b = next) {
    const int in_lanes = suits && FN(runs_in_lanes_)(args, b);
    next = in_lanes ? FN(minimum_)((b / LANES + 1) * LANES, end) : b + 1;
    status = in_lanes ? FN(dtw_block_)(args, &l, b, next, workspace) : FN(dtw_item_)(args, b, workspace);
    if (!in_lanes) l.n = 0;
  }
  return status;
}
