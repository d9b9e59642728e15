/* lattice_tile.h: a lattice cut into groups, strips and tiles, and the costs of a tile. What every recursion over a lattice
 * shares. Included once per element type, after cost_tile.h.
 *
 *   row          one frame of x; strip: LANES rows; group: TILE_STRIPS strips
 *   step         strip s of a group works on column step - s LANES - lane (see cost_tile.h)
 *   tile         TILE_STEPS steps of a group */
#undef lattice_view
#undef GROUP_ROWS
#define lattice_view FN(dalign_lattice_view)
#define GROUP_ROWS (TILE_STRIPS * LANES)
#define STAGE_PITCH (TILE_STEPS + LANES) /* numbers of a row that the lanes of a tile's steps meet */

#ifndef DALIGN_LATTICE_TILE
#define DALIGN_LATTICE_TILE
/* One copy of a recursion for each count of strips, for the compiler to specialise. */
#define EACH_COUNT(count, call) \
  switch (count) {              \
    case 1: call(1); break;     \
    case 2: call(2); break;     \
    case 3: call(3); break;     \
    default: call(4);           \
  }

#define CACHE_LINE 64

/* What costs of a tile may be besides plain numbers. */
enum { COSTS_PLAIN = 0, COSTS_NAN = 1, COSTS_FAR = 2 };
#endif

/* One item's lattice. Arrays as given are float or double, whatever REAL is. */
typedef struct {
  int64_t n, m, groups;
  int64_t row_stride; /* numbers from one row of the given costs to the next */
  int given_f32;
  const void *cost;    /* the costs, or NULL: */
  features frames;     /* they come from features */
  int64_t *low, *high; /* columns of each row inside the band, rows up to whole groups (empty beyond n) */
  REAL cost_limit;     /* costs from here on are far */
} lattice_view;

static int64_t FN(minimum_)(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t FN(maximum_)(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t FN(group_count_)(int64_t n) { return (n + GROUP_ROWS - 1) / GROUP_ROWS; }

/* ------------------------------------------------------------------------------------------------ band */

/* Sakoe and Chiba's band around the diagonal; < 0: none. */
static int FN(in_band_)(int64_t i, int64_t j, int64_t n, int64_t m, double band) {
  const double longest = (double)((n > m ? n : m) - 1);
  return band < 0 || fabs((double)i * (double)(m - 1) - (double)j * (double)(n - 1)) <= band * longest;
}

/* First and last column of row i in the band. */
static void FN(band_columns_)(int64_t i, int64_t n, int64_t m, double band, int64_t *low, int64_t *high) {
  *low = 0, *high = m - 1;
  if (band < 0 || n == 1) return;
  const double centre = (double)i * (double)(m - 1) / (double)(n - 1);
  const double half = band * (double)((n > m ? n : m) - 1) / (double)(n - 1);
  if (centre - half > 0) *low = (int64_t)ceil(centre - half);
  if (centre + half < (double)(m - 1)) *high = (int64_t)floor(centre + half);
  while (*low > 0 && FN(in_band_)(i, *low - 1, n, m, band)) --*low;
  while (*low < m - 1 && !FN(in_band_)(i, *low, n, m, band)) ++*low;
  while (*high < m - 1 && FN(in_band_)(i, *high + 1, n, m, band)) ++*high;
  while (*high > 0 && !FN(in_band_)(i, *high, n, m, band)) --*high;
}

/* Itakura's parallelogram between lines of slope 1 / s and s (of the diagonal's) from both corners: with u = i / (n - 1) and
 * v = j / (m - 1), u / s <= v <= s u and (1 - u) / s <= 1 - v <= s (1 - u). Whole numbers on both sides of each <=. */
static int FN(in_itakura_)(int64_t i, int64_t j, int64_t n, int64_t m, double s) {
  const double u = (double)i * (double)(m - 1), v = (double)j * (double)(n - 1);
  const double rest_u = (double)(n - 1 - i) * (double)(m - 1), rest_v = (double)(m - 1 - j) * (double)(n - 1);
  return u <= s * v && v <= s * u && rest_u <= s * rest_v && rest_v <= s * rest_u;
}

/* Narrows the columns of row i to the parallelogram, which holds both corners and may be empty in between. */
static void FN(itakura_columns_)(int64_t i, int64_t n, int64_t m, double s, int64_t *low, int64_t *high) {
  if (s <= 0 || n == 1 || m == 1) return;
  const double rise = (double)(m - 1) / (double)(n - 1), u = (double)i * rise, rest = (double)(n - 1 - i) * rise;
  const double first = fmax(u / s, (double)(m - 1) - rest * s), last = fmin(u * s, (double)(m - 1) - rest / s);
  *low = FN(maximum_)(*low, (int64_t)floor(fmax(first, 0)));
  *high = FN(minimum_)(*high, (int64_t)ceil(fmin(last, (double)(m - 1))));
  while (*low <= *high && !FN(in_itakura_)(i, *low, n, m, s)) ++*low;
  while (*high >= *low && !FN(in_itakura_)(i, *high, n, m, s)) --*high;
}

/* band < 0, itakura 0: none. Rows beyond n are empty. */
static void FN(set_band_)(lattice_view *l, double band, double itakura) {
  for (int64_t i = 0; i < l->groups * GROUP_ROWS; i++) {
    l->low[i] = INT64_MAX / 2, l->high[i] = -1;
    if (i >= l->n) continue;
    FN(band_columns_)(i, l->n, l->m, band, &l->low[i], &l->high[i]);
    FN(itakura_columns_)(i, l->n, l->m, itakura, &l->low[i], &l->high[i]);
  }
}

/* ------------------------------------------------------------------------------------------------ strips */

static int FN(strips_of_)(const lattice_view *l, int64_t group) {
  const int64_t rows = FN(minimum_)(l->n - group * GROUP_ROWS, GROUP_ROWS);
  return (int)((rows + LANES - 1) / LANES);
}

/* Steps [begin, end) of strip s of a group. A strip whose rows leave the band before the last column runs one step more,
 * and one whose rows enter it after the first column begins one step early: all cells of such a step are outside, and it
 * passes zeros on and takes up what lies diagonal to the first cell. */
static void FN(strip_steps_)(const lattice_view *l, int64_t group, int s, int64_t *begin, int64_t *end) {
  const int64_t first = group * GROUP_ROWS + s * LANES, last = FN(minimum_)(first + LANES, l->n) - 1;
  *begin = (l->low[first] > 0 ? l->low[first] - 1 : 0) + s * LANES;
  *end = l->high[last] + (last - first) + s * LANES + 1 + (l->high[last] < l->m - 1);
}

/* Steps of the group's strips, together. */
static void FN(group_steps_)(const lattice_view *l, int64_t group, int64_t *begin, int64_t *end) {
  int64_t ignored;
  FN(strip_steps_)(l, group, 0, begin, &ignored);
  FN(strip_steps_)(l, group, FN(strips_of_)(l, group) - 1, &ignored, end);
}

static int64_t FN(tiles_of_)(int64_t begin, int64_t end) { return (end - begin + TILE_STEPS - 1) / TILE_STEPS; }

static int FN(clamp_to_tile_)(int64_t step) { return step < 0 ? 0 : step > TILE_STEPS ? TILE_STEPS : (int)step; }

/* Steps of each strip in the tile that begins at a step, from there. */
static void FN(place_strips_)(const lattice_view *l, int64_t group, int64_t step, int *begin, int *end) {
  for (int s = 0; s < FN(strips_of_)(l, group); s++) {
    int64_t from, to;
    FN(strip_steps_)(l, group, s, &from, &to);
    begin[s] = FN(clamp_to_tile_)(from - step);
    end[s] = FN(clamp_to_tile_)(to - step);
  }
}

/* ------------------------------------------------------------------------------------------------ costs */

/* Steps [from, to) of lane r: cells outside [low, high] of the row get +inf, and with costs given the others theirs.
 * shift: column of the lane at step 0 of the tile. */
static void FN(lane_costs_)(const lattice_view *l, REAL *tile, int64_t row, int64_t shift, int64_t from, int64_t to) {
  const int64_t low = FN(minimum_)(FN(maximum_)(l->low[row] - shift, from), to);
  const int64_t high = FN(maximum_)(FN(minimum_)(l->high[row] - shift + 1, to), low);
  for (int64_t t = from; t < low; t++) tile[t * LANES] = (REAL)INFINITY;
  if (l->cost)
    for (int64_t t = low; t < high; t++)
      tile[t * LANES] = load_given(l->cost, row * l->row_stride + shift + t, l->given_f32);
  for (int64_t t = high; t < to; t++) tile[t * LANES] = (REAL)INFINITY;
}

/* Copies columns [column, column + count) of a row of given costs, +inf outside the row's band. Returns NaN in some lane
 * where a number is not finite. */
DALIGN_INLINE vec FN(stage_row_)(const lattice_view *l, int64_t row, int64_t column, int64_t count, REAL *to) {
  const REAL *from = (const REAL *)l->cost + row * l->row_stride + column;
  const int64_t low = l->low[row] - column, high = l->high[row] + 1 - column;
  int64_t k = 0, end = count;
  vec wrong = v_zero();
  if (low > 0 || high < count) {
    for (; k < count; k += LANES) v_store(to + k, v_set1((REAL)INFINITY));
    k = FN(maximum_)(low, 0), end = FN(minimum_)(high, count);
  }
  for (; k + LANES <= end; k += LANES) {
    const vec costs = v_loadu(from + k);
    wrong = v_muladd(costs, v_zero(), wrong);
    v_storeu(to + k, costs);
  }
  for (; k < end; k++) to[k] = from[k], wrong = v_muladd(v_set1(from[k]), v_zero(), wrong);
  return wrong;
}

/* What a strip's rows read after the tile whose first column is this one: their next columns, or the next group's first. */
static const REAL *FN(after_tile_)(const lattice_view *l, int64_t row, int64_t column) {
  const int is_last = column + TILE_STEPS >= l->row_stride;
  const int64_t next_row = is_last ? row + GROUP_ROWS : row, next = is_last ? column % TILE_STEPS : column + TILE_STEPS;
  return (const REAL *)l->cost + next_row * l->row_stride + next;
}

/* Asks for a share of a strip's next tile, LANES LANES numbers: all at once would be more than a processor has open, and it
 * does not follow that many rows by itself. An address outside the matrix does no harm. */
DALIGN_INLINE void FN(fetch_share_)(const REAL *tile, int64_t stride, size_t share) {
  enum { NUMBERS = LANES * LANES, LINE = CACHE_LINE / sizeof(REAL) };
  for (size_t k = 0; k < NUMBERS; k += LINE) {
    const size_t number = share * NUMBERS + k;
    __builtin_prefetch(tile + (int64_t)(number / TILE_STEPS) * stride + number % TILE_STEPS, 0, 2);
  }
}

/* Given costs of steps [begin, end) of the strip whose first row is row, and of what is left of whole vectors on both
 * sides. Rows are copied first: read in blocks, each of their cache lines would be wanted twice, and the rows of a matrix
 * whose width is a power of two push each other out in between. Returns whether some costs are not finite. */
static int FN(turn_strip_)(const lattice_view *l, REAL *tile, int64_t row, int64_t shift, int64_t begin, int64_t end) {
  REAL stage[LANES * STAGE_PITCH] __attribute__((aligned(64)));
  const int64_t first = begin / LANES * LANES, blocks = (end - first + LANES - 1) / LANES;
  const REAL *next = FN(after_tile_)(l, row, shift);
  vec wrong = v_zero();
  for (int r = 0; r < LANES; r++)
    wrong =
        v_add(wrong, FN(stage_row_)(l, row + r, shift + first - LANES, (blocks + 1) * LANES, stage + r * STAGE_PITCH));
  for (int64_t b = 0; b < blocks; b++) {
    vec rows[LANES];
    FN(fetch_share_)(next, l->row_stride, (size_t)(first / LANES + b));
    for (int r = 0; r < LANES; r++) rows[r] = v_loadu(stage + r * (STAGE_PITCH - 1) + (b + 1) * LANES);
    v_transpose(rows);
    for (int t = 0; t < LANES; t++) v_store(tile + (first + b * LANES + t) * LANES, rows[t]);
  }
  return !v_all_below(wrong, v_set1(1));
}

/* Costs given in the other type, or +inf where costs of features do not count, of steps [begin, end) of the strip whose
 * first row is row. Between the two ramps every lane is inside its row's columns. */
static void FN(strip_costs_)(const lattice_view *l, REAL *tile, int64_t row, int64_t shift, int64_t begin,
                             int64_t end) {
  const int64_t last = row + LANES - 1;
  const int64_t from = FN(minimum_)(FN(maximum_)(l->low[last] + LANES - 1 - shift, begin), end);
  const int64_t to = FN(maximum_)(FN(minimum_)(l->high[row] + 1 - shift, end), from);
  for (int r = 0; r < LANES; r++) {
    FN(lane_costs_)(l, tile + r, row + r, shift - r, begin, l->cost ? end : from);
    if (!l->cost) FN(lane_costs_)(l, tile + r, row + r, shift - r, to, end);
  }
}

static int FN(judge_costs_)(const lattice_view *l, const REAL *cost, int64_t numbers) {
  int found = COSTS_PLAIN;
  for (int64_t i = 0; i < numbers; i++) {
    if (cost[i] != cost[i] || cost[i] == -(REAL)INFINITY)
      found |= COSTS_NAN;
    else if (cost[i] != (REAL)INFINITY && !(fabs((double)cost[i]) < l->cost_limit))
      found |= COSTS_FAR;
  }
  return found;
}

static int FN(costs_are_plain_)(const lattice_view *l, const REAL *cost, int64_t steps) {
  const vec limit = v_set1(l->cost_limit);
  int plain = 1;
  for (int64_t t = 0; t < steps; t++) plain &= v_all_plain(v_load(cost + t * LANES), limit);
  return plain;
}

/* Costs of the strips' steps [begin[s], end[s]) in the tile of a group that begins at a step, +inf outside lattice and band.
 * check: tells of numbers that are not plain; only where some are does it look at each. */
static int FN(fill_costs_)(const lattice_view *l, int64_t group, int64_t step, const int *begin, const int *end,
                           int check, REAL *cost) {
  const int strips = FN(strips_of_)(l, group), turns = l->cost && l->given_f32 == DALIGN_F32;
  int found = COSTS_PLAIN;
  if (!l->cost) FN(dalign_cost_tile)(&l->frames, group * TILE_STRIPS, strips, step, begin, end, cost);
  for (int s = 0; s < strips; s++) {
    REAL *tile = cost + s * TILE_PITCH * LANES, *first = tile + begin[s] * LANES;
    const int64_t row = group * GROUP_ROWS + s * LANES, shift = step - s * LANES;
    const int steps = end[s] - begin[s];
    int doubtful = 1; /* costs that are finite are plain where there is no limit */
    if (steps <= 0) continue;
    if (turns)
      doubtful = FN(turn_strip_)(l, tile, row, shift, begin[s], end[s]) || l->cost_limit < (REAL)INFINITY;
    else
      FN(strip_costs_)(l, tile, row, shift, begin[s], end[s]);
    if (check && doubtful && !FN(costs_are_plain_)(l, first, steps)) found |= FN(judge_costs_)(l, first, steps * LANES);
  }
  return found;
}
