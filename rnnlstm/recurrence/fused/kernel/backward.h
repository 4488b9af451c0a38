/* The backward pass: gradients of the pre-activations from the last time step to the first, and at once what follows
 * from them: gradients of the state before, of the input, and, some hundred rows at a time, of the weights. */
#define CHUNK 128 /* rows that are kept before they go into the weights' gradients */

typedef struct {
    const REAL *x, *h0, *c0, *gates, *out, *cells, *d_out, *d_last;
    REAL *d_x, *d_h0, *d_c0;                /* d_x may be NULL */
    const int64_t *lengths; /* (B), longest first; NULL: T each */
    double *h_rows, *c_rows, *block_rows; /* squared norms of rows: (R,T,B) twice, (R,T,B,G); all may be NULL */
} Pass;

/* Columns of a slice's weight gradient: the H states, then the I inputs, then one for the bias, each part padded. */
static int64_t x_column(const Shape *s) { return up(s->H, VL); }
static int64_t columns(const Shape *s) { return x_column(s) + up(s->I + 1, VL); }

/* Panel p of a matrix (K rows, n columns): two vectors of columns. */
static void pack_backward(int64_t K, int64_t n, int64_t p, const REAL *w, REAL *panel) {
    int64_t from = p * 2 * VL, width = least(n - from, 2 * VL);
    for (int64_t k = 0; k < K; k++)
        for (int64_t l = 0; l < 2 * VL; l++) panel[k * 2 * VL + l] = l < width ? w[k * n + from + l] : 0;
}

/* z (m rows) += d (m rows of K) times packed panels for n columns, in blocks that fit the first cache. */
static void times_panels(const REAL *d, int64_t ldd, int64_t m, const REAL *panels, int64_t K, int64_t n, REAL *z,
                         int64_t ldz) {
    const int64_t block = 256;
    for (int64_t p = 0; p * 2 * VL < n; p++)
        for (int64_t k = 0; k < K; k += block)
            product2(d + k, ldd, m, panels + (p * K + k) * 2 * VL, least(K - k, block), (vec *)(z + p * 2 * VL), ldz / VL);
}

/* dw += dT [h | x | 1] over n rows. The GRU's n_x does not meet the state, nor its n_h the input. */
static void add_weight_gradient(const Shape *s, const REAL *d, int64_t ldd, const REAL *hx, int64_t ldv, int64_t n, REAL *dw) {
    int64_t H = s->H, G = blocks(s->kind), W = columns(s), block = 48;
    for (int64_t j = 0; j < G * H; j += block)
        for (int64_t v = 0; v < W; v += 2 * VL) {
            int64_t from = j, to = least(j + block, G * H);
            if (s->kind == GRU && v + 2 * VL <= x_column(s) && from < H) from = H;
            if (s->kind == GRU && v >= x_column(s) && v + 2 * VL <= x_column(s) + s->I) to = least(to, 3 * H);
            if (from < to)
                outer_product(d + from, ldd, to - from, hx + v, ldv, W - v < 2 * VL ? 1 : 2, n, dw + from * W + v, W);
        }
}

/* One row of one time step, n units from a vector's first one. */
typedef struct {
    const REAL *gates, *out, *h_before, *cell, *c_before, *direct;
    REAL *dh, *dc, *d; /* dh, dc: in, what reaches the state at t from later steps; out, what is kept of it at t-1 */
    int64_t H;
} Row;

INLINE void backward_units(int64_t kind, Row o, int64_t u, int64_t n, Squares *h_sum, Squares *c_sum) {
    const vec one = splat(1);
    vec *here = (vec *)(o.dh + u), dh = *here + load(o.direct + u, n), kept = {};
    const REAL *g = o.gates + u;
    REAL *d = o.d + u;
    int64_t H = o.H;
    add_square(h_sum, dh);
    if (has_cell(kind)) { /* the last two blocks are candidate and output gate, with or without a forget gate before */
        const int64_t c = (kind == LSTM ? 2 : 1) * H;
        vec in = load(g, n), candidate = load(g + c, n), open = load(g + c + H, n);
        vec tanh_c = v_tanh(load(o.cell + u, n)), *state = (vec *)(o.dc + u);
        vec dc = *state + dh * open * (one - tanh_c * tanh_c);
        add_square(c_sum, dc);
        store(d, dc * candidate * (in * (one - in)), n);
        store(d + c, dc * in * (one - candidate * candidate), n);
        store(d + c + H, dh * tanh_c * (open * (one - open)), n);
        if (kind == LSTM) {
            vec forget = load(g + H, n);
            store(d + H, dc * load(o.c_before + u, n) * (forget * (one - forget)), n);
            *state = dc * forget;
        } else {
            *state = dc;
        }
    } else if (kind == GRU) {
        vec candidate = load(g, n), reset = load(g + H, n), update = load(g + 2 * H, n);
        vec dn = dh * (one - update) * (one - candidate * candidate);
        store(d, dn, n);
        store(d + H, dn * load(g + 3 * H, n) * (reset * (one - reset)), n);
        store(d + 2 * H, dh * (load(o.h_before + u, n) - candidate) * (update * (one - update)), n);
        store(d + 3 * H, dn * reset, n);
        kept = dh * update;
    } else {
        vec h = load(o.out + u, n);
        vec slope = kind == RNN_TANH      ? one - h * h
                    : kind == RNN_SIGMOID ? h * (one - h)
                    : kind == RNN_RELU    ? positive(h, one)
                                          : one;
        store(d, dh * slope, n);
    }
    *here = kept;
}

INLINE void backward_row(int64_t kind, Row o, Squares *h_sum, Squares *c_sum) {
    int64_t u = 0;
    for (; u + VL <= o.H; u += VL) backward_units(kind, o, u, VL, h_sum, c_sum);
    if (u < o.H) backward_units(kind, o, u, o.H - u, h_sum, c_sum);
}

static double row_square(const REAL *d, int64_t n) {
    Squares sum = {};
    for (int64_t u = 0; u < n; u += VL) add_square(&sum, load(d + u, n - u));
    return total(sum);
}

/* Rows from .. from+m of replica r from the last time step to the first. */
static int backward_slice(const Shape *s, const Pass *p, int64_t r, int64_t from, int64_t m, const REAL *h_panels,
                          const REAL *x_panels, REAL *dw) {
    int64_t H = s->H, I = s->I, T = s->T, B = s->B, G = blocks(s->kind), K = product_blocks(s->kind) * H, xc = x_column(s);
    int64_t ldh = odd_lines(up(H, 2 * VL)), ldx = up(I, 2 * VL), ldd = odd_lines(G * H), ldv = odd_lines(columns(s));
    int64_t room = m * (m < CHUNK && m > 0 ? CHUNK / m : 1), filled = 0, kept = G == 1 ? 0 : G * H;
    REAL *dh = take(m * ldh), *dc = take(m * ldh), *dx = take(m * ldx), *ring = take(room * ldd), *hx = take(room * ldv);
    int failed = !dh || !dc || !dx || !ring || !hx;
    if (!failed) {
        memset(dh, 0, m * ldh * sizeof(REAL)), memset(dc, 0, m * ldh * sizeof(REAL));
        memset(hx, 0, room * ldv * sizeof(REAL)), memset(dw, 0, G * H * columns(s) * sizeof(REAL));
        for (int64_t k = 0; k < m; k++) memcpy(dc + k * ldh, p->d_last + (r * B + from + k) * H, H * sizeof(REAL));
        for (int64_t t = T - 1; t >= 0; t--) {
            int64_t first = (r * T + t) * B + from, n = active(p->lengths, from, m, t);
            if (filled + n > room) add_weight_gradient(s, ring, ldd, hx, ldv, filled, dw), filled = 0;
            REAL *d = ring + filled * ldd, *v = hx + filled * ldv;
            for (int64_t k = 0; k < n; k++, d += ldd, v += ldv) {
                const REAL *out = p->out + (first + k) * H, *cell = p->cells + (first + k) * H;
                Row o = {p->gates + (first + k) * kept, out, t ? out - B * H : p->h0 + (r * B + from + k) * H,
                         cell, t ? cell - B * H : p->c0 + (r * B + from + k) * H, p->d_out + (first + k) * H,
                         dh + k * ldh, dc + k * ldh, d, H};
                Squares h_sum = {}, c_sum = {};
                switch (s->kind) {
                    case LSTM: backward_row(LSTM, o, &h_sum, &c_sum); break;
                    case LSTM_1997: backward_row(LSTM_1997, o, &h_sum, &c_sum); break;
                    case GRU: backward_row(GRU, o, &h_sum, &c_sum); break;
                    case RNN_TANH: backward_row(RNN_TANH, o, &h_sum, &c_sum); break;
                    default: backward_row(s->kind, o, &h_sum, &c_sum);
                }
                if (p->h_rows) {
                    p->h_rows[first + k] = total(h_sum), p->c_rows[first + k] = total(c_sum);
                    for (int64_t b = 0; b < G; b++) p->block_rows[(first + k) * G + b] = row_square(d + b * H, H);
                }
                memcpy(v, o.h_before, H * sizeof(REAL));
                memcpy(v + xc, p->x + (first + k) * I, I * sizeof(REAL));
                v[xc + I] = 1;
            }
            d = ring + filled * ldd;
            times_panels(d + G * H - K, ldd, n, h_panels, K, H, dh, ldh);
            if (p->d_x) {
                memset(dx, 0, n * ldx * sizeof(REAL));
                times_panels(d, ldd, n, x_panels, K, I, dx, ldx);
                for (int64_t k = 0; k < n; k++) memcpy(p->d_x + (first + k) * I, dx + k * ldx, I * sizeof(REAL));
            }
            filled += n;
        }
        add_weight_gradient(s, ring, ldd, hx, ldv, filled, dw);
        for (int64_t k = 0; k < m; k++) {
            memcpy(p->d_h0 + (r * B + from + k) * H, dh + k * ldh, H * sizeof(REAL));
            if (has_cell(s->kind)) memcpy(p->d_c0 + (r * B + from + k) * H, dc + k * ldh, H * sizeof(REAL));
            else memset(p->d_c0 + (r * B + from + k) * H, 0, H * sizeof(REAL));
        }
    }
    free(dh), free(dc), free(dx), free(ring), free(hx);
    return failed;
}

/* Row j of a replica's weight gradient: the slices' own, added in their order. */
static void add_slices(const Shape *s, const REAL *dw, int64_t j, REAL *d_w_x, REAL *d_w_h, REAL *d_b) {
    int64_t H = s->H, W = columns(s), size = blocks(s->kind) * H * W, xc = x_column(s);
    int64_t rows = product_blocks(s->kind) * H, skipped = blocks(s->kind) * H - rows;
    for (int64_t u = 0; u < W; u += VL) {
        vec sum = *(const vec *)(dw + j * W + u);
        for (int64_t part = 1; part < s->slices; part++) sum += *(const vec *)(dw + part * size + j * W + u);
        if (u < xc) {
            if (j >= skipped) store(d_w_h + (j - skipped) * H + u, sum, H - u);
        } else {
            if (j < rows && u - xc < s->I) store(d_w_x + j * s->I + u - xc, sum, s->I - (u - xc));
            if (s->I - (u - xc) >= 0 && s->I - (u - xc) < VL) d_b[j] = sum[s->I - (u - xc)];
        }
    }
}

/* Returns 0, or 1 where memory ran out. Every tensor of gradients is filled. */
int backward(const Shape *s, const int64_t *lengths, const REAL *x, const REAL *w_x, const REAL *w_h,
             const REAL *h0, const REAL *c0, const REAL *gates, const REAL *out, const REAL *cells,
             const REAL *d_out, const REAL *d_last, REAL *d_x,
             REAL *d_w_x, REAL *d_w_h, REAL *d_b, REAL *d_h0, REAL *d_c0, double *h_rows, double *c_rows,
             double *block_rows, int threads) {
    int64_t H = s->H, I = s->I, GH = blocks(s->kind) * H, K = product_blocks(s->kind) * H;
    int64_t h_count = up(H, 2 * VL) / (2 * VL), x_count = up(I, 2 * VL) / (2 * VL);
    int64_t h_size = h_count * 2 * VL * K, size = (h_count + x_count) * 2 * VL * K, dw_size = GH * columns(s);
    Pass pass = {x, h0, c0, gates, out, cells, d_out, d_last, d_x, d_h0, d_c0, lengths, h_rows, c_rows, block_rows};
    REAL *panels = take(s->R * size), *dw = take(s->R * s->slices * dw_size);
    int failed = !panels || !dw;
    if (!failed) {
        fenv_t mode;
        fegetenv(&mode);
#pragma omp parallel num_threads(threads) reduction(| : failed)
        {
            fenv_t before;
            fegetenv(&before), fesetenv(&mode);
#pragma omp for schedule(static)
            for (int64_t p = 0; p < s->R * (h_count + x_count); p++) {
                int64_t r = p / (h_count + x_count), k = p % (h_count + x_count);
                REAL *panel = panels + r * size + k * 2 * VL * K;
                if (k < h_count) pack_backward(K, H, k, w_h + r * K * H, panel);
                else if (d_x) pack_backward(K, I, k - h_count, w_x + r * K * I, panel);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t job = 0; job < s->R * s->slices; job++) {
                int64_t r = job / s->slices, part = job % s->slices;
                int64_t from = s->B * part / s->slices, to = s->B * (part + 1) / s->slices;
                const REAL *h_panels = panels + r * size;
                failed |= backward_slice(s, &pass, r, from, to - from, h_panels, h_panels + h_size, dw + job * dw_size);
            }
#pragma omp for schedule(static)
            for (int64_t j = 0; j < s->R * GH; j++) {
                int64_t r = j / GH;
                if (!failed)
                    add_slices(s, dw + r * s->slices * dw_size, j % GH, d_w_x + r * K * I, d_w_h + r * K * H, d_b + r * GH);
            }
            fesetenv(&before);
        }
    }
    free(panels), free(dw);
    return failed;
}
