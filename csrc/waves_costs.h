/* waves_costs.h: costs of a block of waves, given or of frames, and the way back of their derivatives (part of waves.h). */

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

/* +inf in the lanes of a vector outside [low, high]; what is there may be a NaN, and the larger of it and another is that. */
static inline void FN(close_off_vector_)(REAL *row, int64_t k, int64_t low, int64_t high) {
  static const REAL numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const vec lane = v_loadu(numbers), inf = v_set1((REAL)INFINITY);
  const vec below = v_keep_below(inf, lane, v_set1((REAL)(low - k))),
            above = v_keep_below(inf, v_set1((REAL)(high - k)), lane);
  const vec outside = v_max(below, above);
  v_store(row + k, v_max(v_load(row + k), v_sub(outside, v_keep_below(inf, outside, inf))));
}

/* +inf in the lanes of the first and the last vector that the wave has not. */
static void FN(close_off_)(const waves *w, int64_t t) {
  REAL *row = FN(cost_row_)(w, t);
  const int64_t low = FN(low_lane_)(w, t), high = FN(high_lane_)(w, t), last = FN(down_)(high);
  FN(close_off_vector_)(row, FN(down_)(low), low, high);
  if (last > FN(down_)(low)) FN(close_off_vector_)(row, last, low, high);
}

static void FN(check_costs_)(waves *w) {
  const int is_open = FN(has_features_)(w) || w->reach < INFINITY;
  const vec limit = v_set1(w->cost_limit);
  for (int64_t t = w->first; t < w->end; t++) {
    if (is_open) FN(close_off_)(w, t);
    const REAL *row = FN(cost_row_)(w, t);
    for (int64_t k = FN(begin_)(w, t); !w->is_seen && k < FN(end_)(w, t); k += LANES) {
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
