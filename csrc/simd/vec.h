/* The vector layer: a lane type and the operations of scaled arithmetic, for the element type REAL (see real.h).
 * The only place, with dispatch.c, that knows instruction sets.
 *
 *   vec                    LANES numbers of type REAL; VEC_REGISTERS of them are at hand
 *   v_load v_loadu v_store v_storeu v_set1 v_zero, v_add v_sub v_mul v_div v_max v_min v_sqrt v_abs v_round
 *   v_fma(a, b, c)         a b + c, rounded once
 *   v_muladd(a, b, c)      a b + c, rounded once or twice, whichever is faster
 *   v_sign(a)              -1, 0 or 1
 *   v_ldexp(m, d)          m 2^d for whole d; 0 when d is below the normal range, any d <= 0 allowed
 *   v_pow2(d)              2^d for whole d <= 0; 0 when that is below the normal range
 *   v_keep_below(v, a, b)  v where a < b, else 0 (also 0 where a or b is NaN)
 *   v_all_below(a, b)      whether a < b in every lane (false for NaN)
 *   v_bits_below(a, b)    one bit a lane: a < b
 *   v_least(a)             the least of the lanes, a REAL
 *   v_all_plain(c, limit)  whether |c| < limit or c = +inf in every lane (false for NaN)
 *   v_shift_up(v, in)      lane r takes lane r - 1 of v, lane 0 the last lane of in
 *   v_shift_down(v, in)    lane r takes lane r + 1 of v, the last lane takes lane 0 of in
 *   v_transpose(rows)      LANES vectors: lane k of vector i changes places with lane i of vector k
 *   v_split(v, e, &m, &s)  v 2^e = m 2^s with 1 <= m < 2 for v > 0; m = 0, s = SCALED_NONE for v = 0; NaN stays NaN
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#undef VEC_EXP2_DEGREE
#undef SCALED_NONE
#if DALIGN_F32
#define SCALED_NONE (-1e30f) /* exponent of a zero: far below every other, and sums with it stay there */
#else
#define SCALED_NONE (-1.7e308)
#endif

#undef vec
#undef scaled
#undef LANES
#define vec FN(vec_type)
#define scaled FN(scaled_type)
#if defined __AVX512F__
#include "vec_avx512.h"
#elif defined __AVX2__
#include "vec_avx2.h"
#else
#include "vec_generic.h"
#endif

/* A number m 2^e per lane; e is whole. */
typedef struct {
  vec m, e;
} scaled;

#undef scaled_zero
#undef scaled_parts
#undef scaled_add3
#undef scaled_times
#undef scaled_normalise
#undef exp2_split
#undef v_pow2_fraction
#define scaled_zero FN(scaled_zero_)
#define scaled_parts FN(scaled_parts_type)
#define scaled_add3 FN(scaled_add3_)
#define scaled_times FN(scaled_times_)
#define scaled_normalise FN(scaled_normalise_)
#define exp2_split FN(exp2_split_)
#define v_pow2_fraction FN(v_pow2_fraction_)

DALIGN_INLINE scaled scaled_zero(void) {
  scaled z = {v_zero(), v_set1(SCALED_NONE)};
  return z;
}

/* a + b and c of a sum a + b + c, brought to the largest exponent. */
typedef struct {
  vec two, third, e;
} scaled_parts;

/* c is the number that is known last: a recursion waits for it, and as little as can be comes after it. */
DALIGN_INLINE scaled_parts scaled_add3(scaled a, scaled b, scaled c) {
  scaled_parts s;
  s.e = v_max(v_max(a.e, b.e), c.e);
  s.two = v_add(v_ldexp(a.m, v_sub(a.e, s.e)), v_ldexp(b.m, v_sub(b.e, s.e)));
  s.third = v_ldexp(c.m, v_sub(c.e, s.e));
  return s;
}

DALIGN_INLINE scaled scaled_normalise(vec m, vec e) {
  scaled s;
  v_split(m, v_max(e, v_set1(SCALED_NONE)), &s.m, &s.e);
  return s;
}

/* (a + b + c) k */
DALIGN_INLINE scaled scaled_times(scaled_parts sum, scaled k) {
  return scaled_normalise(v_muladd(sum.two, k.m, v_mul(sum.third, k.m)), v_add(sum.e, k.e));
}

/* 2^f for |f| <= 1/2: 1 + f q(f), q interpolating (2^f - 1) / f at Chebyshev nodes.
 * Relative error 5e-9 (float, degree 6) and 8e-18 (double, degree 11) before rounding. */
DALIGN_INLINE vec v_pow2_fraction(vec f) {
#if DALIGN_F32
  static const REAL q[] = {0.693147188026228781f,   0.240226507605681269f,   0.0555035711421907782f,
                           0.00961808255727785149f, 0.00133908633646712344f, 0.000154531629451206902f};
#else
  static const REAL q[] = {0.693147180559945309,     0.240226506959100982,   0.0555041086648215943,
                           0.00961812910760688853,   0.00133335581464169353, 0.000154035304417360502,
                           0.0000152527338298361184, 1.32154425879216897e-6, 1.01780624458457735e-7,
                           7.0725859492692237e-9,    4.45496059818651839e-10};
#endif
  enum { last = sizeof q / sizeof q[0] - 1 };
  vec p = v_set1(q[last]);
  for (int i = last - 1; i >= 0; i--) p = v_muladd(p, f, v_set1(q[i]));
  return v_muladd(p, f, v_set1((REAL)1));
}

/* 2^(c (rate + rate_low)) as m 2^e, m in [.7, 1.42]. The product splits into whole part and fraction with the remainder of
 * an FMA, so the fraction keeps its digits however large the product is. Beyond 2^53 a double has no fraction; what the
 * remainder holds there is cut off. c = +inf gives m = 0 and an exponent of -inf (rate < 0). */
DALIGN_INLINE scaled exp2_split(vec c, vec rate, vec rate_low) {
  scaled s;
  s.e = v_round(v_mul(c, rate));
  vec f = v_fma(c, rate_low, v_fma(c, rate, v_sub(v_zero(), s.e)));
#if !DALIGN_F32
  f = v_max(v_min(f, v_set1(.5)), v_set1(-.5));
#endif
  s.m = v_keep_below(v_pow2_fraction(f), c, v_set1((REAL)INFINITY));
  return s;
}
