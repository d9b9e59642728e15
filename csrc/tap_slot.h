/* tap_slot.h: memory of a worker and of the pairs that it has at hand. Included once per element type. */
#undef tap_slot
#undef tap_worker
#define tap_slot FN(tap_slot)
#define tap_worker FN(tap_worker)

/* One of the pairs that a worker has at hand. */
typedef struct {
  int64_t pair;
  tap_grid grid;
  FN(tap_planes) planes;
  tap_map map[DALIGN_TAP_LAYERS]; /* inputs of the layers; the first is D */
  tap_map position;               /* Dt, the first layer's other input */
  int grounded, summed;        /* whether the first layer starts with the ground, whether the ground takes its sums */
  REAL *back[2];               /* gradients of the maps behind and before a layer */
  tap_map last;                /* of the last layer's output: one channel */
  REAL *slope, *energy_slope;  /* dD, dE: planes; the latter NULL where E is D */
  int64_t turn;                /* of map 1 and of gradients, where they are windows */
  int64_t drawn;               /* rows of map 1 that are there, or were */
  int64_t made, cleared, used; /* while a layer goes over tiles: rows before it and behind it that are dealt with */
} tap_slot;

/* What the first layer makes of positions alone, the same for all pairs of equal lengths (tap_ground.h). */
typedef struct {
  REAL *base, *position, *sums;
  int64_t numbers;              /* of base and of sums */
  int64_t n, m, last_n, last_m; /* whose base it is; the pair before */
  int64_t sums_n, sums_m, sums_last_n, sums_last_m;
} FN(tap_ground);

/* What a thread works with. */
typedef struct {
  tap_plan plan;
  int back, slots;
  tap_slot *slot;
  char *slot_memory;
  FN(tap_frames) frames, energies;
  FN(tap_weights) weights[DALIGN_TAP_LAYERS];
  FN(tap_sums) sums[DALIGN_TAP_LAYERS];
  FN(tap_ground) ground;
  REAL *products;                  /* (columns, taps) of the convolution to one output */
  REAL *upstream;                  /* (m,) gradient of a row of A */
  double *cost_slope;              /* (m,) and of its costs */
  REAL *tiles, *tiles_back, *copy; /* Winograd: a block of tiles, and their gradients */
} tap_worker;

/* ------------------------------------------------------------------------------------------------ memory */

static tap_map FN(take_map_)(dalign_arena *a, const tap_grid *g, int64_t step) {
  tap_map map = {.row = g->columns * step, .step = step, .pad = g->pad, .turn = -1};
  map.at = FN(take_numbers_)(a, g->rows * map.row);
  return map;
}

/* Of a window's turn; -1 where all rows have room. */
static int64_t FN(turn_of_)(const tap_plan *p, const tap_grid *g) {
  const int64_t rows = tap_window(g, g->across);
  return p->windows && rows < g->rows ? rows - 1 : -1;
}

static REAL *FN(take_window_)(dalign_arena *a, const tap_plan *p, const tap_grid *g, int64_t step) {
  return FN(take_numbers_)(a, (p->windows ? tap_window_room(g) : g->rows * g->columns) * step);
}

/* What the way back needs of the way there and would not get cheaply: planes, and maps behind the second layer on. */
static void FN(cut_kept_)(tap_slot *s, const tap_plan *p, dalign_arena *a) {
  const tap_grid *g = &s->grid;
  const int64_t row = s->planes.row = FN(plane_row_)(g->m), count = g->n * row;
  s->planes.distance = FN(take_numbers_)(a, count);
  s->planes.energy = p->args->energy_d ? FN(take_numbers_)(a, count) : s->planes.distance;
  s->planes.gap = p->layers ? FN(take_numbers_)(a, count) : NULL;
  s->planes.alignment = FN(take_numbers_)(a, count);
  for (int l = 2; l < p->layers; l++) s->map[l] = FN(take_map_)(a, g, FN(channels_)(p->layer[l].in));
}

static void FN(cut_scratch_)(tap_slot *s, const tap_plan *p, int back, dalign_arena *a) {
  const tap_grid *g = &s->grid;
  int64_t widest = 0;
  s->planes.across = FN(take_numbers_)(a, s->planes.row);
  s->slope = back ? FN(take_numbers_)(a, g->n * s->planes.row) : NULL;
  s->energy_slope = back && p->args->energy_d ? FN(take_numbers_)(a, g->n * s->planes.row) : NULL;
  if (!p->layers) return;
  s->map[0] = FN(take_map_)(a, g, 1), s->position = FN(take_map_)(a, g, 1);
  const int64_t step = FN(channels_)(p->layer[1].in);
  s->turn = FN(turn_of_)(p, g);
  s->map[1] = (tap_map){FN(take_window_)(a, p, g, step), g->columns * step, step, g->pad, s->turn};
  if (!back) return;
  for (int l = 1; l < p->layers; l++) widest = p->layer[l].in > widest ? p->layer[l].in : widest;
  s->last = FN(take_map_)(a, g, 1);
  for (int k = 0; k < 2; k++) s->back[k] = FN(take_window_)(a, p, g, FN(channels_)(widest));
}

static size_t FN(slot_bytes_)(const tap_plan *p, int back, int64_t n, int64_t m) {
  tap_slot s = {.grid = tap_grid_of(p, n, m)};
  dalign_arena a = {0};
  FN(cut_kept_)(&s, p, &a);
  FN(cut_scratch_)(&s, p, back, &a);
  return dalign_arena_bytes(&a);
}

/* Room for the map of the longest pair, or as much as a ground may have. */
static void FN(cut_ground_)(FN(tap_ground) * g, const tap_plan *p, int back, dalign_arena *a) {
  const tap_grid longest = tap_grid_of(p, p->args->n, p->args->m);
  const int64_t pixels = longest.rows * longest.columns;
  memset(g, 0, sizeof *g);
  if (!p->layers) return;
  g->numbers = tap_smaller(pixels * FN(channels_)(p->layer[1].in), TAP_GROUND_BYTES / (int64_t)sizeof(REAL));
  g->base = FN(take_numbers_)(a, g->numbers);
  g->position = FN(take_numbers_)(a, back ? tap_smaller(pixels, g->numbers) : 0);
  g->sums = FN(take_numbers_)(a, back ? g->numbers : 0);
}

/* Gradient of map l, laid out as the map. */
static tap_map FN(gradient_of_)(const tap_slot *s, int l) {
  tap_map map = s->map[l];
  map.at = s->back[l % 2];
  map.turn = s->turn;
  return map;
}

/* The longest pair alone, or short ones that share a block: those of one tile need most memory for a tile. */
static size_t FN(slots_bytes_)(const tap_plan *p, int back) {
  const size_t longest = FN(slot_bytes_)(p, back, p->args->n, p->args->m);
  const size_t shortest = TAP_BLOCK * FN(slot_bytes_)(p, back, TAP_TILE, TAP_TILE);
  return longest > shortest ? longest : shortest;
}

static size_t FN(kept_bytes_)(const tap_plan *p, int64_t pair) {
  tap_slot s = {.grid = tap_grid_of_pair(p, pair)};
  dalign_arena a = {0};
  FN(cut_kept_)(&s, p, &a);
  return dalign_arena_bytes(&a);
}

static void FN(cut_worker_)(tap_worker *w, const dalign_tap_args *args, int back, dalign_arena *a) {
  const tap_plan *p = &w->plan;
  dalign_arena prepared;
  int64_t taps = 0, wide = 0, winograd = 0;
  w->plan = tap_plan_of(args, DALIGN_F32);
  w->back = back, w->slots = 0;
  w->slot = dalign_arena_take(a, sizeof(tap_slot) * TAP_BLOCK);
  FN(cut_frames_)(&w->frames, a, args->n, args->m, args->d, back && (args->grad_x || args->grad_y));
  w->frames.x = args->x, w->frames.y = args->y;
  if (args->energy_d)
    FN(cut_frames_)(&w->energies, a, args->n, args->m, args->energy_d,
                    back && (args->grad_energy_x || args->grad_energy_y));
  w->energies.x = args->energy_x, w->energies.y = args->energy_y;
  FN(cut_weights_)(w->weights, p, args->prepared, &prepared);
  for (int l = 0; l < p->layers; l++) {
    const tap_layer *layer = &p->layer[l];
    const int64_t widest = FN(channels_)(layer->in > layer->out ? layer->in : layer->out);
    taps = FN(taps_)(layer->kernel) > taps ? FN(taps_)(layer->kernel) : taps;
    wide = widest > wide ? widest : wide;
    winograd |= layer->winograd;
    if (back) FN(cut_sums_)(&w->sums[l], p, l, a);
  }
  const tap_grid longest = tap_grid_of(p, args->n, args->m);
  FN(cut_ground_)(&w->ground, p, back, a);
  w->upstream = FN(take_numbers_)(a, FN(plane_row_)(args->m));
  w->cost_slope = dalign_arena_take(a, back ? sizeof(double) * (size_t)args->m : 0);
  w->products = FN(take_numbers_)(a, p->layers ? longest.columns * taps : 0);
  w->tiles = FN(take_numbers_)(a, winograd ? 64 * tap_frequency(wide) : 0);
  w->tiles_back = FN(take_numbers_)(a, winograd && back ? 64 * tap_frequency(wide) : 0);
  w->copy = FN(take_numbers_)(a, winograd ? TAP_MOST_PIXELS * wide : 0);
  w->slot_memory = dalign_arena_take(a, FN(slots_bytes_)(p, back));
}

static int FN(is_kept_)(const dalign_tap_args *a, int64_t pair) { return a->state && a->state_at[pair] >= 0; }

/* Whether the pair may share a block of tiles with those at hand. */
static int FN(fits_)(const tap_worker *w, int64_t pair) {
  const tap_grid g = tap_grid_of_pair(&w->plan, pair);
  int64_t tiles = g.down * g.across;
  for (int s = 0; s < w->slots; s++) tiles += w->slot[s].grid.down * w->slot[s].grid.across;
  return w->slots == 0 || tiles <= TAP_BLOCK;
}

/* A pair's memory: what is kept of it where the caller has room, the rest in the worker's own. */
static void FN(take_pair_)(tap_worker *w, int64_t pair, dalign_arena *scratch) {
  const dalign_tap_args *a = w->plan.args;
  tap_slot *s = &w->slot[w->slots++];
  memset(s, 0, sizeof *s);
  s->pair = pair;
  s->grid = tap_grid_of_pair(&w->plan, pair);
  if (FN(is_kept_)(a, pair)) {
    dalign_arena kept = dalign_arena_over((char *)a->state + a->state_at[pair]);
    FN(cut_kept_)(s, &w->plan, &kept);
  } else {
    FN(cut_kept_)(s, &w->plan, scratch);
  }
  FN(cut_scratch_)(s, &w->plan, w->back, scratch);
  for (int64_t j = 0; j < s->planes.row; j++)
    s->planes.across[j] = j < s->grid.m ? (REAL)((double)(j + 1) / (double)s->grid.m) : 0;
}

static const REAL *FN(frames_of_x_)(const tap_worker *w, const FN(tap_frames) * f, int64_t pair) {
  return f->x + tap_x_of(w->plan.args, pair) * w->plan.args->n * f->d;
}

static const REAL *FN(frames_of_y_)(const tap_worker *w, const FN(tap_frames) * f, int64_t pair) {
  return f->y + tap_y_of(w->plan.args, pair) * w->plan.args->m * f->d;
}
