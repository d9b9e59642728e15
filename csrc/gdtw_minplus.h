/* gdtw_minplus.h: one step of the lattice recursion,
 *
 *   new[k] = min_j old[j] + c[k - j],   k in [low, high],
 *
 * a (min, +) product with a convex c (+inf outside its window). Included once, for float vectors.
 *
 * The matrix c[k - j] is totally monotone: the smallest j that attains the minimum never falls as k grows. So the first
 * row of each block of outputs, its anchor, is searched, by halves, each between what its neighbours found; and the outputs
 * between two anchors only look at the j between theirs. All in vectors. */

enum {
  GDTW_BLOCK = 32,      /* outputs between two anchors; a multiple of every LANES */
  GDTW_PAD = GDTW_BLOCK /* numbers around a row, and around a table, that are read and do not count */
};
/* No warp comes this way. Finite, so that sums and differences stay numbers. */
#define GDTW_NEVER 1e30f

/* A row of the lattice: at[k] for k in [low, high], GDTW_NEVER in the pad on both sides. */
typedef struct {
  float *at;
  int low, high;
} gdtw_row;

/* Costs c[d] of an edge, d in [low, high], GDTW_NEVER in the pad on both sides; and the same backwards: back[-d] = c[d]. */
typedef struct {
  float *at, *back;
  int low, high;
} gdtw_edge_costs;

static inline int gdtw_larger(int a, int b) { return a > b ? a : b; }
static inline int gdtw_smaller(int a, int b) { return a < b ? a : b; }

/* The first j in [from, to] with the least old[j] + back[j]. Whole vectors are read; what lies behind is no less. */
static int gdtw_best_before(const float *old, const float *back, int from, int to) {
  vec least = v_set1(GDTW_NEVER * 4);
  for (int j = from; j <= to; j += LANES) least = v_min(least, v_add(v_loadu(old + j), v_loadu(back + j)));
  const vec best = v_set1(v_least(least));
  for (int j = from; j <= to; j += LANES) {
    const unsigned above = v_bits_below(best, v_add(v_loadu(old + j), v_loadu(back + j)));
    if (above != (1u << LANES) - 1) return gdtw_smaller(j + __builtin_ctz(~above), to);
  }
  return to;
}

/* The same for row k of the product, looking between from and to. */
static int gdtw_anchor(const gdtw_row *old, const gdtw_edge_costs *c, int k, int from, int to) {
  const int first = gdtw_larger(gdtw_larger(k - c->high, old->low), from);
  const int last = gdtw_smaller(gdtw_smaller(k - c->low, old->high), to);
  return gdtw_best_before(old->at, c->back - k, first, gdtw_larger(first, last));
}

/* Outputs [k, k + GDTW_BLOCK) from the j in [from, to]. */
static void gdtw_block(const gdtw_row *old, const gdtw_edge_costs *c, int k, int from, int to, float *out) {
  enum { VECTORS = GDTW_BLOCK / LANES };
  vec least[VECTORS];
  for (int q = 0; q < VECTORS; q++) least[q] = v_set1(GDTW_NEVER);
  from = gdtw_larger(from, k - c->high);
  to = gdtw_smaller(to, k + GDTW_BLOCK - 1 - c->low);
  for (int j = from; j <= to; j++) {
    const vec before = v_set1(old->at[j]);
    for (int q = 0; q < VECTORS; q++) least[q] = v_min(least[q], v_add(before, v_loadu(c->at + k - j + q * LANES)));
  }
  for (int q = 0; q < VECTORS; q++) v_storeu(out + q * LANES, least[q]);
}

/* Row new of the product. anchors: room for one number a block and one more. The anchors between two known ones are found
 * by halves, so that each round looks at every j about once. */
static void gdtw_min_plus(const gdtw_row *old, const gdtw_edge_costs *c, gdtw_row *new, int *anchors) {
  const int blocks = (new->high - new->low) / GDTW_BLOCK + 1;
  int stride = 1;
  while (stride < blocks) stride *= 2;
  anchors[0] = gdtw_anchor(old, c, new->low, old->low, old->high);
  anchors[blocks] = gdtw_anchor(old, c, new->high, anchors[0], old->high);
  for (; stride > 1; stride /= 2)
    for (int b = stride / 2; b < blocks; b += stride)
      anchors[b] = gdtw_anchor(old, c, new->low + GDTW_BLOCK *b, anchors[b - stride / 2],
                               anchors[gdtw_smaller(b + stride / 2, blocks)]);
  for (int b = 0; b < blocks; b++)
    gdtw_block(old, c, new->low + GDTW_BLOCK *b, anchors[b], anchors[b + 1], new->at + new->low + GDTW_BLOCK *b);
}
