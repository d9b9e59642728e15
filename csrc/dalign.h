/* dalign.h: the whole public C interface of torch-dalign.
 *
 * Plain pointers, plain structs, no globals that change. A function returns a status; it never prints and never aborts.
 * Every kernel exists for float (_f32) and double (_f64). Batched functions take a range [begin, end) of problems, so the
 * caller decides about threads; memory comes from the caller, and a sibling function tells how much.
 * Arrays are row-major and contiguous. The instruction set is chosen once, at load time (see dalign_isa).
 */
#ifndef DALIGN_H
#define DALIGN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  DALIGN_OK = 0,
  DALIGN_BAD_ARGUMENT = 1, /* a size below zero, a length or a label out of range, an unknown metric, gamma <= 0, ... */
  DALIGN_RETRY = 2,        /* dalign_softdtw_close only: open and work once more, the numbers need the wide path */
  DALIGN_AGAIN = 3,        /* dalign_softdtw_close only: work once more, the second sweep of DALIGN_GRADIENT */
  DALIGN_ASK = 4           /* dalign_decode_beam_step only: answer the questions, then step once more */
} dalign_status;

/* Cost of a pair of frames x_i, y_j (D numbers each). */
typedef enum {
  DALIGN_SQEUCLIDEAN = 0, /* sum_d (x_d - y_d)^2 */
  DALIGN_EUCLIDEAN = 1,   /* sqrt(sum_d (x_d - y_d)^2), gradient 0 at distance 0 */
  DALIGN_MANHATTAN = 2,   /* sum_d |x_d - y_d|, gradient sign(0) = 0 */
  DALIGN_COSINE = 3,      /* 1 - <x, y> / (|x| |y|), 1 with gradient 0 when a frame is zero */
  DALIGN_NLL = 4,         /* -x_y: x holds log-probabilities of D classes, y class indices (int64) */
  DALIGN_BCE = 5          /* -sum_d y_d log x_d + (1 - y_d) log(1 - x_d), logarithms clamped at -100 */
} dalign_metric;

/* Instruction set in use: "generic", "avx2" or "avx512". The environment variable DALIGN_ISA asks for a lower one. */
const char *dalign_isa(void);

/* ---------------------------------------------------------------- cost: all pairs of frames
 * x (batch, n, d); y (batch, m, d), for DALIGN_NLL int64 labels (batch, m) in [0, d). */
typedef struct {
  int64_t batch, n, m, d;
  dalign_metric metric;
  const void *x, *y;
} dalign_cost_args;

/* Bytes that one call (one thread) of the two functions below needs. */
size_t dalign_cost_workspace_f32(const dalign_cost_args *args);
size_t dalign_cost_workspace_f64(const dalign_cost_args *args);

/* cost (batch, n, m): every cell written, problems [begin, end). */
dalign_status dalign_cost_f32(const dalign_cost_args *args, float *cost, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_cost_f64(const dalign_cost_args *args, double *cost, int64_t begin, int64_t end, void *workspace);

/* Adjoint: grad_x (batch, n, d), grad_y (batch, m, d) from grad_cost (batch, n, m). Either may be NULL; grad_y is NULL for
 * DALIGN_NLL. */
dalign_status dalign_cost_backward_f32(const dalign_cost_args *args, const float *grad_cost, float *grad_x,
                                       float *grad_y, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_cost_backward_f64(const dalign_cost_args *args, const double *grad_cost, double *grad_x,
                                       double *grad_y, int64_t begin, int64_t end, void *workspace);

/* ---------------------------------------------------------------- softdtw: three steps, softmin, corner to corner
 *
 *   R(0, 0) = C(0, 0)
 *   R(i, j) = softmin_gamma( R(i-1, j) + w_down C(i, j),  R(i, j-1) + w_right C(i, j),  R(i-1, j-1) + w_diag C(i, j) )
 *   value   = R(n-1, m-1),   softmin_gamma(a) = -gamma log sum_k exp(-a_k / gamma)
 *   H       = d value / d C, which for unit weights is E, the expected alignment
 *
 * Cuturi and Blondel 2017; step weights: Zeitler, Krause and Mueller 2024. A cell of cost +inf is blocked; where no path
 * is left the value is +inf and gradients are 0. A NaN (or -inf) cost makes value and gradients of its item NaN. Costs may
 * be negative, down to -2^50 gamma.
 * Item b uses rows [0, x_lengths[b]) and columns [0, y_lengths[b]); the rest is never read, its gradient is 0. */
typedef struct {
  int64_t batch, n, m;
  const int64_t *x_lengths, *y_lengths; /* (batch,) in [1, n], [1, m]; NULL: all full */
  double gamma;           /* > 0; in effect at least |value| 2^-48, below which doubles tell no paths apart */
  double step_weights[3]; /* down (1,0), right (0,1), diagonal (1,1); +inf blocks a step */
  double band; /* < 0: none; else at least .5: cells with |i (m-1) - j (n-1)| <= band max(n-1, m-1), item's lengths */

  /* The costs: a lattice, or features and a metric (then no lattice is stored: tiles come and go, and
   * DALIGN_GRADIENT keeps 4 MiB of them at most). */
  const void *cost; /* (batch, n, m), or NULL */
  dalign_metric metric;
  int64_t d;
  const void *x, *y; /* as in dalign_cost_args */

  /* Forward writes value (batch,) and, when state is not NULL, what backward needs: state_stride bytes an item, at least
   * dalign_softdtw_state_*(args), at an address that is a multiple of 8. Backward reads both; where only its own numbers
   * turn out to need the wide path it rewrites the item's state. */
  void *value;
  void *state;
  int64_t state_stride;

  /* Backward and gradient. grad_value (batch,), NULL: ones. Each result may be NULL. */
  const void *grad_value;
  void *grad_cost;       /* (batch, n, m) = grad_value H; only with a cost lattice */
  void *grad_x, *grad_y; /* (batch, n, d), (batch, m, d); only with features */
  double *mean_cost;     /* (batch,) <H, C>, from which d value / d gamma = (value - <H, C>) / gamma */
} dalign_softdtw_args;

/* Bytes of state an item needs for backward, which refuses to run without. Depends on n, m and band alone. */
size_t dalign_softdtw_state_f32(const dalign_softdtw_args *args);
size_t dalign_softdtw_state_f64(const dalign_softdtw_args *args);

/* DALIGN_GRADIENT is forward and backward at once, without state: value and the gradients that args names. Faster where
 * sequences are short, and a batch needs the memory of one item. */
typedef enum { DALIGN_FORWARD = 0, DALIGN_BACKWARD = 1, DALIGN_GRADIENT = 2 } dalign_pass;

/* Bytes of workspace: what one problem needs once (shared) and what each thread that works on it needs (worker).
 * The functions below that run one pass need shared + worker. */
size_t dalign_softdtw_shared_f32(const dalign_softdtw_args *args, dalign_pass pass);
size_t dalign_softdtw_shared_f64(const dalign_softdtw_args *args, dalign_pass pass);
size_t dalign_softdtw_worker_f32(const dalign_softdtw_args *args);
size_t dalign_softdtw_worker_f64(const dalign_softdtw_args *args);

/* One thread, problems [begin, end). */
dalign_status dalign_softdtw_forward_f32(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_forward_f64(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_backward_f32(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_backward_f64(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_gradient_f32(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_gradient_f64(const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace);

/* Several threads on one problem, a pipeline over groups of rows: one thread opens, any number of threads call work with
 * the same shared and a worker memory of their own (none waits for a thread that has not come), one thread closes.
 * When close answers DALIGN_AGAIN, work and close once more; when it answers DALIGN_RETRY, do all three again with the
 * same shared memory and retry = 1. Bits do not depend on the number of threads. */
dalign_status dalign_softdtw_open_f32(const dalign_softdtw_args *args, dalign_pass pass, int64_t item, int retry,
                                      void *shared);
dalign_status dalign_softdtw_open_f64(const dalign_softdtw_args *args, dalign_pass pass, int64_t item, int retry,
                                      void *shared);
void dalign_softdtw_work_f32(void *shared, void *worker);
void dalign_softdtw_work_f64(void *shared, void *worker);
dalign_status dalign_softdtw_close_f32(void *shared);
dalign_status dalign_softdtw_close_f64(void *shared);

/* Hessian product: product (batch, n, m) = sum_kl d^2 value / d C(i, j) d C(k, l) tangent(k, l), from a cost lattice.
 * Cells of tangent that no path can reach are not looked at. */
size_t dalign_softdtw_hvp_workspace_f32(const dalign_softdtw_args *args);
size_t dalign_softdtw_hvp_workspace_f64(const dalign_softdtw_args *args);
dalign_status dalign_softdtw_hvp_f32(const dalign_softdtw_args *args, const float *tangent, float *product,
                                     int64_t begin, int64_t end, void *workspace);
dalign_status dalign_softdtw_hvp_f64(const dalign_softdtw_args *args, const double *tangent, double *product,
                                     int64_t begin, int64_t end, void *workspace);

/* ---------------------------------------------------------------- dtw: single steps, hard minimum
 *
 *   R(i, j) = min_k R(i - step_x[k], j - step_y[k]) + step_weights[k] C(i, j),   R(0, 0) = C(0, 0)
 *   value   = R(n-1, m-1)
 *
 * With free_start every cell (0, j) starts a path at its own cost, with free_end every cell (n-1, j) may end one: x is
 * looked for inside y. A cell of cost +inf is blocked; where no path is left value is +inf and the path's length 0. A NaN
 * (or -inf) cost makes the item's value NaN. */
enum { DALIGN_DTW_STEPS = 16, DALIGN_DTW_REACH = 4 }; /* at most that many steps, each going at most that far */
/* Batches of features of at most so many numbers a frame and cells an item (n m) go several items at once. */
enum { DALIGN_DTW_LANES_D = 8, DALIGN_DTW_LANES_CELLS = 1 << 17 };
typedef struct {
  int64_t batch, n, m;
  const int64_t *x_lengths, *y_lengths; /* of the sequences of x and y; NULL: all full */
  const int64_t *x_items, *y_items;     /* (batch,) which sequences an item aligns; NULL: its own number */
  int steps;
  const int64_t *step_x, *step_y; /* (steps,) >= 0, not both 0 */
  const double *step_weights;     /* (steps,) >= 0 */
  double band;                    /* as in dalign_softdtw_args */
  double itakura; /* 0: none; else at least 1: the largest slope of lines from both corners, see lattice_tile.h */
  int free_start, free_end;
  double limit; /* paths above it are not looked for: value +inf. Costs must then be >= 0. INFINITY: none */

  const void *cost; /* (batch, n, m), or NULL: features, as in dalign_softdtw_args */
  dalign_metric metric;
  int64_t d;
  const void *x, *y;

  void *value;          /* (batch,) */
  int64_t *path;        /* (batch, n + m - 1, 2) cells (i, j) from start to end, then -1; NULL: value alone */
  int64_t *path_length; /* (batch,) */
} dalign_dtw_args;

/* As for softdtw: workspace of one item and of each thread that works on it; all items of a range on one thread; and one
 * item on several threads by open, work, close. Equal bits for any number of threads, and for any ranges; but small items
 * (DALIGN_DTW_LANES_CELLS) of a batch of floats may be rounded otherwise than one that was opened. */
size_t dalign_dtw_shared_f32(const dalign_dtw_args *args);
size_t dalign_dtw_shared_f64(const dalign_dtw_args *args);
size_t dalign_dtw_worker_f32(const dalign_dtw_args *args);
size_t dalign_dtw_worker_f64(const dalign_dtw_args *args);
dalign_status dalign_dtw_f32(const dalign_dtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_dtw_f64(const dalign_dtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_dtw_open_f32(const dalign_dtw_args *args, int64_t item, void *shared);
dalign_status dalign_dtw_open_f64(const dalign_dtw_args *args, int64_t item, void *shared);
void dalign_dtw_work_f32(void *shared, void *worker);
void dalign_dtw_work_f64(void *shared, void *worker);
void dalign_dtw_close_f32(void *shared);
void dalign_dtw_close_f64(void *shared);

/* ---------------------------------------------------------------- ddtw: any steps, weights, ends and operator
 *
 *   f_s(i, j) = D(i - step_x[s], j - step_y[s]) + W_s(i, j) C(i, j)   for each step s
 *   f_0(i, j) = C(i, j) + start(i, j)                                 where a path may start
 *   D(i, j)   = mu(f(i, j)),   value = mu({ D(i, j) + end(i, j) })    over the cells where a path may end
 *
 * (Zeitler and Mueller 2026, Algorithms 1 and 2.) mu leaves out what is +inf. Its gradient p(q), with g = gamma:
 *   softmin     -g log sum exp(-q / g)                       p = softmax(-q / g)
 *   smoothmin   <a, q> with a = softmax(-q / g)              p = a (1 - (q - value) / g)
 *   sparsemin   min over the simplex of <p, q> + g/2 |p|^2 - g/2, p the projection of -q / g on the simplex
 *   hardmin     the first least one in the order of the steps, the start behind them; p = 1 there
 * A cell of cost +inf is blocked, as is a step of weight +inf into its cell. Where no path is left value is +inf and
 * gradients are 0. A NaN (or -inf) cost makes value and gradients of its item NaN. */
typedef enum { DALIGN_SOFTMIN = 0, DALIGN_SPARSEMIN = 1, DALIGN_SMOOTHMIN = 2, DALIGN_HARDMIN = 3 } dalign_smoothing;
enum { DALIGN_DDTW_STEPS = 32 };

/* Where paths may start: cells (i, 0) with i < along_x and (0, j) with j < along_y, at no cost: 1 and 1 is the corner.
 * Where they may end: the same, counted back from the item's last cell. Or costs (batch or 1, n, m), +inf where not. */
typedef struct {
  int64_t along_x, along_y;
  const void *cost;
  int64_t stride; /* elements from item to item, 0 when all share one */
} dalign_ends;

typedef struct {
  int64_t batch, n, m;
  const int64_t *x_lengths, *y_lengths; /* as in dalign_softdtw_args */
  int steps;
  const int64_t *step_x, *step_y; /* (steps,) >= 0, not both 0 */
  const void
      *weights; /* >= 0; element of (b, i, j, s) by strides, which are 0 along what is not told apart; NULL: ones */
  int64_t weight_strides[4];
  dalign_smoothing smoothing;
  double gamma; /* > 0; hardmin has none */
  dalign_ends start, end;
  const void *cost; /* (batch, n, m) */

  void *value;            /* (batch,) */
  const void *grad_value; /* (batch,), NULL: ones. Factor of all that follows */
  /* Derivatives of value; each may be NULL. To those of weights and ends, laid out as these, what items give
   * is added, so the caller clears them, and gives items that share an element to one thread. */
  void *grad_cost;
  void *grad_weights, *grad_start, *grad_end;
  double
      *mean_cost; /* (batch,) sum of every cost, of cells and of ends, times its derivative: (value - mean_cost) / gamma
                        is d value / d gamma */
  int64_t *path;  /* hardmin: (batch, n + m - 1, 2) cells from start to end, then -1; NULL: not wanted */
  int64_t *path_length;
} dalign_ddtw_args;

/* Bytes that one thread needs; problems [begin, end). */
size_t dalign_ddtw_workspace_f32(const dalign_ddtw_args *args);
size_t dalign_ddtw_workspace_f64(const dalign_ddtw_args *args);
dalign_status dalign_ddtw_f32(const dalign_ddtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_ddtw_f64(const dalign_ddtw_args *args, int64_t begin, int64_t end, void *workspace);

/* Softmin alone: the derivative, along a direction in costs, weights and ends, of the gradients with respect to them. The
 * direction has the layout of what it belongs to; NULL is zero. The results are the gradients of args. */
typedef struct {
  const void *cost, *weights, *start, *end;
  double *slope; /* (batch,) result: derivative of value along the direction, without grad_value */
} dalign_ddtw_direction;
size_t dalign_ddtw_hvp_workspace_f32(const dalign_ddtw_args *args);
size_t dalign_ddtw_hvp_workspace_f64(const dalign_ddtw_args *args);
dalign_status dalign_ddtw_hvp_f32(const dalign_ddtw_args *args, const dalign_ddtw_direction *direction, int64_t begin,
                                  int64_t end, void *workspace);
dalign_status dalign_ddtw_hvp_f64(const dalign_ddtw_args *args, const dalign_ddtw_direction *direction, int64_t begin,
                                  int64_t end, void *workspace);

/* ---------------------------------------------------------------- decode: labellings from CTC log-probabilities
 *
 * log_probs (frames, batch, classes), one class the blank. A path has one class in each frame; without repetitions, then
 * without blanks, it is a labelling, whose probability is that of all its paths (Graves et al. 2006). A NaN or +inf in
 * an item's frames makes its result one empty labelling with NaN; -inf is a class of probability 0, and where that leaves
 * no path at all the result is one empty labelling with -inf. No frames: the empty labelling with probability 1. */
typedef struct {
  int64_t frames, batch, classes;
  const void *log_probs;
  const int64_t *input_lengths; /* (batch,) in [0, frames]; NULL: all full */
  int64_t blank;
} dalign_emissions;

/* The labelling of the most probable path. Of equal classes in a frame the first is taken. */
typedef struct {
  dalign_emissions emissions;
  int64_t *labels; /* (batch, frames), then -1 */
  int64_t *spans;  /* (batch, frames, 2): a label's frames [first, end), then -1 */
  int64_t *length; /* (batch,) labels found */
  double *score;   /* (batch,) log-probability of the path */
} dalign_greedy_args;

dalign_status dalign_decode_greedy_f32(const dalign_greedy_args *args, int64_t begin, int64_t end);
dalign_status dalign_decode_greedy_f64(const dalign_greedy_args *args, int64_t begin, int64_t end);

/* An interpolated n-gram model of labellings, a trie of n-grams, level by level, in each level by parent, then by label:
 *
 *   p(c | h) = share(hc) + backoff(h) p(c | h'),   p(c | nothing) = share(c) + backoff(root) / classes
 *
 * where h' is h without its oldest label, and an n-gram that was not seen has share 0 and backoff 1. Symbols are the
 * classes, the end (number classes) and the start (number classes + 1), which stands before each labelling and is never
 * predicted. Node 0 is the root; children of node k are the nodes [first[k], first[k + 1]), sorted by label. */
typedef struct {
  int64_t classes, nodes;
  int64_t contexts;              /* nodes [0, contexts) may be a history */
  const int64_t *first;          /* (nodes + 1,) */
  const int64_t *label;          /* (nodes,) last symbol */
  const int64_t *suffix;         /* (nodes,) the n-gram without its first symbol */
  const double *share, *backoff; /* (nodes,) */
} dalign_ngram;

/* DALIGN_BAD_ARGUMENT where a link leaves the arrays or a number is no share. Searches rely on a checked model. */
dalign_status dalign_ngram_check_f64(const dalign_ngram *model);

/* log_prob (length + 1,): of each label after those before it, then of the end. */
dalign_status dalign_ngram_log_probs_f64(const dalign_ngram *model, const int64_t *labels, int64_t length,
                                         double *log_prob);

/* Prefix beam search (Graves 2012; Hannun et al. 2014): after each frame the `width` prefixes l of the largest
 *
 *   score(l) = log p(l) + scorer_weight sum_k log scorer(l_k | l_1 .. l_{k-1}) + length_bonus |l|
 *
 * are kept, p(l) the probability of all paths so far that give l, of which only those through kept prefixes are known.
 * At the end the scorer's log-probability of the end is added. Equal scores: the order of the frame before, a prefix
 * before its extensions, these by label. */
typedef struct {
  dalign_emissions emissions;
  int64_t width;          /* at least 1 */
  int64_t top;            /* labellings given back, at least 1 */
  double token_threshold; /* classes this much below the frame's best extend no prefix; INFINITY: all do */
  double scorer_weight;   /* at least 0 */
  double length_bonus;
  const dalign_ngram *ngram; /* NULL: none */
  int asks;                  /* the scorer is the caller, who is asked by dalign_decode_beam_step */

  int64_t *labels;  /* (batch, top, frames), then -1 */
  int64_t *length;  /* (batch, top) */
  double *log_prob; /* (batch, top): log p(l) */
  double *score;    /* (batch, top), not increasing */
  int64_t *found;   /* (batch,) labellings found, in [1, top] */
} dalign_beam_args;

/* Bytes that one item's search needs. 0: a size is out of range. */
size_t dalign_decode_beam_state_f32(const dalign_beam_args *args);
size_t dalign_decode_beam_state_f64(const dalign_beam_args *args);

/* Searches without questions, items [begin, end), in one state's memory. */
dalign_status dalign_decode_beam_f32(const dalign_beam_args *args, int64_t begin, int64_t end, void *state);
dalign_status dalign_decode_beam_f64(const dalign_beam_args *args, int64_t begin, int64_t end, void *state);

/* The same in steps, for `asks`. open prepares; step goes on until it is done (DALIGN_OK, the item's results are
 * written) or needs the scorer (DALIGN_ASK): then questions tells what, and answer takes one log-probability <= 0 for
 * each before the next step. All calls get the same sizes and options, the same item, and the state where it was opened. */
typedef struct {
  int64_t count;
  const int32_t *row;   /* (count,) not decreasing: which prefix */
  const int32_t *label; /* (count,) its next label; classes: the end */
} dalign_questions;

dalign_status dalign_decode_beam_open_f32(const dalign_beam_args *args, void *state);
dalign_status dalign_decode_beam_open_f64(const dalign_beam_args *args, void *state);
dalign_status dalign_decode_beam_step_f32(const dalign_beam_args *args, int64_t item, void *state,
                                          dalign_questions *questions);
dalign_status dalign_decode_beam_step_f64(const dalign_beam_args *args, int64_t item, void *state,
                                          dalign_questions *questions);

dalign_status dalign_decode_beam_answer_f32(const dalign_beam_args *args, void *state, const double *answer,
                                            int64_t count);
dalign_status dalign_decode_beam_answer_f64(const dalign_beam_args *args, void *state, const double *answer,
                                            int64_t count);

/* The prefix of a question's row, at most `frames` labels, and its length. */
dalign_status dalign_decode_beam_prefix_f32(const dalign_beam_args *args, void *state, int64_t row, int64_t *labels,
                                            int64_t *length);
dalign_status dalign_decode_beam_prefix_f64(const dalign_beam_args *args, void *state, int64_t row, int64_t *labels,
                                            int64_t *length);

/* ---------------------------------------------------------------- ctc: labels with blanks between, a frame at each step
 *
 * The S labels of an item with a blank before, between and behind them are 2 S + 1 states. A path takes a state at each
 * frame: the state before again, the next one, or the one after next where that skips a blank between two different
 * labels. It begins in one of the first two states and ends in one of the last two.
 *
 *   value     = -log sum over paths of prod_t p(t, state's class)
 *   alignment = d value / d (-log p(t, state)), the probability that a path is in the state at frame t
 *
 * Graves et al. 2006. A log-probability of -inf blocks its class; an item without a path has value +inf and gradient 0. A NaN
 * (or +inf) among the classes that an item's states use, with logits among all its classes, makes value and gradient of the
 * item NaN. Item b uses frames [0, input_lengths[b]); the rest is never read, its gradient is 0. */
typedef struct {
  int64_t batch, frames, classes;
  int64_t item_stride, frame_stride; /* numbers from item to item and from frame to frame; classes are contiguous */
  const void *log_probs;             /* they need not add up to 1 */
  int from_logits;                   /* log_probs holds logits: p is their softmax */
  int64_t blank;                     /* class of the blank */
  const int64_t *input_lengths;      /* (batch,) in [0, frames] */
  const int64_t *labels;             /* item b has labels[label_begin[b] + k] for k in [0, label_lengths[b]) */
  const int64_t *label_begin, *label_lengths;

  void *value; /* (batch,) */

  /* Results of the same pass; each may be NULL. */
  void *grad; /* weights[b] d value / d log_probs, with strides of its own */
  int64_t grad_item_stride, grad_frame_stride;
  const void *weights; /* (batch,); NULL: ones */
  void *alignment;     /* (batch, frames, columns), columns >= 2 S + 1; 0 behind an item's states and frames */
  int64_t columns;
} dalign_ctc_args;

size_t dalign_ctc_workspace_f32(const dalign_ctc_args *args);
size_t dalign_ctc_workspace_f64(const dalign_ctc_args *args);
dalign_status dalign_ctc_f32(const dalign_ctc_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_ctc_f64(const dalign_ctc_args *args, int64_t begin, int64_t end, void *workspace);

/* Hessian product: product (batch, frames, classes) = d <tangent, alignment> / d log_probs, from log-probabilities. The
 * tangent is (batch, frames, classes), or (batch, frames, columns) with one number for each state if columns > 0. */
size_t dalign_ctc_hvp_workspace_f32(const dalign_ctc_args *args);
size_t dalign_ctc_hvp_workspace_f64(const dalign_ctc_args *args);
dalign_status dalign_ctc_hvp_f32(const dalign_ctc_args *args, const float *tangent, float *product, int64_t begin,
                                 int64_t end, void *workspace);
dalign_status dalign_ctc_hvp_f64(const dalign_ctc_args *args, const double *tangent, double *product, int64_t begin,
                                 int64_t end, void *workspace);

/* The most probable path, from log-probabilities. Of equally good ones, going back from the end, the path that stays longer in a
 * state. Item without a path: value +inf, -1 in states and spans, scores -inf. With a NaN: value and scores NaN. */
typedef struct {
  double *value;   /* (batch,) minus the log-probability of the path */
  int64_t *states; /* (batch, frames) state at each frame, -1 behind the item's frames */
  int64_t *spans;  /* (batch, labels, 2) frames [first, last) in which the path is in the label; -1 behind its labels */
  double *scores;  /* (batch, labels) mean log-probability of these frames; 0 behind its labels */
  int64_t labels;  /* at least the largest of label_lengths */
} dalign_ctc_path;
size_t dalign_ctc_align_workspace_f32(const dalign_ctc_args *args);
size_t dalign_ctc_align_workspace_f64(const dalign_ctc_args *args);
dalign_status dalign_ctc_align_f32(const dalign_ctc_args *args, const dalign_ctc_path *path, int64_t begin, int64_t end,
                                   void *workspace);
dalign_status dalign_ctc_align_f64(const dalign_ctc_args *args, const dalign_ctc_path *path, int64_t begin, int64_t end,
                                   void *workspace);

/* ---------------------------------------------------------------- dilate: path functionals
 *
 *   T = <Omega, H>,   H = d value / d C of a softmin lattice: with unit weights the mean over all paths of the sum of Omega
 *   along the path, the derivative of value along Omega
 *
 * (the temporal term of DILATE, Le Guen and Thome 2019). From features and with a formula for Omega nothing of size n m is
 * stored. Gradients are those of grad_value value + grad_functional T. gamma is in effect at least what doubles need to tell
 * paths apart, as for softdtw. */
typedef enum {
  DALIGN_PENALTY_SQUARED = 0,  /* (i - j)^2 */
  DALIGN_PENALTY_ABSOLUTE = 1, /* |i - j| */
  DALIGN_PENALTY_RELATIVE = 2, /* (i / n - j / m)^2 with the item's own lengths */
  DALIGN_PENALTY_GIVEN = 3
} dalign_penalty;

typedef struct {
  dalign_ddtw_args lattice; /* softmin; cost NULL: features. No grad_weights, grad_start, grad_end, path */
  double band;              /* as in dalign_softdtw_args */
  dalign_metric metric;
  int64_t d;
  const void *x, *y;
  dalign_penalty penalty;
  const void *omega;           /* DALIGN_PENALTY_GIVEN: (batch, n, m), or (n, m) with stride 0 */
  int64_t omega_stride;        /* elements from item to item */
  void *functional;            /* (batch,) T; 0 where no path is left */
  const void *grad_functional; /* (batch,), NULL: ones */
  void *grad_x, *grad_y;       /* (batch, n, d), (batch, m, d) */
  void *grad_omega;            /* (batch, n, m) */
} dalign_dilate_args;

size_t dalign_dilate_workspace_f32(const dalign_dilate_args *args);
size_t dalign_dilate_workspace_f64(const dalign_dilate_args *args);
dalign_status dalign_dilate_f32(const dalign_dilate_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_dilate_f64(const dalign_dilate_args *args, int64_t begin, int64_t end, void *workspace);

/* ---------------------------------------------------------------- gdtw: time warping in continuous time (DecDTW)
 *
 *   minimise over phi   F(phi) = sum_i w_i L(x_i - y(phi_i)) + sum_i lambda_i dt_i R((phi_{i+1} - phi_i) / dt_i - s0)
 *   subject to          slope_min_i dt_i <= phi_{i+1} - phi_i <= slope_max_i dt_i
 *                       band_min_i <= phi_i <= band_max_i,   first <= phi_i <= last time of y
 *
 * x_i are the frames of x, the knots, at times t_0 < .. < t_{n-1}; dt_i = t_{i+1} - t_i, w_i the weights of the trapezoidal
 * rule (1 for a single knot). y(.) interpolates y's frames linearly between its times; of a single frame it is constant and
 * phi its time. L(e) = sum_d l(e_d). Xu, Garg, Milford and Gould 2023, equations 4 to 6; csrc/gdtw.c tells how it is solved.
 *
 * All numbers but the features are double, so float features have the same warp as their exact values in double.
 * An item's result is a local minimum that satisfies the conditions of Karush, Kuhn and Tucker up to rounding; the quality
 * says how much work goes into finding the global one. Gradients are those of phi by the implicit function theorem. Where
 * constraints are degenerate (counts) they are those of one side. */
typedef enum {
  DALIGN_GDTW_SQUARES = 0, /* e^2 */
  DALIGN_GDTW_POWER =
      1, /* |e|^p, p > 1: p = 1 has kinks inside of y's segments, which the solver does not know; take Huber */
  DALIGN_GDTW_HUBER = 2 /* e^2 if |e| <= p, else 2 p |e| - p^2, p > 0 */
} dalign_gdtw_penalty;
typedef enum { DALIGN_GDTW_FAST = 0, DALIGN_GDTW_DEFAULT = 1, DALIGN_GDTW_THOROUGH = 2 } dalign_gdtw_quality;

typedef enum {
  DALIGN_GDTW_OPTIMAL = 0,
  DALIGN_GDTW_INFEASIBLE = 1,    /* no warp meets all constraints: phi NaN, objective +inf, gradients 0 */
  DALIGN_GDTW_NOT_CONVERGED = 2, /* phi is feasible, the objective its F; gradients 0 */
  DALIGN_GDTW_INVALID =
      3 /* a NaN; infinite features, times, s0 or lambda; times that do not grow; lambda < 0. All NaN */
} dalign_gdtw_status;

/* Forward counts for each item, in this order: */
enum {
  DALIGN_GDTW_DEGENERATE = 0, /* superfluous pins: knots held in a group of tied knots that another pin holds already */
  DALIGN_GDTW_SINGULAR = 1,   /* directions in which F is flat: phi does not move along them in the gradient */
  DALIGN_GDTW_WEAK = 2,       /* active constraints without force: derivatives differ from side to side */
  DALIGN_GDTW_STEPS = 3,      /* Newton steps */
  DALIGN_GDTW_COUNTS = 4
};

/* A number for each knot or edge: of item b, number i it is at[b * item + i * step]. at NULL: not given. */
typedef struct {
  const double *at;
  int64_t item, step;
} dalign_series;

typedef struct {
  int64_t batch, n, m, d;               /* n, m <= DALIGN_GDTW_LONGEST */
  const void *x, *y;                    /* (batch, n, d), (batch, m, d) */
  const int64_t *x_lengths, *y_lengths; /* (batch,) in [1, n], [1, m]; NULL: all full */
  dalign_series x_times, y_times;       /* growing; not given: uniform on [0, 1] by the item's own length */
  dalign_series reg_weight;             /* lambda >= 0 of n - 1 edges; must be given */
  /* s0 of the item. Not given: y's duration / x's where both ends are fixed; else 1 with times of x or y, and without one
   * frame of y for each of x, (n - 1) / (m - 1) with the item's own lengths (0 for m = 1). */
  dalign_series nominal_slope;
  dalign_series slope_min, slope_max; /* of n - 1 edges, may be infinite; not given: 0, +inf */
  dalign_series band_min, band_max;   /* of n knots, in y's time, may be infinite; not given: none */
  int fixed_start, fixed_end;         /* whether phi begins at y's first time, ends at its last */
  dalign_gdtw_penalty loss, regularizer;
  double loss_parameter, regularizer_parameter; /* p */
  dalign_gdtw_quality quality;

  /* Written by forward, read by backward (with all of the above unchanged). */
  double *phi;       /* (batch, n), behind the item's knots its last number */
  double *objective; /* (batch,) F */
  int32_t *status;   /* (batch,) dalign_gdtw_status */
  int32_t *state;    /* (batch, n, 3) segment of y, pin, tie to the next knot */
  int64_t
      *blocked; /* (batch,) the first knot that no warp reaches of an infeasible item, else -1; NULL: not asked for */
  int64_t *counts; /* (batch, DALIGN_GDTW_COUNTS); NULL: not asked for */

  /* Backward: results (batch, ..) for each item, even where items share an input. Each may be NULL. */
  const double *grad_phi;                  /* (batch, n), NULL: zeros. Not looked at behind the item's knots */
  const double *grad_objective;            /* (batch,), NULL: zeros */
  void *grad_x, *grad_y;                   /* (batch, n, d), (batch, m, d) of the features' type */
  double *grad_x_times, *grad_y_times;     /* (batch, n), (batch, m): also through s0 where it is not given */
  double *grad_reg_weight;                 /* (batch, n - 1), as the next two */
  double *grad_slope_min, *grad_slope_max; /* where smin = smax: to the one that the force is against */
  double *grad_nominal_slope;              /* (batch,), 0 where s0 is not given */
  double *grad_band_min, *grad_band_max; /* (batch, n), 0 where y's ends bind instead; half each where they are equal */
} dalign_gdtw_args;
enum { DALIGN_GDTW_LONGEST = 1 << 20 };

/* Bytes that one call (one thread) of the functions below needs. */
size_t dalign_gdtw_workspace_f32(const dalign_gdtw_args *args);
size_t dalign_gdtw_workspace_f64(const dalign_gdtw_args *args);
size_t dalign_gdtw_backward_workspace_f32(const dalign_gdtw_args *args);
size_t dalign_gdtw_backward_workspace_f64(const dalign_gdtw_args *args);

/* Problems [begin, end). Equal bits for any ranges. */
dalign_status dalign_gdtw_f32(const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_gdtw_f64(const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_gdtw_backward_f32(const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_gdtw_backward_f64(const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace);

/* ---------------------------------------------------------------- tap: a learned alignment
 *
 *   D_ij = |x_i - y_j|,   Dt_ij = |i/n - j/m|   (i, j from 1; n, m the pair's own lengths)
 *   g    = convolutions of the maps (D, Dt), each layer but the last followed by relu, the last one by last_relu
 *   A_i  = softmax over j of -(energy_scale E_ij + g_ij + position_scale Dt_ij),   T = A / n,   value = sum_ij T_ij D_ij
 *
 * Su and Wen 2022. Convolutions are torch's (no kernel turned around), padded with zeros to the size of the pair's map. E is D
 * with energy_scale 1 and position_scale 0 for the convolutional head; without layers and with E the distance of projected
 * frames it is the head called TAP-trans. A frame equal to another gets gradient 0 from it. A NaN in a pair makes its value
 * NaN. Gradients of frames are per pair, also where pairs share a sequence. */
enum { DALIGN_TAP_LAYERS = 8, DALIGN_TAP_KERNEL = 15, DALIGN_TAP_CHANNELS = 1024, DALIGN_TAP_LONGEST = 1 << 16 };

typedef struct {
  int64_t kernel;                /* odd, at most DALIGN_TAP_KERNEL */
  int64_t channels;              /* outputs; of the last layer 1 */
  const void *weight, *bias;     /* (channels, channels of the layer before or 2, kernel, kernel), (channels,) */
  void *grad_weight, *grad_bias; /* results of dalign_tap_reduce; NULL: not wanted */
} dalign_tap_layer;

typedef struct {
  int64_t pairs, x_count, y_count, n, m, d;
  const void *x, *y;                    /* (x_count, n, d), (y_count, m, d) */
  const int64_t *x_lengths, *y_lengths; /* (x_count,), (y_count,); NULL: all full */
  const int64_t *x_of, *y_of;           /* (pairs,) whose pair it is; NULL: pair p has x[p], y[p] */
  int64_t energy_d;                     /* 0: E is D */
  const void *energy_x, *energy_y;      /* (x_count, n, energy_d), (y_count, m, energy_d): E is their distance */
  double energy_scale, position_scale;
  int layers; /* 0, or at least 2 */
  const dalign_tap_layer *layer;
  int last_relu;
  int precise;    /* no convolution by values at points: float sums with errors of 1e-7 instead of 2e-6 */
  void *prepared; /* weights as dalign_tap_prepare leaves them there; not looked at without layers */
  void *state;    /* what backward need not compute once more, placed by dalign_tap_state; NULL: nothing is kept */
  const int64_t *state_at; /* (pairs,) */

  /* Results; each may be NULL. Behind the lengths they are zero. */
  void *value;     /* (pairs,) */
  void *alignment; /* (pairs, n, m) A */
  void *transport; /* (pairs, n, m) T */

  /* Backward. A pair without an upstream gradient costs nothing. */
  const void *grad_value;                      /* (pairs,), NULL: zeros */
  const void *grad_alignment, *grad_transport; /* (pairs, n, m), NULL: zeros. Not looked at behind the lengths */
  void *grad_x, *grad_y;                       /* (pairs, n, d), (pairs, m, d) */
  void *grad_energy_x, *grad_energy_y;         /* (pairs, n, energy_d), (pairs, m, energy_d) */
  double *partials;                            /* (groups, parameters) written by backward, read by reduce */
} dalign_tap_args;

/* Bytes of args->prepared; writes it, before any of the functions below. */
size_t dalign_tap_prepared_f32(const dalign_tap_args *args);
size_t dalign_tap_prepared_f64(const dalign_tap_args *args);
dalign_status dalign_tap_prepare_f32(const dalign_tap_args *args);
dalign_status dalign_tap_prepare_f64(const dalign_tap_args *args);

/* Bytes of args->state, not more than budget; at (pairs,): where each pair's part is, -1 for those that do not fit in. */
size_t dalign_tap_state_f32(const dalign_tap_args *args, size_t budget, int64_t *at);
size_t dalign_tap_state_f64(const dalign_tap_args *args, size_t budget, int64_t *at);

/* Pairs [begin, end). Equal bits for any ranges. */
size_t dalign_tap_workspace_f32(const dalign_tap_args *args);
size_t dalign_tap_workspace_f64(const dalign_tap_args *args);
dalign_status dalign_tap_f32(const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_tap_f64(const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace);

/* Groups [begin, end) of pairs, and how many there are; then, once all are done, the sums over them. */
int64_t dalign_tap_groups_f32(const dalign_tap_args *args);
int64_t dalign_tap_groups_f64(const dalign_tap_args *args);
int64_t dalign_tap_parameters_f32(const dalign_tap_args *args);
int64_t dalign_tap_parameters_f64(const dalign_tap_args *args);
size_t dalign_tap_backward_workspace_f32(const dalign_tap_args *args);
size_t dalign_tap_backward_workspace_f64(const dalign_tap_args *args);
dalign_status dalign_tap_backward_f32(const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_tap_backward_f64(const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace);
dalign_status dalign_tap_reduce_f32(const dalign_tap_args *args);
dalign_status dalign_tap_reduce_f64(const dalign_tap_args *args);

#ifdef __cplusplus
}
#endif
#endif
