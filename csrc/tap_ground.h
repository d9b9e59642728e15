/* tap_ground.h: the first layer's part that knows positions alone. Its sums over Dt are the same for all pairs of equal
 * lengths, and so are the weights by which gradients enter the sums for its weights: the former are kept from pair to pair, the
 * latter are taken of the sum of the gradients. Included once per element type. */

/* A ground's map for the lengths of a pair. */
static tap_map FN(ground_map_)(const tap_slot *s, REAL *numbers) {
  tap_map map = s->map[1];
  map.at = numbers, map.turn = -1;
  return map;
}

static int FN(has_ground_)(const tap_worker *w, const tap_slot *s) {
  return s->grid.rows * s->map[1].row <= w->ground.numbers;
}

/* Dt, and zeros around. */
static void FN(fill_positions_)(const tap_map *map, const tap_grid *g, const REAL *across) {
  FN(clear_frame_)(map, g);
  for (int64_t i = 0; i < g->n; i++) {
    REAL *to = FN(pixel_)(map, i, 0);
    const REAL at_x = (REAL)((double)(i + 1) / (double)g->n);
    for (int64_t j = 0; j < g->m; j++) to[j] = at_x < across[j] ? across[j] - at_x : at_x - across[j];
  }
}

/* ------------------------------------------------------------------------------------------------ forward */

static void FN(make_ground_)(tap_worker *w, const tap_slot *s) {
  const FN(tap_weights) *t = &w->weights[0];
  const tap_layer *layer = &w->plan.layer[0];
  const tap_map base = FN(ground_map_)(s, w->ground.base);
  const tap_conv c = {.kernel = layer->kernel,
                      .channels = 1,
                      .inputs = 1,
                      .in = {&s->position},
                      .wide = t->wide_out,
                      .weights = {t->forward + layer->kernel * layer->kernel * t->wide_out},
                      .bias = t->bias,
                      .out = &base};
  FN(convolve_map_)(&c, &s->grid, 0, s->grid.n);
  w->ground.n = s->grid.n, w->ground.m = s->grid.m;
}

static int FN(is_ground_in_use_)(const tap_worker *w) {
  int used = 0;
  for (int k = 0; k < w->slots; k++) used |= w->slot[k].grounded;
  return used;
}

/* The second of two equal pairs in a row makes the ground. Whether there is one does not change a bit. */
static void FN(take_ground_)(tap_worker *w, tap_slot *s) {
  FN(tap_ground) *g = &w->ground;
  const int64_t n = s->grid.n, m = s->grid.m;
  const int again = g->last_n == n && g->last_m == m;
  g->last_n = n, g->last_m = m;
  s->grounded = 0;
  if (!FN(has_ground_)(w, s)) return;
  if ((g->n != n || g->m != m) && again && !FN(is_ground_in_use_)(w)) FN(make_ground_)(w, s);
  s->grounded = g->n == n && g->m == m;
}

/* ------------------------------------------------------------------------------------------------ backward */

/* What was summed goes into the sums for the weights. */
static void FN(settle_sums_)(tap_worker *w) {
  FN(tap_ground) *g = &w->ground;
  const tap_layer *layer = &w->plan.layer[0];
  if (!g->sums_n) return;
  const tap_grid grid = tap_grid_of(&w->plan, g->sums_n, g->sums_m);
  const tap_map position = {g->position, grid.columns, 1, grid.pad, -1};
  const tap_map sums = {g->sums, grid.columns * w->sums[0].wide, w->sums[0].wide, grid.pad, -1};
  FN(add_weight_sums_)(&w->sums[0], layer->kernel * layer->kernel, &position, layer->kernel, 1, &sums, grid.m, 0,
                       grid.n);
  g->sums_n = g->sums_m = 0;
}

static int FN(are_sums_in_use_)(const tap_worker *w) {
  int used = 0;
  for (int k = 0; k < w->slots; k++) used |= w->slot[k].summed;
  return used;
}

static void FN(open_sums_)(tap_worker *w, const tap_slot *s) {
  FN(tap_ground) *g = &w->ground;
  FN(settle_sums_)(w);
  memcpy(g->position, s->position.at, (size_t)(s->grid.rows * s->position.row) * sizeof(REAL));
  FN(clear_)(g->sums, s->grid.rows * s->map[1].row);
  g->sums_n = s->grid.n, g->sums_m = s->grid.m;
}

/* As take_ground_, by the order of pairs in their group. */
static void FN(take_sums_)(tap_worker *w, tap_slot *s) {
  FN(tap_ground) *g = &w->ground;
  const int64_t n = s->grid.n, m = s->grid.m;
  const int again = g->sums_last_n == n && g->sums_last_m == m;
  g->sums_last_n = n, g->sums_last_m = m;
  s->summed = 0;
  if (!FN(has_ground_)(w, s)) return;
  if ((g->sums_n != n || g->sums_m != m) && again && !FN(are_sums_in_use_)(w)) FN(open_sums_)(w, s);
  s->summed = g->sums_n == n && g->sums_m == m;
}

static void FN(add_to_ground_)(const tap_worker *w, const tap_slot *s, const tap_map *from, int64_t begin,
                               int64_t end) {
  const tap_map to = FN(ground_map_)(s, w->ground.sums);
  for (int64_t i = begin; i < end; i++) {
    REAL *sum = FN(pixel_)(&to, i, 0);
    const REAL *row = FN(pixel_)(from, i, 0);
    for (int64_t k = 0; k < s->grid.m * from->step; k += LANES)
      v_storeu(sum + k, v_add(v_loadu(sum + k), v_loadu(row + k)));
  }
}

/* A group begins without any. */
static void FN(forget_sums_)(FN(tap_ground) * g) { g->sums_n = g->sums_m = g->sums_last_n = g->sums_last_m = 0; }
