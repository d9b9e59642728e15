/* Denormal results become zero while a kernel runs: they are too small to matter in sums whose largest term is near 1,
 * and slow. Only results: denormal inputs keep their value. */
#ifndef DALIGN_FLUSH_H
#define DALIGN_FLUSH_H
#if defined __SSE2__
#include <xmmintrin.h>
static inline unsigned dalign_flush_begin(void) {
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | _MM_FLUSH_ZERO_ON);
  return before;
}
static inline void dalign_flush_end(unsigned before) { _mm_setcsr(before); }
#else
static inline unsigned dalign_flush_begin(void) { return 0; }
static inline void dalign_flush_end(unsigned before) { (void)before; }
#endif
#endif
