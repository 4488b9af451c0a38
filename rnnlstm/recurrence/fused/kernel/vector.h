/* Vectors of REAL numbers, by the extension that gcc and clang share, and the activations on them. */
#define VL ((int)(VBYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vec __attribute__((vector_size(VBYTES)));
typedef REAL vec_any __attribute__((vector_size(VBYTES), aligned(sizeof(REAL)), may_alias)); /* at any address */

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

/* ---- comparisons: gcc makes a branch for every lane of a loop that compares lanes, or of a comparison of vectors
 * wider than the processor's own; hence masks, and comparisons in pieces of 16 bytes where there is no AVX ---- */

typedef __typeof__((vec){} > (vec){}) mask; /* whole numbers, as wide as REAL: all bits set where true */

INLINE mask above(vec a, vec b) { /* a > b; false for NaN */
#if VBYTES > 16 && !defined(__AVX2__)
    typedef REAL piece __attribute__((vector_size(16)));
    typedef __typeof__((piece){} > (piece){}) piece_mask;
    union { vec whole; piece pieces[VBYTES / 16]; } x = {a}, y = {b};
    union { mask whole; piece_mask pieces[VBYTES / 16]; } m;
    for (int k = 0; k < VBYTES / 16; k++) m.pieces[k] = x.pieces[k] > y.pieces[k];
    return m.whole;
#else
    return a > b;
#endif
}

INLINE vec choose(mask m, vec yes, vec no) { return (vec)(((mask)yes & m) | ((mask)no & ~m)); }
INLINE vec at_most(vec x, vec high) { return choose(above(x, high), high, x); } /* NaN stays NaN */

INLINE vec positive(vec x, vec value) { /* value where x > 0; NaN where x is NaN */
    vec zero = {};
    return choose(above(x, zero), value, choose(above(zero, x), zero, x) + zero); /* + 0: of -0 makes 0 */
}

/* Have this thread take denormal numbers for zero, which makes a vanished gradient ten times as fast: a processor needs
 * some hundred cycles for each of them. Not in double precision, which is for exactness. */
INLINE void flush_denormals(void) {
#if !IS_DOUBLE && defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#elif !IS_DOUBLE && defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | 1u << 24));
#endif
}

/* ---- sums of squares ---- */

/* `small` has every number times 2^60, for the case that the plain squares underflow. */
typedef struct { vec plain, small; } Squares;

INLINE void add_square(Squares *sum, vec v) {
    vec scaled = v * splat((REAL)0x1p60);
    sum->plain += v * v, sum->small += scaled * scaled;
}

INLINE double total(Squares sum) {
    double plain = 0, small = 0;
    for (int k = 0; k < VL; k++) plain += sum.plain[k], small += sum.small[k];
    return plain < 1e-25 ? small * 0x1p-120 : plain;
}

/* ---- activations ---- */

#if IS_DOUBLE
/* Double precision is for exactness: the C library's functions, lane by lane. */
INLINE vec v_tanh(vec x) { for (int k = 0; k < VL; k++) x[k] = tanh(x[k]); return x; }
INLINE vec v_sigmoid(vec x) { for (int k = 0; k < VL; k++) x[k] = 1 / (1 + exp(-x[k])); return x; }
#else
typedef uint32_t bits __attribute__((vector_size(VBYTES)));

/* 1 / (1 + e^y) for -43 <= y <= 105, within 2 units in the last place (ulp), denormal results too.
 *
 * e^y = 2^n (1 + p) with p = e^r - 1 and |r| <= ln2/2; ln2 in two parts as in Cephes' expf, the polynomial minimax.
 * All is scaled by 2^-64, so that 2^n has an exponent of its own for every y. The order of the last sum matters: with
 * 2^n + 1 first, both sums could round the same way. */
INLINE vec one_by_one_plus_exp(vec y) {
    const vec one = splat(0x1p-64f), shift = splat(0x1.8p23f + 127 - 64); /* rounds n, and biases it as an exponent */
    vec n = y * splat(1.44269504f) + shift;
    vec power = (vec)((bits)n << 23);
    n = n - shift;
    vec r = y - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    vec p = splat(1.387051772e-3f);
    p = p * r + splat(8.366643451e-3f);
    p = p * r + splat(4.166744277e-2f);
    p = p * r + splat(1.666654348e-1f);
    p = p * r + splat(4.999999702e-1f);
    p = p * (r * r) + r;
    return one / (power * p + one + power);
}

INLINE vec v_sigmoid(vec x) { return one_by_one_plus_exp(at_most(-at_most(x, splat(43.0f)), splat(105.0f))); }

/* tanh within 1.2 ulp: below 0.7 an odd minimax polynomial, x itself where x is tiny; above, 1 - 2 / (1 + e^2x). A
 * quotient for all x, cheaper, errs by 2.4 ulp or more, since numerator and denominator round each by themselves. */
INLINE vec v_tanh(vec x) {
    const bits sign = (bits)splat(-0.0f);
    vec size = (vec)((bits)x & ~sign), capped = at_most(size, splat(10.0f));
    vec large = splat(1.0f) - splat(2.0f) * one_by_one_plus_exp(capped + capped);
    vec s = size * size;
    vec p = splat(-5.140489899e-3f);
    p = p * s + splat(2.009435557e-2f);
    p = p * s + splat(-5.355996639e-2f);
    p = p * s + splat(1.332913190e-1f);
    p = p * s + splat(-3.333319128e-1f);
    vec small = p * (s * size) + size;
    return (vec)((bits)choose(above(size, splat(0.7f)), large, small) | ((bits)x & sign));
}
#endif
