/* tap_pair.h: the way of pairs through the layers, forward and back. Included once per element type. */

/* ------------------------------------------------------------------------------------------------ forward */

static void FN(fill_planes_)(const tap_worker *w, const tap_slot *s) {
  const tap_grid *g = &s->grid;
  const FN(tap_frames) *f = &w->frames, *e = &w->energies;
  FN(fill_distances_)(f, FN(frames_of_x_)(w, f, s->pair), FN(frames_of_y_)(w, f, s->pair), g->n, g->m,
                      s->planes.distance);
  if (w->plan.args->energy_d)
    FN(fill_distances_)(e, FN(frames_of_x_)(w, e, s->pair), FN(frames_of_y_)(w, e, s->pair), g->n, g->m,
                        s->planes.energy);
}

/* Inputs of the first layer, D and Dt. */
static void FN(fill_first_maps_)(tap_worker *w, tap_slot *s) {
  FN(clear_frame_)(&s->map[0], &s->grid);
  for (int64_t i = 0; i < s->grid.n; i++)
    memcpy(FN(pixel_)(&s->map[0], i, 0), s->planes.distance + i * s->planes.row, (size_t)s->grid.m * sizeof(REAL));
  FN(fill_positions_)(&s->position, &s->grid, s->planes.across);
  FN(take_ground_)(w, s);
  s->drawn = 0;
}

static void FN(give_alignment_)(const tap_worker *w, const tap_slot *s, REAL *result, double factor) {
  const dalign_tap_args *a = w->plan.args;
  REAL *item = result + s->pair * a->n * a->m;
  for (int64_t i = 0; i < s->grid.n; i++) {
    for (int64_t j = 0; j < s->grid.m; j++)
      item[i * a->m + j] = (REAL)factor * s->planes.alignment[i * s->planes.row + j];
    FN(clear_)(item + i * a->m + s->grid.m, a->m - s->grid.m);
  }
  FN(clear_)(item + s->grid.n * a->m, (a->n - s->grid.n) * a->m);
}

static void FN(give_pair_)(const tap_worker *w, const tap_slot *s) {
  const dalign_tap_args *a = w->plan.args;
  double sum = 0;
  for (int64_t i = 0; i < s->grid.n; i++) sum += FN(align_row_)(a, &s->planes, &s->grid, i);
  if (w->back) return;
  if (a->value) ((REAL *)a->value)[s->pair] = (REAL)(sum / (double)s->grid.n);
  if (a->alignment) FN(give_alignment_)(w, s, a->alignment, 1);
  if (a->transport) FN(give_alignment_)(w, s, a->transport, 1 / (double)s->grid.n);
}

/* Layers at the ends go row by row with the tiles of the layer next to them. */
static int FN(goes_with_tiles_)(const tap_plan *p, int l) {
  const int next = l == 0 ? 1 : l - 1;
  return (l == 0 || l == p->last) && p->layer[next].winograd;
}

/* Map l + 1 of all pairs at hand, and behind the last but one g. */
static void FN(go_through_layer_)(const tap_worker *w, int l) {
  for (int s = 0; s < w->slots; s++) FN(clear_frame_)(&w->slot[s].map[l + 1], &w->slot[s].grid);
  if (FN(goes_with_tiles_)(&w->plan, l)) return;
#if DALIGN_F32
  if (w->plan.layer[l].winograd) {
    FN(convolve_tiles_)(w, l);
    return;
  }
#endif
  for (int s = 0; s < w->slots; s++) {
    if (l == 0)
      FN(convolve_first_layer_)(w, &w->slot[s], 0, w->slot[s].grid.n);
    else
      FN(convolve_layer_)(w, &w->slot[s], l, 0, w->slot[s].grid.n);
    if (l + 1 == w->plan.last) FN(add_gap_)(w, &w->slot[s], 0, w->slot[s].grid.n);
  }
}

static void FN(start_pair_)(tap_worker *w, tap_slot *s) {
  FN(fill_planes_)(w, s);
  if (!w->plan.layers) return;
  FN(fill_first_maps_)(w, s);
  for (int64_t k = 0; k < s->grid.n * s->planes.row; k++) s->planes.gap[k] = w->weights[w->plan.last].bias[0];
}

static void FN(finish_pair_)(const tap_worker *w, const tap_slot *s) {
  REAL *gap = s->planes.gap;
  for (int64_t k = 0; w->plan.layers && w->plan.args->last_relu && k < s->grid.n * s->planes.row; k++)
    gap[k] = gap[k] <= 0 ? 0 : gap[k];
  FN(give_pair_)(w, s);
}

static void FN(go_forward_)(tap_worker *w) {
  for (int s = 0; s < w->slots; s++) FN(start_pair_)(w, &w->slot[s]);
  for (int l = 0; l < w->plan.last; l++) FN(go_through_layer_)(w, l);
  for (int s = 0; s < w->slots; s++) FN(finish_pair_)(w, &w->slot[s]);
}

/* ------------------------------------------------------------------------------------------------ backward */

/* Slots [begin, end) alone, forward; nothing of the ground is needed for them afterwards. */
static void FN(go_forward_again_)(tap_worker *w, int begin, int end) {
  tap_slot *const slot = w->slot;
  const int slots = w->slots;
  w->slot = slot + begin, w->slots = end - begin;
  FN(go_forward_)(w);
  for (int k = 0; k < w->slots; k++) w->slot[k].grounded = 0;
  w->slot = slot, w->slots = slots;
}

/* What was not kept, once more: of some pairs all of it, of the others what is cheap. */
static void FN(restore_)(tap_worker *w) {
  const dalign_tap_args *a = w->plan.args;
  for (int end, k = 0; k < w->slots; k = end + 1) {
    for (end = k; end < w->slots && !FN(is_kept_)(a, w->slot[end].pair); end++) continue;
    if (end > k) FN(go_forward_again_)(w, k, end);
  }
  for (int k = 0; k < w->slots && w->plan.layers; k++) {
    tap_slot *s = &w->slot[k];
    if (!FN(is_kept_)(a, s->pair)) continue;
    FN(fill_first_maps_)(w, s);
    FN(clear_frame_)(&s->map[1], &s->grid);
    if (!FN(goes_with_tiles_)(&w->plan, 0)) FN(convolve_first_layer_)(w, s, 0, s->grid.n);
  }
}

/* The part of dc that is dE, into dD where E is D. */
static void FN(add_energy_slope_)(const tap_worker *w, const tap_slot *s, int64_t i, const double *cost_slope) {
  REAL *to = (s->energy_slope ? s->energy_slope : s->slope) + i * s->planes.row;
  for (int64_t j = 0; j < s->grid.m; j++) to[j] += (REAL)(w->plan.args->energy_scale * cost_slope[j]);
}

/* The part that is the gradient of the last layer's output; their sum. */
static double FN(give_gap_slope_)(const tap_worker *w, const tap_slot *s, int64_t i, const double *cost_slope) {
  const REAL *gap = s->planes.gap + i * s->planes.row;
  const int relu = w->plan.args->last_relu;
  REAL *to = FN(pixel_)(&s->last, i, 0);
  double sum = 0;
  for (int64_t j = 0; j < s->grid.m; j++) {
    const double part = relu && gap[j] <= 0 ? 0 : cost_slope[j];
    to[j] = (REAL)part;
    sum += part;
  }
  return sum;
}

static void FN(rows_back_)(tap_worker *w, const tap_slot *s) {
  const tap_grid *g = &s->grid;
  const int layers = w->plan.layers;
  FN(clear_)(s->slope, g->n * s->planes.row);
  if (s->energy_slope) FN(clear_)(s->energy_slope, g->n * s->planes.row);
  if (layers) FN(clear_frame_)(&s->last, g);
  for (int64_t i = 0; i < g->n; i++) {
    FN(fill_upstream_)(w->plan.args, &s->planes, g, s->pair, i, w->upstream);
    FN(align_row_back_)(w->plan.args, &s->planes, g, s->pair, i, w->cost_slope, w->upstream,
                        s->slope + i * s->planes.row);
    FN(add_energy_slope_)(w, s, i, w->cost_slope);
    if (layers) w->sums[w->plan.last].bias[0] += FN(give_gap_slope_)(w, s, i, w->cost_slope);
  }
}

static void FN(frames_back_)(const FN(tap_frames) * f, const tap_worker *w, const tap_slot *s, const REAL *distance,
                             REAL *slope, REAL *grad_x, REAL *grad_y) {
  const dalign_tap_args *a = w->plan.args;
  const tap_grid *g = &s->grid;
  if (!grad_x && !grad_y) return;
  FN(divide_by_distances_)(slope, distance, g->n, g->m);
  FN(fill_frame_gradients_)(f, FN(frames_of_x_)(w, f, s->pair), FN(frames_of_y_)(w, f, s->pair), g->n, g->m, slope);
  if (grad_x) FN(give_frames_)(grad_x + s->pair * a->n * f->d, f->grad_x, g->n, a->n, f->d, f->wide);
  if (grad_y) FN(give_frames_)(grad_y + s->pair * a->m * f->d, f->grad_y, g->m, a->m, f->d, f->wide);
}

/* Gradient of map l from that of map l + 1 (of the last layer's output), of all pairs at hand. */
static void FN(go_back_through_layer_)(tap_worker *w, int l) {
#if DALIGN_F32
  if (w->plan.layer[l].winograd) {
    FN(tiles_back_)(w, l);
    return;
  }
#endif
  for (int k = 0; k < w->slots; k++) {
    const tap_slot *s = &w->slot[k];
    const tap_map to = FN(gradient_of_)(s, l);
    if (l > 0) FN(clear_frame_)(&to, &s->grid);
    if (l == w->plan.last)
      FN(last_layer_back_)(w, s, 0, s->grid.n);
    else if (l > 0)
      FN(layer_back_)(w, s, l, 0, s->grid.n);
    else
      FN(first_layer_back_)(w, s, 0, s->grid.n);
  }
}

static void FN(go_back_)(tap_worker *w) {
  const dalign_tap_args *a = w->plan.args;
  FN(restore_)(w);
  for (int k = 0; k < w->slots; k++) {
    if (w->plan.layers) FN(take_sums_)(w, &w->slot[k]);
    FN(rows_back_)(w, &w->slot[k]);
  }
  for (int l = w->plan.last; l >= 0; l--)
    if (!FN(goes_with_tiles_)(&w->plan, l)) FN(go_back_through_layer_)(w, l);
  for (int k = 0; k < w->slots; k++) {
    const tap_slot *s = &w->slot[k];
    FN(frames_back_)(&w->frames, w, s, s->planes.distance, s->slope, a->grad_x, a->grad_y);
    if (s->energy_slope)
      FN(frames_back_)(&w->energies, w, s, s->planes.energy, s->energy_slope, a->grad_energy_x, a->grad_energy_y);
  }
}
