/* The machine's ceilings, for the benchmark's roofline. Each works on all threads and returns a number that depends
 * on all it did, so that nothing can be left out. */

/* Fused multiply-adds of registers alone: `rounds` times 12 vectors on each thread. */
double peak(int64_t rounds, double factor, int threads) {
    double result = 0;
#pragma omp parallel num_threads(threads) reduction(+ : result)
    {
        vec a[12], b = splat((REAL)factor), c = splat((REAL)1e-9);
        for (int k = 0; k < 12; k++) a[k] = splat((REAL)k);
        for (int64_t r = 0; r < rounds; r++)
            for (int k = 0; k < 12; k++) a[k] = a[k] * b + c;
        for (int k = 0; k < 12; k++) result += a[k][0];
    }
    return result;
}

/* Activations of numbers from the first cache: `rounds` times 8 vectors of sigmoids, or of tanh, on each thread. None
 * needs the result of another, and inputs lie in (-6, 6), as pre-activations do. */
INLINE vec some_activations(int64_t rounds, const int tanh_instead) {
    vec inputs[64], sums[8] = {}; /* which are taken depends on r, or compilers would compute each only once */
    for (int k = 0; k < 64; k++)
        for (int l = 0; l < VL; l++) inputs[k][l] = (REAL)((k * VL + l) * 37 % 119 - 59) / 10;
    for (int64_t r = 0; r < rounds; r++)
        for (int k = 0; k < 8; k++) {
            vec x = inputs[r % 8 * 8 + k];
            sums[k] += tanh_instead ? v_tanh(x) : v_sigmoid(x);
        }
    for (int k = 1; k < 8; k++) sums[0] += sums[k];
    return sums[0];
}

double activations(int64_t rounds, int tanh_instead, int threads) {
    double result = 0;
#pragma omp parallel num_threads(threads) reduction(+ : result)
    result += (tanh_instead ? some_activations(rounds, 1) : some_activations(rounds, 0))[0];
    return result;
}

/* Reading `count` numbers (a multiple of 8 vectors) `rounds` times on each thread: of one array that all share, as
 * weights are, from whichever cache holds so many. */
double stream(const REAL *data, int64_t count, int64_t rounds, int threads) {
    double result = 0;
#pragma omp parallel num_threads(threads) reduction(+ : result)
    {
        vec a[8];
        for (int k = 0; k < 8; k++) a[k] = splat(0);
        for (int64_t r = 0; r < rounds; r++)
            for (int64_t i = 0; i < count; i += 8 * VL)
                for (int k = 0; k < 8; k++) a[k] += load(data + i + k * VL, VL);
        for (int k = 0; k < 8; k++) result += a[k][0];
    }
    return result;
}

int64_t vector_lanes(void) { return VL; }
