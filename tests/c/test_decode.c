/* Decoders of the C library: a wide beam against a walk over all paths, a search in steps against one at once, an n-gram
 * model against its definition, memory of exactly the size asked for, misuse. */
#include "check.h"

/* ---------------------------------------------------------------- both precisions */

typedef struct {
  const precision *p;
  dalign_status (*greedy)(const dalign_greedy_args *, int64_t, int64_t);
  size_t (*state)(const dalign_beam_args *);
  dalign_status (*beam)(const dalign_beam_args *, int64_t, int64_t, void *);
  dalign_status (*open)(const dalign_beam_args *, void *);
  dalign_status (*step)(const dalign_beam_args *, int64_t, void *, dalign_questions *);
  dalign_status (*answer)(const dalign_beam_args *, void *, const double *, int64_t);
  dalign_status (*prefix)(const dalign_beam_args *, void *, int64_t, int64_t *, int64_t *);
} kernels;

#define KERNELS(suffix)                \
  {&suffix,                            \
   dalign_decode_greedy_##suffix,      \
   dalign_decode_beam_state_##suffix,  \
   dalign_decode_beam_##suffix,        \
   dalign_decode_beam_open_##suffix,   \
   dalign_decode_beam_step_##suffix,   \
   dalign_decode_beam_answer_##suffix, \
   dalign_decode_beam_prefix_##suffix}
static const kernels both[2] = {KERNELS(f32), KERNELS(f64)};

/* ---------------------------------------------------------------- a model: bigrams of everything */

enum { MOST_CLASSES = 6, MOST_NODES = 1 + (MOST_CLASSES + 2) * (MOST_CLASSES + 2) };

typedef struct {
  dalign_ngram model;
  int64_t first[MOST_NODES + 1], label[MOST_NODES], suffix[MOST_NODES];
  double share[MOST_NODES], backoff[MOST_NODES];
} bigrams;

/* Some of all bigrams, with random shares that leave backoff(h) of each history. */
static void make_bigrams(bigrams *g, int64_t classes, uint64_t seed) {
  const int64_t symbols = classes + 2;
  int64_t nodes = 1;
  g->backoff[0] = .3;
  g->first[0] = 1;
  for (int64_t c = 0; c < symbols; c++, nodes++) { /* unigrams; the start is never predicted */
    g->label[nodes] = c, g->suffix[nodes] = 0;
    g->share[nodes] = c == classes + 1 ? 0 : .7 / (double)(classes + 1);
  }
  for (int64_t h = 1; h <= symbols; h++) {
    const int64_t begin = g->first[h] = nodes;
    for (int64_t c = 0; c <= classes && g->label[h] != classes; c++)
      if (uniform(&seed) < .6) g->label[nodes] = c, g->suffix[nodes] = c + 1, nodes++;
    g->backoff[h] = nodes == begin ? 1 : .2;
    for (int64_t k = begin; k < nodes; k++) g->share[k] = .8 / (double)(nodes - begin);
  }
  for (int64_t k = symbols + 1; k <= nodes; k++) g->first[k] = nodes;
  for (int64_t k = symbols + 1; k < nodes; k++) g->backoff[k] = 1;
  g->share[0] = 0, g->label[0] = -1, g->suffix[0] = 0;
  g->model = (dalign_ngram){classes, nodes, symbols + 1, g->first, g->label, g->suffix, g->share, g->backoff};
}

/* The definition, by a look at every node. before: a symbol. */
static double bigram_log_prob(const bigrams *g, int64_t before, int64_t c) {
  const int64_t h = before + 1, root = c + 1;
  double p = g->backoff[h] * (g->share[root] + g->backoff[0] / (double)g->model.classes);
  for (int64_t k = g->first[h]; k < g->first[h + 1]; k++)
    if (g->label[k] == c) p += g->share[k];
  return log(p);
}

/* ---------------------------------------------------------------- problems */

typedef struct {
  int64_t frames, batch, classes, width, top;
  double threshold, weight, bonus, impossible;
  int scored, varied;
  uint64_t seed;
} setting;

typedef struct {
  const kernels *k;
  setting s;
  dalign_beam_args args;
  bigrams model;
  int64_t *input_lengths;
  void *log_probs;
} problem;

static int64_t frames_of(const problem *q, int64_t b) { return q->input_lengths ? q->input_lengths[b] : q->s.frames; }

static double log_prob_at(const problem *q, int64_t b, int64_t t, int64_t c) {
  return get(q->k->p, q->log_probs, (t * q->s.batch + b) * q->s.classes + c);
}

static problem make_problem(const kernels *k, setting s) {
  uint64_t seed = s.seed;
  problem q = {.k = k, .s = s};
  const int64_t results = s.batch * s.top;
  q.log_probs = result_array(k->p, s.frames * s.batch * s.classes);
  for (int64_t i = 0; i < s.frames * s.batch * s.classes; i++)
    set(k->p, q.log_probs, i, uniform(&seed) < s.impossible ? -INFINITY : -4 * uniform(&seed));
  if (s.varied) q.input_lengths = malloc((size_t)s.batch * sizeof(int64_t));
  for (int64_t b = 0; s.varied && b < s.batch; b++) {
    q.input_lengths[b] = random_integer(&seed, 0, s.frames);
    for (int64_t t = q.input_lengths[b]; t < s.frames; t++)
      for (int64_t c = 0; c < s.classes; c++) set(k->p, q.log_probs, (t * s.batch + b) * s.classes + c, NAN);
  }
  q.args = (dalign_beam_args){.emissions = {s.frames, s.batch, s.classes, q.log_probs, q.input_lengths, 0},
                              .width = s.width,
                              .top = s.top,
                              .token_threshold = s.threshold,
                              .scorer_weight = s.weight,
                              .length_bonus = s.bonus,
                              .labels = filled((size_t)(results * s.frames) * sizeof(int64_t), 0x55),
                              .length = filled((size_t)results * sizeof(int64_t), 0x55),
                              .log_prob = filled((size_t)results * sizeof(double), 0xFF),
                              .score = filled((size_t)results * sizeof(double), 0xFF),
                              .found = filled((size_t)s.batch * sizeof(int64_t), 0x55)};
  q.args.emissions.blank = random_integer(&seed, 0, s.classes - 1);
  describe_case(
      "%s frames %lld batch %lld classes %lld width %lld top %lld threshold %g weight %g bonus %g impossible %g "
      "scored %d varied %d seed %llu",
      k->p->name, (long long)s.frames, (long long)s.batch, (long long)s.classes, (long long)s.width, (long long)s.top,
      s.threshold, s.weight, s.bonus, s.impossible, s.scored, s.varied, (unsigned long long)s.seed);
  return q;
}

static void free_problem(problem *q) {
  void *memory[] = {q->log_probs,     q->input_lengths, q->args.labels, q->args.length,
                    q->args.log_prob, q->args.score,    q->args.found};
  for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) free(memory[k]);
}

static void run(problem *q) {
  if (q->s.scored) make_bigrams(&q->model, q->s.classes, q->s.seed), q->args.ngram = &q->model.model;
  check(!q->args.ngram || dalign_ngram_check_f64(q->args.ngram) == DALIGN_OK, "the model is refused");
  void *state = scratch(q->k->state(&q->args));
  check(q->k->beam(&q->args, 0, q->s.batch, state) == DALIGN_OK, "status is not OK");
  free(state);
}

/* ---------------------------------------------------------------- what to expect: all paths */

static double log_add(double a, double b) {
  const double high = fmax(a, b), low = fmin(a, b);
  return low == -INFINITY ? high : high + log1p(exp(low - high));
}

/* Labels of path number `path`, whose digits are its classes; gives their number. */
static int64_t collapse(int64_t path, int64_t frames, int64_t classes, int64_t blank, int64_t *labels) {
  int64_t length = 0, before = blank;
  for (int64_t t = 0; t < frames; t++, path /= classes) {
    const int64_t c = path % classes;
    if (c != blank && c != before) labels[length++] = c;
    before = c;
  }
  return length;
}

static double path_log_prob(const problem *q, int64_t b, int64_t path, int64_t frames) {
  double sum = 0;
  for (int64_t t = 0; t < frames; t++, path /= q->s.classes) sum += log_prob_at(q, b, t, path % q->s.classes);
  return sum;
}

static double expected_log_prob(const problem *q, int64_t b, const int64_t *labels, int64_t length, int64_t paths) {
  const int64_t frames = frames_of(q, b);
  int64_t other[16];
  double sum = -INFINITY;
  for (int64_t path = 0; path < paths; path++)
    if (collapse(path, frames, q->s.classes, q->args.emissions.blank, other) == length &&
        !memcmp(other, labels, (size_t)length * sizeof *labels))
      sum = log_add(sum, path_log_prob(q, b, path, frames));
  return sum;
}

static double expected_bonus(const problem *q, const int64_t *labels, int64_t length) {
  double sum = q->s.bonus * (double)length;
  int64_t before = q->s.classes + 1;
  for (int64_t k = 0; q->s.scored && k <= length; k++) {
    const int64_t symbol = k < length ? labels[k] : q->s.classes;
    sum += q->s.weight * bigram_log_prob(&q->model, before, symbol);
    before = symbol;
  }
  return sum;
}

static int64_t power(int64_t base, int64_t exponent) { return exponent > 0 ? base * power(base, exponent - 1) : 1; }

/* Every labelling given has its own numbers, the scores fall, and no labelling is better than the first, or left out. */
static void check_exhaustive(problem *q) {
  for (int64_t b = 0; b < q->s.batch; b++) {
    const int64_t frames = frames_of(q, b), paths = power(q->s.classes, frames), *found = q->args.found;
    double before = INFINITY, given = -INFINITY, all = -INFINITY;
    for (int64_t k = 0; k < found[b]; k++) {
      const int64_t place = b * q->s.top + k, length = q->args.length[place];
      const int64_t *const labels = q->args.labels + place * q->s.frames;
      const double expected = expected_log_prob(q, b, labels, length, paths);
      check_near("log_prob", place, q->args.log_prob[place], expected, 1e-10);
      check_near("score", place, q->args.score[place], expected + expected_bonus(q, labels, length), 1e-10);
      check(!(q->args.score[place] > before), "scores rise");
      before = q->args.score[place];
      given = log_add(given, q->args.log_prob[place]);
      for (int64_t t = length; t < q->s.frames; t++) check(labels[t] == -1, "no -1 behind the labels");
    }
    for (int64_t path = 0; path < paths; path++) all = log_add(all, path_log_prob(q, b, path, frames));
    check_near("probability of all labellings", b, given, all, 1e-9);
  }
}

static void test_exhaustive(const kernels *k) {
  for (int option = 0; option < 120; option++) {
    uint64_t seed = (uint64_t)option;
    setting s = {.batch = 2, .threshold = INFINITY, .weight = .7, .seed = seed};
    s.classes = random_integer(&seed, 1, 4);
    s.frames = random_integer(&seed, 0, s.classes > 3 ? 4 : 5);
    s.width = s.top = 400;
    s.impossible = option % 3 ? 0 : .3;
    s.bonus = option % 4 == 0 ? 1.5 : 0;
    s.scored = option / 2 % 2, s.varied = option / 4 % 2;
    if (left_out()) continue;
    problem q = make_problem(k, s);
    run(&q);
    check_exhaustive(&q);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- steps: the same model, asked */

static double answer_to(problem *q, void *state, int64_t row, int64_t label) {
  int64_t prefix[64], length = -1;
  check(q->k->prefix(&q->args, state, row, prefix, &length) == DALIGN_OK, "no prefix of row %lld", (long long)row);
  return bigram_log_prob(&q->model, length > 0 ? prefix[length - 1] : q->s.classes + 1, label);
}

static void run_in_steps(problem *q) {
  dalign_questions asked;
  q->args.ngram = NULL, q->args.asks = 1;
  void *state = scratch(q->k->state(&q->args));
  for (int64_t b = 0; b < q->s.batch; b++) {
    dalign_status status;
    check(q->k->open(&q->args, state) == DALIGN_OK, "open: status is not OK");
    while ((status = q->k->step(&q->args, b, state, &asked)) == DALIGN_ASK) {
      double *answers = scratch((size_t)asked.count * sizeof *answers);
      for (int64_t k = 0; k < asked.count; k++) answers[k] = answer_to(q, state, asked.row[k], asked.label[k]);
      check(q->k->step(&q->args, b, state, &asked) == DALIGN_BAD_ARGUMENT, "a step without answers is taken");
      check(q->k->answer(&q->args, state, answers, asked.count) == DALIGN_OK, "answers are refused");
      free(answers);
    }
    check(status == DALIGN_OK, "step: status is not OK");
  }
  free(state);
}

static void test_steps(const kernels *k) {
  for (int option = 0; option < 80; option++) {
    uint64_t seed = (uint64_t)option;
    setting s = {.batch = 2, .weight = .8, .bonus = .6, .scored = 1, .varied = option % 2, .seed = seed};
    s.classes = random_integer(&seed, 2, MOST_CLASSES);
    s.frames = random_integer(&seed, 0, 30);
    s.width = random_integer(&seed, 1, 12);
    s.top = random_integer(&seed, 1, 5);
    s.threshold = option % 3 ? INFINITY : 2;
    s.impossible = option % 4 ? 0 : .2;
    if (left_out()) continue;
    problem q = make_problem(k, s);
    run(&q);
    const size_t results = (size_t)(s.batch * s.top), labels = results * (size_t)s.frames * sizeof(int64_t);
    double *score = malloc(results * sizeof *score);
    int64_t *same = malloc(labels + 1);
    memcpy(score, q.args.score, results * sizeof *score);
    if (labels) memcpy(same, q.args.labels, labels);
    run_in_steps(&q);
    for (size_t i = 0; i < results; i++) check_near("score", (int64_t)i, q.args.score[i], score[i], 1e-10);
    check(labels == 0 || !memcmp(same, q.args.labels, labels), "the labels differ");
    free(score);
    free(same);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- large ones, for the memory */

static void test_large(const kernels *k) {
  static const int64_t sizes[][3] = {{200, 40, 50}, {400, 3, 200}, {50, 300, 7}, {30, 5, 1}, {1, 500, 100}};
  for (size_t l = 0; l < sizeof sizes / sizeof *sizes; l++) {
    if (left_out()) continue;
    setting s = {.frames = sizes[l][0], .batch = 3, .classes = sizes[l][1], .width = sizes[l][2], .top = sizes[l][2]};
    s.threshold = INFINITY, s.varied = 1, s.seed = l;
    problem q = make_problem(k, s);
    run(&q);
    for (int64_t b = 0; b < s.batch; b++) {
      check(q.args.found[b] >= 1 && q.args.found[b] <= s.top, "found[%lld] is wrong", (long long)b);
      for (int64_t i = 1; i < q.args.found[b]; i++)
        check(q.args.score[b * s.top + i] <= q.args.score[b * s.top + i - 1], "scores rise");
    }
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- best path */

static void test_greedy(const kernels *k) {
  for (int option = 0; option < 40; option++) {
    setting s = {
        .frames = option / 2, .batch = 2, .classes = 1 + option % 5, .width = 1, .top = 1, .varied = option % 2};
    s.threshold = INFINITY, s.seed = (uint64_t)option;
    problem q = make_problem(k, s);
    const size_t room = (size_t)(s.batch * s.frames) * sizeof(int64_t);
    int64_t *labels = filled(room, 0x55), *spans = filled(2 * room, 0x55), length[2];
    double score[2];
    const dalign_greedy_args args = {q.args.emissions, labels, spans, length, score};
    check(k->greedy(&args, 0, 1) == DALIGN_OK && k->greedy(&args, 1, 2) == DALIGN_OK, "status is not OK");
    for (int64_t b = 0; b < 2; b++) {
      int64_t count = 0, before = args.emissions.blank;
      double sum = 0;
      for (int64_t t = 0; t < frames_of(&q, b); t++) {
        int64_t best = 0;
        for (int64_t c = 1; c < s.classes; c++)
          if (log_prob_at(&q, b, t, c) > log_prob_at(&q, b, t, best)) best = c;
        sum += log_prob_at(&q, b, t, best);
        if (best != args.emissions.blank && best != before) count++;
        check(count == 0 || best == args.emissions.blank || labels[b * s.frames + count - 1] == best,
              "label %lld is wrong", (long long)count - 1);
        if (best != args.emissions.blank) {
          const int64_t *span = spans + 2 * (b * s.frames + count - 1);
          check(span[0] <= t && t < span[1], "frame %lld is outside its label's span", (long long)t);
        }
        before = best;
      }
      check(length[b] == count, "%lld labels, expected %lld", (long long)length[b], (long long)count);
      check_near("score", b, score[b], sum, 1e-12 * (1 - sum));
      for (int64_t t = count; t < s.frames; t++) check(labels[b * s.frames + t] == -1, "no -1 behind the labels");
    }
    free(labels);
    free(spans);
    free_problem(&q);
  }
}

/* ---------------------------------------------------------------- numbers that are none, misuse */

static void test_nan(const kernels *k) {
  static const double bad[] = {NAN, INFINITY};
  for (int n = 0; n < 2; n++) {
    setting s = {.frames = 5, .batch = 3, .classes = 3, .width = 4, .top = 2, .threshold = INFINITY, .seed = 1};
    problem q = make_problem(k, s);
    set(k->p, q.log_probs, (3 * s.batch + 1) * s.classes + 2, bad[n]);
    for (int64_t c = 0; c < s.classes; c++) set(k->p, q.log_probs, (4 * s.batch + 2) * s.classes + c, -INFINITY);
    run(&q);
    check(q.args.score[0] > -INFINITY, "the item beside it has no score");
    check(isnan(q.args.score[2]) && q.args.found[1] == 1 && q.args.length[2] == 0, "no NaN");
    check(q.args.score[4] == -INFINITY && q.args.found[2] == 1 && q.args.length[4] == 0, "not impossible");
    free_problem(&q);
  }
}

static void expect_bad(problem *q, const char *what) {
  void *memory = scratch(1 << 22);
  check(q->k->beam(&q->args, 0, q->s.batch, memory) == DALIGN_BAD_ARGUMENT, "%s is taken", what);
  free(memory);
}

static void test_misuse(const kernels *k) {
  setting s = {
      .frames = 4, .batch = 2, .classes = 3, .width = 2, .top = 1, .threshold = INFINITY, .weight = 1, .seed = 1};
  problem q = make_problem(k, s);
  static const int64_t lengths[2] = {4, 5}, negative[2] = {-1, 2};
  const dalign_beam_args good = q.args;
  bigrams other;
  make_bigrams(&other, 5, 1);
#define BAD(field, number) q.args.field = number, expect_bad(&q, #field " " #number), q.args = good
  BAD(width, 0);
  BAD(top, 0);
  BAD(emissions.blank, 3);
  BAD(emissions.blank, -1);
  BAD(emissions.classes, 0);
  BAD(emissions.frames, -1);
  BAD(emissions.log_probs, NULL);
  BAD(emissions.input_lengths, lengths);
  BAD(emissions.input_lengths, negative);
  BAD(token_threshold, -1);
  BAD(token_threshold, NAN);
  BAD(scorer_weight, -1);
  BAD(scorer_weight, NAN);
  BAD(length_bonus, INFINITY);
  BAD(ngram, &other.model);
  BAD(asks, 1);
  BAD(score, NULL);
  void *state = scratch(k->state(&q.args));
  check(k->beam(&q.args, 1, 3, state) == DALIGN_BAD_ARGUMENT, "items beyond the batch are taken");
  free(state);
  q.args.width = (int64_t)1 << 40, q.args.emissions.frames = (int64_t)1 << 40;
  check(k->state(&q.args) == 0, "a state of that size is promised");
  q.args = good;
  free_problem(&q);
}

static void test_answers(const kernels *k) {
  setting s = {
      .frames = 4, .batch = 1, .classes = 3, .width = 2, .top = 1, .threshold = INFINITY, .weight = 1, .seed = 1};
  problem q = make_problem(k, s);
  q.args.asks = 1;
  void *state = scratch(k->state(&q.args));
  dalign_questions asked;
  check(k->open(&q.args, state) == DALIGN_OK, "open: status is not OK");
  check(k->step(&q.args, 0, state, &asked) == DALIGN_ASK && asked.count > 0 && asked.count < 16, "no questions");
  double answers[16] = {0};
  check(k->answer(&q.args, state, answers, asked.count - 1) == DALIGN_BAD_ARGUMENT, "too few answers are taken");
  answers[0] = .1;
  check(k->answer(&q.args, state, answers, asked.count) == DALIGN_BAD_ARGUMENT, "an answer above 0 is taken");
  answers[0] = NAN;
  check(k->answer(&q.args, state, answers, asked.count) == DALIGN_BAD_ARGUMENT, "a NaN is taken");
  q.args.width = 1;
  answers[0] = 0;
  check(k->answer(&q.args, state, answers, asked.count) == DALIGN_BAD_ARGUMENT, "a state of another width is taken");
  free(state);
  free_problem(&q);
}

static void test_models(const kernels *k) {
  if (k != both) return; /* of no element type */
  for (int64_t classes = 1; classes <= MOST_CLASSES; classes++) {
    bigrams g;
    uint64_t seed = (uint64_t)classes;
    make_bigrams(&g, classes, seed);
    describe_case("classes %lld", (long long)classes);
    check(dalign_ngram_check_f64(&g.model) == DALIGN_OK, "the model is refused");
    int64_t labels[20];
    double log_prob[21];
    for (int i = 0; i < 20; i++) labels[i] = random_integer(&seed, 0, classes - 1);
    check(dalign_ngram_log_probs_f64(&g.model, labels, 20, log_prob) == DALIGN_OK, "status is not OK");
    for (int i = 0; i <= 20; i++) {
      const int64_t before = i > 0 ? labels[i - 1] : classes + 1;
      check_near("log_prob", i, log_prob[i], bigram_log_prob(&g, before, i < 20 ? labels[i] : classes), 1e-12);
    }
    labels[3] = classes;
    check(dalign_ngram_log_probs_f64(&g.model, labels, 20, log_prob) == DALIGN_BAD_ARGUMENT, "a wrong label is taken");
  }
}

static void run_group(const char *name, void (*test)(const kernels *)) {
  start_group(name);
  for (int k = 0; k < 2; k++) test(&both[k]);
  end_group();
}

int main(void) {
  run_group("best paths", test_greedy);
  run_group("a wide beam finds every labelling", test_exhaustive);
  run_group("questions and answers", test_steps);
  run_group("long, wide, many classes", test_large);
  run_group("NaN and impossible frames stay in their item", test_nan);
  run_group("n-gram models", test_models);
  run_group("misuse", test_misuse);
  run_group("wrong answers", test_answers);
  return report();
}
