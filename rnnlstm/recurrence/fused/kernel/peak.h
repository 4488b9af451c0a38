/* The machine's ceiling, for the benchmark: fused multiply-adds of registers alone, `rounds` times 12 vectors on each
 * thread. Returns a number that depends on all of them, so that none can be left out. */
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

int64_t vector_lanes(void) { return VL; }
