/* Shapes, block layouts and memory, for both directions. */
#define NV 4 /* vectors in a forward panel: up to four blocks of VL units, or 4*VL units of an RNN */

enum { RNN_TANH, RNN_RELU, RNN_SIGMOID, RNN_IDENTITY, LSTM, LSTM_1997, GRU };

typedef struct {
    int64_t kind, R, T, B, I, H, slices; /* slices: of each replica's rows */
} Shape;

/* Blocks of H pre-activations; the input's product goes into the first of them, the state's into the last. */
static int64_t blocks(int64_t kind) { return kind == LSTM || kind == GRU ? 4 : kind == LSTM_1997 ? 3 : 1; }
static int64_t product_blocks(int64_t kind) { return kind == GRU ? 3 : blocks(kind); }
static inline int has_cell(int64_t kind) { return kind == LSTM || kind == LSTM_1997; }

/* Of m rows from `from` on, longest first: how many have a time step t. `lengths` NULL: all. */
static int64_t active(const int64_t *lengths, int64_t from, int64_t m, int64_t t) {
    while (lengths && m > 0 && lengths[from + m - 1] <= t) m--;
    return m;
}

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
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
