/* AVX-512 (F, BW, DQ, VL): 16 floats or 8 doubles. */
#include <immintrin.h>

#undef VEC_REGISTERS
#define VEC_REGISTERS 32
#undef VI
#undef V_MASK
#undef V_SHUFFLE
#if DALIGN_F32
#define LANES 16
#define VI(op) _mm512_##op##_ps
#define V_MASK __mmask16
#define V_SHUFFLE _mm512_shuffle_f32x4
typedef __m512 vec;
#else
#define LANES 8
#define VI(op) _mm512_##op##_pd
#define V_MASK __mmask8
#define V_SHUFFLE _mm512_shuffle_f64x2
typedef __m512d vec;
#endif

#ifndef DALIGN_VEC_AVX512
#define DALIGN_VEC_AVX512
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
#define v_abs(a) VI(abs)(a)
#define v_round(a) VI(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_fma(a, b, c) VI(fmadd)(a, b, c)
#define v_muladd(a, b, c) VI(fmadd)(a, b, c)
#define v_ldexp(m, d) VI(scalef)(m, d)
#define v_keep_below(v, a, b) VI(maskz_mov)(VI(CMP_MASK)(a, b, _CMP_LT_OQ), v)
#define v_all_below(a, b) (VI(CMP_MASK)(a, b, _CMP_NLT_UQ) == 0)
#define v_bits_below(a, b) ((unsigned)VI(CMP_MASK)(a, b, _CMP_LT_OQ))
#define v_least(a) VI(reduce_min)(a)
#define v_all_plain(c, limit) \
  ((VI(CMP_MASK)(v_abs(c), limit, _CMP_NLT_UQ) & VI(CMP_MASK)(c, v_set1((REAL)INFINITY), _CMP_NEQ_UQ)) == 0)
#define _mm512_CMP_MASK_ps(a, b, op) _mm512_cmp_ps_mask(a, b, op)
#define _mm512_CMP_MASK_pd(a, b, op) _mm512_cmp_pd_mask(a, b, op)
#define v_sign(a)                                                                                                      \
  VI(mask_mov)(VI(maskz_mov)(VI(CMP_MASK)(a, v_zero(), _CMP_GT_OQ), v_set1(1)), VI(CMP_MASK)(a, v_zero(), _CMP_LT_OQ), \
               v_set1(-1))
#endif

#undef v_shift_up
#undef v_shift_down
#undef v_split
#undef v_pow2
#undef v_transpose
#define v_transpose FN(v_transpose_)
#define v_shift_up FN(v_shift_up_)
#define v_shift_down FN(v_shift_down_)
#define v_split FN(v_split_)
#define v_pow2 FN(v_pow2_)

/* Adding 1.5 2^23 (2^52) leaves a whole number in the low bits of the sum; the shift moves it to the exponent field. Two of
 * the three instructions are cheaper than a scalef. */
DALIGN_INLINE vec v_pow2(vec d) {
#if DALIGN_F32
  const vec field = v_add(v_max(d, v_set1(-127.f)), v_set1(12582912.f + 127.f));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(field), 23));
#else
  const vec field = v_add(v_max(d, v_set1(-1023.)), v_set1(6755399441055744. + 1023.));
  return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(field), 52));
#endif
}

DALIGN_INLINE vec v_shift_up(vec v, vec in) {
#if DALIGN_F32
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(v), _mm512_castps_si512(in), 15));
#else
  return _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_castpd_si512(v), _mm512_castpd_si512(in), 7));
#endif
}

DALIGN_INLINE vec v_shift_down(vec v, vec in) {
#if DALIGN_F32
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(in), _mm512_castps_si512(v), 1));
#else
  return _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_castpd_si512(in), _mm512_castpd_si512(v), 1));
#endif
}

/* Pairs of rows within 128 bits, then pairs of 128 bits. */
DALIGN_INLINE void v_transpose(vec *a) {
#if DALIGN_F32
  vec t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int h = 0; h < 2; h++) {
      const __m512d upper = _mm512_castps_pd(t[i + h]), lower = _mm512_castps_pd(t[i + 2 + h]);
      a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
      a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
    }
  enum { quarter = 4 };
#else
  for (int i = 0; i < 8; i += 2) {
    const vec upper = a[i];
    a[i] = _mm512_unpacklo_pd(upper, a[i + 1]);
    a[i + 1] = _mm512_unpackhi_pd(upper, a[i + 1]);
  }
  enum { quarter = 2 };
#endif
  for (int k = 0; k < quarter; k++) {
    const vec r0 = a[k], r1 = a[quarter + k], r2 = a[2 * quarter + k], r3 = a[3 * quarter + k];
    const vec even_up = V_SHUFFLE(r0, r1, 0x88), odd_up = V_SHUFFLE(r0, r1, 0xdd);
    const vec even_low = V_SHUFFLE(r2, r3, 0x88), odd_low = V_SHUFFLE(r2, r3, 0xdd);
    a[k] = V_SHUFFLE(even_up, even_low, 0x88);
    a[quarter + k] = V_SHUFFLE(odd_up, odd_low, 0x88);
    a[2 * quarter + k] = V_SHUFFLE(even_up, even_low, 0xdd);
    a[3 * quarter + k] = V_SHUFFLE(odd_up, odd_low, 0xdd);
  }
}

DALIGN_INLINE void v_split(vec v, vec e, vec *m, vec *sum) {
  const V_MASK positive = VI(CMP_MASK)(v, v_zero(), _CMP_NLE_UQ); /* true for NaN, so that NaN passes */
  *m = VI(maskz_getmant)(positive, v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
  *sum = VI(mask_add)(v_set1(SCALED_NONE), positive, VI(getexp)(v), e);
}
