/* softdtw_plan.h: geometry of one problem and the cutting of its memory (part of softdtw.c, once per element type).
 *
 *   row          one frame of x; strip: LANES rows; group: TILE_STRIPS strips
 *   step         strip s of a group works on columns step - s LANES - lane
 *   edge         state of a group's strips at the left edge of a tile
 *   slot         room for one group's row and edges, used where state does not keep all of them
 *   kept tile    costs and P of a tile that stay in memory from forward to backward (DALIGN_GRADIENT) */
#undef problem
#undef worker
#undef row_view
#undef group_plan
#undef EDGE_NUMBERS
#define problem FN(softdtw_problem)
#define worker FN(softdtw_worker)
#define row_view FN(softdtw_row)
#define group_plan FN(softdtw_group)
#define EDGE_NUMBERS \
  (4 * TILE_STRIPS * LANES) /* mantissas and exponents of what is left of and diagonal to each strip */

/* A lattice row as numbers m 2^e of its columns [low, high]; element of column j at j - origin. */
typedef struct {
  REAL *m;
  double *e;
  int64_t low, high, origin;
} row_view;

typedef struct {
  int64_t begin, end; /* steps of the group's strips, together */
  int64_t row;        /* kept in state: first element of the bottom row */
  int64_t edge;       /* kept in state: number of its first edge */
  int64_t kept_tile;  /* number of its first kept tile, or -1: none of its tiles is kept */
  int strips, tiles;
} group_plan;

typedef struct {
  softdtw_shared_head head;
  dalign_softdtw_args args;
  dalign_pass pass, asked; /* pass: the sweep that runs now; a backward that turns wide runs a forward first */
  int64_t item;
  lattice_view lattice;
  int weighted, need_features;
  double gamma;                     /* args.gamma, or larger: see softdtw.c, Numbers */
  int64_t keep_every;               /* state keeps the last row of each keep_every-th group; 1: and all edges */
  REAL rate[4], rate_low[4];        /* down, right, diagonal, and a step of weight 1 */
  REAL weight[3], allow[3], bar[3]; /* see softdtw_steps.h */
  REAL weight_floor;
  double value;
  void *grad_cost;
  softdtw_state_head *state;
  REAL *state_row_m, *state_edges;
  double *state_row_e, *state_edge_base;
  REAL *slot_row_m, *slot_edges;
  double *slot_row_e, *slot_edge_base;
  int64_t slot_edge_count;
  size_t state_bytes; /* room for the item's state */
  REAL *kept_tiles;   /* room for kept_tile_count of them */
  int64_t kept_tile_count;
  int64_t *low, *high; /* columns of each row inside the band, rows up to whole strips (empty beyond n) */
  group_plan *group;
  REAL *live_m, *below_m[2]; /* the row between two groups; of q_down (or q) and q_diag */
  double *live_e, *below_e[2];
  double *group_mean_cost;
  _Atomic int64_t next_unit;
  _Atomic int64_t *forward_done, *backward_done; /* columns handed over: [0, forward_done), [backward_done, m) */
  _Atomic int found_nan, found_wide;
} problem;

typedef struct {
  /* The tile: TILE_STRIPS strips of TILE_PITCH steps each, of the worker's own or kept memory; prefix_m becomes H. */
  REAL *cost, *prefix_m, *prefix_e, *mean_weight;
  REAL *own_tile;
  REAL *in_m[2], *in_e[2], *out_m[2], *out_e[2];
  REAL *left_m, *left_e, *diagonal_m, *diagonal_e; /* one lane vector per strip: the state between two steps */
  REAL *adjoint;                                   /* the adjoint's state, EDGE_NUMBERS twice */
  int begin[TILE_STRIPS], end[TILE_STRIPS];        /* steps of each strip in this tile, from the tile's first */
  double base;
} worker;

/* ------------------------------------------------------------------------------------------------ state */

/* Elements of kept rows: a row of the band has at most 2 band longest / (n - 1) + 1 columns. Grows with n and m. */
static int64_t FN(kept_elements_)(int64_t n, int64_t m, double band, int64_t keep_every) {
  const int64_t rows = (FN(group_count_)(n) - 1) / keep_every;
  if (band < 0) return rows * m;
  const double longest = (double)((n > m ? n : m) - 1);
  const double in_band = 2 * band * longest / (double)(GROUP_ROWS * keep_every) + (double)rows + 1;
  return in_band < (double)(rows * m) ? (int64_t)in_band : rows * m;
}

/* Edges of all groups: the spans of steps add up to at most 2 m + 4 band longest / GROUP_ROWS + groups (GROUP_ROWS + 3). */
static int64_t FN(edge_count_)(int64_t n, int64_t m, double band) {
  const int64_t groups = FN(group_count_)(n);
  const int64_t all = groups * ((m + GROUP_ROWS + 2 + TILE_STEPS - 1) / TILE_STEPS);
  if (band < 0) return all;
  const double longest = (double)((n > m ? n : m) - 1);
  const double spans = 2. * (double)m + 4 * band * longest / GROUP_ROWS + (double)(groups * (GROUP_ROWS + 3));
  const double in_band = (double)groups + spans / TILE_STEPS + 1;
  return in_band < (double)all ? (int64_t)in_band : all;
}

static void FN(cut_state_)(problem *p, dalign_arena *a, int64_t n, int64_t m, double band, int64_t keep_every) {
  const size_t elements = (size_t)FN(kept_elements_)(n, m, band, keep_every);
  const size_t edges = keep_every == 1 ? (size_t)FN(edge_count_)(n, m, band) : 0;
  p->state = dalign_arena_take(a, sizeof(softdtw_state_head));
  p->state_row_m = dalign_arena_take(a, sizeof(REAL) * elements);
  p->state_row_e = dalign_arena_take(a, sizeof(double) * elements);
  p->state_edges = dalign_arena_take(a, sizeof(REAL) * edges * EDGE_NUMBERS);
  p->state_edge_base = dalign_arena_take(a, sizeof(double) * edges);
}

/* State is cut from its first byte on, whatever its address, so that it may be copied; its numbers are read unaligned. */
static size_t FN(state_bytes_)(int64_t n, int64_t m, double band, int64_t keep_every) {
  problem p;
  dalign_arena a = {NULL, 0};
  FN(cut_state_)(&p, &a, n, m, band, keep_every);
  return a.used;
}

/* The densest choice that fits; keeping nothing (more than all groups) always does. */
static int64_t FN(choose_keep_every_)(int64_t n, int64_t m, double band, size_t bytes) {
  const int64_t groups = FN(group_count_)(n);
  int64_t keep_every = 1;
  while (keep_every <= groups && FN(state_bytes_)(n, m, band, keep_every) > bytes) keep_every++;
  return keep_every;
}

/* State for the shape: all of it up to DALIGN_KEEP_ALL_BYTES, else what fits into them, but never less than keeping nothing. */
static size_t FN(state_for_shape_)(int64_t n, int64_t m, double band) {
  if (n < 1 || m < 1) return 0;
  return FN(state_bytes_)(n, m, band, FN(choose_keep_every_)(n, m, band, DALIGN_KEEP_ALL_BYTES));
}

/* ------------------------------------------------------------------------------------------------ workspace */

/* Two blocks of keep_every groups, so that one can be swept again while the other is still in use. */
static void FN(cut_slots_)(problem *p, dalign_arena *a, int64_t n, int64_t m, int64_t keep_every) {
  const int64_t slots = keep_every > 1 ? FN(minimum_)(2 * keep_every, FN(group_count_)(n)) : 0;
  p->slot_edge_count = (m + GROUP_ROWS + 2 + TILE_STEPS - 1) / TILE_STEPS;
  const size_t edges = (size_t)(slots * p->slot_edge_count);
  p->slot_row_m = dalign_arena_take(a, sizeof(REAL) * (size_t)(slots * m));
  p->slot_row_e = dalign_arena_take(a, sizeof(double) * (size_t)(slots * m));
  p->slot_edges = dalign_arena_take(a, sizeof(REAL) * edges * EDGE_NUMBERS);
  p->slot_edge_base = dalign_arena_take(a, sizeof(double) * edges);
}

/* Numbers of a tile: cost, both halves of P, and with step weights their mean. */
static size_t FN(tile_numbers_)(int weighted) { return (size_t)((3 + weighted) * TILE_STRIPS * TILE_PITCH * LANES); }

static int FN(is_weighted_)(const dalign_softdtw_args *args) {
  return args->step_weights[0] != 1 || args->step_weights[1] != 1 || args->step_weights[2] != 1;
}

/* Tiles that fit into DALIGN_KEEP_TILES_BYTES, where forward is followed by backward at once. */
static void FN(cut_kept_tiles_)(problem *p, dalign_arena *a, const dalign_softdtw_args *args, int64_t n, int64_t m) {
  const size_t bytes = sizeof(REAL) * FN(tile_numbers_)(FN(is_weighted_)(args));
  const int64_t tiles = FN(group_count_)(n) * ((m + GROUP_ROWS + 2 + TILE_STEPS - 1) / TILE_STEPS);
  p->kept_tile_count = FN(minimum_)(tiles, DALIGN_KEEP_TILES_BYTES / (int64_t)bytes);
  p->kept_tiles = dalign_arena_take(a, bytes * (size_t)p->kept_tile_count);
}

/* The workspace is made for the largest item; each item cuts it by its own lengths. */
static void FN(cut_gradient_)(problem *p, dalign_arena *a, const dalign_softdtw_args *args, int64_t n, int64_t m,
                              int64_t keep_every) {
  dalign_arena state = {dalign_arena_take(a, p->state_bytes), 0};
  if (state.base) FN(cut_state_)(p, &state, n, m, args->band, keep_every);
  FN(cut_kept_tiles_)(p, a, args, n, m);
}

static void FN(cut_tables_)(problem *p, dalign_arena *a, int64_t n, int64_t m) {
  const size_t groups = (size_t)FN(group_count_)(n), rows = groups * GROUP_ROWS, columns = (size_t)m;
  p->lattice.low = dalign_arena_take(a, sizeof(int64_t) * rows);
  p->lattice.high = dalign_arena_take(a, sizeof(int64_t) * rows);
  p->group = dalign_arena_take(a, sizeof(group_plan) * groups);
  p->live_m = dalign_arena_take(a, sizeof(REAL) * columns);
  p->live_e = dalign_arena_take(a, sizeof(double) * columns);
  for (int k = 0; k < 2; k++) {
    p->below_m[k] = dalign_arena_take(a, sizeof(REAL) * columns);
    p->below_e[k] = dalign_arena_take(a, sizeof(double) * columns);
  }
  p->group_mean_cost = dalign_arena_take(a, sizeof(double) * groups);
  p->forward_done = dalign_arena_take(a, sizeof(_Atomic int64_t) * groups);
  p->backward_done = dalign_arena_take(a, sizeof(_Atomic int64_t) * groups);
}

/* Shared memory for problems up to the shape of args, whose state (where the caller keeps it) has that many bytes. */
static size_t FN(shared_bytes_)(const dalign_softdtw_args *args, dalign_pass pass, size_t state_bytes) {
  if (args->n < 1 || args->m < 1) return 0;
  problem p;
  dalign_arena a = dalign_arena_over(NULL);
  dalign_arena_take(&a, sizeof(problem));
  p.state_bytes = pass == DALIGN_GRADIENT ? FN(state_for_shape_)(args->n, args->m, args->band) : state_bytes;
  const int64_t keep_every = FN(choose_keep_every_)(args->n, args->m, args->band, p.state_bytes);
  FN(cut_tables_)(&p, &a, args->n, args->m);
  FN(cut_slots_)(&p, &a, args->n, args->m, keep_every);
  if (pass == DALIGN_GRADIENT) FN(cut_gradient_)(&p, &a, args, args->n, args->m, keep_every);
  const size_t frames =
      args->cost ? 0 : FN(dalign_features_bytes)(args->metric, args->n, args->m, args->d, 1) + DALIGN_ALIGNMENT;
  return dalign_arena_bytes(&a) + frames;
}

static void FN(cut_worker_)(worker *w, dalign_arena *a) {
  const size_t line = sizeof(REAL) * (TILE_STEPS + 2 * LANES);
  w->own_tile = dalign_arena_take(a, sizeof(REAL) * FN(tile_numbers_)(1));
  for (int k = 0; k < 2; k++) {
    w->in_m[k] = dalign_arena_take(a, line), w->in_e[k] = dalign_arena_take(a, line);
    w->out_m[k] = dalign_arena_take(a, line), w->out_e[k] = dalign_arena_take(a, line);
  }
  w->adjoint = dalign_arena_take(a, sizeof(REAL) * 2 * EDGE_NUMBERS);
  w->left_m = dalign_arena_take(a, sizeof(REAL) * EDGE_NUMBERS); /* an edge, as one piece */
  if (!w->left_m) return;
  w->left_e = w->left_m + GROUP_ROWS, w->diagonal_m = w->left_e + GROUP_ROWS;
  w->diagonal_e = w->diagonal_m + GROUP_ROWS;
}

static size_t FN(worker_bytes_)(const dalign_softdtw_args *args) {
  worker w;
  dalign_arena a = dalign_arena_over(NULL);
  (void)args;
  dalign_arena_take(&a, sizeof(worker));
  FN(cut_worker_)(&w, &a);
  return dalign_arena_bytes(&a);
}

/* ------------------------------------------------------------------------------------------------ groups */

/* Plans every group; leaves how many elements and edges of the state they use. */
static void FN(plan_groups_)(problem *p, int64_t *used_elements, int64_t *used_edges) {
  lattice_view *l = &p->lattice;
  int64_t elements = 0, edges = 0;
  FN(set_band_)(l, p->args.band, 0);
  for (int64_t g = 0; g < p->lattice.groups; g++) {
    group_plan *group = &p->group[g];
    const int64_t bottom = FN(minimum_)((g + 1) * GROUP_ROWS, l->n) - 1;
    group->strips = FN(strips_of_)(l, g);
    FN(group_steps_)(l, g, &group->begin, &group->end);
    group->tiles = (int)FN(tiles_of_)(group->begin, group->end);
    group->row = elements, group->edge = edges, group->kept_tile = -1;
    if (p->keep_every == 1) edges += group->tiles;
    if (g < p->lattice.groups - 1 && (g + 1) % p->keep_every == 0)
      elements += p->lattice.high[bottom] - p->lattice.low[bottom] + 1;
  }
  *used_elements = elements, *used_edges = edges;
}

/* The last groups are the first ones that backward comes to, when their tiles are still in the cache. */
static void FN(plan_kept_tiles_)(problem *p) {
  int64_t used = 0;
  if (p->keep_every > 1) return; /* these sweep forward once more anyway */
  for (int64_t g = p->lattice.groups - 1; g >= 0 && used + p->group[g].tiles <= p->kept_tile_count; g--) {
    p->group[g].kept_tile = used;
    used += p->group[g].tiles;
  }
}

/* State has room for the longest items of the shape. What this one leaves becomes zero: same input, same bits. */
static void FN(clear_rest_of_state_)(problem *p, int64_t elements, int64_t edges) {
  char *const pieces[] = {(char *)p->state,       (char *)p->state_row_m,     (char *)p->state_row_e,
                          (char *)p->state_edges, (char *)p->state_edge_base, (char *)p->state + p->state_bytes};
  const size_t used[] = {0, sizeof(REAL) * (size_t)elements, sizeof(double) * (size_t)elements,
                         sizeof(REAL) * (size_t)edges * EDGE_NUMBERS, sizeof(double) * (size_t)edges};
  for (int i = 0; i < 5; i++) memset(pieces[i] + used[i], 0, (size_t)(pieces[i + 1] - pieces[i]) - used[i]);
}

/* ------------------------------------------------------------------------------------------------ where things lie */

static row_view FN(row_at_)(const problem *p, int64_t g, REAL *m, double *e, int64_t origin) {
  const int64_t bottom = FN(minimum_)((g + 1) * GROUP_ROWS, p->lattice.n) - 1;
  row_view row = {m, e, p->lattice.low[bottom], p->lattice.high[bottom], origin};
  return row;
}

static int FN(row_is_kept_)(const problem *p, int64_t g) {
  return p->state && g < p->lattice.groups - 1 && (g + 1) % p->keep_every == 0;
}

static row_view FN(kept_row_)(const problem *p, int64_t g) {
  const int64_t at = p->group[g].row;
  row_view row = FN(row_at_)(p, g, p->state_row_m + at, p->state_row_e + at, 0);
  row.origin = row.low;
  return row;
}

static int64_t FN(slot_of_)(const problem *p, int64_t g) {
  return g / p->keep_every % 2 * p->keep_every + g % p->keep_every;
}

/* The bottom row of group g as the group below reads it (and as group g writes it, besides keeping it). */
static row_view FN(handed_row_)(const problem *p, int64_t g) {
  if (p->keep_every == 1 && FN(row_is_kept_)(p, g)) return FN(kept_row_)(p, g);
  if (p->pass == DALIGN_FORWARD) return FN(row_at_)(p, g, p->live_m, p->live_e, 0);
  if (FN(row_is_kept_)(p, g)) return FN(kept_row_)(p, g);
  const int64_t at = FN(slot_of_)(p, g) * p->lattice.m;
  return FN(row_at_)(p, g, p->slot_row_m + at, p->slot_row_e + at, 0);
}

/* Edge of tile k of group g, or NULL where none is kept in this pass. */
static REAL *FN(edge_of_)(const problem *p, int64_t g, int k, double **base) {
  if (p->pass == DALIGN_FORWARD && (!p->state || p->keep_every > 1)) return NULL;
  if (p->keep_every == 1) {
    const int64_t at = p->group[g].edge + k;
    *base = p->state_edge_base + at;
    return p->state_edges + at * EDGE_NUMBERS;
  }
  const int64_t at = FN(slot_of_)(p, g) * p->slot_edge_count + k;
  *base = p->slot_edge_base + at;
  return p->slot_edges + at * EDGE_NUMBERS;
}

/* Points the worker at tile k of group g; whether it is a kept one. */
static int FN(use_tile_)(const problem *p, worker *w, int64_t g, int k) {
  const size_t part = TILE_STRIPS * TILE_PITCH * LANES;
  const int64_t first = p->group[g].kept_tile;
  w->cost = first < 0 ? w->own_tile : p->kept_tiles + (size_t)(first + k) * FN(tile_numbers_)(p->weighted);
  w->prefix_m = w->cost + part;
  w->prefix_e = w->prefix_m + part;
  w->mean_weight = w->prefix_e + part; /* beyond the tile, and not used, where steps have no weights */
  return first >= 0;
}
