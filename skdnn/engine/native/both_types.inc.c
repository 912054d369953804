/* The kernels of a set of instructions, SET, for both types of numbers; see kernels.inc.c for what else is defined. */

#define real float
#define IS_DOUBLE 0
#include "kernels.inc.c"
#undef real
#undef IS_DOUBLE

#define real double
#define IS_DOUBLE 1
#include "kernels.inc.c"
#undef real
#undef IS_DOUBLE

#undef SET
#undef TARGET
#undef VECTOR_BYTES
#undef TILE_ROWS
