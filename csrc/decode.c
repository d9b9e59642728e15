/* decode.c: labellings from CTC log-probabilities: best path, and prefix beam search with a scorer.
 *
 * Prefix beam search (Graves 2012, section 7.5; Hannun et al. 2014). Of each kept prefix l two numbers are known, the
 * probabilities of all paths so far that give l and end in a blank, b(l), or in its last label, e(l). With the
 * probabilities y of the next frame and last the last label of l, its parent l- without that label:
 *
 *   b'(l) = (b(l) + e(l)) y_blank
 *   e'(l) = e(l) y_last + (last = last of l- ? b(l-) : b(l-) + e(l-)) y_last
 *
 * The second term stands where l- is kept; a prefix lc that is not kept yet has this term alone. So nothing needs to be
 * merged: kept prefixes are updated first, and each extension that is no kept prefix is a candidate of its own. All
 * in logarithms and doubles.
 *
 * Which extensions. Tokens of a frame are tried in falling order, and a scorer's logarithms are never positive, so that
 * the first extension of a prefix that cannot reach the `width` best ends its turn, exactly. A scorer is asked only for
 * what could be kept, once for each prefix and label while the prefix is kept.
 *
 * Prefixes are nodes of a trie. A node lives while it or a descendant is kept, so that a prefix which falls out and comes
 * back meets its own extensions again.
 *
 * Cost: a frame takes some 100 ns for each kept prefix, and one look at each class. Memory: 48 bytes for each kept
 * prefix and frame at most, touched as far as prefixes differ.
 */
#include "dalign.h"
#include "memory.h"
#include "simd/names.h"

#include <math.h>

#include "decode_ngram.h"
#include "decode_beam.h"

#define DALIGN_F32 1
#include "simd/real.h"
#include "decode_body.h"
#undef DALIGN_F32
#define DALIGN_F32 0
#include "simd/real.h"
#include "decode_body.h"

dalign_status DALIGN_NAME(dalign_ngram_check, f64)(const dalign_ngram *model) {
  return ngram_is_sound(model) ? DALIGN_OK : DALIGN_BAD_ARGUMENT;
}

dalign_status DALIGN_NAME(dalign_ngram_log_probs, f64)(const dalign_ngram *model, const int64_t *labels, int64_t length,
                                                       double *log_prob) {
  int64_t history = ngram_start(model);
  for (int64_t k = 0; k < length; k++) {
    if (labels[k] < 0 || labels[k] >= model->classes) return DALIGN_BAD_ARGUMENT;
    log_prob[k] = ngram_log_prob(model, history, labels[k]);
    history = ngram_next(model, history, labels[k]);
  }
  log_prob[length] = ngram_log_prob(model, history, model->classes);
  return DALIGN_OK;
}
