/* tap_tiles.h: a layer of 5 x 5 taps over the tiles of all pairs at hand, a block of tiles at a time. Included once per
 * element type. */
#undef tap_block
#define tap_block FN(tap_block)

/* Tiles one after another, pair by pair, row by row. */
typedef struct {
  int slot[TAP_BLOCK];
  int64_t i[TAP_BLOCK], j[TAP_BLOCK]; /* first pixel */
  int count;
  int next_slot;
  int64_t next_tile;
} tap_block;

/* The next tiles; 0: there are none. */
static int FN(next_block_)(const tap_worker *w, tap_block *b) {
  b->count = 0;
  while (b->count < TAP_BLOCK && b->next_slot < w->slots) {
    const tap_grid *g = &w->slot[b->next_slot].grid;
    b->slot[b->count] = b->next_slot;
    b->i[b->count] = b->next_tile / g->across * TAP_TILE;
    b->j[b->count] = b->next_tile % g->across * TAP_TILE;
    b->count++;
    if (++b->next_tile == g->down * g->across) b->next_tile = 0, b->next_slot++;
  }
  return b->count;
}

static int FN(is_right_neighbour_)(const tap_block *b, int t) {
  return t > 0 && b->slot[t] == b->slot[t - 1] && b->i[t] == b->i[t - 1] && b->j[t] == b->j[t - 1] + TAP_TILE;
}

/* Numbers between two tiles: a tile's values come and go in the same place. */
static int64_t FN(tile_step_)(const tap_worker *w, int l) {
  const FN(tap_weights) *t = &w->weights[l];
  return t->wide_in > t->wide_out ? t->wide_in : t->wide_out;
}

/* Rows of a tile whose first pixel is (i, j). */
static void FN(tile_rows_)(const tap_map *map, int64_t i, int64_t j, int count, REAL **rows) {
  for (int r = 0; r < count; r++) rows[r] = FN(pixel_)(map, i + r, j);
}

/* Neighbours share four columns. */
static void FN(transform_inputs_)(const tap_worker *w, const tap_block *b, int l, int64_t first, int64_t step) {
  vec columns[2][TAP_POINTS][TAP_TILE];
  int old = 0;
  for (int t = 0; t < b->count; t++) {
    const tap_map *map = &w->slot[b->slot[t]].map[l];
    REAL *rows[TAP_POINTS];
    FN(tile_rows_)(map, b->i[t] - TAP_TAPS / 2, b->j[t] - TAP_TAPS / 2, TAP_POINTS, rows);
    if (!FN(is_right_neighbour_)(b, t)) FN(transform_columns_)(rows, first, map->step, columns[old]);
    FN(transform_columns_)(rows, first + TAP_TILE * map->step, map->step, columns[!old]);
    FN(transform_rows_)(columns[old], columns[!old], w->tiles + t * step + first, tap_frequency(step));
    old = !old;
  }
}

/* relu(sums + bias) of a tile, zeros outside of the pair. */
DALIGN_INLINE void FN(put_outputs_)(const tap_slot *s, int l, int64_t i, int64_t j, int64_t first, vec bias,
                                    vec out[TAP_TILE][TAP_TILE]) {
  const tap_map *map = &s->map[l + 1];
  REAL *to = FN(pixel_)(map, i, j) + first;
  for (int r = 0; r < TAP_TILE; r++)
    for (int c = 0; c < TAP_TILE; c++) {
      const int inside = i + r < s->grid.n && j + c < s->grid.m;
      v_storeu(to + r * map->row + c * map->step, inside ? v_max(v_add(out[r][c], bias), v_zero()) : v_zero());
    }
}

static void FN(convolve_block_of_tiles_)(const tap_worker *w, const tap_block *b, int l) {
  const FN(tap_weights) *t = &w->weights[l];
  const int64_t in = w->plan.layer[l].in, step = FN(tile_step_)(w, l), frequency = tap_frequency(step);
  for (int64_t first = 0; first < t->wide_in; first += LANES) FN(transform_inputs_)(w, b, l, first, step);
  for (int f = 0; f < TAP_FREQUENCIES; f++)
    FN(multiply_at_)(w->tiles + f * frequency, step, t->spectrum + f * in * t->wide_out, in, t->wide_out, w->copy,
                     b->count);
  for (int k = 0; k < b->count; k++)
    for (int64_t first = 0; first < t->wide_out; first += LANES) {
      vec out[TAP_TILE][TAP_TILE];
      FN(output_tile_)(w->tiles + k * step + first, frequency, out);
      FN(put_outputs_)(&w->slot[b->slot[k]], l, b->i[k], b->j[k], first, v_loadu(t->bias + first), out);
    }
}

/* ------------------------------------------------------------------------------------------------ rows
 *
 * A block of tiles needs rows before it and finishes rows behind it. Layers at the ends do those rows then, while they are
 * in the cache. */

/* Rows with their frame. */
static void FN(clear_rows_)(const tap_map *map, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) FN(clear_)(FN(pixel_)(map, i, -map->pad), map->row);
}

/* The last tile of a pair that has one in the block. */
static int FN(last_tile_)(const tap_block *b, int slot) {
  int t = b->count - 1;
  while (b->slot[t] != slot) t--;
  return t;
}

/* Rows above which the pair's tiles are all done. */
static int64_t FN(rows_done_)(const tap_worker *w, const tap_block *b, int slot) {
  const int t = FN(last_tile_)(b, slot), ends_row = b->j[t] / TAP_TILE == w->slot[slot].grid.across - 1;
  return b->i[t] + (ends_row ? TAP_TILE : 0);
}

/* Rows of map 1 that the block's inputs reach. */
static void FN(draw_rows_)(const tap_worker *w, const tap_block *b, int slot) {
  tap_slot *s = &w->slot[slot];
  const int64_t below = b->i[FN(last_tile_)(b, slot)] + TAP_TILE + TAP_TAPS / 2, end = tap_smaller(below, s->grid.n);
  if (below <= s->drawn) return;
  if (end > s->drawn) FN(convolve_first_layer_)(w, s, s->drawn, end);
  if (s->turn >= 0) FN(clear_rows_)(&s->map[1], s->drawn > end ? s->drawn : end, below);
  s->drawn = below;
}

static void FN(use_rows_)(const tap_worker *w, const tap_block *b, int slot) {
  tap_slot *s = &w->slot[slot];
  const int64_t end = tap_smaller(FN(rows_done_)(w, b, slot), s->grid.n);
  if (end <= s->used) return;
  FN(add_gap_)(w, s, s->used, end);
  s->used = end;
}

/* Map l + 1 of all pairs at hand; with it map 1 before the first of such layers, and g behind the last. */
static void FN(convolve_tiles_)(const tap_worker *w, int l) {
  tap_block b = {.next_slot = 0};
  for (int k = 0; k < w->slots; k++) w->slot[k].used = 0;
  while (FN(next_block_)(w, &b)) {
    const int first = b.slot[0], last = b.slot[b.count - 1];
    for (int k = first; l == 1 && k <= last; k++) FN(draw_rows_)(w, &b, k);
    FN(convolve_block_of_tiles_)(w, &b, l);
    for (int k = first; l + 1 == w->plan.last && k <= last; k++) FN(use_rows_)(w, &b, k);
  }
}

/* ------------------------------------------------------------------------------------------------ backward */

static void FN(block_of_tiles_back_)(tap_worker *w, const tap_block *b, int l) {
  const FN(tap_weights) *t = &w->weights[l];
  FN(tap_sums) *sums = &w->sums[l];
  const int64_t in = w->plan.layer[l].in, out = w->plan.layer[l].out;
  const int64_t step = FN(tile_step_)(w, l), frequency = tap_frequency(step);
  for (int64_t first = 0; first < t->wide_in; first += LANES) FN(transform_inputs_)(w, b, l, first, step);
  for (int k = 0; k < b->count; k++) {
    const tap_map from = FN(gradient_of_)(&w->slot[b->slot[k]], l + 1);
    REAL *rows[TAP_TILE];
    FN(tile_rows_)(&from, b->i[k], b->j[k], TAP_TILE, rows);
    for (int64_t first = 0; first < t->wide_out; first += LANES)
      FN(output_tile_back_)(rows, first, from.step, w->tiles_back + k * step + first, frequency);
  }
  for (int f = 0; f < TAP_FREQUENCIES; f++) {
    REAL *values = w->tiles + f * frequency, *slopes = w->tiles_back + f * frequency;
    FN(add_outer_)(sums->sums + f * in * sums->wide, sums->wide, in, values, step, slopes, step, b->count);
    FN(multiply_at_)(slopes, step, t->turned + f * out * t->wide_in, out, t->wide_in, w->copy, b->count);
  }
  FN(count_added_)(sums, b->count);
  for (int k = 0; k < b->count; k++) {
    const tap_map to = FN(gradient_of_)(&w->slot[b->slot[k]], l);
    REAL *rows[TAP_POINTS];
    FN(tile_rows_)(&to, b->i[k] - TAP_TAPS / 2, b->j[k] - TAP_TAPS / 2, TAP_POINTS, rows);
    for (int64_t first = 0; first < t->wide_in; first += LANES)
      FN(add_input_tile_)(w->tiles_back + k * step + first, frequency, rows, first, to.step);
  }
}

/* The block's rows of the gradient behind the layer, and zeros where it will add to the one before. */
static void FN(make_rows_back_)(tap_worker *w, const tap_block *b, int l, int slot) {
  tap_slot *s = &w->slot[slot];
  const int64_t below = b->i[FN(last_tile_)(b, slot)] + TAP_TILE, end = tap_smaller(below, s->grid.n);
  const tap_map from = FN(gradient_of_)(s, l + 1), to = FN(gradient_of_)(s, l);
  if (l == 1) FN(draw_rows_)(w, b, slot);
  if (end > s->made) {
    if (l + 1 == w->plan.last) FN(last_layer_back_)(w, s, s->made, end);
    FN(add_bias_sums_)(&w->sums[l], &from, s->grid.m, s->made, end);
    if (s->turn >= 0) FN(clear_rows_)(&from, end, below);
    s->made = end;
  }
  const int64_t cleared = tap_smaller(below + TAP_TAPS / 2, s->grid.rows - to.pad);
  FN(clear_rows_)(&to, s->cleared, cleared);
  s->cleared = cleared;
}

/* Outside of the pair the map is zero, so its gradient becomes zero there too. */
static void FN(mask_rows_)(const tap_map *gradient, const tap_map *map, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    REAL *row = FN(pixel_)(gradient, i, -map->pad);
    const REAL *mask = FN(pixel_)(map, i, -map->pad);
    for (int64_t k = 0; k < map->row; k += LANES)
      v_storeu(row + k, v_keep_below(v_loadu(row + k), v_zero(), v_loadu(mask + k)));
  }
}

/* Rows to which no tile will add any more. */
static void FN(use_rows_back_)(tap_worker *w, const tap_block *b, int l, int slot) {
  tap_slot *s = &w->slot[slot];
  const int64_t done = FN(rows_done_)(w, b, slot), whole = done >= TAP_TILE * s->grid.down;
  const int64_t end = whole ? s->grid.rows - w->plan.pad : done - TAP_TAPS / 2;
  const tap_map gradient = FN(gradient_of_)(s, l);
  if (end <= s->used) return;
  FN(mask_rows_)(&gradient, &s->map[l], s->used, end);
  const int64_t begin = s->used < 0 ? 0 : s->used, inside = tap_smaller(end, s->grid.n);
  if (l == 1 && inside > begin) FN(first_layer_back_)(w, s, begin, inside);
  s->used = end;
}

/* Gradient of map l of all pairs at hand, with that of the last map before it and what follows from map 1's. */
static void FN(tiles_back_)(tap_worker *w, int l) {
  tap_block b = {.next_slot = 0};
  for (int k = 0; k < w->slots; k++) {
    tap_slot *s = &w->slot[k];
    const tap_map from = FN(gradient_of_)(s, l + 1);
    if (l + 1 == w->plan.last) FN(clear_frame_)(&from, &s->grid);
    if (s->turn >= 0) {
      FN(clear_frame_)(&s->map[1], &s->grid);
      s->drawn = 0;
    }
    s->made = 0, s->used = s->cleared = -w->plan.pad;
  }
  while (FN(next_block_)(w, &b)) {
    const int first = b.slot[0], last = b.slot[b.count - 1];
    for (int k = first; k <= last; k++) FN(make_rows_back_)(w, &b, l, k);
    FN(block_of_tiles_back_)(w, &b, l);
    for (int k = first; k <= last; k++) FN(use_rows_back_)(w, &b, l, k);
  }
}
