/* check.h: what the test programs share. Kernels of both precisions behind one table, numbers read and written as
 * double, memory of exactly the size asked for (so that AddressSanitizer sees the first byte too many), and a report.
 */
#ifndef DALIGN_TESTS_CHECK_H
#define DALIGN_TESTS_CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dalign.h"

/* ---------------------------------------------------------------- how much */

/* Under a tool that slows programs down fifty times, DALIGN_TEST_EVERY=7 tries each seventh problem only. */
static inline int left_out(void) {
  static int every, problems;
  if (!every) {
    const char *wanted = getenv("DALIGN_TEST_EVERY");
    every = wanted && atoi(wanted) > 1 ? atoi(wanted) : 1;
  }
  return problems++ % every != 0;
}

/* ---------------------------------------------------------------- both precisions, one table */

typedef struct {
  const char *name;
  size_t size;
  double epsilon; /* distance from 1 to the next number */
  double huge;
  size_t (*cost_workspace)(const dalign_cost_args *);
  dalign_status (*cost)(const dalign_cost_args *, void *, int64_t, int64_t, void *);
  dalign_status (*cost_backward)(const dalign_cost_args *, const void *, void *, void *, int64_t, int64_t, void *);
  size_t (*state)(const dalign_softdtw_args *);
  size_t (*shared)(const dalign_softdtw_args *, dalign_pass);
  size_t (*worker)(const dalign_softdtw_args *);
  dalign_status (*forward)(const dalign_softdtw_args *, int64_t, int64_t, void *);
  dalign_status (*backward)(const dalign_softdtw_args *, int64_t, int64_t, void *);
  dalign_status (*gradient)(const dalign_softdtw_args *, int64_t, int64_t, void *);
  dalign_status (*open)(const dalign_softdtw_args *, dalign_pass, int64_t, int, void *);
  void (*work)(void *, void *);
  dalign_status (*close)(void *);
  size_t (*hvp_workspace)(const dalign_softdtw_args *);
  dalign_status (*hvp)(const dalign_softdtw_args *, const void *, void *, int64_t, int64_t, void *);
} precision;

#define DEFINE_PRECISION(REAL, suffix, epsilon, huge)                                                                  \
  static inline dalign_status cost_##suffix(const dalign_cost_args *a, void *c, int64_t b, int64_t e, void *w) {       \
    return dalign_cost_##suffix(a, (REAL *)c, b, e, w);                                                                \
  }                                                                                                                    \
  static inline dalign_status cost_backward_##suffix(const dalign_cost_args *a, const void *g, void *gx, void *gy,     \
                                                     int64_t b, int64_t e, void *w) {                                  \
    return dalign_cost_backward_##suffix(a, (const REAL *)g, (REAL *)gx, (REAL *)gy, b, e, w);                         \
  }                                                                                                                    \
  static inline dalign_status hvp_##suffix(const dalign_softdtw_args *a, const void *t, void *p, int64_t b, int64_t e, \
                                           void *w) {                                                                  \
    return dalign_softdtw_hvp_##suffix(a, (const REAL *)t, (REAL *)p, b, e, w);                                        \
  }                                                                                                                    \
  static const precision suffix = {#suffix,                                                                            \
                                   sizeof(REAL),                                                                       \
                                   epsilon,                                                                            \
                                   huge,                                                                               \
                                   dalign_cost_workspace_##suffix,                                                     \
                                   cost_##suffix,                                                                      \
                                   cost_backward_##suffix,                                                             \
                                   dalign_softdtw_state_##suffix,                                                      \
                                   dalign_softdtw_shared_##suffix,                                                     \
                                   dalign_softdtw_worker_##suffix,                                                     \
                                   dalign_softdtw_forward_##suffix,                                                    \
                                   dalign_softdtw_backward_##suffix,                                                   \
                                   dalign_softdtw_gradient_##suffix,                                                   \
                                   dalign_softdtw_open_##suffix,                                                       \
                                   dalign_softdtw_work_##suffix,                                                       \
                                   dalign_softdtw_close_##suffix,                                                      \
                                   dalign_softdtw_hvp_workspace_##suffix,                                              \
                                   hvp_##suffix};

DEFINE_PRECISION(float, f32, 0x1p-23, 0x1p126)
DEFINE_PRECISION(double, f64, 0x1p-52, 0x1p1022)

static const precision *const precisions[2] = {&f32, &f64};

static inline double get(const precision *p, const void *numbers, int64_t k) {
  return p == &f32 ? (double)((const float *)numbers)[k] : ((const double *)numbers)[k];
}

static inline void set(const precision *p, void *numbers, int64_t k, double number) {
  if (p == &f32) {
    ((float *)numbers)[k] = (float)number;
  } else {
    ((double *)numbers)[k] = number;
  }
}

static inline void *at(const precision *p, void *numbers, int64_t k) { return (char *)numbers + (size_t)k * p->size; }

/* ---------------------------------------------------------------- memory */

/* Exactly `bytes`, every one of them `fill`; 0xFF makes each number a NaN. */
static inline void *filled(size_t bytes, int fill) {
  void *memory = malloc(bytes);
  if (bytes > 0 && memory == NULL) {
    printf("out of memory\n");
    exit(2);
  }
  if (bytes > 0) memset(memory, fill, bytes);
  return memory;
}

/* A result: what the kernel leaves out stays NaN. */
static inline void *result_array(const precision *p, int64_t count) { return filled((size_t)count * p->size, 0xFF); }

/* Working memory: left as it comes, so that valgrind sees a read before the first write. */
static inline void *scratch(size_t bytes) { return malloc(bytes); }

/* ---------------------------------------------------------------- random numbers: splitmix64 */

static inline uint64_t random_bits(uint64_t *seed) {
  uint64_t z = (*seed += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static inline double uniform(uint64_t *seed) { return (double)(random_bits(seed) >> 11) * 0x1p-53; }

static inline int64_t random_integer(uint64_t *seed, int64_t low, int64_t high) { /* in [low, high] */
  return low + (int64_t)(random_bits(seed) % (uint64_t)(high - low + 1));
}

/* ---------------------------------------------------------------- report */

static const char *group_name = "";
static int64_t group_checks, group_failures, all_failures;
static clock_t group_start;
static char present_case[512];

static inline void start_group(const char *name) {
  group_name = name;
  group_checks = group_failures = 0;
  group_start = clock();
}

static inline void end_group(void) {
  printf("%-56s %9lld checks %5.1f s  %s\n", group_name, (long long)group_checks,
         (double)(clock() - group_start) / CLOCKS_PER_SEC, group_failures ? "FAILED" : "ok");
  fflush(stdout);
  all_failures += group_failures;
}

/* What a failing check is printed with. */
__attribute__((format(printf, 1, 2))) static inline void describe_case(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(present_case, sizeof present_case, format, arguments);
  va_end(arguments);
}

/* Counts a check; the first failures of a group are printed in full. */
__attribute__((format(printf, 2, 3))) static inline void check(int holds, const char *format, ...) {
  group_checks++;
  if (holds || group_failures++ >= 12) return;
  va_list arguments;
  va_start(arguments, format);
  printf("FAILED %s\n  case: %s\n  ", group_name, present_case);
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
}

/* Equal within tolerance; an infinity equals itself, a NaN any NaN. */
static inline int is_near(double got, double expected, double tolerance) {
  if (isnan(expected)) return isnan(got);
  if (isinf(expected)) return got == expected;
  return fabs(got - expected) <= tolerance;
}

static inline void check_near(const char *what, int64_t index, double got, double expected, double tolerance) {
  if (is_near(got, expected, tolerance)) {
    group_checks++;
    return;
  }
  check(0, "%s[%lld] is %.17g, expected %.17g (off by %.3g, allowed %.3g)", what, (long long)index, got, expected,
        got - expected, tolerance);
}

/* The same bits, number by number. */
static inline void check_same(const char *what, const precision *p, const void *one, const void *other, int64_t count) {
  int64_t k = 0;
  while (k < count &&
         memcmp((const char *)one + (size_t)k * p->size, (const char *)other + (size_t)k * p->size, p->size) == 0)
    k++;
  check(k == count, "%s[%lld] differs in its bits: %.17g and %.17g", what, (long long)k,
        k < count ? get(p, one, k) : 0.0, k < count ? get(p, other, k) : 0.0);
}

static inline int report(void) {
  printf("%s: %lld failed checks, instruction set %s\n", all_failures ? "FAILED" : "passed", (long long)all_failures,
         dalign_isa());
  return all_failures != 0;
}

#endif
