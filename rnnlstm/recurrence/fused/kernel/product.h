/* Matrix products in tiles of a few rows by a few vectors, whose sums stay in registers.
 *
 * Every tile is summed from zero and then added to what is there: the rounding of a long sum enters once. */

/* z (MR rows of `stride` vectors, NC of them) += a (MR rows of K) times a panel (K rows of NC vectors). Few rows
 * leave the multipliers waiting for one another: UK sums over every UK-th k keep them busy. */
#define TILE(MR, NC, UK)                                                                                              \
    INLINE void tile_##MR##x##NC(const REAL *a, int64_t lda, const REAL *panel, int64_t K, vec *z, int64_t stride) {  \
        vec acc[UK][MR][NC] = {};                                                                                     \
        int64_t k = 0;                                                                                                \
        for (; k + UK <= K; k += UK)                                                                                  \
            for (int u = 0; u < UK; u++) {                                                                            \
                vec w[NC];                                                                                            \
                for (int c = 0; c < NC; c++) w[c] = *(const vec *)(panel + ((k + u) * NC + c) * VL);                  \
                for (int r = 0; r < MR; r++) {                                                                        \
                    vec s = splat(a[r * lda + k + u]);                                                                \
                    for (int c = 0; c < NC; c++) acc[u][r][c] += s * w[c];                                            \
                }                                                                                                     \
            }                                                                                                         \
        for (; k < K; k++)                                                                                            \
            for (int r = 0; r < MR; r++)                                                                              \
                for (int c = 0; c < NC; c++)                                                                          \
                    acc[0][r][c] += splat(a[r * lda + k]) * *(const vec *)(panel + (k * NC + c) * VL);                \
        for (int r = 0; r < MR; r++)                                                                                  \
            for (int c = 0; c < NC; c++) {                                                                            \
                vec sum = acc[0][r][c];                                                                               \
                for (int u = 1; u < UK; u++) sum += acc[u][r][c];                                                     \
                z[r * stride + c] += sum;                                                                             \
            }                                                                                                         \
    }
#define REGISTERS (VBYTES == 64 ? 32 : 16) /* vectors that the processor holds; arm64 holds 32 halves of one */
TILE(6, 4, 1)
TILE(4, 4, 1)
TILE(1, 4, 2)
TILE(2, 4, 1)
TILE(3, 4, 1)
TILE(1, 3, 2)
TILE(2, 3, 1)
TILE(4, 3, 1)
TILE(1, 2, 4)
TILE(2, 2, 2)
TILE(4, 2, 1)
TILE(6, 2, 1)
TILE(8, 2, 1)
TILE(8, 3, 1)

/* z (m rows of 4 vectors) += a (m rows of K) times a panel of four vectors. */
static void product4(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z) {
    if (REGISTERS > 16) {
        for (; m >= 6; m -= 6, a += 6 * lda, z += 6 * 4) tile_6x4(a, lda, panel, K, z, 4);
        if (m >= 4) tile_4x4(a, lda, panel, K, z, 4), m -= 4, a += 4 * lda, z += 4 * 4;
    }
    for (; m >= 3; m -= 3, a += 3 * lda, z += 3 * 4) tile_3x4(a, lda, panel, K, z, 4);
    if (m == 2) tile_2x4(a, lda, panel, K, z, 4);
    if (m == 1) tile_1x4(a, lda, panel, K, z, 4);
}

/* z (m rows of 4 vectors, three of them) += a (m rows of K) times a panel of three vectors. */
static void product3(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z) {
    for (; REGISTERS > 16 && m >= 8; m -= 8, a += 8 * lda, z += 8 * 4) tile_8x3(a, lda, panel, K, z, 4);
    for (; m >= 4; m -= 4, a += 4 * lda, z += 4 * 4) tile_4x3(a, lda, panel, K, z, 4);
    if (m >= 2) tile_2x3(a, lda, panel, K, z, 4), m -= 2, a += 2 * lda, z += 2 * 4;
    if (m == 1) tile_1x3(a, lda, panel, K, z, 4);
}

/* z (m rows of `stride` vectors, two of them) += a (m rows of K) times a panel of two vectors. */
static void product2(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z, int64_t stride) {
    for (; REGISTERS > 16 && m >= 8; m -= 8, a += 8 * lda, z += 8 * stride) tile_8x2(a, lda, panel, K, z, stride);
    for (; m >= 6; m -= 6, a += 6 * lda, z += 6 * stride) tile_6x2(a, lda, panel, K, z, stride);
    if (m >= 4) tile_4x2(a, lda, panel, K, z, stride), m -= 4, a += 4 * lda, z += 4 * stride;
    if (m >= 2) tile_2x2(a, lda, panel, K, z, stride), m -= 2, a += 2 * lda, z += 2 * stride;
    if (m == 1) tile_1x2(a, lda, panel, K, z, stride);
}

/* w (MR rows of ldw, NC vectors of them) += the sum over n rows of d (MR columns) times v (NC vectors); where w is
 * `fresh`, it has nothing to add to. */
#define OUTER(MR, NC)                                                                                                 \
    INLINE void outer_##MR##x##NC(const REAL *d, int64_t ldd, const REAL *v, int64_t ldv, int64_t n, REAL *w,         \
                                  int64_t ldw, int fresh) {                                                           \
        vec acc[MR][NC] = {};                                                                                         \
        for (int64_t k = 0; k < n; k++) {                                                                             \
            vec x[NC];                                                                                                \
            for (int c = 0; c < NC; c++) x[c] = *(const vec *)(v + k * ldv + c * VL);                                 \
            for (int r = 0; r < MR; r++) {                                                                            \
                vec s = splat(d[k * ldd + r]);                                                                        \
                for (int c = 0; c < NC; c++) acc[r][c] += s * x[c];                                                   \
            }                                                                                                         \
        }                                                                                                             \
        for (int r = 0; r < MR; r++)                                                                                  \
            for (int c = 0; c < NC; c++) {                                                                            \
                vec *to = (vec *)(w + r * ldw + c * VL);                                                              \
                *to = fresh ? acc[r][c] : *to + acc[r][c];                                                            \
            }                                                                                                         \
    }
OUTER(8, 2)
OUTER(6, 2)
OUTER(4, 2)
OUTER(2, 2)
OUTER(1, 2)
OUTER(6, 1)
OUTER(1, 1)

/* As OUTER, for `rows` columns of d and one or two vectors. */
static void outer_product(const REAL *d, int64_t ldd, int64_t rows, const REAL *v, int64_t ldv, int64_t vectors,
                          int64_t n, REAL *w, int64_t ldw, int fresh) {
    if (vectors == 1) {
        for (; rows >= 6; rows -= 6, d += 6, w += 6 * ldw) outer_6x1(d, ldd, v, ldv, n, w, ldw, fresh);
        for (; rows >= 1; rows -= 1, d += 1, w += ldw) outer_1x1(d, ldd, v, ldv, n, w, ldw, fresh);
        return;
    }
    for (; REGISTERS > 16 && rows >= 8; rows -= 8, d += 8, w += 8 * ldw) outer_8x2(d, ldd, v, ldv, n, w, ldw, fresh);
    for (; rows >= 6; rows -= 6, d += 6, w += 6 * ldw) outer_6x2(d, ldd, v, ldv, n, w, ldw, fresh);
    if (rows >= 4) outer_4x2(d, ldd, v, ldv, n, w, ldw, fresh), rows -= 4, d += 4, w += 4 * ldw;
    if (rows >= 2) outer_2x2(d, ldd, v, ldv, n, w, ldw, fresh), rows -= 2, d += 2, w += 2 * ldw;
    if (rows == 1) outer_1x2(d, ldd, v, ldv, n, w, ldw, fresh);
}
