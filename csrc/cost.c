/* cost.c: pairwise costs of frames, six metrics, value and adjoint.
 *
 * All metrics run through four kernels on prepared frames (cost_tile.h). The value kernel keeps up to four strips of
 * LANES rows times COST_STEPS steps of the skewed tile in registers, so that a load of x serves COST_STEPS cells and a
 * load of y four: it is bound by arithmetic, not by loads. The adjoint kernel has features in the lanes and adds, for each
 * cell, weight * (u - v) (or its sign, or the other frame) to the rows of x held in registers and to y in memory: no
 * difference of large sums, so near-equal frames keep their digits.
 *
 * Time: value D/16 vector multiply-adds a cell (float, AVX-512), adjoint 2 D/16. Memory: O((n + m) D).
 * Compiled once per ISA level (DALIGN_ISA), each time for float and double.
 */
#include "dalign.h"
#include "simd/names.h"

#if defined __AVX512F__
#define COST_STEPS 4
#else
#define COST_STEPS 2
#endif

#define DALIGN_F32 1
#include "simd/real.h"
#include "cost_body.h"
#undef DALIGN_F32
#define DALIGN_F32 0
#include "simd/real.h"
#include "cost_body.h"
