// Vectors: their width, loads, tanh. Included by cpu.cpp once for each instruction set and each precision, with
//   real            float or double
//   VECTOR_BYTES    width of a register
//   PANEL_VECTORS   how many vectors wide a tile of the matrix product is (so that 6 rows of it fill the registers)
//   TARGET          the function attribute that allows the instruction set
// GCC's vector types give one source for every instruction set. Nothing here is a template, because the attribute of
// an instantiated template is not reliable.

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real vec_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
static const int64_t LANES = VECTOR_BYTES / sizeof(real), PANEL = PANEL_VECTORS * LANES;
enum { TANHS = 4, PAIR = PANEL_VECTORS == 4 ? 2 : 1 };  // at once, at most; vectors of a cell, where the registers are 32

#define FUNCTION static TARGET
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE vec load(const real* p) { return *(const vec_unaligned*)p; }
INLINE void store(real* p, vec v) { *(vec_unaligned*)p = v; }
INLINE vec splat(real s) { return s - (vec){}; }

INLINE real sum_lanes(vec v) {
    real s = 0;
    for (int i = 0; i < LANES; ++i) s += v[i];
    return s;
}

#if REAL_IS_FLOAT

#if ISA_AVX512
INLINE vec lower(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }  // b where either is NaN
INLINE vec upper(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#else
INLINE vec lower(vec a, vec b) { return a < b ? a : b; }
INLINE vec upper(vec a, vec b) { return a > b ? a : b; }
#endif

// tanh(x) = x P(x²) / Q(x²), P and Q of degree 4, fitted to the smallest greatest relative error on [0, 9.02]: 2e-8,
// 3e-7 once rounded. Beyond, P / Q rises above 1, at 9.6 by more than its error; so a saturated gate is exactly 1
// after the last clamp, and its unit keeps its memory for ever. NaN stays NaN.
//
// One tanh is a chain of some 60 cycles, and three of them one after the other fill the window in which the processor
// looks for independent work: so each operation is done for all `n` vectors before the next.
INLINE void tanh_all(vec* x, const int n) {
    vec u[TANHS], p[TANHS], q[TANHS];
#define EACH _Pragma("GCC unroll 4") for (int i = 0; i < n; ++i)
    EACH x[i] = upper(splat(-9.6f), x[i]);
    EACH x[i] = lower(splat(9.6f), x[i]);
    EACH u[i] = x[i] * x[i];
    EACH p[i] = 1.33499114e-08f * u[i] + 2.06057084e-05f;
    EACH q[i] = 7.77463015e-07f * u[i] + 0.00032853015f;
    EACH p[i] = p[i] * u[i] + 0.00349538517f;
    EACH q[i] = q[i] * u[i] + 0.0258762129f;
    EACH p[i] = p[i] * u[i] + 0.133808553f;
    EACH q[i] = q[i] * u[i] + 0.467141718f;
    EACH p[i] = p[i] * u[i] + 1;
    EACH q[i] = q[i] * u[i] + 1;
    EACH p[i] = x[i] * p[i];
#if ISA_AVX512
    // A division costs 16 cycles a vector; an estimate and one Newton step cost 3 and are as good as rounded.
    EACH u[i] = (vec)_mm512_rcp14_ps((__m512)q[i]);
    EACH q[i] = 2 - q[i] * u[i];
    EACH u[i] = u[i] * q[i];
    EACH x[i] = p[i] * u[i];
#else
    EACH x[i] = p[i] / q[i];
#endif
    EACH x[i] = upper(splat(-1), x[i]);
    EACH x[i] = lower(splat(1), x[i]);
#undef EACH
}

#else

typedef int64_t ivec __attribute__((vector_size(VECTOR_BYTES)));

// tanh|x| = -e / (e + 2) with e = exp(-2|x|) - 1, computed without cancellation: 2|x| = n ln 2 - r, |r| <= ln 2 / 2,
// and the Taylor series of exp(r) - 1 to r^13 (next term 1e-17). tanh(20) rounds to 1.
INLINE vec tanh_one(vec x) {
    const double shift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, kept in the low bits
    vec y = x < 0 ? x : -x;
    y = 2 * (y < -20 ? splat(-20) : y);
    const vec shifted = y * 1.4426950408889634 + shift;
    const vec n = shifted - shift;
    const vec r = y - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;  // ln 2 in two parts
    vec p = splat(1.0 / 6227020800.0);
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r;
    const vec two_n = (vec)(((ivec)shifted - (ivec)splat(shift) + 1023) << 52);
    const vec e = two_n * p + (two_n - 1);
    const vec t = -e / (e + 2);
    return x < 0 ? -t : t;
}
INLINE void tanh_all(vec* x, const int n) {
    for (int i = 0; i < n; ++i) x[i] = tanh_one(x[i]);
}

#endif

INLINE vec tanh_(vec x) {
    tanh_all(&x, 1);
    return x;
}

// The halves of the zip a_0 b_0 a_1 b_1 ... of two vectors.
#define ZIP_LANES (VECTOR_BYTES / (REAL_IS_FLOAT ? 4 : 8))
#if ZIP_LANES == 16
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif ZIP_LANES == 8
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif ZIP_LANES == 4
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#else
#define ZIP_LOW 0, 2
#define ZIP_HIGH 1, 3
#endif
#if defined(__clang__) || __GNUC__ >= 12
INLINE vec zip_low(vec a, vec b) { return __builtin_shufflevector(a, b, ZIP_LOW); }
INLINE vec zip_high(vec a, vec b) { return __builtin_shufflevector(a, b, ZIP_HIGH); }
#else
#if REAL_IS_FLOAT
typedef int32_t zip_mask __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef int64_t zip_mask __attribute__((vector_size(VECTOR_BYTES)));
#endif
INLINE vec zip_low(vec a, vec b) { return __builtin_shuffle(a, b, (zip_mask){ZIP_LOW}); }
INLINE vec zip_high(vec a, vec b) { return __builtin_shuffle(a, b, (zip_mask){ZIP_HIGH}); }
#endif

// Transposes the square of LANES vectors: to zip its upper half into its lower one, log2(LANES) times, does it.
INLINE void transpose(vec* v) {
#pragma GCC unroll 4
    for (int64_t n = LANES; n > 1; n /= 2) {
        vec zipped[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; ++i)
            zipped[2 * i] = zip_low(v[i], v[i + LANES / 2]), zipped[2 * i + 1] = zip_high(v[i], v[i + LANES / 2]);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) v[i] = zipped[i];
    }
}
#undef ZIP_LANES
#undef ZIP_LOW
#undef ZIP_HIGH

// A row of H numbers to or from a row padded with zeros to a multiple of 16.
INLINE void copy_in(real* to, const real* from, int64_t H, int64_t padded) {
    memcpy(to, from, H * sizeof(real));
    if (padded > H) memset(to + H, 0, (padded - H) * sizeof(real));
}
