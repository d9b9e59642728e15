/* waves.h: a lattice of softmin, wave by wave: geometry and memory; waves_weights.h, waves_costs.h and waves_sweep.h are the
 * rest of it. Shared by the recursions of ddtw_body.h and dilate_body.h; included once per element type. See ddtw.c. */
#include "cost_tile.h"

#undef waves
#undef lanes_row
#define waves FN(waves_type)
#define lanes_row FN(lanes_row_type)

/* Scaled numbers of a wave; element k is lane k of the wave, wherever the memory begins. q: their tangents, where there are
 * any, with the same exponents. */
typedef struct {
  REAL *m, *e, *q;
} lanes_row;

typedef struct {
  ddtw_item it;
  const dalign_dilate_args *path; /* tangents, features, bands; NULL: none of them */
  waves_order order;
  double gamma;         /* of args, or what takes its place where doubles tell no paths apart */
  int64_t waves, width; /* of the item */
  int64_t back;         /* waves that a step looks back */
  int64_t block;        /* waves of a block, a multiple of LANES */
  int64_t blocks;       /* whose entering waves are kept: 1 when there is no way back */
  int64_t margin;       /* lanes beside those of a wave that are kept zero */
  int64_t pitch, ring_pitch;

  int steps, step[DALIGN_DDTW_STEPS]; /* those that fit into the lattice */
  int64_t step_back[DALIGN_DDTW_STEPS], step_over[DALIGN_DDTW_STEPS];
  int channel[DALIGN_DDTW_STEPS]; /* of a step: steps of equal weight and without blocked cells share one */
  int channels, class_of[DALIGN_DDTW_STEPS], masked[DALIGN_DDTW_STEPS]; /* of a channel: its weights' class */
  int classes, unit, by_wave; /* all weights 1; weights are fetched wave by wave */
  int64_t weight_length;
  REAL *class_weights,
      *allow; /* (steps, weight_length) or, by wave, (steps, pitch); allow is 0 in a blocked cell, else 1 */
  ddtw_weight_sums weights;

  double rate_exact;
  REAL rate, rate_low, cost_limit;
  lanes_row prefix;     /* P: (back + block, pitch) */
  REAL *cost;           /* (block, pitch) */
  REAL *slope;          /* derivatives in the costs, in the same place unless path functionals need both */
  REAL *penalty, *mass; /* (block, pitch) given ones, and their derivatives */
  lanes_row kept;       /* (blocks, back, pitch) waves that enter a block */
  double *kept_base;
  lanes_row ring; /* q of the adjoint: (channels, back + 1, ring_pitch) */
  features frames;
  void *frames_memory;
  REAL *tile;   /* of one strip, for costs and weights of frames */
  double reach; /* of the band: cells with |i (m-1) - j (n-1)| <= reach */
  double base;  /* of the block's P: exponents count from it */
  double ring_base;
  int64_t first, end, lane; /* of the block in memory: its waves, and its first lane */
  double sum_m, sum_e;      /* Z, what comes out at the ends */
  double sum_q;             /* its tangent, with Z's exponent */
  double mean_cost;
  int is_seen;   /* costs have been looked at */
  int64_t ready; /* the block that is in memory as the way there left it, or -1 */
  int is_trial;  /* the way back only shows whether the numbers fit */
  waves_fit fit;
} waves;

/* ------------------------------------------------------------------------------------------------ geometry */

/* Whether cell (i, t - i) of a diagonal lies in the band. */
static inline int FN(is_in_band_)(const waves *w, int64_t t, int64_t i) {
  const int64_t n = w->it.n, m = w->it.m, off = i * (m - 1) - (t - i) * (n - 1);
  return (double)(off < 0 ? -off : off) <= w->reach;
}

/* The first lane of a wave, in the band where there is one: of i (n + m - 2) >= t (n - 1) - reach. */
static inline int64_t FN(low_lane_)(const waves *w, int64_t t) {
  int64_t low = w->order == WAVES_DIAGONALS && t >= w->it.m ? t - w->it.m + 1 : 0;
  if (!(w->reach < INFINITY)) return low;
  const int64_t guess = (int64_t)(((double)t * (double)(w->it.n - 1) - w->reach) / (double)(w->it.n + w->it.m - 2)) - 1;
  if (guess > low) low = guess;
  const int64_t end = t < w->it.n ? t : w->it.n - 1;
  while (low <= end && !FN(is_in_band_)(w, t, low) && low * (w->it.m - 1) < (t - low) * (w->it.n - 1)) low++;
  return low;
}

static inline int64_t FN(high_lane_)(const waves *w, int64_t t) {
  int64_t high = w->order == WAVES_DIAGONALS && t < w->width ? t : w->width - 1;
  if (!(w->reach < INFINITY)) return high;
  const int64_t guess = (int64_t)(((double)t * (double)(w->it.n - 1) + w->reach) / (double)(w->it.n + w->it.m - 2)) + 2;
  if (guess < high) high = guess;
  const int64_t begin = t < w->it.m ? 0 : t - w->it.m + 1;
  while (high >= begin && !FN(is_in_band_)(w, t, high) && high * (w->it.m - 1) > (t - high) * (w->it.n - 1)) high--;
  return high;
}

static inline int64_t FN(down_)(int64_t lane) { return lane / LANES * LANES; }
static inline int64_t FN(up_)(int64_t lanes) { return (lanes + LANES - 1) / LANES * LANES; }

/* The vectors of a wave: lanes [begin, end). */
static inline int64_t FN(begin_)(const waves *w, int64_t t) { return FN(down_)(FN(low_lane_)(w, t)); }
static inline int64_t FN(end_)(const waves *w, int64_t t) { return FN(down_)(FN(high_lane_)(w, t)) + LANES; }

static inline int64_t FN(row_of_)(const waves *w, int64_t t, int64_t k) {
  return w->order == WAVES_COLUMNS ? k : w->order == WAVES_ROWS ? t : k;
}
static inline int64_t FN(column_of_)(const waves *w, int64_t t, int64_t k) {
  return w->order == WAVES_COLUMNS ? t : w->order == WAVES_ROWS ? k : t - k;
}

static inline int64_t FN(first_lane_of_block_)(const waves *w, int64_t first) {
  return first > w->back ? FN(begin_)(w, first - w->back) : 0;
}

static inline lanes_row FN(row_at_)(lanes_row r, int64_t at) {
  r.m += at, r.e += at;
  if (r.q) r.q += at;
  return r;
}

static inline lanes_row FN(prefix_row_)(const waves *w, int64_t t) {
  const int64_t at = (w->back + t - w->first) * w->pitch + w->margin - w->lane;
  return FN(row_at_)(w->prefix, at);
}

/* Wave t of an array (block, pitch). */
static inline REAL *FN(block_row_)(const waves *w, REAL *array, int64_t t) {
  return array + (t - w->first) * w->pitch + w->margin - w->lane;
}

static inline REAL *FN(cost_row_)(const waves *w, int64_t t) { return FN(block_row_)(w, w->cost, t); }

static inline lanes_row FN(ring_row_)(const waves *w, int channel, int64_t t) {
  const int64_t at = (channel * (w->back + 1) + t % (w->back + 1)) * w->ring_pitch + w->margin;
  return FN(row_at_)(w->ring, at);
}

/* ------------------------------------------------------------------------------------------------ sizes and memory */

/* Lanes of a block's row, between its margins. */
static int64_t FN(block_width_)(const dalign_ddtw_args *a, waves_order order, int64_t block, int64_t back) {
  const int64_t width = order == WAVES_ROWS ? a->m : a->n;
  const int64_t seen = order == WAVES_DIAGONALS ? ddtw_least_of(width, a->m + block + back) : width;
  return FN(up_)(seen) + 2 * LANES;
}

/* Blocks that stay in the second-level cache, or larger ones where all that is kept between them would outgrow them. */
static int64_t FN(block_waves_)(const dalign_ddtw_args *a, waves_order order, int64_t back, int64_t waves_in_all) {
  const int64_t row = 3 * (int64_t)sizeof(REAL) * FN(block_width_)(a, order, 64, back);
  int64_t block = DALIGN_WAVES_BLOCK_BYTES / row;
  if (block < back) block = back;
  while (9 * block * block < 2 * back * waves_in_all) block++;
  return FN(up_)(ddtw_least_of(block > 1 ? block : 1, waves_in_all));
}

static int FN(collect_steps_)(waves *w, const dalign_ddtw_args *a) {
  int64_t over = 0;
  w->back = 0, w->steps = 0;
  for (int s = 0; s < a->steps; s++) {
    if (a->step_x[s] >= a->n || a->step_y[s] >= a->m) continue;
    const int k = w->steps++;
    w->step[k] = s;
    w->step_over[k] = w->order == WAVES_ROWS ? a->step_y[s] : a->step_x[s];
    w->step_back[k] = w->order == WAVES_ROWS      ? a->step_x[s]
                      : w->order == WAVES_COLUMNS ? a->step_y[s]
                                                  : a->step_x[s] + a->step_y[s];
    if (w->step_back[k] > w->back) w->back = w->step_back[k];
    if (w->step_over[k] > over) over = w->step_over[k];
  }
  w->margin = FN(up_)((over > w->back ? over : w->back) + LANES);
  return w->steps;
}

/* Weights that do not change from wave to wave, but for a shift, are fetched once: (steps, weight_length). */
static void FN(lay_out_weights_)(waves *w, const dalign_ddtw_args *a) {
  const int along_x = a->weights && a->weight_strides[1], along_y = a->weights && a->weight_strides[2];
  w->by_wave = (along_x && along_y) || (w->order == WAVES_ROWS && along_x) || (w->order == WAVES_COLUMNS && along_y);
  const int64_t length = w->order == WAVES_ROWS || (w->order == WAVES_DIAGONALS && along_y) ? a->m : a->n;
  w->weight_length = w->by_wave ? w->pitch : FN(up_)(length) + 2 * LANES;
}

static lanes_row FN(cut_lanes_)(dalign_arena *arena, int64_t numbers, int with_tangents) {
  const size_t bytes = sizeof(REAL) * (size_t)numbers;
  lanes_row r = {dalign_arena_take(arena, bytes), dalign_arena_take(arena, bytes), NULL};
  if (with_tangents) r.q = dalign_arena_take(arena, bytes);
  return r;
}

static int FN(has_features_)(const waves *w) { return w->path && !w->path->lattice.cost; }

/* What only path functionals need. */
static void FN(cut_path_)(waves *w, const dalign_dilate_args *path, int way_back, dalign_arena *arena) {
  const dalign_ddtw_args *a = &path->lattice;
  const size_t block = sizeof(REAL) * (size_t)(w->block * w->pitch);
  w->penalty = path->penalty == DALIGN_PENALTY_GIVEN ? dalign_arena_take(arena, block) : NULL;
  w->mass = path->grad_omega ? dalign_arena_take(arena, block) : NULL;
  if (way_back) w->slope = dalign_arena_take(arena, block);
  if (!FN(has_features_)(w)) return;
  w->frames_memory = dalign_arena_take(arena, FN(dalign_features_bytes)(path->metric, a->n, a->m, path->d, way_back));
  w->tile = dalign_arena_take(arena, sizeof(REAL) * (size_t)((TILE_PITCH + w->block + 2 * LANES) * LANES));
}

static void FN(cut_waves_)(waves *w, const dalign_ddtw_args *a, const dalign_dilate_args *path, int way_back,
                           dalign_arena *arena) {
  w->path = path;
  /* Costs of frames come by diagonals, and a band is cut out of them. */
  const int is_cut = path && (!a->cost || path->band >= 0);
  w->order = is_cut ? WAVES_DIAGONALS : waves_choose_order(a);
  FN(collect_steps_)(w, a);
  const int64_t in_all = w->order == WAVES_ROWS ? a->n : w->order == WAVES_COLUMNS ? a->m : a->n + a->m - 1;
  w->block = FN(block_waves_)(a, w->order, w->back, in_all);
  w->blocks = way_back ? (in_all + w->block - 1) / w->block : 1;
  w->pitch = FN(block_width_)(a, w->order, w->block, w->back) + 2 * w->margin;
  w->ring_pitch = FN(up_)(w->order == WAVES_ROWS ? a->m : a->n) + LANES + 2 * w->margin;
  FN(lay_out_weights_)(w, a);
  const int64_t ring = way_back ? (w->steps + 1) * (w->back + 1) * w->ring_pitch : 0;
  const size_t weights = sizeof(REAL) * (size_t)(a->steps * w->weight_length);
  w->prefix = FN(cut_lanes_)(arena, (w->back + w->block) * w->pitch, path != NULL);
  w->slope = w->cost = dalign_arena_take(arena, sizeof(REAL) * (size_t)(w->block * w->pitch));
  w->kept = FN(cut_lanes_)(arena, w->blocks * w->back * w->pitch, path != NULL);
  w->kept_base = dalign_arena_take(arena, sizeof(double) * (size_t)w->blocks);
  w->ring = FN(cut_lanes_)(arena, ring, path != NULL);
  w->class_weights = dalign_arena_take(arena, weights);
  w->allow = dalign_arena_take(arena, weights);
  w->weights = ddtw_cut_weight_sums(a, arena);
  if (path) FN(cut_path_)(w, path, way_back, arena);
}

#include "waves_weights.h"

#include "waves_costs.h"

#include "waves_sweep.h"
