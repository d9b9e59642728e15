/* Portable: short arrays and loops over the lanes, which a compiler may turn into whatever the machine has. */
#undef VEC_BITS
#if DALIGN_F32
#define LANES 4
#define VEC_BITS uint32_t
#else
#define LANES 2
#define VEC_BITS uint64_t
#endif
typedef struct {
  REAL lane[LANES];
} vec;

#undef v_load
#undef v_loadu
#undef v_store
#undef v_storeu
#undef v_set1
#undef v_zero
#define v_load FN(v_load_)
#define v_loadu FN(v_load_)
#define v_store FN(v_store_)
#define v_storeu FN(v_store_)
#define v_set1 FN(v_set1_)
#define v_zero() FN(v_set1_)(0)
#define v_add FN(v_add_)
#define v_sub FN(v_sub_)
#define v_mul FN(v_mul_)
#define v_div FN(v_div_)
#define v_max FN(v_max_)
#define v_min FN(v_min_)
#define v_sqrt FN(v_sqrt_)
#define v_abs FN(v_abs_)
#define v_round FN(v_round_)
#define v_fma FN(v_fma_)
#define v_muladd FN(v_muladd_)
#define v_sign FN(v_sign_)
#define v_ldexp FN(v_ldexp_)
#define v_keep_below FN(v_keep_below_)
#define v_all_below FN(v_all_below_)
#define v_shift_up FN(v_shift_up_)
#define v_shift_down FN(v_shift_down_)
#define v_split FN(v_split_)

#define VEC_EACH(expression)                                     \
  vec result;                                                    \
  for (int r = 0; r < LANES; r++) result.lane[r] = (expression); \
  return result

DALIGN_INLINE vec v_load(const REAL *p) { VEC_EACH(p[r]); }
DALIGN_INLINE void v_store(REAL *p, vec v) { memcpy(p, v.lane, sizeof v.lane); }
DALIGN_INLINE vec v_set1(REAL x) { VEC_EACH(x); }
DALIGN_INLINE vec v_add(vec a, vec b) { VEC_EACH(a.lane[r] + b.lane[r]); }
DALIGN_INLINE vec v_sub(vec a, vec b) { VEC_EACH(a.lane[r] - b.lane[r]); }
DALIGN_INLINE vec v_mul(vec a, vec b) { VEC_EACH(a.lane[r] * b.lane[r]); }
DALIGN_INLINE vec v_div(vec a, vec b) { VEC_EACH(a.lane[r] / b.lane[r]); }
DALIGN_INLINE vec v_max(vec a, vec b) { VEC_EACH(a.lane[r] > b.lane[r] ? a.lane[r] : b.lane[r]); }
DALIGN_INLINE vec v_min(vec a, vec b) { VEC_EACH(a.lane[r] < b.lane[r] ? a.lane[r] : b.lane[r]); }
DALIGN_INLINE vec v_sqrt(vec a) { VEC_EACH((REAL)sqrt((double)a.lane[r])); }
DALIGN_INLINE vec v_abs(vec a) { VEC_EACH((REAL)fabs((double)a.lane[r])); }
DALIGN_INLINE vec v_sign(vec a) { VEC_EACH((REAL)((a.lane[r] > 0) - (a.lane[r] < 0))); }
DALIGN_INLINE vec v_keep_below(vec v, vec a, vec b) { VEC_EACH(a.lane[r] < b.lane[r] ? v.lane[r] : 0); }
DALIGN_INLINE vec v_shift_up(vec v, vec in) { VEC_EACH(r ? v.lane[r ? r - 1 : 0] : in.lane[LANES - 1]); }
DALIGN_INLINE vec v_shift_down(vec v, vec in) {
  VEC_EACH(r < LANES - 1 ? v.lane[r < LANES - 1 ? r + 1 : r] : in.lane[0]);
}

DALIGN_INLINE int v_all_below(vec a, vec b) {
  int below = 1;
  for (int r = 0; r < LANES; r++) below &= a.lane[r] < b.lane[r];
  return below;
}

/* Nearest whole number by the rounding of an addition; numbers above the mantissa's range are whole already. */
DALIGN_INLINE vec v_round(vec a) {
#if DALIGN_F32
  const REAL magic = 12582912.f, whole = 4194304.f;
#else
  const REAL magic = 6755399441055744., whole = 2251799813685248.;
#endif
  vec result;
  for (int r = 0; r < LANES; r++) {
    const REAL sum = a.lane[r] + magic;
    result.lane[r] = a.lane[r] < whole && a.lane[r] > -whole ? sum - magic : a.lane[r];
  }
  return result;
}

DALIGN_INLINE vec v_muladd(vec a, vec b, vec c) { VEC_EACH(a.lane[r] * b.lane[r] + c.lane[r]); }

/* In float the product is exact in double, so only the sum rounds (twice, harmlessly). */
DALIGN_INLINE vec v_fma(vec a, vec b, vec c) {
#if DALIGN_F32
  VEC_EACH((REAL)((double)a.lane[r] * b.lane[r] + c.lane[r]));
#else
  VEC_EACH(fma(a.lane[r], b.lane[r], c.lane[r]));
#endif
}

DALIGN_INLINE REAL FN(from_bits_)(VEC_BITS bits) {
  REAL x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

DALIGN_INLINE VEC_BITS FN(to_bits_)(REAL x) {
  VEC_BITS bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

#undef VEC_BIAS
#undef VEC_DIGITS
#if DALIGN_F32
#define VEC_BIAS 127
#define VEC_DIGITS 23
#else
#define VEC_BIAS 1023
#define VEC_DIGITS 52
#endif

DALIGN_INLINE vec v_ldexp(vec m, vec d) {
  vec result;
  for (int r = 0; r < LANES; r++) {
    const REAL floor = d.lane[r] > -VEC_BIAS ? d.lane[r] : -VEC_BIAS;
    result.lane[r] = m.lane[r] * FN(from_bits_)((VEC_BITS)((int)floor + VEC_BIAS) << VEC_DIGITS);
  }
  return result;
}

DALIGN_INLINE void v_split(vec v, vec *m, vec *e) {
  for (int r = 0; r < LANES; r++) {
    const VEC_BITS bits = FN(to_bits_)(v.lane[r]), low = ((VEC_BITS)1 << VEC_DIGITS) - 1;
    const int positive = v.lane[r] > 0;
    const REAL zero_or_nan = v.lane[r] == v.lane[r] ? 0 : v.lane[r];
    m->lane[r] = positive ? FN(from_bits_)((bits & low) | ((VEC_BITS)VEC_BIAS << VEC_DIGITS)) : zero_or_nan;
    e->lane[r] = positive ? (REAL)((int)(bits >> VEC_DIGITS) - VEC_BIAS) : SCALED_NONE;
  }
}
