/* Chooses the element type of the bodies included after it: define DALIGN_F32 as 1 or 0 first. Included once per type
 * (no include guard): it redefines REAL, FN and the vector layer. */
#undef REAL
#undef FN
#if DALIGN_F32
#define REAL float
#define FN(name) DALIGN_NAME(name, f32)
#else
#define REAL double
#define FN(name) DALIGN_NAME(name, f64)
#endif
#include "vec.h"
