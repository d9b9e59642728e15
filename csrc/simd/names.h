/* Names of the copies: every kernel source is compiled once per ISA level, and inside it once per element type, so
 * DALIGN_NAME(dalign_cost, f32) is dalign_cost_f32_avx2 in the AVX2 object. */
#ifndef DALIGN_NAMES_H
#define DALIGN_NAMES_H

#define DALIGN_JOIN_(a, b, c) a##_##b##_##c
#define DALIGN_JOIN(a, b, c) DALIGN_JOIN_(a, b, c)
#define DALIGN_NAME(name, type) DALIGN_JOIN(name, type, DALIGN_ISA)

/* Every use of a vector helper inlined, and every copy of a recursion specialised, is what makes the kernels fast. It also
 * makes sanitizers compile for minutes, so the Makefile asks for none of it there. */
#ifdef DALIGN_NO_INLINE
#define DALIGN_INLINE static __attribute__((unused))
#else
#define DALIGN_INLINE static inline __attribute__((always_inline, unused))
#endif

/* Before a loop of a known and small number of rounds, over an array that then lives in registers. */
#if defined DALIGN_NO_INLINE
#define DALIGN_UNROLL
#elif defined __clang__
#define DALIGN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define DALIGN_UNROLL _Pragma("GCC unroll 32")
#endif

#endif
