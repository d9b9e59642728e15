/* tap_layers.h: layers over rows of a pair, forward and back, directly. Included once per element type. */

/* Rows [begin, end) of map 1, whose frame is zero already: from Dt, or what is known of it, then from D. */
static void FN(convolve_first_layer_)(const tap_worker *w, const tap_slot *s, int64_t begin, int64_t end) {
  const FN(tap_weights) *t = &w->weights[0];
  const tap_layer *layer = &w->plan.layer[0];
  const tap_map base = FN(ground_map_)(s, w->ground.base);
  const REAL *of_positions = t->forward + layer->kernel * layer->kernel * t->wide_out;
  tap_conv c = {.kernel = layer->kernel, .channels = 1, .wide = t->wide_out, .out = &s->map[1], .relu = 1};
  if (s->grounded) {
    c.base = &base, c.inputs = 1, c.in[0] = &s->map[0], c.weights[0] = t->forward;
  } else {
    c.bias = t->bias, c.inputs = 2, c.in[0] = &s->position, c.weights[0] = of_positions;
    c.in[1] = &s->map[0], c.weights[1] = t->forward;
  }
  FN(convolve_map_)(&c, &s->grid, begin, end);
}

/* The same of map l + 1. */
static void FN(convolve_layer_)(const tap_worker *w, const tap_slot *s, int l, int64_t begin, int64_t end) {
  const FN(tap_weights) *t = &w->weights[l];
  const tap_layer *layer = &w->plan.layer[l];
  const tap_conv c = {.kernel = layer->kernel,
                      .channels = layer->in,
                      .inputs = 1,
                      .in = {&s->map[l]},
                      .wide = t->wide_out,
                      .weights = {t->forward},
                      .bias = t->bias,
                      .out = &s->map[l + 1],
                      .relu = 1};
  FN(convolve_map_)(&c, &s->grid, begin, end);
}

/* What rows [begin, end) of the last map add to g, which begins with the bias. */
static void FN(add_gap_)(const tap_worker *w, const tap_slot *s, int64_t begin, int64_t end) {
  const int last = w->plan.last;
  const tap_layer *layer = &w->plan.layer[last];
  const FN(tap_narrow) c = {&s->map[last], layer->kernel, layer->in,  w->weights[last].one, FN(taps_)(layer->kernel),
                            s->planes.gap, s->planes.row, w->products};
  FN(convolve_to_one_)(&c, &s->grid, begin, end);
}

/* Gradient of the last map from that of the last layer's output, and sums for the layer's weights. */
static void FN(last_layer_back_)(tap_worker *w, const tap_slot *s, int64_t begin, int64_t end) {
  const int last = w->plan.last;
  const tap_map to = FN(gradient_of_)(s, last);
  const tap_layer *layer = &w->plan.layer[last];
  const FN(tap_weights) *t = &w->weights[last];
  const tap_conv c = {.kernel = layer->kernel,
                      .channels = 1,
                      .inputs = 1,
                      .in = {&s->last},
                      .wide = t->wide_in,
                      .weights = {t->backward},
                      .out = &to,
                      .mask = &s->map[last]};
  FN(add_weight_sums_)(&w->sums[last], 0, &s->last, layer->kernel, 1, &s->map[last], s->grid.m, begin, end);
  FN(convolve_map_)(&c, &s->grid, begin, end);
}

/* The same for a layer between. */
static void FN(layer_back_)(tap_worker *w, const tap_slot *s, int l, int64_t begin, int64_t end) {
  const tap_map from = FN(gradient_of_)(s, l + 1), to = FN(gradient_of_)(s, l);
  const tap_layer *layer = &w->plan.layer[l];
  const FN(tap_weights) *t = &w->weights[l];
  const tap_conv c = {.kernel = layer->kernel,
                      .channels = layer->out,
                      .inputs = 1,
                      .in = {&from},
                      .wide = t->wide_in,
                      .weights = {t->backward},
                      .out = &to,
                      .mask = &s->map[l]};
  FN(add_bias_sums_)(&w->sums[l], &from, s->grid.m, begin, end);
  FN(add_weight_sums_)(&w->sums[l], 0, &s->map[l], layer->kernel, layer->in, &from, s->grid.m, begin, end);
  FN(convolve_map_)(&c, &s->grid, begin, end);
}

/* From the first layer's output to D. */
static void FN(first_layer_back_)(tap_worker *w, const tap_slot *s, int64_t begin, int64_t end) {
  const tap_layer *layer = &w->plan.layer[0];
  const tap_map from = FN(gradient_of_)(s, 1);
  const FN(tap_narrow) c = {&from,    layer->kernel, layer->out, w->weights[0].one_back, FN(taps_)(layer->kernel),
                            s->slope, s->planes.row, w->products};
  FN(add_bias_sums_)(&w->sums[0], &from, s->grid.m, begin, end);
  FN(add_weight_sums_)(&w->sums[0], 0, &s->map[0], layer->kernel, 1, &from, s->grid.m, begin, end);
  if (s->summed)
    FN(add_to_ground_)(w, s, &from, begin, end);
  else
    FN(add_weight_sums_)(&w->sums[0], layer->kernel * layer->kernel, &s->position, layer->kernel, 1, &from, s->grid.m,
                         begin, end);
  FN(convolve_to_one_)(&c, &s->grid, begin, end);
}
