/* softdtw.c: soft-DTW, value and gradient, cost given or fused, in scaled linear arithmetic.
 *
 * With k(i,j) = exp(-C(i,j)/gamma) and P(i,j) = exp(-R(i,j)/gamma) the recursion of dalign.h is linear:
 *
 *   P(i,j) = k^w_down P(i-1,j) + k^w_right P(i,j-1) + k^w_diag P(i-1,j-1),      value = -gamma log P(n-1,m-1)
 *
 * (Cuturi and Blondel 2017, who run it in the log domain). The adjoint runs the same recursion from the far corner:
 *
 *   B(i,j) = q_down(i+1,j) + q_right(i,j+1) + q_diag(i+1,j+1),   q_s(i,j) = k^w_s B(i,j),   B(n-1,m-1) = 1
 *   E(i,j) = P(i,j) B(i,j) / P(n-1,m-1),   H = E (mean of w_s over the steps that enter the cell)
 *
 * Numbers. Every P and B is m 2^e with 1 <= m < 2 and e a whole number, so no cell needs a logarithm and nothing under-
 * or overflows. A lane's e counts from a base (a double) that each tile chooses anew, and rows handed from group to group
 * carry e as a double: e in a lane stays far below 2^24, where floats count exactly. Where that would fail (a cell's cost
 * above 2^14 gamma, or a tile whose entries differ by 2^22 powers of two), and where the value is so small against gamma
 * that log P keeps few digits, the float kernel gives the problem to the double kernel ("wide"). Where even a double
 * cannot count the powers of two (value / gamma above 2^50), forward runs once more with gamma raised to value 2^-48:
 * below that no double tells two paths apart.
 *
 * Order. TILE_STRIPS strips of LANES rows form a group; lane r of a strip works on column c - r at step c and strip s
 * works s LANES steps behind strip 0, so a cell's three predecessors are the lane itself, the lane above, and what that
 * lane held a step before. Strips are independent within a step, which hides the latency of the chain. A group is cut
 * into tiles of TILE_STEPS steps: costs of a tile first (cost_tile.h), then the recursion over it.
 *
 * Memory. Forward keeps the last row of each group and the lanes' state at each tile edge: about .3 bytes a cell in
 * float. Backward goes through the tiles from the end, computes a tile's P again from its edge, runs B over it, and takes
 * the products for the gradients from the tile. Beyond DALIGN_KEEP_ALL_BYTES an item, only every keep_every-th group's row is
 * kept and backward first sweeps the groups between two of them again. Where value and gradient are asked for at once
 * (DALIGN_GRADIENT) state stays in the workspace, and as many tiles as DALIGN_KEEP_TILES_BYTES holds keep costs and P.
 *
 * Threads. Workers draw groups from a counter and wait only on the group before theirs, tile by tile. Everything a group
 * computes depends on its inputs alone, and sums over groups are taken in order: bits do not depend on threads.
 *
 * Time (AVX-512, float, unit weights): D/16 + 2 vector instructions a cell forward, three times that with backward.
 * Compiled once per ISA level (DALIGN_ISA), each time for float and double.
 */
#include "dalign.h"
#include "simd/flush.h"
#include "simd/names.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

/* Tests make it small, to come to the second level of checkpoints with short sequences. */
#ifndef DALIGN_KEEP_ALL_BYTES
#define DALIGN_KEEP_ALL_BYTES (32 << 20)
#endif

/* Of tiles from forward to backward: few enough to stay in a cache. */
#ifndef DALIGN_KEEP_TILES_BYTES
#define DALIGN_KEEP_TILES_BYTES (4 << 20)
#endif

/* The double kernel on float arrays: what the float functions hand a problem to (see "wide"). */
static size_t DALIGN_NAME(shared_bytes_, f64)(const dalign_softdtw_args *args, dalign_pass pass, size_t state_bytes);
static size_t DALIGN_NAME(worker_bytes_, f64)(const dalign_softdtw_args *args);
static dalign_status DALIGN_NAME(open_problem_, f64)(const dalign_softdtw_args *args, dalign_pass pass, int64_t item,
                                                     int given_f32, int again, void *shared);
static void DALIGN_NAME(work_problem_, f64)(void *shared, void *worker);
static dalign_status DALIGN_NAME(close_problem_, f64)(void *shared);

/* What stands first in shared memory and in an item's state. */
typedef struct {
  double gamma; /* to compute with in place of the caller's; 0: his */
  int wide;     /* the double kernel works (or worked) here */
} softdtw_shared_head;

typedef struct {
  double z_m, z_e; /* P(n-1, m-1) = z_m 2^z_e; z_m = 0: no path */
  double gamma;    /* that forward computed with */
  int wide;
} softdtw_state_head;

#define DALIGN_F32 1
#include "simd/real.h"
#include "softdtw_body.h"
#undef DALIGN_F32
#define DALIGN_F32 0
#include "simd/real.h"
#include "softdtw_body.h"
