/* tap.c: a learned alignment of two sequences, the temporal alignment prediction of Su and Wen, "Temporal Alignment
 * Prediction for Supervised Representation Learning and Few-Shot Sequence Classification", 2022.
 *
 *   D_ij = |x_i - y_j|,  Dt_ij = |i/n - j/m|,   g = convolutions of the two maps,   A_i = softmax over j of -(D + g)_ij
 *   T = A / n,   value = <T, D>
 *
 * Forward. Distances; layer by layer with channels in the lanes, the first one directly, those of 5 x 5 taps between many
 * channels by values at points (Winograd; tap_winograd.h), which is where a quarter of the work is; the last layer, of one
 * output, with taps in the lanes; rows. In double, or where precision is asked for, all convolutions are direct.
 *
 * Backward. The way back through the same layers. Planes of a pair and maps behind the second layer are kept where the
 * caller has room, else computed once more; the first layer's map, much cheaper, always is. Weights' gradients are summed by
 * groups of pairs, in double, and the groups' sums in their order, so bits do not depend on threads.
 *
 * Every pair has its own grid, of whole tiles of 4 x 4 pixels in a frame of zeros: no work for padding of a batch. Short
 * pairs share blocks of tiles.
 *
 * Cost of a cell with 30 channels: 48 540 FLOP directly, about 14 000 by points, three times as much with gradients. Memory: of a
 * cell kept 4 numbers and a map's channels; of a worker that of the longest pair with two, and back with four maps. */
#include "dalign.h"
#include "memory.h"
#include "simd/flush.h"
#include "simd/names.h"

#include <math.h>
#include <string.h>

#include "tap_plan.h"

#define DALIGN_F32 0
#include "simd/real.h"
#include "tap_body.h"
#undef DALIGN_F32
#define DALIGN_F32 1
#include "simd/real.h"
#include "tap_body.h"

/* ------------------------------------------------------------------------------------------------ public functions */

static int64_t tap_groups(const dalign_tap_args *a) {
  const tap_plan p = tap_plan_of(a, 0);
  return tap_count_groups(&p);
}

static int64_t tap_parameters(const dalign_tap_args *a) { return tap_plan_of(a, 0).parameters; }

#define TAP_PUBLIC(type)                                                                                               \
  size_t DALIGN_NAME(dalign_tap_prepared, type)(const dalign_tap_args *args) {                                         \
    return tap_has_size(args) ? DALIGN_NAME(prepared_bytes_, type)(args) : 0;                                          \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_tap_prepare, type)(const dalign_tap_args *args) {                                   \
    if (!tap_has_size(args) || (args->layers && !args->prepared)) return DALIGN_BAD_ARGUMENT;                          \
    DALIGN_NAME(prepare_, type)(args);                                                                                 \
    return DALIGN_OK;                                                                                                  \
  }                                                                                                                    \
  size_t DALIGN_NAME(dalign_tap_state, type)(const dalign_tap_args *args, size_t budget, int64_t *at) {                \
    return tap_is_sound(args) ? DALIGN_NAME(place_state_, type)(args, budget, at) : 0;                                 \
  }                                                                                                                    \
  size_t DALIGN_NAME(dalign_tap_workspace, type)(const dalign_tap_args *args) {                                        \
    return tap_has_size(args) ? DALIGN_NAME(worker_bytes_, type)(args, 0) : 0;                                         \
  }                                                                                                                    \
  size_t DALIGN_NAME(dalign_tap_backward_workspace, type)(const dalign_tap_args *args) {                               \
    return tap_has_size(args) ? DALIGN_NAME(worker_bytes_, type)(args, 1) : 0;                                         \
  }                                                                                                                    \
  int64_t DALIGN_NAME(dalign_tap_groups, type)(const dalign_tap_args *args) {                                          \
    return tap_is_sound(args) ? tap_groups(args) : 0;                                                                  \
  }                                                                                                                    \
  int64_t DALIGN_NAME(dalign_tap_parameters, type)(const dalign_tap_args *args) {                                      \
    return tap_has_size(args) ? tap_parameters(args) : 0;                                                              \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_tap, type)(const dalign_tap_args *args, int64_t begin, int64_t end, void *memory) { \
    const dalign_status status = tap_check(args);                                                                      \
    if (status != DALIGN_OK) return status;                                                                            \
    const unsigned before = dalign_flush_begin();                                                                      \
    DALIGN_NAME(run_pairs_, type)(args, begin, end, memory);                                                           \
    dalign_flush_end(before);                                                                                          \
    return DALIGN_OK;                                                                                                  \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_tap_backward, type)(const dalign_tap_args *args, int64_t begin, int64_t end,        \
                                                       void *memory) {                                                 \
    const dalign_status status = tap_check_back(args);                                                                 \
    if (status != DALIGN_OK) return status;                                                                            \
    const unsigned before = dalign_flush_begin();                                                                      \
    DALIGN_NAME(run_groups_, type)(args, begin, end, memory);                                                          \
    dalign_flush_end(before);                                                                                          \
    return DALIGN_OK;                                                                                                  \
  }                                                                                                                    \
  dalign_status DALIGN_NAME(dalign_tap_reduce, type)(const dalign_tap_args *args) {                                    \
    const dalign_status status = tap_check_back(args);                                                                 \
    if (status == DALIGN_OK) DALIGN_NAME(reduce_, type)(args);                                                         \
    return status;                                                                                                     \
  }
TAP_PUBLIC(f32)
TAP_PUBLIC(f64)
