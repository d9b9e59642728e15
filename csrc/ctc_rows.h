/* ctc_rows.h: the two recursions over a row of states (part of ctc.c, once per element type). */
#undef ctc_row
#undef ctc_emissions
#define ctc_row FN(ctc_row_type)
#define ctc_emissions FN(ctc_emissions_type)

/* Scaled numbers of all states at one frame. */
typedef struct {
  REAL *blank_m, *blank_e, *label_m, *label_e;
} ctc_row;

/* p of one frame: of the labels by position, and of the blank. */
typedef struct {
  const REAL *label_m, *label_e;
  scaled blank;
} ctc_emissions;

DALIGN_INLINE scaled FN(ctc_load_)(const REAL *m, const REAL *e, int64_t k) {
  scaled s = {v_load(m + k), v_load(e + k)};
  return s;
}

DALIGN_INLINE void FN(ctc_store_)(REAL *m, REAL *e, int64_t k, scaled s) {
  v_store(m + k, s.m);
  v_store(e + k, s.e);
}

/* a + b and a + b + c, not normalised: a mantissa of at most 6. */
DALIGN_INLINE scaled FN(ctc_add2_)(scaled a, scaled b) {
  scaled s;
  s.e = v_max(a.e, b.e);
  s.m = v_add(v_ldexp(a.m, v_sub(a.e, s.e)), v_ldexp(b.m, v_sub(b.e, s.e)));
  return s;
}

DALIGN_INLINE scaled FN(ctc_add3_)(scaled a, scaled b, scaled c) {
  const scaled_parts parts = scaled_add3(a, b, c);
  scaled s = {v_add(parts.two, parts.third), parts.e};
  return s;
}

DALIGN_INLINE scaled FN(ctc_times_)(scaled a, scaled b) { return scaled_normalise(v_mul(a.m, b.m), v_add(a.e, b.e)); }

/* A of the positions [begin, end) from A of the frame before. A label that may not be entered from the label before it has
 * allow 0 instead of 1, and bar SCALED_NONE instead of 0. before: labels of the positions [begin - LANES, begin). */
static void FN(ctc_forward_row_)(const ctc_row *from, const ctc_row *to, const REAL *allow, const REAL *bar,
                                 const ctc_emissions *p, scaled before, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; k += LANES) {
    const scaled blank = FN(ctc_load_)(from->blank_m, from->blank_e, k);
    const scaled label = FN(ctc_load_)(from->label_m, from->label_e, k);
    const scaled step = {v_shift_up(label.m, before.m), v_shift_up(label.e, before.e)};
    const scaled skip = {v_mul(step.m, v_load(allow + k)), v_add(step.e, v_load(bar + k))};
    FN(ctc_store_)(to->blank_m, to->blank_e, k, FN(ctc_times_)(FN(ctc_add2_)(blank, step), p->blank));
    FN(ctc_store_)(to->label_m, to->label_e, k,
                   FN(ctc_times_)(FN(ctc_add3_)(label, blank, skip), FN(ctc_load_)(p->label_m, p->label_e, k)));
    before = label;
  }
}

/* What turns A B into E: E = ldexp(A.m B.m factor, A.e + B.e + offset). */
typedef struct {
  vec factor, offset;
} FN(ctc_scale);

/* Beyond 2^53 exponents of doubles are not exact; E must stay finite even so. */
#define LARGEST_MASS_EXPONENT 60

DALIGN_INLINE vec FN(ctc_mass_)(scaled a, scaled b, FN(ctc_scale) scale) {
  const vec e = v_add(v_add(a.e, b.e), scale.offset);
  return v_ldexp(v_mul(v_mul(a.m, b.m), scale.factor), v_min(e, v_set1(LARGEST_MASS_EXPONENT)));
}

/* q of the positions [begin, end) at this frame from q of the next, in place, and E: of the labels, of the blanks unless that is
 * NULL, and the blanks' sum by lanes. */
static vec FN(ctc_backward_row_)(const ctc_row *a, const ctc_row *q, const REAL *allow, const REAL *bar,
                                 const ctc_emissions *p, FN(ctc_scale) scale, int64_t begin, int64_t end,
                                 REAL *label_mass, REAL *blank_mass) {
  scaled blank = FN(ctc_load_)(q->blank_m, q->blank_e, begin), label = FN(ctc_load_)(q->label_m, q->label_e, begin);
  vec sum = v_zero();
  for (int64_t k = begin; k < end; k += LANES) {
    const scaled next_blank = FN(ctc_load_)(q->blank_m, q->blank_e, k + LANES);
    const scaled next_label = FN(ctc_load_)(q->label_m, q->label_e, k + LANES);
    const scaled step = {v_shift_down(blank.m, next_blank.m), v_shift_down(blank.e, next_blank.e)};
    const scaled skip = {v_mul(v_shift_down(label.m, next_label.m), v_loadu(allow + k + 1)),
                         v_add(v_shift_down(label.e, next_label.e), v_loadu(bar + k + 1))};
    const scaled b_blank = FN(ctc_add2_)(blank, label), b_label = FN(ctc_add3_)(label, step, skip);
    const vec mass = FN(ctc_mass_)(FN(ctc_load_)(a->blank_m, a->blank_e, k), b_blank, scale);
    sum = v_add(sum, mass);
    if (blank_mass) v_store(blank_mass + k, mass);
    v_store(label_mass + k, FN(ctc_mass_)(FN(ctc_load_)(a->label_m, a->label_e, k), b_label, scale));
    FN(ctc_store_)(q->blank_m, q->blank_e, k, FN(ctc_times_)(b_blank, p->blank));
    FN(ctc_store_)(q->label_m, q->label_e, k, FN(ctc_times_)(b_label, FN(ctc_load_)(p->label_m, p->label_e, k)));
    blank = next_blank;
    label = next_label;
  }
  return sum;
}
