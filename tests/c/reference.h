/* reference.h: slow scalar versions of every kernel of csrc/dalign.h, the specification that the tests compare with.
 *
 * One pair of frames or one problem at a time; costs are wide numbers, so that a float64 kernel can be judged too. The
 * recursion runs in the log domain with the smallest argument taken out, as in the definition. */
#ifndef DALIGN_TESTS_REFERENCE_H
#define DALIGN_TESTS_REFERENCE_H

#include "dalign.h"

/* The reference's own numbers. valgrind computes a long double with the digits of a double and takes a stored +inf for
 * finite, so what runs under it is compiled with DALIGN_TEST_DOUBLE. */
#ifdef DALIGN_TEST_DOUBLE
typedef double wide;
#else
typedef long double wide;
#endif

/* Cost of one pair of frames; `label` is used by DALIGN_NLL alone, `y` by all others. */
wide reference_cost(dalign_metric metric, int64_t d, const double *x, const double *y, int64_t label);

/* Its gradient with respect to x and y (d numbers each); grad_y is left alone by DALIGN_NLL. */
void reference_cost_gradient(dalign_metric metric, int64_t d, const double *x, const double *y, int64_t label,
                             double *grad_x, double *grad_y);

/* Soft-DTW of one item: n rows and m columns are all there are. */
typedef struct {
  int64_t n, m;
  double gamma, step_weights[3], band;
  const wide *cost; /* (n, m) */
} reference_problem;

/* Does the band keep cell (i, j)? */
int reference_in_band(const reference_problem *problem, int64_t i, int64_t j);

/* on_path (n, m): 1 where a path of finite cost from the first to the last cell goes through the cell. */
void reference_paths(const reference_problem *problem, unsigned char *on_path);

/* Value; +inf when there is no path. The results may be NULL: alignment (n, m) = d value / d cost; mass (n, m), the
 * probability that a path goes through the cell. */
wide reference_softdtw(const reference_problem *problem, double *alignment, double *mass);

/* product (n, m): derivative of the alignment along tangent (n, m). */
void reference_hvp(const reference_problem *problem, const double *tangent, double *product);

/* The same value and alignment from a walk over all paths, for a dozen cells at most: what proves the recursion. */
wide reference_enumerate(const reference_problem *problem, double *alignment);

#endif
