/* Portable: 16-byte vectors by the vector extensions of GCC and Clang, which any machine's compiler turns into what the
 * machine has. */
#undef VEC_REGISTERS
#define VEC_REGISTERS 16
#undef VEC_INT
#undef VEC_BIAS
#undef VEC_DIGITS
#undef VEC_MAGIC
#if DALIGN_F32
#define LANES 4
#define VEC_INT int32_t
#define VEC_BIAS 127
#define VEC_DIGITS 23
#define VEC_MAGIC 12582912.f /* 1.5 2^23: adding it leaves a whole number in the low bits of the sum */
#else
#define LANES 2
#define VEC_INT int64_t
#define VEC_BIAS 1023
#define VEC_DIGITS 52
#define VEC_MAGIC 6755399441055744.
#endif
#undef bits
#define bits FN(vec_bits)
typedef REAL vec __attribute__((vector_size(16)));
typedef VEC_INT bits __attribute__((vector_size(16)));

#ifndef DALIGN_VEC_GENERIC
#define DALIGN_VEC_GENERIC
#define v_loadu v_load
#define v_storeu v_store
#define v_zero() ((vec){0})
#define v_add(a, b) ((a) + (b))
#define v_sub(a, b) ((a) - (b))
#define v_mul(a, b) ((a) * (b))
#define v_div(a, b) ((a) / (b))
#define v_muladd(a, b, c) ((a) * (b) + (c))
#endif

#undef v_load
#undef v_store
#undef v_set1
#undef v_select
#undef v_max
#undef v_min
#undef v_sqrt
#undef v_abs
#undef v_round
#undef v_fma
#undef v_sign
#undef v_ldexp
#undef v_pow2
#undef v_keep_below
#undef v_all_below
#undef v_bits_below
#undef v_all_plain
#undef v_shift_up
#undef v_shift_down
#undef v_split
#undef v_transpose
#undef v_least
#define v_transpose FN(v_transpose_)
#define v_least FN(v_least_)
#define v_load FN(v_load_)
#define v_store FN(v_store_)
#define v_set1 FN(v_set1_)
#define v_select FN(v_select_)
#define v_max FN(v_max_)
#define v_min FN(v_min_)
#define v_sqrt FN(v_sqrt_)
#define v_abs FN(v_abs_)
#define v_round FN(v_round_)
#define v_fma FN(v_fma_)
#define v_sign FN(v_sign_)
#define v_ldexp FN(v_ldexp_)
#define v_pow2 FN(v_pow2_)
#define v_keep_below FN(v_keep_below_)
#define v_all_below FN(v_all_below_)
#define v_bits_below FN(v_bits_below_)
#define v_all_plain FN(v_all_plain_)
#define v_shift_up FN(v_shift_up_)
#define v_shift_down FN(v_shift_down_)
#define v_split FN(v_split_)

DALIGN_INLINE vec v_load(const REAL *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

DALIGN_INLINE void v_store(REAL *p, vec v) { memcpy(p, &v, sizeof v); }
DALIGN_INLINE vec v_set1(REAL x) { return v_zero() + x; }
DALIGN_INLINE vec v_select(bits which, vec a, vec b) { return (vec)(((bits)a & which) | ((bits)b & ~which)); }
DALIGN_INLINE vec v_max(vec a, vec b) { return v_select(a > b, a, b); }
DALIGN_INLINE vec v_min(vec a, vec b) { return v_select(a < b, a, b); }
DALIGN_INLINE vec v_abs(vec a) { return v_select(a < 0, -a, a); }
DALIGN_INLINE vec v_keep_below(vec v, vec a, vec b) { return (vec)((bits)v & (a < b)); }

DALIGN_INLINE vec v_sign(vec a) {
  const bits one = (bits)v_set1(1);
  return (vec)(one & (a > 0)) - (vec)(one & (a < 0));
}

DALIGN_INLINE vec v_sqrt(vec a) {
  for (int r = 0; r < LANES; r++) a[r] = (REAL)sqrt((double)a[r]);
  return a;
}

DALIGN_INLINE int v_all_below(vec a, vec b) {
  const bits below = a < b;
  int all = 1;
  for (int r = 0; r < LANES; r++) all &= below[r] != 0;
  return all;
}

DALIGN_INLINE unsigned v_bits_below(vec a, vec b) {
  const bits below = a < b;
  unsigned found = 0;
  for (int r = 0; r < LANES; r++) found |= (unsigned)(below[r] & 1) << r;
  return found;
}

DALIGN_INLINE REAL v_least(vec a) {
  REAL least = a[0];
  for (int r = 1; r < LANES; r++) least = a[r] < least ? a[r] : least;
  return least;
}

DALIGN_INLINE int v_all_plain(vec c, vec limit) {
  const bits plain = (v_abs(c) < limit) | (c == (REAL)INFINITY);
  int all = 1;
  for (int r = 0; r < LANES; r++) all &= plain[r] != 0;
  return all;
}

/* Numbers above the mantissa's range are whole already. */
DALIGN_INLINE vec v_round(vec a) {
  const REAL whole = VEC_MAGIC / 3;
  return v_select((a < whole) & (a > -whole), (a + VEC_MAGIC) - VEC_MAGIC, a);
}

/* a b + c for c near -a b. Where the machine has no such instruction: in float the product is exact in double; in double
 * the product's rounding error comes from halves of the factors (Dekker 1971). */
DALIGN_INLINE vec v_fma(vec a, vec b, vec c) {
#if DALIGN_F32
  vec sum;
  for (int r = 0; r < LANES; r++) sum[r] = (float)((double)a[r] * (double)b[r] + (double)c[r]);
  return sum;
#elif defined __FP_FAST_FMA
  for (int r = 0; r < LANES; r++) c[r] = fma(a[r], b[r], c[r]);
  return c;
#else
  const vec a_wide = a * 134217729., b_wide = b * 134217729.;
  const vec a_high = a_wide - (a_wide - a), b_high = b_wide - (b_wide - b), a_low = a - a_high, b_low = b - b_high;
  const vec product = a * b;
  const vec error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  return (product + c) + error;
#endif
}

DALIGN_INLINE vec v_pow2(vec d) {
  const vec field = v_max(d, v_set1(-VEC_BIAS)) + (VEC_MAGIC + VEC_BIAS);
  return (vec)((bits)field << VEC_DIGITS);
}

DALIGN_INLINE vec v_ldexp(vec m, vec d) { return m * v_pow2(d); }

#if defined __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define VEC_SHUFFLE __builtin_shufflevector
#endif
#endif
#undef VEC_PICK
#if defined VEC_SHUFFLE
#define VEC_PICK(a, b, ...) VEC_SHUFFLE(a, b, __VA_ARGS__)
#else
#define VEC_PICK(a, b, ...) __builtin_shuffle(a, b, (bits){__VA_ARGS__})
#endif

DALIGN_INLINE vec v_shift_up(vec v, vec in) {
#if DALIGN_F32
  return VEC_PICK(v, in, 7, 0, 1, 2);
#else
  return VEC_PICK(v, in, 3, 0);
#endif
}

DALIGN_INLINE vec v_shift_down(vec v, vec in) {
#if DALIGN_F32
  return VEC_PICK(v, in, 1, 2, 3, 4);
#else
  return VEC_PICK(v, in, 1, 2);
#endif
}

/* The exponent's whole number comes back to a float by the low bits of VEC_MAGIC. */
DALIGN_INLINE void v_transpose(vec *a) {
  for (int i = 0; i < LANES; i++)
    for (int k = 0; k < i; k++) {
      const REAL upper = a[k][i];
      a[k][i] = a[i][k];
      a[i][k] = upper;
    }
}

DALIGN_INLINE void v_split(vec v, vec e, vec *m, vec *sum) {
  const bits low = ((VEC_INT)1 << VEC_DIGITS) - 1 + (bits){0}, one = (bits)v_set1(1), positive = v > 0;
  const vec nan = (vec)((bits)v & (v != v));
  const vec exponent = (vec)((((bits)v >> VEC_DIGITS) & (2 * VEC_BIAS + 1)) | (bits)v_set1(VEC_MAGIC));
  *m = (vec)((((bits)v & low) | one) & positive) + nan;
  *sum = v_select(positive, exponent - (VEC_MAGIC + VEC_BIAS) + e, v_set1(SCALED_NONE));
}
#undef VEC_SHUFFLE
