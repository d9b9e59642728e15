/* gdtw_lattice.h: dynamic programming over a lattice of warps. Included once, for float vectors.
 *
 *   V_0[k] = w_0 L_0(v_k),   V_{i+1}[k] = w_{i+1} L_{i+1}(v_k) + min_j V_i[j] + lambda_i dt_i R((k - j) h / dt_i - s0)
 *
 * on the values v_k = k h, of each knot those in a window. First all that the knot can reach at a coarse h, then corridors
 * around the path found, at finer and finer ones. At uniform samples h divides their distance, so that every sample is a
 * value of the lattice. No back pointers are stored: the way back searches one column for each knot. Costs of a row are made
 * when they are needed, from the samples in its window:
 *
 *   |x_i - y(v)|^2 = (1-u) a_k + u a_{k+1} - u (1-u) delta_k,   a_k = |x_i - y_k|^2,   delta_k = |y_{k+1} - y_k|^2. */

enum {
  GDTW_TOGETHER = LANES == 16 ? 8 : 4, /* knots whose distances are computed at once: as the registers allow */
  GDTW_SAMPLES = 2 * LANES,            /* samples at once */
  GDTW_TABLES = 4                      /* tables of edge costs kept */
};

typedef struct {
  gdtw_edge_costs costs;
  float *memory; /* (2, room) */
  int64_t room;
  double dt, lambda;
  int filled;
} gdtw_table;

typedef struct {
  const gdtw_item *it;
  float *x, *y;  /* staged: (n, d), (pitch / GDTW_SAMPLES, d, GDTW_SAMPLES) */
  float *delta;  /* (m) */
  int64_t pitch; /* samples of y, padded */
  double h;
  int per_sample;                           /* lattice values from sample to sample; 0: not uniform */
  int *low, *high, *reach_low, *reach_high; /* (n) windows of the knots; what paths can use of them */
  int *step_low, *step_high;                /* (n) windows of the edges */
  int64_t *offset;                          /* (n) where a knot's row begins */
  float *rows;                              /* all rows V_i */
  float *distance;                          /* (GDTW_TOGETHER, pitch): a_k of the present knots */
  int distance_first, distance_from, distance_to;
  float *costs; /* of one row */
  gdtw_table tables[GDTW_TABLES];
  int next_table;
  int *anchors;
} gdtw_lattice;

/* ------------------------------------------------------------------------------------------------ node costs */

/* Feature 0 of sample k; the next ones are GDTW_SAMPLES apart. */
static const float *gdtw_sample(const gdtw_lattice *l, int k) {
  return l->y + (int64_t)(k - k % GDTW_SAMPLES) * l->it->d + k % GDTW_SAMPLES;
}

/* Distances of GDTW_TOGETHER frames x to a block of samples. */
static void gdtw_distance_block(const float *const x[], const float *y, int64_t d, int64_t pitch, float *out) {
  vec sum[GDTW_TOGETHER][2];
  for (int r = 0; r < GDTW_TOGETHER; r++) sum[r][0] = sum[r][1] = v_zero();
  for (int64_t f = 0; f < d; f++, y += GDTW_SAMPLES) {
    const vec y0 = v_load(y), y1 = v_load(y + LANES);
    for (int r = 0; r < GDTW_TOGETHER; r++) {
      const vec value = v_set1(x[r][f]), e0 = v_sub(value, y0), e1 = v_sub(value, y1);
      sum[r][0] = v_muladd(e0, e0, sum[r][0]);
      sum[r][1] = v_muladd(e1, e1, sum[r][1]);
    }
  }
  for (int r = 0; r < GDTW_TOGETHER; r++) {
    v_store(out + r * pitch, sum[r][0]);
    v_store(out + r * pitch + LANES, sum[r][1]);
  }
}

/* Distances of knots first .. first + GDTW_TOGETHER - 1 to samples [from, to]. */
static void gdtw_distances(gdtw_lattice *l, int first, int from, int to) {
  const int64_t d = l->it->d;
  const float *x[GDTW_TOGETHER];
  for (int r = 0; r < GDTW_TOGETHER; r++) x[r] = l->x + gdtw_smaller(first + r, l->it->n - 1) * d;
  for (int k = from - from % GDTW_SAMPLES; k <= to; k += GDTW_SAMPLES)
    gdtw_distance_block(x, gdtw_sample(l, k), d, l->pitch, l->distance + k);
}

static int gdtw_sample_before(const gdtw_lattice *l, int i, int k) {
  return l->per_sample ? gdtw_smaller(k / l->per_sample, gdtw_larger(l->it->m - 2, 0))
                       : gdtw_segment(l->it, gdtw_clamp(k * l->h, l->it->reach_low[i], l->it->reach_high[i]));
}

/* Distances of knot i, for the samples around its window; those of the next knots come along. */
static const float *gdtw_distances_of(gdtw_lattice *l, int i) {
  const int first = i - i % GDTW_TOGETHER;
  if (l->distance_first != first) {
    int from = l->it->m, to = 0;
    for (int r = first; r < gdtw_smaller(first + GDTW_TOGETHER, l->it->n); r++) {
      from = gdtw_smaller(from, gdtw_sample_before(l, r, l->reach_low[r]) - 1);
      to = gdtw_larger(to, gdtw_sample_before(l, r, l->reach_high[r]) + 2);
    }
    gdtw_distances(l, first, gdtw_larger(from, 0), gdtw_smaller(to, l->it->m - 1));
    l->distance_first = first;
  }
  return l->distance + (i - first) * l->pitch;
}

/* Lattice values [first, end) of one segment: value first + q lies at u + q step of it. */
typedef struct {
  int segment, first, end;
  double u, step;
} gdtw_piece;

/* The piece that begins with value k, of those up to high. */
static gdtw_piece gdtw_piece_at(const gdtw_lattice *l, int k, int high) {
  const gdtw_item *it = l->it;
  const int last = it->m > 2 ? it->m - 2 : 0, r = l->per_sample;
  const int s = r ? gdtw_smaller(k / r, last) : gdtw_segment(it, gdtw_clamp(k * l->h, 0, it->span));
  if (r)
    return (gdtw_piece){s, k, s < last ? gdtw_smaller((s + 1) * r, high + 1) : high + 1, (double)k / r - s, 1. / r};
  const double h = it->ty[s + 1] - it->ty[s];
  const int next = (int)gdtw_least(ceil(it->ty[s + 1] / l->h), high + 1);
  return (gdtw_piece){s, k, s < last ? gdtw_larger(next, k + 1) : high + 1, (k * l->h - it->ty[s]) / h, l->h / h};
}

/* The piece of one value, moved into what the knot can reach: those at the ends of a window may stand outside. */
static gdtw_piece gdtw_piece_within(const gdtw_lattice *l, int i, int k) {
  const gdtw_item *it = l->it;
  const double v = gdtw_clamp(k * l->h, it->reach_low[i], it->reach_high[i]);
  const int s = gdtw_segment(it, v);
  return (gdtw_piece){s, k, k + 1, (v - it->ty[s]) / (it->ty[s + 1] - it->ty[s]), 0};
}

/* u of LANES values, the first of them q behind the piece's first. */
static vec gdtw_shares(const gdtw_piece *p, int q) {
  static const float ramp[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return v_muladd(v_set1((float)p->step), v_loadu(ramp), v_set1((float)(p->u + q * p->step)));
}

/* Squares: a parabola. out[0] is the piece's first value; whole vectors are written. */
static void gdtw_square_piece(const gdtw_lattice *l, const float *a, const gdtw_piece *p, float *out) {
  const int s = p->segment;
  const vec base = v_set1(a[s]), bend = v_set1(l->delta[s]), rise = v_set1(a[s + 1] - a[s] - l->delta[s]);
  for (int q = 0; q < p->end - p->first; q += LANES) {
    const vec u = gdtw_shares(p, q);
    v_storeu(out + q, v_muladd(u, v_muladd(u, bend, rise), base));
  }
}

/* l(e) of a loss that is no square. Huber: t (2 a - t) with t = min(a, p). */
static vec gdtw_penalties(dalign_gdtw_penalty kind, float p, vec e) {
  const vec a = v_abs(e), t = v_min(a, v_set1(p));
  if (kind == DALIGN_GDTW_HUBER) return v_mul(t, v_sub(v_add(a, a), t));
  if (p == 1.5f) return v_mul(a, v_sqrt(a));
  if (p == 3) return v_mul(a, v_mul(a, a));
  float lanes[LANES];
  v_storeu(lanes, a);
  for (int r = 0; r < LANES; r++) lanes[r] = powf(lanes[r], p);
  return v_loadu(lanes);
}

/* Any loss, feature by feature at the interpolated y. */
static void gdtw_any_piece(const gdtw_lattice *l, int i, const gdtw_piece *p, float *out) {
  const dalign_gdtw_args *a = l->it->args;
  for (int q = 0; q < p->end - p->first; q += LANES) {
    const vec u = gdtw_shares(p, q);
    const float *x = l->x + i * l->it->d, *y = gdtw_sample(l, p->segment), *next = gdtw_sample(l, p->segment + 1);
    vec sum = v_zero();
    for (int64_t f = 0; f < l->it->d; f++, y += GDTW_SAMPLES, next += GDTW_SAMPLES) {
      const vec e = v_sub(v_set1(x[f] - y[0]), v_mul(u, v_set1(next[0] - y[0])));
      sum = v_add(sum, gdtw_penalties(a->loss, (float)a->loss_parameter, e));
    }
    v_storeu(out + q, sum);
  }
}

/* L_i at the values of a piece; what is written behind them, the next piece overwrites. a: distances, NULL unless squares. */
static void gdtw_piece_costs(const gdtw_lattice *l, int i, const float *a, const gdtw_piece *p, float *out) {
  if (a)
    gdtw_square_piece(l, a, p, out);
  else
    gdtw_any_piece(l, i, p, out);
}

static void gdtw_value_costs(const gdtw_lattice *l, int i, const float *a, int low, int high, float *out) {
  if (a && l->per_sample == 1) {
    memcpy(out, a + low, (size_t)(high - low + 1) * sizeof *out);
    return;
  }
  for (int k = low; k <= high;) {
    const gdtw_piece p = gdtw_piece_at(l, k, high);
    gdtw_piece_costs(l, i, a, &p, out + (k - low));
    k = p.end;
  }
}

/* w_i L_i over the row's window, into l->costs. */
static void gdtw_node_costs(gdtw_lattice *l, int i, int low, int high) {
  const float *a = l->it->args->loss == DALIGN_GDTW_SQUARES ? gdtw_distances_of(l, i) : NULL;
  const vec w = v_set1((float)l->it->w[i]);
  float end[LANES];
  gdtw_value_costs(l, i, a, low, high, l->costs);
  for (int side = 0; side < 2; side++) {
    const gdtw_piece p = gdtw_piece_within(l, i, side ? high : low);
    gdtw_piece_costs(l, i, a, &p, end);
    l->costs[side ? high - low : 0] = end[0];
  }
  for (int k = 0; k <= high - low; k += LANES) v_storeu(l->costs + k, v_mul(w, v_loadu(l->costs + k)));
}

/* ------------------------------------------------------------------------------------------------ edge costs */

static void gdtw_fill_table(const gdtw_lattice *l, gdtw_table *table, int edge, int low, int high) {
  gdtw_edge_costs *c = &table->costs;
  c->low = low, c->high = high;
  c->at = table->memory + GDTW_PAD - low;
  c->back = table->memory + table->room + GDTW_PAD + high;
  table->dt = l->it->dt[edge], table->lambda = l->it->lambda[edge], table->filled = 1;
  for (int d = low - GDTW_PAD; d <= high + GDTW_PAD; d++) c->at[d] = c->back[-d] = GDTW_NEVER;
  const double factor = table->lambda * table->dt, slope = l->h / table->dt, s0 = l->it->s0;
  if (l->it->args->regularizer == DALIGN_GDTW_SQUARES)
    for (int d = low; d <= high; d++) c->at[d] = (float)(factor * (d * slope - s0) * (d * slope - s0));
  else
    for (int d = low; d <= high; d++) c->at[d] = (float)(factor * gdtw_regularizer(l->it, edge, d * l->h).value);
  for (int d = low; d <= high; d++) c->back[-d] = c->at[d];
}

/* v rounded down to a multiple of the block. */
static inline int gdtw_whole_blocks(int v) { return v - (v % GDTW_BLOCK + GDTW_BLOCK) % GDTW_BLOCK; }

/* Edges of equal dt, lambda and window share a table. It has the steps that the windows of the two knots allow, rounded
 * so that corridors along a path of nearly equal steps share it too. */
static const gdtw_edge_costs *gdtw_edge_table(gdtw_lattice *l, int edge) {
  const int shortest = l->reach_low[edge + 1] - l->reach_high[edge],
            longest = l->reach_high[edge + 1] - l->reach_low[edge];
  const int low = gdtw_larger(l->step_low[edge], gdtw_whole_blocks(shortest));
  const int high = gdtw_smaller(l->step_high[edge], gdtw_whole_blocks(longest) + GDTW_BLOCK - 1);
  for (int q = 0; q < GDTW_TABLES; q++) {
    const gdtw_table *t = &l->tables[q];
    if (t->filled && t->dt == l->it->dt[edge] && t->lambda == l->it->lambda[edge] && t->costs.low == low &&
        t->costs.high == high)
      return &t->costs;
  }
  gdtw_table *table = &l->tables[l->next_table];
  l->next_table = (l->next_table + 1) % GDTW_TABLES;
  gdtw_fill_table(l, table, edge, low, high);
  return &table->costs;
}

/* ------------------------------------------------------------------------------------------------ windows */

/* Steps that an edge may take: rounded so that their sums over the edges follow the sums of the bounds. */
static void gdtw_step_windows(gdtw_lattice *l, int slack) {
  const double farthest = 4e6;
  double low = 0, high = 0;
  for (int i = 0; i + 1 < l->it->n; i++) {
    const double next_low = low + gdtw_clamp(l->it->step_min[i] / l->h, -farthest, farthest);
    const double next_high = high + gdtw_clamp(l->it->step_max[i] / l->h, -farthest, farthest);
    l->step_low[i] = (int)(ceil(next_low - 1e-9) - ceil(low - 1e-9)) - slack;
    l->step_high[i] = gdtw_larger((int)(floor(next_high + 1e-9) - floor(high + 1e-9)) + slack, l->step_low[i]);
    low = next_low, high = next_high;
  }
}

/* What paths can use of the windows; whether every knot keeps something. */
static int gdtw_reach_windows(gdtw_lattice *l) {
  const int n = l->it->n;
  int *low = l->reach_low, *high = l->reach_high, fine = 1;
  for (int i = 0; i < n; i++) {
    low[i] = i ? gdtw_larger(l->low[i], low[i - 1] + l->step_low[i - 1]) : l->low[i];
    high[i] = i ? gdtw_smaller(l->high[i], high[i - 1] + l->step_high[i - 1]) : l->high[i];
  }
  for (int i = n - 2; i >= 0; i--) {
    low[i] = gdtw_larger(low[i], low[i + 1] - l->step_high[i]);
    high[i] = gdtw_smaller(high[i], high[i + 1] - l->step_low[i]);
  }
  for (int i = 0; i < n; i++) fine &= low[i] <= high[i];
  return fine;
}

/* Lattice values nearest to the bounds of what knot i can reach. */
static void gdtw_full_window(const gdtw_lattice *l, int i, int *low, int *high) {
  *low = (int)floor(l->it->reach_low[i] / l->h + .5 - 1e-9);
  *high = gdtw_larger((int)ceil(l->it->reach_high[i] / l->h - .5 + 1e-9), *low);
}

/* half lattice values on both sides of a path; NULL: all. */
static void gdtw_windows(gdtw_lattice *l, const double *phi, int half) {
  for (int i = 0; i < l->it->n; i++) {
    int low, high;
    gdtw_full_window(l, i, &low, &high);
    const int middle = phi ? (int)lrint(phi[i] / l->h) : 0;
    l->low[i] = phi ? gdtw_smaller(gdtw_larger(low, middle - half), high) : low;
    l->high[i] = phi ? gdtw_larger(gdtw_smaller(high, middle + half), l->low[i]) : high;
  }
}

/* Rounded bounds may leave no path where the exact ones do: then steps get room. */
static int gdtw_open_windows(gdtw_lattice *l) {
  int slack = 0;
  do gdtw_step_windows(l, slack);
  while (!gdtw_reach_windows(l) && ++slack < 4);
  if (slack == 4) return 0;
  int64_t used = 0;
  for (int i = 0; i < l->it->n; i++) {
    l->offset[i] = used + GDTW_PAD;
    used += l->reach_high[i] - l->reach_low[i] + 1 + 2 * GDTW_PAD;
  }
  return 1;
}

/* ------------------------------------------------------------------------------------------------ the sweep */

static gdtw_row gdtw_row_of(const gdtw_lattice *l, int i) {
  return (gdtw_row){l->rows + l->offset[i] - l->reach_low[i], l->reach_low[i], l->reach_high[i]};
}

/* After the row is known: a block may have written more than it. */
static void gdtw_pad_row(gdtw_row *row) {
  for (int q = 1; q <= GDTW_PAD; q++) row->at[row->low - q] = row->at[row->high + q] = GDTW_NEVER;
}

static void gdtw_sweep(gdtw_lattice *l) {
  gdtw_row before = {NULL, 0, 0};
  for (int i = 0; i < l->it->n; i++) {
    gdtw_row row = gdtw_row_of(l, i);
    const int count = row.high - row.low + 1;
    float *at = row.at + row.low;
    gdtw_node_costs(l, i, row.low, row.high);
    if (i) gdtw_min_plus(&before, gdtw_edge_table(l, i - 1), &row, l->anchors);
    if (i)
      for (int k = 0; k < count; k++) at[k] += l->costs[k];
    else
      memcpy(at, l->costs, (size_t)count * sizeof *at);
    gdtw_pad_row(&row);
    before = row;
  }
}

/* The best path, from its end; whether there is one. */
static int gdtw_trace(gdtw_lattice *l, double *phi) {
  const gdtw_item *it = l->it;
  gdtw_row row = gdtw_row_of(l, it->n - 1);
  int k = row.low;
  for (int q = row.low; q <= row.high; q++) k = row.at[q] < row.at[k] ? q : k;
  if (!(row.at[k] < .5f * GDTW_NEVER)) return 0;
  for (int i = it->n - 1;; i--) {
    phi[i] = gdtw_clamp(k * l->h, it->reach_low[i], it->reach_high[i]);
    if (i == 0) return 1;
    row = gdtw_row_of(l, i - 1);
    k = gdtw_anchor(&row, gdtw_edge_table(l, i - 1), k, row.low, row.high);
  }
}

/* The best path of step h in the windows, into phi, which stays as it was when there is none. */
static int gdtw_solve_lattice(gdtw_lattice *l, double h, int per_sample, const double *around, int half, double *phi) {
  l->h = h, l->per_sample = per_sample;
  l->distance_first = -1, l->next_table = 0;
  for (int q = 0; q < GDTW_TABLES; q++) l->tables[q].filled = 0;
  gdtw_windows(l, around, half);
  if (!gdtw_open_windows(l)) return 0;
  gdtw_sweep(l);
  return gdtw_trace(l, phi);
}

/* ------------------------------------------------------------------------------------------------ schedules */

/* The first lattice has a whole number of values from sample to sample. Corridors around its path follow, each so many times
 * finer, so many values wide on both sides. What is missed lies outside of a corridor, or between the values of the first
 * lattice: docs/decisions.md. */
typedef struct {
  int values;          /* of the first lattice, at least */
  int cells, most;     /* more of them, up to so many values times knots, and so many values */
  int half, last_half; /* of corridors, and of the last one */
  int finer, finest;   /* until there are so many values from sample to sample */
} gdtw_schedule;

static const gdtw_schedule gdtw_schedules[] = {
    [DALIGN_GDTW_FAST] = {49, 4096, 4096, 63, 63, 4, 64},
    [DALIGN_GDTW_DEFAULT] = {49, 327680, 1280, 383, 191, 8, 24},
    [DALIGN_GDTW_THOROUGH] = {511, 1 << 21, 8191, 1023, 1023, 4, 64},
};

/* Values that the first lattice may have of its own choice. */
static int64_t gdtw_more_values(const gdtw_schedule *s, int64_t n) {
  return s->cells / n < s->most ? s->cells / n : s->most;
}

/* Lattice values from sample to sample on the first lattice. */
static int64_t gdtw_first_per_sample(const gdtw_schedule *s, int64_t n, int64_t m) {
  const int64_t segments = m > 1 ? m - 1 : 1, least = (s->values + segments - 1) / segments;
  const int64_t more = gdtw_more_values(s, n) / segments;
  return more > least ? more : least;
}

/* A warp near the global minimum, feasible. */
static void gdtw_search(gdtw_lattice *l, const gdtw_schedule *s, double *phi) {
  const gdtw_item *it = l->it;
  const double apart = it->span / (it->m > 1 ? it->m - 1 : 1);
  int per_sample = (int)gdtw_first_per_sample(s, it->n, it->m);
  for (int i = 0; i < it->n; i++) phi[i] = it->reach_low[i];
  int found = gdtw_solve_lattice(l, apart / per_sample, it->uniform ? per_sample : 0, NULL, 0, phi);
  while (found && per_sample < s->finest) {
    per_sample *= s->finer;
    const int half = per_sample < s->finest ? s->half : s->last_half;
    gdtw_solve_lattice(l, apart / per_sample, it->uniform ? per_sample : 0, phi, half, phi);
  }
  gdtw_repair(it, phi);
}

/* ------------------------------------------------------------------------------------------------ memory */

static int64_t gdtw_pitch(int64_t m) { return (m / GDTW_SAMPLES + 1) * GDTW_SAMPLES; }

/* Room for any lattice of any item: in a row, and in all. Shorter items may have longer rows. */
static int64_t gdtw_row_room(const dalign_gdtw_args *a, const gdtw_schedule *s) {
  const int64_t first = gdtw_larger(s->values, s->most) + a->m + 1;
  const int64_t corridor = 2 * gdtw_larger(s->half, s->last_half) + 1;
  return first > corridor ? first : corridor;
}

static int64_t gdtw_rows_room(const dalign_gdtw_args *a, const gdtw_schedule *s) {
  const int64_t values = a->n * s->values > s->cells ? a->n * s->values : s->cells;
  const int64_t first = values + a->n * (a->m + 1), corridor = a->n * (2 * gdtw_larger(s->half, s->last_half) + 1);
  return (first > corridor ? first : corridor) + a->n * 2 * GDTW_PAD;
}

static void gdtw_cut_lattice(gdtw_lattice *l, const dalign_gdtw_args *a, const gdtw_schedule *s, dalign_arena *memory) {
  const int64_t values = gdtw_row_room(a, s);
  int **const of_knots[] = {&l->low, &l->high, &l->reach_low, &l->reach_high, &l->step_low, &l->step_high};
  for (size_t k = 0; k < sizeof of_knots / sizeof *of_knots; k++)
    *of_knots[k] = dalign_arena_take(memory, (size_t)a->n * sizeof(int));
  l->pitch = gdtw_pitch(a->m);
  l->x = dalign_arena_take(memory, (size_t)(a->n * a->d) * sizeof(float));
  l->y = dalign_arena_take(memory, (size_t)(l->pitch * a->d) * sizeof(float));
  l->delta = dalign_arena_take(memory, (size_t)l->pitch * sizeof(float));
  l->distance = dalign_arena_take(memory, (size_t)(GDTW_TOGETHER * l->pitch) * sizeof(float));
  l->offset = dalign_arena_take(memory, (size_t)a->n * sizeof *l->offset);
  l->rows = dalign_arena_take(memory, (size_t)gdtw_rows_room(a, s) * sizeof(float));
  l->costs = dalign_arena_take(memory, (size_t)(values + LANES) * sizeof(float));
  l->anchors = dalign_arena_take(memory, (size_t)(values / GDTW_BLOCK + 2) * sizeof(int));
  for (int q = 0; q < GDTW_TABLES; q++) {
    l->tables[q].room = 2 * values + 4 * GDTW_BLOCK;
    l->tables[q].memory = dalign_arena_take(memory, (size_t)(2 * l->tables[q].room) * sizeof(float));
  }
}

static void gdtw_stage(gdtw_lattice *l, const gdtw_item *it) {
  l->it = it;
  if (it->is_float)
    DALIGN_NAME(gdtw_stage_, f32)(it, l->x, l->y, l->pitch, GDTW_SAMPLES);
  else
    DALIGN_NAME(gdtw_stage_, f64)(it, l->x, l->y, l->pitch, GDTW_SAMPLES);
  for (int k = 0; k + 1 < l->pitch; k++) {
    const float *y = gdtw_sample(l, k), *next = gdtw_sample(l, k + 1);
    float sum = 0;
    for (int64_t f = 0; f < it->d * GDTW_SAMPLES; f += GDTW_SAMPLES) sum += (next[f] - y[f]) * (next[f] - y[f]);
    l->delta[k] = sum;
  }
  l->delta[l->pitch - 1] = 0;
}
