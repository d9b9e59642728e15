/* AVX2 and FMA: 8 floats or 4 doubles. Exponents are read and written through the bits of the numbers. */
#include <immintrin.h>

#undef VEC_REGISTERS
#define VEC_REGISTERS 16
#undef VI
#if DALIGN_F32
#define LANES 8
#define VI(op) _mm256_##op##_ps
typedef __m256 vec;
#else
#define LANES 4
#define VI(op) _mm256_##op##_pd
typedef __m256d vec;
#endif

#ifndef DALIGN_VEC_AVX2
#define DALIGN_VEC_AVX2
#define v_load(p) VI(load)(p)
#define v_loadu(p) VI(loadu)(p)
#define v_store(p, v) VI(store)(p, v)
#define v_storeu(p, v) VI(storeu)(p, v)
#define v_set1(x) VI(set1)(x)
#define v_zero() VI(setzero)()
#define v_add(a, b) VI(add)(a, b)
#define v_sub(a, b) VI(sub)(a, b)
#define v_mul(a, b) VI(mul)(a, b)
#define v_div(a, b) VI(div)(a, b)
#define v_max(a, b) VI(max)(a, b)
#define v_min(a, b) VI(min)(a, b)
#define v_sqrt(a) VI(sqrt)(a)
#define v_abs(a) VI(andnot)(v_set1(-0.), a)
#define v_round(a) VI(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_fma(a, b, c) VI(fmadd)(a, b, c)
#define v_muladd(a, b, c) VI(fmadd)(a, b, c)
#define v_keep_below(v, a, b) VI (and)(v, VI(cmp)(a, b, _CMP_LT_OQ))
#define v_all_below(a, b) (VI(movemask)(VI(cmp)(a, b, _CMP_NLT_UQ)) == 0)
#define v_bits_below(a, b) ((unsigned)VI(movemask)(VI(cmp)(a, b, _CMP_LT_OQ)))
#define v_all_plain(c, limit) \
  (VI(movemask)(VI (and)(VI(cmp)(v_abs(c), limit, _CMP_NLT_UQ), VI(cmp)(c, v_set1((REAL)INFINITY), _CMP_NEQ_UQ))) == 0)
#define v_sign(a) \
  VI(sub)(VI (and)(VI(cmp)(a, v_zero(), _CMP_GT_OQ), v_set1(1)), VI (and)(VI(cmp)(a, v_zero(), _CMP_LT_OQ), v_set1(1)))
#endif

#undef v_ldexp
#undef v_pow2
#undef v_shift_up
#undef v_shift_down
#undef v_split
#undef v_transpose
#undef v_least
#define v_transpose FN(v_transpose_)
#define v_least FN(v_least_)
#define v_ldexp FN(v_ldexp_)
#define v_pow2 FN(v_pow2_)
#define v_shift_up FN(v_shift_up_)
#define v_shift_down FN(v_shift_down_)
#define v_split FN(v_split_)

#if DALIGN_F32

DALIGN_INLINE REAL v_least(vec a) {
  a = _mm256_min_ps(a, _mm256_permute2f128_ps(a, a, 1));
  a = _mm256_min_ps(a, _mm256_permute_ps(a, 0x4e));
  return _mm256_cvtss_f32(_mm256_min_ps(a, _mm256_permute_ps(a, 0xb1)));
}

/* Adding 1.5 2^23 leaves a whole number in the low bits of the sum; the shift moves it to the exponent field. */
DALIGN_INLINE vec v_pow2(vec d) {
  const vec field = v_add(v_max(d, v_set1(-127.f)), v_set1(12582912.f + 127.f));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(field), 23));
}

DALIGN_INLINE vec v_ldexp(vec m, vec d) { return v_mul(m, v_pow2(d)); }

DALIGN_INLINE vec v_shift_up(vec v, vec in) {
  const __m256i last = _mm256_set1_epi32(7), back = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
  return _mm256_blend_ps(_mm256_permutevar8x32_ps(v, back), _mm256_permutevar8x32_ps(in, last), 1);
}

DALIGN_INLINE vec v_shift_down(vec v, vec in) {
  const __m256i ahead = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0);
  return _mm256_blend_ps(_mm256_permutevar8x32_ps(v, ahead), _mm256_permutevar8x32_ps(in, ahead), 0x80);
}

DALIGN_INLINE void v_split(vec v, vec e, vec *m, vec *sum) {
  const __m256i bits = _mm256_castps_si256(v);
  const vec positive = _mm256_cmp_ps(v, v_zero(), _CMP_GT_OQ), nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  const __m256i one = _mm256_set1_epi32(0x3f800000), low = _mm256_set1_epi32(0x7fffff);
  const vec mantissa = _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(bits, low), one));
  const vec exponent = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(127)));
  *m = _mm256_or_ps(_mm256_and_ps(mantissa, positive), nan);
  *sum = _mm256_blendv_ps(v_set1(SCALED_NONE), v_add(exponent, e), positive);
}

#else

DALIGN_INLINE REAL v_least(vec a) {
  a = _mm256_min_pd(a, _mm256_permute2f128_pd(a, a, 1));
  return _mm256_cvtsd_f64(_mm256_min_pd(a, _mm256_permute_pd(a, 5)));
}

DALIGN_INLINE vec v_pow2(vec d) {
  const vec field = v_add(v_max(d, v_set1(-1023.)), v_set1(6755399441055744. + 1023.));
  return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(field), 52));
}

DALIGN_INLINE vec v_ldexp(vec m, vec d) { return v_mul(m, v_pow2(d)); }

DALIGN_INLINE vec v_shift_up(vec v, vec in) {
  const vec turned = _mm256_permute4x64_pd(v, 0x93), entering = _mm256_permute4x64_pd(in, 0xff);
  return _mm256_blend_pd(turned, entering, 1);
}

DALIGN_INLINE vec v_shift_down(vec v, vec in) {
  const vec turned = _mm256_permute4x64_pd(v, 0x39), entering = _mm256_permute4x64_pd(in, 0x00);
  return _mm256_blend_pd(turned, entering, 8);
}

DALIGN_INLINE void v_split(vec v, vec e, vec *m, vec *sum) {
  const __m256i bits = _mm256_castpd_si256(v);
  const vec positive = _mm256_cmp_pd(v, v_zero(), _CMP_GT_OQ), nan = _mm256_cmp_pd(v, v, _CMP_UNORD_Q);
  const __m256i one = _mm256_set1_epi64x(0x3ff0000000000000), low = _mm256_set1_epi64x(0xfffffffffffff);
  const vec mantissa = _mm256_castsi256_pd(_mm256_or_si256(_mm256_and_si256(bits, low), one));
  const __m256i magic = _mm256_set1_epi64x(0x4330000000000000); /* 2^52, whose low bits count ones */
  const vec exponent = v_sub(_mm256_castsi256_pd(_mm256_or_si256(_mm256_srli_epi64(bits, 52), magic)),
                             v_set1(4503599627370496. + 1023.));
  *m = _mm256_or_pd(_mm256_and_pd(mantissa, positive), nan);
  *sum = _mm256_blendv_pd(v_set1(SCALED_NONE), v_add(exponent, e), positive);
}

#endif

/* Pairs of rows within 128 bits, then pairs of 128 bits. */
DALIGN_INLINE void v_transpose(vec *a) {
#if DALIGN_F32
  vec t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; h++) {
      const __m256d upper = _mm256_castps_pd(t[i + h]), lower = _mm256_castps_pd(t[i + 2 + h]);
      a[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(upper, lower));
      a[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(upper, lower));
    }
  for (int k = 0; k < 4; k++) {
    const vec upper = a[k];
    a[k] = _mm256_permute2f128_ps(upper, a[4 + k], 0x20);
    a[4 + k] = _mm256_permute2f128_ps(upper, a[4 + k], 0x31);
  }
#else
  for (int i = 0; i < 4; i += 2) {
    const vec upper = a[i];
    a[i] = _mm256_unpacklo_pd(upper, a[i + 1]);
    a[i + 1] = _mm256_unpackhi_pd(upper, a[i + 1]);
  }
  for (int k = 0; k < 2; k++) {
    const vec upper = a[k];
    a[k] = _mm256_permute2f128_pd(upper, a[2 + k], 0x20);
    a[2 + k] = _mm256_permute2f128_pd(upper, a[2 + k], 0x31);
  }
#endif
}
