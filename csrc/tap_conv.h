/* tap_conv.h: direct convolution of padded maps and its adjoints. Included once per element type. */
#undef tap_map
#undef tap_conv
#define tap_map FN(tap_map)
#define tap_conv FN(tap_conv)

/* Channels of a pixel lie together: pixel (i, j), counted without the frame, begins at at + (i + pad) row + (j + pad) step.
 * A window has room for some rows alone, a power of two, that come round again: there (i + pad) & turn takes i + pad's place. */
typedef struct {
  REAL *at;
  int64_t row, step, pad, turn; /* turn -1: all rows are there */
} tap_map;

static REAL *FN(pixel_)(const tap_map *map, int64_t i, int64_t j) {
  return map->at + ((i + map->pad) & map->turn) * map->row + (j + map->pad) * map->step;
}

/* Numbers of a row of channels: whole pairs of vectors. */
static int64_t FN(channels_)(int64_t channels) { return tap_up(channels, TAP_VECTORS * LANES); }

static void FN(clear_)(REAL *numbers, int64_t count) {
  if (count > 0) memset(numbers, 0, (size_t)count * sizeof(REAL));
}

/* Zeros all around the n by m pixels; in a window everywhere. */
static void FN(clear_frame_)(const tap_map *map, const tap_grid *g) {
  if (map->turn >= 0) {
    FN(clear_)(map->at, (map->turn + 1) * map->row);
    return;
  }
  FN(clear_)(map->at, g->pad * map->row);
  for (int64_t i = 0; i < g->n; i++) {
    FN(clear_)(map->at + (i + g->pad) * map->row, g->pad * map->step);
    FN(clear_)(FN(pixel_)(map, i, g->m), (g->columns - g->pad - g->m) * map->step);
  }
  FN(clear_)(map->at + (g->n + g->pad) * map->row, (g->rows - g->pad - g->n) * map->row);
}

/* ------------------------------------------------------------------------------------------------ many outputs
 *
 *   out(i, j) = relu(start + sum over taps and channels of in(i + ty - k/2, j + tx - k/2, c) w[ty][tx][c])
 *
 * or the sum alone, or, going back, the sum where mask > 0. The first layer has two inputs of one channel each. */
typedef struct {
  int64_t kernel, channels; /* of an input */
  int inputs;
  const tap_map *in[2];
  const REAL *weights[2]; /* (kernel, kernel, channels, wide) */
  int64_t wide;
  const tap_map *base; /* what sums start with */
  const REAL *bias;    /* (wide,), without a base; NULL: zeros */
  const tap_map *out, *mask;
  int relu;
} tap_conv;

/* Channels, and where they fill their pixel a row of taps too, lie in one run. */
DALIGN_INLINE void FN(convolve_)(const tap_conv *c, vec *sums, int pixels, int input, int64_t i, int64_t j,
                                 int64_t step, int64_t first) {
  const int filled = step == c->channels;
  const int64_t runs = filled ? 1 : c->kernel, run = filled ? c->kernel * c->channels : c->channels;
  const REAL *in = FN(pixel_)(c->in[input], i - c->kernel / 2, j - c->kernel / 2), *w = c->weights[input] + first;
  for (int64_t ty = 0; ty < c->kernel; ty++, in += c->in[input]->row)
    for (int64_t r = 0; r < runs; r++, w += run * c->wide)
      FN(add_products_)(sums, pixels, TAP_VECTORS, in + r * step, step, w, c->wide, run);
}

DALIGN_INLINE void FN(start_block_)(const tap_conv *c, vec *sums, int pixels, int64_t i, int64_t j, int64_t first) {
  const REAL *from = c->base ? FN(pixel_)(c->base, i, j) + first : c->bias ? c->bias + first : NULL;
  const int64_t step = c->base ? c->wide : 0;
  DALIGN_UNROLL
  for (int k = 0; k < pixels * TAP_VECTORS; k++)
    sums[k] = from ? v_loadu(from + k / TAP_VECTORS * step + k % TAP_VECTORS * LANES) : v_zero();
}

DALIGN_INLINE void FN(finish_block_)(const tap_conv *c, const vec *sums, int pixels, int64_t i, int64_t j,
                                     int64_t first) {
  REAL *out = FN(pixel_)(c->out, i, j) + first;
  const REAL *mask = c->mask ? FN(pixel_)(c->mask, i, j) + first : NULL;
  const vec floor = v_set1(c->relu ? 0 : -(REAL)INFINITY);
  DALIGN_UNROLL
  for (int k = 0; k < pixels * TAP_VECTORS; k++) {
    const int64_t at = k / TAP_VECTORS * c->wide + k % TAP_VECTORS * LANES;
    v_storeu(out + at, mask ? v_keep_below(sums[k], v_zero(), v_loadu(mask + at)) : v_max(sums[k], floor));
  }
}

DALIGN_INLINE void FN(convolve_block_)(const tap_conv *c, int64_t i, int64_t j, int64_t step, int pixels) {
  for (int64_t first = 0; first < c->wide; first += TAP_VECTORS * LANES) {
    vec sums[TAP_MOST_PIXELS * TAP_VECTORS];
    FN(start_block_)(c, sums, pixels, i, j, first);
    for (int k = 0; k < c->inputs; k++) FN(convolve_)(c, sums, pixels, k, i, j, step, first);
    FN(finish_block_)(c, sums, pixels, i, j, first);
  }
}

DALIGN_INLINE void FN(convolve_rows_)(const tap_conv *c, const tap_grid *g, int64_t begin, int64_t end, int64_t step) {
  const int64_t columns = TAP_TILE * g->across;
  for (int64_t i = begin; i < end; i++) {
    int64_t j = 0;
    for (; j + TAP_PIXELS <= columns; j += TAP_PIXELS) FN(convolve_block_)(c, i, j, step, TAP_PIXELS);
    for (; j < g->m; j += TAP_FEW) FN(convolve_block_)(c, i, j, step, TAP_FEW);
    FN(clear_)(FN(pixel_)(c->out, i, g->m), (columns - g->m) * c->wide);
  }
}

/* Rows [begin, end). Known distances between pixels become parts of addresses. */
static void FN(convolve_map_)(const tap_conv *c, const tap_grid *g, int64_t begin, int64_t end) {
  switch (c->in[0]->step) {
    case 1: FN(convolve_rows_)(c, g, begin, end, 1); return;
    case 32: FN(convolve_rows_)(c, g, begin, end, 32); return;
    case 64: FN(convolve_rows_)(c, g, begin, end, 64); return;
    default: FN(convolve_rows_)(c, g, begin, end, c->in[0]->step);
  }
}

/* ------------------------------------------------------------------------------------------------ one output
 *
 * Taps lie in the lanes: products[j][t] = sum_c in(i, j, c) w[c][t] are a row's parts of all rows around, summed along
 * diagonals: out(i - (ty - k/2), j) += sum_tx products[j + tx - k/2][ty k + tx]. */
typedef struct {
  const tap_map *in;
  int64_t kernel, channels;
  const REAL *weights; /* (channels, wide) */
  int64_t wide;        /* kernel^2, in whole vectors */
  REAL *out;           /* (n, row) */
  int64_t row;
  REAL *products; /* (columns, wide) */
} FN(tap_narrow);

static int64_t FN(taps_)(int64_t kernel) { return tap_up(kernel * kernel, LANES); }

DALIGN_INLINE void FN(multiply_taps_block_)(const FN(tap_narrow) * c, const REAL *in, int64_t step, REAL *out,
                                            int64_t first, int pixels, int vectors) {
  vec sums[TAP_MOST_PIXELS * TAP_VECTORS];
  DALIGN_UNROLL
  for (int k = 0; k < pixels * vectors; k++) sums[k] = v_zero();
  FN(add_products_)(sums, pixels, vectors, in, step, c->weights + first, c->wide, c->channels);
  DALIGN_UNROLL
  for (int p = 0; p < pixels; p++) DALIGN_UNROLL
  for (int v = 0; v < vectors; v++) v_storeu(out + p * c->wide + first + v * LANES, sums[p * vectors + v]);
}

DALIGN_INLINE void FN(multiply_taps_)(const FN(tap_narrow) * c, const REAL *in, int64_t step, REAL *out, int pixels) {
  int64_t first = 0;
  for (; first + TAP_VECTORS * LANES <= c->wide; first += TAP_VECTORS * LANES)
    FN(multiply_taps_block_)(c, in, step, out, first, pixels, TAP_VECTORS);
  for (; first < c->wide; first += LANES) FN(multiply_taps_block_)(c, in, step, out, first, pixels, 1);
}

DALIGN_INLINE void FN(multiply_row_)(const FN(tap_narrow) * c, const tap_grid *g, int64_t i, int64_t step) {
  const int64_t columns = TAP_TILE * g->across, half = c->kernel / 2;
  REAL *out = c->products + half * c->wide;
  const REAL *in = FN(pixel_)(c->in, i, 0);
  int64_t j = 0;
  FN(clear_)(c->products, half * c->wide);
  for (; j + TAP_PIXELS <= columns; j += TAP_PIXELS)
    FN(multiply_taps_)(c, in + j * step, step, out + j * c->wide, TAP_PIXELS);
  for (; j < g->m; j += TAP_FEW) FN(multiply_taps_)(c, in + j * step, step, out + j * c->wide, TAP_FEW);
  FN(clear_)(out + g->m * c->wide, half * c->wide);
}

DALIGN_INLINE void FN(add_diagonals_)(const REAL *products, int64_t wide, int64_t kernel, REAL *out, int64_t m) {
  for (int64_t j = 0; j < m; j++) {
    REAL sum = 0;
    DALIGN_UNROLL
    for (int64_t t = 0; t < kernel; t++) sum += products[(j + t) * wide + t];
    out[j] += sum;
  }
}

static void FN(add_diagonals_of_)(int64_t kernel, const REAL *products, int64_t wide, REAL *out, int64_t m) {
  switch (kernel) {
    case 3: FN(add_diagonals_)(products, wide, 3, out, m); return;
    case 5: FN(add_diagonals_)(products, wide, 5, out, m); return;
    default: FN(add_diagonals_)(products, wide, kernel, out, m);
  }
}

/* Adds what rows [begin, end) of the input bring. */
static void FN(convolve_to_one_)(const FN(tap_narrow) * c, const tap_grid *g, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    switch (c->in->step) {
      case 32: FN(multiply_row_)(c, g, i, 32); break;
      case 64: FN(multiply_row_)(c, g, i, 64); break;
      default: FN(multiply_row_)(c, g, i, c->in->step);
    }
    for (int64_t ty = 0; ty < c->kernel; ty++) {
      const int64_t to = i - (ty - c->kernel / 2);
      if (to >= 0 && to < g->n)
        FN(add_diagonals_of_)(c->kernel, c->products + ty * c->kernel, c->wide, c->out + to * c->row, g->m);
    }
  }
}

/* ------------------------------------------------------------------------------------------------ sums for weights */

/* Sums in REAL, taken over into doubles before they grow long. */
typedef struct {
  REAL *sums;
  double *total;
  double *bias; /* (wide,) */
  int64_t rows, wide;
  int64_t added, limit; /* pixels (or tiles) since the last time, and the most */
} FN(tap_sums);

static void FN(take_over_)(FN(tap_sums) * s) {
  for (int64_t k = 0; s->added && k < s->rows * s->wide; k++) {
    s->total[k] += (double)s->sums[k];
    s->sums[k] = 0;
  }
  s->added = 0;
}

static void FN(count_added_)(FN(tap_sums) * s, int64_t added) {
  s->added += added;
  if (s->added >= s->limit) FN(take_over_)(s);
}

/* sums[ty][tx][c], rows from `row` on, += sum over pixels of rows [begin, end) of in(i + ty - k/2, j + tx - k/2, c)
 * out(i, j). */
static void FN(add_weight_sums_)(FN(tap_sums) * s, int64_t row, const tap_map *in, int64_t kernel, int64_t channels,
                                 const tap_map *out, int64_t m, int64_t begin, int64_t end) {
  const int filled = in->step == channels;
  const int64_t runs = filled ? 1 : kernel, run = filled ? kernel * channels : channels;
  for (int64_t i = begin; i < end; i++) {
    REAL *sums = s->sums + row * s->wide;
    for (int64_t ty = 0; ty < kernel; ty++)
      for (int64_t r = 0; r < runs; r++, sums += run * s->wide)
        FN(add_outer_)(sums, s->wide, run, FN(pixel_)(in, i + ty - kernel / 2, r - kernel / 2), in->step,
                       FN(pixel_)(out, i, 0), out->step, m);
    FN(count_added_)(s, m);
  }
}

static void FN(add_bias_sums_)(FN(tap_sums) * s, const tap_map *out, int64_t m, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++)
    for (int64_t first = 0; first < out->step; first += LANES) {
      const REAL *row = FN(pixel_)(out, i, 0) + first;
      vec sum = v_zero();
      REAL lanes[LANES];
      for (int64_t j = 0; j < m; j++) sum = v_add(sum, v_loadu(row + j * out->step));
      v_storeu(lanes, sum);
      for (int r = 0; r < LANES; r++) s->bias[first + r] += (double)lanes[r];
    }
}
