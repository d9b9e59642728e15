/* gdtw_multipliers.h: the multipliers at a solution: those of ties as far as they are determined, and what is degenerate.
 *
 * Where a group of tied knots has several pins, one constraint for each pin but the first follows from the others, and the
 * multipliers of the ties between are only known to lie in an interval: the cut of those that the chain allows from the
 * left and from the right. */
#ifndef DALIGN_GDTW_MULTIPLIERS_H
#define DALIGN_GDTW_MULTIPLIERS_H

typedef struct {
  gdtw_range *ties;   /* (n) multiplier of each edge's tie */
  gdtw_range *forces; /* (n) what each knot can hold */
  double allowed;     /* of a multiplier that counts as none */
} gdtw_multipliers;

static gdtw_range gdtw_cut_range(gdtw_range r, gdtw_range to) {
  return (gdtw_range){gdtw_clamp(r.low, to.low, to.high), gdtw_clamp(r.high, to.low, to.high)};
}

static void gdtw_find_multipliers(gdtw_multipliers *u, gdtw_chain *c) {
  const int n = c->it->n;
  double scale = 0;
  gdtw_range r = {0, 0};
  for (int i = 0; i < n; i++) {
    u->forces[i] = gdtw_forces(c, i);
    r = (gdtw_range){r.low + u->forces[i].low, r.high + u->forces[i].high};
    u->ties[i] = r = gdtw_cut_range(r, gdtw_tie_forces(c, i));
    const double before = i ? c->force[i - 1] : 0, behind = i + 1 < n ? c->force[i] : 0;
    scale = gdtw_most(scale, gdtw_most(fabs(behind), fabs(c->g[i] - before + behind)));
  }
  u->allowed = 1e-10 * scale;
  r = (gdtw_range){0, 0};
  for (int i = n - 2; i >= 0; i--) {
    r = (gdtw_range){r.low - u->forces[i + 1].high, r.high - u->forces[i + 1].low};
    r = gdtw_cut_range(r, gdtw_tie_forces(c, i));
    u->ties[i] = (gdtw_range){gdtw_most(u->ties[i].low, r.low), gdtw_least(u->ties[i].high, r.high)};
  }
}

static int gdtw_may_vanish(const gdtw_multipliers *u, const gdtw_chain *c, int i) {
  const int tied = c->tie[i] == GDTW_MIN || c->tie[i] == GDTW_MAX;
  return tied && u->ties[i].low <= u->allowed && u->ties[i].high >= -u->allowed;
}

static int gdtw_superfluous_pins(const gdtw_chain *c) {
  int count = 0, pins = 0;
  for (int i = 0; i < c->it->n; i++) {
    pins += c->pin[i] != GDTW_FREE;
    if (c->tie[i]) continue;
    count += pins > 1 ? pins - 1 : 0;
    pins = 0;
  }
  return count;
}

/* Between two pins of a group the first tie that may carry nothing is cut: derivatives are then those of the side on which
 * it opens. */
static void gdtw_cut_ties(const gdtw_multipliers *u, gdtw_chain *c) {
  int last = -1;
  for (int i = 0; i < c->it->n; i++) {
    if (c->pin[i]) {
      for (int e = last; last >= 0 && e < i; e++)
        if (gdtw_may_vanish(u, c, e)) {
          c->tie[e] = GDTW_LOOSE;
          break;
        }
      last = i;
    }
    if (!c->tie[i]) last = -1;
  }
}

/* Whether the group [first, last] asks of its only pin a force at the end of what it holds. */
static int gdtw_is_weak_pin(const gdtw_multipliers *u, const gdtw_chain *c, int first, int last) {
  int pin = -1;
  double asked = 0;
  for (int i = first; i <= last; i++) {
    if (c->pin[i] && pin >= 0) return 0;
    if (c->pin[i])
      pin = i;
    else
      asked -= c->g[i];
  }
  if (pin < 0 || c->pin[pin] == GDTW_FIXED) return 0;
  return fabs(u->forces[pin].low - asked) <= u->allowed || fabs(u->forces[pin].high - asked) <= u->allowed;
}

/* Active constraints without force, and free knots at convex samples. */
static int gdtw_count_weak(const gdtw_multipliers *u, gdtw_chain *c) {
  int count = 0;
  gdtw_find_groups(c);
  for (int i = 0, first = 0; i < c->it->n; i++) {
    const gdtw_range s = u->forces[i];
    count += !c->pin[i] && !c->stands[c->group[i]] && isfinite(s.low) && isfinite(s.high) && s.low < s.high;
    count += i + 1 < c->it->n && gdtw_may_vanish(u, c, i);
    if (c->tie[i]) continue;
    count += gdtw_is_weak_pin(u, c, first, i);
    first = i + 1;
  }
  return count;
}

static void gdtw_cut_multipliers(gdtw_multipliers *u, const dalign_gdtw_args *a, dalign_arena *memory) {
  u->ties = dalign_arena_take(memory, (size_t)a->n * sizeof *u->ties);
  u->forces = dalign_arena_take(memory, (size_t)a->n * sizeof *u->forces);
}

#endif
