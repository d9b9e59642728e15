/* ctc_plan.h: one item's labels and positions, and the cutting of its memory (part of ctc.c, once per element type). */
#undef problem
#undef ctc_unit
#define problem FN(ctc_problem)
#define ctc_unit FN(ctc_unit_type)

#ifndef DALIGN_CTC_PLAN
#define DALIGN_CTC_PLAN
enum { BLOCK = 16 }; /* frames; a multiple of LANES, whatever the instruction set */
enum { CTC_NAN = 1, CTC_WIDE = 2 };
#endif

/* What a block keeps from forward to backward. */
typedef struct {
  ctc_row rows[BLOCK + 1]; /* A of the frame before the block, and of its frames */
  REAL *label_m, *label_e; /* (BLOCK, padded) emissions by position */
  REAL *blank_m, *blank_e; /* (BLOCK,) */
} ctc_unit;

typedef struct {
  const dalign_ctc_args *args;
  int64_t item;
  int given_f32;            /* type of the arrays, whatever REAL is */
  int64_t frames, labels;   /* T and S of the item */
  const int64_t *label;     /* (labels,) their classes */
  int64_t padded;           /* positions 0 .. S, up to whole vectors */
  int64_t distinct;         /* different classes among blank and labels */
  int64_t blocks, keep;     /* of the item's frames; that stay */
  int64_t unit_numbers;     /* REALs of a unit */
  int64_t *row_of_class;    /* (classes,) row of the table, -1: none */
  int64_t *class_of_row;    /* (distinct,) row 0 is the blank's */
  int64_t *row_of_position; /* (padded,) behind the labels `distinct`, a row of zeros */
  int64_t *earliest;        /* (labels,) first frame in which a path can be in the label */
  REAL *allow, *bar;        /* (padded + LANES,) see ctc_rows.h */
  REAL *logs;               /* (blocks, distinct, BLOCK) as given */
  REAL *table_m, *table_e;  /* (distinct + 1, BLOCK) emissions of a block */
  REAL *units;              /* keep of them */
  double *unit_base;
  REAL *rows; /* first row of each keep-th block */
  double *row_base;
  REAL *adjoint; /* q, a row */
  double adjoint_base;
  REAL *label_mass, *blank_mass; /* (BLOCK, padded) E */
  REAL *blank_sums;              /* (BLOCK, LANES) */
  REAL *sums;                    /* (distinct + 1, BLOCK) */
  REAL *frame;                   /* (classes,) of one frame, where REAL is not the arrays' type */
  double *log_sums;              /* (frames,) log of the softmax's sum, with logits */
  double scale[BLOCK];           /* 1 / sum of E */
  double weight;
  double log_sum;          /* over the frames: log of what emissions were divided by, less log of the softmax's sum */
  double total_m, total_e; /* Z = m 2^e */
  int found;
} problem;

/* ------------------------------------------------------------------------------------------------ sizes */

static int64_t FN(ctc_padded_)(int64_t labels) { return (labels + 1 + LANES - 1) / LANES * LANES; }

static int64_t FN(ctc_blocks_)(int64_t frames) { return (frames + BLOCK - 1) / BLOCK; }

/* Rows have LANES numbers before position 0 and as many behind the last. */
static int64_t FN(ctc_row_numbers_)(int64_t padded) { return 4 * (padded + 2 * LANES); }

static int64_t FN(ctc_unit_numbers_)(int64_t padded) {
  return (BLOCK + 1) * FN(ctc_row_numbers_)(padded) + 2 * BLOCK * (padded + LANES);
}

/* Blocks that stay: as many as fit the cache, more where rows between them would take too much memory, up to where both
 * together take the least. */
static int64_t FN(ctc_keep_)(int64_t blocks, int64_t padded) {
  const int64_t row = FN(ctc_row_numbers_)(padded) * (int64_t)sizeof(REAL);
  const int64_t unit = FN(ctc_unit_numbers_)(padded) * (int64_t)sizeof(REAL);
  int64_t keep = DALIGN_CTC_KEEP_BYTES / unit;
  if (keep < 1) keep = 1;
  while (keep * keep * unit < blocks * row && blocks / keep * row > DALIGN_CTC_ROWS_BYTES) keep++;
  return keep < blocks ? keep : blocks > 0 ? blocks : 1;
}

static int FN(ctc_goes_back_)(const dalign_ctc_args *a) { return a->grad || a->alignment; }

static int64_t FN(ctc_longest_)(const dalign_ctc_args *a) {
  int64_t longest = 0;
  for (int64_t b = 0; b < a->batch; b++) longest = a->label_lengths[b] > longest ? a->label_lengths[b] : longest;
  return longest;
}

static REAL *FN(ctc_take_)(dalign_arena *a, int64_t numbers) {
  return dalign_arena_take(a, sizeof(REAL) * (size_t)numbers);
}

/* Room for an item of any of the batch's lengths. */
static void FN(cut_ctc_)(problem *p, dalign_arena *a, const dalign_ctc_args *args, int64_t longest) {
  const int64_t padded = FN(ctc_padded_)(longest), blocks = FN(ctc_blocks_)(args->frames);
  const int64_t distinct = 1 + (longest < args->classes ? longest : args->classes);
  const int back = FN(ctc_goes_back_)(args);
  const int64_t keep = back ? FN(ctc_keep_)(blocks, padded) : 1;
  p->row_of_class = dalign_arena_take(a, sizeof(int64_t) * (size_t)args->classes);
  p->class_of_row = dalign_arena_take(a, sizeof(int64_t) * (size_t)distinct);
  p->row_of_position = dalign_arena_take(a, sizeof(int64_t) * (size_t)padded);
  p->earliest = dalign_arena_take(a, sizeof(int64_t) * (size_t)longest);
  p->unit_base = dalign_arena_take(a, sizeof(double) * (size_t)(blocks + 1));
  p->row_base = dalign_arena_take(a, sizeof(double) * (size_t)(blocks / keep + 1));
  p->allow = FN(ctc_take_)(a, padded + LANES);
  p->bar = FN(ctc_take_)(a, padded + LANES);
  p->log_sums = dalign_arena_take(a, sizeof(double) * (size_t)args->frames);
  p->logs = FN(ctc_take_)(a, blocks * distinct * BLOCK);
  p->table_m = FN(ctc_take_)(a, (distinct + 1) * BLOCK);
  p->table_e = FN(ctc_take_)(a, (distinct + 1) * BLOCK);
  p->units = FN(ctc_take_)(a, keep * FN(ctc_unit_numbers_)(padded));
  p->frame = FN(ctc_take_)(a, args->classes);
  if (!back) return;
  p->rows = FN(ctc_take_)(a, (blocks / keep + 1) * FN(ctc_row_numbers_)(padded));
  p->adjoint = FN(ctc_take_)(a, FN(ctc_row_numbers_)(padded));
  p->label_mass = FN(ctc_take_)(a, BLOCK * padded);
  p->blank_mass = FN(ctc_take_)(a, BLOCK * padded);
  p->blank_sums = FN(ctc_take_)(a, BLOCK * LANES);
  p->sums = FN(ctc_take_)(a, (distinct + 1) * BLOCK);
}

static size_t FN(ctc_bytes_)(const dalign_ctc_args *args) {
  problem p;
  dalign_arena a = dalign_arena_over(NULL);
  FN(cut_ctc_)(&p, &a, args, FN(ctc_longest_)(args));
  return dalign_arena_bytes(&a);
}

/* ------------------------------------------------------------------------------------------------ views */

static ctc_row FN(ctc_row_in_)(const problem *p, REAL *memory) {
  const int64_t stride = p->padded + 2 * LANES;
  REAL *first = memory + LANES;
  ctc_row row = {first, first + stride, first + 2 * stride, first + 3 * stride};
  return row;
}

static ctc_unit FN(ctc_unit_of_)(const problem *p, int64_t block) {
  REAL *memory = p->units + block % p->keep * p->unit_numbers;
  const int64_t row = FN(ctc_row_numbers_)(p->padded);
  ctc_unit u;
  for (int t = 0; t <= BLOCK; t++) u.rows[t] = FN(ctc_row_in_)(p, memory + t * row);
  u.label_m = memory + (BLOCK + 1) * row, u.label_e = u.label_m + BLOCK * p->padded;
  u.blank_m = u.label_e + BLOCK * p->padded, u.blank_e = u.blank_m + BLOCK;
  return u;
}

static ctc_emissions FN(ctc_emissions_of_)(const problem *p, const ctc_unit *u, int t) {
  ctc_emissions e = {
      u->label_m + t * p->padded, u->label_e + t * p->padded, {v_set1(u->blank_m[t]), v_set1(u->blank_e[t])}};
  return e;
}

static int FN(ctc_frames_in_)(const problem *p, int64_t block) {
  const int64_t left = p->frames - block * BLOCK;
  return left < BLOCK ? (int)left : BLOCK;
}

/* ------------------------------------------------------------------------------------------------ the item */

static const void *FN(ctc_frame_given_)(const problem *p, int64_t t) {
  const int64_t at = p->item * p->args->item_stride + t * p->args->frame_stride;
  return p->given_f32 ? (const void *)((const float *)p->args->log_probs + at)
                      : (const void *)((const double *)p->args->log_probs + at);
}

static void *FN(ctc_grad_frame_)(const problem *p, int64_t t) {
  const int64_t at = p->item * p->args->grad_item_stride + t * p->args->grad_frame_stride;
  return p->given_f32 ? (void *)((float *)p->args->grad + at) : (void *)((double *)p->args->grad + at);
}

/* Gives each different class a row of the table, in the order in which they come, the blank first. */
static void FN(number_classes_)(problem *p) {
  for (int64_t c = 0; c < p->args->classes; c++) p->row_of_class[c] = -1;
  p->row_of_class[p->args->blank] = 0;
  p->class_of_row[0] = p->args->blank;
  p->distinct = 1;
  for (int64_t k = 0; k < p->labels; k++) {
    const int64_t c = p->label[k];
    if (p->row_of_class[c] < 0) {
      p->row_of_class[c] = p->distinct;
      p->class_of_row[p->distinct++] = c;
    }
    p->row_of_position[k] = p->row_of_class[c];
  }
  for (int64_t k = p->labels; k < p->padded; k++) p->row_of_position[k] = p->distinct;
}

/* A path needs a frame for each label, and one for the blank between two equal ones. */
static void FN(place_labels_)(problem *p) {
  for (int64_t k = 0; k < p->padded + LANES; k++) p->allow[k] = 1, p->bar[k] = 0;
  for (int64_t k = 0; k < p->labels; k++) {
    const int repeated = k > 0 && p->label[k] == p->label[k - 1];
    p->earliest[k] = k > 0 ? p->earliest[k - 1] + 1 + repeated : 0;
    if (repeated) p->allow[k] = 0, p->bar[k] = SCALED_NONE;
  }
}

static int FN(ctc_args_bad_)(const dalign_ctc_args *a, int64_t item) {
  if (item < 0 || item >= a->batch || a->frames < 0 || a->blank < 0 || a->blank >= a->classes) return 1;
  if (a->input_lengths[item] < 0 || a->input_lengths[item] > a->frames || a->label_lengths[item] < 0) return 1;
  if (a->alignment && a->columns < 2 * a->label_lengths[item] + 1) return 1;
  for (int64_t k = 0; k < a->label_lengths[item]; k++) {
    const int64_t c = a->labels[a->label_begin[item] + k];
    if (c < 0 || c >= a->classes) return 1;
  }
  return 0;
}

static void FN(open_ctc_)(problem *p, const dalign_ctc_args *args, int64_t item, int given_f32, void *workspace) {
  dalign_arena a = dalign_arena_over(workspace);
  FN(cut_ctc_)(p, &a, args, FN(ctc_longest_)(args));
  const int64_t room = FN(ctc_padded_)(FN(ctc_longest_)(args)), blocks = FN(ctc_blocks_)(args->frames);
  const int64_t all = FN(ctc_goes_back_)(args) ? FN(ctc_keep_)(blocks, room) * FN(ctc_unit_numbers_)(room) : 0;
  p->args = args, p->item = item, p->given_f32 = given_f32;
  p->frames = args->input_lengths[item], p->labels = args->label_lengths[item];
  p->label = args->labels + args->label_begin[item];
  p->padded = FN(ctc_padded_)(p->labels), p->blocks = FN(ctc_blocks_)(p->frames);
  p->unit_numbers = FN(ctc_unit_numbers_)(p->padded);
  p->keep = all / p->unit_numbers < p->blocks ? all / p->unit_numbers : p->blocks;
  if (p->keep < 1) p->keep = 1;
  p->weight = args->weights ? load_given(args->weights, item, given_f32) : 1;
  p->log_sum = 0, p->found = 0;
  FN(number_classes_)(p);
  FN(place_labels_)(p);
}

static int FN(ctc_is_feasible_)(const problem *p) {
  return p->labels == 0 || (p->frames > 0 && p->earliest[p->labels - 1] < p->frames);
}

/* How many labels a path can reach by frame t. */
static int64_t FN(labels_before_)(const problem *p, int64_t t) {
  int64_t low = 0, high = p->labels;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (p->earliest[middle] <= t)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Whole vectors of positions [begin, end) that hold all states of a block which lie on a path: label k does at frame t if
 * earliest[k] <= t, and if as many frames are left as the labels behind it need. */
static void FN(ctc_range_)(const problem *p, int64_t block, int64_t *begin, int64_t *end) {
  const int64_t first = block * BLOCK, last = first + FN(ctc_frames_in_)(p, block) - 1;
  *begin = 0, *end = LANES;
  if (p->labels == 0) return;
  const int64_t spare = p->frames - 1 - p->earliest[p->labels - 1]; /* frames more than the shortest path */
  *begin = FN(labels_before_)(p, first - spare - 1) / LANES * LANES;
  *end = FN(labels_before_)(p, last) / LANES * LANES + LANES;
}
