/* ctc.c: connectionist temporal classification: value, gradient and alignment in one pass, Hessian product, best path.
 *
 * With p(t, k) the probability of label k at frame t and p(t, _) that of the blank, a label k has the state label(k) and
 * the blank before it the state blank(k). The sums over paths that end (A) in a state or go on (B) from it are
 *
 *   A(t, blank k) = (A(t-1, blank k) + A(t-1, label k-1)) p(t, _)
 *   A(t, label k) = (A(t-1, label k) + A(t-1, blank k) + A(t-1, label k-1) [y_k != y_(k-1)]) p(t, k)
 *   B(t, blank k) = q(blank k) + q(label k),   B(t, label k) = q(label k) + q(blank k+1) + q(label k+1) [y_k+1 != y_k]
 *                   with q(s) = B(t+1, s) p(t+1, s)
 *   E(t, s) = A(t, s) B(t, s) / Z,   value = -log Z,   d value / d log p(t, c) = -sum of E(t, s) over the states of class c
 *
 * (Graves et al. 2006; A starts from a state label(-1) = 1 before frame 0, B from blank(S) = 1 behind the last.) Blanks
 * and labels are two arrays, so that every lane of a vector does the same, and nothing within a row waits for anything.
 *
 * Numbers. Every A and B is m 2^e per lane, as in softdtw.c: states of a row may differ by more than any float. Exponents
 * count from a base (a double) that each block of frames chooses anew. Emissions are divided by the largest of their frame
 * among the item's classes, whose sum of logarithms a double keeps: where a network is sure, factors are exactly 1, and long
 * confident sequences lose nothing. E of a frame is divided by its sum, which is 1 but for rounding. Where exponents leave the range in
 * which floats count (EXPONENT_RANGE, CELL_RANGE), or the value is so small that rounding would show, the float kernel
 * gives the item to the double kernel ("wide").
 *
 * Order. Frames go in blocks of BLOCK. A block's emissions are computed once for each distinct label, (label, frame), and
 * turned in registers into rows over positions, (frame, position); masses E go the opposite way, and are added per label in the
 * order of positions. Only groups of LANES positions are computed that some path can reach from the start and leave for
 * the end within the block.
 *
 * Memory. A forward sweep keeps every keep-th block's first row and the last keep blocks whole, as many as fit a cache
 * (DALIGN_CTC_KEEP_BYTES); the backward sweep computes keep blocks at a time again.
 *
 * Logits. One sweep over the frames writes the softmax where the gradient goes, and picks the logits of the item's labels
 * less the largest of their frame; E is subtracted afterwards. The lattice needs no log-softmax: the logarithms of its sums are
 * added to the value, in double.
 *
 * Time (AVX-512, float): about 140 vector instructions for 16 labels, 16 blanks and a frame, value and gradient.
 * Compiled once per ISA level (DALIGN_ISA), each time for float and double.
 */
#include "dalign.h"
#include "simd/flush.h"
#include "simd/names.h"

/* Blocks that stay from forward to backward. Tests make it small, to compute blocks again in short sequences. */
#ifndef DALIGN_CTC_KEEP_BYTES
#define DALIGN_CTC_KEEP_BYTES (512 << 10)
#endif

/* Rows between blocks; beyond that, more blocks stay. Tests make it small. */
#ifndef DALIGN_CTC_ROWS_BYTES
#define DALIGN_CTC_ROWS_BYTES (32 << 20)
#endif

/* The double kernel on float arrays (see "wide"). */
static size_t DALIGN_NAME(ctc_bytes_, f64)(const dalign_ctc_args *args);
static dalign_status DALIGN_NAME(ctc_item_, f64)(const dalign_ctc_args *args, int64_t item, int given_f32,
                                                 void *workspace);

#define DALIGN_F32 1
#include "simd/real.h"
#include "ctc_body.h"
#undef DALIGN_F32
#define DALIGN_F32 0
#include "simd/real.h"
#include "ctc_body.h"
