/* Body of ctc.c for one element type: the two sweeps over an item, its results, and the public functions. */
#include "cost_tile.h"
#include "memory.h"

#include "ctc_rows.h"

#include "ctc_plan.h"

#undef EXPONENT_RANGE
#undef CELL_RANGE
#undef LOG2E
#undef LOG2E_LOW
#undef LOWEST
#if DALIGN_F32
#define EXPONENT_RANGE 4194304. /* a state's exponent may lie that far below the largest of its row */
#define CELL_RANGE 11356.       /* -log of an emission, 2^14 ln 2 */
#define SMALL_VALUE .03125      /* times the root of the frames: values below it are computed in double */
#define LOG2E 1.44269502162933349609375f
#define LOG2E_LOW 1.92596303e-8f
#define LOWEST (-3.4028234663852886e38f)
#else
#define EXPONENT_RANGE INFINITY
#define CELL_RANGE INFINITY
#define LOG2E 1.4426950408889634
#define LOG2E_LOW 2.0355273740931033e-17
#define LOWEST (-1.7976931348623157e308)
#endif
#define LN2 0.69314718055994530942

#include "ctc_frames.h"

/* ------------------------------------------------------------------------------------------------ emissions of a block */

/* Largest logarithm of each frame among the item's classes. */
static vec FN(largest_logs_)(const problem *p, const REAL *logs) {
  vec largest = v_set1((REAL)LOWEST); /* so that a frame which blocks all of them has no inf - inf */
  for (int64_t d = 0; d < p->distinct; d++) largest = v_max(largest, v_load(logs + d * BLOCK));
  return largest;
}

/* p(class) / largest p of LANES frames. */
static void FN(tabulate_frames_)(problem *p, const REAL *logs, int h, vec largest) {
  const vec limit = v_set1((REAL)CELL_RANGE), infinity = v_set1((REAL)INFINITY);
  for (int64_t d = 0; d < p->distinct; d++) {
    const vec c = v_sub(largest, v_load(logs + d * BLOCK));
    if (!v_all_plain(c, limit)) p->found |= v_all_plain(c, infinity) ? CTC_WIDE : CTC_NAN;
    const scaled e = exp2_split(c, v_set1(-LOG2E), v_set1(-LOG2E_LOW));
    v_store(p->table_m + d * BLOCK + h, e.m);
    v_store(p->table_e + d * BLOCK + h, v_max(e.e, v_set1(SCALED_NONE)));
  }
  v_store(p->table_m + p->distinct * BLOCK + h, v_zero());
  v_store(p->table_e + p->distinct * BLOCK + h, v_zero());
}

/* count: adds the logarithms of the divisors to log_sum. */
static void FN(tabulate_)(problem *p, int64_t block, ctc_unit *u, int count) {
  const REAL *logs = p->logs + block * p->distinct * BLOCK;
  REAL largest[BLOCK];
  for (int h = 0; h < BLOCK; h += LANES) {
    const vec best = FN(largest_logs_)(p, logs + h);
    v_storeu(largest + h, best);
    FN(tabulate_frames_)(p, logs + h, h, best);
  }
  if (count)
    for (int t = 0; t < FN(ctc_frames_in_)(p, block); t++) p->log_sum += (double)largest[t];
  memcpy(u->blank_m, p->table_m, sizeof(REAL) * BLOCK);
  memcpy(u->blank_e, p->table_e, sizeof(REAL) * BLOCK);
}

/* From (class, frame) to (frame, position), LANES by LANES numbers at a time. */
static void FN(spread_)(const problem *p, const REAL *table, REAL *positions, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; k += LANES)
    for (int h = 0; h < BLOCK; h += LANES) {
      vec rows[LANES];
      for (int r = 0; r < LANES; r++) rows[r] = v_load(table + p->row_of_position[k + r] * BLOCK + h);
      v_transpose(rows);
      for (int r = 0; r < LANES; r++) v_store(positions + (h + r) * p->padded + k, rows[r]);
    }
}

/* ------------------------------------------------------------------------------------------------ from block to block */

static void FN(clear_states_)(REAL *m, REAL *e, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; k += LANES) FN(ctc_store_)(m, e, k, scaled_zero());
}

static void FN(clear_row_)(const ctc_row *row, int64_t begin, int64_t end) {
  FN(clear_states_)(row->blank_m, row->blank_e, begin, end);
  FN(clear_states_)(row->label_m, row->label_e, begin, end);
}

/* Largest exponent of the positions, or 0 where all are zeros. */
static REAL FN(largest_exponent_of_row_)(const ctc_row *row, int64_t begin, int64_t end) {
  REAL lanes[LANES], largest = SCALED_NONE;
  vec best = v_set1(SCALED_NONE);
  for (int64_t k = begin; k < end; k += LANES)
    best = v_max(best, v_max(v_load(row->blank_e + k), v_load(row->label_e + k)));
  v_storeu(lanes, best);
  for (int r = 0; r < LANES; r++) largest = lanes[r] > largest ? lanes[r] : largest;
  return largest > SCALED_NONE / 2 ? largest : 0;
}

/* Copies positions with exponents less by; the mantissas of those that thereby leave the range. */
static vec FN(rebase_states_)(const REAL *m, const REAL *e, REAL *to_m, REAL *to_e, int64_t begin, int64_t end,
                              vec by) {
  const vec range = v_set1((REAL)-EXPONENT_RANGE), none = v_set1(SCALED_NONE);
  vec lost = v_zero();
  for (int64_t k = begin; k < end; k += LANES) {
    const scaled s = {v_load(m + k), v_sub(v_load(e + k), by)};
    lost = v_max(lost, v_keep_below(s.m, s.e, v_max(range, none)));
    scaled kept = {s.m, v_max(s.e, none)};
    FN(ctc_store_)(to_m, to_e, k, kept);
  }
  return lost;
}

/* Copies positions of a row to another or the same, and counts their exponents from the largest one. */
static void FN(rebase_row_)(problem *p, const ctc_row *from, const ctc_row *to, int64_t begin, int64_t end,
                            double *base) {
  const REAL largest = FN(largest_exponent_of_row_)(from, begin, end);
  const vec by = v_set1(largest);
  const vec blank = FN(rebase_states_)(from->blank_m, from->blank_e, to->blank_m, to->blank_e, begin, end, by);
  const vec label = FN(rebase_states_)(from->label_m, from->label_e, to->label_m, to->label_e, begin, end, by);
  if (!v_all_below(v_max(blank, label), v_set1((REAL)1))) p->found |= CTC_WIDE; /* mantissas are 0 or at least 1 */
  *base += (double)largest;
}

/* ------------------------------------------------------------------------------------------------ forward */

/* Row 0 of the first block: the state before label 0, from which paths start. */
static void FN(start_paths_of_item_)(problem *p) {
  const ctc_row row = FN(ctc_unit_of_)(p, 0).rows[0];
  FN(clear_row_)(&row, -LANES, p->padded);
  row.label_m[-1] = 1, row.label_e[-1] = 0;
  p->unit_base[0] = 0;
}

/* Row 0 of a block from the last row of the one before it. */
static void FN(enter_block_)(problem *p, int64_t block) {
  int64_t begin, end, from_begin, from_end;
  FN(ctc_range_)(p, block, &begin, &end);
  FN(ctc_range_)(p, block - 1, &from_begin, &from_end);
  const ctc_row from = FN(ctc_unit_of_)(p, block - 1).rows[BLOCK], to = FN(ctc_unit_of_)(p, block).rows[0];
  double base = p->unit_base[(block - 1) % p->keep];
  const int64_t first = begin - LANES > from_begin ? begin - LANES : from_begin;
  FN(rebase_row_)(p, &from, &to, first, from_end, &base);
  FN(clear_row_)(&to, begin - LANES, first);
  FN(clear_row_)(&to, from_end, end);
  p->unit_base[block % p->keep] = base;
}

/* A of a block whose row 0 stands. count: as for tabulate_. */
static void FN(forward_block_)(problem *p, int64_t block, int count) {
  ctc_unit u = FN(ctc_unit_of_)(p, block);
  int64_t begin, end;
  FN(ctc_range_)(p, block, &begin, &end);
  FN(tabulate_)(p, block, &u, count);
  FN(spread_)(p, p->table_m, u.label_m, begin, end);
  FN(spread_)(p, p->table_e, u.label_e, begin, end);
  scaled before = FN(ctc_load_)(u.rows[0].label_m, u.rows[0].label_e, begin - LANES);
  for (int t = 0; t < FN(ctc_frames_in_)(p, block); t++, before = scaled_zero()) {
    const ctc_emissions e = FN(ctc_emissions_of_)(p, &u, t);
    FN(ctc_forward_row_)(&u.rows[t], &u.rows[t + 1], p->allow, p->bar, &e, before, begin, end);
  }
}

static void FN(keep_row_)(problem *p, int64_t block, int restore) {
  const int64_t numbers = FN(ctc_row_numbers_)(p->padded);
  REAL *kept = p->rows + block / p->keep * numbers, *row = p->units; /* a keep-th block has the first unit */
  memcpy(restore ? row : kept, restore ? kept : row, sizeof(REAL) * (size_t)numbers);
  double *base = p->row_base + block / p->keep;
  *(restore ? p->unit_base : base) = *(restore ? base : p->unit_base);
}

static void FN(leave_ctc_total_)(problem *p) {
  const ctc_row row = FN(ctc_unit_of_)(p, p->blocks - 1).rows[FN(ctc_frames_in_)(p, p->blocks - 1)];
  const int64_t s = p->labels;
  p->total_m = (double)row.blank_m[s], p->total_e = (double)row.blank_e[s];
  if (s > 0) {
    const double m = (double)row.label_m[s - 1], e = (double)row.label_e[s - 1], base = fmax(e, p->total_e);
    p->total_m = ldexp(m, (int)fmax(e - base, -4000)) + ldexp(p->total_m, (int)fmax(p->total_e - base, -4000));
    p->total_e = base;
  }
  p->total_e += p->unit_base[(p->blocks - 1) % p->keep];
}

static void FN(forward_sweep_)(problem *p) {
  FN(start_paths_of_item_)(p);
  for (int64_t block = 0; block < p->blocks && !(p->found & CTC_NAN); block++) {
    if (block > 0) FN(enter_block_)(p, block);
    if (FN(ctc_goes_back_)(p->args) && block % p->keep == 0) FN(keep_row_)(p, block, 0);
    FN(forward_block_)(p, block, 1);
  }
  FN(leave_ctc_total_)(p);
}

/* ------------------------------------------------------------------------------------------------ backward */

static ctc_row FN(adjoint_row_)(const problem *p) { return FN(ctc_row_in_)(p, p->adjoint); }

/* q behind the last frame: the state after the last label, from which paths may end. */
static void FN(end_paths_of_item_)(problem *p) {
  const ctc_row q = FN(adjoint_row_)(p);
  FN(clear_row_)(&q, 0, p->padded + LANES);
  q.blank_m[p->labels] = 1, q.blank_e[p->labels] = 0;
  p->adjoint_base = 0;
}

static FN(ctc_scale) FN(scale_of_block_)(const problem *p, int64_t block) {
  const double offset = p->unit_base[block % p->keep] + p->adjoint_base - p->total_e;
  FN(ctc_scale) scale = {v_set1((REAL)(1 / p->total_m)), v_set1((REAL)offset)};
  return scale;
}

/* E of frames behind the item's last is 0. */
static void FN(clear_idle_frames_)(problem *p, int from, int64_t begin, int64_t end) {
  for (int t = from; t < BLOCK; t++) {
    v_store(p->blank_sums + t * LANES, v_zero());
    for (int64_t k = begin; k < end; k += LANES) v_store(p->label_mass + t * p->padded + k, v_zero());
  }
}

/* E of a block's frames, and q of its first. */
static void FN(backward_block_)(problem *p, int64_t block, int64_t begin, int64_t end) {
  const ctc_unit u = FN(ctc_unit_of_)(p, block);
  const ctc_row q = FN(adjoint_row_)(p);
  FN(rebase_row_)(p, &q, &q, begin, end + LANES, &p->adjoint_base);
  const FN(ctc_scale) scale = FN(scale_of_block_)(p, block);
  FN(clear_idle_frames_)(p, FN(ctc_frames_in_)(p, block), begin, end);
  for (int t = FN(ctc_frames_in_)(p, block) - 1; t >= 0; t--) {
    const ctc_emissions e = FN(ctc_emissions_of_)(p, &u, t);
    REAL *blanks = p->args->alignment ? p->blank_mass + t * p->padded : NULL;
    v_store(p->blank_sums + t * LANES, FN(ctc_backward_row_)(&u.rows[t + 1], &q, p->allow, p->bar, &e, scale, begin,
                                                             end, p->label_mass + t * p->padded, blanks));
    FN(clear_row_)(&q, end, end + LANES); /* no path of the block reaches them any more */
  }
}

/* Adds E by class: sums (class, frame), labels in the order of their positions. */
static void FN(collect_)(problem *p, int64_t begin, int64_t end) {
  vec rows[LANES];
  for (int64_t i = 0; i < (p->distinct + 1) * BLOCK; i += LANES) v_store(p->sums + i, v_zero());
  for (int h = 0; h < BLOCK; h += LANES) {
    for (int r = 0; r < LANES; r++) rows[r] = v_load(p->blank_sums + (h + r) * LANES);
    v_transpose(rows);
    for (int r = 0; r < LANES; r++) v_store(p->sums + h, v_add(v_load(p->sums + h), rows[r]));
    for (int64_t k = begin; k < end; k += LANES) {
      for (int r = 0; r < LANES; r++) rows[r] = v_load(p->label_mass + (h + r) * p->padded + k);
      v_transpose(rows);
      for (int r = 0; r < LANES; r++) {
        REAL *sum = p->sums + p->row_of_position[k + r] * BLOCK + h;
        v_store(sum, v_add(v_load(sum), rows[r]));
      }
    }
  }
}

static void FN(backward_sweep_)(problem *p) {
  const int64_t last = (p->blocks - 1) / p->keep;
  FN(end_paths_of_item_)(p);
  for (int64_t segment = last; segment >= 0; segment--) {
    const int64_t first = segment * p->keep, next = segment < last ? first + p->keep : p->blocks;
    if (segment < last) {
      FN(keep_row_)(p, first, 1);
      for (int64_t block = first; block < next; block++) {
        if (block > first) FN(enter_block_)(p, block);
        FN(forward_block_)(p, block, 0);
      }
    }
    for (int64_t block = next - 1; block >= first && !p->found; block--) {
      int64_t begin, end;
      FN(ctc_range_)(p, block, &begin, &end);
      FN(backward_block_)(p, block, begin, end);
      FN(collect_)(p, begin, end);
      FN(write_block_of_results_)(p, block, begin, end);
    }
  }
}

/* ------------------------------------------------------------------------------------------------ an item */

static double FN(ctc_value_)(const problem *p) {
  if (p->found & CTC_NAN) return NAN;
  return p->total_m > 0 ? -(log2(p->total_m) + p->total_e) * LN2 - p->log_sum : INFINITY;
}

/* An item without frames, or with fewer than its labels need. */
static dalign_status FN(close_without_path_)(problem *p) {
  store_given(p->args->value, p->item, p->labels ? INFINITY : 0, p->given_f32);
  FN(fill_results_)(p, 0, 0);
  return DALIGN_OK;
}

/* Float arrays and a float kernel: DALIGN_RETRY asks for the double kernel. */
static dalign_status FN(ctc_item_)(const dalign_ctc_args *args, int64_t item, int given_f32, void *workspace) {
  problem p;
  if (FN(ctc_args_bad_)(args, item)) return DALIGN_BAD_ARGUMENT;
  FN(open_ctc_)(&p, args, item, given_f32, workspace);
  if (p.frames == 0 || !FN(ctc_is_feasible_)(&p)) return FN(close_without_path_)(&p);
  FN(read_frames_)(&p);
  FN(forward_sweep_)(&p);
  const double value = FN(ctc_value_)(&p);
  const int is_plain = value == value && value < INFINITY;
#if DALIGN_F32
  if (is_plain && fabs(value) < SMALL_VALUE * sqrt((double)p.frames)) p.found |= CTC_WIDE;
  if (p.found == CTC_WIDE) return DALIGN_RETRY;
#endif
  store_given(args->value, item, value, given_f32);
  if (!FN(ctc_goes_back_)(args)) return DALIGN_OK;
  if (is_plain) FN(backward_sweep_)(&p);
#if DALIGN_F32
  if (p.found == CTC_WIDE) return DALIGN_RETRY;
#endif
  FN(fill_results_)(&p, is_plain ? p.frames : 0, value == value ? 0 : NAN);
  return DALIGN_OK;
}

/* ------------------------------------------------------------------------------------------------ public */

size_t FN(dalign_ctc_workspace)(const dalign_ctc_args *args) {
  const size_t own = FN(ctc_bytes_)(args);
#if DALIGN_F32
  const size_t wide = DALIGN_NAME(ctc_bytes_, f64)(args);
  return own > wide ? own : wide;
#else
  return own;
#endif
}

dalign_status FN(dalign_ctc)(const dalign_ctc_args *args, int64_t begin, int64_t end, void *workspace) {
  const unsigned mode = dalign_flush_begin();
  dalign_status status = DALIGN_OK;
  for (int64_t b = begin; b < end && status == DALIGN_OK; b++) {
    status = FN(ctc_item_)(args, b, DALIGN_F32, workspace);
#if DALIGN_F32
    if (status == DALIGN_RETRY) status = DALIGN_NAME(ctc_item_, f64)(args, b, 1, workspace);
#endif
  }
  dalign_flush_end(mode);
  return status;
}

#include "ctc_hvp.h"

#include "ctc_path.h"
