/* dtw_lanes.h: many short pairs of one size at once, each in a lane of its own. Included by dtw_body.h, after
 * lattice_tile.h.
 *
 *   R(i,j) = min(R(i-1,j-1), R(i-1,j), R(i,j-1)) + C(i,j)
 *
 * What a strip does with LANES rows of a pair (dtw_body.h), this does with one row of LANES pairs: nothing moves from
 * lane to lane, costs come straight from the frames, and no lane waits outside a narrow band. LANE_ROWS rows go along
 * together, each one column behind the row above it, which keeps R between them in registers and the processor busy.
 *
 * Which pairs: a block is LANES items that follow each other, counted from the batch's first, whatever range a thread is
 * given; so results do not depend on threads. See runs_in_lanes_.
 *
 * Numbers. Floats count from a base (a double) per lane, moved to the least of a row every REBASE_ROWS rows.
 *
 * A path needs two bits a cell and lane: whether the step came from the left, and if not, whether from straight above. */
#undef lanes
#define lanes FN(dtw_lanes)

#ifndef DALIGN_DTW_LANES
#define DALIGN_DTW_LANES
enum { LANE_ROWS = 4, REBASE_ROWS = 32 };
enum { FROM_LEFT = 0, FROM_ABOVE = 1, DIRECTIONS = 2 };
/* What the recursion is compiled for: one number per frame, or several. */
typedef enum { ONE_SQUARE, ONE_ABSOLUTE, SQUARES_OF_ALL, ABSOLUTES_OF_ALL } lane_cost;
#endif

typedef struct {
  const dalign_dtw_args *args;
  int64_t n, m, d; /* of all pairs of the block; band holds that of n and m */
  lattice_view band;
  REAL *x, *y;     /* (n, d, LANES), (m, d, LANES) */
  REAL *row;       /* R of the row above, (m + 2 LANE_ROWS, LANES), column 0 at number LANE_ROWS */
  uint16_t *taken; /* (n, m, DIRECTIONS), one bit a lane; NULL: no path is wanted */
  double base[LANES];
} lanes;

/* ------------------------------------------------------------------------------------------------ which pairs */

static int64_t FN(x_of_)(const dalign_dtw_args *a, int64_t b) { return a->x_items ? a->x_items[b] : b; }
static int64_t FN(y_of_)(const dalign_dtw_args *a, int64_t b) { return a->y_items ? a->y_items[b] : b; }
static int64_t FN(rows_of_)(const dalign_dtw_args *a, int64_t b) {
  return a->x_lengths ? a->x_lengths[FN(x_of_)(a, b)] : a->n;
}
static int64_t FN(columns_of_)(const dalign_dtw_args *a, int64_t b) {
  return a->y_lengths ? a->y_lengths[FN(y_of_)(a, b)] : a->m;
}

/* The three unit steps of weight 1, in any order. */
static int FN(is_classic_)(const dalign_dtw_args *a) {
  int seen = 0;
  for (int k = 0; k < a->steps; k++) {
    if (a->step_x[k] > 1 || a->step_y[k] > 1 || a->step_weights[k] != 1) return 0;
    seen |= 1 << (2 * a->step_x[k] + a->step_y[k]);
  }
  return a->steps == 3 && seen == 14; /* (0, 1), (1, 0) and (1, 1) */
}

/* Of equally good steps a path takes the first one given, as it does in dtw_body.h; here (1, 0) comes before (0, 1). */
static int FN(goes_up_first_)(const dalign_dtw_args *a) {
  for (int k = 0; k < a->steps; k++)
    if (a->step_x[k] + a->step_y[k] == 1) return a->step_x[k] == 1;
  return 0;
}

/* Whether a batch is one for lanes, as far as its items' lengths allow. */
static int FN(suits_lanes_)(const dalign_dtw_args *a) {
  const int has_kernel =
      a->metric == DALIGN_SQEUCLIDEAN || a->metric == DALIGN_EUCLIDEAN || a->metric == DALIGN_MANHATTAN;
  return !a->cost && has_kernel && a->d >= 1 && a->d <= DALIGN_DTW_LANES_D && a->batch >= 2 &&
         a->n <= DALIGN_DTW_LANES_CELLS / a->m && a->itakura == 0 && !a->free_start && !a->free_end &&
         FN(is_classic_)(a) && FN(goes_up_first_)(a);
}

/* Whether the items of the block that holds item b go into lanes: at least two, all of one size. */
static int FN(runs_in_lanes_)(const dalign_dtw_args *a, int64_t b) {
  const int64_t first = b / LANES * LANES, end = FN(minimum_)(first + LANES, a->batch);
  if (end - first < 2) return 0;
  for (int64_t k = first + 1; (a->x_lengths || a->y_lengths) && k < end; k++)
    if (FN(rows_of_)(a, k) != FN(rows_of_)(a, first) || FN(columns_of_)(a, k) != FN(columns_of_)(a, first)) return 0;
  return 1;
}

/* ------------------------------------------------------------------------------------------------ memory */

static void FN(cut_lanes_)(lanes *l, dalign_arena *a, const dalign_dtw_args *args) {
  const size_t rows = (size_t)(FN(group_count_)(args->n) * GROUP_ROWS), vector = sizeof(REAL) * LANES;
  l->args = args, l->n = l->m = 0, l->d = args->d;
  l->band.low = dalign_arena_take(a, sizeof(int64_t) * rows);
  l->band.high = dalign_arena_take(a, sizeof(int64_t) * rows);
  l->x = dalign_arena_take(a, vector * (size_t)(args->n * args->d));
  l->y = dalign_arena_take(a, vector * (size_t)(args->m * args->d));
  l->row = dalign_arena_take(a, vector * (size_t)(args->m + 2 * LANE_ROWS));
  l->taken = NULL;
  if (args->path) l->taken = dalign_arena_take(a, sizeof(uint16_t) * DIRECTIONS * (size_t)(args->n * args->m));
}

static size_t FN(lanes_bytes_)(const dalign_dtw_args *args) {
  lanes l;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_lanes_)(&l, &a, args);
  return dalign_arena_bytes(&a);
}

/* ------------------------------------------------------------------------------------------------ frames */

/* One sequence of each item, count numbers each, side by side; lanes beyond the items repeat the last one. Returns a bit
 * for each lane that holds a number that is not finite. */
static unsigned FN(gather_)(const REAL *const *from, int64_t count, REAL *to) {
  vec wrong = v_zero();
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    vec rows[LANES];
    for (int r = 0; r < LANES; r++) rows[r] = v_loadu(from[r] + k);
    v_transpose(rows);
    for (int t = 0; t < LANES; t++) v_store(to + (k + t) * LANES, rows[t]);
  }
  for (; k < count; k++)
    for (int r = 0; r < LANES; r++) to[k * LANES + r] = from[r][k];
  for (k = 0; k < count; k++) wrong = v_muladd(v_load(to + k * LANES), v_zero(), wrong); /* inf 0 is a NaN too */
  return ~v_bits_below(wrong, v_set1(1)) & ((1u << LANES) - 1);
}

static unsigned FN(gather_frames_)(lanes *l, int64_t begin, int64_t end) {
  const dalign_dtw_args *a = l->args;
  const REAL *x[LANES], *y[LANES];
  for (int64_t r = 0; r < LANES; r++) {
    const int64_t b = FN(minimum_)(begin + r, end - 1);
    x[r] = (const REAL *)a->x + FN(x_of_)(a, b) * a->n * a->d;
    y[r] = (const REAL *)a->y + FN(y_of_)(a, b) * a->m * a->d;
  }
  return FN(gather_)(x, l->n * l->d, l->x) | FN(gather_)(y, l->m * l->d, l->y);
}

/* ------------------------------------------------------------------------------------------------ rows */

DALIGN_INLINE vec FN(lane_cost_)(const lanes *l, lane_cost kind, vec u, const REAL *x, const REAL *y) {
  if (kind == ONE_SQUARE || kind == ONE_ABSOLUTE) {
    const vec away = v_sub(u, v_load(y));
    return kind == ONE_SQUARE ? v_mul(away, away) : v_abs(away);
  }
  vec sum = v_zero();
  for (int64_t c = 0; c < l->d; c++) {
    const vec away = v_sub(v_load(x + c * LANES), v_load(y + c * LANES));
    sum = kind == SQUARES_OF_ALL ? v_muladd(away, away, sum) : v_add(v_abs(away), sum);
  }
  return l->args->metric == DALIGN_EUCLIDEAN ? v_sqrt(sum) : sum;
}

/* Rows [first, first + LANE_ROWS), those before row 0 empty. */
typedef struct {
  int64_t first, low[LANE_ROWS], high[LANE_ROWS];
  vec x[LANE_ROWS], left[LANE_ROWS], diagonal[LANE_ROWS]; /* x: where it is one number */
} FN(lane_rows);

/* Column at of the first row, at - 1 of the second, ...; checked: some may lie outside the band. */
DALIGN_INLINE void FN(lane_step_)(lanes *l, FN(lane_rows) * b, lane_cost kind, int traced, int checked, int64_t at) {
  REAL *row = l->row + LANE_ROWS * LANES;
  for (int q = LANE_ROWS - 1; q >= 0; q--) {
    const int64_t i = b->first + q, j = at - q;
    const vec up = q ? b->left[q ? q - 1 : 0] : v_load(row + at * LANES);
    if (checked && (j < b->low[q] || j > b->high[q])) {
      b->left[q] = v_set1((REAL)INFINITY);
    } else {
      const vec cost = FN(lane_cost_)(l, kind, b->x[q], l->x + i * l->d * LANES, l->y + j * l->d * LANES);
      const vec above = v_min(b->diagonal[q], up);
      if (traced) {
        uint16_t *taken = l->taken + (i * l->m + j) * DIRECTIONS;
        taken[FROM_LEFT] = (uint16_t)v_bits_below(b->left[q], above);
        taken[FROM_ABOVE] = (uint16_t)v_bits_below(up, b->diagonal[q]);
      }
      b->left[q] = v_add(v_min(above, b->left[q]), cost);
      if (checked && i == 0 && j == 0) b->left[q] = cost;
    }
    b->diagonal[q] = up;
  }
  v_store(row + (at - LANE_ROWS + 1) * LANES, b->left[LANE_ROWS - 1]);
}

DALIGN_INLINE void FN(lane_block_)(lanes *l, lane_cost kind, int traced, int64_t first) {
  FN(lane_rows) b = {.first = first};
  int64_t begin = l->m, inner = 0, outer = l->m + LANE_ROWS, end = 0; /* all rows are inside in [inner, outer) */
  for (int q = 0; q < LANE_ROWS; q++) {
    const int64_t i = first + q;
    b.low[q] = i < 0 ? l->m : l->band.low[i], b.high[q] = i < 0 ? -1 : l->band.high[i];
    begin = FN(minimum_)(begin, b.low[q]), end = FN(maximum_)(end, b.high[q] + q + 1);
    inner = FN(maximum_)(inner, b.low[q] + q), outer = FN(minimum_)(outer, b.high[q] + q + 1);
    b.x[q] = i < 0 ? v_zero() : v_load(l->x + i * l->d * LANES);
    b.left[q] = b.diagonal[q] = v_set1((REAL)INFINITY);
  }
  if (first <= 0 || inner > outer) inner = outer = end; /* the start of all paths is a check's work */
  b.diagonal[0] = v_load(l->row + (LANE_ROWS + begin - 1) * LANES);
  for (int64_t at = begin; at < inner; at++) FN(lane_step_)(l, &b, kind, traced, 1, at);
  for (int64_t at = inner; at < outer; at++) FN(lane_step_)(l, &b, kind, traced, 0, at);
  for (int64_t at = outer; at < end; at++) FN(lane_step_)(l, &b, kind, traced, 1, at);
}

#define LANE_BLOCK(name, kind, traced) \
  static void FN(name)(lanes * l, int64_t first) { FN(lane_block_)(l, kind, traced, first); }
LANE_BLOCK(one_square_, ONE_SQUARE, 0)
LANE_BLOCK(one_square_traced_, ONE_SQUARE, 1)
LANE_BLOCK(one_absolute_, ONE_ABSOLUTE, 0)
LANE_BLOCK(one_absolute_traced_, ONE_ABSOLUTE, 1)
LANE_BLOCK(squares_of_all_, SQUARES_OF_ALL, 0)
LANE_BLOCK(squares_of_all_traced_, SQUARES_OF_ALL, 1)
LANE_BLOCK(absolutes_of_all_, ABSOLUTES_OF_ALL, 0)
LANE_BLOCK(absolutes_of_all_traced_, ABSOLUTES_OF_ALL, 1)
#undef LANE_BLOCK

typedef void (*FN(lane_block))(lanes *, int64_t);

static FN(lane_block) FN(choose_lane_block_)(const lanes *l) {
  static const FN(lane_block)
      blocks[][2] = {[ONE_SQUARE] = {FN(one_square_), FN(one_square_traced_)},
                     [ONE_ABSOLUTE] = {FN(one_absolute_), FN(one_absolute_traced_)},
                     [SQUARES_OF_ALL] = {FN(squares_of_all_), FN(squares_of_all_traced_)},
                     [ABSOLUTES_OF_ALL] = {FN(absolutes_of_all_), FN(absolutes_of_all_traced_)}};
  const dalign_metric metric = l->args->metric;
  lane_cost kind = metric == DALIGN_MANHATTAN ? ABSOLUTES_OF_ALL : SQUARES_OF_ALL;
  if (l->d == 1) kind = metric == DALIGN_SQEUCLIDEAN ? ONE_SQUARE : ONE_ABSOLUTE;
  return blocks[kind][l->taken != NULL];
}

/* ------------------------------------------------------------------------------------------------ a block */

/* Looks at R of the row that was left last, over columns [begin, end): counts it from its least (floats), and tells
 * whether all paths of all lanes are above the limit. */
static int FN(look_at_row_)(lanes *l, int64_t begin, int64_t end) {
  REAL *row = l->row + LANE_ROWS * LANES, least[LANES];
  vec best = v_set1((REAL)INFINITY);
  int above = 1;
  for (int64_t j = begin; j < end; j++) best = v_min(best, v_load(row + j * LANES));
  v_storeu(least, best);
  for (int r = 0; r < LANES; r++) above &= l->base[r] + (double)least[r] > l->args->limit;
#if DALIGN_F32
  const vec change = v_keep_below(best, best, v_set1((REAL)INFINITY));
  v_storeu(least, change);
  for (int r = 0; r < LANES; r++) l->base[r] += (double)least[r];
  for (int64_t j = begin; j < end; j++) v_store(row + j * LANES, v_sub(v_load(row + j * LANES), change));
#endif
  return above;
}

/* R of the last cell of all lanes; 0 where all are above the limit, and rows were left out. */
static int FN(sweep_lanes_)(lanes *l) {
  const FN(lane_block) block = FN(choose_lane_block_)(l);
  const vec none = v_set1((REAL)INFINITY);
  for (int64_t j = 0; j < l->m + 2 * LANE_ROWS; j++) v_store(l->row + j * LANES, none);
  for (int r = 0; r < LANES; r++) l->base[r] = 0;
  for (int64_t first = (l->n - 1) % LANE_ROWS - (LANE_ROWS - 1); first < l->n; first += LANE_ROWS) {
    block(l, first);
    const int64_t last = first + LANE_ROWS - 1;
    const int is_due = last / REBASE_ROWS != first / REBASE_ROWS && last < l->n - 1;
    if (is_due && (DALIGN_F32 || l->args->limit < INFINITY) &&
        FN(look_at_row_)(l, l->band.low[last], l->band.high[last] + 1))
      return 0;
  }
  return 1;
}

static void FN(trace_lane_)(const lanes *l, int r, int64_t b, int has_path) {
  const int64_t room = l->args->n + l->args->m - 1;
  int64_t *path = l->args->path + b * room * 2, *at = path + room * 2, i = l->n - 1, j = l->m - 1;
  while (has_path) {
    const uint16_t *taken = l->taken + (i * l->m + j) * DIRECTIONS;
    const int64_t left = taken[FROM_LEFT] >> r & 1, above = taken[FROM_ABOVE] >> r & 1;
    *--at = j;
    *--at = i;
    if (i + j == 0) break;
    i -= !left, j -= left | !above;
  }
  const int64_t length = (path + room * 2 - at) / 2;
  memmove(path, at, sizeof(int64_t) * 2 * (size_t)length);
  for (int64_t k = length * 2; k < room * 2; k++) path[k] = -1;
  l->args->path_length[b] = length;
}

/* Items [begin, end) of one block. Returns a bit for each of them that dtw_body.h has to do: frames that are not finite
 * need its care about NaN. */
static unsigned FN(dtw_lanes_)(lanes *l, int64_t begin, int64_t end) {
  const dalign_dtw_args *a = l->args;
  const int64_t n = FN(rows_of_)(a, begin), m = FN(columns_of_)(a, begin);
  if (n != l->n || m != l->m) {
    l->n = l->band.n = n, l->m = l->band.m = m, l->band.groups = FN(group_count_)(n);
    FN(set_band_)(&l->band, a->band, 0);
  }
  const unsigned odd = FN(gather_frames_)(l, begin, end);
  const int complete = FN(sweep_lanes_)(l);
  const REAL *last = l->row + (LANE_ROWS + m - 1) * LANES;
  for (int r = 0; r < end - begin; r++) {
    const double value = complete ? (double)last[r] + l->base[r] : INFINITY;
    const int has_path = value <= a->limit && value < INFINITY && !(odd >> r & 1);
    ((REAL *)a->value)[begin + r] = has_path ? (REAL)value : (REAL)INFINITY;
    if (a->path) FN(trace_lane_)(l, r, begin + r, has_path);
  }
  return odd & ((1u << (end - begin)) - 1);
}
