/* tap_weights.h: weights as the convolutions read them, and their gradients as they come out of the sums. Included once per
 * element type. */

/* The arrangements of one layer; NULL where the layer has no use for it. */
typedef struct {
  REAL *forward;             /* (kernel, kernel, in, wide of out) */
  REAL *backward;            /* (kernel, kernel, out, wide of in): turned around, from outputs to inputs */
  REAL *one;                 /* (in, taps) of the last layer */
  REAL *one_back;            /* (out, taps), turned around: of the first layer, from its outputs to D */
  REAL *spectrum, *turned;   /* Winograd: (64, in, wide of out), (64, out, wide of in) */
  REAL *bias;                /* (wide of out,) */
  int64_t wide_in, wide_out; /* channels in whole vectors */
} FN(tap_weights);

static REAL *FN(take_numbers_)(dalign_arena *a, int64_t count) {
  return dalign_arena_take(a, sizeof(REAL) * (size_t)count);
}

static void FN(cut_weights_)(FN(tap_weights) * w, const tap_plan *p, void *prepared, dalign_arena *a) {
  *a = dalign_arena_over(prepared);
  for (int l = 0; l < p->layers; l++) {
    const tap_layer *layer = &p->layer[l];
    const int64_t taps = layer->kernel * layer->kernel;
    FN(tap_weights) *t = &w[l];
    memset(t, 0, sizeof *t);
    t->wide_in = FN(channels_)(layer->in), t->wide_out = FN(channels_)(layer->out);
    t->bias = FN(take_numbers_)(a, t->wide_out);
    if (l < p->last && !layer->winograd) t->forward = FN(take_numbers_)(a, taps * layer->in * t->wide_out);
    if (l > 0 && !layer->winograd) t->backward = FN(take_numbers_)(a, taps * layer->out * t->wide_in);
    if (l == p->last) t->one = FN(take_numbers_)(a, layer->in * FN(taps_)(layer->kernel));
    if (l == 0) t->one_back = FN(take_numbers_)(a, layer->out * FN(taps_)(layer->kernel));
    if (layer->winograd) t->spectrum = FN(take_numbers_)(a, 64 * layer->in * t->wide_out);
    if (layer->winograd) t->turned = FN(take_numbers_)(a, 64 * layer->out * t->wide_in);
  }
}

/* Weight (o, c, tap) of a layer as given goes to to[(tap count_of + one) wide + other]. */
static void FN(arrange_)(REAL *to, int64_t wide, const REAL *weight, const tap_layer *layer, int turned) {
  const int64_t taps = layer->kernel * layer->kernel, inner = turned ? layer->out : layer->in;
  FN(clear_)(to, taps * inner * wide);
  for (int64_t o = 0; o < layer->out; o++)
    for (int64_t c = 0; c < layer->in; c++)
      for (int64_t t = 0; t < taps; t++) {
        const int64_t at = turned ? ((taps - 1 - t) * layer->out + o) * wide + c : (t * layer->in + c) * wide + o;
        to[at] = weight[(o * layer->in + c) * taps + t];
      }
}

/* (in, kernel, kernel, wide): the first layer's inputs one after another. */
static void FN(arrange_first_)(REAL *to, int64_t wide, const REAL *weight, const tap_layer *layer) {
  const int64_t taps = layer->kernel * layer->kernel;
  FN(clear_)(to, layer->in * taps * wide);
  for (int64_t o = 0; o < layer->out; o++)
    for (int64_t k = 0; k < layer->in * taps; k++) to[k * wide + o] = weight[o * layer->in * taps + k];
}

/* Of the last layer's only output, or from the first layer's outputs to its first input. */
static void FN(arrange_one_)(REAL *to, const REAL *weight, const tap_layer *layer, int turned) {
  const int64_t taps = layer->kernel * layer->kernel, wide = FN(taps_)(layer->kernel);
  const int64_t count = turned ? layer->out : layer->in;
  FN(clear_)(to, count * wide);
  for (int64_t c = 0; c < count; c++)
    for (int64_t t = 0; t < taps; t++)
      to[c * wide + t] = turned ? weight[c * layer->in * taps + taps - 1 - t] : weight[c * taps + t];
}

static void FN(prepare_layer_)(FN(tap_weights) * w, const tap_plan *p, int l) {
  const tap_layer *layer = &p->layer[l];
  const REAL *weight = p->args->layer[l].weight;
  FN(clear_)(w->bias, w->wide_out);
  memcpy(w->bias, p->args->layer[l].bias, (size_t)layer->out * sizeof(REAL));
  if (l == 0) FN(arrange_first_)(w->forward, w->wide_out, weight, layer);
  if (l > 0 && w->forward) FN(arrange_)(w->forward, w->wide_out, weight, layer, 0);
  if (w->backward) FN(arrange_)(w->backward, w->wide_in, weight, layer, 1);
  if (w->one) FN(arrange_one_)(w->one, weight, layer, 0);
  if (w->one_back) FN(arrange_one_)(w->one_back, weight, layer, 1);
#if DALIGN_F32
  if (layer->winograd) {
    FN(transform_weights_)(w->spectrum, w->wide_out, weight, layer);
    FN(turn_spectrum_)(w->turned, w->wide_in, w->spectrum, w->wide_out, layer);
  }
#endif
}

/* ------------------------------------------------------------------------------------------------ gradients */

static void FN(cut_sums_)(FN(tap_sums) * s, const tap_plan *p, int l, dalign_arena *a) {
  const tap_layer *layer = &p->layer[l];
  const int64_t taps = layer->kernel * layer->kernel;
  memset(s, 0, sizeof *s);
  s->wide = FN(channels_)(l == p->last ? layer->in : layer->out);
  s->rows = layer->winograd ? 64 * layer->in : l == p->last ? taps : taps * layer->in;
  s->limit = layer->winograd ? 192 : l == 0 || l == p->last ? 1024 : 8192;
  s->sums = FN(take_numbers_)(a, s->rows * s->wide);
  s->total = dalign_arena_take(a, sizeof(double) * (size_t)(s->rows * s->wide));
  s->bias = dalign_arena_take(a, sizeof(double) * (size_t)FN(channels_)(layer->out));
}

static void FN(clear_sums_)(FN(tap_sums) * s, const tap_layer *layer) {
  FN(clear_)(s->sums, s->rows * s->wide);
  memset(s->total, 0, sizeof(double) * (size_t)(s->rows * s->wide));
  memset(s->bias, 0, sizeof(double) * (size_t)FN(channels_)(layer->out));
  s->added = 0;
}

/* The row of a layer's sums that is for channel c and tap t: the first layer has its inputs one after another, the last
 * one's sums run over maps turned around. */
static int64_t FN(sum_of_)(const tap_layer *layer, int first, int last, int64_t c, int64_t t) {
  const int64_t taps = layer->kernel * layer->kernel;
  return last ? taps - 1 - t : first ? c * taps + t : t * layer->in + c;
}

/* Sums of a layer in the order of its weights as given, then its bias. */
static double *FN(give_sums_)(FN(tap_sums) * s, const tap_plan *p, int l, double *to) {
  const tap_layer *layer = &p->layer[l];
  const int64_t taps = layer->kernel * layer->kernel, last = l == p->last;
  FN(take_over_)(s);
#if DALIGN_F32
  if (layer->winograd) FN(untransform_sums_)(to, s->total, s->wide, layer);
#endif
  for (int64_t o = 0; !layer->winograd && o < layer->out; o++)
    for (int64_t c = 0; c < layer->in; c++)
      for (int64_t t = 0; t < taps; t++)
        to[(o * layer->in + c) * taps + t] =
            s->total[FN(sum_of_)(layer, l == 0, last, c, t) * s->wide + (last ? c : o)];
  to += layer->out * layer->in * taps;
  memcpy(to, s->bias, sizeof(double) * (size_t)layer->out);
  return to + layer->out;
}
