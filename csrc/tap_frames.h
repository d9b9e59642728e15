/* tap_frames.h: distances between the frames of a pair, D_ij = |x_i - y_j|, and their adjoint
 *
 *   dx_i = sum_j W_ij (x_i - y_j),   dy_j = -sum_i W_ij (x_i - y_j),   W = dD / D, and 0 where D = 0.
 *
 * From differences, not from inner products: near D = 0 those have no digits. Included once per element type. */
#undef TAP_ROWS
#define TAP_ROWS 4 /* frames of x that share a load of y's */

/* Frames as given, and room for one pair at a time. */
typedef struct {
  const REAL *x, *y;                       /* (x_count, n, d), (y_count, m, d) */
  int64_t d, wide;                         /* numbers of a frame; in whole vectors */
  REAL *blocks;                            /* y by blocks of 2 LANES frames: (block, d, 2 LANES) */
  REAL *x_rows, *y_rows, *grad_x, *grad_y; /* (n, wide), (m, wide) */
} FN(tap_frames);

/* Numbers of a row of a plane (n, m): whole blocks. */
static int64_t FN(plane_row_)(int64_t m) { return tap_up(m, 2 * LANES); }

static void FN(cut_frames_)(FN(tap_frames) * f, dalign_arena *a, int64_t n, int64_t m, int64_t d, int adjoint) {
  f->d = d, f->wide = tap_up(d, LANES);
  f->blocks = dalign_arena_take(a, sizeof(REAL) * (size_t)(FN(plane_row_)(m) * d));
  f->x_rows = f->y_rows = f->grad_x = f->grad_y = NULL;
  if (!adjoint) return;
  f->x_rows = dalign_arena_take(a, sizeof(REAL) * (size_t)(n * f->wide));
  f->y_rows = dalign_arena_take(a, sizeof(REAL) * (size_t)(m * f->wide));
  f->grad_x = dalign_arena_take(a, sizeof(REAL) * (size_t)(n * f->wide));
  f->grad_y = dalign_arena_take(a, sizeof(REAL) * (size_t)(m * f->wide));
}

static void FN(put_in_blocks_)(const FN(tap_frames) * f, const REAL *y, int64_t m) {
  const int64_t block = 2 * LANES;
  for (int64_t j = 0; j < FN(plane_row_)(m); j++)
    for (int64_t k = 0; k < f->d; k++)
      f->blocks[(j / block * f->d + k) * block + j % block] = j < m ? y[j * f->d + k] : 0;
}

/* Distances of `rows` frames of x from a block of y. */
DALIGN_INLINE void FN(distance_block_)(const REAL *x, const REAL *block, int64_t d, REAL *out, int64_t row, int rows) {
  vec sums[TAP_ROWS][2];
  DALIGN_UNROLL
  for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = v_zero();
  for (int64_t k = 0; k < d; k++) {
    const vec low = v_loadu(block + 2 * k * LANES), high = v_loadu(block + (2 * k + 1) * LANES);
    DALIGN_UNROLL
    for (int r = 0; r < rows; r++) {
      const vec number = v_set1(x[r * d + k]), first = v_sub(number, low), second = v_sub(number, high);
      sums[r][0] = v_muladd(first, first, sums[r][0]);
      sums[r][1] = v_muladd(second, second, sums[r][1]);
    }
  }
  DALIGN_UNROLL
  for (int r = 0; r < rows; r++) {
    v_storeu(out + r * row, v_sqrt(sums[r][0]));
    v_storeu(out + r * row + LANES, v_sqrt(sums[r][1]));
  }
}

/* distance (n, plane_row(m)), zeros behind the m-th. */
static void FN(fill_distances_)(const FN(tap_frames) * f, const REAL *x, const REAL *y, int64_t n, int64_t m,
                                REAL *distance) {
  const int64_t row = FN(plane_row_)(m);
  FN(put_in_blocks_)(f, y, m);
  for (int64_t j = 0; j < row; j += 2 * LANES) {
    const REAL *block = f->blocks + j * f->d;
    int64_t i = 0;
    for (; i + TAP_ROWS <= n; i += TAP_ROWS)
      FN(distance_block_)(x + i * f->d, block, f->d, distance + i * row + j, row, TAP_ROWS);
    for (; i < n; i++) FN(distance_block_)(x + i * f->d, block, f->d, distance + i * row + j, row, 1);
  }
  for (int64_t i = 0; i < n; i++) FN(clear_)(distance + i * row + m, row - m);
}

/* ------------------------------------------------------------------------------------------------ adjoint */

static void FN(put_in_rows_)(REAL *rows, const REAL *frames, int64_t count, int64_t d, int64_t wide) {
  for (int64_t i = 0; i < count; i++) {
    memcpy(rows + i * wide, frames + i * d, (size_t)d * sizeof(REAL));
    FN(clear_)(rows + i * wide + d, wide - d);
  }
}

/* dD becomes W. */
static void FN(divide_by_distances_)(REAL *slope, const REAL *distance, int64_t n, int64_t m) {
  const int64_t row = FN(plane_row_)(m);
  for (int64_t k = 0; k < n * row; k += LANES) {
    const vec d = v_loadu(distance + k);
    v_storeu(slope + k, v_keep_below(v_div(v_loadu(slope + k), d), v_zero(), d));
  }
}

DALIGN_INLINE void FN(add_differences_)(const FN(tap_frames) * f, const REAL *weight, int64_t row, int64_t i, int64_t m,
                                        int64_t first, int rows) {
  vec x[TAP_ROWS], sums[TAP_ROWS];
  DALIGN_UNROLL
  for (int r = 0; r < rows; r++) x[r] = v_loadu(f->x_rows + (i + r) * f->wide + first), sums[r] = v_zero();
  for (int64_t j = 0; j < m; j++) {
    const vec y = v_loadu(f->y_rows + j * f->wide + first);
    vec back = v_loadu(f->grad_y + j * f->wide + first);
    DALIGN_UNROLL
    for (int r = 0; r < rows; r++) {
      const vec part = v_mul(v_set1(weight[r * row + j]), v_sub(x[r], y));
      sums[r] = v_add(sums[r], part);
      back = v_sub(back, part);
    }
    v_storeu(f->grad_y + j * f->wide + first, back);
  }
  DALIGN_UNROLL
  for (int r = 0; r < rows; r++) v_storeu(f->grad_x + (i + r) * f->wide + first, sums[r]);
}

/* From W, in rows of a plane. */
static void FN(fill_frame_gradients_)(const FN(tap_frames) * f, const REAL *x, const REAL *y, int64_t n, int64_t m,
                                      const REAL *weight) {
  const int64_t row = FN(plane_row_)(m);
  FN(put_in_rows_)(f->x_rows, x, n, f->d, f->wide);
  FN(put_in_rows_)(f->y_rows, y, m, f->d, f->wide);
  FN(clear_)(f->grad_y, m * f->wide);
  for (int64_t first = 0; first < f->wide; first += LANES) {
    int64_t i = 0;
    for (; i + TAP_ROWS <= n; i += TAP_ROWS) FN(add_differences_)(f, weight + i * row, row, i, m, first, TAP_ROWS);
    for (; i < n; i++) FN(add_differences_)(f, weight + i * row, row, i, m, first, 1);
  }
}

/* (longest, d) of a result, zeros behind the pair's frames; rows NULL: zeros alone. */
static void FN(give_frames_)(REAL *result, const REAL *rows, int64_t count, int64_t longest, int64_t d, int64_t wide) {
  for (int64_t i = 0; rows && i < count; i++) memcpy(result + i * d, rows + i * wide, (size_t)d * sizeof(REAL));
  if (!rows) count = 0;
  FN(clear_)(result + count * d, (longest - count) * d);
}
