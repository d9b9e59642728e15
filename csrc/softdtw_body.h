/* Body of softdtw.c for one element type: tiles, groups, workers, and the public functions. */
#include "cost_tile.h"
#include "lattice_tile.h"
#include "memory.h"
#include "softdtw_plan.h"
#include "softdtw_steps.h"

/* A lane's exponent may lie that far below its tile's base; a cell may add that many powers of two to a path. */
#undef EXPONENT_RANGE
#undef CELL_RANGE
#undef WEIGHT_FLOOR
#define PRODUCT_COLUMNS 32
#if DALIGN_F32
#define EXPONENT_RANGE 4194304.
#define CELL_RANGE 16384.
#define WEIGHT_FLOOR 0x1p-46
#define VALUE_RANGE .125 /* values below that many gammas are computed in double */
#else
#define EXPONENT_RANGE INFINITY
#define CELL_RANGE INFINITY
#define WEIGHT_FLOOR 0x1p-100
#define TOTAL_RANGE 1125899906842624.    /* 2^50: doubles count whole numbers to 2^53 */
#define GAMMAS_OF_VALUE 281474976710656. /* 2^48 */
#endif

/* ------------------------------------------------------------------------------------------------ costs of a tile */

/* NaN and -inf stop the problem; finite costs beyond the cell's range make it wide. */
static void FN(take_costs_)(problem *p, worker *w, int64_t g, int64_t step, int check) {
  const int found = FN(fill_costs_)(&p->lattice, g, step, w->begin, w->end, check, w->cost);
  if (found & COSTS_NAN) atomic_store_explicit(&p->found_nan, 1, memory_order_relaxed);
  if (found & COSTS_FAR) atomic_store_explicit(&p->found_wide, 1, memory_order_relaxed);
}

static int64_t FN(place_tile_)(const problem *p, worker *w, int64_t g, int k) {
  const int64_t step = p->group[g].begin + (int64_t)k * TILE_STEPS;
  FN(place_strips_)(&p->lattice, g, step, w->begin, w->end);
  return step;
}

/* ------------------------------------------------------------------------------------------------ exponents and bases */

/* Zeros carry SCALED_NONE, so the largest exponent is that of a nonzero number unless all are zero. */
#undef NONE_BELOW
#define NONE_BELOW ((double)SCALED_NONE / 2)

static double FN(largest_exponent_)(const REAL *e) {
  REAL lanes[LANES], largest = SCALED_NONE;
  vec best = v_load(e);
  for (int i = LANES; i < GROUP_ROWS; i += LANES) best = v_max(best, v_load(e + i));
  v_storeu(lanes, best);
  for (int r = 0; r < LANES; r++) largest = lanes[r] > largest ? lanes[r] : largest;
  return (double)largest;
}

static double FN(largest_of_row_)(const row_view *row, int64_t from, int64_t to) {
  double largest[4] = {NONE_BELOW, NONE_BELOW, NONE_BELOW, NONE_BELOW};
  for (int64_t j = from - row->origin; j < to - row->origin; j++)
    largest[j & 3] = row->e[j] > largest[j & 3] ? row->e[j] : largest[j & 3];
  for (int k = 1; k < 4; k++) largest[0] = largest[k] > largest[0] ? largest[k] : largest[0];
  return largest[0];
}

static void FN(rebase_)(problem *p, const REAL *m, REAL *e, double change) {
  const vec range = v_set1((REAL)-EXPONENT_RANGE), by = v_set1((REAL)change), none = v_set1(SCALED_NONE);
  REAL lanes[LANES];
  vec lost = v_zero();
  for (int i = 0; i < GROUP_ROWS; i += LANES) {
    const vec exponent = v_add(v_load(e + i), by);
    lost = v_max(lost, v_keep_below(v_load(m + i), exponent, range));
    v_store(e + i, v_max(exponent, none));
  }
  v_storeu(lanes, lost);
  for (int r = 0; r < LANES; r++)
    if (lanes[r] > 0) atomic_store_explicit(&p->found_wide, 1, memory_order_relaxed);
}

/* Columns of the row at the steps of a tile: in[t] = column first + t, with exponents relative to base; zero outside. */
static void FN(load_row_)(problem *p, const row_view *row, int64_t first, double base, REAL *m, REAL *e) {
  const int64_t from = row && row->low > first ? FN(minimum_)(row->low - first, TILE_STEPS) : 0;
  int64_t to = row ? row->high + 1 - first : 0;
  to = to < from ? from : to > TILE_STEPS ? TILE_STEPS : to;
  int low = 0;
  for (int64_t t = 0; t < from; t++) m[t] = 0, e[t] = SCALED_NONE;
  for (int64_t t = from; t < to; t++) {
    const int64_t at = first + t - row->origin;
    const double exponent = row->e[at] - base;
    m[t] = row->m[at];
    e[t] = exponent > NONE_BELOW ? (REAL)exponent : SCALED_NONE;
    low |= (exponent > NONE_BELOW) & (exponent < -EXPONENT_RANGE);
  }
  for (int64_t t = to; t < TILE_STEPS; t++) m[t] = 0, e[t] = SCALED_NONE;
  if (low) atomic_store_explicit(&p->found_wide, 1, memory_order_relaxed);
}

/* The columns of a row that the tile's steps cover, as [*from, *to). */
static void FN(row_columns_)(const row_view *row, int64_t first, int64_t *from, int64_t *to) {
  *from = first > row->low ? first : row->low;
  *to = FN(minimum_)(first + TILE_STEPS, row->high + 1);
}

/* Picks a base for the tile from what enters it (state of the strips, rows), and counts the state from it. */
static double FN(choose_base_)(problem *p, const REAL *const *m, REAL *const *e, int pairs, double base,
                               const row_view *const *rows, int64_t first) {
  double largest = NONE_BELOW;
  for (int k = 0; k < pairs; k++) {
    const double exponent = FN(largest_exponent_)(e[k]) + base;
    largest = exponent > largest ? exponent : largest;
  }
  for (int k = 0; k < 2; k++)
    if (rows[k]) {
      int64_t from, to;
      FN(row_columns_)(rows[k], first, &from, &to);
      const double exponent = FN(largest_of_row_)(rows[k], from, to);
      largest = exponent > largest ? exponent : largest;
    }
  if (largest == NONE_BELOW) largest = base;
  for (int k = 0; k < pairs; k++) FN(rebase_)(p, m[k], e[k], base - largest);
  return largest;
}

/* ------------------------------------------------------------------------------------------------ forward */

static int FN(stopped_)(problem *p) {
  return atomic_load_explicit(&p->found_nan, memory_order_relaxed) |
         atomic_load_explicit(&p->found_wide, memory_order_relaxed);
}

/* Waits until the other worker has handed over up to (forward) or down to (backward) a column. */
static int FN(wait_for_)(problem *p, _Atomic int64_t *done, int64_t column, int upwards) {
  for (int spins = 0;; spins++) {
    const int64_t reached = atomic_load_explicit(done, memory_order_acquire);
    if (upwards ? reached >= column : reached <= column) return 1;
    if (FN(stopped_)(p)) return 0;
    if (spins > 64) sched_yield();
  }
}

static void FN(clear_state_)(REAL *m, REAL *e, int numbers) {
  for (int i = 0; i < numbers; i++) m[i] = 0, e[i] = SCALED_NONE;
}

/* State of the strips before a group's first tile: zero, but for what the start cell finds diagonal to it. */
static void FN(start_group_)(worker *w, int64_t g) {
  FN(clear_state_)(w->left_m, w->left_e, GROUP_ROWS);
  FN(clear_state_)(w->diagonal_m, w->diagonal_e, GROUP_ROWS);
  w->base = 0;
  if (g == 0) w->diagonal_m[0] = 1, w->diagonal_e[0] = 0;
}

/* Brings what enters tile k of group g into the worker: from the tile before it and the row above. */
static void FN(enter_tile_)(problem *p, worker *w, const row_view *above, int64_t step) {
  const REAL *const m[] = {w->left_m, w->diagonal_m};
  REAL *const e[] = {w->left_e, w->diagonal_e};
  const row_view *const rows[] = {above, NULL};
  w->base = FN(choose_base_)(p, m, e, 2, w->base, rows, step);
  FN(load_row_)(p, above, step, w->base, w->in_m[0], w->in_e[0]);
}

/* Copies the bottom row's columns of this tile from the worker to the rows that want them. */
static void FN(hand_over_)(const worker *w, int out, int64_t first, row_view *row, int upwards, double base) {
  int64_t from, to;
  FN(row_columns_)(row, first, &from, &to);
  for (int64_t j = from; j < to; j++) {
    const int64_t t = j - first, at = upwards ? OUT_UP(t) : OUT_DOWN(t);
    row->m[j - row->origin] = w->out_m[out][at];
    row->e[j - row->origin] = (double)w->out_e[out][at] + base;
  }
}

static int64_t FN(clamp_column_)(const problem *p, int64_t column) {
  return column < 0 ? 0 : column > p->lattice.m ? p->lattice.m : column;
}

/* Leaves Z = P(n-1, m-1): the last row's lane of the last strip. */
static void FN(leave_total_)(problem *p, const worker *w) {
  const int64_t lane = (p->lattice.n - 1) % GROUP_ROWS;
  const double m = (double)w->left_m[lane], e = m != 0 ? (double)w->left_e[lane] + w->base : 0;
  p->value = m != 0 ? -p->gamma * 0.69314718055994530942 * (log2(m) + e) : INFINITY;
  if (p->state) p->state->z_m = m, p->state->z_e = e;
}

static void FN(forward_group_)(problem *p, worker *w, int64_t g) {
  const group_plan *group = &p->group[g];
  const int64_t bottom_lag = (int64_t)(group->strips - 1) * LANES + LANES - 1; /* step of a bottom cell minus column */
  row_view above, below = FN(handed_row_)(p, g), kept = FN(row_is_kept_)(p, g) ? FN(kept_row_)(p, g) : below;
  const int again = p->pass == DALIGN_BACKWARD; /* sweeps a group again for its edges; kept rows are there already */
  const int hand = g < p->lattice.groups - 1 && !(again && FN(row_is_kept_)(p, g));
  const int first_again = again && g % p->keep_every == 0;
  if (g) above = FN(handed_row_)(p, g - 1);
  FN(start_group_)(w, g);
  for (int k = 0; k < group->tiles; k++) {
    const int64_t step = FN(place_tile_)(p, w, g, k);
    if (g && !first_again && !FN(wait_for_)(p, &p->forward_done[g - 1], FN(clamp_column_)(p, step + TILE_STEPS), 1))
      return;
    FN(enter_tile_)(p, w, g ? &above : NULL, step);
    double *edge_base = NULL;
    REAL *edge = FN(edge_of_)(p, g, k, &edge_base);
    if (edge) memcpy(edge, w->left_m, sizeof(REAL) * EDGE_NUMBERS), *edge_base = w->base;
    const int keep = FN(use_tile_)(p, w, g, k);
    FN(take_costs_)(p, w, g, step, 1);
    if (FN(stopped_)(p)) return;
    FN(forward_tile_)(p, w, group->strips, keep, g == 0 && k == 0);
    if (hand) FN(hand_over_)(w, 0, step - bottom_lag, &below, 1, w->base);
    if (hand && kept.m != below.m) FN(hand_over_)(w, 0, step - bottom_lag, &kept, 1, w->base);
    atomic_store_explicit(&p->forward_done[g], FN(clamp_column_)(p, step + TILE_STEPS - bottom_lag),
                          memory_order_release);
  }
  if (g == p->lattice.groups - 1 && !again) FN(leave_total_)(p, w);
  atomic_store_explicit(&p->forward_done[g], p->lattice.m, memory_order_release);
}

/* ------------------------------------------------------------------------------------------------ backward */

/* Costs and P of tile k: kept, or computed again from the tile's edge. */
static void FN(restore_tile_)(problem *p, worker *w, int64_t g, int k, int64_t step) {
  double *edge_base = NULL;
  const REAL *edge = FN(edge_of_)(p, g, k, &edge_base);
  w->base = *edge_base;
  if (FN(use_tile_)(p, w, g, k)) return;
  memcpy(w->left_m, edge, sizeof(REAL) * EDGE_NUMBERS);
  row_view above;
  if (g) above = FN(handed_row_)(p, g - 1);
  FN(load_row_)(p, g ? &above : NULL, step, w->base, w->in_m[0], w->in_e[0]);
  FN(take_costs_)(p, w, g, step, 0);
  FN(forward_tile_)(p, w, p->group[g].strips, 1, g == 0 && k == 0);
}

/* State of the adjoint before a group's last tile: zero, but for what the end cell finds diagonal to it. */
static void FN(start_adjoint_)(const problem *p, worker *w, int64_t g) {
  for (int k = 0; k < 8; k += 2)
    FN(clear_state_)(w->adjoint + k * GROUP_ROWS, w->adjoint + (k + 1) * GROUP_ROWS, GROUP_ROWS);
  if (g < p->lattice.groups - 1) return;
  const int64_t lane = (p->lattice.n - 1) % GROUP_ROWS;
  w->adjoint[2 * GROUP_ROWS + lane] = 1;
  w->adjoint[3 * GROUP_ROWS + lane] = 0;
}

/* Brings what enters the tile from the right and from the row below into the worker; the new base. */
static double FN(enter_adjoint_)(problem *p, worker *w, row_view *below, int64_t first, double base) {
  REAL *a = w->adjoint;
  const int row = GROUP_ROWS, pairs = p->weighted ? 4 : 2;
  const REAL *const m[] = {a, a + 2 * row, a + 4 * row, a + 6 * row};
  REAL *const e[] = {a + row, a + 3 * row, a + 5 * row, a + 7 * row};
  const row_view *const rows[] = {below, below && p->weighted ? below + 1 : NULL};
  base = FN(choose_base_)(p, m, e, pairs, base, rows, first);
  FN(load_row_)(p, rows[0], first, base, w->in_m[0], w->in_e[0]);
  if (p->weighted) FN(load_row_)(p, rows[1], first, base, w->in_m[1], w->in_e[1]);
  return base;
}

/* H of steps that no strip works on is zero; the LANES steps behind the tile are what the tile to the right left in its
 * first ones, because a column's last rows end there. */
static void FN(clear_idle_)(worker *w, int s) {
  REAL *h = w->prefix_m + s * TILE_PITCH * LANES;
  memset(h, 0, sizeof(REAL) * (size_t)(w->begin[s] * LANES));
  if (w->end[s] < TILE_STEPS)
    memset(h + w->end[s] * LANES, 0, sizeof(REAL) * (size_t)((TILE_STEPS - w->end[s]) * LANES));
}

/* right: H of the tile to the right, or NULL. */
static void FN(append_tails_)(worker *w, int strips, const REAL *right) {
  for (int s = 0; s < strips; s++) {
    REAL *tail = w->prefix_m + (s * TILE_PITCH + TILE_STEPS) * LANES;
    if (right)
      memcpy(tail, right + s * TILE_PITCH * LANES, sizeof(REAL) * LANES * LANES);
    else
      memset(tail, 0, sizeof(REAL) * LANES * LANES);
  }
}

/* <H, C> of the tile; blocked cells have H = 0. */
static double FN(tile_mean_cost_)(const worker *w, int strips) {
  double total = 0;
  for (int s = 0; s < strips; s++) {
    REAL lanes[LANES];
    vec sum = v_zero();
    for (int t = w->begin[s]; t < w->end[s]; t++) {
      const int at = (s * TILE_PITCH + t) * LANES;
      const vec c = v_load(w->cost + at);
      sum = v_muladd(v_load(w->prefix_m + at), v_keep_below(c, c, v_set1((REAL)INFINITY)), sum);
    }
    v_storeu(lanes, sum);
    for (int r = 0; r < LANES; r++) total += (double)lanes[r];
  }
  return total;
}

/* H of columns [from, to) of row r of a strip whose first row is row0, times scale. */
static void FN(write_row_)(const problem *p, const REAL *h, int64_t row0, int64_t r, int64_t from, int64_t to,
                           int64_t first, double scale) {
  const int64_t row = (row0 + r) * p->args.m;
  const REAL *cell = h + (r - first) * LANES + r;
  for (int64_t j = from; j < to; j++)
    store_given(p->grad_cost, row + j, scale * (double)cell[j * LANES], p->lattice.given_f32);
}

/* H of LANES steps, whose lane r holds LANES columns of row r from its column on. */
static void FN(write_block_)(const problem *p, const REAL *h, int64_t row0, int64_t column, vec scale) {
  REAL *to = (REAL *)p->grad_cost + row0 * p->args.m + column;
  vec rows[LANES];
  for (int t = 0; t < LANES; t++) rows[t] = v_mul(v_load(h + t * LANES), scale);
  v_transpose(rows);
  for (int r = 0; r < LANES; r++) v_storeu(to + r * (p->args.m - 1), rows[r]);
}

/* Columns [from, to) of strip s of the tile that begins at column first: in blocks where all its rows are in the columns. */
static void FN(write_alignment_)(const problem *p, const worker *w, int64_t row0, int s, int64_t from, int64_t to,
                                 int64_t first, double scale) {
  const REAL *h = w->prefix_m + s * TILE_PITCH * LANES;
  const int64_t begin = from + LANES - 1;
  const int whole = p->lattice.given_f32 == DALIGN_F32 && row0 + LANES <= p->lattice.n && to - begin >= LANES;
  const int64_t end = whole ? begin + (to - begin) / LANES * LANES : begin;
  for (int64_t j = begin; j < end; j += LANES)
    FN(write_block_)(p, h + (j - first) * LANES, row0, j, v_set1((REAL)scale));
  for (int64_t r = 0; r < LANES && row0 + r < p->lattice.n; r++) {
    FN(write_row_)(p, h, row0, r, from, whole ? begin - r : to, first, scale);
    if (whole) FN(write_row_)(p, h, row0, r, end - r, to, first, scale);
  }
}

static double FN(upstream_)(const problem *p) {
  return p->args.grad_value ? (double)load_given(p->args.grad_value, p->item, p->lattice.given_f32) : 1;
}

static int FN(has_weight_)(const problem *p, const REAL *h, int64_t steps) {
  const vec floor = v_set1(p->weight_floor);
  for (int64_t t = 0; t < steps; t++)
    if (!v_all_below(v_abs(v_load(h + t * LANES)), floor)) return 1;
  return 0;
}

/* Adds the adjoint of columns [from, to) of strip s, whose tile begins at column first. Columns whose weights are all below
 * the floor are left out: every row has a mass of 1 or more, so no digit of its gradient sees them. */
static void FN(add_products_)(problem *p, const worker *w, int64_t g, int s, int64_t first, int64_t from, int64_t to) {
  const REAL *h = w->prefix_m + (s * TILE_PITCH - first) * LANES;
  const int64_t strip = g * TILE_STRIPS + s;
  int64_t start = from;
  for (int64_t j = from, next; j < to; j = next) {
    next = FN(minimum_)(j + PRODUCT_COLUMNS, to);
    if (FN(has_weight_)(p, h + j * LANES, next - j + LANES - 1)) continue;
    if (start < j) FN(dalign_cost_adjoint_tile)(&p->lattice.frames, strip, start, j, h + start * LANES);
    start = next;
  }
  if (start < to) FN(dalign_cost_adjoint_tile)(&p->lattice.frames, strip, start, to, h + start * LANES);
}

/* Takes the gradients of the tile's columns from H: columns [step - s LANES, step - s LANES + TILE_STEPS) of strip s. */
static void FN(take_products_)(problem *p, worker *w, int64_t g, int64_t step) {
  for (int s = 0; s < p->group[g].strips; s++) {
    const int64_t first = step - s * LANES, row0 = g * GROUP_ROWS + s * LANES;
    const int64_t from = first < 0 ? 0 : first, to = FN(minimum_)(first + TILE_STEPS, p->lattice.m);
    if (from >= to) continue;
    if (p->grad_cost) FN(write_alignment_)(p, w, row0, s, from, to, first, FN(upstream_)(p));
    if (p->need_features) FN(add_products_)(p, w, g, s, first, from, to);
  }
}

static FN(edge_scale) FN(scale_of_)(const problem *p, double prefix_base, double suffix_base) {
  const double offset = prefix_base + suffix_base - p->state->z_e, far = 4 * 4194304. * (DALIGN_F32 ? 1 : 1e30);
  FN(edge_scale) scale = {(REAL)(1 / p->state->z_m), (REAL)(offset < -far ? -far : offset > far ? far : offset)};
  return scale;
}

static void FN(backward_group_)(problem *p, worker *w, int64_t g) {
  const group_plan *group = &p->group[g];
  const int64_t bottom_lag = (int64_t)(group->strips - 1) * LANES + LANES - 1, is_last = g == p->lattice.groups - 1;
  row_view below[2], own[2];
  for (int k = 0; k < 2; k++) {
    /* q of the row below this group is nonzero in that row's columns, own of the group's first row in its columns */
    const int64_t next = FN(minimum_)((g + 1) * GROUP_ROWS, p->lattice.n - 1), top = g * GROUP_ROWS;
    below[k] = (row_view){p->below_m[k], p->below_e[k], p->lattice.low[next], p->lattice.high[next], 0};
    own[k] = (row_view){p->below_m[k], p->below_e[k], p->lattice.low[top], p->lattice.high[top], 0};
  }
  FN(start_adjoint_)(p, w, g);
  if (p->keep_every > 1 && !FN(wait_for_)(p, &p->forward_done[g], p->lattice.m, 1)) return;
  double base = 0, mean_cost = 0;
  const REAL *right = NULL;
  for (int k = group->tiles - 1; k >= 0; k--) {
    const int64_t step = FN(place_tile_)(p, w, g, k), first = step - bottom_lag;
    if (!is_last && !FN(wait_for_)(p, &p->backward_done[g + 1], FN(clamp_column_)(p, first), 0)) return;
    FN(use_tile_)(p, w, g, k);
    FN(append_tails_)(w, group->strips, right);
    right = w->prefix_m;
    FN(restore_tile_)(p, w, g, k, step);
    base = FN(enter_adjoint_)(p, w, is_last ? NULL : below, first, base);
    if (FN(stopped_)(p)) return;
    FN(backward_tile_)(p, w, group->strips, FN(scale_of_)(p, w->base, base));
    for (int s = 0; s < group->strips; s++) FN(clear_idle_)(w, s);
    if (p->args.mean_cost) mean_cost += FN(tile_mean_cost_)(w, group->strips);
    if (p->need_features)
      for (int s = 0; s < group->strips; s++) {
        const int64_t at = (s * TILE_PITCH + w->begin[s]) * LANES;
        FN(dalign_cost_weights)(&p->lattice.frames, w->cost + at, w->prefix_m + at, (w->end[s] - w->begin[s]) * LANES);
      }
    FN(take_products_)(p, w, g, step);
    if (g)
      for (int out = 0; out <= p->weighted; out++) FN(hand_over_)(w, out, step, &own[out], 0, base);
    atomic_store_explicit(&p->backward_done[g], FN(clamp_column_)(p, step), memory_order_release);
  }
  p->group_mean_cost[g] = mean_cost;
  atomic_store_explicit(&p->backward_done[g], -1, memory_order_release);
}

/* ------------------------------------------------------------------------------------------------ work */

/* Backward with kept rows only: blocks of keep_every groups from the last one, each swept forward, then backward. */
static int FN(run_block_unit_)(problem *p, worker *w, int64_t unit) {
  const int64_t per_block = 2 * p->keep_every, blocks = (p->lattice.groups + p->keep_every - 1) / p->keep_every;
  const int64_t block = blocks - 1 - unit / per_block, within = unit % per_block;
  if (block < 0) return 0;
  const int64_t place = within < p->keep_every ? within : per_block - 1 - within, g = block * p->keep_every + place;
  if (g >= p->lattice.groups) return 1;
  if (within >= p->keep_every) {
    FN(backward_group_)(p, w, g);
    return 1;
  }
  const int64_t slot_before = g + per_block; /* the group that used this slot last */
  if (slot_before < p->lattice.groups && !FN(wait_for_)(p, &p->backward_done[slot_before], -1, 0)) return 0;
  FN(forward_group_)(p, w, g);
  return 1;
}

static int FN(run_unit_)(problem *p, worker *w) {
  const int64_t unit = atomic_fetch_add_explicit(&p->next_unit, 1, memory_order_relaxed);
  if (FN(stopped_)(p)) return 0;
  if (p->pass == DALIGN_BACKWARD && p->keep_every > 1) return FN(run_block_unit_)(p, w, unit);
  if (unit >= p->lattice.groups) return 0;
  if (p->pass == DALIGN_FORWARD)
    FN(forward_group_)(p, w, unit);
  else
    FN(backward_group_)(p, w, p->lattice.groups - 1 - unit);
  return 1;
}

static problem *FN(problem_in_)(void *shared) {
  dalign_arena a = dalign_arena_over(shared);
  return dalign_arena_take(&a, sizeof(problem));
}

static void FN(work_problem_)(void *shared, void *memory) {
  problem *p = FN(problem_in_)(shared);
  if (p->lattice.groups == 0) return; /* open has seen the result already */
  dalign_arena a = dalign_arena_over(memory);
  worker *w = dalign_arena_take(&a, sizeof(worker));
  FN(cut_worker_)(w, &a);
  const unsigned before = dalign_flush_begin();
  while (FN(run_unit_)(p, w)) continue;
  dalign_flush_end(before);
}

/* ------------------------------------------------------------------------------------------------ open and close */

static int FN(shape_bad_)(const dalign_softdtw_args *a) {
  if (a->batch < 0 || a->n < 1 || a->m < 1 || !(a->gamma > 0) || !(a->gamma < INFINITY)) return 1;
  for (int k = 0; k < 3; k++)
    if (!(a->step_weights[k] >= 0)) return 1;
  return a->band != a->band || (a->band >= 0 && a->band < .5);
}

static int FN(args_bad_)(const dalign_softdtw_args *a, dalign_pass pass) {
  if (FN(shape_bad_)(a)) return 1;
  if (!a->cost && (!a->x || !a->y || a->d < 0 || a->metric < 0 || a->metric > DALIGN_BCE)) return 1;
  return pass < DALIGN_FORWARD || pass > DALIGN_GRADIENT || !a->value || (pass == DALIGN_BACKWARD && !a->state);
}

static int FN(item_bad_)(const dalign_softdtw_args *a, int64_t b) {
  if (b < 0 || b >= a->batch) return 1;
  if (a->x_lengths && (a->x_lengths[b] < 1 || a->x_lengths[b] > a->n)) return 1;
  if (a->y_lengths && (a->y_lengths[b] < 1 || a->y_lengths[b] > a->m)) return 1;
  if (a->cost || a->metric != DALIGN_NLL) return 0;
  const int64_t *labels = (const int64_t *)a->y + b * a->m, m = a->y_lengths ? a->y_lengths[b] : a->m;
  for (int64_t j = 0; j < m; j++)
    if (labels[j] < 0 || labels[j] >= a->d) return 1;
  return 0;
}

static void FN(set_rates_)(problem *p) {
  const long double log2_e = 1.44269504088896340735992468100189214L, gamma = p->gamma;
  double largest = 1, heaviest = 0;
  p->weighted = FN(is_weighted_)(&p->args);
  for (int k = 0; k < 4; k++) {
    const double w = k < 3 ? p->args.step_weights[k] : 1;
    const long double rate = w < INFINITY ? -w * log2_e / gamma : 0;
    p->rate[k] = (REAL)rate;
    p->rate_low[k] = (REAL)(rate - (long double)p->rate[k]);
    if (k == 3) break;
    p->weight[k] = (REAL)(w < INFINITY ? w : 0);
    p->allow[k] = w < INFINITY, p->bar[k] = w < INFINITY ? 0 : SCALED_NONE;
    if (w < INFINITY && w > heaviest) heaviest = w;
  }
  if (heaviest > largest) largest = heaviest;
  p->weight_floor = (REAL)(WEIGHT_FLOOR * heaviest);
  const double limit = CELL_RANGE * (double)(gamma / log2_e) / largest;
  p->lattice.cost_limit = limit < 3e38 ? (REAL)limit : (REAL)INFINITY;
}

static const void *FN(at_given_)(const problem *p, const void *array, int64_t index) {
  return (const char *)array + (size_t)index * (p->lattice.given_f32 ? sizeof(float) : sizeof(double));
}

/* Gradients of the item as they are where no path exists (0) or something is NaN. */
static void FN(fill_given_)(const problem *p, void *array, int64_t from, int64_t to, double value) {
  for (int64_t i = from; i < to; i++) store_given(array, i, value, p->lattice.given_f32);
}

static void FN(fill_gradients_)(const problem *p, double value) {
  const dalign_softdtw_args *a = &p->args;
  const int64_t b = p->item;
  for (int64_t i = 0; a->grad_cost && i < p->lattice.n; i++)
    FN(fill_given_)(p, a->grad_cost, (b * a->n + i) * a->m, (b * a->n + i) * a->m + p->lattice.m, value);
  if (a->grad_x) FN(fill_given_)(p, a->grad_x, b * a->n * a->d, (b * a->n + p->lattice.n) * a->d, value);
  if (a->grad_y) FN(fill_given_)(p, a->grad_y, b * a->m * a->d, (b * a->m + p->lattice.m) * a->d, value);
  if (a->mean_cost) a->mean_cost[b] = value;
}

/* What lies beyond the item's lengths gets gradient zero; with a band the lattice's other cells too. */
static void FN(clear_padding_)(const problem *p) {
  const dalign_softdtw_args *a = &p->args;
  const int64_t b = p->item;
  if (a->grad_cost) {
    const int64_t item = b * a->n * a->m;
    for (int64_t i = 0; i < p->lattice.n; i++) {
      FN(fill_given_)(p, a->grad_cost, item + i * a->m, item + i * a->m + (a->band < 0 ? 0 : p->lattice.m), 0);
      FN(fill_given_)(p, a->grad_cost, item + i * a->m + p->lattice.m, item + (i + 1) * a->m, 0);
    }
    FN(fill_given_)(p, a->grad_cost, item + p->lattice.n * a->m, item + a->n * a->m, 0);
  }
  if (a->grad_x) FN(fill_given_)(p, a->grad_x, (b * a->n + p->lattice.n) * a->d, (b + 1) * a->n * a->d, 0);
  if (a->grad_y) FN(fill_given_)(p, a->grad_y, (b * a->m + p->lattice.m) * a->d, (b + 1) * a->m * a->d, 0);
}

static void FN(open_costs_)(problem *p, void *memory) {
  const dalign_softdtw_args *a = &p->args;
  const int64_t b = p->item;
  p->lattice.cost = p->grad_cost = NULL, p->need_features = 0;
  if (a->cost) {
    p->lattice.cost = FN(at_given_)(p, a->cost, b * a->n * a->m);
    if (p->asked != DALIGN_FORWARD && a->grad_cost)
      p->grad_cost = (void *)(uintptr_t)FN(at_given_)(p, a->grad_cost, b * a->n * a->m);
    return;
  }
  p->need_features = p->asked != DALIGN_FORWARD && (a->grad_x || a->grad_y);
  const void *y = a->metric == DALIGN_NLL ? (const void *)((const int64_t *)a->y + b * a->m)
                                          : FN(at_given_)(p, a->y, b * a->m * a->d);
  if (FN(dalign_features_prepare)(&p->lattice.frames, a->metric, p->lattice.n, p->lattice.m, a->d,
                                  FN(at_given_)(p, a->x, b * a->n * a->d), y, p->lattice.given_f32, p->need_features,
                                  memory))
    atomic_store(&p->found_nan, 1);
}

static double FN(forward_value_)(const problem *p) {
  return (double)load_given(p->args.value, p->item, p->lattice.given_f32);
}

/* Every group still to do, in both directions. */
static void FN(start_sweep_)(problem *p) {
  atomic_store_explicit(&p->next_unit, 0, memory_order_relaxed);
  for (int64_t g = 0; g < p->lattice.groups; g++) {
    atomic_store_explicit(&p->forward_done[g], 0, memory_order_relaxed);
    atomic_store_explicit(&p->backward_done[g], p->lattice.m + 1, memory_order_relaxed);
  }
}

/* Memory by the item's own lengths, and its plan. head: the item's state where the caller keeps it. */
static void FN(lay_out_)(problem *p, softdtw_state_head *head, dalign_arena *a) {
  const dalign_softdtw_args *args = &p->args;
  const int gradient = p->asked == DALIGN_GRADIENT;
  p->state_bytes = gradient ? FN(state_for_shape_)(args->n, args->m, args->band) : (size_t)args->state_stride;
  p->keep_every = head || gradient ? FN(choose_keep_every_)(p->lattice.n, p->lattice.m, args->band, p->state_bytes)
                                   : FN(group_count_)(p->lattice.n);
  if (head) {
    dalign_arena state = {(char *)head, 0};
    FN(cut_state_)(p, &state, p->lattice.n, p->lattice.m, args->band, p->keep_every);
  }
  FN(cut_tables_)(p, a, p->lattice.n, p->lattice.m);
  if (p->asked != DALIGN_FORWARD) FN(cut_slots_)(p, a, p->lattice.n, p->lattice.m, p->keep_every);
  if (gradient) FN(cut_gradient_)(p, a, args, p->lattice.n, p->lattice.m, p->keep_every);
  p->lattice.groups = FN(group_count_)(p->lattice.n);
  int64_t elements, edges;
  FN(plan_groups_)(p, &elements, &edges);
  FN(plan_kept_tiles_)(p);
  if (!p->state || p->pass == DALIGN_BACKWARD) return;
  if (!gradient) FN(clear_rest_of_state_)(p, elements, edges);
  p->state->wide = p->head.wide;
  p->state->gamma = p->gamma;
}

/* Fills the problem in shared memory. again: a float problem turned wide. */
static dalign_status FN(open_problem_)(const dalign_softdtw_args *args, dalign_pass pass, int64_t item, int given_f32,
                                       int again, void *shared) {
  if (FN(args_bad_)(args, pass) || FN(item_bad_)(args, item)) return DALIGN_BAD_ARGUMENT;
  dalign_arena a = dalign_arena_over(shared);
  problem *p = dalign_arena_take(&a, sizeof(problem));
  const double raised = again ? p->head.gamma : 0;
  memset(p, 0, sizeof *p);
  p->args = *args, p->asked = pass, p->item = item;
  p->lattice.given_f32 = given_f32, p->lattice.row_stride = args->m;
  p->head.wide = !DALIGN_F32 && given_f32;
  p->lattice.n = args->x_lengths ? args->x_lengths[item] : args->n;
  p->lattice.m = args->y_lengths ? args->y_lengths[item] : args->m;
  const int has_state = args->state && pass != DALIGN_GRADIENT;
  softdtw_state_head *head = has_state ? (void *)((char *)args->state + item * args->state_stride) : NULL;
  const int forward_first = again && head && (!head->wide || head->gamma < raised);
  p->pass = pass == DALIGN_BACKWARD && !forward_first ? DALIGN_BACKWARD : DALIGN_FORWARD;
  if (pass != DALIGN_FORWARD) FN(clear_padding_)(p);
  if (p->pass == DALIGN_BACKWARD && !(fabs(FN(forward_value_)(p)) < INFINITY)) {
    p->value = FN(forward_value_)(p); /* nothing to sweep: close fills the gradients */
    return DALIGN_OK;
  }
  p->gamma = p->pass == DALIGN_BACKWARD ? head->gamma : raised > 0 ? raised : args->gamma;
  FN(set_rates_)(p);
  FN(lay_out_)(p, head, &a);
  FN(start_sweep_)(p);
  FN(open_costs_)(p, dalign_arena_take(&a, 0));
  return DALIGN_OK;
}

/* After the forward sweep of DALIGN_GRADIENT. */
static dalign_status FN(turn_round_)(problem *p, double value) {
  if (!(fabs(value) < INFINITY)) {
    FN(fill_gradients_)(p, value == INFINITY ? 0 : NAN);
    return DALIGN_OK;
  }
  p->pass = DALIGN_BACKWARD;
  FN(start_sweep_)(p);
  return DALIGN_AGAIN;
}

/* The end of a forward pass that a backward asked for leaves the value alone. */
static dalign_status FN(close_forward_)(problem *p) {
  const int nan = atomic_load(&p->found_nan);
  const double value = nan ? NAN : p->value;
  if (nan && p->state) p->state->z_m = NAN;
#if DALIGN_F32
  /* The logarithm of a number near 1 has few digits in float. */
  if (fabs(value) < VALUE_RANGE * p->gamma) return DALIGN_RETRY;
#else
  if (p->state && fabs(value) < INFINITY && fabs(p->state->z_e) > TOTAL_RANGE) {
    p->head.gamma = fabs(value) / GAMMAS_OF_VALUE;
    return DALIGN_RETRY;
  }
#endif
  if (p->asked == DALIGN_BACKWARD) return DALIGN_RETRY;
  store_given(p->args.value, p->item, value, p->lattice.given_f32);
  return p->asked == DALIGN_GRADIENT ? FN(turn_round_)(p, value) : DALIGN_OK;
}

static dalign_status FN(close_backward_)(problem *p) {
  const dalign_softdtw_args *a = &p->args;
  const int64_t b = p->item;
  if (p->lattice.groups == 0 || atomic_load(&p->found_nan)) {
    FN(fill_gradients_)(p, p->lattice.groups && atomic_load(&p->found_nan) ? NAN : p->value == INFINITY ? 0 : NAN);
    return DALIGN_OK;
  }
  double mean_cost = 0;
  for (int64_t g = 0; g < p->lattice.groups; g++) mean_cost += p->group_mean_cost[g];
  if (a->mean_cost) a->mean_cost[b] = mean_cost;
  if (!p->need_features) return DALIGN_OK;
  void *grad_x = a->grad_x ? (void *)(uintptr_t)FN(at_given_)(p, a->grad_x, b * a->n * a->d) : NULL;
  void *grad_y = a->grad_y ? (void *)(uintptr_t)FN(at_given_)(p, a->grad_y, b * a->m * a->d) : NULL;
  const void *y = a->metric == DALIGN_NLL ? NULL : FN(at_given_)(p, a->y, b * a->m * a->d);
  FN(dalign_features_finish)(&p->lattice.frames, FN(at_given_)(p, a->x, b * a->n * a->d), y, FN(upstream_)(p), grad_x,
                             grad_y);
  return DALIGN_OK;
}

static dalign_status FN(close_problem_)(void *shared) {
  problem *p = FN(problem_in_)(shared);
  if (p->lattice.groups && !atomic_load(&p->found_nan) && atomic_load(&p->found_wide)) return DALIGN_RETRY;
  return p->pass == DALIGN_FORWARD ? FN(close_forward_)(p) : FN(close_backward_)(p);
}

/* ------------------------------------------------------------------------------------------------ public */

size_t FN(dalign_softdtw_state)(const dalign_softdtw_args *args) {
  /* a multiple of the alignment, so that items lie alike */
  return (FN(state_for_shape_)(args->n, args->m, args->band) + DALIGN_ALIGNMENT - 1) & ~(size_t)(DALIGN_ALIGNMENT - 1);
}

size_t FN(dalign_softdtw_shared)(const dalign_softdtw_args *args, dalign_pass pass) {
  const size_t state = FN(dalign_softdtw_state)(args), own = FN(shared_bytes_)(args, pass, state);
#if DALIGN_F32
  const size_t wide = DALIGN_NAME(shared_bytes_, f64)(args, pass, state);
  return own > wide ? own : wide;
#else
  return own;
#endif
}

size_t FN(dalign_softdtw_worker)(const dalign_softdtw_args *args) {
  const size_t own = FN(worker_bytes_)(args);
#if DALIGN_F32
  const size_t wide = DALIGN_NAME(worker_bytes_, f64)(args);
  return own > wide ? own : wide;
#else
  return own;
#endif
}

dalign_status FN(dalign_softdtw_open)(const dalign_softdtw_args *args, dalign_pass pass, int64_t item, int retry,
                                      void *shared) {
#if DALIGN_F32
  if (FN(args_bad_)(args, pass) || FN(item_bad_)(args, item)) return DALIGN_BAD_ARGUMENT;
  const softdtw_state_head *state = args->state ? (void *)((char *)args->state + item * args->state_stride) : NULL;
  if (retry || (pass == DALIGN_BACKWARD && state && state->wide))
    return DALIGN_NAME(open_problem_, f64)(args, pass, item, 1, retry, shared);
#endif
  return FN(open_problem_)(args, pass, item, DALIGN_F32, retry, shared);
}

void FN(dalign_softdtw_work)(void *shared, void *memory) {
#if DALIGN_F32
  if (FN(problem_in_)(shared)->head.wide) {
    DALIGN_NAME(work_problem_, f64)(shared, memory);
    return;
  }
#endif
  FN(work_problem_)(shared, memory);
}

dalign_status FN(dalign_softdtw_close)(void *shared) {
#if DALIGN_F32
  if (FN(problem_in_)(shared)->head.wide) return DALIGN_NAME(close_problem_, f64)(shared);
#endif
  return FN(close_problem_)(shared);
}

static dalign_status FN(run_range_)(const dalign_softdtw_args *args, dalign_pass pass, int64_t begin, int64_t end,
                                    void *workspace) {
  void *memory = (char *)workspace + FN(dalign_softdtw_shared)(args, pass);
  for (int64_t b = begin; b < end; b++) {
    dalign_status status = DALIGN_RETRY;
    for (int retry = 0; status == DALIGN_RETRY; retry = 1) {
      status = FN(dalign_softdtw_open)(args, pass, b, retry, workspace);
      if (status != DALIGN_OK) return status;
      do {
        FN(dalign_softdtw_work)(workspace, memory);
        status = FN(dalign_softdtw_close)(workspace);
      } while (status == DALIGN_AGAIN);
    }
    if (status != DALIGN_OK) return status;
  }
  return DALIGN_OK;
}

dalign_status FN(dalign_softdtw_forward)(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace) {
  return FN(run_range_)(args, DALIGN_FORWARD, begin, end, workspace);
}

dalign_status FN(dalign_softdtw_backward)(const dalign_softdtw_args *args, int64_t begin, int64_t end,
                                          void *workspace) {
  return FN(run_range_)(args, DALIGN_BACKWARD, begin, end, workspace);
}

dalign_status FN(dalign_softdtw_gradient)(const dalign_softdtw_args *args, int64_t begin, int64_t end,
                                          void *workspace) {
  return FN(run_range_)(args, DALIGN_GRADIENT, begin, end, workspace);
}

#include "softdtw_hvp.h"
