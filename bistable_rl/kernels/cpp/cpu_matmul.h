// The two matrix products that everything else is made of. They are written by hand because the sizes are small and
// always the same: a general BLAS packs its operands at every call, and reaches a third of this speed on them.

static const int64_t TILE_ROWS = 6, BLOCK_K = 128;  // a block of a panel, BLOCK_K deep, is 32 KB: it stays in the L1 cache

// The values that a tile starts from.
enum Start { FROM_C, FROM_BIAS };

// C (R rows, V vectors) = start + A (R, k) W (k, V vectors), for constant R and V: R * V registers accumulate.
INLINE void tile_body(const int R, const int V, const real* A, int64_t lda, int64_t k, const real* W, real* C,
                      int64_t ldc, const real* bias) {
    vec acc[TILE_ROWS][PANEL_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = load(bias ? bias + v * LANES : C + r * ldc + v * LANES);
    for (int64_t i = 0; i < k; ++i) {
        vec w[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) w[v] = load(W + (i * V + v) * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const vec a = splat(A[r * lda + i]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) acc[r][v] += a * w[v];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(C + r * ldc + v * LANES, acc[r][v]);
}

// C (R, V vectors) += Aᵀ D, the sum over n rows of A (n, R) and D (n, V vectors).
INLINE void outer_body(const int R, const int V, const real* A, int64_t lda, int64_t n, const real* D, int64_t ldd,
                       real* C, int64_t ldc) {
    vec acc[TILE_ROWS][PANEL_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = load(C + r * ldc + v * LANES);
    for (int64_t i = 0; i < n; ++i) {
        vec d[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) d[v] = load(D + i * ldd + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            const vec a = splat(A[i * lda + r]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) acc[r][v] += a * d[v];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(C + r * ldc + v * LANES, acc[r][v]);
}

typedef void (*TileFunction)(const real*, int64_t, int64_t, const real*, real*, int64_t, const real*);
typedef void (*OuterFunction)(const real*, int64_t, int64_t, const real*, int64_t, real*, int64_t);

#define TILE(R, V)                                                                                               \
    FUNCTION void tile_##R##_##V(const real* A, int64_t lda, int64_t k, const real* W, real* C, int64_t ldc,     \
                                 const real* bias) {                                                             \
        tile_body(R, V, A, lda, k, W, C, ldc, bias);                                                             \
    }                                                                                                            \
    FUNCTION void outer_##R##_##V(const real* A, int64_t lda, int64_t n, const real* D, int64_t ldd, real* C,    \
                                  int64_t ldc) {                                                                 \
        outer_body(R, V, A, lda, n, D, ldd, C, ldc);                                                             \
    }
#define TILES(V) TILE(1, V) TILE(2, V) TILE(3, V) TILE(4, V) TILE(5, V) TILE(6, V)
#define NAMES(NAME, V) {NAME##_1_##V, NAME##_2_##V, NAME##_3_##V, NAME##_4_##V, NAME##_5_##V, NAME##_6_##V}
TILES(1)
TILES(2)
#if PANEL_VECTORS == 4
TILES(3)
TILES(4)
static const TileFunction tiles[4][6] = {NAMES(tile, 1), NAMES(tile, 2), NAMES(tile, 3), NAMES(tile, 4)};
static const OuterFunction outers[4][6] = {NAMES(outer, 1), NAMES(outer, 2), NAMES(outer, 3), NAMES(outer, 4)};
#else
static const TileFunction tiles[2][6] = {NAMES(tile, 1), NAMES(tile, 2)};
static const OuterFunction outers[2][6] = {NAMES(outer, 1), NAMES(outer, 2)};
#endif
#undef TILE
#undef TILES
#undef NAMES

// Rows are spread evenly over tiles: 8 rows are 4 + 4, not 6 + 2, which would leave registers idle.
INLINE int next_rows(int64_t rows_left) {
    const int64_t groups = (rows_left + TILE_ROWS - 1) / TILE_ROWS;
    return (int)((rows_left + groups - 1) / groups);
}

// C (m, columns) = bias + A (m, k) W, or C += A W where bias is null. W is packed in panels; columns is a multiple of
// LANES.
FUNCTION void matmul(const real* A, int64_t lda, int64_t m, int64_t k, const real* W, int64_t columns, real* C,
                     int64_t ldc, const real* bias) {
    for (int64_t c = 0; c < columns; c += PANEL) {
        const int64_t V = (columns - c < PANEL ? columns - c : PANEL) / LANES;
        for (int64_t k0 = 0; k0 < k; k0 += BLOCK_K) {
            const int64_t depth = k - k0 < BLOCK_K ? k - k0 : BLOCK_K;
            const real* panel = W + c * k + k0 * V * LANES;
            const real* start = bias && k0 == 0 ? bias + c : 0;
            for (int64_t r = 0; r < m;) {
                const int R = next_rows(m - r);
                tiles[V - 1][R - 1](A + r * lda + k0, lda, depth, panel, C + r * ldc + c, ldc, start);
                r += R;
            }
        }
    }
}

// C (rows, columns) += Aᵀ D over n: A (n, rows), D (n, columns), columns a multiple of LANES.
FUNCTION void matmul_outer(const real* A, int64_t lda, int64_t rows, const real* D, int64_t ldd, int64_t columns,
                           int64_t n, real* C, int64_t ldc) {
    for (int64_t n0 = 0; n0 < n; n0 += BLOCK_K) {
        const int64_t depth = n - n0 < BLOCK_K ? n - n0 : BLOCK_K;
        for (int64_t c = 0; c < columns; c += PANEL) {
            const int64_t V = (columns - c < PANEL ? columns - c : PANEL) / LANES;
            for (int64_t r = 0; r < rows;) {
                const int R = next_rows(rows - r);
                outers[V - 1][R - 1](A + n0 * lda + r, lda, depth, D + n0 * ldd + c, ldd, C + r * ldc + c, ldc);
                r += R;
            }
        }
    }
}

// The place of element (k, column) of a packed (depth, columns) matrix.
INLINE int64_t packed_index(int64_t k, int64_t column, int64_t depth, int64_t columns) {
    const int64_t c = column / PANEL * PANEL;
    const int64_t width = columns - c < PANEL ? columns - c : PANEL;
    return c * depth + k * width + (column - c);
}
