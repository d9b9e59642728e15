/* decode_ngram.h: probabilities of an n-gram model that lies in flat arrays (see dalign_ngram). */

enum { NGRAM_ROOT = 0, NGRAM_NONE = -1 };

/* The child of a node by its last symbol, or NGRAM_NONE. */
static int64_t ngram_child(const dalign_ngram *g, int64_t node, int64_t symbol) {
  int64_t low = g->first[node], high = g->first[node + 1];
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (g->label[middle] < symbol) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < g->first[node + 1] && g->label[low] == symbol ? low : NGRAM_NONE;
}

/* p(symbol | history) = share(h c) + backoff(h) (share(h' c) + backoff(h') (...)), from the longest history on. */
static double ngram_log_prob(const dalign_ngram *g, int64_t history, int64_t symbol) {
  double p = 0, weight = 1;
  for (;; history = g->suffix[history]) {
    const int64_t child = ngram_child(g, history, symbol);
    if (child != NGRAM_NONE) p += weight * g->share[child];
    weight *= g->backoff[history];
    if (history == NGRAM_ROOT) break;
  }
  return log(fmin(p + weight / (double)g->classes, 1));
}

/* The longest history that ends in this symbol and was seen. */
static int64_t ngram_next(const dalign_ngram *g, int64_t history, int64_t symbol) {
  for (;; history = g->suffix[history]) {
    const int64_t child = ngram_child(g, history, symbol);
    if (child != NGRAM_NONE && child < g->contexts) return child;
    if (history == NGRAM_ROOT) return NGRAM_ROOT;
  }
}

static int64_t ngram_start(const dalign_ngram *g) { return ngram_next(g, NGRAM_ROOT, g->classes + 1); }

/* Children lie behind their parents and suffixes before their nodes, so that no walk can circle. */
static int ngram_is_sound(const dalign_ngram *g) {
  if (g->classes < 1 || g->classes > INT32_MAX - 2 || g->nodes < 1 || g->nodes > INT32_MAX || g->contexts < 1 ||
      g->contexts > g->nodes || g->first[0] != 1 || g->first[g->nodes] != g->nodes)
    return 0;
  for (int64_t k = 0; k < g->nodes; k++) {
    if (g->first[k + 1] < g->first[k] || (g->first[k] <= k && g->first[k + 1] > g->first[k])) return 0;
    if (k > 0 && (g->suffix[k] < 0 || g->suffix[k] >= k || g->label[k] < 0 || g->label[k] > g->classes + 1)) return 0;
    if (!(g->share[k] >= 0 && g->share[k] <= 1 && g->backoff[k] >= 0 && g->backoff[k] <= 1)) return 0;
  }
  return 1;
}
