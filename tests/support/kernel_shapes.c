/* The native kernel, forward and backward, over odd shapes; to be compiled with sanitizers (tests/recurrence/test_kernel_shapes.py).
 * Every buffer has exactly its size, so that a read or write beyond it is seen, and is NaN where nothing was written, so
 * that a use of it is. Prints the number of shapes and a sum. */
#include "../../rnnlstm/recurrence/fused/kernel/kernel.c"

#include <stdio.h>
#include <stdlib.h>

static void *held[64];
static int count;

static void *exactly(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes > 0 ? bytes : 1)) exit(1);
    return memset(held[count++] = p, 0xff, bytes > 0 ? bytes : 1);
}
static REAL *empty(size_t n) { return exactly(n * sizeof(REAL)); }

static REAL *some(size_t n) {
    REAL *p = empty(n);
    for (size_t i = 0; i < n; i++) p[i] = (REAL)((i * 2654435761u) % 1000) / 1000 - (REAL)0.5;
    return p;
}

static double total_of(const REAL *p, size_t n) {
    double sum = 0;
    for (size_t i = 0; p && i < n; i++) sum += p[i];
    return sum;
}

/* What callers leave out in turn: tokens or numbers as inputs, d_x, the norms, lengths, a map of scored rows, d_last.
 * Returns a sum over what was computed. */
static double one_shape(Call c, int turn) {
    size_t R = c.R, T = c.T, B = c.B, H = c.H, G = blocks(c.kind), P = product_blocks(c.kind), rows = R * T * B;
    int with_norms = turn % 3 != 0, with_tokens = turn % 4 == 1;
    if (turn % 5 < 2) {
        int64_t *lengths = exactly(8 * B); /* of each sequence, the longest first */
        for (size_t k = 0; k < B; k++) lengths[k] = c.T - (int64_t)(k * T / (B + 1));
        c.lengths = lengths;
    }
    if (with_tokens) {
        int64_t *tokens = exactly(8 * rows);
        for (size_t k = 0; k < rows; k++) tokens[k] = k * 7 % (c.V = 6);
        c.I = 0, c.tokens = tokens;
    }
    if (turn % 7 < 3) {
        int64_t *scored = exactly(8 * R * (c.N = T * B > 3 ? 3 : 1));
        for (size_t k = 0; k < R * c.N; k++) scored[k] = k % c.N == 1 && turn % 2 ? -1 : (int64_t)(T * B - 1 - k % c.N);
        c.scored = scored;
    }
    size_t I = c.I, kept = G == 1 ? 0 : R * c.slices * T * panel_count(&c) * most_rows(&c) * NV * VL;
    c.x = some(rows * I), c.w_x = some(R * P * H * I), c.w_h = some(R * P * H * H), c.table = some(R * c.V * G * H);
    c.h0 = some(R * B * H), c.c0 = some(R * B * H), c.gates = empty(kept), c.out = empty(rows * H);
    c.cells = empty(has_cell(c.kind) ? rows * H : 0), c.d_out = some(c.scored ? R * c.N * H : rows * H);
    c.d_last = turn % 2 ? some(R * B * H) : NULL, c.d_x = turn % 2 ? empty(rows * I) : NULL;
    c.d_w_x = empty(R * P * H * I), c.d_w_h = empty(R * P * H * H), c.d_table = empty(R * c.V * G * H);
    c.d_h0 = empty(R * B * H), c.d_c0 = empty(R * B * H);
    if (with_norms) c.h_rows = exactly(8 * rows), c.c_rows = exactly(8 * rows), c.block_rows = exactly(8 * rows * G);
    c.scratch = exactly(scratch_bytes(&c, 1));
    if (forward(&c) != DONE) exit(2);
    c.scratch = exactly(scratch_bytes(&c, 0));
    if (backward(&c) != DONE) exit(3);
    double sum = total_of(c.d_w_h, R * P * H * H) + total_of(c.d_w_x, R * P * H * I) + total_of(c.d_h0, R * B * H);
    sum += total_of(c.d_table, R * c.V * G * H) + total_of(c.d_c0, R * B * H);
    if (!c.lengths) sum += total_of(c.out, rows * H) + total_of(c.d_x, rows * I);
    for (size_t i = 0; with_norms && !c.lengths && i < rows; i++) sum += c.h_rows[i] + c.c_rows[i] + c.block_rows[i];
    const REAL *both[] = {c.w_h, c.d_h0};
    double sums[2 * 8];
    squares(2, R, both, (int64_t[]){P * H * H, B * H}, sums);
    sum += sums[0] + sums[2 * R - 1];
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
                        Call c = {.kind = kind, .R = 1 + (b + h) % 2, .T = Ts[t], .B = Bs[b], .I = Is[i], .H = Hs[h],
                                  .V = 1, .slices = Bs[b] > 4 ? 2 : 1, .threads = 1};
                        sum += one_shape(c, shapes);
                    }
    printf("%d shapes, sum %.7g\n", shapes, sum);
    return sum != sum;
}
