/* The fused loops over time as a native CPU kernel: RNN, LSTM and GRU, forward and backward.
 *
 * A thread takes a slice of the rows (sequences) of one replica through all time steps; nothing waits between
 * steps. How rows are cut into slices depends on the shape alone, and slices share no sums, so every bit of the
 * result is the same for any number of threads.
 *
 * Compiled once for each precision (REAL float or double) and vector width (VBYTES). Vectors are the extension that
 * gcc and clang share, so the same source serves x86-64 and arm64.
 *
 * Letters: R replicas, T time steps, B sequences, I inputs, H units, G blocks of pre-activations (see kinds.py).
 * Tensors are contiguous: x (R,T,B,I), gates (R,T,B,G*H), out and cells (R,T,B,H), h0 and c0 (R,B,H).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VL ((int)(VBYTES / sizeof(REAL)))
#define NV 4 /* vectors in a panel: the LSTM's and GRU's four blocks of VL units, or 4*VL units of an RNN */
#define INLINE static inline __attribute__((always_inline))

typedef REAL vec __attribute__((vector_size(VBYTES)));
typedef REAL vec_any __attribute__((vector_size(VBYTES), aligned(sizeof(REAL)), may_alias)); /* at any address */

enum { RNN_TANH, RNN_RELU, RNN_SIGMOID, RNN_IDENTITY, LSTM, GRU };

typedef struct {
    int64_t kind, R, T, B, I, H, slices; /* slices: of each replica's rows */
} Shape;

INLINE vec splat(REAL a) { return a - (vec){}; }

/* n of a vector's lanes, the others zero; n >= VL is all of them. */
INLINE vec load(const REAL *p, int64_t n) {
    if (n >= VL) return *(const vec_any *)p;
    vec v = {};
    for (int64_t k = 0; k < n; k++) v[k] = p[k];
    return v;
}

INLINE void store(REAL *p, vec v, int64_t n) {
    if (n >= VL) { *(vec_any *)p = v; return; }
    for (int64_t k = 0; k < n; k++) p[k] = v[k];
}

INLINE double total(vec v) {
    double sum = 0;
    for (int k = 0; k < VL; k++) sum += v[k];
    return sum;
}

/* A sum of squares of which `plain` may have underflowed; `small` has every number times 2^60. */
INLINE double squares(vec plain, vec small) {
    double sum = total(plain);
    return sum < 1e-25 ? total(small) * 0x1p-120 : sum;
}

/* ---- activations ---- */

#if IS_DOUBLE
/* Double precision is for exactness: the C library's functions, lane by lane. */
INLINE vec v_tanh(vec x) { for (int k = 0; k < VL; k++) x[k] = tanh(x[k]); return x; }
INLINE vec v_sigmoid(vec x) { for (int k = 0; k < VL; k++) x[k] = 1 / (1 + exp(-x[k])); return x; }
#else
typedef int32_t ivec __attribute__((vector_size(VBYTES)));

INLINE vec blend(ivec condition, vec yes, vec no) { return (vec)((condition & (ivec)yes) | (~condition & (ivec)no)); }

/* exp by reduction to [-ln2/2, ln2/2] and a polynomial; NaN stays NaN, the ends saturate at 2^-126 and 2^127. */
INLINE vec v_exp(vec x) {
    x = blend(x > splat(88.0f), splat(88.0f), x);
    x = blend(x < splat(-87.3f), splat(-87.3f), x);
    vec n = x * splat(1.44269504f) + splat(12582912.0f); /* 1.5*2^23: rounds to a whole number */
    ivec bits = ((ivec)n - (ivec)splat(12582912.0f)) << 23;
    n = n - splat(12582912.0f);
    vec r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    vec p = splat(1.9875691500e-4f); /* Cephes expf */
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * (r * r) + r + splat(1.0f);
    return (vec)((ivec)p + bits);
}

INLINE vec v_sigmoid(vec x) { return splat(1.0f) / (splat(1.0f) + v_exp(-x)); }

/* Rational minimax approximation on +-7.9, beyond which tanh is within 3e-7 of +-1. */
INLINE vec v_tanh(vec x) {
    x = blend(x > splat(7.90531111f), splat(7.90531111f), x);
    x = blend(x < splat(-7.90531111f), splat(-7.90531111f), x);
    vec s = x * x;
    vec p = splat(-2.76076847742355e-16f);
    p = p * s + splat(2.00018790482477e-13f);
    p = p * s + splat(-8.60467152213735e-11f);
    p = p * s + splat(5.12229709037114e-08f);
    p = p * s + splat(1.48572235717979e-05f);
    p = p * s + splat(6.37261928875436e-04f);
    p = p * s + splat(4.89352455891786e-03f);
    vec q = splat(1.19825839466702e-06f);
    q = q * s + splat(1.18534705686654e-04f);
    q = q * s + splat(2.26843463243900e-03f);
    q = q * s + splat(4.89352518554385e-03f);
    return x * p / q;
}
#endif

INLINE vec positive(vec x, vec value) { /* value where x > 0; NaN where x is NaN */
    for (int k = 0; k < VL; k++) value[k] = x[k] > 0 ? value[k] : x[k] != x[k] ? x[k] : 0;
    return value;
}

/* ---- products: a tile of MR rows by NC vectors, written out by the compiler for each constant MR ---- */

#define TILE(MR, NC)                                                                                                  \
    INLINE void tile_##MR##x##NC(const REAL *const *rows, const REAL *panel, int64_t K, vec *z, int64_t stride) {     \
        vec acc[MR][NC] = {}; /* from zero, then added: the rounding of z, often larger, enters once */                   \
        for (int64_t k = 0; k < K; k++) {                                                                             \
            vec w[NC];                                                                                                \
            for (int c = 0; c < NC; c++) w[c] = *(const vec *)(panel + (k * NC + c) * VL);                            \
            for (int r = 0; r < MR; r++) {                                                                            \
                vec a = splat(rows[r][k]);                                                                            \
                for (int c = 0; c < NC; c++) acc[r][c] += a * w[c];                                                   \
            }                                                                                                         \
        }                                                                                                             \
        for (int r = 0; r < MR; r++)                                                                                  \
            for (int c = 0; c < NC; c++) z[r * stride + c] += acc[r][c];                                              \
    }
TILE(1, 4)
TILE(2, 4)
TILE(3, 4)
TILE(1, 3)
TILE(2, 3)
TILE(4, 3)
TILE(1, 2)
TILE(2, 2)
TILE(3, 2)
TILE(6, 2)

/* z (m rows, 4 vectors each) += a (m rows of K) times a panel. */
static void product4(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z) {
    const REAL *rows[3];
    for (int64_t r = 0; r < m; r += 3) {
        for (int64_t k = 0; k < 3 && r + k < m; k++) rows[k] = a + (r + k) * lda;
        if (m - r >= 3) tile_3x4(rows, panel, K, z + r * 4, 4);
        else if (m - r == 2) tile_2x4(rows, panel, K, z + r * 4, 4);
        else tile_1x4(rows, panel, K, z + r * 4, 4);
    }
}

/* z (m rows of four vectors, three of them) += a (m rows of K) times a panel. */
static void product3(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z) {
    const REAL *rows[4];
    for (int64_t r = 0; r < m;) {
        for (int64_t k = 0; k < 4 && r + k < m; k++) rows[k] = a + (r + k) * lda;
        if (m - r >= 4) { tile_4x3(rows, panel, K, z + r * NV, NV); r += 4; }
        else if (m - r >= 2) { tile_2x3(rows, panel, K, z + r * NV, NV); r += 2; }
        else { tile_1x3(rows, panel, K, z + r * NV, NV); r += 1; }
    }
}

/* z (m rows of `stride` vectors, two of them) += a (m rows of K) times a panel. */
static void product2(const REAL *a, int64_t lda, int64_t m, const REAL *panel, int64_t K, vec *z, int64_t stride) {
    const REAL *rows[6];
    for (int64_t r = 0; r < m;) {
        for (int64_t k = 0; k < 6 && r + k < m; k++) rows[k] = a + (r + k) * lda;
        if (m - r >= 6) { tile_6x2(rows, panel, K, z + r * stride, stride); r += 6; }
        else if (m - r >= 3) { tile_3x2(rows, panel, K, z + r * stride, stride); r += 3; }
        else if (m - r == 2) { tile_2x2(rows, panel, K, z + r * stride, stride); r += 2; }
        else { tile_1x2(rows, panel, K, z + r * stride, stride); r += 1; }
    }
}

/* ---- memory ---- */

static REAL *take(int64_t count) {
    void *p = NULL;
    size_t bytes = (size_t)(count > 0 ? count : 1) * sizeof(REAL);
    return posix_memalign(&p, 64, (bytes + 63) / 64 * 64) ? NULL : (REAL *)p;
}

/* A row stride of an odd number of cache lines: rows do not fall on the same sets. */
static int64_t odd_lines(int64_t count) {
    int64_t line = 64 / sizeof(REAL), lines = (count + line - 1) / line;
    return (lines | 1) * line;
}

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

int64_t blocks(int64_t kind) { return kind == LSTM || kind == GRU ? 4 : 1; }

/* ---- forward ---- */

/* A panel holds the weights of VL units (RNN: 4*VL): first the biases of its four vectors, then a row of vectors for
 * each of the H states and I inputs. The GRU's rows have three vectors, blocks r, z, n_h for a state and n_x, r, z for an
 * input: a zero in the fourth would turn an infinite input into NaN. */
static int64_t row_vectors(int64_t kind) { return kind == GRU ? 3 : NV; }
static int64_t panel_size(const Shape *s) { return (NV + (s->H + s->I) * row_vectors(s->kind)) * VL; }

static void pack_forward(const Shape *s, const REAL *w_x, const REAL *w_h, const REAL *b, REAL *panels) {
    int64_t H = s->H, I = s->I, G = blocks(s->kind), units = NV * VL / G, width = row_vectors(s->kind);
    for (int64_t p = 0; p * units < H; p++) {
        REAL *bias = panels + p * panel_size(s), *rows = bias + NV * VL;
        for (int64_t v = 0; v < NV; v++)
            for (int64_t l = 0; l < VL; l++) {
                int64_t block = G == 4 ? v : 0, unit = p * units + (G == 4 ? 0 : v * VL) + l, inside = unit < H;
                bias[v * VL + l] = inside ? b[block * H + unit] : 0;
                if (v >= width) continue; /* for the GRU, vector v of a row is block v of w_h's, or of w_x's, three */
                for (int64_t k = 0; k < H; k++) rows[(k * width + v) * VL + l] = inside ? w_h[(block * H + unit) * H + k] : 0;
                for (int64_t k = 0; k < I; k++)
                    rows[((H + k) * width + v) * VL + l] = inside ? w_x[(block * H + unit) * I + k] : 0;
            }
    }
}

/* Rows from .. from+m of replica r through all time steps. */
static int forward_slice(const Shape *s, int64_t r, int64_t from, int64_t m, const REAL *x, const REAL *panels,
                         const REAL *h0, const REAL *c0, REAL *gates, REAL *out, REAL *cells) {
    int64_t H = s->H, I = s->I, T = s->T, B = s->B, K = H + I, G = blocks(s->kind), units = NV * VL / G;
    int64_t lda = odd_lines(K), padded = up(H, VL), size = panel_size(s);
    REAL *a = take(2 * m * lda), *c = take(m * padded);
    vec *z = (vec *)take(m * NV * VL);
    int failed = !a || !c || !z;
    if (!failed) {
        memset(c, 0, m * padded * sizeof(REAL));
        for (int64_t k = 0; k < m; k++) {
            memcpy(a + k * lda, h0 + (r * B + from + k) * H, H * sizeof(REAL));
            memcpy(c + k * padded, c0 + (r * B + from + k) * H, H * sizeof(REAL));
        }
        for (int64_t t = 0; t < T; t++) {
            REAL *now = a + (t % 2) * m * lda, *next = a + ((t + 1) % 2) * m * lda;
            int64_t first = (r * T + t) * B + from;
            for (int64_t k = 0; k < m; k++) memcpy(now + k * lda + H, x + (first + k) * I, I * sizeof(REAL));
            for (int64_t p = 0; p * units < H; p++) {
                const REAL *panel = panels + p * size, *rows = panel + NV * VL;
                for (int64_t k = 0; k < m * NV; k++) z[k] = ((const vec *)panel)[k % NV];
                if (s->kind == GRU) {
                    product3(now, lda, m, rows, H, z + 1);
                    product3(now + H, lda, m, rows + H * 3 * VL, I, z);
                } else {
                    product4(now, lda, m, rows, K, z);
                }
                int64_t u = p * units, n = H - u;
                for (int64_t k = 0; k < m; k++) {
                    REAL *g = gates + (first + k) * G * H + u, *o = out + (first + k) * H + u, *h = next + k * lda + u;
                    vec *y = z + k * NV;
                    if (s->kind == LSTM) {
                        REAL *state = c + k * padded + u;
                        vec in = v_sigmoid(y[0]), forget = v_sigmoid(y[1]), candidate = v_tanh(y[2]), open = v_sigmoid(y[3]);
                        vec cell = forget * load(state, VL) + in * candidate, hidden = open * v_tanh(cell);
                        *(vec_any *)state = cell;
                        store(g, in, n), store(g + H, forget, n), store(g + 2 * H, candidate, n), store(g + 3 * H, open, n);
                        store(cells + (first + k) * H + u, cell, n), store(o, hidden, n), store(h, hidden, n);
                    } else if (s->kind == GRU) {
                        vec reset = v_sigmoid(y[1]), update = v_sigmoid(y[2]), candidate = v_tanh(y[0] + reset * y[3]);
                        vec hidden = candidate + update * (load(now + k * lda + u, n) - candidate);
                        store(g, candidate, n), store(g + H, reset, n), store(g + 2 * H, update, n), store(g + 3 * H, y[3], n);
                        store(o, hidden, n), store(h, hidden, n);
                    } else {
                        for (int64_t v = 0; v < NV && v * VL < n; v++) {
                            vec hidden = s->kind == RNN_TANH      ? v_tanh(y[v])
                                         : s->kind == RNN_SIGMOID ? v_sigmoid(y[v])
                                         : s->kind == RNN_RELU    ? positive(y[v], y[v])
                                                                  : y[v];
                            store(g + v * VL, hidden, n - v * VL), store(o + v * VL, hidden, n - v * VL);
                            store(h + v * VL, hidden, n - v * VL);
                        }
                    }
                }
            }
        }
    }
    free(a), free(c), free(z);
    return failed;
}

/* Returns 0, or 1 where memory ran out. gates, out and, for the LSTM, cells are filled. */
int forward(const Shape *s, const REAL *x, const REAL *w_x, const REAL *w_h, const REAL *b, const REAL *h0,
            const REAL *c0, REAL *gates, REAL *out, REAL *cells, int threads) {
    int64_t G = blocks(s->kind), units = NV * VL / G, size = up(s->H, units) / units * panel_size(s);
    int64_t x_blocks = s->kind == GRU ? 3 : G, h_blocks = x_blocks;
    REAL *panels = take(s->R * size);
    if (!panels) return 1;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t r = 0; r < s->R; r++)
        pack_forward(s, w_x + r * x_blocks * s->H * s->I, w_h + r * h_blocks * s->H * s->H, b + r * G * s->H, panels + r * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) reduction(| : failed)
    for (int64_t job = 0; job < s->R * s->slices; job++) {
        int64_t r = job / s->slices, part = job % s->slices;
        int64_t from = s->B * part / s->slices, to = s->B * (part + 1) / s->slices;
        if (to > from)
            failed |= forward_slice(s, r, from, to - from, x, panels + r * size, h0, c0, gates, out, cells);
    }
    free(panels);
    return failed;
}

/* ---- backward ---- */

/* w_h (K = h_blocks*H rows, H columns) of one replica as panels of two vectors of columns. */
static void pack_backward(int64_t K, int64_t H, const REAL *w_h, REAL *panels) {
    for (int64_t p = 0; p * 2 * VL < H; p++)
        for (int64_t k = 0; k < K; k++)
            for (int64_t l = 0; l < 2 * VL; l++) {
                int64_t column = p * 2 * VL + l;
                panels[(p * K + k) * 2 * VL + l] = column < H ? w_h[k * H + column] : 0;
            }
}

static int backward_slice(const Shape *s, int64_t r, int64_t from, int64_t m, const REAL *panels, const REAL *h0,
                          const REAL *c0, const REAL *gates, const REAL *out, const REAL *cells, const REAL *d_out,
                          const REAL *d_last, REAL *d_gates, REAL *d_h0, REAL *d_c0, double *h_rows, double *c_rows) {
    int64_t H = s->H, T = s->T, B = s->B, G = blocks(s->kind), h_blocks = s->kind == GRU ? 3 : G, K = h_blocks * H;
    int64_t padded = odd_lines(up(H, 2 * VL)), block = 256;
    REAL *dh = take(m * padded), *dc = take(m * padded);
    int failed = !dh || !dc;
    if (!failed) {
        memset(dh, 0, m * padded * sizeof(REAL)), memset(dc, 0, m * padded * sizeof(REAL));
        if (s->kind == LSTM)
            for (int64_t k = 0; k < m; k++) memcpy(dc + k * padded, d_last + (r * B + from + k) * H, H * sizeof(REAL));
        const vec one = splat(1), scale = splat(0x1p60);
        for (int64_t t = T - 1; t >= 0; t--) {
            int64_t first = (r * T + t) * B + from;
            for (int64_t k = 0; k < m; k++) {
                const REAL *g = gates + (first + k) * G * H, *direct = d_out + (first + k) * H, *o = out + (first + k) * H;
                const REAL *h_before = t ? o - B * H : h0 + (r * B + from + k) * H;
                const REAL *cell = cells + (first + k) * H, *c_before = t ? cell - B * H : c0 + (r * B + from + k) * H;
                REAL *d = d_gates + (first + k) * G * H;
                vec h_sum = {}, c_sum = {}, h_small = {}, c_small = {};
                for (int64_t u = 0; u < H; u += VL) {
                    int64_t n = H - u;
                    REAL *here = dh + k * padded + u;
                    vec dhu = *(vec *)here + load(direct + u, n), kept = {};
                    h_sum += dhu * dhu, h_small += (dhu * scale) * (dhu * scale);
                    if (s->kind == LSTM) {
                        vec in = load(g + u, n), forget = load(g + H + u, n), candidate = load(g + 2 * H + u, n);
                        vec open = load(g + 3 * H + u, n), tanh_c = v_tanh(load(cell + u, n));
                        vec *state = (vec *)(dc + k * padded + u), dcu = *state + dhu * open * (one - tanh_c * tanh_c);
                        c_sum += dcu * dcu, c_small += (dcu * scale) * (dcu * scale);
                        store(d + u, dcu * candidate * (in * (one - in)), n);
                        store(d + H + u, dcu * load(c_before + u, n) * (forget * (one - forget)), n);
                        store(d + 2 * H + u, dcu * in * (one - candidate * candidate), n);
                        store(d + 3 * H + u, dhu * tanh_c * (open * (one - open)), n);
                        *state = dcu * forget;
                    } else if (s->kind == GRU) {
                        vec candidate = load(g + u, n), reset = load(g + H + u, n), update = load(g + 2 * H + u, n);
                        vec dn = dhu * (one - update) * (one - candidate * candidate);
                        store(d + u, dn, n);
                        store(d + H + u, dn * load(g + 3 * H + u, n) * (reset * (one - reset)), n);
                        store(d + 2 * H + u, dhu * (load(h_before + u, n) - candidate) * (update * (one - update)), n);
                        store(d + 3 * H + u, dn * reset, n);
                        kept = dhu * update;
                    } else {
                        vec h = load(o + u, n);
                        vec slope = s->kind == RNN_TANH      ? one - h * h
                                    : s->kind == RNN_SIGMOID ? h * (one - h)
                                    : s->kind == RNN_RELU    ? positive(h, one)
                                                             : one;
                        store(d + u, dhu * slope, n);
                    }
                    *(vec *)here = kept;
                }
                if (h_rows) h_rows[first + k] = squares(h_sum, h_small), c_rows[first + k] = squares(c_sum, c_small);
            }
            /* What reaches h_{t-1}: the last h_blocks of d times w_h, in blocks that fit the first cache. */
            const REAL *d = d_gates + first * G * H + (G - h_blocks) * H;
            for (int64_t p = 0; p * 2 * VL < H; p++)
                for (int64_t k = 0; k < K; k += block)
                    product2(d + k, G * H, m, panels + (p * K + k) * 2 * VL, K - k < block ? K - k : block,
                             (vec *)(dh + p * 2 * VL), padded / VL);
        }
        for (int64_t k = 0; k < m; k++) {
            memcpy(d_h0 + (r * B + from + k) * H, dh + k * padded, H * sizeof(REAL));
            memcpy(d_c0 + (r * B + from + k) * H, dc + k * padded, H * sizeof(REAL));
        }
    }
    free(dh), free(dc);
    return failed;
}

/* Returns 0, or 1 where memory ran out. d_gates, d_h0, d_c0 and the squared row norms (R,T,B), unless NULL, are filled. */
int backward(const Shape *s, const REAL *w_h, const REAL *h0, const REAL *c0, const REAL *gates, const REAL *out,
             const REAL *cells, const REAL *d_out, const REAL *d_last, REAL *d_gates, REAL *d_h0, REAL *d_c0,
             double *h_rows, double *c_rows, int threads) {
    int64_t h_blocks = s->kind == GRU ? 3 : blocks(s->kind), K = h_blocks * s->H, size = up(s->H, 2 * VL) * K;
    REAL *panels = take(s->R * size);
    if (!panels) return 1;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t r = 0; r < s->R; r++) pack_backward(K, s->H, w_h + r * K * s->H, panels + r * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) reduction(| : failed)
    for (int64_t job = 0; job < s->R * s->slices; job++) {
        int64_t r = job / s->slices, part = job % s->slices;
        int64_t from = s->B * part / s->slices, to = s->B * (part + 1) / s->slices;
        if (to > from)
            failed |= backward_slice(s, r, from, to - from, panels + r * size, h0, c0, gates, out, cells, d_out, d_last,
                                     d_gates, d_h0, d_c0, h_rows, c_rows);
    }
    free(panels);
    return failed;
}
