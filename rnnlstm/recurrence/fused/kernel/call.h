/* What a call is given, how blocks and slices lie in memory, and the scratch memory, for both directions. */
#define NV 4 /* vectors in a forward panel: up to four blocks of VL units, or 4*VL units of an RNN */

enum { RNN_TANH, RNN_RELU, RNN_SIGMOID, RNN_IDENTITY, LSTM, LSTM_1997, GRU };
enum { DONE, TOKEN_OUT_OF_RANGE, SCORED_OUT_OF_RANGE, SCORED_TWICE }; /* what a call returns */

/* All tensors are contiguous, and NULL where they have no numbers; gates and scratch begin at a cache line. native.py
 * fills one anew for each call. */
typedef struct {
    int64_t kind, R, T, B, I, H, V, N, slices, threads; /* N scored rows in each replica; slices: of each one's rows */
    const int64_t *lengths; /* (B), longest first; NULL: T each */
    const int64_t *tokens;  /* (R,T,B): the row of the table that is added at each step; NULL: row 0 */
    const int64_t *scored;  /* (R,N): which of the T*B outputs the rows of d_out belong to; below 0: none */
    const REAL *x, *w_x, *w_h, *table, *h0, *c0; /* (R,T,B,I), (R,P*H,I), (R,P*H,H), (R,V,G*H), (R,B,H) twice */
    REAL *gates, *out, *cells;   /* see `kept_gates`; (R,T,B,H) twice, cells for the LSTMs only */
    const REAL *d_out, *d_last;  /* (R,T,B,H), or (R,N,H) with `scored`; (R,B,H), of the last cell state */
    REAL *d_x, *d_w_x, *d_w_h, *d_table, *d_h0, *d_c0; /* d_x may be NULL */
    double *h_rows, *c_rows, *block_rows; /* squared norms of rows: (R,T,B) twice, (R,T,B,G); all may be NULL */
    char *scratch; /* `scratch_bytes` of it, of any content, for this call alone */
} Call;

/* Blocks of H pre-activations; the input's product goes into the first of them, the state's into the last. */
static int64_t blocks(int64_t kind) { return kind == LSTM || kind == GRU ? 4 : kind == LSTM_1997 ? 3 : 1; }
static int64_t product_blocks(int64_t kind) { return kind == GRU ? 3 : blocks(kind); }
static inline int has_cell(int64_t kind) { return kind == LSTM || kind == LSTM_1997; }

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A panel is what one product computes: NV vectors for each row. */
static int64_t panel_units(int64_t kind) { return blocks(kind) == 1 ? NV * VL : VL; }
static int64_t panel_count(const Call *c) { return up(c->H, panel_units(c->kind)) / panel_units(c->kind); }

/* Rows from .. from+m of replica r. */
typedef struct {
    int64_t r, part, from, m;
} Slice;

static Slice slice_of(const Call *c, int64_t job) {
    int64_t r = job / c->slices, part = job % c->slices, from = c->B * part / c->slices;
    return (Slice){r, part, from, c->B * (part + 1) / c->slices - from};
}
static int64_t most_rows(const Call *c) { return (c->B + c->slices - 1) / c->slices; }

/* Activated gates of a slice, (R, slices, T, panels, rows, NV, VL): each panel's as the product left them, so that
 * nothing is copied and both directions walk through memory in order. An RNN keeps none. */
static vec *kept_gates(const Call *c, Slice s, int64_t t, int64_t panel) {
    int64_t panels = panel_count(c), rows = most_rows(c);
    return (vec *)c->gates + ((((s.r * c->slices + s.part) * c->T + t) * panels + panel) * rows) * NV;
}

/* Row `from` of the state before time step t: what step t-1 wrote, or the initial one. */
static const REAL *before(const Call *c, Slice s, int64_t t, const REAL *states, const REAL *first) {
    return t ? states + ((s.r * c->T + t - 1) * c->B + s.from) * c->H : first + (s.r * c->B + s.from) * c->H;
}

/* How many of the slice's rows, longest first, have a time step t. */
static int64_t active(const Call *c, Slice s, int64_t t) {
    int64_t m = s.m;
    while (c->lengths && m > 0 && c->lengths[s.from + m - 1] <= t) m--;
    return m;
}

static int64_t token(const Call *c, Slice s, int64_t t, int64_t k) {
    return c->tokens ? c->tokens[(s.r * c->T + t) * c->B + s.from + k] : 0;
}

/* A row stride of an odd number of cache lines: rows do not fall on the same sets. */
static int64_t odd_lines(int64_t count) {
    int64_t line = 64 / sizeof(REAL), lines = (count + line - 1) / line;
    return (lines | 1) * line;
}

/* Scratch memory: what all threads share, then a part for each. `take` cuts the next piece off; with no memory it only
 * counts, which is how a call's need is known: the same code lays out and measures. */
typedef struct {
    char *base;
    size_t used;
} Scratch;

static void *take(Scratch *s, int64_t count, size_t size) {
    void *piece = s->base ? s->base + s->used : NULL;
    s->used += ((size_t)count * size + 63) / 64 * 64;
    return piece;
}

static int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
