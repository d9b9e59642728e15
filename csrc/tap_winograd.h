/* tap_winograd.h: convolution with 5 x 5 taps by way of values at points, F(4 x 4, 5 x 5) of Winograd 1980 (Lavin and Gray
 * 2016): 64 products for 16 outputs instead of 400. Included once per element type.
 *
 * Of a line of taps g and a line of 8 inputs d, the 4 outputs are A^T ((G g) . (B^T d)), where G and A^T evaluate
 * polynomials at the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, each row of G divided by the product of the point's
 * differences from the other finite ones. In two dimensions lines are transformed first, then columns.
 * In float, relative to the outputs' standard deviation, errors are about 2e-6 (direct sums: 1e-7). */

#ifndef DALIGN_TAP_WINOGRAD
#define DALIGN_TAP_WINOGRAD
enum { TAP_POINTS = 8, TAP_FREQUENCIES = 64, TAP_TAPS = 5, TAP_LINE = 16 };

/* G, in the order of points above. */
static void tap_points(double g[TAP_POINTS][TAP_TAPS]) {
  static const double points[TAP_POINTS - 1] = {0, 1, -1, 2, -2, .5, -.5};
  for (int a = 0; a < TAP_POINTS - 1; a++) {
    double power = 1;
    for (int b = 0; b < TAP_POINTS - 1; b++) power /= a == b ? 1 : points[a] - points[b];
    for (int k = 0; k < TAP_TAPS; k++, power *= points[a]) g[a][k] = power;
  }
  for (int k = 0; k < TAP_TAPS; k++) g[TAP_POINTS - 1][k] = k == TAP_TAPS - 1;
}
#endif

/* ------------------------------------------------------------------------------------------------ lines */

DALIGN_INLINE vec FN(times_)(double factor, vec v) { return v_mul(v_set1((REAL)factor), v); }
DALIGN_INLINE vec FN(plus_times_)(vec sum, double factor, vec v) { return v_muladd(v_set1((REAL)factor), v, sum); }

/* o = B^T d */
DALIGN_INLINE void FN(to_points_)(const vec *d, vec *o) {
  static const double outer[3] = {1, 2, .5}, middle[3] = {-4.25, -1.25, -5}, inner[3] = {1, .25, 4};
  o[0] = FN(plus_times_)(v_sub(d[6], d[0]), 5.25, v_sub(d[2], d[4]));
  o[7] = FN(plus_times_)(v_sub(d[7], d[1]), 5.25, v_sub(d[3], d[5]));
  DALIGN_UNROLL
  for (int p = 0; p < 3; p++) {
    const vec even = FN(plus_times_)(FN(plus_times_)(d[6], middle[p], d[4]), inner[p], d[2]);
    const vec odd = FN(times_)(outer[p], FN(plus_times_)(FN(plus_times_)(d[5], middle[p], d[3]), inner[p], d[1]));
    o[2 * p + 1] = v_add(even, odd);
    o[2 * p + 2] = v_sub(even, odd);
  }
}

/* d = B o */
DALIGN_INLINE void FN(to_points_back_)(const vec *o, vec *d) {
  const vec s1 = v_add(o[1], o[2]), s2 = v_add(o[3], o[4]), s3 = v_add(o[5], o[6]);
  const vec t1 = v_sub(o[1], o[2]), t2 = FN(times_)(2, v_sub(o[3], o[4])), t3 = FN(times_)(.5, v_sub(o[5], o[6]));
  const vec near_s = FN(plus_times_)(FN(plus_times_)(s1, .25, s2), 4, s3);
  const vec near_t = FN(plus_times_)(FN(plus_times_)(t1, .25, t2), 4, t3);
  const vec far_s = FN(plus_times_)(FN(plus_times_)(FN(times_)(4.25, s1), 1.25, s2), 5, s3);
  const vec far_t = FN(plus_times_)(FN(plus_times_)(FN(times_)(4.25, t1), 1.25, t2), 5, t3);
  d[0] = v_sub(v_zero(), o[0]);
  d[1] = v_sub(near_t, o[7]);
  d[2] = FN(plus_times_)(near_s, 5.25, o[0]);
  d[3] = v_sub(FN(times_)(5.25, o[7]), far_t);
  d[4] = v_sub(FN(times_)(-5.25, o[0]), far_s);
  d[5] = FN(plus_times_)(v_add(v_add(t1, t2), t3), -5.25, o[7]);
  d[6] = v_add(v_add(o[0], s1), v_add(s2, s3));
  d[7] = o[7];
}

/* y = A^T m */
DALIGN_INLINE void FN(from_points_)(const vec *m, vec *y) {
  const vec s1 = v_add(m[1], m[2]), s2 = v_add(m[3], m[4]), s3 = v_add(m[5], m[6]);
  const vec t1 = v_sub(m[1], m[2]), t2 = v_sub(m[3], m[4]), t3 = v_sub(m[5], m[6]);
  y[0] = v_add(v_add(m[0], s1), v_add(s2, s3));
  y[1] = FN(plus_times_)(FN(plus_times_)(t1, 2, t2), .5, t3);
  y[2] = FN(plus_times_)(FN(plus_times_)(s1, 4, s2), .25, s3);
  y[3] = v_add(m[7], FN(plus_times_)(FN(plus_times_)(t1, 8, t2), .125, t3));
}

/* m = A y */
DALIGN_INLINE void FN(from_points_back_)(const vec *y, vec *m) {
  static const double point[3] = {1, 2, .5};
  m[0] = y[0];
  m[7] = y[3];
  DALIGN_UNROLL
  for (int p = 0; p < 3; p++) {
    const double square = point[p] * point[p];
    const vec even = FN(plus_times_)(y[0], square, y[2]);
    const vec odd = FN(times_)(point[p], FN(plus_times_)(y[1], square, y[3]));
    m[2 * p + 1] = v_add(even, odd);
    m[2 * p + 2] = v_sub(even, odd);
  }
}

/* ------------------------------------------------------------------------------------------------ tiles
 *
 * Values of a block of tiles at the 64 points lie as (point, tile, channel); an odd number of cache lines lies between two
 * points, so that those of one tile spread over the cache. */

/* Four columns of an input tile, whose rows lie anywhere, transformed along the column. */
DALIGN_INLINE void FN(transform_columns_)(REAL *const *in, int64_t at, int64_t step, vec to[TAP_POINTS][TAP_TILE]) {
  for (int c = 0; c < TAP_TILE; c++) {
    vec line[TAP_POINTS], points[TAP_POINTS];
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) line[r] = v_loadu(in[r] + at + c * step);
    FN(to_points_)(line, points);
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) to[r][c] = points[r];
  }
}

DALIGN_INLINE void FN(transform_rows_)(vec left[TAP_POINTS][TAP_TILE], vec right[TAP_POINTS][TAP_TILE], REAL *tile,
                                       int64_t frequency) {
  for (int r = 0; r < TAP_POINTS; r++) {
    vec line[TAP_POINTS], points[TAP_POINTS];
    DALIGN_UNROLL
    for (int c = 0; c < TAP_TILE; c++) line[c] = left[r][c], line[TAP_TILE + c] = right[r][c];
    FN(to_points_)(line, points);
    DALIGN_UNROLL
    for (int k = 0; k < TAP_POINTS; k++) v_storeu(tile + (r * TAP_POINTS + k) * frequency, points[k]);
  }
}

/* The adjoint of both, added to the inputs' gradients. */
DALIGN_INLINE void FN(add_input_tile_)(const REAL *tile, int64_t frequency, REAL *const *in, int64_t first,
                                       int64_t step) {
  vec half[TAP_POINTS][TAP_POINTS];
  for (int c = 0; c < TAP_POINTS; c++) {
    vec points[TAP_POINTS], line[TAP_POINTS];
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) points[r] = v_loadu(tile + (r * TAP_POINTS + c) * frequency);
    FN(to_points_back_)(points, line);
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) half[r][c] = line[r];
  }
  for (int r = 0; r < TAP_POINTS; r++) {
    vec line[TAP_POINTS];
    FN(to_points_back_)(half[r], line);
    DALIGN_UNROLL
    for (int c = 0; c < TAP_POINTS; c++) {
      REAL *at = in[r] + first + c * step;
      v_storeu(at, v_add(v_loadu(at), line[c]));
    }
  }
}

DALIGN_INLINE void FN(output_tile_)(const REAL *tile, int64_t frequency, vec out[TAP_TILE][TAP_TILE]) {
  vec half[TAP_TILE][TAP_POINTS];
  for (int c = 0; c < TAP_POINTS; c++) {
    vec points[TAP_POINTS], line[TAP_TILE];
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) points[r] = v_loadu(tile + (r * TAP_POINTS + c) * frequency);
    FN(from_points_)(points, line);
    DALIGN_UNROLL
    for (int r = 0; r < TAP_TILE; r++) half[r][c] = line[r];
  }
  DALIGN_UNROLL
  for (int r = 0; r < TAP_TILE; r++) FN(from_points_)(half[r], out[r]);
}

DALIGN_INLINE void FN(output_tile_back_)(REAL *const *out, int64_t first, int64_t step, REAL *tile, int64_t frequency) {
  vec half[TAP_POINTS][TAP_TILE];
  for (int c = 0; c < TAP_TILE; c++) {
    vec line[TAP_TILE], points[TAP_POINTS];
    DALIGN_UNROLL
    for (int r = 0; r < TAP_TILE; r++) line[r] = v_loadu(out[r] + first + c * step);
    FN(from_points_back_)(line, points);
    DALIGN_UNROLL
    for (int r = 0; r < TAP_POINTS; r++) half[r][c] = points[r];
  }
  for (int r = 0; r < TAP_POINTS; r++) {
    vec points[TAP_POINTS];
    FN(from_points_back_)(half[r], points);
    DALIGN_UNROLL
    for (int k = 0; k < TAP_POINTS; k++) v_storeu(tile + (r * TAP_POINTS + k) * frequency, points[k]);
  }
}

/* ------------------------------------------------------------------------------------------------ products */

DALIGN_INLINE void FN(multiply_tiles_)(REAL *tiles, int64_t step, const REAL *spectrum, int64_t inner, int64_t wide,
                                       REAL *copy, int count) {
  const int whole = wide <= TAP_VECTORS * LANES; /* all of a tile is read before any of it is written */
  const REAL *in = whole ? tiles : copy;
  for (int64_t k = 0; !whole && k < count * step; k += LANES) v_storeu(copy + k, v_loadu(tiles + k));
  for (int64_t first = 0; first < wide; first += TAP_VECTORS * LANES) {
    vec sums[TAP_MOST_PIXELS * TAP_VECTORS];
    DALIGN_UNROLL
    for (int k = 0; k < TAP_VECTORS * count; k++) sums[k] = v_zero();
    FN(add_products_)(sums, count, TAP_VECTORS, in, step, spectrum + first, wide, inner);
    DALIGN_UNROLL
    for (int t = 0; t < count; t++) DALIGN_UNROLL
    for (int v = 0; v < TAP_VECTORS; v++) v_storeu(tiles + t * step + first + v * LANES, sums[TAP_VECTORS * t + v]);
  }
}

/* tiles[t] <- tiles[t] spectrum, in place. */
DALIGN_INLINE void FN(multiply_point_)(REAL *tiles, int64_t step, const REAL *spectrum, int64_t inner, int64_t wide,
                                       REAL *copy, int64_t count) {
  int64_t t = 0;
  for (; t + TAP_PIXELS <= count; t += TAP_PIXELS)
    FN(multiply_tiles_)(tiles + t * step, step, spectrum, inner, wide, copy, TAP_PIXELS);
  for (; t < count; t += TAP_FEW) FN(multiply_tiles_)(tiles + t * step, step, spectrum, inner, wide, copy, TAP_FEW);
}

static void FN(multiply_at_)(REAL *tiles, int64_t step, const REAL *spectrum, int64_t inner, int64_t wide, REAL *copy,
                             int64_t count) {
  switch (step) {
    case 32: FN(multiply_point_)(tiles, 32, spectrum, inner, wide, copy, count); return;
    case 64: FN(multiply_point_)(tiles, 64, spectrum, inner, wide, copy, count); return;
    default: FN(multiply_point_)(tiles, step, spectrum, inner, wide, copy, count);
  }
}

/* ------------------------------------------------------------------------------------------------ weights */

/* spectrum (64, in, wide of out) = G w G^T, in double. */
static void FN(transform_weights_)(REAL *spectrum, int64_t wide, const REAL *weight, const tap_layer *layer) {
  double g[TAP_POINTS][TAP_TAPS], half[TAP_POINTS][TAP_TAPS][TAP_LINE], taps[TAP_TAPS][TAP_TAPS][TAP_LINE];
  tap_points(g);
  FN(clear_)(spectrum, TAP_FREQUENCIES * layer->in * wide);
  for (int64_t first = 0; first < layer->out; first += TAP_LINE)
    for (int64_t c = 0; c < layer->in; c++) {
      const int64_t count = tap_smaller(TAP_LINE, layer->out - first);
      memset(taps, 0, sizeof taps), memset(half, 0, sizeof half);
      for (int64_t o = 0; o < count; o++)
        for (int t = 0; t < TAP_TAPS * TAP_TAPS; t++)
          taps[t / TAP_TAPS][t % TAP_TAPS][o] = (double)weight[((first + o) * layer->in + c) * 25 + t];
      for (int a = 0; a < TAP_POINTS; a++)
        for (int x = 0; x < TAP_TAPS; x++)
          for (int y = 0; y < TAP_TAPS; y++)
            for (int o = 0; o < TAP_LINE; o++) half[a][x][o] += g[a][y] * taps[y][x][o];
      for (int f = 0; f < TAP_FREQUENCIES; f++) {
        double sum[TAP_LINE] = {0};
        for (int x = 0; x < TAP_TAPS; x++)
          for (int o = 0; o < TAP_LINE; o++) sum[o] += half[f / TAP_POINTS][x][o] * g[f % TAP_POINTS][x];
        for (int64_t o = 0; o < count; o++) spectrum[(f * layer->in + c) * wide + first + o] = (REAL)sum[o];
      }
    }
}

/* turned (64, out, wide of in) */
static void FN(turn_spectrum_)(REAL *turned, int64_t wide_in, const REAL *spectrum, int64_t wide,
                               const tap_layer *layer) {
  FN(clear_)(turned, TAP_FREQUENCIES * layer->out * wide_in);
  for (int f = 0; f < TAP_FREQUENCIES; f++)
    for (int64_t o = 0; o < layer->out; o++)
      for (int64_t c = 0; c < layer->in; c++)
        turned[(f * layer->out + o) * wide_in + c] = spectrum[(f * layer->in + c) * wide + o];
}

/* Gradients of weights, as given, from those of the spectrum: G^T total G. */
static void FN(untransform_sums_)(double *weight, const double *total, int64_t wide, const tap_layer *layer) {
  double g[TAP_POINTS][TAP_TAPS], half[TAP_TAPS][TAP_POINTS][TAP_LINE];
  tap_points(g);
  for (int64_t first = 0; first < layer->out; first += TAP_LINE)
    for (int64_t c = 0; c < layer->in; c++) {
      const int64_t count = tap_smaller(TAP_LINE, layer->out - first);
      memset(half, 0, sizeof half);
      for (int f = 0; f < TAP_FREQUENCIES; f++)
        for (int y = 0; y < TAP_TAPS; y++)
          for (int64_t o = 0; o < count; o++)
            half[y][f % TAP_POINTS][o] += g[f / TAP_POINTS][y] * total[(f * layer->in + c) * wide + first + o];
      for (int t = 0; t < TAP_TAPS * TAP_TAPS; t++) {
        double sum[TAP_LINE] = {0};
        for (int b = 0; b < TAP_POINTS; b++)
          for (int o = 0; o < TAP_LINE; o++) sum[o] += half[t / TAP_TAPS][b][o] * g[b][t % TAP_TAPS];
        for (int64_t o = 0; o < count; o++) weight[((first + o) * layer->in + c) * 25 + t] = sum[o];
      }
    }
}
