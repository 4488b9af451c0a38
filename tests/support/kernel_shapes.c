/* The native kernel, forward and backward, over odd shapes; to be compiled with sanitizers (tests/recurrence/test_kernel_shapes.py).
 * Every buffer has exactly its size, so that a read or write beyond it is seen. Prints the number of shapes and a sum. */
#include "../../rnnlstm/recurrence/fused/kernel/kernel.c"

#include <stdio.h>

static void *held[64];
static int count;

static void *exactly(size_t bytes) { return held[count++] = malloc(bytes > 0 ? bytes : 1); }

static REAL *some(size_t n) {
    REAL *p = exactly(n * sizeof(REAL));
    for (size_t i = 0; i < n; i++) p[i] = (REAL)((i * 2654435761u) % 1000) / 1000 - (REAL)0.5;
    return p;
}

/* d_x and the norms are left out in turn, as callers do. Returns a sum over what was computed. */
static double one_shape(const Shape *s, int with_x, int with_norms, int with_lengths) {
    int64_t *lengths = with_lengths ? exactly(8 * s->B) : NULL; /* of each sequence, the longest first */
    for (int64_t k = 0; with_lengths && k < s->B; k++) lengths[k] = s->T - k * s->T / (s->B + 1);
    size_t R = s->R, T = s->T, B = s->B, I = s->I, H = s->H, G = blocks(s->kind), P = product_blocks(s->kind);
    size_t rows = R * T * B, kept = G == 1 ? 0 : G * H;
    REAL *x = some(rows * I), *w_x = some(R * P * H * I), *w_h = some(R * P * H * H), *b = some(R * G * H);
    REAL *h0 = some(R * B * H), *c0 = some(R * B * H), *gates = some(rows * kept), *out = some(rows * H);
    REAL *cells = some(has_cell(s->kind) ? rows * H : 0), *d_out = some(rows * H), *d_last = some(R * B * H);
    REAL *d_x = with_x ? some(rows * I) : NULL, *d_w_x = some(R * P * H * I), *d_w_h = some(R * P * H * H);
    REAL *d_b = some(R * G * H), *d_h0 = some(R * B * H), *d_c0 = some(R * B * H);
    double *h_rows = NULL, *c_rows = NULL, *block_rows = NULL, sum = 0;
    if (with_norms) h_rows = exactly(8 * rows), c_rows = exactly(8 * rows), block_rows = exactly(8 * rows * G);
    if (with_norms) memset(h_rows, 0, 8 * rows);
    if (forward(s, lengths, x, w_x, w_h, b, h0, c0, gates, out, cells, 1) ||
        backward(s, lengths, x, w_x, w_h, h0, c0, gates, out, cells, d_out, d_last, d_x, d_w_x, d_w_h, d_b, d_h0, d_c0,
                 h_rows, c_rows, block_rows, 1))
        exit(1);
    for (size_t i = 0; i < R * P * H * H; i++) sum += d_w_h[i];
    for (size_t i = 0; i < R * P * H * I; i++) sum += d_w_x[i];
    for (size_t i = 0; i < R * G * H; i++) sum += d_b[i];
    for (size_t i = 0; with_norms && i < rows; i++) sum += h_rows[i];
    while (count > 0) free(held[--count]);
    return sum;
}

int main(void) {
    const int64_t Bs[] = {1, 2, 3, 7, 17, 33}, Ts[] = {1, 2, 9}, Hs[] = {1, 3, 8, 13, 33, 64}, Is[] = {1, 5, 32};
    double sum = 0;
    int shapes = 0;
    for (int kind = RNN_TANH; kind <= GRU; kind++)
        for (int b = 0; b < 6; b++)
            for (int t = 0; t < 3; t++)
                for (int h = 0; h < 6; h++)
                    for (int i = 0; i < 3; i++, shapes++) {
                        Shape s = {kind, 1 + (b + h) % 2, Ts[t], Bs[b], Is[i], Hs[h], Bs[b] > 4 ? 2 : 1};
                        sum += one_shape(&s, shapes % 2, shapes % 3, shapes % 5 < 2);
                    }
    printf("%d shapes, sum %.7g\n", shapes, sum);
    return 0;
}
