/* waves.h: a lattice of softmin, wave by wave: geometry, memory, weights, costs in and out, ends, and what passes from block
 * to block. Shared by the recursions of ddtw_body.h and dilate_body.h; included once per element type. See ddtw.c. */
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
  REAL *slope;          /* derivatives in the costs, in the same place unless features need both */
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
  int is_trial; /* the way back only shows whether the numbers fit */
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
  if (!FN(has_features_)(w)) return;
  w->frames_memory = dalign_arena_take(arena, FN(dalign_features_bytes)(path->metric, a->n, a->m, path->d, way_back));
  w->tile = dalign_arena_take(arena, sizeof(REAL) * (size_t)((TILE_PITCH + w->block + 2 * LANES) * LANES));
  if (way_back) w->slope = dalign_arena_take(arena, block);
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

/* ------------------------------------------------------------------------------------------------ weights */

/* Element of the fetched weights where lane 0 of wave t lies. */
static inline int64_t FN(weight_shift_)(const waves *w, int64_t t) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->by_wave) return w->margin - w->lane;
  const int turned = w->order == WAVES_DIAGONALS && a->weights && a->weight_strides[2];
  return LANES + (turned ? w->it.m - 1 - t : 0);
}

static inline const REAL *FN(weights_row_)(const waves *w, const REAL *array, int which, int64_t t) {
  return array + which * w->weight_length + FN(weight_shift_)(w, t);
}

static inline void FN(set_weight_)(waves *w, int which, int64_t at, double weight) {
  w->class_weights[which * w->weight_length + at] = weight < INFINITY ? (REAL)weight : -1;
  w->allow[which * w->weight_length + at] = weight < INFINITY;
}

/* Weights of every fitting step, blocked ones as -1; in the order of lanes, so backwards where columns run down the lanes
 * of a diagonal. */
static void FN(fetch_weights_)(waves *w) {
  const int64_t *stride = w->it.args->weight_strides;
  const int along_x = w->it.args->weights && stride[1], along_y = w->it.args->weights && stride[2];
  const int turned = w->order == WAVES_DIAGONALS && along_y;
  const int64_t count = along_x ? w->it.n : along_y ? w->it.m : w->weight_length - 2 * LANES;
  for (int k = 0; k < w->steps; k++) {
    for (int64_t at = 0; at < w->weight_length; at++) FN(set_weight_)(w, k, at, 1);
    for (int64_t at = 0; at < count; at++) {
      const int64_t index = turned ? w->it.m - 1 - at : at;
      FN(set_weight_)(w, k, LANES + at, ddtw_weight(&w->it, along_x ? index : 0, along_y ? index : 0, w->step[k]));
    }
  }
}

/* Whether two steps have the same weights, but for blocked cells. */
static int FN(same_weights_)(const waves *w, const REAL *a, const REAL *b) {
  int same = 1;
  for (int64_t at = LANES; at < w->weight_length - LANES; at++) same &= a[at] < 0 || b[at] < 0 || a[at] == b[at];
  return same;
}

/* Steps of the same weights become one class: its exponentials are computed once. */
static void FN(sort_classes_)(waves *w) {
  int of_step[DALIGN_DDTW_STEPS];
  w->classes = 0;
  for (int k = 0; k < w->steps; k++) {
    const REAL *own = w->class_weights + k * w->weight_length;
    int g = 0;
    while (g < w->classes && !FN(same_weights_)(w, w->class_weights + g * w->weight_length, own)) g++;
    REAL *class = w->class_weights + g * w->weight_length;
    for (int64_t at = 0; at < w->weight_length; at++)
      class[at] = g < w->classes && class[at] >= 0 ? class[at] : own[at];
    if (g == w->classes) w->classes++;
    of_step[k] = g;
  }
  w->channels = 0;
  for (int k = 0; k < w->steps; k++) {
    int masked = 0, c = 0;
    for (int64_t at = 0; at < w->weight_length; at++) masked |= w->allow[k * w->weight_length + at] == 0;
    while (c < w->channels && (masked || w->masked[c] || w->class_of[c] != of_step[k])) c++;
    if (c == w->channels) {
      w->channels++;
      w->class_of[c] = of_step[k];
      w->masked[c] = masked;
      if (c != k) /* a channel's row never lies behind its step's */
        memcpy(w->allow + c * w->weight_length, w->allow + k * w->weight_length,
               sizeof(REAL) * (size_t)w->weight_length);
    }
    w->channel[k] = c;
  }
}

static void FN(close_classes_)(waves *w, double *largest) {
  w->unit = w->classes <= 1;
  for (int g = 0; g < w->classes; g++)
    for (int64_t at = LANES; at < w->weight_length - LANES; at++) {
      REAL *weight = w->class_weights + g * w->weight_length + at;
      if (*weight > *largest) *largest = *weight;
      if (*weight < 0)
        *weight = w->unit ? 1 : 0; /* a blocked cell's, which counts for nothing */
      else
        w->unit &= *weight == 1;
    }
}

/* All weights of one item that stay, or where they come wave by wave, the largest of all. */
static double FN(prepare_weights_)(waves *w) {
  double largest = 1;
  if (!w->by_wave) {
    FN(fetch_weights_)(w);
    FN(sort_classes_)(w);
    FN(close_classes_)(w, &largest);
    return largest;
  }
  w->classes = w->channels = w->steps, w->unit = 0;
  for (int k = 0; k < w->steps; k++) w->channel[k] = w->class_of[k] = k, w->masked[k] = 1;
  const int64_t rows = w->it.args->weight_strides[1] ? w->it.n : 1,
                columns = w->it.args->weight_strides[2] ? w->it.m : 1;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      for (int k = 0; k < w->steps; k++) {
        const double weight = ddtw_weight(&w->it, i, j, w->step[k]);
        if (weight < INFINITY && weight > largest) largest = weight;
      }
  return largest;
}

static void FN(fetch_weights_of_wave_)(waves *w, int64_t t) {
  if (!w->by_wave) return;
  const int64_t low = FN(low_lane_)(w, t), high = FN(high_lane_)(w, t), shift = FN(weight_shift_)(w, t);
  for (int k = 0; k < w->steps; k++) {
    REAL *weights = w->class_weights + k * w->weight_length + shift, *allow = w->allow + k * w->weight_length + shift;
    for (int64_t lane = FN(begin_)(w, t); lane < FN(end_)(w, t); lane++) {
      const int inside = lane >= low && lane <= high;
      const double weight =
          inside ? ddtw_weight(&w->it, FN(row_of_)(w, t, lane), FN(column_of_)(w, t, lane), w->step[k]) : 0;
      weights[lane] = weight < INFINITY ? (REAL)weight : 0;
      allow[lane] = weight < INFINITY;
    }
  }
}

/* ------------------------------------------------------------------------------------------------ lattices in and out */

/* An array (batch, n, m) of the caller, and what stands for it outside the lattice. */
typedef struct {
  const void *array;
  int64_t begin; /* the item's first element */
  REAL outside;
} FN(lattice_in);

static inline int64_t FN(cell_of_)(const waves *w, int64_t begin, int64_t i, int64_t j) {
  return begin + i * w->it.args->m + j;
}

/* count numbers of row i from column j on. */
static void FN(copy_in_)(const waves *w, FN(lattice_in) in, int64_t i, int64_t j, int64_t count, REAL *out) {
  const int64_t from = j < 0 ? ddtw_least_of(-j, count) : 0;
  const int64_t to = i < w->it.n && w->it.m - j > from ? ddtw_least_of(w->it.m - j, count) : from;
  for (int64_t x = 0; x < from; x++) out[x] = in.outside;
  for (int64_t x = to; x < count; x++) out[x] = in.outside;
  if (to <= from) return;
  const int64_t at = FN(cell_of_)(w, in.begin, i, j);
  if (w->it.is_float) {
    const float *numbers = (const float *)in.array + at;
    for (int64_t x = from; x < to; x++) out[x] = (REAL)numbers[x];
  } else {
    const double *numbers = (const double *)in.array + at;
    for (int64_t x = from; x < to; x++) out[x] = (REAL)numbers[x];
  }
}

/* The other way: numbers that lie inside the lattice, into an array (batch, n, m). */
static void FN(copy_out_)(const waves *w, void *array, int64_t i, int64_t j, int64_t count, const REAL *slopes) {
  const int64_t from = j < 0 ? -j : 0, to = ddtw_least_of(w->it.m - j, count);
  if (i >= w->it.n || to <= from) return;
  const int64_t at = ddtw_cell(&w->it, i, j);
  if (w->it.is_float) {
    float *out = (float *)array + at;
    for (int64_t x = from; x < to; x++) out[x] = (float)slopes[x];
  } else {
    double *out = (double *)array + at;
    for (int64_t x = from; x < to; x++) out[x] = (double)slopes[x];
  }
}

/* Whether a whole vector of row i from column j on lies in the lattice and is of this element type. */
static inline int FN(is_plain_segment_)(const waves *w, int64_t i, int64_t j) {
  return w->it.is_float == DALIGN_F32 && i < w->it.n && j >= 0 && j + LANES <= w->it.m;
}

static inline vec FN(load_segment_)(const waves *w, FN(lattice_in) in, int64_t i, int64_t j) {
  if (FN(is_plain_segment_)(w, i, j)) return v_loadu((const REAL *)in.array + FN(cell_of_)(w, in.begin, i, j));
  REAL numbers[LANES];
  FN(copy_in_)(w, in, i, j, LANES, numbers);
  return v_loadu(numbers);
}

static inline void FN(store_segment_)(const waves *w, void *array, int64_t i, int64_t j, int64_t count, vec slopes) {
  if (count >= LANES && FN(is_plain_segment_)(w, i, j)) {
    v_storeu((REAL *)array + ddtw_cell(&w->it, i, j), slopes);
    return;
  }
  REAL numbers[LANES];
  v_storeu(numbers, slopes);
  FN(copy_out_)(w, array, i, j, ddtw_least_of(count, LANES), numbers);
}

/* Column of lane k's cell in wave t. */
static inline int64_t FN(turned_column_)(const waves *w, int64_t t, int64_t k) {
  return w->order == WAVES_DIAGONALS ? t - k : t;
}

/* The columns of LANES rows that the block will need of them, into the cache: rows of 2^k bytes share its sets, so what the
 * processor fetches by itself does not stay. */
static inline void FN(fetch_ahead_)(const waves *w, const void *array, int64_t begin, int64_t k) {
  const size_t size = w->it.is_float ? sizeof(float) : sizeof(double);
  for (int r = 0; r < LANES && k + r < w->it.n; r++) {
    int64_t j = FN(turned_column_)(w, w->first, k + r), last = ddtw_least_of(j + w->end - w->first, w->it.m) - 1;
    if (j < 0) j = 0;
    if (last < j) continue;
    const char *byte = (const char *)array + (size_t)FN(cell_of_)(w, begin, k + r, j) * size;
    for (const char *end = byte + (size_t)(last - j) * size; byte < end; byte += 64) __builtin_prefetch(byte);
    __builtin_prefetch((const char *)array + (size_t)FN(cell_of_)(w, begin, k + r, last) * size);
  }
}

/* Whether any of waves [t, t + LANES) of the block has one of lanes [k, k + LANES). */
static inline int FN(is_live_tile_)(const waves *w, int64_t t, int64_t k) {
  return k <= FN(high_lane_)(w, ddtw_least_of(t + LANES, w->end) - 1) && k + LANES > FN(low_lane_)(w, t);
}

/* LANES rows of LANES columns at a time, turned so that the lanes are rows. */
static void FN(load_turned_)(const waves *w, FN(lattice_in) in, REAL *array) {
  vec tile[LANES];
  const int64_t from = FN(begin_)(w, w->first), to = FN(end_)(w, w->end - 1);
  for (int64_t k = from; k < to; k += LANES) {
    FN(fetch_ahead_)(w, in.array, in.begin, k + LANES);
    for (int64_t t = w->first; t < w->end; t += LANES) {
      if (!FN(is_live_tile_)(w, t, k)) continue;
      for (int r = 0; r < LANES; r++) tile[r] = FN(load_segment_)(w, in, k + r, FN(turned_column_)(w, t, k + r));
      v_transpose(tile);
      for (int x = 0; x < LANES; x++) v_store(FN(block_row_)(w, array, t + x) + k, tile[x]);
    }
  }
}

static void FN(unload_turned_)(const waves *w, REAL *array, void *out) {
  vec tile[LANES];
  const int64_t from = FN(begin_)(w, w->first), to = FN(end_)(w, w->end - 1);
  for (int64_t k = from; k < to; k += LANES) {
    FN(fetch_ahead_)(w, out, ddtw_cell(&w->it, 0, 0), k + LANES);
    for (int64_t t = w->first; t < w->end; t += LANES) {
      if (!FN(is_live_tile_)(w, t, k)) continue;
      for (int x = 0; x < LANES; x++) tile[x] = v_load(FN(block_row_)(w, array, t + x) + k);
      v_transpose(tile);
      for (int r = 0; r < LANES; r++)
        FN(store_segment_)(w, out, k + r, FN(turned_column_)(w, t, k + r), w->end - t, tile[r]);
    }
  }
}

static void FN(load_lattice_)(const waves *w, FN(lattice_in) in, REAL *array) {
  if (w->order != WAVES_ROWS) {
    FN(load_turned_)(w, in, array);
    return;
  }
  for (int64_t t = w->first; t < w->end; t++) FN(copy_in_)(w, in, t, 0, FN(up_)(w->it.m), FN(block_row_)(w, array, t));
}

static void FN(unload_lattice_)(const waves *w, REAL *array, void *out) {
  if (w->order != WAVES_ROWS) {
    FN(unload_turned_)(w, array, out);
    return;
  }
  for (int64_t t = w->first; t < w->end; t++) FN(copy_out_)(w, out, t, 0, w->it.m, FN(block_row_)(w, array, t));
}

/* ------------------------------------------------------------------------------------------------ costs of frames
 *
 * Lane r of strip s of cost_tile.h has column c - r at step c: wave t of the diagonals, for t = c + s LANES. */

/* Steps of the block in which the strip has a column in the lattice. */
static int64_t FN(first_step_)(const waves *w, int64_t k) { return w->first > k ? w->first - k : 0; }
static int64_t FN(end_step_)(const waves *w, int64_t k) { return ddtw_least_of(w->end - k, w->it.m + LANES - 1); }

static void FN(load_frames_)(const waves *w) {
  for (int64_t k = FN(begin_)(w, w->first); k < FN(end_)(w, w->end - 1); k += LANES)
    for (int64_t c = FN(first_step_)(w, k); c < FN(end_step_)(w, k); c += TILE_STEPS) {
      const int begin = 0, count = (int)ddtw_least_of(FN(end_step_)(w, k) - c, TILE_STEPS);
      FN(dalign_cost_tile)(&w->frames, k / LANES, 1, c, &begin, &count, w->tile);
      for (int x = 0; x < count; x++) v_store(FN(cost_row_)(w, c + x + k) + k, v_load(w->tile + x * LANES));
    }
}

/* Weights of the block's steps of one strip, zeros around, into the gradients of the frames. */
static void FN(unload_strip_)(waves *w, int64_t k) {
  const int64_t from = FN(first_step_)(w, k), to = FN(end_step_)(w, k);
  const int64_t j_begin = from < LANES ? 0 : from - LANES + 1, j_end = ddtw_least_of(to, w->it.m);
  if (to <= from || j_end <= j_begin) return;
  for (int64_t c = j_begin; c < j_end + LANES - 1; c++) {
    REAL *weights = w->tile + (c - j_begin) * LANES;
    const int is_inside = c >= from && c < to;
    v_store(weights, is_inside ? v_load(FN(block_row_)(w, w->slope, c + k) + k) : v_zero());
    if (is_inside) FN(dalign_cost_weights)(&w->frames, FN(cost_row_)(w, c + k) + k, weights, LANES);
  }
  FN(dalign_cost_adjoint_tile)(&w->frames, k / LANES, j_begin, j_end, w->tile);
}

static void FN(unload_frames_)(waves *w) {
  for (int64_t k = FN(begin_)(w, w->first); k < FN(end_)(w, w->end - 1); k += LANES)
    if (k < w->it.n) FN(unload_strip_)(w, k);
}

/* ------------------------------------------------------------------------------------------------ a block */

/* Why a cost is not plain: NaN and -inf spoil the item, others are too large for this element type. */
static void FN(look_at_cost_)(waves *w, vec c) {
  REAL numbers[LANES];
  v_storeu(numbers, c);
  for (int r = 0; r < LANES; r++)
    if (!(numbers[r] > -(REAL)INFINITY))
      w->fit = WAVES_NAN;
    else if (numbers[r] < (REAL)INFINITY && w->fit == WAVES_FIT &&
             !((numbers[r] < 0 ? -numbers[r] : numbers[r]) < w->cost_limit))
      w->fit = WAVES_TOO_FAR;
}

/* +inf in the lanes of the first and the last vector that the wave has not. */
static void FN(close_off_)(const waves *w, int64_t t) {
  REAL *row = FN(cost_row_)(w, t);
  const int64_t low = FN(low_lane_)(w, t), high = FN(high_lane_)(w, t);
  for (int64_t k = FN(begin_)(w, t); k < low; k++) row[k] = (REAL)INFINITY;
  for (int64_t k = high + 1; k < FN(end_)(w, t); k++) row[k] = (REAL)INFINITY;
}

static void FN(check_costs_)(waves *w) {
  const int is_open = FN(has_features_)(w) || w->reach < INFINITY;
  const vec limit = v_set1(w->cost_limit);
  for (int64_t t = w->first; t < w->end; t++) {
    if (is_open) FN(close_off_)(w, t);
    const REAL *row = FN(cost_row_)(w, t);
    for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
      const vec c = v_load(row + k);
      if (!v_all_plain(c, limit)) FN(look_at_cost_)(w, c);
    }
  }
}

static FN(lattice_in) FN(given_penalty_)(const waves *w) {
  const FN(lattice_in) in = {w->path->omega, w->it.item * w->path->omega_stride, 0};
  return in;
}

static void FN(enter_block_)(waves *w, int64_t block) {
  w->first = block * w->block;
  w->end = ddtw_least_of(w->first + w->block, w->waves);
  w->lane = FN(first_lane_of_block_)(w, w->first);
  if (FN(has_features_)(w)) {
    FN(load_frames_)(w);
  } else {
    const FN(lattice_in) in = {w->it.args->cost, ddtw_cell(&w->it, 0, 0), (REAL)INFINITY};
    FN(load_lattice_)(w, in, w->cost);
  }
  FN(check_costs_)(w);
  if (w->path && w->penalty) FN(load_lattice_)(w, FN(given_penalty_)(w), w->penalty);
}

/* Zeros in lanes of the block that a wave has not: cells outside the band, which tiles carry along. */
static void FN(clear_outside_)(const waves *w, REAL *array) {
  const int64_t from = FN(begin_)(w, w->first), to = FN(end_)(w, w->end - 1);
  for (int64_t t = w->first; t < w->end; t++) {
    REAL *row = FN(block_row_)(w, array, t);
    for (int64_t k = from; k < FN(begin_)(w, t); k += LANES) v_store(row + k, v_zero());
    for (int64_t k = FN(end_)(w, t); k < to; k += LANES) v_store(row + k, v_zero());
  }
}

static void FN(unload_block_)(waves *w) {
  if (w->reach < INFINITY) FN(clear_outside_)(w, w->slope);
  if (w->reach < INFINITY && w->path->grad_omega) FN(clear_outside_)(w, w->mass);
  if (w->it.args->grad_cost) FN(unload_lattice_)(w, w->slope, w->it.args->grad_cost);
  if (!w->path) return;
  if (w->mass) FN(unload_lattice_)(w, w->mass, w->path->grad_omega);
  if (w->path->grad_x || w->path->grad_y) FN(unload_frames_)(w);
}

/* ------------------------------------------------------------------------------------------------ ends */

/* Lanes [low, high] of a wave outside which no path starts, or ends. */
typedef struct {
  int64_t low, high;
} FN(span);

static void FN(widen_)(const waves *w, FN(span) * s, int64_t t, int64_t i, int64_t j) {
  if (i < 0 || j < 0 || i >= w->it.n || j >= w->it.m) return;
  const int64_t wave = w->order == WAVES_ROWS ? i : w->order == WAVES_COLUMNS ? j : i + j;
  const int64_t lane = w->order == WAVES_ROWS ? j : i;
  if (wave != t) return;
  if (lane < s->low) s->low = lane;
  if (lane > s->high) s->high = lane;
}

/* The first and the last cell in wave t of a side of the lattice: `count` cells along x in column j, from row i on by sign. */
static void FN(widen_by_side_)(const waves *w, FN(span) * s, int64_t t, const dalign_ends *ends, int is_end) {
  const int64_t i = is_end ? w->it.n - 1 : 0, j = is_end ? w->it.m - 1 : 0, sign = is_end ? -1 : 1;
  const int64_t along_x = ddtw_least_of(ends->along_x, w->it.n), along_y = ddtw_least_of(ends->along_y, w->it.m);
  if (along_x > 0) {
    FN(widen_)(w, s, t, i, j);
    FN(widen_)(w, s, t, i + sign * (along_x - 1), j);
    const int64_t met =
        w->order == WAVES_ROWS ? t : t - j; /* the row of column j that this wave meets, but by columns */
    if (w->order != WAVES_COLUMNS && met * sign >= i * sign && (met - i) * sign < along_x) FN(widen_)(w, s, t, met, j);
  }
  if (along_y > 0) {
    FN(widen_)(w, s, t, i, j);
    FN(widen_)(w, s, t, i, j + sign * (along_y - 1));
    const int64_t met = w->order == WAVES_COLUMNS ? t : t - i;
    if (w->order != WAVES_ROWS && met * sign >= j * sign && (met - j) * sign < along_y) FN(widen_)(w, s, t, i, met);
  }
}

static FN(span) FN(span_)(const waves *w, int64_t t, const dalign_ends *ends, int is_end) {
  FN(span) s = {FN(low_lane_)(w, t), FN(high_lane_)(w, t)};
  if (ends->cost) return s;
  s.low = INT64_MAX, s.high = -1;
  FN(widen_by_side_)(w, &s, t, ends, is_end);
  return s;
}

static inline int FN(meets_)(FN(span) s, int64_t k) { return s.high >= k && s.low < k + LANES; }

/* exp(-cost / gamma) as m 2^e. */
static double FN(boltzmann_)(const waves *w, double cost, double *e) {
  const double power = cost * w->rate_exact, whole = nearbyint(power);
  *e = whole;
  return exp2(fma(cost, w->rate_exact, -whole));
}

/* The factor exp(-(cost of starting or ending) / gamma) in the lanes of a vector, its exponents from base on. */
static scaled FN(end_factors_)(waves *w, int64_t t, int64_t k, int is_end, double base) {
  REAL m[LANES], e[LANES];
  for (int r = 0; r < LANES; r++) {
    m[r] = 0, e[r] = SCALED_NONE;
    if (k + r < FN(low_lane_)(w, t) || k + r > FN(high_lane_)(w, t)) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    const double cost = is_end ? ddtw_end(&w->it, i, j) : ddtw_start(&w->it, i, j);
    if (cost == INFINITY) continue;
    double exponent;
    m[r] = (REAL)FN(boltzmann_)(w, cost, &exponent);
    exponent -= base;
    if (!(fabs(exponent) < WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = isnan(cost) ? WAVES_NAN : WAVES_TOO_FAR;
    e[r] = (REAL)exponent;
  }
  scaled s = {v_loadu(m), v_loadu(e)};
  return s;
}

/* ------------------------------------------------------------------------------------------------ a wave */

DALIGN_INLINE scaled FN(load_lanes_)(lanes_row r, int64_t k) {
  scaled s = {v_loadu(r.m + k), v_loadu(r.e + k)};
  return s;
}

DALIGN_INLINE void FN(store_lanes_)(lanes_row r, int64_t k, scaled s) {
  v_store(r.m + k, s.m);
  v_store(r.e + k, s.e);
}

static void FN(clear_lanes_)(lanes_row r, int64_t from, int64_t to) {
  for (int64_t k = from; k < to; k += LANES) FN(store_lanes_)(r, k, scaled_zero());
  for (int64_t k = from; r.q && k < to; k += LANES) v_store(r.q + k, v_zero());
}

static void FN(clear_margins_)(const waves *w, lanes_row r, int64_t t) {
  FN(clear_lanes_)(r, FN(begin_)(w, t) - w->margin, FN(begin_)(w, t));
  FN(clear_lanes_)(r, FN(end_)(w, t), FN(end_)(w, t) + w->margin);
}

/* Numbers not normalised. A NaN exponent comes from a blocked cell, whose mantissa is 0. */
DALIGN_INLINE scaled FN(product_)(scaled a, scaled b) {
  scaled s = {v_mul(a.m, b.m), v_max(v_add(a.e, b.e), v_set1(SCALED_NONE))};
  return s;
}

DALIGN_INLINE scaled FN(sum_)(const scaled *terms, int count) {
  vec e = v_set1(SCALED_NONE), m = v_zero();
  for (int k = 0; k < count; k++) e = v_max(terms[k].e, e);
  for (int k = 0; k < count; k++) m = v_add(m, v_ldexp(terms[k].m, v_sub(terms[k].e, e)));
  scaled s = {m, e};
  return s;
}

/* exp(-w c / gamma). */
DALIGN_INLINE scaled FN(weighted_exp2_)(const waves *w, vec c, vec weight) {
  const vec rate = v_mul(weight, v_set1(w->rate));
  const vec rest = v_fma(weight, v_set1(w->rate), v_sub(v_zero(), rate));
  return exp2_split(c, rate, v_muladd(weight, v_set1(w->rate_low), rest));
}

DALIGN_INLINE scaled FN(start_)(waves *w, int64_t t, int64_t k, vec c) {
  const scaled factor = FN(end_factors_)(w, t, k, 0, w->base);
  return FN(product_)(factor, exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)));
}

/* What is the same for all vectors of a wave. */
typedef struct {
  lanes_row from[DALIGN_DDTW_STEPS];
  const REAL *weights[DALIGN_DDTW_STEPS], *allow[DALIGN_DDTW_STEPS]; /* of a class; of a channel, NULL: none blocked */
} FN(wave);

static void FN(open_wave_)(waves *w, int64_t t, FN(wave) * v) {
  FN(fetch_weights_of_wave_)(w, t);
  for (int k = 0; k < w->steps; k++) {
    v->from[k] = FN(row_at_)(FN(prefix_row_)(w, t - w->step_back[k]), -w->step_over[k]);
  }
  for (int g = 0; g < w->classes; g++) v->weights[g] = FN(weights_row_)(w, w->class_weights, g, t);
  for (int c = 0; c < w->channels; c++) v->allow[c] = w->masked[c] ? FN(weights_row_)(w, w->allow, c, t) : NULL;
}

/* P before step k, 0 where the step is blocked. */
DALIGN_INLINE scaled FN(before_)(const waves *w, const FN(wave) * v, int step, int64_t k) {
  scaled p = FN(load_lanes_)(v->from[step], k);
  const REAL *allow = v->allow[w->channel[step]];
  if (allow) {
    const vec open = v_loadu(allow + k), bar = v_mul(v_sub(open, v_set1(1)), v_set1(-SCALED_NONE));
    p.m = v_mul(p.m, open);
    p.e = v_add(p.e, bar); /* so that it is not the largest, to which sums are brought */
  }
  return p;
}

/* ------------------------------------------------------------------------------------------------ from block to block */

static REAL FN(largest_lane_)(vec v) {
  REAL lanes[LANES], largest = SCALED_NONE;
  v_storeu(lanes, v);
  for (int r = 0; r < LANES; r++) largest = lanes[r] > largest ? lanes[r] : largest;
  return largest;
}

/* Exponents of a row's lanes less `base`; the largest distance from it among numbers that are not 0. */
static REAL FN(rebase_)(lanes_row r, int64_t from, int64_t to, REAL base) {
  vec distance = v_zero();
  for (int64_t k = from; k < to; k += LANES) {
    const vec e = v_loadu(r.e + k), moved = v_sub(e, v_set1(base));
    distance = v_max(v_abs(v_keep_below(moved, v_set1(SCALED_NONE / 2), e)), distance);
    v_storeu(r.e + k, moved);
  }
  return FN(largest_lane_)(distance);
}

static REAL FN(largest_exponent_)(lanes_row r, int64_t from, int64_t to) {
  vec largest = v_set1(SCALED_NONE);
  for (int64_t k = from; k < to; k += LANES) largest = v_max(v_loadu(r.e + k), largest);
  return FN(largest_lane_)(largest);
}

static inline lanes_row FN(kept_row_)(const waves *w, int64_t slot, int64_t wave, int64_t first_lane) {
  return FN(row_at_)(w->kept, (slot * w->back + wave) * w->pitch + w->margin - first_lane);
}

/* The last waves of the block in memory, as the next one finds them: exponents count from the largest among them. */
static void FN(keep_waves_)(waves *w, int64_t block) {
  const int64_t slot = w->blocks > 1 ? block + 1 : 0, lane = FN(first_lane_of_block_)(w, w->end);
  REAL base = SCALED_NONE, farthest = 0;
  for (int64_t x = 0; x < w->back; x++) {
    const int64_t t = w->end - w->back + x;
    const REAL largest = FN(largest_exponent_)(FN(prefix_row_)(w, t), FN(begin_)(w, t), FN(end_)(w, t));
    base = largest > base ? largest : base;
  }
  if (base <= SCALED_NONE / 2) base = 0;
  for (int64_t x = 0; x < w->back; x++) {
    const int64_t t = w->end - w->back + x, from = FN(begin_)(w, t) - w->margin,
                  count = FN(end_)(w, t) + w->margin - from;
    const lanes_row out = FN(kept_row_)(w, slot, x, lane), in = FN(prefix_row_)(w, t);
    memcpy(out.m + from, in.m + from, sizeof(REAL) * (size_t)count);
    memcpy(out.e + from, in.e + from, sizeof(REAL) * (size_t)count);
    if (in.q) memcpy(out.q + from, in.q + from, sizeof(REAL) * (size_t)count);
    const REAL distance = FN(rebase_)(out, from, from + count, base);
    farthest = distance > farthest ? distance : farthest;
  }
  w->kept_base[slot] = w->base + (double)base;
  if (!(farthest < (REAL)WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = WAVES_TOO_FAR;
}

static void FN(restore_waves_)(waves *w, int64_t block) {
  const int64_t slot = w->blocks > 1 ? block : 0;
  const size_t bytes = sizeof(REAL) * (size_t)(w->back * w->pitch);
  const lanes_row from = FN(kept_row_)(w, slot, 0, w->margin);
  memcpy(w->prefix.m, from.m, bytes);
  memcpy(w->prefix.e, from.e, bytes);
  if (from.q) memcpy(w->prefix.q, from.q, bytes);
  w->base = w->kept_base[slot];
}

/* Before the first wave there is nothing. */
static void FN(keep_nothing_)(waves *w) {
  FN(clear_lanes_)(w->kept, 0, w->back * w->pitch);
  w->kept_base[0] = 0;
}

/* ------------------------------------------------------------------------------------------------ shares of all paths */

/* Turns P B into a share of all paths: ldexp(P.m B.m factor, P.e + B.e + offset). */
typedef struct {
  vec factor, offset;
} FN(share);

DALIGN_INLINE vec FN(share_of_)(scaled p, scaled b, FN(share) z) {
  return v_ldexp(v_mul(v_mul(p.m, b.m), z.factor), v_add(v_add(p.e, b.e), z.offset));
}

/* The waves that block - 1 will look at count from their largest exponent. */
static void FN(rebase_ring_)(waves *w) {
  REAL base = SCALED_NONE, farthest = 0;
  const int64_t last = ddtw_least_of(w->first + w->back, w->waves - 1);
  for (int c = 0; c < w->channels; c++)
    for (int64_t t = w->first; t <= last; t++) {
      const REAL largest = FN(largest_exponent_)(FN(ring_row_)(w, c, t), FN(begin_)(w, t), FN(end_)(w, t));
      base = largest > base ? largest : base;
    }
  if (base <= SCALED_NONE / 2) return;
  for (int c = 0; c < w->channels; c++)
    for (int64_t t = w->first; t <= last; t++) {
      const REAL distance = FN(rebase_)(FN(ring_row_)(w, c, t), FN(begin_)(w, t), FN(end_)(w, t), base);
      farthest = distance > farthest ? distance : farthest;
    }
  w->ring_base += (double)base;
  if (!(farthest < (REAL)WAVES_FARTHEST) && w->fit == WAVES_FIT) w->fit = WAVES_TOO_FAR;
}

/* ------------------------------------------------------------------------------------------------ an item */

static void FN(set_rates_)(waves *w, double largest_weight, double gamma) {
  const double log2_e = 1.4426950408889634074, log2_e_low = 2.0355273740931033e-17;
  w->rate_exact = -log2_e / gamma;
  w->rate = (REAL)w->rate_exact;
  w->rate_low = (REAL)((fma(-(double)w->rate, gamma, -log2_e) - log2_e_low) / gamma);
  w->cost_limit = (REAL)(WAVES_FARTHEST / (largest_weight * -w->rate_exact * (double)w->block));
  if (!(w->rate > -(REAL)1e30 && w->cost_limit > 0)) w->fit = WAVES_TOO_FAR;
}
