/* Body of cost.c for one element type. */
#include "cost_tile.h"
#include "memory.h"

#undef kernel_steps
#undef COST_ROWS
#define kernel_steps FN(kernel_steps_)
#define COST_ROWS (LANES < 8 ? LANES : 8) /* rows of x that the adjoint keeps in registers */

/* ------------------------------------------------------------------------------------------------ preparation */

static int64_t FN(prepared_numbers_)(dalign_metric metric, int64_t d) {
  return metric == DALIGN_COSINE ? d + 2 : metric == DALIGN_BCE ? 2 * d : d;
}

static void FN(cut_features_)(features *f, dalign_arena *a, dalign_metric metric, int64_t n, int64_t m, int64_t d,
                              int adjoint) {
  const int64_t k = FN(prepared_numbers_)(metric, d), strips = (n + LANES - 1) / LANES;
  f->metric = metric, f->n = n, f->m = m, f->d = d, f->k = k, f->strips = strips;
  f->k_padded = (k + LANES - 1) / LANES * LANES;
  f->reversed_length = (m + 6 * LANES + 31) / 32 * 32 + 16; /* an odd multiple of 16: rows spread over cache sets */
  f->x_strips = dalign_arena_take(a, sizeof(REAL) * (size_t)(strips * k * LANES));
  f->block = dalign_arena_take(a, sizeof(REAL) * (size_t)(LANES * f->k_padded));
  f->centre = metric == DALIGN_COSINE ? dalign_arena_take(a, sizeof(double) * (size_t)d) : NULL;
  f->y_reversed = f->x_rows = f->y_rows = f->grad_x = f->grad_y = NULL;
  if (metric == DALIGN_NLL) {
    if (adjoint) f->grad_x = dalign_arena_take(a, sizeof(REAL) * (size_t)(n * d));
    return;
  }
  f->y_reversed = dalign_arena_take(a, sizeof(REAL) * (size_t)(k * f->reversed_length));
  if (!adjoint) return;
  const size_t x_bytes = sizeof(REAL) * (size_t)(strips * LANES * f->k_padded);
  const size_t y_bytes = sizeof(REAL) * (size_t)((m + LANES - 1) / LANES * LANES * f->k_padded);
  f->x_rows = dalign_arena_take(a, x_bytes), f->grad_x = dalign_arena_take(a, x_bytes);
  f->y_rows = dalign_arena_take(a, y_bytes), f->grad_y = dalign_arena_take(a, y_bytes);
}

size_t FN(dalign_features_bytes)(dalign_metric metric, int64_t n, int64_t m, int64_t d, int adjoint) {
  features f;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_features_)(&f, &a, metric, n, m, d, adjoint);
  return dalign_arena_bytes(&a);
}

/* 1 / |x_i|, or 0 for a zero frame. */
static double FN(inverse_norm_)(const void *x, int64_t i, int64_t d, int given_f32) {
  double sum = 0;
  for (int64_t c = 0; c < d; c++) {
    const double value = (double)load_given(x, i * d + c, given_f32);
    sum += value * value;
  }
  return sum == 0 ? 0 : 1 / sqrt(sum);
}

static REAL FN(clamped_log_)(REAL p) {
  const double value = log((double)p);
  return value < -100 ? (REAL)-100 : (REAL)value;
}

/* Frame i of x (or of y), prepared. */
static void FN(prepare_frame_)(const features *f, const void *frames, int64_t i, int is_y, REAL *out) {
  const int64_t d = f->d;
  const int given = f->given_f32;
  if (f->metric == DALIGN_COSINE) {
    const double inverse = FN(inverse_norm_)(frames, i, d, given);
    for (int64_t c = 0; c < d; c++)
      out[c] = (REAL)((double)load_given(frames, i * d + c, given) * inverse - f->centre[c]);
    out[d + is_y] = inverse == 0, out[d + !is_y] = 0;
  } else if (f->metric == DALIGN_BCE) {
    for (int64_t c = 0; c < d; c++) {
      const REAL p = load_given(frames, i * d + c, given);
      out[c] = is_y ? p : -FN(clamped_log_)(p);
      out[d + c] = is_y ? 1 - p : -FN(clamped_log_)(1 - p);
    }
  } else if (given == DALIGN_F32) {
    const REAL *frame = (const REAL *)frames + i * d;
    for (int64_t c = 0; c < d; c++) out[c] = frame[c];
  } else {
    for (int64_t c = 0; c < d; c++) out[c] = load_given(frames, i * d + c, given);
  }
}

/* Frames [i, i + LANES) as rows of k_padded numbers, zeros around what there is. */
static void FN(prepare_rows_)(const features *f, const void *frames, int64_t i, int is_y, REAL *rows) {
  const int64_t count = is_y ? f->m : f->n;
  for (int r = 0; r < LANES; r++) {
    REAL *row = rows + r * f->k_padded;
    const int64_t used = i + r < count ? f->k : 0;
    if (used) FN(prepare_frame_)(f, frames, i + r, is_y, row);
    for (int64_t c = used; c < f->k_padded; c++) row[c] = 0;
  }
}

static int FN(any_nan_)(const REAL *numbers, int64_t count) {
  int nan = 0;
  for (int64_t i = 0; i < count; i++) nan |= numbers[i] != numbers[i];
  return nan;
}

static int FN(prepare_x_)(features *f, const void *x) {
  int nan = 0;
  for (int64_t strip = 0; strip < f->strips; strip++) {
    REAL *rows = f->x_rows ? f->x_rows + strip * LANES * f->k_padded : f->block;
    REAL *out = f->x_strips + strip * f->k * LANES;
    FN(prepare_rows_)(f, x, strip * LANES, 0, rows);
    nan |= FN(any_nan_)(rows, LANES * f->k_padded);
    for (int64_t c = 0; c < f->k; c++)
      for (int r = 0; r < LANES; r++) out[c * LANES + r] = rows[r * f->k_padded + c];
  }
  return nan;
}

static int FN(prepare_y_)(features *f, const void *y) {
  const int64_t stride = f->reversed_length, used = (f->m + LANES - 1) / LANES * LANES, front = f->m + 3 * LANES - used;
  int nan = 0;
  for (int64_t c = 0; c < f->k; c++) {
    for (int64_t at = 0; at < front; at++) f->y_reversed[c * stride + at] = 0;
    for (int64_t at = f->m + 3 * LANES; at < stride; at++) f->y_reversed[c * stride + at] = 0;
  }
  for (int64_t j = 0; j < f->m; j += LANES) {
    REAL *rows = f->y_rows ? f->y_rows + j * f->k_padded : f->block;
    REAL *out = f->y_reversed + f->m + 3 * LANES - LANES - j;
    FN(prepare_rows_)(f, y, j, 1, rows);
    nan |= FN(any_nan_)(rows, LANES * f->k_padded);
    for (int64_t c = 0; c < f->k; c++)
      for (int r = 0; r < LANES; r++) out[c * stride + r] = rows[(LANES - 1 - r) * f->k_padded + c];
  }
  return nan;
}

/* The first unit frame of x, or 0 for numbers of it that are not finite. */
static void FN(choose_centre_)(features *f, const void *x) {
  const double inverse = f->n > 0 ? FN(inverse_norm_)(x, 0, f->d, f->given_f32) : 0;
  for (int64_t c = 0; c < f->d; c++) {
    const double unit = f->n > 0 ? (double)load_given(x, c, f->given_f32) * inverse : 0;
    f->centre[c] = fabs(unit) < INFINITY ? unit : 0;
  }
}

int FN(dalign_features_prepare)(features *f, dalign_metric metric, int64_t n, int64_t m, int64_t d, const void *x,
                                const void *y, int given_f32, int adjoint, void *memory) {
  dalign_arena a = dalign_arena_over(memory);
  FN(cut_features_)(f, &a, metric, n, m, d, adjoint);
  f->given_f32 = given_f32, f->x_alone = 0;
  f->labels = metric == DALIGN_NLL ? y : NULL;
  if (f->centre) FN(choose_centre_)(f, x);
  int nan = FN(prepare_x_)(f, x);
  if (metric != DALIGN_NLL) nan |= FN(prepare_y_)(f, y);
  if (f->grad_x) memset(f->grad_x, 0, sizeof(REAL) * (size_t)(f->labels ? n * d : f->strips * LANES * f->k_padded));
  if (f->grad_y) memset(f->grad_y, 0, sizeof(REAL) * (size_t)(m * f->k_padded));
  return nan;
}

/* ------------------------------------------------------------------------------------------------ value */

#ifndef DALIGN_COST_KERNELS
#define DALIGN_COST_KERNELS
typedef enum { SQUARES, ABSOLUTE, PRODUCT } cost_kernel;
#endif

DALIGN_INLINE vec FN(accumulate_)(cost_kernel kernel, vec u, vec v, vec sum) {
  if (kernel == PRODUCT) return v_muladd(u, v, sum);
  const vec difference = v_sub(u, v);
  return kernel == SQUARES ? v_muladd(difference, difference, sum) : v_add(sum, v_abs(difference));
}

/* COST_STEPS steps of count strips: sums[s][t] for strip s at step c + t, from x_strips of the first strip. */
DALIGN_INLINE void kernel_steps(const features *f, cost_kernel kernel, int count, const REAL *x, const REAL *y,
                                REAL *out) {
  const int64_t k = f->k, y_stride = f->reversed_length;
  vec sum[TILE_STRIPS][COST_STEPS];
  for (int s = 0; s < count; s++)
    for (int t = 0; t < COST_STEPS; t++) sum[s][t] = v_zero();
  for (int64_t c = 0; c < k; c++) {
    vec v[COST_STEPS];
    for (int t = 0; t < COST_STEPS; t++) v[t] = v_loadu(y + c * y_stride - t);
    for (int s = 0; s < count; s++) {
      const vec u = v_load(x + (s * k + c) * LANES);
      for (int t = 0; t < COST_STEPS; t++) sum[s][t] = FN(accumulate_)(kernel, u, v[t], sum[s][t]);
    }
  }
  for (int s = 0; s < count; s++)
    for (int t = 0; t < COST_STEPS; t++) {
      const vec root = f->metric == DALIGN_EUCLIDEAN ? v_sqrt(sum[s][t]) : sum[s][t];
      const vec value = f->metric == DALIGN_COSINE ? v_mul(root, v_set1((REAL).5)) : root;
      v_store(out + (s * (TILE_PITCH + LANES) + t) * LANES, value);
    }
}

DALIGN_INLINE void FN(kernel_block_)(const features *f, cost_kernel kernel, int count, const REAL *x, int64_t c,
                                     REAL *out) {
  const REAL *y = f->y_reversed + f->m - 1 - c + 3 * LANES;
  for (int t = 0; t < LANES; t += COST_STEPS) kernel_steps(f, kernel, count, x, y - t, out + t * LANES);
}

/* One block of LANES steps from step c on: strips [first, first + count). Strip s lies LANES steps further right in the
 * tile, hence the pitch in kernel_steps. */
static void FN(cost_block_)(const features *f, int count, const REAL *x, int64_t c, REAL *out) {
#define BLOCK(kernel)                                          \
  switch (count) {                                             \
    case 1: FN(kernel_block_)(f, kernel, 1, x, c, out); break; \
    case 2: FN(kernel_block_)(f, kernel, 2, x, c, out); break; \
    case 3: FN(kernel_block_)(f, kernel, 3, x, c, out); break; \
    default: FN(kernel_block_)(f, kernel, 4, x, c, out);       \
  }
  if (f->metric == DALIGN_MANHATTAN) {
    BLOCK(ABSOLUTE)
  } else if (f->metric == DALIGN_BCE) {
    BLOCK(PRODUCT)
  } else {
    BLOCK(SQUARES)
  }
#undef BLOCK
}

static void FN(label_costs_)(const features *f, int64_t strip, int64_t c, int steps, REAL *out) {
  const REAL *x = f->x_strips + strip * f->k * LANES;
  for (int t = 0; t < steps; t++)
    for (int r = 0; r < LANES; r++) {
      const int64_t j = c + t - r;
      out[t * LANES + r] = j >= 0 && j < f->m ? -x[f->labels[j] * LANES + r] : 0;
    }
}

void FN(dalign_cost_tile)(const features *f, int64_t first, int count, int64_t step, const int *begin, const int *end,
                          REAL *tile) {
  if (f->labels) {
    for (int s = 0; s < count; s++)
      if (begin[s] < end[s])
        FN(label_costs_)(f, first + s, step - s * LANES + begin[s], end[s] - begin[s],
                         tile + (s * TILE_PITCH + begin[s]) * LANES);
    return;
  }
  /* Blocks of LANES steps c; strip s sees block c at tile step c + s LANES. */
  for (int at = -(count - 1) * LANES; at < TILE_STEPS; at += LANES) {
    int low = count, high = 0;
    for (int s = 0; s < count; s++) {
      const int from = at + s * LANES;
      if (from < 0 || from >= TILE_STEPS || from + LANES <= begin[s] || from >= end[s]) continue;
      low = s < low ? s : low;
      high = s + 1;
    }
    if (low < high)
      FN(cost_block_)(f, high - low, f->x_strips + (first + low) * f->k * LANES, step + at,
                      tile + (low * TILE_PITCH + at + low * LANES) * LANES);
  }
}

/* ------------------------------------------------------------------------------------------------ adjoint */

void FN(dalign_cost_weights)(const features *f, const REAL *cost, REAL *weights, int64_t numbers) {
  if (f->metric != DALIGN_EUCLIDEAN) return;
  for (int64_t i = 0; i < numbers; i++) weights[i] = cost[i] > 0 ? weights[i] / cost[i] : 0;
}

static void FN(label_adjoint_)(features *f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *weights) {
  const int64_t rows = f->n - strip * LANES < LANES ? f->n - strip * LANES : LANES;
  for (int64_t j = j_begin; j < j_end; j++) {
    REAL *grad = f->grad_x + strip * LANES * f->d + f->labels[j];
    const REAL *w = weights + (j - j_begin) * LANES;
    for (int64_t r = 0; r < rows; r++) grad[r * f->d] -= w[r * (LANES + 1)];
  }
}

/* One vector of features (from number c on) of COST_ROWS rows (from row r on of the strip). */
DALIGN_INLINE void FN(adjoint_rows_)(features *f, cost_kernel kernel, int64_t row, int r, int64_t c, int64_t j_begin,
                                     int64_t j_end, const REAL *weights, int x_alone) {
  const int64_t k = f->k_padded;
  vec u[COST_ROWS], grad_u[COST_ROWS];
  for (int q = 0; q < COST_ROWS; q++) {
    u[q] = v_load(f->x_rows + (row + q) * k + c);
    grad_u[q] = v_load(f->grad_x + (row + q) * k + c);
  }
  for (int64_t j = j_begin; j < j_end; j++) {
    const REAL *w = weights + (j - j_begin + r) * LANES + r;
    const vec v = v_load(f->y_rows + j * k + c);
    vec even = v_load(f->grad_y + j * k + c), odd = v_zero();
    for (int q = 0; q < COST_ROWS; q++) {
      const vec weight = v_set1(w[q * (LANES + 1)]);
      const vec difference = kernel == PRODUCT ? u[q] : v_sub(u[q], v);
      const vec change = kernel == ABSOLUTE ? v_sign(difference) : difference;
      grad_u[q] = v_muladd(weight, kernel == PRODUCT ? v : change, grad_u[q]);
      if (x_alone) continue;
      if (q % 2)
        odd = v_muladd(weight, change, odd);
      else
        even = v_muladd(weight, change, even);
    }
    if (!x_alone) v_store(f->grad_y + j * k + c, v_add(even, odd));
  }
  for (int q = 0; q < COST_ROWS; q++) v_store(f->grad_x + (row + q) * k + c, grad_u[q]);
}

#define ADJOINT(name, kernel, x_alone)                                                                     \
  static void FN(name)(features * f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *weights) { \
    for (int r = 0; r < LANES; r += COST_ROWS)                                                             \
      for (int64_t c = 0; c < f->k_padded; c += LANES)                                                     \
        FN(adjoint_rows_)(f, kernel, strip * LANES + r, r, c, j_begin, j_end, weights, x_alone);           \
  }
ADJOINT(squares_adjoint_, SQUARES, 0)
ADJOINT(squares_adjoint_of_x_, SQUARES, 1)
ADJOINT(absolute_adjoint_, ABSOLUTE, 0)
ADJOINT(product_adjoint_, PRODUCT, 0)
#undef ADJOINT

/* Weights of step s, but those of columns outside [j_begin, j_end). Lane r has column s - r. */
DALIGN_INLINE vec FN(weights_inside_)(const REAL *weights, int64_t s, int64_t j_begin, int64_t j_end) {
  if (s - j_begin >= LANES - 1 && s < j_end) return v_load(weights);
  REAL inside[LANES];
  for (int r = 0; r < LANES; r++) inside[r] = s - r >= j_begin && s - r < j_end ? weights[r] : 0;
  return v_loadu(inside);
}

/* One number of the frames, lanes are rows of x: for frames of a few numbers. A column's sum moves a lane up with its cell,
 * and is complete in the last lane. */
DALIGN_INLINE void FN(narrow_squares_)(features *f, int64_t strip, int64_t c, int64_t j_begin, int64_t j_end,
                                       const REAL *weights, int x_alone) {
  const int64_t k = f->k_padded;
  const REAL *y = f->y_reversed + c * f->reversed_length + f->m - 1 + 3 * LANES;
  REAL *grad_x = f->grad_x + strip * LANES * k + c, *grad_y = f->grad_y + c, lanes[LANES];
  for (int r = 0; r < LANES; r++) lanes[r] = grad_x[r * k];
  const vec u = v_load(f->x_strips + (strip * f->k + c) * LANES);
  vec of_rows = v_loadu(lanes), of_columns = v_zero();
  for (int64_t s = j_begin; s < j_end + LANES - 1; s++) {
    const vec weight = FN(weights_inside_)(weights + (s - j_begin) * LANES, s, j_begin, j_end);
    const vec difference = v_sub(u, v_loadu(y - s));
    of_rows = v_muladd(weight, difference, of_rows);
    if (x_alone) continue;
    of_columns = v_muladd(weight, difference, v_shift_up(of_columns, v_zero()));
    v_storeu(lanes, of_columns);
    const int64_t j = s - LANES + 1;
    if (j >= j_begin) grad_y[j * k] += lanes[LANES - 1];
  }
  v_storeu(lanes, of_rows);
  for (int r = 0; r < LANES; r++) grad_x[r * k] = lanes[r];
}

static void FN(squares_adjoints_)(features *f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *weights) {
  const int is_narrow = 4 * f->k <= LANES;
  for (int64_t c = 0; is_narrow && c < f->k; c++)
    if (f->x_alone)
      FN(narrow_squares_)(f, strip, c, j_begin, j_end, weights, 1);
    else
      FN(narrow_squares_)(f, strip, c, j_begin, j_end, weights, 0);
  if (is_narrow) return;
  if (f->x_alone)
    FN(squares_adjoint_of_x_)(f, strip, j_begin, j_end, weights);
  else
    FN(squares_adjoint_)(f, strip, j_begin, j_end, weights);
}

void FN(dalign_cost_adjoint_tile)(features *f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *weights) {
  switch (f->metric) {
    case DALIGN_NLL: FN(label_adjoint_)(f, strip, j_begin, j_end, weights); break;
    case DALIGN_MANHATTAN: FN(absolute_adjoint_)(f, strip, j_begin, j_end, weights); break;
    case DALIGN_BCE: FN(product_adjoint_)(f, strip, j_begin, j_end, weights); break;
    default: FN(squares_adjoints_)(f, strip, j_begin, j_end, weights);
  }
}

/* Chain rule through u = x / |x|: (g - <g, u> u) / |x|. */
static void FN(finish_cosine_)(const features *f, const void *given, int64_t i, const REAL *g, double scale,
                               void *out) {
  const double inverse = FN(inverse_norm_)(given, i, f->d, f->given_f32);
  double along = 0;
  for (int64_t c = 0; c < f->d; c++) along += (double)g[c] * (double)load_given(given, i * f->d + c, f->given_f32);
  along *= inverse * inverse;
  for (int64_t c = 0; c < f->d; c++) {
    const double across = (double)g[c] - along * (double)load_given(given, i * f->d + c, f->given_f32);
    store_given(out, i * f->d + c, scale * inverse * across, f->given_f32);
  }
}

/* d bce / d p as torch writes it, (p - y) / max(p (1 - p), 1e-12), summed over the cells: g holds the sums of weight y
 * and weight (1 - y). */
static void FN(finish_bce_x_)(const features *f, const void *given, int64_t i, const REAL *g, double scale, void *out) {
  for (int64_t c = 0; c < f->d; c++) {
    const double p = (double)load_given(given, i * f->d + c, f->given_f32), both = p * (1 - p);
    const double sum = p * g[f->d + c] - (1 - p) * g[c];
    store_given(out, i * f->d + c, scale * sum / (both > 1e-12 ? both : 1e-12), f->given_f32);
  }
}

static void FN(finish_frame_)(const features *f, const void *given, int64_t i, int is_y, double scale, void *out) {
  const REAL *g = (is_y ? f->grad_y : f->grad_x) + i * f->k_padded;
  if (f->metric == DALIGN_COSINE)
    FN(finish_cosine_)(f, given, i, g, is_y ? -scale : scale, out);
  else if (f->metric == DALIGN_BCE && !is_y)
    FN(finish_bce_x_)(f, given, i, g, scale, out);
  else if (f->metric == DALIGN_BCE)
    for (int64_t c = 0; c < f->d; c++)
      store_given(out, i * f->d + c, scale * ((double)g[c] - g[f->d + c]), f->given_f32);
  else {
    const double factor = (f->metric == DALIGN_SQEUCLIDEAN ? 2 : 1) * (is_y ? -scale : scale);
    for (int64_t c = 0; c < f->d; c++) store_given(out, i * f->d + c, factor * g[c], f->given_f32);
  }
}

void FN(dalign_features_finish)(const features *f, const void *x, const void *y, double scale, void *grad_x,
                                void *grad_y) {
  if (f->labels) {
    for (int64_t i = 0; grad_x && i < f->n * f->d; i++) store_given(grad_x, i, scale * f->grad_x[i], f->given_f32);
    return;
  }
  for (int64_t i = 0; grad_x && i < f->n; i++) FN(finish_frame_)(f, x, i, 0, scale, grad_x);
  for (int64_t j = 0; grad_y && j < f->m; j++) FN(finish_frame_)(f, y, j, 1, scale, grad_y);
}

/* ------------------------------------------------------------------------------------------------ all pairs */

/* Two tiles of a group of strips (costs and weights), then the prepared frames. */
static size_t FN(pairs_tile_numbers_)(void) { return (size_t)TILE_STRIPS * TILE_PITCH * LANES; }

size_t FN(dalign_cost_workspace)(const dalign_cost_args *args) {
  dalign_arena a = dalign_arena_over(NULL);
  dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  dalign_arena_take(&a, FN(dalign_features_bytes)(args->metric, args->n, args->m, args->d, 1));
  return dalign_arena_bytes(&a);
}

static int FN(cost_args_bad_)(const dalign_cost_args *a, int64_t begin, int64_t end) {
  if (a->n < 0 || a->m < 0 || a->d < 0 || begin < 0 || end > a->batch || a->metric < 0 || a->metric > DALIGN_BCE)
    return 1;
  if (a->metric != DALIGN_NLL || a->n == 0) return 0;
  for (int64_t i = begin * a->m; i < end * a->m; i++) {
    const int64_t label = ((const int64_t *)a->y)[i];
    if (label < 0 || label >= a->d) return 1;
  }
  return 0;
}

/* The strips' tile of the pair beginning at (first, step): all lanes and steps that meet the lattice. */
static void FN(pairs_tile_)(const features *f, int64_t first, int count, int64_t step, REAL *tile) {
  int begin[TILE_STRIPS], end[TILE_STRIPS];
  for (int s = 0; s < count; s++) {
    const int64_t left = s * LANES - step, right = f->m + LANES - 1 + s * LANES - step;
    begin[s] = left < 0 ? 0 : left > TILE_STEPS ? TILE_STEPS : (int)left;
    end[s] = right < 0 ? 0 : right > TILE_STEPS ? TILE_STEPS : (int)right;
  }
  FN(dalign_cost_tile)(f, first, count, step, begin, end, tile);
}

/* Walks the skewed cells of a strip's tile that lie in the lattice, row by row:
 * out[(row) m + j] and tile cell at (j - c + r). */
#define EACH_CELL(body)                                                         \
  for (int r = 0; r < LANES && row0 + r < f->n; r++) {                          \
    const int64_t c = step - s * LANES, low = c - r < 0 ? 0 : c - r;            \
    const int64_t high = c - r + TILE_STEPS < f->m ? c - r + TILE_STEPS : f->m; \
    REAL *cell = tile + s * TILE_PITCH * LANES + (r - c) * LANES + r;           \
    for (int64_t j = low; j < high; j++) body;                                  \
  }

dalign_status FN(dalign_cost)(const dalign_cost_args *args, REAL *cost, int64_t begin, int64_t end, void *workspace) {
  if (FN(cost_args_bad_)(args, begin, end)) return DALIGN_BAD_ARGUMENT;
  dalign_arena a = dalign_arena_over(workspace);
  REAL *tile = dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  void *memory = dalign_arena_take(&a, 0);
  const int64_t n = args->n, m = args->m, d = args->d;
  const int is_nll = args->metric == DALIGN_NLL;
  if (n == 0 || m == 0) return DALIGN_OK;
  for (int64_t b = begin; b < end; b++) {
    features prepared, *f = &prepared;
    const void *y = is_nll ? (const void *)((const int64_t *)args->y + b * m) : (const REAL *)args->y + b * m * d;
    FN(dalign_features_prepare)(f, args->metric, n, m, d, (const REAL *)args->x + b * n * d, y, DALIGN_F32, 0, memory);
    for (int64_t first = 0; first < f->strips; first += TILE_STRIPS) {
      const int count = f->strips - first < TILE_STRIPS ? (int)(f->strips - first) : TILE_STRIPS;
      for (int64_t step = 0; step < m + count * LANES - 1; step += TILE_STEPS) {
        FN(pairs_tile_)(f, first, count, step, tile);
        for (int s = 0; s < count; s++) {
          const int64_t row0 = (first + s) * LANES;
          REAL *out = cost + (b * n + row0) * m;
          EACH_CELL(out[r * m + j] = cell[j * LANES])
        }
      }
    }
  }
  return DALIGN_OK;
}

/* Weights of one strip and the columns [j_begin, j_end), skewed as dalign_cost_adjoint_tile wants them; the costs too
 * where the metric needs them. */
static void FN(pairs_weights_)(const features *f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *grad_cost,
                               REAL *weights) {
  memset(weights, 0, sizeof(REAL) * (size_t)((j_end - j_begin + LANES) * LANES));
  for (int r = 0; r < LANES && strip * LANES + r < f->n; r++)
    for (int64_t j = j_begin; j < j_end; j++)
      weights[(j - j_begin + r) * LANES + r] = grad_cost[(strip * LANES + r) * f->m + j];
}

static void FN(pairs_adjoint_strip_)(features *f, int64_t strip, const REAL *grad_cost, REAL *weights, REAL *costs) {
  for (int64_t j = 0; j < f->m; j += TILE_STEPS) {
    const int64_t j_end = j + TILE_STEPS < f->m ? j + TILE_STEPS : f->m;
    FN(pairs_weights_)(f, strip, j, j_end, grad_cost, weights);
    if (f->metric == DALIGN_EUCLIDEAN) {
      const int begin[1] = {0}, end[1] = {TILE_STEPS};
      FN(dalign_cost_tile)(f, strip, 1, j, begin, end, costs);
      FN(dalign_cost_tile)(f, strip, 1, j + TILE_STEPS, begin, (const int[1]){LANES}, costs + TILE_STEPS * LANES);
      FN(dalign_cost_weights)(f, costs, weights, (j_end - j + LANES) * LANES);
    }
    FN(dalign_cost_adjoint_tile)(f, strip, j, j_end, weights);
  }
}

dalign_status FN(dalign_cost_backward)(const dalign_cost_args *args, const REAL *grad_cost, REAL *grad_x, REAL *grad_y,
                                       int64_t begin, int64_t end, void *workspace) {
  if (FN(cost_args_bad_)(args, begin, end)) return DALIGN_BAD_ARGUMENT;
  dalign_arena a = dalign_arena_over(workspace);
  REAL *weights = dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  REAL *costs = dalign_arena_take(&a, sizeof(REAL) * FN(pairs_tile_numbers_)());
  void *memory = dalign_arena_take(&a, 0);
  const int64_t n = args->n, m = args->m, d = args->d;
  const int is_nll = args->metric == DALIGN_NLL;
  for (int64_t b = begin; b < end; b++) {
    features prepared, *f = &prepared;
    const REAL *x = (const REAL *)args->x + b * n * d;
    const void *y = is_nll ? (const void *)((const int64_t *)args->y + b * m) : (const REAL *)args->y + b * m * d;
    FN(dalign_features_prepare)(f, args->metric, n, m, d, x, y, DALIGN_F32, 1, memory);
    for (int64_t strip = 0; strip < f->strips; strip++)
      FN(pairs_adjoint_strip_)(f, strip, grad_cost + b * n * m, weights, costs);
    FN(dalign_features_finish)(f, x, y, 1, grad_x ? grad_x + b * n * d : NULL, grad_y ? grad_y + b * m * d : NULL);
  }
  return DALIGN_OK;
}
#undef EACH_CELL
