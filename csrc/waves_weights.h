/* waves_weights.h: step weights in the order of lanes (part of waves.h). */

/* Element of the fetched weights where lane 0 of wave t lies. */
static inline int64_t FN(weight_shift_)(const waves *w, int64_t t) {
  const dalign_ddtw_args *a = w->it.args;
  if (w->by_wave) return w->margin - w->lane;
  const int turned = w->order == WAVES_DIAGONALS && a->weights && a->weight_strides[2];
  return LANES + (turned ? w->it.m - 1 - t : 0);
}

static inline const REAL *FN(weights_row_)(const waves *w, const REAL *array, int which, int64_t t) {
  return array + which * w->weight_length + FN(weight_shift_)(w, t);
}

static inline void FN(set_weight_)(waves *w, int which, int64_t at, double weight) {
  w->class_weights[which * w->weight_length + at] = weight < INFINITY ? (REAL)weight : -1;
  w->allow[which * w->weight_length + at] = weight < INFINITY;
}

/* Weights of every fitting step, blocked ones as -1; in the order of lanes, so backwards where columns run down the lanes
 * of a diagonal. */
static void FN(fetch_weights_)(waves *w) {
  const int64_t *stride = w->it.args->weight_strides;
  const int along_x = w->it.args->weights && stride[1], along_y = w->it.args->weights && stride[2];
  const int turned = w->order == WAVES_DIAGONALS && along_y;
  const int64_t count = along_x ? w->it.n : along_y ? w->it.m : w->weight_length - 2 * LANES;
  for (int k = 0; k < w->steps; k++) {
    for (int64_t at = 0; at < w->weight_length; at++) FN(set_weight_)(w, k, at, 1);
    for (int64_t at = 0; at < count; at++) {
      const int64_t index = turned ? w->it.m - 1 - at : at;
      FN(set_weight_)(w, k, LANES + at, ddtw_weight(&w->it, along_x ? index : 0, along_y ? index : 0, w->step[k]));
    }
  }
}

/* Whether two steps have the same weights, but for blocked cells. */
static int FN(same_weights_)(const waves *w, const REAL *a, const REAL *b) {
  int same = 1;
  for (int64_t at = LANES; at < w->weight_length - LANES; at++) same &= a[at] < 0 || b[at] < 0 || a[at] == b[at];
  return same;
}

/* Steps of the same weights become one class: its exponentials are computed once. */
static void FN(sort_classes_)(waves *w) {
  int of_step[DALIGN_DDTW_STEPS];
  w->classes = 0;
  for (int k = 0; k < w->steps; k++) {
    const REAL *own = w->class_weights + k * w->weight_length;
    int g = 0;
    while (g < w->classes && !FN(same_weights_)(w, w->class_weights + g * w->weight_length, own)) g++;
    REAL *class = w->class_weights + g * w->weight_length;
    for (int64_t at = 0; at < w->weight_length; at++)
      class[at] = g < w->classes && class[at] >= 0 ? class[at] : own[at];
    if (g == w->classes) w->classes++;
    of_step[k] = g;
  }
  w->channels = 0;
  for (int k = 0; k < w->steps; k++) {
    int masked = 0, c = 0;
    for (int64_t at = 0; at < w->weight_length; at++) masked |= w->allow[k * w->weight_length + at] == 0;
    while (c < w->channels && (masked || w->masked[c] || w->class_of[c] != of_step[k])) c++;
    if (c == w->channels) {
      w->channels++;
      w->class_of[c] = of_step[k];
      w->masked[c] = masked;
      if (c != k) /* a channel's row never lies behind its step's */
        memcpy(w->allow + c * w->weight_length, w->allow + k * w->weight_length,
               sizeof(REAL) * (size_t)w->weight_length);
    }
    w->channel[k] = c;
  }
}

static void FN(close_classes_)(waves *w, double *largest) {
  w->unit = w->classes <= 1;
  for (int g = 0; g < w->classes; g++)
    for (int64_t at = LANES; at < w->weight_length - LANES; at++) {
      REAL *weight = w->class_weights + g * w->weight_length + at;
      if (*weight > *largest) *largest = *weight;
      if (*weight < 0)
        *weight = w->unit ? 1 : 0; /* a blocked cell's, which counts for nothing */
      else
        w->unit &= *weight == 1;
    }
}

/* All weights of one item that stay, or where they come wave by wave, the largest of all. */
static double FN(prepare_weights_)(waves *w) {
  double largest = 1;
  if (!w->by_wave) {
    FN(fetch_weights_)(w);
    FN(sort_classes_)(w);
    FN(close_classes_)(w, &largest);
    return largest;
  }
  w->classes = w->channels = w->steps, w->unit = 0;
  for (int k = 0; k < w->steps; k++) w->channel[k] = w->class_of[k] = k, w->masked[k] = 1;
  const int64_t rows = w->it.args->weight_strides[1] ? w->it.n : 1,
                columns = w->it.args->weight_strides[2] ? w->it.m : 1;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      for (int k = 0; k < w->steps; k++) {
        const double weight = ddtw_weight(&w->it, i, j, w->step[k]);
        if (weight < INFINITY && weight > largest) largest = weight;
      }
  return largest;
}

static void FN(fetch_weights_of_wave_)(waves *w, int64_t t) {
  if (!w->by_wave) return;
  const int64_t low = FN(low_lane_)(w, t), high = FN(high_lane_)(w, t), shift = FN(weight_shift_)(w, t);
  for (int k = 0; k < w->steps; k++) {
    REAL *weights = w->class_weights + k * w->weight_length + shift, *allow = w->allow + k * w->weight_length + shift;
    for (int64_t lane = FN(begin_)(w, t); lane < FN(end_)(w, t); lane++) {
      const int inside = lane >= low && lane <= high;
      const double weight =
          inside ? ddtw_weight(&w->it, FN(row_of_)(w, t, lane), FN(column_of_)(w, t, lane), w->step[k]) : 0;
      weights[lane] = weight < INFINITY ? (REAL)weight : 0;
      allow[lane] = weight < INFINITY;
    }
  }
}
