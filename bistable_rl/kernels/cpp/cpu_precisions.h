// Included by cpu.cpp for each instruction set (ISA, TARGET, VECTOR_BYTES, PANEL_VECTORS, ISA_AVX512).

#define real float
#define REAL_IS_FLOAT 1
namespace JOIN(ISA, float) {
#include "cpu_vector.h"
#include "cpu_matmul.h"
#include "cpu_cells.h"
#include "cpu_sequence.h"
}
#undef real
#undef REAL_IS_FLOAT
#undef INLINE
#undef FUNCTION

#define real double
#define REAL_IS_FLOAT 0
namespace JOIN(ISA, double) {
#include "cpu_vector.h"
#include "cpu_matmul.h"
#include "cpu_cells.h"
#include "cpu_sequence.h"
}
#undef real
#undef REAL_IS_FLOAT
#undef INLINE
#undef FUNCTION

#undef ISA
#undef ISA_AVX512
#undef TARGET
#undef VECTOR_BYTES
#undef PANEL_VECTORS
