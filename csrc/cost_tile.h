/* cost_tile.h: costs of one tile of a lattice and their adjoint, shared by cost.c (all pairs) and the lattices that fuse
 * the cost into their recursion. Included once per element type, after simd/real.h.
 *
 * A tile is skewed: rows go in strips of LANES, lane r of a strip works on column c - r at step c, so that a recursion
 * over the cells (i-1, j), (i, j-1), (i-1, j-1) can run along the lanes. Costs of strip s at step c lie at
 * tile[(s * TILE_PITCH + c - first) * LANES + r].
 *
 * Every metric is brought to one of four kernels on prepared frames u_i, v_j of K numbers:
 *   squares  sum_k (u_k - v_k)^2    sqeuclidean, euclidean (then a root), cosine (u = x / |x|, then halved)
 *   absolute sum_k |u_k - v_k|      manhattan
 *   product  sum_k u_k v_k          bce: u = (-log x, -log(1 - x)), v = (y, 1 - y)
 *   label    -u_{v}                 nll
 * cosine: 1 - <u, v> = |u - v|^2 / 2 for unit vectors, from all of which the first one of x is taken before rounding, since
 * they may lie close together; a zero frame gets a unit in one of two spare dimensions (one for x, one for y), which makes
 * its cost 1 with every other frame. */
#undef features
#undef load_given
#undef store_given
#define features FN(dalign_features)
#define load_given FN(load_given_)
#define store_given FN(store_given_)

#ifndef DALIGN_COST_TILE
#define DALIGN_COST_TILE
#include "dalign.h"
enum { TILE_STRIPS = 4, TILE_STEPS = 128 };
/* Steps between two strips of a tile in memory: room for the steps in which lanes of the tile to the right end. */
#define TILE_PITCH (TILE_STEPS + LANES)
#endif

typedef struct {
  dalign_metric metric;
  int64_t n, m, d;         /* this item's lengths; numbers per frame as given */
  int64_t k, k_padded;     /* numbers per prepared frame; rounded up to whole vectors */
  int64_t strips;          /* ceil(n / LANES) */
  int64_t reversed_length; /* of one row of y_reversed */
  REAL *x_strips;          /* (strips, k, LANES) */
  REAL *block;             /* (LANES, k_padded), while frames are prepared */
  REAL *y_reversed;        /* (k, reversed_length): y_j at position m - 1 - j + 3 LANES, zeros around */
  REAL *x_rows, *y_rows;   /* (strips LANES, k_padded), (m up to whole strips, k_padded); with the adjoint only */
  REAL *grad_x, *grad_y;   /* the same layouts; sums over the cells. nll: grad_x is (n, d) */
  double *centre;          /* cosine: d numbers taken from every unit frame; distances do not change, digits stay */
  const int64_t *labels;   /* nll: y as given */
  int x_alone;             /* whether sums of y may be left out; callers set it */
  int given_f32;           /* whether x as given is float (else double) */
} features;

/* Arrays as given are float or double, whatever REAL is. */
DALIGN_INLINE REAL load_given(const void *p, int64_t i, int given_f32) {
  return given_f32 ? (REAL)((const float *)p)[i] : (REAL)((const double *)p)[i];
}

DALIGN_INLINE void store_given(void *p, int64_t i, double value, int given_f32) {
  if (given_f32)
    ((float *)p)[i] = (float)value;
  else
    ((double *)p)[i] = value;
}

/* Bytes that features of at most n, m frames need; adjoint: with room for gradients. */
size_t FN(dalign_features_bytes)(dalign_metric metric, int64_t n, int64_t m, int64_t d, int adjoint);

/* Prepares the frames of one pair in memory of that size. x, y as given: float when given_f32, else double. Tells whether
 * a frame holds a NaN. */
int FN(dalign_features_prepare)(features *f, dalign_metric metric, int64_t n, int64_t m, int64_t d, const void *x,
                                const void *y, int given_f32, int adjoint, void *memory);

/* Costs of count strips from strip first on, strip first + s at steps [step - s LANES, step - s LANES + TILE_STEPS), into
 * tile (see above; strip s of the tile begins with its first step). begin[s], end[s]: the steps counted from the tile's
 * first one that are wanted; others may stay untouched. Cells outside the lattice get any number. */
void FN(dalign_cost_tile)(const features *f, int64_t first, int count, int64_t step, const int *begin, const int *end,
                          REAL *tile);

/* Turns d value / d cost of a strip's tile into the weight of its kernel's adjoint, in place: euclidean divides by the cost. */
void FN(dalign_cost_weights)(const features *f, const REAL *cost, REAL *weights, int64_t numbers);

/* Adds the adjoint of columns [j_begin, j_end) of strip: the weight of (row r, column j) lies at
 * weights[(j - j_begin + r) * LANES + r]. Columns must lie in the lattice. */
void FN(dalign_cost_adjoint_tile)(features *f, int64_t strip, int64_t j_begin, int64_t j_end, const REAL *weights);

/* Writes gradients of the frames as given: scale times the chain rule through the preparation. Either may be NULL. */
void FN(dalign_features_finish)(const features *f, const void *x, const void *y, double scale, void *grad_x,
                                void *grad_y);
