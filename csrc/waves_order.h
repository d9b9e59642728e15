/* waves_order.h: what waves.h needs once, whatever the element type. */
#ifndef DALIGN_WAVES_ORDER_H
#define DALIGN_WAVES_ORDER_H

/* What a block of waves may take of the cache. Tests make it small. */
#ifndef DALIGN_WAVES_BLOCK_BYTES
#define DALIGN_WAVES_BLOCK_BYTES (512 << 10)
#endif

/* What the lanes of a wave are: the columns of a row, the rows of a column, or the rows of a diagonal. */
typedef enum { WAVES_ROWS, WAVES_COLUMNS, WAVES_DIAGONALS } waves_order;

typedef enum { WAVES_FIT, WAVES_NAN, WAVES_TOO_FAR } waves_fit;

static waves_order waves_choose_order(const dalign_ddtw_args *a) {
  int advances_x = 1, advances_y = 1;
  for (int s = 0; s < a->steps; s++) {
    if (a->step_x[s] >= a->n || a->step_y[s] >= a->m) continue;
    advances_x &= a->step_x[s] > 0;
    advances_y &= a->step_y[s] > 0;
  }
  return advances_x ? WAVES_ROWS : advances_y ? WAVES_COLUMNS : WAVES_DIAGONALS;
}

/* Exponents are exact, and sums of three of them, up to this distance from their base. */
#define WAVES_FARTHEST (DALIGN_F32 ? 4194304. : 1125899906842624.)

#endif
