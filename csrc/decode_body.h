/* Body of decode.c for one element type: reading frames. */

static const REAL *FN(frame_of)(const dalign_emissions *e, int64_t item, int64_t t) {
  return (const REAL *)e->log_probs + (t * e->batch + item) * e->classes;
}

/* The item's frames, or -1 when that is no length. */
static int64_t FN(frames_of)(const dalign_emissions *e, int64_t item) {
  const int64_t frames = e->input_lengths ? e->input_lengths[item] : e->frames;
  return frames <= e->frames ? frames : -1;
}

static int FN(is_range)(const dalign_emissions *e, int64_t begin, int64_t end) {
  return begin >= 0 && begin <= end && end <= e->batch;
}

/* ------------------------------------------------------------------------------------------------ best path */

/* The most probable class, NONE where a number is NaN or +inf. */
static int64_t FN(best_class)(const REAL *frame, int64_t classes) {
  int64_t best = 0;
  int valid = 1;
  for (int64_t c = 0; c < classes; c++) {
    valid &= frame[c] < INFINITY;
    if (frame[c] > frame[best]) best = c;
  }
  return valid ? best : NONE;
}

static void FN(greedy_item)(const dalign_greedy_args *a, int64_t item, int64_t frames) {
  const dalign_emissions *const e = &a->emissions;
  int64_t *const labels = a->labels + item * e->frames, *const spans = a->spans + 2 * item * e->frames;
  int64_t count = 0, before = e->blank;
  double score = 0;
  for (int64_t t = 0; t < frames && !isnan(score); t++) {
    const REAL *const frame = FN(frame_of)(e, item, t);
    const int64_t best = FN(best_class)(frame, e->classes);
    score = best == NONE ? NAN : score + (double)frame[best];
    if (best == NONE) break;
    if (best != e->blank && best != before) {
      labels[count] = best;
      spans[2 * count++] = t;
    }
    if (best != e->blank) spans[2 * count - 1] = t + 1;
    before = best;
  }
  if (!(score > -INFINITY)) count = 0;
  for (int64_t k = count; k < e->frames; k++) labels[k] = spans[2 * k] = spans[2 * k + 1] = -1;
  a->length[item] = count;
  a->score[item] = score;
}

dalign_status FN(dalign_decode_greedy)(const dalign_greedy_args *a, int64_t begin, int64_t end) {
  const dalign_emissions *const e = &a->emissions;
  const int given = ((a->labels && a->spans) || e->frames == 0) && a->length && a->score;
  if (!emissions_are_valid(e) || !FN(is_range)(e, begin, end) || (!given && e->batch > 0)) return DALIGN_BAD_ARGUMENT;
  for (int64_t item = begin; item < end; item++) {
    const int64_t frames = FN(frames_of)(e, item);
    if (frames < 0) return DALIGN_BAD_ARGUMENT;
    FN(greedy_item)(a, item, frames);
  }
  return DALIGN_OK;
}

/* ------------------------------------------------------------------------------------------------ prefix beam search */

/* A frame as doubles. Gives its largest number, NaN where one is NaN or +inf. */
static double FN(read_frame)(const REAL *frame, int64_t classes, double *copy) {
  double largest = -INFINITY;
  int valid = 1;
  for (int64_t c = 0; c < classes; c++) {
    copy[c] = (double)frame[c];
    valid &= copy[c] < INFINITY;
    largest = copy[c] > largest ? copy[c] : largest;
  }
  return valid ? largest : NAN;
}

size_t FN(dalign_decode_beam_state)(const dalign_beam_args *a) { return beam_state(a); }

dalign_status FN(dalign_decode_beam_open)(const dalign_beam_args *a, void *state) {
  if (!sizes_are_valid(a) || !options_are_valid(a)) return DALIGN_BAD_ARGUMENT;
  open_search(a, state);
  return DALIGN_OK;
}

static dalign_status FN(ask_back)(const search *s, dalign_questions *questions) {
  *questions = (dalign_questions){s->now->questions, s->question_slot, s->question_label};
  return DALIGN_ASK;
}

dalign_status FN(dalign_decode_beam_step)(const dalign_beam_args *a, int64_t item, void *state,
                                          dalign_questions *questions) {
  const dalign_emissions *const e = &a->emissions;
  if (item < 0 || item >= e->batch || (a->asks && !questions)) return DALIGN_BAD_ARGUMENT;
  const int64_t frames = FN(frames_of)(e, item);
  search s = search_in(a, state);
  if (frames < 0 || s.now->mark != mark_of(&s) || s.now->questions) return DALIGN_BAD_ARGUMENT;
  for (; s.now->frame < frames; s.now->frame++) {
    const double largest = FN(read_frame)(FN(frame_of)(e, item, s.now->frame), s.classes, s.frame);
    if (isnan(largest)) {
      write_empty(a, item, NAN);
      return DALIGN_OK;
    }
    if (advance(&s, largest)) return FN(ask_back)(&s, questions);
  }
  if (a->asks && !s.now->at_end && ask_for_ends(&s)) return FN(ask_back)(&s, questions);
  write_results(&s, item);
  return DALIGN_OK;
}

dalign_status FN(dalign_decode_beam_answer)(const dalign_beam_args *a, void *state, const double *answer,
                                            int64_t count) {
  search s = search_in(a, state);
  return take_answers(&s, answer, count) ? DALIGN_OK : DALIGN_BAD_ARGUMENT;
}

dalign_status FN(dalign_decode_beam)(const dalign_beam_args *a, int64_t begin, int64_t end, void *state) {
  if (!FN(is_range)(&a->emissions, begin, end) || a->asks) return DALIGN_BAD_ARGUMENT;
  for (int64_t item = begin; item < end; item++) {
    dalign_status status = FN(dalign_decode_beam_open)(a, state);
    if (status == DALIGN_OK) status = FN(dalign_decode_beam_step)(a, item, state, NULL);
    if (status != DALIGN_OK) return status;
  }
  return DALIGN_OK;
}

dalign_status FN(dalign_decode_beam_prefix)(const dalign_beam_args *a, void *state, int64_t row, int64_t *labels,
                                            int64_t *length) {
  const search s = search_in(a, state);
  if (s.now->mark != mark_of(&s) || row < 0 || row >= s.now->members) return DALIGN_BAD_ARGUMENT;
  *length = write_prefix(&s, s.members[row].node, labels);
  return DALIGN_OK;
}
