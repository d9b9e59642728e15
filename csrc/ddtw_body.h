/* Body of ddtw.c for one element type: softmin in waves. */
#undef waves
#undef lanes_row
#define waves FN(ddtw_waves)
#define lanes_row FN(ddtw_lanes_row)

/* Scaled numbers of a wave; element k is lane k of the wave, wherever the memory begins. */
typedef struct {
  REAL *m, *e;
} lanes_row;

typedef struct {
  ddtw_item it;
  ddtw_order order;
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
  REAL *prefix_m, *prefix_e; /* P: (back + block, pitch) */
  REAL *cost;                /* (block, pitch); the derivative takes its place */
  REAL *kept_m, *kept_e;     /* (blocks, back, pitch) waves that enter a block */
  double *kept_base;
  REAL *ring_m, *ring_e; /* q of the adjoint: (channels, back + 1, ring_pitch) */
  double base;           /* of the block's P: exponents count from it */
  double ring_base;
  int64_t first, end, lane; /* of the block in memory: its waves, and its first lane */
  double sum_m, sum_e;      /* Z, what comes out at the ends */
  double mean_cost;
  int is_trial; /* the way back only shows whether the numbers fit */
  ddtw_fit fit;
} waves;

/* ------------------------------------------------------------------------------------------------ geometry */

static inline int64_t FN(low_lane_)(const waves *w, int64_t t) {
  return w->order == DDTW_DIAGONALS && t >= w->it.m ? t - w->it.m + 1 : 0;
}

static inline int64_t FN(high_lane_)(const waves *w, int64_t t) {
  return w->order == DDTW_DIAGONALS && t < w->width ? t : w->width - 1;
}

static inline int64_t FN(down_)(int64_t lane) { return lane / LANES * LANES; }
static inline int64_t FN(up_)(int64_t lanes) { return (lanes + LANES - 1) / LANES * LANES; }

/* The vectors of a wave: lanes [begin, end). */
static inline int64_t FN(begin_)(const waves *w, int64_t t) { return FN(down_)(FN(low_lane_)(w, t)); }
static inline int64_t FN(end_)(const waves *w, int64_t t) { return FN(down_)(FN(high_lane_)(w, t)) + LANES; }

static inline int64_t FN(row_of_)(const waves *w, int64_t t, int64_t k) {
  return w->order == DDTW_COLUMNS ? k : w->order == DDTW_ROWS ? t : k;
}
static inline int64_t FN(column_of_)(const waves *w, int64_t t, int64_t k) {
  return w->order == DDTW_COLUMNS ? t : w->order == DDTW_ROWS ? k : t - k;
}

static inline int64_t FN(first_lane_of_block_)(const waves *w, int64_t first) {
  return first > w->back ? FN(begin_)(w, first - w->back) : 0;
}

static inline lanes_row FN(prefix_row_)(const waves *w, int64_t t) {
  const int64_t at = (w->back + t - w->first) * w->pitch + w->margin - w->lane;
  lanes_row r = {w->prefix_m + at, w->prefix_e + at};
  return r;
}

static inline REAL *FN(cost_row_)(const waves *w, int64_t t) {
  return w->cost + (t - w->first) * w->pitch + w->margin - w->lane;
}

static inline lanes_row FN(ring_row_)(const waves *w, int channel, int64_t t) {
  const int64_t at = (channel * (w->back + 1) + t % (w->back + 1)) * w->ring_pitch + w->margin;
  lanes_row r = {w->ring_m + at, w->ring_e + at};
  return r;
}

/* ------------------------------------------------------------------------------------------------ sizes and memory */

/* Lanes of a block's row, between its margins. */
static int64_t FN(block_width_)(const dalign_ddtw_args *a, ddtw_order order, int64_t block, int64_t back) {
  const int64_t width = order == DDTW_ROWS ? a->m : a->n;
  const int64_t seen = order == DDTW_DIAGONALS ? ddtw_least_of(width, a->m + block + back) : width;
  return FN(up_)(seen) + 2 * LANES;
}

/* Blocks that stay in the second-level cache, or larger ones where all that is kept between them would outgrow them. */
static int64_t FN(block_waves_)(const dalign_ddtw_args *a, ddtw_order order, int64_t back, int64_t waves_in_all) {
  const int64_t row = 3 * (int64_t)sizeof(REAL) * FN(block_width_)(a, order, 64, back);
  int64_t block = DALIGN_DDTW_BLOCK_BYTES / row;
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
    w->step_over[k] = w->order == DDTW_ROWS ? a->step_y[s] : a->step_x[s];
    w->step_back[k] = w->order == DDTW_ROWS      ? a->step_x[s]
                      : w->order == DDTW_COLUMNS ? a->step_y[s]
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
  w->by_wave = (along_x && along_y) || (w->order == DDTW_ROWS && along_x) || (w->order == DDTW_COLUMNS && along_y);
  const int64_t length = w->order == DDTW_ROWS || (w->order == DDTW_DIAGONALS && along_y) ? a->m : a->n;
  w->weight_length = w->by_wave ? w->pitch : FN(up_)(length) + 2 * LANES;
}

static void FN(cut_waves_)(waves *w, const dalign_ddtw_args *a, dalign_arena *arena) {
  w->order = ddtw_choose_order(a);
  FN(collect_steps_)(w, a);
  const int64_t in_all = w->order == DDTW_ROWS ? a->n : w->order == DDTW_COLUMNS ? a->m : a->n + a->m - 1;
  w->block = FN(block_waves_)(a, w->order, w->back, in_all);
  w->blocks = ddtw_needs_gradient(a) ? (in_all + w->block - 1) / w->block : 1;
  w->pitch = FN(block_width_)(a, w->order, w->block, w->back) + 2 * w->margin;
  w->ring_pitch = FN(up_)(w->order == DDTW_ROWS ? a->m : a->n) + LANES + 2 * w->margin;
  FN(lay_out_weights_)(w, a);
  const size_t block = sizeof(REAL) * (size_t)((w->back + w->block) * w->pitch);
  const size_t kept = sizeof(REAL) * (size_t)(w->blocks * w->back * w->pitch);
  const size_t ring = sizeof(REAL) * (size_t)((w->steps + 1) * (w->back + 1) * w->ring_pitch);
  const size_t weights = sizeof(REAL) * (size_t)(a->steps * w->weight_length);
  w->prefix_m = dalign_arena_take(arena, block);
  w->prefix_e = dalign_arena_take(arena, block);
  w->cost = dalign_arena_take(arena, sizeof(REAL) * (size_t)(w->block * w->pitch));
  w->kept_m = dalign_arena_take(arena, kept);
  w->kept_e = dalign_arena_take(arena, kept);
  w->kept_base = dalign_arena_take(arena, sizeof(double) * (size_t)w->blocks);
  w->ring_m = dalign_arena_take(arena, ddtw_needs_gradient(a) ? ring : 0);
  w->ring_e = dalign_arena_take(arena, ddtw_needs_gradient(a) ? ring : 0);
  w->class_weights = dalign_arena_take(arena, weights);
  w->allow = dalign_arena_take(arena, weights);
  w->weights = ddtw_cut_weight_sums(a, arena);
}

/* ------------------------------------------------------------------------------------------------ weights */

/* Element of the fetched weights where lane 0 of wave t lies. */
static inline int64_t FN(weight_shift_)(const waves *w, int64_t t) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->by_wave) return w->margin - w->lane;
  const int turned = w->order == DDTW_DIAGONALS && a->weights && a->weight_strides[2];
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
  const int turned = w->order == DDTW_DIAGONALS && along_y;
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

/* ------------------------------------------------------------------------------------------------ costs in and out */

/* count numbers of row i from column j on, with +inf outside the lattice. */
static void FN(copy_costs_)(const waves *w, int64_t i, int64_t j, int64_t count, REAL *out) {
  const int64_t from = j < 0 ? ddtw_least_of(-j, count) : 0;
  const int64_t to = i < w->it.n && w->it.m - j > from ? ddtw_least_of(w->it.m - j, count) : from;
  for (int64_t x = 0; x < from; x++) out[x] = (REAL)INFINITY;
  for (int64_t x = to; x < count; x++) out[x] = (REAL)INFINITY;
  if (to <= from) return;
  const int64_t at = ddtw_cell(&w->it, i, j);
  if (w->it.is_float) {
    const float *costs = (const float *)w->it.args->cost + at;
    for (int64_t x = from; x < to; x++) out[x] = (REAL)costs[x];
  } else {
    const double *costs = (const double *)w->it.args->cost + at;
    for (int64_t x = from; x < to; x++) out[x] = (REAL)costs[x];
  }
}

/* The other way: derivatives that lie inside the lattice. */
static void FN(copy_slopes_)(const waves *w, int64_t i, int64_t j, int64_t count, const REAL *slopes) {
  const int64_t from = j < 0 ? -j : 0, to = ddtw_least_of(w->it.m - j, count);
  if (i >= w->it.n || to <= from) return;
  const int64_t at = ddtw_cell(&w->it, i, j);
  if (w->it.is_float) {
    float *out = (float *)w->it.args->grad_cost + at;
    for (int64_t x = from; x < to; x++) out[x] = (float)slopes[x];
  } else {
    double *out = (double *)w->it.args->grad_cost + at;
    for (int64_t x = from; x < to; x++) out[x] = (double)slopes[x];
  }
}

/* Whether a whole vector of row i from column j on lies in the lattice and is of this element type. */
static inline int FN(is_plain_segment_)(const waves *w, int64_t i, int64_t j) {
  return w->it.is_float == DALIGN_F32 && i < w->it.n && j >= 0 && j + LANES <= w->it.m;
}

static inline vec FN(load_segment_)(const waves *w, int64_t i, int64_t j) {
  if (FN(is_plain_segment_)(w, i, j)) return v_loadu((const REAL *)w->it.args->cost + ddtw_cell(&w->it, i, j));
  REAL numbers[LANES];
  FN(copy_costs_)(w, i, j, LANES, numbers);
  return v_loadu(numbers);
}

static inline void FN(store_segment_)(const waves *w, int64_t i, int64_t j, vec slopes) {
  if (FN(is_plain_segment_)(w, i, j)) {
    v_storeu((REAL *)w->it.args->grad_cost + ddtw_cell(&w->it, i, j), slopes);
    return;
  }
  REAL numbers[LANES];
  v_storeu(numbers, slopes);
  FN(copy_slopes_)(w, i, j, LANES, numbers);
}

/* Column of lane k's cell in wave t. */
static inline int64_t FN(turned_column_)(const waves *w, int64_t t, int64_t k) {
  return w->order == DDTW_DIAGONALS ? t - k : t;
}

/* Why a cost is not plain: NaN and -inf spoil the item, others are too large for this element type. */
static void FN(look_at_cost_)(waves *w, vec c) {
  REAL numbers[LANES];
  v_storeu(numbers, c);
  for (int r = 0; r < LANES; r++)
    if (!(numbers[r] > -(REAL)INFINITY))
      w->fit = DDTW_NAN;
    else if (numbers[r] < (REAL)INFINITY && w->fit == DDTW_FITS &&
             !((numbers[r] < 0 ? -numbers[r] : numbers[r]) < w->cost_limit))
      w->fit = DDTW_TOO_FAR;
}

static inline void FN(check_cost_)(waves *w, vec c) {
  if (!v_all_plain(c, v_set1(w->cost_limit))) FN(look_at_cost_)(w, c);
}

static void FN(load_rows_)(waves *w) {
  for (int64_t t = w->first; t < w->end; t++) {
    REAL *row = FN(cost_row_)(w, t);
    FN(copy_costs_)(w, t, 0, FN(up_)(w->it.m), row);
    for (int64_t k = 0; k < w->it.m; k += LANES) FN(check_cost_)(w, v_load(row + k));
  }
}

/* The columns of LANES rows that the block will need of them, into the cache: rows of 2^k bytes share its sets, so what the
 * processor fetches by itself does not stay. */
static inline void FN(fetch_ahead_)(const waves *w, const void *lattice, int64_t k) {
  const size_t size = w->it.is_float ? sizeof(float) : sizeof(double);
  for (int r = 0; r < LANES && k + r < w->it.n; r++) {
    int64_t j = FN(turned_column_)(w, w->first, k + r), last = ddtw_least_of(j + w->end - w->first, w->it.m) - 1;
    if (j < 0) j = 0;
    if (last < j) continue;
    const char *byte = (const char *)lattice + (size_t)ddtw_cell(&w->it, k + r, j) * size;
    for (const char *end = byte + (size_t)(last - j) * size; byte < end; byte += 64) __builtin_prefetch(byte);
    __builtin_prefetch((const char *)lattice + (size_t)ddtw_cell(&w->it, k + r, last) * size);
  }
}

/* Whether any cell of the tile of waves [t, t + LANES) and lanes [k, k + LANES) lies in the lattice. */
static inline int FN(is_live_tile_)(const waves *w, int64_t t, int64_t k) {
  return w->order != DDTW_DIAGONALS || (t + LANES > k && t - k - LANES < w->it.m);
}

/* LANES rows of LANES columns at a time, turned so that the lanes are rows. */
static void FN(load_turned_)(waves *w) {
  vec tile[LANES];
  const int64_t from = FN(begin_)(w, w->first), to = FN(end_)(w, w->end - 1);
  for (int64_t k = from; k < to; k += LANES) {
    FN(fetch_ahead_)(w, w->it.args->cost, k + LANES);
    for (int64_t t = w->first; t < w->end; t += LANES) {
      if (!FN(is_live_tile_)(w, t, k)) continue;
      for (int r = 0; r < LANES; r++) {
        tile[r] = FN(load_segment_)(w, k + r, FN(turned_column_)(w, t, k + r));
        FN(check_cost_)(w, tile[r]);
      }
      v_transpose(tile);
      for (int x = 0; x < LANES; x++) v_store(FN(cost_row_)(w, t + x) + k, tile[x]);
    }
  }
}

static void FN(unload_tile_)(const waves *w, int64_t t, int64_t k) {
  vec tile[LANES];
  for (int x = 0; x < LANES; x++) tile[x] = v_load(FN(cost_row_)(w, t + x) + k);
  v_transpose(tile);
  for (int r = 0; r < LANES; r++) {
    const int64_t j = FN(turned_column_)(w, t, k + r);
    if (w->end - t >= LANES) {
      FN(store_segment_)(w, k + r, j, tile[r]);
      continue;
    }
    REAL numbers[LANES];
    v_storeu(numbers, tile[r]);
    FN(copy_slopes_)(w, k + r, j, w->end - t, numbers);
  }
}

static void FN(unload_turned_)(const waves *w) {
  const int64_t from = FN(begin_)(w, w->first), to = FN(end_)(w, w->end - 1);
  for (int64_t k = from; k < to; k += LANES) {
    FN(fetch_ahead_)(w, w->it.args->grad_cost, k + LANES);
    for (int64_t t = w->first; t < w->end; t += LANES)
      if (FN(is_live_tile_)(w, t, k)) FN(unload_tile_)(w, t, k);
  }
}

static void FN(enter_block_)(waves *w, int64_t block) {
  w->first = block * w->block;
  w->end = ddtw_least_of(w->first + w->block, w->waves);
  w->lane = FN(first_lane_of_block_)(w, w->first);
  if (w->order == DDTW_ROWS)
    FN(load_rows_)(w);
  else
    FN(load_turned_)(w);
}

static void FN(unload_block_)(const waves *w) {
  if (!w->it.args->grad_cost) return;
  if (w->order != DDTW_ROWS) {
    FN(unload_turned_)(w);
    return;
  }
  for (int64_t t = w->first; t < w->end; t++) FN(copy_slopes_)(w, t, 0, w->it.m, FN(cost_row_)(w, t));
}

/* ------------------------------------------------------------------------------------------------ ends */

/* Lanes [low, high] of a wave outside which no path starts, or ends. */
typedef struct {
  int64_t low, high;
} FN(span);

static void FN(widen_)(const waves *w, FN(span) * s, int64_t t, int64_t i, int64_t j) {
  if (i < 0 || j < 0 || i >= w->it.n || j >= w->it.m) return;
  const int64_t wave = w->order == DDTW_ROWS ? i : w->order == DDTW_COLUMNS ? j : i + j;
  const int64_t lane = w->order == DDTW_ROWS ? j : i;
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
        w->order == DDTW_ROWS ? t : t - j; /* the row of column j that this wave meets, but by columns */
    if (w->order != DDTW_COLUMNS && met * sign >= i * sign && (met - i) * sign < along_x) FN(widen_)(w, s, t, met, j);
  }
  if (along_y > 0) {
    FN(widen_)(w, s, t, i, j);
    FN(widen_)(w, s, t, i, j + sign * (along_y - 1));
    const int64_t met = w->order == DDTW_COLUMNS ? t : t - i;
    if (w->order != DDTW_ROWS && met * sign >= j * sign && (met - j) * sign < along_y) FN(widen_)(w, s, t, i, met);
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
    if (!(fabs(exponent) < DDTW_FARTHEST) && w->fit == DDTW_FITS) w->fit = isnan(cost) ? DDTW_NAN : DDTW_TOO_FAR;
    e[r] = (REAL)exponent;
  }
  scaled s = {v_loadu(m), v_loadu(e)};
  return s;
}

/* Z gains what ends in wave t. */
static void FN(add_ends_)(waves *w, int64_t t) {
  const FN(span) s = FN(span_)(w, t, &w->it.args->end, 1);
  const lanes_row p = FN(prefix_row_)(w, t);
  for (int64_t k = s.low; k <= s.high; k++) {
    if (p.m[k] == 0) continue;
    const double cost = ddtw_end(&w->it, FN(row_of_)(w, t, k), FN(column_of_)(w, t, k));
    if (cost == INFINITY) continue;
    double e;
    const double m = FN(boltzmann_)(w, cost, &e) * (double)p.m[k];
    e += (double)p.e[k] + w->base;
    if (w->sum_m == 0) w->sum_e = e;
    const double largest = e > w->sum_e ? e : w->sum_e;
    w->sum_m = w->sum_m * exp2(w->sum_e - largest) + m * exp2(e - largest);
    w->sum_e = largest;
  }
}

/* ------------------------------------------------------------------------------------------------ forward */

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
} FN(ddtw_wave);

static void FN(open_wave_)(waves *w, int64_t t, FN(ddtw_wave) * v) {
  FN(fetch_weights_of_wave_)(w, t);
  for (int k = 0; k < w->steps; k++) {
    v->from[k] = FN(prefix_row_)(w, t - w->step_back[k]);
    v->from[k].m -= w->step_over[k], v->from[k].e -= w->step_over[k];
  }
  for (int g = 0; g < w->classes; g++) v->weights[g] = FN(weights_row_)(w, w->class_weights, g, t);
  for (int c = 0; c < w->channels; c++) v->allow[c] = w->masked[c] ? FN(weights_row_)(w, w->allow, c, t) : NULL;
}

/* P before step k, 0 where the step is blocked. */
DALIGN_INLINE scaled FN(before_)(const waves *w, const FN(ddtw_wave) * v, int step, int64_t k) {
  scaled p = FN(load_lanes_)(v->from[step], k);
  const REAL *allow = v->allow[w->channel[step]];
  if (allow) {
    const vec open = v_loadu(allow + k), bar = v_mul(v_sub(open, v_set1(1)), v_set1(-SCALED_NONE));
    p.m = v_mul(p.m, open);
    p.e = v_add(p.e, bar); /* so that it is not the largest, to which sums are brought */
  }
  return p;
}

DALIGN_INLINE scaled FN(forward_weighted_)(const waves *w, const FN(ddtw_wave) * v, int64_t k, vec c) {
  scaled factor[DALIGN_DDTW_STEPS], terms[DALIGN_DDTW_STEPS];
  for (int g = 0; g < w->classes; g++) factor[g] = FN(weighted_exp2_)(w, c, v_loadu(v->weights[g] + k));
  for (int s = 0; s < w->steps; s++)
    terms[s] = FN(product_)(FN(before_)(w, v, s, k), factor[w->class_of[w->channel[s]]]);
  return FN(sum_)(terms, w->steps);
}

DALIGN_INLINE scaled FN(forward_unit_)(const waves *w, const FN(ddtw_wave) * v, int steps, int64_t k, vec c) {
  scaled terms[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) terms[s] = FN(before_)(w, v, s, k);
  const scaled factor = exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)), sum = FN(sum_)(terms, steps);
  return FN(product_)(sum, factor);
}

/* P of a wave. steps: their number where the compiler shall know it (0: any). */
DALIGN_INLINE void FN(forward_wave_)(waves *w, int64_t t, const FN(ddtw_wave) * v, int unit, int steps) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0);
  const lanes_row out = FN(prefix_row_)(w, t);
  const REAL *cost = FN(cost_row_)(w, t);
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k);
    scaled p = unit ? FN(forward_unit_)(w, v, steps ? steps : w->steps, k, c) : FN(forward_weighted_)(w, v, k, c);
    if (FN(meets_)(starts, k)) {
      const scaled both[2] = {p, FN(start_)(w, t, k, c)};
      p = FN(sum_)(both, 2);
    }
    FN(store_lanes_)(out, k, scaled_normalise(p.m, p.e));
  }
}

static void FN(sweep_block_)(waves *w) {
  FN(ddtw_wave) v;
  for (int64_t t = w->first; t < w->end; t++) {
    FN(open_wave_)(w, t, &v);
    FN(clear_margins_)(w, FN(prefix_row_)(w, t), t);
    if (!w->unit)
      FN(forward_wave_)(w, t, &v, 0, 0);
    else if (w->steps == 2)
      FN(forward_wave_)(w, t, &v, 1, 2);
    else if (w->steps == 3)
      FN(forward_wave_)(w, t, &v, 1, 3);
    else
      FN(forward_wave_)(w, t, &v, 1, 0);
  }
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
  const int64_t at = (slot * w->back + wave) * w->pitch + w->margin - first_lane;
  lanes_row r = {w->kept_m + at, w->kept_e + at};
  return r;
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
    const REAL distance = FN(rebase_)(out, from, from + count, base);
    farthest = distance > farthest ? distance : farthest;
  }
  w->kept_base[slot] = w->base + (double)base;
  if (!(farthest < (REAL)DDTW_FARTHEST) && w->fit == DDTW_FITS) w->fit = DDTW_TOO_FAR;
}

static void FN(restore_waves_)(waves *w, int64_t block) {
  const int64_t slot = w->blocks > 1 ? block : 0;
  const size_t bytes = sizeof(REAL) * (size_t)(w->back * w->pitch);
  memcpy(w->prefix_m, w->kept_m + slot * w->back * w->pitch, bytes);
  memcpy(w->prefix_e, w->kept_e + slot * w->back * w->pitch, bytes);
  w->base = w->kept_base[slot];
}

/* Before the first wave there is nothing. */
static void FN(keep_nothing_)(waves *w) {
  const lanes_row all = {w->kept_m, w->kept_e};
  FN(clear_lanes_)(all, 0, w->back * w->pitch);
  w->kept_base[0] = 0;
}

static void FN(forward_)(waves *w) {
  const int64_t count = (w->waves + w->block - 1) / w->block;
  FN(keep_nothing_)(w);
  w->sum_m = 0, w->sum_e = 0;
  for (int64_t block = 0; block < count; block++) {
    FN(enter_block_)(w, block);
    if (w->fit != DDTW_FITS) return;
    FN(restore_waves_)(w, block);
    FN(sweep_block_)(w);
    for (int64_t t = w->first; t < w->end; t++) FN(add_ends_)(w, t);
    if (block + 1 < count) FN(keep_waves_)(w, block);
    if (w->fit != DDTW_FITS) return;
  }
}

/* ------------------------------------------------------------------------------------------------ backward */

/* Turns P B into a share of all paths: ldexp(P.m B.m factor, P.e + B.e + offset). */
typedef struct {
  vec factor, offset;
} FN(share);

DALIGN_INLINE vec FN(share_of_)(scaled p, scaled b, FN(share) z) {
  return v_ldexp(v_mul(v_mul(p.m, b.m), z.factor), v_add(v_add(p.e, b.e), z.offset));
}

/* B: what follows a cell. */
DALIGN_INLINE scaled FN(follow_)(const waves *w, const lanes_row *next, int steps, int64_t k) {
  scaled terms[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) terms[s] = FN(load_lanes_)(next[s], k);
  (void)w;
  return FN(sum_)(terms, steps);
}

static void FN(add_start_slopes_)(waves *w, int64_t t, int64_t k, vec shares) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->is_trial) return;
  REAL share[LANES];
  v_storeu(share, shares);
  for (int r = 0; r < LANES; r++) {
    if (share[r] == 0) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    w->mean_cost += (double)share[r] * ddtw_start(&w->it, i, j);
    if (a->grad_start) ddtw_add(a->grad_start, w->it.is_float, ddtw_end_at(&w->it, &a->start, i, j), (double)share[r]);
  }
}

static void FN(add_end_slopes_)(waves *w, int64_t t, int64_t k, vec shares) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->is_trial) return;
  REAL share[LANES];
  v_storeu(share, shares);
  for (int r = 0; r < LANES; r++) {
    if (share[r] == 0) continue;
    const int64_t i = FN(row_of_)(w, t, k + r), j = FN(column_of_)(w, t, k + r);
    w->mean_cost += (double)share[r] * ddtw_end(&w->it, i, j);
    if (a->grad_end) ddtw_add(a->grad_end, w->it.is_float, ddtw_end_at(&w->it, &a->end, i, j), (double)share[r]);
  }
}

static void FN(add_weight_slopes_)(waves *w, int64_t t, int64_t k, int step, vec shares, vec c) {
  REAL share[LANES], cost[LANES];
  v_storeu(share, shares);
  v_storeu(cost, c);
  for (int r = 0; r < LANES; r++)
    if (share[r] != 0)
      ddtw_add_weight(&w->it, &w->weights, FN(row_of_)(w, t, k + r), FN(column_of_)(w, t, k + r), w->step[step],
                      (double)share[r] * (double)cost[r]);
}

/* H of weighted steps: every step's share times its weight. */
static vec FN(weighted_slope_)(waves *w, const FN(ddtw_wave) * v, int64_t t, int64_t k, vec c, const scaled *q,
                               FN(share) z) {
  vec slope = v_zero();
  for (int s = 0; s < w->steps; s++) {
    const int channel = w->channel[s];
    const vec share = FN(share_of_)(FN(load_lanes_)(v->from[s], k), q[channel], z);
    slope = v_muladd(share, v_loadu(v->weights[w->class_of[channel]] + k), slope);
    if (w->it.args->grad_weights && !w->is_trial) FN(add_weight_slopes_)(w, t, k, s, share, c);
  }
  return slope;
}

DALIGN_INLINE void FN(backward_wave_)(waves *w, int64_t t, const FN(ddtw_wave) * v, FN(share) z, int unit, int steps,
                                      int channels) {
  const FN(span) starts = FN(span_)(w, t, &w->it.args->start, 0), ends = FN(span_)(w, t, &w->it.args->end, 1);
  const lanes_row prefix = FN(prefix_row_)(w, t);
  REAL *cost = FN(cost_row_)(w, t);
  lanes_row next[DALIGN_DDTW_STEPS], out[DALIGN_DDTW_STEPS];
  for (int s = 0; s < steps; s++) {
    next[s] = FN(ring_row_)(w, w->channel[s], t + w->step_back[s]);
    next[s].m += w->step_over[s], next[s].e += w->step_over[s];
  }
  for (int c = 0; c < channels; c++) out[c] = FN(ring_row_)(w, c, t);
  vec mean = v_zero();
  for (int64_t k = FN(begin_)(w, t); k < FN(end_)(w, t); k += LANES) {
    const vec c = v_load(cost + k);
    const scaled p = FN(load_lanes_)(prefix, k);
    scaled b = FN(follow_)(w, next, steps, k);
    if (FN(meets_)(ends, k)) {
      const scaled both[2] = {b, FN(end_factors_)(w, t, k, 1, w->ring_base)};
      FN(add_end_slopes_)(w, t, k, FN(share_of_)(p, both[1], z));
      b = FN(sum_)(both, 2);
    }
    const scaled one = unit ? exp2_split(c, v_set1(w->rate), v_set1(w->rate_low)) : scaled_zero();
    scaled q[DALIGN_DDTW_STEPS];
    for (int x = 0; x < channels; x++) {
      const scaled factor = unit ? one : FN(weighted_exp2_)(w, c, v_loadu(v->weights[w->class_of[x]] + k));
      const scaled product = FN(product_)(b, factor);
      q[x] = scaled_normalise(v->allow[x] ? v_mul(product.m, v_loadu(v->allow[x] + k)) : product.m, product.e);
      FN(store_lanes_)(out[x], k, q[x]);
    }
    vec slope = unit && !w->it.args->grad_weights ? FN(share_of_)(p, b, z) : FN(weighted_slope_)(w, v, t, k, c, q, z);
    if (FN(meets_)(starts, k)) {
      const vec started = FN(share_of_)(FN(start_)(w, t, k, c), b, z);
      FN(add_start_slopes_)(w, t, k, started);
      if (!unit || w->it.args->grad_weights) slope = v_add(slope, started);
    }
    mean = v_add(mean, v_keep_below(v_mul(slope, c), c, v_set1((REAL)INFINITY)));
    v_store(cost + k, slope);
  }
  REAL sums[LANES];
  v_storeu(sums, mean);
  for (int r = 0; r < LANES; r++) w->mean_cost += (double)sums[r];
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
  if (!(farthest < (REAL)DDTW_FARTHEST) && w->fit == DDTW_FITS) w->fit = DDTW_TOO_FAR;
}

static void FN(backward_block_)(waves *w) {
  FN(ddtw_wave) v;
  const double offset = w->base + w->ring_base - w->sum_e;
  const FN(share) z = {v_set1((REAL)(ddtw_factor(&w->it) / w->sum_m)), v_set1((REAL)offset)};
  for (int64_t t = w->end - 1; t >= w->first; t--) {
    FN(open_wave_)(w, t, &v);
    for (int c = 0; c < w->channels; c++) FN(clear_margins_)(w, FN(ring_row_)(w, c, t), t);
    if (!w->unit)
      FN(backward_wave_)(w, t, &v, z, 0, w->steps, w->channels);
    else if (w->steps == 3 && w->channels == 1)
      FN(backward_wave_)(w, t, &v, z, 1, 3, 1);
    else if (w->steps == 3 && w->channels == 2)
      FN(backward_wave_)(w, t, &v, z, 1, 3, 2);
    else if (w->steps == 2 && w->channels == 1)
      FN(backward_wave_)(w, t, &v, z, 1, 2, 1);
    else
      FN(backward_wave_)(w, t, &v, z, 1, w->steps, w->channels);
  }
}

/* Nothing follows the last wave. */
static void FN(backward_)(waves *w) {
  const int64_t count = (w->waves + w->block - 1) / w->block;
  const lanes_row all = {w->ring_m, w->ring_e};
  FN(clear_lanes_)(all, 0, (w->steps + 1) * (w->back + 1) * w->ring_pitch);
  w->mean_cost = 0, w->ring_base = 0;
  for (int64_t block = count - 1; block >= 0; block--) {
    FN(enter_block_)(w, block);
    FN(restore_waves_)(w, block);
    FN(sweep_block_)(w);
    FN(backward_block_)(w);
    if (!w->is_trial) FN(unload_block_)(w);
    FN(rebase_ring_)(w);
    if (w->fit != DDTW_FITS) return;
  }
}

/* Whether the way back adds to what the caller has, and so cannot be begun again in another element type. */
static int FN(adds_)(const waves *w) {
  const dalign_ddtw_args *a = w->it.args;
  return a->grad_start || a->grad_end || (a->grad_weights && !w->weights.count);
}

/* ------------------------------------------------------------------------------------------------ an item */

static void FN(set_rates_)(waves *w, double largest_weight) {
  const double log2_e = 1.4426950408889634074, log2_e_low = 2.0355273740931033e-17, gamma = w->it.args->gamma;
  w->rate_exact = -log2_e / gamma;
  w->rate = (REAL)w->rate_exact;
  w->rate_low = (REAL)((fma(-(double)w->rate, gamma, -log2_e) - log2_e_low) / gamma);
  w->cost_limit = (REAL)(DDTW_FARTHEST / (largest_weight * -w->rate_exact * (double)w->block));
  if (!(w->rate > -(REAL)1e30 && w->cost_limit > 0)) w->fit = DDTW_TOO_FAR;
}

/* DDTW_FITS, and the results stand; or why this element type is not the right one. */
static ddtw_fit FN(run_waves_)(waves *w, ddtw_item it) {
  const dalign_ddtw_args *a = it.args;
  w->it = it;
  w->fit = DDTW_FITS;
  w->width = w->order == DDTW_ROWS ? it.m : it.n;
  w->waves = w->order == DDTW_ROWS ? it.n : w->order == DDTW_COLUMNS ? it.m : it.n + it.m - 1;
  FN(set_rates_)(w, FN(prepare_weights_)(w));
  if (w->fit != DDTW_FITS) return w->fit;
  FN(forward_)(w);
  if (w->fit == DDTW_TOO_FAR) return w->fit;
  if (w->fit == DDTW_NAN) w->sum_m = NAN;
  const double ln2 = .69314718055994530942;
  const double value = w->sum_m == 0 ? INFINITY : -a->gamma * (log(w->sum_m) + ln2 * w->sum_e);
  ddtw_put(a->value, it.is_float, it.item, value);
  if (!ddtw_needs_gradient(a)) return DDTW_FITS;
  if (!(value < INFINITY)) {
    ddtw_fill_gradients(&it, isnan(value) ? NAN : 0);
    return DDTW_FITS;
  }
  ddtw_clear_gradients(&it, &w->weights);
  w->is_trial = FN(adds_)(w);
  FN(backward_)(w);
  if (w->fit == DDTW_FITS && w->is_trial) {
    w->is_trial = 0;
    FN(backward_)(w);
  }
  if (w->fit != DDTW_FITS) return w->fit;
  ddtw_hand_out_weights(&it, &w->weights);
  if (a->mean_cost) a->mean_cost[it.item] = w->mean_cost;
  return DDTW_FITS;
}
