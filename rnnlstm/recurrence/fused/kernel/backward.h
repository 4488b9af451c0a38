/* The backward pass: gradients of the pre-activations from the last time step to the first, and at once what follows
 * from them: gradients of the state before, of the input, and, some hundred rows at a time, of the weights. */
#define CHUNK 64 /* rows that are kept before they go into the weights' gradients: more are no quicker, less exact */

/* Columns of a slice's weight gradient: the H states, then the I inputs, each part padded. */
static int64_t x_column(const Call *c) { return up(c->H, VL); }
static int64_t columns(const Call *c) { return x_column(c) + up(c->I, VL); }
static int64_t table_columns(const Call *c) { return up(blocks(c->kind) * c->H, VL); }

/* Panel p of a matrix (K rows, n columns): two vectors of columns. */
static void pack_backward(int64_t K, int64_t n, int64_t p, const REAL *w, REAL *panel) {
    int64_t from = p * 2 * VL;
    for (int64_t k = 0; k < K; k++)
        for (int64_t v = 0; v < 2; v++, panel += VL)
            *(vec *)panel = n - from > v * VL ? load(w + k * n + from + v * VL, n - from - v * VL) : splat(0);
}

/* z (m rows) += d (m rows of K) times packed panels for n columns, in blocks that fit the first cache. */
static void times_panels(const REAL *d, int64_t ldd, int64_t m, const REAL *panels, int64_t K, int64_t n, REAL *z,
                         int64_t ldz) {
    const int64_t block = 256;
    for (int64_t p = 0; p * 2 * VL < n; p++)
        for (int64_t k = 0; k < K; k += block)
            product2(d + k, ldd, m, panels + (p * K + k) * 2 * VL, least(K - k, block), (vec *)(z + p * 2 * VL), ldz / VL);
}

/* A thread's scratch memory. The ring holds rows that wait for the weights' gradients: of d, of [h | x], and tokens. */
typedef struct {
    REAL *dh, *dc, *dx, *d, *hx; /* dh, dc: what reaches the states at t from later steps */
    int64_t *token, *next, *head; /* chains of the ring's rows with the same token; the latest row of each, or -1 */
    Squares *h_sum, *c_sum;
    int64_t ldh, ldx, ldd, ldv, room;
} Room;

static Room make_room(const Call *c, Scratch *scratch) {
    int64_t M = most_rows(c), room = M < CHUNK && M > 0 ? M * (CHUNK / M) : M;
    Room o = {.ldh = odd_lines(up(c->H, 2 * VL)), .ldx = up(c->I, 2 * VL), .ldd = odd_lines(blocks(c->kind) * c->H),
              .ldv = odd_lines(columns(c)), .room = room};
    o.dh = take(scratch, M * o.ldh, sizeof(REAL)), o.dc = take(scratch, M * o.ldh, sizeof(REAL));
    o.dx = take(scratch, M * o.ldx, sizeof(REAL));
    o.d = take(scratch, room * o.ldd, sizeof(REAL)), o.hx = take(scratch, room * o.ldv, sizeof(REAL));
    o.token = take(scratch, room, sizeof(int64_t)), o.next = take(scratch, room, sizeof(int64_t));
    o.head = take(scratch, c->V, sizeof(int64_t));
    o.h_sum = take(scratch, M, sizeof(Squares)), o.c_sum = take(scratch, M, sizeof(Squares));
    return o;
}

/* dw += dT [h | x] over the ring's first n rows; `fresh`: dw has nothing yet. The GRU's n_x does not meet the state,
 * nor its n_h the input. */
static void add_weight_gradient(const Call *c, const Room *o, int64_t n, REAL *dw, int fresh) {
    int64_t H = c->H, G = blocks(c->kind), W = columns(c), block = 48;
    for (int64_t j = 0; j < G * H; j += block)
        for (int64_t v = 0; v < W; v += 2 * VL) {
            int64_t from = j, to = least(j + block, G * H);
            if (c->kind == GRU && v + 2 * VL <= x_column(c) && from < H) from = H;
            if (c->kind == GRU && v >= x_column(c)) to = least(to, 3 * H);
            if (from < to)
                outer_product(o->d + from, o->ldd, to - from, o->hx + v, o->ldv, W - v < 2 * VL ? 1 : 2, n,
                              dw + from * W + v, W, fresh);
        }
}

/* dt (V rows) += the ring's first n rows of d, by token. Rows of one token are summed from zero and then added, as in
 * a product. `met`: which rows of dt have something. */
static void add_table_gradient(const Call *c, const Room *o, int64_t n, REAL *dt, char *met) {
    const int64_t wide = 4 * VL, W = table_columns(c);
    for (int64_t k = 0; k < n; k++) o->next[k] = o->head[o->token[k]], o->head[o->token[k]] = k;
    for (int64_t k = n - 1; k >= 0; k--) {
        int64_t token = o->token[k];
        if (o->head[token] != k) continue; /* an earlier row of a chain */
        o->head[token] = -1;
        REAL *to = dt + token * W;
        int64_t j = 0;
        for (; j + wide <= W; j += wide) {
            vec a = {}, b = {}, e = {}, f = {};
            for (int64_t i = k; i >= 0; i = o->next[i]) {
                const vec *d = (const vec *)(o->d + i * o->ldd + j);
                a += d[0], b += d[1], e += d[2], f += d[3];
            }
            vec *sum = (vec *)(to + j);
            if (met[token]) a += sum[0], b += sum[1], e += sum[2], f += sum[3];
            sum[0] = a, sum[1] = b, sum[2] = e, sum[3] = f;
        }
        for (; j < W; j += VL) {
            vec a = {};
            for (int64_t i = k; i >= 0; i = o->next[i]) a += *(const vec *)(o->d + i * o->ldd + j);
            *(vec *)(to + j) = met[token] ? *(vec *)(to + j) + a : a;
        }
        met[token] = 1;
    }
}

/* m rows of one time step: a panel's n units from unit u on (gates, in `z`), or all of an RNN's. */
typedef struct {
    const vec *z;
    const REAL *out, *h, *c; /* what the step wrote, and the states before it */
    REAL *dh, *dc, *d;       /* dh, dc: in, what reaches the states at t; out, what is kept of it at t-1 */
    int64_t H, ldh, ldd, m;
    Squares *h_sum, *c_sum; /* of each row; NULL where nobody asks */
} Step;

/* tanh(c) comes from h = o tanh(c), which is in memory: o tanh(c)^2 = h^2/o. */
INLINE void lstm_back(Step o, int64_t n, const int forgets, const int taped) {
    const vec one = splat(1), least_normal = splat(IS_DOUBLE ? 0x1p-1022 : 0x1p-126);
    const int g = forgets ? 2 : 1, out = g + 1;
    for (int64_t k = 0; k < o.m; k++) {
        const vec *y = o.z + k * NV;
        vec in = y[0], candidate = y[g], open = y[out], h = load(o.out + k * o.H, n);
        vec *grad = (vec *)(o.dh + k * o.ldh), *state = (vec *)(o.dc + k * o.ldh), dh = *grad;
        vec dc = *state + dh * (open - h * h / (open + least_normal));
        REAL *d = o.d + k * o.ldd;
        if (taped) add_square(o.h_sum + k, dh), add_square(o.c_sum + k, dc);
        store(d, dc * candidate * (in * (one - in)), n);
        store(d + g * o.H, dc * in * (one - candidate * candidate), n);
        store(d + out * o.H, dh * h * (one - open), n);
        if (forgets) {
            vec forget = y[1];
            store(d + o.H, dc * load(o.c + k * o.H, n) * (forget * (one - forget)), n);
            dc = dc * forget;
        }
        *state = dc, *grad = splat(0);
    }
}

INLINE void gru_back(Step o, int64_t n, const int taped) {
    const vec one = splat(1);
    for (int64_t k = 0; k < o.m; k++) {
        const vec *y = o.z + k * NV;
        vec candidate = y[0], reset = y[1], update = y[2], *grad = (vec *)(o.dh + k * o.ldh), dh = *grad;
        vec dn = dh * (one - update) * (one - candidate * candidate);
        REAL *d = o.d + k * o.ldd;
        if (taped) add_square(o.h_sum + k, dh);
        store(d, dn, n);
        store(d + o.H, dn * y[3] * (reset * (one - reset)), n);
        store(d + 2 * o.H, dh * (load(o.h + k * o.H, n) - candidate) * (update * (one - update)), n);
        store(d + 3 * o.H, dn * reset, n);
        *grad = dh * update;
    }
}

INLINE void rnn_back(Step o, int64_t kind, const int taped) {
    const vec one = splat(1);
    for (int64_t k = 0; k < o.m; k++)
        for (int64_t u = 0; u < o.H; u += VL) {
            vec h = load(o.out + k * o.H + u, o.H - u), *grad = (vec *)(o.dh + k * o.ldh + u), dh = *grad;
            vec slope = kind == RNN_TANH      ? one - h * h
                        : kind == RNN_SIGMOID ? h * (one - h)
                        : kind == RNN_RELU    ? positive(h, one)
                                              : one;
            if (taped) add_square(o.h_sum + k, dh);
            store(o.d + k * o.ldd + u, dh * slope, o.H - u);
            *grad = splat(0);
        }
}

INLINE void step_back(int64_t kind, Step o, int64_t n, const int taped) {
    if (kind == LSTM) n >= VL ? lstm_back(o, VL, 1, taped) : lstm_back(o, n, 1, taped);
    else if (kind == LSTM_1997) n >= VL ? lstm_back(o, VL, 0, taped) : lstm_back(o, n, 0, taped);
    else if (kind == GRU) n >= VL ? gru_back(o, VL, taped) : gru_back(o, n, taped);
    else if (kind == RNN_TANH) rnn_back(o, RNN_TANH, taped);
    else rnn_back(o, kind, taped);
}

/* The pointwise part of time step t for a slice's first m rows. */
static void pointwise_back(const Call *c, Slice s, int64_t t, int64_t m, const Room *o, REAL *d) {
    int64_t first = (s.r * c->T + t) * c->B + s.from;
    const REAL *h = before(c, s, t, c->out, c->h0), *state = before(c, s, t, c->cells, c->c0);
    if (c->h_rows) memset(o->h_sum, 0, m * sizeof(Squares)), memset(o->c_sum, 0, m * sizeof(Squares));
    for (int64_t u = 0, p = 0; u < c->H; u += panel_units(c->kind), p++) {
        Step step = {kept_gates(c, s, t, p), c->out + first * c->H + u, h + u, state + u, o->dh + u, o->dc + u, d + u,
                     c->H, o->ldh, o->ldd, m, o->h_sum, o->c_sum};
        if (c->h_rows) step_back(c->kind, step, c->H - u, 1);
        else step_back(c->kind, step, c->H - u, 0);
        if (blocks(c->kind) == 1) break;
    }
    if (!c->h_rows) return;
    for (int64_t k = 0; k < m; k++) {
        c->h_rows[first + k] = total(o->h_sum[k]), c->c_rows[first + k] = total(o->c_sum[k]);
        for (int64_t b = 0, G = blocks(c->kind); b < G; b++) {
            Squares sum = {};
            for (int64_t u = 0; u < c->H; u += VL) add_square(&sum, load(d + k * o->ldd + b * c->H + u, c->H - u));
            c->block_rows[(first + k) * G + b] = total(sum);
        }
    }
}

static void copy_row(REAL *to, const REAL *from, int64_t n) { /* padded by zeros to whole vectors */
    for (int64_t u = 0; u < n; u += VL) *(vec *)(to + u) = load(from + u, n - u);
}

/* A slice's rows from the last time step to the first. `places`: of each output, the row of d_out, or -1. */
static void backward_slice(const Call *c, Slice s, const REAL *h_panels, const REAL *x_panels, const int32_t *places,
                           const Room *o, REAL *dw, REAL *dt, char *met) {
    int64_t H = c->H, I = c->I, G = blocks(c->kind), K = product_blocks(c->kind) * H, filled = 0, fresh = 1;
    memset(o->dh, 0, s.m * o->ldh * sizeof(REAL)), memset(o->dc, 0, s.m * o->ldh * sizeof(REAL));
    memset(met, 0, c->V);
    for (int64_t v = 0; v < c->V; v++) o->head[v] = -1;
    if (c->d_last && has_cell(c->kind))
        for (int64_t k = 0; k < s.m; k++) copy_row(o->dc + k * o->ldh, c->d_last + (s.r * c->B + s.from + k) * H, H);
    for (int64_t t = c->T - 1; t >= 0; t--) {
        int64_t first = (s.r * c->T + t) * c->B + s.from, m = active(c, s, t);
        for (int64_t k = 0; k < m && c->d_out; k++) {
            int64_t row = places ? places[first + k] : first + k;
            const REAL *direct = c->d_out + (places ? s.r * c->N + row : row) * H;
            if (row >= 0)
                for (int64_t u = 0; u < H; u += VL) *(vec *)(o->dh + k * o->ldh + u) += load(direct + u, H - u);
        }
        if (filled + m > o->room) {
            add_weight_gradient(c, o, filled, dw, fresh), add_table_gradient(c, o, filled, dt, met);
            filled = fresh = 0;
        }
        REAL *d = o->d + filled * o->ldd, *v = o->hx + filled * o->ldv;
        const REAL *h = before(c, s, t, c->out, c->h0);
        pointwise_back(c, s, t, m, o, d);
        for (int64_t k = 0; k < m; k++, v += o->ldv) {
            copy_row(v, h + k * H, H), copy_row(v + x_column(c), c->x + (first + k) * I, I);
            o->token[filled + k] = token(c, s, t, k);
        }
        times_panels(d + G * H - K, o->ldd, m, h_panels, K, H, o->dh, o->ldh);
        if (c->d_x) {
            memset(o->dx, 0, m * o->ldx * sizeof(REAL));
            times_panels(d, o->ldd, m, x_panels, K, I, o->dx, o->ldx);
            for (int64_t k = 0; k < m; k++) memcpy(c->d_x + (first + k) * I, o->dx + k * o->ldx, I * sizeof(REAL));
        }
        filled += m;
    }
    add_weight_gradient(c, o, filled, dw, fresh), add_table_gradient(c, o, filled, dt, met);
    for (int64_t k = 0; k < s.m; k++) {
        memcpy(c->d_h0 + (s.r * c->B + s.from + k) * H, o->dh + k * o->ldh, H * sizeof(REAL));
        memcpy(c->d_c0 + (s.r * c->B + s.from + k) * H, o->dc + k * o->ldh, H * sizeof(REAL));
    }
}

/* Row j of a replica's weight gradient: the slices' own, added in their order. */
static void add_slices(const Call *c, int64_t r, int64_t j, const REAL *dw) {
    int64_t H = c->H, I = c->I, W = columns(c), size = blocks(c->kind) * H * W, xc = x_column(c);
    int64_t rows = product_blocks(c->kind) * H, skipped = blocks(c->kind) * H - rows;
    for (int64_t u = 0; u < W; u += VL) {
        vec sum = *(const vec *)(dw + j * W + u);
        for (int64_t part = 1; part < c->slices; part++) sum += *(const vec *)(dw + part * size + j * W + u);
        if (u < xc && j >= skipped) store(c->d_w_h + (r * rows + j - skipped) * H + u, sum, H - u);
        if (u >= xc && j < rows) store(c->d_w_x + (r * rows + j) * I + u - xc, sum, I - (u - xc));
    }
}

/* Row `token` of a replica's gradient of the table, likewise. */
static void add_table_slices(const Call *c, int64_t r, int64_t token, const REAL *dt, const char *met) {
    int64_t GH = blocks(c->kind) * c->H, W = table_columns(c);
    for (int64_t u = 0; u < GH; u += VL) {
        vec sum = {};
        for (int64_t part = 0; part < c->slices; part++)
            if (met[part * c->V + token]) sum += *(const vec *)(dt + (part * c->V + token) * W + u);
        store(c->d_table + (r * c->V + token) * GH + u, sum, GH - u);
    }
}

static int place_scored(const Call *c, int32_t *places) {
    int64_t each = c->T * c->B;
    memset(places, 0xff, c->R * each * sizeof(int32_t)); /* all -1 */
    for (int64_t r = 0; r < c->R; r++)
        for (int64_t n = 0; n < c->N; n++) {
            int64_t at = c->scored[r * c->N + n];
            if (at >= each) return SCORED_OUT_OF_RANGE;
            if (at < 0) continue;
            if (places[r * each + at] >= 0) return SCORED_TWICE;
            places[r * each + at] = (int32_t)n;
        }
    return DONE;
}

/* Fills every tensor of gradients; returns DONE or what is wrong with `scored`. */
static int backward_in(const Call *c, Scratch scratch, size_t *bytes) {
    int64_t H = c->H, I = c->I, GH = blocks(c->kind) * H, K = product_blocks(c->kind) * H;
    int64_t h_count = up(H, 2 * VL) / (2 * VL), x_count = c->d_x ? up(I, 2 * VL) / (2 * VL) : 0, count = h_count + x_count;
    int64_t panel = 2 * VL * K, dw_size = GH * columns(c), dt_size = c->V * table_columns(c), jobs = c->R * c->slices;
    REAL *panels = take(&scratch, c->R * count * panel, sizeof(REAL));
    REAL *dw = take(&scratch, jobs * dw_size, sizeof(REAL)), *dt = take(&scratch, jobs * dt_size, sizeof(REAL));
    char *met = take(&scratch, jobs * c->V, 1);
    int32_t *places = take(&scratch, c->scored ? c->R * c->T * c->B : 0, sizeof(int32_t));
    Scratch mine = scratch;
    make_room(c, &scratch);
    size_t room = scratch.used - mine.used;
    if (bytes) return *bytes = mine.used + c->threads * room, DONE;
    int wrong = c->scored ? place_scored(c, places) : DONE;
    if (wrong) return wrong;
    fenv_t mode;
    fegetenv(&mode);
#pragma omp parallel num_threads((int)c->threads)
    {
        fenv_t own;
        fegetenv(&own), fesetenv(&mode), flush_denormals();
        Scratch part = {mine.base, mine.used + thread_number() * room};
        Room o = make_room(c, &part);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < c->R * count; p++) {
            int64_t r = p / count, k = p % count;
            if (k < h_count) pack_backward(K, H, k, c->w_h + r * K * H, panels + p * panel);
            else pack_backward(K, I, k - h_count, c->w_x + r * K * I, panels + p * panel);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < jobs; job++) {
            Slice s = slice_of(c, job);
            const REAL *h_panels = panels + s.r * count * panel;
            backward_slice(c, s, h_panels, h_panels + h_count * panel, c->scored ? places : NULL, &o,
                           dw + job * dw_size, dt + job * dt_size, met + job * c->V);
        }
#pragma omp for schedule(static)
        for (int64_t j = 0; j < c->R * (GH + c->V); j++) {
            int64_t r = j / (GH + c->V), row = j % (GH + c->V);
            if (row < GH) add_slices(c, r, row, dw + r * c->slices * dw_size);
            else add_table_slices(c, r, row - GH, dt + r * c->slices * dt_size, met + r * c->slices * c->V);
        }
        fesetenv(&own);
    }
    return DONE;
}

int backward(const Call *c) { return backward_in(c, (Scratch){c->scratch, 0}, NULL); }

/* Bytes of scratch memory for this call, from its shape and from which tensors it has. */
size_t scratch_bytes(const Call *c, int forwards) {
    size_t bytes = 0;
    if (forwards) forward_in(c, (Scratch){NULL, 0}, &bytes);
    else backward_in(c, (Scratch){NULL, 0}, &bytes);
    return bytes;
}
