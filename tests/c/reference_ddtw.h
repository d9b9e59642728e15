/* reference_ddtw.h: the general lattice of csrc/ddtw.c as it is defined, one item, a loop per cell in the log domain. */
#ifndef DALIGN_TESTS_REFERENCE_DDTW_H
#define DALIGN_TESTS_REFERENCE_DDTW_H

#include "reference.h"

typedef struct {
  int64_t n, m;
  int steps;
  const int64_t *step_x, *step_y;
  dalign_smoothing smoothing;
  double gamma;
  const double *cost, *weights, *start, *end; /* (n, m), (n, m, steps), (n, m), (n, m) */
} reference_lattice;

/* Derivatives of the value, laid out as what they belong to; and the sum of all costs times theirs. */
typedef struct {
  double *cost, *weights, *start, *end;
  double mean_cost;
} reference_gradients;

/* The value; +inf and gradients 0 where no path is left. */
wide reference_ddtw(const reference_lattice *lattice, reference_gradients *gradients);

#endif
