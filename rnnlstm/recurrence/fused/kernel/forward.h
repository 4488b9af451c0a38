/* The forward pass.
 *
 * A panel holds the weights of VL units (RNN: 4*VL): first the biases of its vectors, then a row of vectors for each
 * of the H states and I inputs. Rows have one vector for each block that the product enters. The GRU's have three,
 * blocks r, z, n_h for a state and n_x, r, z for an input: a zero in the fourth would make NaN of an infinite input. */
static int64_t row_vectors(int64_t kind) { return blocks(kind) == 1 ? NV : product_blocks(kind); }
static int64_t panel_units(int64_t kind) { return blocks(kind) == 1 ? NV * VL : VL; }
static int64_t panel_size(const Shape *s) { return (NV + (s->H + s->I) * row_vectors(s->kind)) * VL; }

static int64_t panel_count(const Shape *s) { return up(s->H, panel_units(s->kind)) / panel_units(s->kind); }

static void pack_forward(const Shape *s, int64_t p, const REAL *w_x, const REAL *w_h, const REAL *b, REAL *panel) {
    int64_t H = s->H, I = s->I, G = blocks(s->kind), units = panel_units(s->kind), width = row_vectors(s->kind);
    REAL *rows = panel + NV * VL;
    for (int64_t v = 0; v < NV; v++)
        for (int64_t l = 0; l < VL; l++) {
            int64_t block = G == 1 ? 0 : v, unit = p * units + (G == 1 ? v * VL : 0) + l, inside = unit < H;
            panel[v * VL + l] = inside && block < G ? b[block * H + unit] : 0;
            if (v >= width) continue; /* for the GRU, vector v of a row is block v of w_h's, or of w_x's, three */
            for (int64_t k = 0; k < H; k++)
                rows[(k * width + v) * VL + l] = inside ? w_h[(block * H + unit) * H + k] : 0;
            for (int64_t k = 0; k < I; k++)
                rows[((H + k) * width + v) * VL + l] = inside ? w_x[(block * H + unit) * I + k] : 0;
        }
}

/* Where a panel's results go, for one slice and time step: rows of n units from the panel's first one. */
typedef struct {
    REAL *gates, *out, *cells, *state, *next; /* state: c; next: h, where the next product reads it */
    const REAL *now;                          /* h before */
    int64_t ldg, H, lds, lda, m;
} Rows;

/* Activations of all rows first, then what follows from them: long chains of dependent instructions, which the
 * processor works on side by side only if they lie close together. */
INLINE void lstm_rows(Rows o, vec *z, int64_t n, const int forgets) {
    const int g = forgets ? 2 : 1, out = g + 1; /* blocks of candidate and output gate; the input gate's is 0 */
    for (int64_t k = 0; k < o.m; k++) {
        vec *y = z + k * NV;
        y[0] = v_sigmoid(y[0]);
        if (forgets) y[1] = v_sigmoid(y[1]);
        y[g] = v_tanh(y[g]), y[out] = v_sigmoid(y[out]);
    }
    for (int64_t k = 0; k < o.m; k++) {
        vec *y = z + k * NV, *state = (vec *)(o.state + k * o.lds);
        vec cell = (forgets ? y[1] * *state : *state) + y[0] * y[g], hidden = y[out] * v_tanh(cell);
        *state = cell;
        for (int b = 0; b <= out; b++) store(o.gates + k * o.ldg + b * o.H, y[b], n);
        store(o.cells + k * o.H, cell, n), store(o.out + k * o.H, hidden, n), store(o.next + k * o.lda, hidden, n);
    }
}

INLINE void gru_rows(Rows o, vec *z, int64_t n) {
    for (int64_t k = 0; k < o.m; k++) z[k * NV + 1] = v_sigmoid(z[k * NV + 1]), z[k * NV + 2] = v_sigmoid(z[k * NV + 2]);
    for (int64_t k = 0; k < o.m; k++) {
        vec *y = z + k * NV, reset = y[1], update = y[2], candidate = v_tanh(y[0] + reset * y[3]);
        vec hidden = candidate + update * (load(o.now + k * o.lda, n) - candidate);
        REAL *g = o.gates + k * o.ldg;
        store(g, candidate, n), store(g + o.H, reset, n), store(g + 2 * o.H, update, n), store(g + 3 * o.H, y[3], n);
        store(o.out + k * o.H, hidden, n), store(o.next + k * o.lda, hidden, n);
    }
}

INLINE void rnn_rows(Rows o, vec *z, int64_t n, int64_t kind) {
    for (int64_t k = 0; k < o.m; k++)
        for (int64_t v = 0; v < NV && v * VL < n; v++) {
            vec y = z[k * NV + v], hidden = kind == RNN_TANH      ? v_tanh(y)
                                            : kind == RNN_SIGMOID ? v_sigmoid(y)
                                            : kind == RNN_RELU    ? positive(y, y)
                                                                  : y;
            store(o.out + k * o.H + v * VL, hidden, n - v * VL), store(o.next + k * o.lda + v * VL, hidden, n - v * VL);
        }
}

static void pointwise(const Shape *s, Rows o, vec *z, int64_t n) {
    if (s->kind == LSTM) n >= VL ? lstm_rows(o, z, VL, 1) : lstm_rows(o, z, n, 1);
    else if (s->kind == LSTM_1997) n >= VL ? lstm_rows(o, z, VL, 0) : lstm_rows(o, z, n, 0);
    else if (s->kind == GRU) n >= VL ? gru_rows(o, z, VL) : gru_rows(o, z, n);
    else if (s->kind == RNN_TANH) n >= NV * VL ? rnn_rows(o, z, NV * VL, RNN_TANH) : rnn_rows(o, z, n, RNN_TANH);
    else rnn_rows(o, z, n, s->kind);
}

/* Rows from .. from+m of replica r through all time steps. */
static int forward_slice(const Shape *s, const int64_t *lengths, int64_t r, int64_t from, int64_t m, const REAL *x,
                         const REAL *panels, const REAL *h0, const REAL *c0, REAL *gates, REAL *out, REAL *cells) {
    const int64_t all = m;
    int64_t H = s->H, I = s->I, T = s->T, B = s->B, K = H + I, G = blocks(s->kind), units = panel_units(s->kind);
    int64_t lda = odd_lines(K), lds = up(H, VL), size = panel_size(s), kept = G == 1 ? 0 : G * H;
    REAL *a = take(2 * m * lda), *c = take(m * lds);
    vec *z = (vec *)take(m * NV * VL);
    int failed = !a || !c || !z;
    if (!failed) {
        memset(c, 0, m * lds * sizeof(REAL));
        for (int64_t k = 0; k < m; k++) {
            memcpy(a + k * lda, h0 + (r * B + from + k) * H, H * sizeof(REAL));
            memcpy(c + k * lds, c0 + (r * B + from + k) * H, H * sizeof(REAL));
        }
        for (int64_t t = 0; t < T; t++) {
            REAL *now = a + (t % 2) * all * lda, *next = a + ((t + 1) % 2) * all * lda;
            m = active(lengths, from, m, t);
            int64_t first = (r * T + t) * B + from;
            for (int64_t k = 0; k < m; k++) memcpy(now + k * lda + H, x + (first + k) * I, I * sizeof(REAL));
            for (int64_t p = 0; p * units < H; p++) {
                const REAL *panel = panels + p * size, *rows = panel + NV * VL;
                for (int64_t k = 0; k < m * NV; k++) z[k] = ((const vec *)panel)[k % NV];
                if (s->kind == GRU) {
                    product3(now, lda, m, rows, H, z + 1);
                    product3(now + H, lda, m, rows + H * 3 * VL, I, z);
                } else if (s->kind == LSTM_1997) {
                    product3(now, lda, m, rows, K, z);
                } else {
                    product4(now, lda, m, rows, K, z);
                }
                int64_t u = p * units;
                Rows o = {gates + first * kept + u, out + first * H + u, cells + first * H + u, c + u, next + u, now + u,
                          kept, H, lds, lda, m};
                pointwise(s, o, z, H - u);
            }
        }
    }
    free(a), free(c), free(z);
    return failed;
}

/* Returns 0, or 1 where memory ran out. Fills gates (not of an RNN), out and, for the LSTMs, cells. */
int forward(const Shape *s, const int64_t *lengths, const REAL *x, const REAL *w_x, const REAL *w_h,
            const REAL *b, const REAL *h0, const REAL *c0, REAL *gates, REAL *out, REAL *cells, int threads) {
    int64_t G = blocks(s->kind), rows = product_blocks(s->kind) * s->H, count = panel_count(s);
    int64_t size = count * panel_size(s);
    REAL *panels = take(s->R * size);
    if (!panels) return 1;
    int failed = 0;
    fenv_t mode;
    fegetenv(&mode);
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        fenv_t before;
        fegetenv(&before), fesetenv(&mode);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < s->R * count; p++) {
            int64_t r = p / count;
            pack_forward(s, p % count, w_x + r * rows * s->I, w_h + r * rows * s->H, b + r * G * s->H, panels + p * panel_size(s));
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < s->R * s->slices; job++) {
            int64_t r = job / s->slices, part = job % s->slices;
            int64_t from = s->B * part / s->slices, to = s->B * (part + 1) / s->slices;
            if (to > from)
                failed |= forward_slice(s, lengths, r, from, to - from, x, panels + r * size, h0, c0, gates, out, cells);
        }
        fesetenv(&before);
    }
    free(panels);
    return failed;
}
