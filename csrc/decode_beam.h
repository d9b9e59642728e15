/* decode_beam.h: the search of decode.c, frame by frame; frames come as doubles, so that it exists once. */

/* ------------------------------------------------------------------------------------------------ the best so many */

/* A prefix that could be kept: a kept one (label STAY), or its extension by a label. Tokens of a frame, too. */
typedef struct {
  double score;    /* what it is ranked by */
  double log_prob; /* of an extension: of its paths */
  double bonus;    /* of an extension: scorer and length */
  int32_t slot;    /* the kept prefix */
  int32_t label;
  int32_t node; /* of an extension whose node exists, else NONE */
} candidate;

enum { STAY = -1, NONE = -1, LEAVING = -2 };

/* A heap with the worst candidate on top. */
typedef struct {
  candidate *entries;
  int64_t count, capacity;
} best_list;

static int ranks_before(const candidate *a, const candidate *b) {
  if (a->score != b->score) return a->score > b->score;
  return a->slot != b->slot ? a->slot < b->slot : a->label < b->label;
}

static void sift_down(candidate *heap, int64_t count, candidate moved) {
  int64_t place = 0;
  for (int64_t child; (child = 2 * place + 1) < count; place = child) {
    if (child + 1 < count && ranks_before(&heap[child], &heap[child + 1])) child++;
    if (!ranks_before(&moved, &heap[child])) break;
    heap[place] = heap[child];
  }
  heap[place] = moved;
}

static void sift_up(candidate *heap, int64_t place, candidate moved) {
  for (int64_t parent; place > 0 && ranks_before(&heap[parent = (place - 1) / 2], &moved); place = parent)
    heap[place] = heap[parent];
  heap[place] = moved;
}

static void offer(best_list *list, candidate c) {
  if (list->count < list->capacity) {
    sift_up(list->entries, list->count++, c);
  } else if (ranks_before(&c, &list->entries[0])) {
    sift_down(list->entries, list->count, c);
  }
}

/* The best first; the list is no heap any more. */
static void sort_best(best_list *list) {
  for (int64_t left = list->count - 1; left > 0; left--) {
    const candidate last = list->entries[left];
    list->entries[left] = list->entries[0];
    sift_down(list->entries, left, last);
  }
}

static int is_full(const best_list *list) { return list->count == list->capacity; }

/* ------------------------------------------------------------------------------------------------ state */

typedef struct {
  int32_t parent, label, first_child, next, previous;
  int32_t slot;    /* where it is kept, NONE, or LEAVING until its turn to be released */
  int32_t context; /* the n-gram model's history */
  double bonus;    /* scorer and length of the whole prefix */
} node;

/* A kept prefix. */
typedef struct {
  double blank, label, total; /* log-probabilities of its paths that end in a blank, in its last label, and of both */
  int32_t node;
  int32_t row; /* of `known`, or NONE */
} member;

/* What lasts from step to step; the rest is cut out of the same memory anew. */
typedef struct {
  uint64_t mark; /* of a state that was opened, for these sizes */
  int64_t frame, questions;
  int64_t members, nodes_used, free_rows;
  int32_t free_node; /* of a chain through `next` */
  int32_t at_end;    /* the questions are about the end */
} progress;

typedef struct {
  const dalign_beam_args *args;
  int64_t classes, width;
  progress *now;
  double *frame;             /* (classes) log-probabilities */
  double limit;              /* tokens below extend nothing */
  member *members, *updated; /* before and after the frame */
  node *nodes;
  best_list kept, tokens;
  int32_t *child_of; /* (classes) the node of a prefix's extension, NONE between prefixes */
  double *known;     /* (width, classes) the scorer's log-probabilities, NaN: not known */
  int32_t *free_rows;
  int32_t *question_slot, *question_label;
  double *end_answer; /* (width) of the questions about the end */
} search;

static int has_scorer(const search *s) { return s->args->ngram || s->args->asks; }

/* min(width, number of labellings of at most `frames` labels). */
static int64_t useful_width(const dalign_beam_args *a) {
  const int64_t labels = a->emissions.classes - 1;
  int64_t prefixes = 1, longest = 1;
  for (int64_t t = 0; t < a->emissions.frames && labels > 0 && prefixes < a->width; t++) {
    if (longest > a->width / labels) return a->width;
    longest *= labels;
    prefixes += longest;
  }
  return prefixes < a->width ? prefixes : a->width;
}

/* Nodes that live at once: the root, the paths to the kept prefixes, and a frame's new ones before the old ones go. */
static int64_t most_nodes(const search *s) { return 1 + s->width * (s->args->emissions.frames + 1); }

static search cut_search(const dalign_beam_args *a, dalign_arena *arena) {
  search s = {.args = a, .classes = a->emissions.classes, .width = useful_width(a)};
  const size_t classes = (size_t)s.classes, width = (size_t)s.width, table = has_scorer(&s) ? width * classes : 0;
  const size_t questions = a->asks ? table + width : 0, ends = a->asks ? width : 0;
  s.now = dalign_arena_take(arena, sizeof *s.now);
  s.frame = dalign_arena_take(arena, classes * sizeof *s.frame);
  s.members = dalign_arena_take(arena, width * sizeof *s.members);
  s.updated = dalign_arena_take(arena, width * sizeof *s.updated);
  s.kept.entries = dalign_arena_take(arena, width * sizeof(candidate));
  s.kept.capacity = s.width;
  s.tokens.entries = dalign_arena_take(arena, classes * sizeof(candidate));
  /* The `width` best extensions of a prefix without scorer are by its best tokens, its last label perhaps not. */
  s.tokens.capacity = has_scorer(&s) || s.width >= s.classes ? s.classes : s.width + 1;
  if (s.tokens.capacity > s.classes) s.tokens.capacity = s.classes;
  s.child_of = dalign_arena_take(arena, classes * sizeof *s.child_of);
  s.known = dalign_arena_take(arena, table * sizeof *s.known);
  s.free_rows = dalign_arena_take(arena, width * sizeof *s.free_rows);
  s.question_slot = dalign_arena_take(arena, questions * sizeof *s.question_slot);
  s.question_label = dalign_arena_take(arena, questions * sizeof *s.question_label);
  s.end_answer = dalign_arena_take(arena, ends * sizeof *s.end_answer);
  s.nodes = dalign_arena_take(arena, (size_t)most_nodes(&s) * sizeof *s.nodes);
  return s;
}

static uint64_t mark_of(const search *s) {
  const uint64_t sizes = (uint64_t)s->width * 0x9E3779B97F4A7C15u + (uint64_t)s->args->emissions.frames;
  return sizes * 0x9E3779B97F4A7C15u + (uint64_t)(2 * s->classes + (s->args->asks != 0));
}

static search search_in(const dalign_beam_args *a, void *state) {
  dalign_arena arena = dalign_arena_over(state);
  return cut_search(a, &arena);
}

static int emissions_are_valid(const dalign_emissions *e) {
  return e->frames >= 0 && e->batch >= 0 && e->classes >= 1 && e->classes <= INT32_MAX - 2 && e->blank >= 0 &&
         e->blank < e->classes && (e->log_probs || e->frames == 0 || e->batch == 0);
}

/* Nodes and rows are counted in 32 bits. */
static int sizes_are_valid(const dalign_beam_args *a) {
  const dalign_emissions *e = &a->emissions;
  if (!emissions_are_valid(e) || a->width < 1 || a->top < 1) return 0;
  const double width = (double)useful_width(a);
  return width * ((double)e->frames + 1) < INT32_MAX && width * (double)e->classes < 0x1p40;
}

static int results_are_given(const dalign_beam_args *a) {
  if (a->emissions.batch == 0) return 1;
  return (a->labels || a->emissions.frames == 0) && a->length && a->log_prob && a->score && a->found;
}

static int options_are_valid(const dalign_beam_args *a) {
  if (a->ngram && (a->asks || a->ngram->classes != a->emissions.classes)) return 0;
  return a->token_threshold >= 0 && a->scorer_weight >= 0 && a->scorer_weight < INFINITY &&
         fabs(a->length_bonus) < INFINITY && results_are_given(a);
}

static size_t beam_state(const dalign_beam_args *a) {
  if (!sizes_are_valid(a)) return 0;
  dalign_arena arena = dalign_arena_over(NULL);
  cut_search(a, &arena);
  return dalign_arena_bytes(&arena);
}

static void open_search(const dalign_beam_args *a, void *state) {
  dalign_arena arena = dalign_arena_over(state);
  const search s = cut_search(a, &arena);
  *s.now = (progress){.mark = mark_of(&s), .members = 1, .nodes_used = 1, .free_node = NONE, .free_rows = s.width};
  s.nodes[0] = (node){.parent = NONE, .label = NONE, .first_child = NONE, .next = NONE, .previous = NONE};
  if (a->ngram) s.nodes[0].context = (int32_t)ngram_start(a->ngram);
  s.members[0] = (member){.blank = 0, .label = -INFINITY, .total = 0, .row = NONE};
  for (int64_t c = 0; c < s.classes; c++) s.child_of[c] = NONE;
  for (int64_t k = 0; k < s.width; k++) s.free_rows[k] = (int32_t)(s.width - 1 - k);
}

/* ------------------------------------------------------------------------------------------------ trie */

static int32_t make_node(search *s, int32_t parent, int32_t label, double bonus) {
  int32_t made = s->now->free_node;
  if (made != NONE) {
    s->now->free_node = s->nodes[made].next;
  } else {
    made = (int32_t)s->now->nodes_used++;
  }
  node *const above = &s->nodes[parent];
  s->nodes[made] = (node){.parent = parent,
                          .label = label,
                          .first_child = NONE,
                          .next = above->first_child,
                          .previous = NONE,
                          .slot = NONE,
                          .bonus = bonus};
  if (s->args->ngram) s->nodes[made].context = (int32_t)ngram_next(s->args->ngram, above->context, label);
  if (above->first_child != NONE) s->nodes[above->first_child].previous = made;
  above->first_child = made;
  return made;
}

/* Frees a node that is not kept and leads nowhere, then its parent if that is so now. */
static void release_node(search *s, int32_t which) {
  node *const nodes = s->nodes;
  while (which != 0 && nodes[which].slot == NONE && nodes[which].first_child == NONE) {
    const node gone = nodes[which];
    if (gone.next != NONE) nodes[gone.next].previous = gone.previous;
    if (gone.previous != NONE) {
      nodes[gone.previous].next = gone.next;
    } else {
      nodes[gone.parent].first_child = gone.next;
    }
    nodes[which].next = s->now->free_node;
    s->now->free_node = which;
    which = gone.parent;
  }
}

/* Labels from the first to the last; gives their number. */
static int64_t write_prefix(const search *s, int32_t which, int64_t *labels) {
  int64_t length = 0;
  for (int32_t k = which; k != 0; k = s->nodes[k].parent) length++;
  for (int64_t place = length; which != 0; which = s->nodes[which].parent) labels[--place] = s->nodes[which].label;
  return length;
}

/* ------------------------------------------------------------------------------------------------ scorer */

/* Where the scorer's log-probability of a label after a kept prefix is noted. */
static double *known_at(search *s, int32_t slot, int32_t label) {
  member *const m = &s->members[slot];
  if (m->row == NONE) {
    m->row = s->free_rows[--s->now->free_rows];
    for (int64_t c = 0; c < s->classes; c++) s->known[m->row * s->classes + c] = NAN;
  }
  return &s->known[m->row * s->classes + label];
}

/* 0 without scorer, NaN when it has to be asked. */
static double scorer_log_prob(search *s, int32_t slot, int32_t label) {
  if (!has_scorer(s)) return 0;
  double *const known = known_at(s, slot, label);
  if (s->args->ngram && isnan(*known))
    *known = ngram_log_prob(s->args->ngram, s->nodes[s->members[slot].node].context, label);
  return *known;
}

static void ask(search *s, int32_t slot, int32_t label) {
  const int64_t k = s->now->questions++;
  s->question_slot[k] = slot;
  s->question_label[k] = label;
}

/* Answers about labels are noted, those about the end stay where they are. */
static int take_answers(search *s, const double *answer, int64_t count) {
  if (s->now->mark != mark_of(s) || count != s->now->questions) return 0;
  for (int64_t k = 0; k < count; k++)
    if (!(answer[k] <= 0)) return 0;
  for (int64_t k = 0; k < count; k++) {
    double *const place = s->now->at_end ? &s->end_answer[k] : known_at(s, s->question_slot[k], s->question_label[k]);
    *place = answer[k];
  }
  s->now->questions = 0;
  return 1;
}

/* ------------------------------------------------------------------------------------------------ one frame */

/* log(exp(a) + exp(b)) */
static double log_add(double a, double b) {
  const double high = a > b ? a : b, low = a > b ? b : a;
  return low == -INFINITY ? high : high + log1p(exp(low - high));
}

/* log-probability of the paths to an extension of a kept prefix: after the same label there must be a blank. */
static double extended(const search *s, const member *m, int32_t label) {
  return (label == s->nodes[m->node].label ? m->blank : m->total) + s->frame[label];
}

/* Kept prefixes, one frame on: their numbers go to the other members. */
static void offer_kept(search *s) {
  for (int32_t slot = 0; slot < s->now->members; slot++) {
    const member *const m = &s->members[slot];
    const node *const n = &s->nodes[m->node];
    double label = -INFINITY;
    if (n->label != NONE) {
      const int32_t above = s->nodes[n->parent].slot;
      label = m->label + s->frame[n->label];
      if (above != NONE && s->frame[n->label] >= s->limit)
        label = log_add(label, extended(s, &s->members[above], n->label));
    }
    const double blank = m->total + s->frame[s->args->emissions.blank], total = log_add(blank, label);
    s->updated[slot] = (member){blank, label, total, m->node, NONE};
    if (total + n->bonus > -INFINITY)
      offer(&s->kept, (candidate){.score = total + n->bonus, .slot = slot, .label = STAY, .node = m->node});
  }
}

/* What an extension's score is at most: a scorer's logarithms are not positive. */
static double most_extended(const search *s, const member *m, double token) {
  return (m->total + token) + (s->nodes[m->node].bonus + s->args->length_bonus);
}

static int is_hopeless(const search *s, double most) { return is_full(&s->kept) && most < s->kept.entries[0].score; }

/* The tokens that may extend a prefix, the most probable first. */
static void choose_tokens(search *s) {
  s->tokens.count = 0;
  double most = -INFINITY;
  for (int32_t slot = 0; slot < s->now->members; slot++) most = fmax(most, most_extended(s, &s->members[slot], 0));
  for (int32_t c = 0; c < s->classes; c++) {
    const double y = s->frame[c];
    /* Rounded otherwise than a score: a little is left over. */
    if (c == s->args->emissions.blank || !(y > -INFINITY) || y < s->limit) continue;
    if (is_hopeless(s, most + y + 1e-12 * (fabs(most) + fabs(y)))) continue;
    offer(&s->tokens, (candidate){.score = y, .label = c});
  }
  sort_best(&s->tokens);
}

static void mark_children(search *s, int32_t parent, int on) {
  for (int32_t k = s->nodes[parent].first_child; k != NONE; k = s->nodes[k].next)
    s->child_of[s->nodes[k].label] = on ? k : NONE;
}

static void offer_extensions_of(search *s, int32_t slot) {
  const member *const m = &s->members[slot];
  for (int64_t k = 0; k < s->tokens.count; k++) {
    const int32_t label = s->tokens.entries[k].label, child = s->child_of[label];
    if (is_hopeless(s, most_extended(s, m, s->tokens.entries[k].score))) return;
    if (child != NONE && s->nodes[child].slot != NONE) continue; /* it is kept, and has got this already */
    const double p = extended(s, m, label);
    if (!(p > -INFINITY)) continue;
    double bonus;
    if (child != NONE) {
      bonus = s->nodes[child].bonus;
    } else {
      const double scored = scorer_log_prob(s, slot, label);
      if (isnan(scored)) {
        ask(s, slot, label);
        continue;
      }
      bonus = s->nodes[m->node].bonus + (has_scorer(s) ? s->args->scorer_weight * scored : 0) + s->args->length_bonus;
    }
    if (p + bonus > -INFINITY) offer(&s->kept, (candidate){p + bonus, p, bonus, slot, label, child});
  }
}

/* The chosen candidates become the members. */
static void keep_best(search *s) {
  node *const nodes = s->nodes;
  sort_best(&s->kept);
  for (int64_t k = 0; k < s->now->members; k++) {
    nodes[s->members[k].node].slot = LEAVING;
    s->updated[k].row = s->members[k].row;
  }
  for (int64_t k = 0; k < s->kept.count; k++) {
    candidate *const c = &s->kept.entries[k];
    if (c->node == NONE) c->node = make_node(s, s->members[c->slot].node, c->label, c->bonus);
    nodes[c->node].slot = (int32_t)k;
  }
  for (int64_t k = 0; k < s->now->members; k++) {
    const member *const old = &s->members[k];
    if (nodes[old->node].slot != LEAVING) continue;
    if (old->row != NONE) s->free_rows[s->now->free_rows++] = old->row;
    nodes[old->node].slot = NONE;
    release_node(s, old->node);
  }
  for (int64_t k = 0; k < s->kept.count; k++) {
    const candidate *const c = &s->kept.entries[k];
    if (c->label == STAY) {
      s->members[k] = s->updated[c->slot];
    } else {
      s->members[k] = (member){-INFINITY, c->log_prob, c->log_prob, c->node, NONE};
    }
  }
  s->now->members = s->kept.count;
}

/* One frame: its largest log-probability is given. Nonzero: there are questions, and the frame has to be done again. */
static int advance(search *s, double largest) {
  s->limit = largest - s->args->token_threshold;
  s->kept.count = 0;
  offer_kept(s);
  choose_tokens(s);
  for (int32_t slot = 0; slot < s->now->members; slot++) {
    mark_children(s, s->members[slot].node, 1);
    offer_extensions_of(s, slot);
    mark_children(s, s->members[slot].node, 0);
  }
  if (s->now->questions) return 1;
  keep_best(s);
  return 0;
}

/* ------------------------------------------------------------------------------------------------ results */

static void clear_results(const dalign_beam_args *a, int64_t item) {
  int64_t *const labels = a->labels + item * a->top * a->emissions.frames;
  for (int64_t k = 0; k < a->top * a->emissions.frames; k++) labels[k] = -1;
  for (int64_t k = 0; k < a->top; k++) {
    a->length[item * a->top + k] = 0;
    a->log_prob[item * a->top + k] = a->score[item * a->top + k] = -INFINITY;
  }
}

/* One empty labelling: nothing was found (-inf) or the numbers were none (NaN). */
static void write_empty(const dalign_beam_args *a, int64_t item, double score) {
  clear_results(a, item);
  a->log_prob[item * a->top] = a->score[item * a->top] = score;
  a->found[item] = 1;
}

static int ask_for_ends(search *s) {
  s->now->at_end = 1;
  for (int32_t slot = 0; slot < s->now->members; slot++) ask(s, slot, (int32_t)s->classes);
  return s->now->members > 0;
}

static double end_bonus(const search *s, int64_t slot) {
  if (!has_scorer(s)) return 0;
  const dalign_ngram *const g = s->args->ngram;
  return s->args->scorer_weight *
         (g ? ngram_log_prob(g, s->nodes[s->members[slot].node].context, g->classes) : s->end_answer[slot]);
}

static void write_results(search *s, int64_t item) {
  const dalign_beam_args *const a = s->args;
  s->kept.count = 0;
  for (int64_t slot = 0; slot < s->now->members; slot++) {
    const member *const m = &s->members[slot];
    const double score = m->total + s->nodes[m->node].bonus + end_bonus(s, slot);
    if (score > -INFINITY)
      offer(&s->kept, (candidate){.score = score, .log_prob = m->total, .slot = (int32_t)slot, .node = m->node});
  }
  sort_best(&s->kept);
  write_empty(a, item, -INFINITY);
  for (int64_t k = 0; k < s->kept.count && k < a->top; k++) {
    const candidate *const c = &s->kept.entries[k];
    const int64_t place = item * a->top + k;
    a->length[place] = write_prefix(s, c->node, a->labels + place * a->emissions.frames);
    a->log_prob[place] = c->log_prob;
    a->score[place] = c->score;
    a->found[item] = k + 1;
  }
}
