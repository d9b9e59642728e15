/* tap_blocks.h: the two products of which everything expensive in tap.c is made, as blocks of registers. Channels lie in
 * the lanes; a pixel's channel of the input enters as a broadcast number. Included once per element type. */
#undef TAP_PIXELS
#undef TAP_FEW
#undef TAP_INPUTS
#define TAP_PIXELS (VEC_REGISTERS >= 32 ? 12 : 6) /* of a block; a row's rest goes by fewer */
#define TAP_FEW (TAP_PIXELS / 3)
#define TAP_INPUTS (VEC_REGISTERS >= 32 ? 10 : 5)

#ifndef DALIGN_TAP_BLOCKS
#define DALIGN_TAP_BLOCKS
enum { TAP_MOST_PIXELS = 12, TAP_MOST_INPUTS = 10, TAP_VECTORS = 2 };
#endif

/* sums[p][v] += sum_r in[p step + r] w[r][v] */
DALIGN_INLINE void FN(add_products_)(vec *sums, int pixels, int vectors, const REAL *in, int64_t step, const REAL *w,
                                     int64_t wide, int64_t run) {
  for (int64_t r = 0; r < run; r++, w += wide) {
    vec row[TAP_VECTORS];
    DALIGN_UNROLL
    for (int v = 0; v < vectors; v++) row[v] = v_loadu(w + v * LANES);
    DALIGN_UNROLL
    for (int p = 0; p < pixels; p++) {
      const vec x = v_set1(in[p * step + r]);
      DALIGN_UNROLL
      for (int v = 0; v < vectors; v++) sums[p * vectors + v] = v_muladd(x, row[v], sums[p * vectors + v]);
    }
  }
}

/* sums[r][v] += sum_p in[p in_step + r] out[p out_step + v] */
DALIGN_INLINE void FN(add_outer_block_)(REAL *sums, int64_t wide, int inputs, const REAL *in, int64_t in_step,
                                        const REAL *out, int64_t out_step, int64_t pixels) {
  vec s[TAP_MOST_INPUTS * TAP_VECTORS];
  DALIGN_UNROLL
  for (int r = 0; r < inputs; r++) {
    s[2 * r] = v_loadu(sums + r * wide);
    s[2 * r + 1] = v_loadu(sums + r * wide + LANES);
  }
  for (int64_t p = 0; p < pixels; p++, in += in_step, out += out_step) {
    const vec low = v_loadu(out), high = v_loadu(out + LANES);
    DALIGN_UNROLL
    for (int r = 0; r < inputs; r++) {
      const vec x = v_set1(in[r]);
      s[2 * r] = v_muladd(x, low, s[2 * r]);
      s[2 * r + 1] = v_muladd(x, high, s[2 * r + 1]);
    }
  }
  DALIGN_UNROLL
  for (int r = 0; r < inputs; r++) {
    v_storeu(sums + r * wide, s[2 * r]);
    v_storeu(sums + r * wide + LANES, s[2 * r + 1]);
  }
}

/* The same for `run` inputs and all of the `wide` lanes. */
static void FN(add_outer_)(REAL *sums, int64_t wide, int64_t run, const REAL *in, int64_t in_step, const REAL *out,
                           int64_t out_step, int64_t pixels) {
  for (int64_t v = 0; v < wide; v += TAP_VECTORS * LANES) {
    int64_t r = 0;
    for (; r + TAP_INPUTS <= run; r += TAP_INPUTS)
      FN(add_outer_block_)(sums + r * wide + v, wide, TAP_INPUTS, in + r, in_step, out + v, out_step, pixels);
    for (; r + 5 <= run; r += 5)
      FN(add_outer_block_)(sums + r * wide + v, wide, 5, in + r, in_step, out + v, out_step, pixels);
    for (; r + 3 <= run; r += 3)
      FN(add_outer_block_)(sums + r * wide + v, wide, 3, in + r, in_step, out + v, out_step, pixels);
    for (; r < run; r++) FN(add_outer_block_)(sums + r * wide + v, wide, 1, in + r, in_step, out + v, out_step, pixels);
  }
}
