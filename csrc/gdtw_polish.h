/* gdtw_polish.h: from a feasible warp to one that satisfies the conditions of Karush, Kuhn and Tucker, by active sets.
 *
 * Where every phi_i stays in its segment of y, F is convex. Newton steps inside of the working set (pins and ties) go up to
 * the first constraint or sample: all that are met enter, a sample at which L_i is convex as a pin, at one where it is
 * concave the knot changes segment. At a stationary point the certificate looks for multipliers:
 *
 *   mu_i = mu_{i-1} + s_i,  s_i one of the forces that knot i can hold,  mu_i one that the tie of edge i can carry,
 *
 * mu_{-1} = mu_{n-1} = 0. The intervals I_i = (I_{i-1} + S_i) cut to M_i never become empty if and only if there are
 * some. Where one does, the block of knots since the bound that was last in force is a direction of descent: it is let go.
 * F falls with every step, so no working set comes twice. */
#ifndef DALIGN_GDTW_POLISH_H
#define DALIGN_GDTW_POLISH_H

enum { GDTW_MANY_CERTIFICATES = 40 }; /* after that many only the worst block is let go */
enum { GDTW_MEETS_SIDE = 1, GDTW_MEETS_SLOPE = 2 };

/* Knots [first, last] that gain by moving together, and how much. */
typedef struct {
  int first, last, up;
  double gain;
} gdtw_move;

typedef struct {
  gdtw_chain chain;
  double *step, *reduced, *reduced_step; /* of the knots; gradient and step of the groups */
  double *stiff;                         /* H's diagonal */
  int *meets;
  gdtw_move *moves;
  int move_count, certificates;
  double scale;    /* largest part of the gradient */
  double residual; /* largest force on what can move, in units of its noise */
} gdtw_polish;

/* ------------------------------------------------------------------------------------------------ the first working set */

static void gdtw_pin_knot(gdtw_chain *c, int i) {
  const gdtw_item *it = c->it;
  const double tolerance = it->tolerance;
  c->pin[i] = GDTW_FREE;
  c->segment[i] = gdtw_segment(it, c->phi[i]);
  const int sample = gdtw_sample_at(it, c->phi[i], c->segment[i]);
  if (it->high[i] - it->low[i] <= tolerance)
    c->pin[i] = GDTW_FIXED;
  else if (c->phi[i] - it->low[i] <= tolerance)
    c->pin[i] = GDTW_LOW, c->phi[i] = it->low[i];
  else if (it->high[i] - c->phi[i] <= tolerance)
    c->pin[i] = GDTW_HIGH, c->phi[i] = it->high[i];
  else if (sample >= 0)
    c->pin[i] = GDTW_KINK, c->phi[i] = it->ty[sample];
}

static void gdtw_first_set(gdtw_chain *c) {
  const gdtw_item *it = c->it;
  const double tolerance = it->tolerance;
  for (int i = 0; i < it->n; i++) gdtw_pin_knot(c, i);
  for (int i = 0; i < it->n; i++) {
    c->tie[i] = GDTW_LOOSE;
    if (i + 1 == it->n) break;
    const double step = c->phi[i + 1] - c->phi[i];
    if (it->step_max[i] - it->step_min[i] <= tolerance)
      c->tie[i] = GDTW_EQUAL;
    else if (step - it->step_min[i] <= tolerance)
      c->tie[i] = GDTW_MIN;
    else if (it->step_max[i] - step <= tolerance)
      c->tie[i] = GDTW_MAX;
  }
}

/* ------------------------------------------------------------------------------------------------ a Newton step */

static double gdtw_largest(const double *v, int count) {
  double largest = 0;
  for (int k = 0; k < count; k++) largest = gdtw_most(largest, fabs(v[k]));
  return largest;
}

/* What tells rounding from force. */
static void gdtw_measure(gdtw_polish *p) {
  const gdtw_chain *c = &p->chain;
  const int n = c->it->n;
  p->scale = 0;
  for (int i = 0; i < n; i++) {
    const double before = i ? c->force[i - 1] : 0, behind = i + 1 < n ? c->force[i] : 0;
    p->stiff[i] = c->bend[i] + (i ? c->stiff[i - 1] : 0) + (i + 1 < n ? c->stiff[i] : 0);
    p->scale = gdtw_most(p->scale, gdtw_most(fabs(behind), fabs(c->g[i] - before + behind)));
  }
}

/* What rounding phi makes of a force where H has that diagonal. Of each knot and group by itself: |e|^1.5 is infinitely
 * stiff at 0, and what one edge cannot tell, all others can. */
static double gdtw_noise(const gdtw_polish *p, double stiff) { return 3.2e-15 * stiff * p->chain.it->span + 1e-300; }

/* The largest force on what can move, in units of its noise. */
static double gdtw_residual(const gdtw_polish *p) {
  const gdtw_chain *c = &p->chain;
  double largest = 0;
  for (int g = 0; g < c->groups; g++)
    if (!c->stands[g])
      largest = gdtw_most(largest, (fabs(p->reduced[g]) - 1e-12 * p->scale) / gdtw_noise(p, c->diagonal[g]));
  return largest;
}

/* The Newton step of the groups; whether the point is stationary already: all that is left is noise, and the last step has
 * not made it less. */
static int gdtw_newton(gdtw_polish *p) {
  gdtw_chain *c = &p->chain;
  const double before = p->residual;
  gdtw_derivatives(c);
  gdtw_measure(p);
  gdtw_find_groups(c);
  gdtw_reduce_matrix(c);
  gdtw_reduce_vector(c, c->g, p->reduced);
  p->residual = gdtw_residual(p);
  for (int g = 0; g < c->groups; g++) p->reduced[g] = -p->reduced[g];
  gdtw_solve_groups(c, p->reduced, 1, p->reduced_step);
  for (int i = 0; i < c->it->n; i++) p->step[i] = p->reduced_step[c->group[i]];
  const double share = p->residual < .5 * before ? .1 : 1;
  return p->residual <= share || gdtw_largest(p->step, c->it->n) <= share * 1e-15 * c->it->span;
}

/* ------------------------------------------------------------------------------------------------ how far it goes */

/* The next bound or sample that knot i meets on its way. */
static double gdtw_side_ahead(const gdtw_chain *c, int i, double step) {
  const gdtw_item *it = c->it;
  return step > 0 ? gdtw_least(it->high[i], it->ty[c->segment[i] + 1]) : gdtw_most(it->low[i], it->ty[c->segment[i]]);
}

/* Share of the step at which knot i meets a bound or a sample; +inf where it does not move. */
static double gdtw_share_to_side(const gdtw_polish *p, int i) {
  const double step = p->step[i];
  return step == 0 ? INFINITY : (gdtw_side_ahead(&p->chain, i, step) - p->chain.phi[i]) / step;
}

/* The same for edge i and its slope bounds. */
static double gdtw_share_to_slope(const gdtw_polish *p, int i) {
  const gdtw_chain *c = &p->chain;
  if (i + 1 == c->it->n || c->tie[i]) return INFINITY;
  const double opening = p->step[i + 1] - p->step[i];
  const double bound = opening > 0 ? c->it->step_max[i] : c->it->step_min[i];
  if (opening == 0 || isinf(bound)) return INFINITY;
  return (bound - (c->phi[i + 1] - c->phi[i])) / opening;
}

/* dF along the step, a share of it on. */
static double gdtw_slope_along(gdtw_polish *p, double share) {
  gdtw_chain *c = &p->chain;
  const gdtw_item *it = c->it;
  double sum = 0;
  for (int i = 0; i < it->n; i++)
    sum += it->w[i] * gdtw_loss_at(c, i, c->segment[i], c->phi[i] + share * p->step[i]).first * p->step[i];
  for (int i = 0; i + 1 < it->n; i++) {
    const double opening = p->step[i + 1] - p->step[i];
    sum += it->lambda[i] * gdtw_regularizer(it, i, c->phi[i + 1] - c->phi[i] + share * opening).first * opening;
  }
  return sum;
}

/* Losses that are not squares: shorter, until F has not turned upwards by more than half of how it fell. Whether so. */
static int gdtw_shorten(gdtw_polish *p, double *share) {
  const double fall = fabs(gdtw_slope_along(p, 0));
  int shorter = 0;
  while (shorter < 30 && fall >= 1e-30 && gdtw_slope_along(p, *share) > .5 * fall) *share *= .5, shorter++;
  return shorter > 0;
}

/* ------------------------------------------------------------------------------------------------ what it meets */

/* Puts a group back exactly on its slopes, from its knot i on. */
static void gdtw_align_group(gdtw_chain *c, int i) {
  for (int j = i; j + 1 < c->it->n && c->tie[j]; j++) c->phi[j + 1] = c->phi[j] + gdtw_tied_step(c->it, j, c->tie[j]);
  for (int j = i; j > 0 && c->tie[j - 1]; j--) c->phi[j - 1] = c->phi[j] - gdtw_tied_step(c->it, j - 1, c->tie[j - 1]);
}

/* Knot i has come to a sample: a pin where L_i is convex there, else on to the next segment. */
static void gdtw_meet_sample(gdtw_chain *c, int i, int up) {
  const int sample = up ? c->segment[i] + 1 : c->segment[i];
  double before, behind;
  c->phi[i] = c->it->ty[sample];
  gdtw_slopes_at_sample(c, i, sample, &before, &behind);
  if (behind > before)
    c->pin[i] = GDTW_KINK;
  else
    c->segment[i] = up ? sample : sample - 1;
}

static void gdtw_meet_side(gdtw_polish *p, int i) {
  gdtw_chain *c = &p->chain;
  const int up = p->step[i] > 0;
  const double bound = up ? c->it->high[i] : c->it->low[i], sample = c->it->ty[c->segment[i] + (up ? 1 : 0)];
  if (up ? bound <= sample + c->it->tolerance : bound >= sample - c->it->tolerance)
    c->phi[i] = bound, c->pin[i] = up ? GDTW_HIGH : GDTW_LOW;
  else
    gdtw_meet_sample(c, i, up);
  if (c->pin[i]) gdtw_align_group(c, i);
}

/* Along the step to the first thing that it meets; everything met there enters the working set. */
static void gdtw_advance(gdtw_polish *p) {
  gdtw_chain *c = &p->chain;
  const int n = c->it->n;
  const double longest = gdtw_largest(p->step, n);
  double share = 1;
  for (int i = 0; i < n && longest > c->it->span; i++) p->step[i] *= c->it->span / longest;
  for (int i = 0; i < n; i++)
    share =
        gdtw_least(share, gdtw_least(gdtw_most(gdtw_share_to_side(p, i), 0), gdtw_most(gdtw_share_to_slope(p, i), 0)));
  const int free = !c->it->squares && gdtw_shorten(p, &share);
  const double met = free ? -1 : share * (1 + 1e-12) + 1e-300;
  for (int i = 0; i < n; i++)
    p->meets[i] = (gdtw_share_to_side(p, i) <= met ? GDTW_MEETS_SIDE : 0) |
                  (gdtw_share_to_slope(p, i) <= met ? GDTW_MEETS_SLOPE : 0);
  for (int i = 0; i < n; i++) c->phi[i] += share * p->step[i];
  for (int i = 0; i < n; i++)
    if (p->meets[i] & GDTW_MEETS_SLOPE) c->tie[i] = p->step[i + 1] > p->step[i] ? GDTW_MAX : GDTW_MIN;
  for (int i = 0; i < n; i++)
    if (p->meets[i] & GDTW_MEETS_SIDE) gdtw_meet_side(p, i);
}

/* ------------------------------------------------------------------------------------------------ the certificate */

/* Adds a block; one right behind a block that moves the same way, and that a tie keeps from moving alone, joins it. */
static void gdtw_add_move(gdtw_polish *p, gdtw_move move) {
  gdtw_move *last = p->move_count ? &p->moves[p->move_count - 1] : NULL;
  if (last && last->last + 1 == move.first && last->up == move.up &&
      p->chain.tie[last->last] == (move.up ? GDTW_MAX : GDTW_MIN))
    last->last = move.last, last->gain += move.gain;
  else
    p->moves[p->move_count++] = move;
}

/* Blocks that could move with gain; none: the point satisfies the conditions. */
static void gdtw_certify(gdtw_polish *p) {
  gdtw_chain *c = &p->chain;
  double low = 0, high = 0, noise = 0;
  int since_low = 0, since_high = 0; /* knots behind the last one where that end was cut */
  p->move_count = 0, p->certificates++;
  for (int i = 0; i < c->it->n; i++) {
    const gdtw_range s = gdtw_forces(c, i), tie = gdtw_tie_forces(c, i);
    low += s.low, high += s.high;
    noise += 8 * gdtw_noise(p, p->stiff[i]) + 2 * c->it->tolerance * c->bend[i];
    const double too_high = low - tie.high, too_low = tie.low - high, allowed = 1e-11 * p->scale + noise;
    if (!c->tie[i]) noise = 0;
    if (gdtw_most(too_high, too_low) > allowed) {
      const int up = too_high < too_low;
      gdtw_add_move(p, (gdtw_move){up ? since_high : since_low, i, up, gdtw_most(too_high, too_low)});
      low = high = up ? tie.low : tie.high;
      since_low = since_high = i + 1;
      continue;
    }
    if (low < tie.low || tie.low == tie.high) since_low = i + 1;
    if (high > tie.high || tie.low == tie.high) since_high = i + 1;
    low = gdtw_clamp(low, tie.low, tie.high), high = gdtw_clamp(high, tie.low, tie.high);
  }
}

/* ------------------------------------------------------------------------------------------------ letting go */

static void gdtw_let_go_block(gdtw_chain *c, const gdtw_move *move) {
  if (move->first > 0) c->tie[move->first - 1] = GDTW_LOOSE;
  c->tie[move->last] = GDTW_LOOSE;
  for (int i = move->first; i <= move->last; i++) {
    if (c->pin[i] == GDTW_FIXED) continue;
    const int sample = gdtw_sample_at(c->it, c->phi[i], c->segment[i]);
    c->pin[i] = GDTW_FREE;
    if (sample >= 0) c->segment[i] = move->up ? sample : sample - 1;
  }
}

/* The block that gains most, and others that touch none of those let go. */
static void gdtw_let_go(gdtw_polish *p) {
  int worst = 0, last = -3;
  for (int b = 1; b < p->move_count; b++)
    if (p->moves[b].gain > p->moves[worst].gain) worst = b;
  const gdtw_move most = p->moves[worst];
  for (int b = 0; b < p->move_count; b++) {
    const gdtw_move *move = &p->moves[b];
    const int touches = move->first <= last + 1 || (b < worst && move->last + 1 >= most.first);
    if (b != worst && (touches || p->certificates >= GDTW_MANY_CERTIFICATES)) continue;
    last = move->last;
    gdtw_let_go_block(&p->chain, move);
  }
}

/* ------------------------------------------------------------------------------------------------ the whole */

/* Convex samples at which knots of standing groups stand are pins too: they tell that the group is degenerate. */
static void gdtw_pin_samples(gdtw_chain *c) {
  gdtw_find_groups(c);
  for (int i = 0; i < c->it->n; i++) {
    const int sample = gdtw_sample_at(c->it, c->phi[i], c->segment[i]);
    double before, behind;
    if (c->pin[i] || sample < 0 || !c->stands[c->group[i]]) continue;
    gdtw_slopes_at_sample(c, i, sample, &before, &behind);
    if (behind > before) c->pin[i] = GDTW_KINK;
  }
}

static int gdtw_most_steps(const gdtw_item *it) { return 20 * it->n + 200; }

/* From a feasible phi to the solution and its working set. Returns the Newton steps taken, -1 when they did not suffice. */
static int gdtw_polish_warp(gdtw_polish *p) {
  gdtw_chain *c = &p->chain;
  const int most = gdtw_most_steps(c->it);
  p->certificates = 0, p->residual = INFINITY;
  gdtw_first_set(c);
  for (int steps = 0; steps < most; steps++) {
    if (!gdtw_newton(p)) {
      gdtw_advance(p);
      continue;
    }
    gdtw_certify(p);
    if (!p->move_count) {
      gdtw_pin_samples(c);
      return steps;
    }
    gdtw_let_go(p);
  }
  return -1;
}

static void gdtw_cut_polish(gdtw_polish *p, const dalign_gdtw_args *a, dalign_arena *memory) {
  const size_t n = (size_t)a->n;
  gdtw_cut_chain(&p->chain, a, memory);
  p->step = dalign_arena_take(memory, n * sizeof(double));
  p->stiff = dalign_arena_take(memory, n * sizeof(double));
  p->reduced = dalign_arena_take(memory, n * sizeof(double));
  p->reduced_step = dalign_arena_take(memory, n * sizeof(double));
  p->meets = dalign_arena_take(memory, n * sizeof(int));
  p->moves = dalign_arena_take(memory, n * sizeof *p->moves);
}

#endif
