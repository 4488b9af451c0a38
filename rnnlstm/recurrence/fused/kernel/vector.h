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

INLINE vec positive(vec x, vec value) { /* value where x > 0; NaN where x is NaN */
    for (int k = 0; k < VL; k++) value[k] = x[k] > 0 ? value[k] : x[k] != x[k] ? x[k] : 0;
    return value;
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
typedef int32_t ivec __attribute__((vector_size(VBYTES)));

/* x within [low, high]; NaN stays NaN. Written so that compilers make two instructions of it. */
INLINE vec clamp(vec x, REAL low, REAL high) {
    for (int k = 0; k < VL; k++) x[k] = high < x[k] ? high : x[k];
    for (int k = 0; k < VL; k++) x[k] = low > x[k] ? low : x[k];
    return x;
}

/* exp by reduction to [-ln2/2, ln2/2] and a polynomial; the ends saturate at 2^-126 and 2^127. */
INLINE vec v_exp(vec x) {
    x = clamp(x, -87.3f, 88.0f);
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
    x = clamp(x, -7.90531111f, 7.90531111f);
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
