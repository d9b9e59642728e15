/* dtw.c: hard dynamic time warping with any set of single steps: value, best path, bands, free ends.
 *
 *   R(i,j) = min_k R(i - dx_k, j - dy_k) + w_k C(i,j),   R(0,0) = C(0,0),   value = R(n-1,m-1)
 *
 * (Sakoe and Chiba 1978.) Groups, strips and tiles are those of lattice_tile.h. R of a tile lies in memory row by row
 * of steps, GROUP_ROWS lanes side by side, with room for rows above the group (halo) and for steps before the tile
 * (history): the predecessor (i - dx, j - dy) of every lane at once is then one unaligned load, dx + dy steps back and
 * dx lanes up.
 *
 * Numbers. Floats count from a base (a double) per tile, the least number that enters it, so a long path loses no
 * digits; rows handed from group to group are double.
 *
 * Memory. A value needs one row of the group above. A path keeps the rows between groups, or every keep_every-th of
 * them (DALIGN_DTW_ROWS_BYTES), and goes back group by group: it sweeps the group again up to the path's column,
 * keeping what enters each tile, then computes just the tiles that the path goes through. Of a short pair all tiles stay
 * (DALIGN_DTW_TILES_BYTES), and going back only reads.
 *
 * Batches of short pairs go through dtw_lanes.h, one pair in each lane.
 *
 * Threads. Workers draw groups from a counter and wait only on the group before theirs; going back is one thread's
 * work.
 */
#include "dalign.h"
#include "simd/names.h"

#include <sched.h>
#include <stdatomic.h>

/* Rows between groups that a path may keep. Tests make it small. */
#ifndef DALIGN_DTW_ROWS_BYTES
#define DALIGN_DTW_ROWS_BYTES (256 << 20)
#endif

/* Tiles that a path keeps where they are all of the lattice. */
#ifndef DALIGN_DTW_TILES_BYTES
#define DALIGN_DTW_TILES_BYTES (4 << 20)
#endif

#define DALIGN_F32 1
#include "simd/real.h"
#include "dtw_body.h"
#undef DALIGN_F32
#define DALIGN_F32 0
#include "simd/real.h"
#include "dtw_body.h"
