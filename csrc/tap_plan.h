/* tap_plan.h: what tap.c knows of a problem before it sees a number: layers, the grid of a pair, groups of pairs. */
#ifndef DALIGN_TAP_PLAN_H
#define DALIGN_TAP_PLAN_H

enum {
  TAP_TILE = 4,              /* outputs of a tile in a row; maps are padded to whole tiles */
  TAP_BLOCK = 24,            /* tiles whose products are taken together; short pairs share a block */
  TAP_GROUPS = 32,           /* the most groups of pairs whose gradients are summed one by one */
  TAP_GROUP_CELLS = 6144,    /* cells that make a group worth its own sums */
  TAP_GROUND_BYTES = 1048576 /* a larger map is not kept from pair to pair: to read it takes as long as to compute it */
};

/* Layer l takes `in` channels of map l to `out` channels of map l + 1. Map 0 is (D, Dt). */
typedef struct {
  int64_t kernel, in, out;
  int winograd;
} tap_layer;

typedef struct {
  const dalign_tap_args *args;
  int layers, last;
  tap_layer layer[DALIGN_TAP_LAYERS];
  int windows;        /* whether maps around the only layer by points are windows on rows */
  int64_t pad;        /* frame of zeros around every map: half of the largest kernel */
  int64_t parameters; /* weights and biases of all layers */
} tap_plan;

/* Maps of a pair are (rows, columns) pixels, frame and incomplete tiles included. */
typedef struct {
  int64_t n, m, down, across, rows, columns, pad;
} tap_grid;

static int64_t tap_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }
static int64_t tap_smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Numbers between two points of a block of tiles (tap_winograd.h), for tiles of `step` numbers. */
static int64_t tap_frequency(int64_t step) { return TAP_BLOCK * step + 16; }

static tap_plan tap_plan_of(const dalign_tap_args *a, int is_float) {
  tap_plan p = {.args = a, .layers = a->layers, .last = a->layers - 1, .pad = 2};
  int64_t in = 2;
  for (int l = 0; l < p.layers; l++) {
    const int64_t kernel = a->layer[l].kernel, out = a->layer[l].channels;
    const int inside = l > 0 && l < p.last;
    p.layer[l] = (tap_layer){kernel, in, out, inside && kernel == 5 && is_float && !a->precise};
    if (kernel / 2 > p.pad) p.pad = kernel / 2;
    p.parameters += out * (in * kernel * kernel + 1);
    in = out;
  }
  p.windows = p.layers == 3 && p.layer[1].winograd;
  return p;
}

static tap_grid tap_grid_of(const tap_plan *p, int64_t n, int64_t m) {
  tap_grid g = {.n = n, .m = m, .down = tap_up(n, TAP_TILE) / TAP_TILE, .across = tap_up(m, TAP_TILE) / TAP_TILE};
  g.pad = p->pad;
  g.rows = TAP_TILE * g.down + 2 * p->pad;
  g.columns = TAP_TILE * g.across + 2 * p->pad;
  return g;
}

/* Rows of a map of which only those around a block of tiles are looked at: a power of two, or all. */
static int64_t tap_window(const tap_grid *g, int64_t across) {
  const int64_t need = TAP_TILE * ((TAP_BLOCK + across - 2) / across + 1) + 8;
  int64_t rows = 16;
  while (rows < need) rows *= 2;
  return rows < g->rows ? rows : g->rows;
}

/* Pixels for such a map of this pair or of one with fewer columns, whose window may have more rows. */
static int64_t tap_window_room(const tap_grid *g) {
  int64_t room = 0;
  for (int64_t across = 1; across <= g->across; across++) {
    const int64_t pixels = tap_window(g, across) * (TAP_TILE * across + 2 * g->pad);
    room = pixels > room ? pixels : room;
  }
  return room;
}

static int64_t tap_x_of(const dalign_tap_args *a, int64_t pair) { return a->x_of ? a->x_of[pair] : pair; }
static int64_t tap_y_of(const dalign_tap_args *a, int64_t pair) { return a->y_of ? a->y_of[pair] : pair; }

static tap_grid tap_grid_of_pair(const tap_plan *p, int64_t pair) {
  const dalign_tap_args *a = p->args;
  return tap_grid_of(p, a->x_lengths ? a->x_lengths[tap_x_of(a, pair)] : a->n,
                     a->y_lengths ? a->y_lengths[tap_y_of(a, pair)] : a->m);
}

/* Groups depend on the problem alone, so sums over them do not depend on who computes which. */
static int64_t tap_count_groups(const tap_plan *p) {
  int64_t cells = 0;
  for (int64_t pair = 0; pair < p->args->pairs; pair++) {
    const tap_grid g = tap_grid_of_pair(p, pair);
    cells += g.n * g.m;
  }
  const int64_t groups = tap_smaller(tap_smaller(cells / TAP_GROUP_CELLS + 1, TAP_GROUPS), p->args->pairs);
  return groups < 1 ? 1 : groups;
}

/* ------------------------------------------------------------------------------------------------ arguments */

static int tap_are_within(const int64_t *numbers, int64_t count, int64_t low, int64_t high) {
  for (int64_t k = 0; numbers && k < count; k++)
    if (numbers[k] < low || numbers[k] > high) return 0;
  return 1;
}

static int tap_are_layers(const dalign_tap_args *a) {
  if (a->layers == 0) return 1;
  if (a->layers < 2 || a->layers > DALIGN_TAP_LAYERS || a->layer[a->layers - 1].channels != 1) return 0;
  for (int l = 0; l < a->layers; l++) {
    const dalign_tap_layer *layer = &a->layer[l];
    if (layer->kernel < 1 || layer->kernel % 2 == 0 || layer->kernel > DALIGN_TAP_KERNEL) return 0;
    if (layer->channels < 1 || layer->channels > DALIGN_TAP_CHANNELS) return 0;
  }
  return 1;
}

/* All that sizes of memory depend on. */
static int tap_has_size(const dalign_tap_args *a) {
  if (a->pairs < 0 || a->x_count < 0 || a->y_count < 0 || a->n < 1 || a->m < 1 || a->d < 1) return 0;
  if (a->n > DALIGN_TAP_LONGEST || a->m > DALIGN_TAP_LONGEST || a->energy_d < 0) return 0;
  if (!a->x_of && a->x_count != a->pairs) return 0;
  if (!a->y_of && a->y_count != a->pairs) return 0;
  return tap_are_layers(a);
}

/* All that they point to is there. */
static int tap_is_sound(const dalign_tap_args *a) {
  if (!tap_has_size(a)) return 0;
  if ((a->energy_x == NULL) != (a->energy_d == 0) || (a->energy_y == NULL) != (a->energy_d == 0)) return 0;
  if (!tap_are_within(a->x_lengths, a->x_count, 1, a->n) || !tap_are_within(a->y_lengths, a->y_count, 1, a->m))
    return 0;
  return tap_are_within(a->x_of, a->pairs, 0, a->x_count - 1) && tap_are_within(a->y_of, a->pairs, 0, a->y_count - 1);
}

static dalign_status tap_check(const dalign_tap_args *a) {
  return tap_is_sound(a) && (a->layers == 0 || a->prepared) ? DALIGN_OK : DALIGN_BAD_ARGUMENT;
}

static dalign_status tap_check_back(const dalign_tap_args *a) {
  if (!a->energy_d && (a->grad_energy_x || a->grad_energy_y)) return DALIGN_BAD_ARGUMENT;
  return a->layers == 0 || a->partials ? tap_check(a) : DALIGN_BAD_ARGUMENT;
}

#endif
