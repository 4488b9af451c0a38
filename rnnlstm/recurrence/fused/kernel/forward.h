/* The forward pass.
 *
 * A packed panel holds the weights of VL units (RNN: 4*VL): a row of vectors for each of the H states and I inputs.
 * Rows have one vector for each block that the product enters. The GRU's have three, blocks r, z, n_h for a state and
 * n_x, r, z for an input: a zero in the fourth would make NaN of an infinite input. Before it lie the table's rows,
 * of NV vectors each, with which the pre-activations begin: tokens' products with the input weights, or the bias. */
static int64_t row_vectors(int64_t kind) { return blocks(kind) == 1 ? NV : product_blocks(kind); }
static int64_t panel_size(const Call *c) { return (c->V * NV + (c->H + c->I) * row_vectors(c->kind)) * VL; }

static void pack_forward(const Call *c, int64_t r, int64_t p, REAL *panel) {
    int64_t H = c->H, I = c->I, V = c->V, G = blocks(c->kind), P = product_blocks(c->kind);
    int64_t units = panel_units(c->kind), width = row_vectors(c->kind);
    const REAL *w_x = c->w_x + r * P * H * I, *w_h = c->w_h + r * P * H * H, *table = c->table + r * V * G * H;
    REAL *rows = panel + V * NV * VL;
    for (int64_t v = 0; v < NV; v++) { /* for the GRU, vector v of a row is block v of w_h's, or of w_x's, three */
        int64_t block = G == 1 ? 0 : v, unit = p * units + (G == 1 ? v * VL : 0), inside = least(H - unit, VL);
        for (int64_t k = 0; k < V; k++)
            *(vec *)(panel + (k * NV + v) * VL) =
                inside > 0 && block < G ? load(table + k * G * H + block * H + unit, inside) : splat(0);
        if (v >= width) continue;
        for (int64_t l = 0; l < VL; l++) {
            const REAL *from_h = w_h + (block * H + unit + l) * H, *from_x = w_x + (block * H + unit + l) * I;
            for (int64_t k = 0; k < H; k++) rows[(k * width + v) * VL + l] = l < inside ? from_h[k] : 0;
            for (int64_t k = 0; k < I; k++) rows[((H + k) * width + v) * VL + l] = l < inside ? from_x[k] : 0;
        }
    }
}

/* Where a panel's results go, for one slice and time step: m rows of n units from the panel's first one. */
typedef struct {
    REAL *out, *cells;
    const REAL *h, *c; /* the states before */
    int64_t H, m;
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
        vec *y = z + k * NV, state = load(o.c + k * o.H, n);
        vec cell = (forgets ? y[1] * state : state) + y[0] * y[g], hidden = y[out] * v_tanh(cell);
        store(o.cells + k * o.H, cell, n), store(o.out + k * o.H, hidden, n);
    }
}

INLINE void gru_rows(Rows o, vec *z, int64_t n) {
    for (int64_t k = 0; k < o.m; k++) z[k * NV + 1] = v_sigmoid(z[k * NV + 1]), z[k * NV + 2] = v_sigmoid(z[k * NV + 2]);
    for (int64_t k = 0; k < o.m; k++) {
        vec *y = z + k * NV, candidate = v_tanh(y[0] + y[1] * y[3]);
        y[0] = candidate;
        store(o.out + k * o.H, candidate + y[2] * (load(o.h + k * o.H, n) - candidate), n);
    }
}

INLINE void rnn_rows(Rows o, vec *z, int64_t n, int64_t kind) {
    for (int64_t k = 0; k < o.m; k++)
        for (int64_t v = 0; v < NV && v * VL < n; v++) {
            vec y = z[k * NV + v];
            store(o.out + k * o.H + v * VL,
                  kind == RNN_TANH      ? v_tanh(y)
                  : kind == RNN_SIGMOID ? v_sigmoid(y)
                  : kind == RNN_RELU    ? positive(y, y)
                                        : y,
                  n - v * VL);
        }
}

static void pointwise(int64_t kind, Rows o, vec *z, int64_t n) {
    if (kind == LSTM) n >= VL ? lstm_rows(o, z, VL, 1) : lstm_rows(o, z, n, 1);
    else if (kind == LSTM_1997) n >= VL ? lstm_rows(o, z, VL, 0) : lstm_rows(o, z, n, 0);
    else if (kind == GRU) n >= VL ? gru_rows(o, z, VL) : gru_rows(o, z, n);
    else if (kind == RNN_TANH) n >= NV * VL ? rnn_rows(o, z, NV * VL, RNN_TANH) : rnn_rows(o, z, n, RNN_TANH);
    else rnn_rows(o, z, n, kind);
}

/* A slice's rows through all time steps. `z`: room for a panel's pre-activations, of kinds that keep none. */
static void forward_slice(const Call *c, Slice s, const REAL *panels, vec *z) {
    int64_t H = c->H, I = c->I, units = panel_units(c->kind), size = panel_size(c);
    for (int64_t t = 0; t < c->T; t++) {
        int64_t first = (s.r * c->T + t) * c->B + s.from, m = active(c, s, t);
        const REAL *h = before(c, s, t, c->out, c->h0), *state = before(c, s, t, c->cells, c->c0);
        const REAL *x = c->x + first * I;
        for (int64_t p = 0; p * units < H; p++) {
            const REAL *panel = panels + p * size, *of_h = panel + c->V * NV * VL, *of_x = of_h + H * row_vectors(c->kind) * VL;
            if (blocks(c->kind) > 1) z = kept_gates(c, s, t, p);
            for (int64_t k = 0; k < m; k++) {
                const vec *row = (const vec *)panel + token(c, s, t, k) * NV;
                for (int v = 0; v < NV; v++) z[k * NV + v] = row[v];
            }
            if (c->kind == GRU) {
                if (I) product3(x, I, m, of_x, I, z);
                product3(h, H, m, of_h, H, z + 1);
            } else if (c->kind == LSTM_1997) {
                if (I) product3(x, I, m, of_x, I, z);
                product3(h, H, m, of_h, H, z);
            } else {
                if (I) product4(x, I, m, of_x, I, z);
                product4(h, H, m, of_h, H, z);
            }
            int64_t u = p * units;
            pointwise(c->kind, (Rows){c->out + first * H + u, c->cells + first * H + u, h + u, state + u, H, m}, z, H - u);
        }
    }
}

static int tokens_in_range(const Call *c) {
    for (int64_t k = 0; c->tokens && k < c->R * c->T * c->B; k++)
        if (c->tokens[k] < 0 || c->tokens[k] >= c->V) return 0;
    return 1;
}

/* Fills gates, out and cells; returns DONE or TOKEN_OUT_OF_RANGE. */
static int forward_in(const Call *c, Scratch scratch, size_t *bytes) {
    int64_t count = panel_count(c), size = count * panel_size(c);
    REAL *panels = take(&scratch, c->R * size, sizeof(REAL));
    vec *rooms = take(&scratch, c->threads * most_rows(c) * NV, sizeof(vec));
    if (bytes) return *bytes = scratch.used, DONE;
    if (!tokens_in_range(c)) return TOKEN_OUT_OF_RANGE;
    fenv_t mode;
    fegetenv(&mode);
#pragma omp parallel num_threads((int)c->threads)
    {
        fenv_t own;
        fegetenv(&own), fesetenv(&mode);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < c->R * count; p++) pack_forward(c, p / count, p % count, panels + p * panel_size(c));
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < c->R * c->slices; job++) {
            Slice s = slice_of(c, job);
            forward_slice(c, s, panels + s.r * size, rooms + thread_number() * most_rows(c) * NV);
        }
        fesetenv(&own);
    }
    return DONE;
}

int forward(const Call *c) { return forward_in(c, (Scratch){c->scratch, 0}, NULL); }
