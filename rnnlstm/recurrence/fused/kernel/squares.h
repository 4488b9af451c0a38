/* Sums of squares of many small tensors in one call: the norms that clipping needs at every update. */

/* sums[p*R + r] = the sum, in double precision, of the squares of row r of tensor p: R rows of size[p] numbers. */
void squares(int64_t P, int64_t R, const REAL *const *tensors, const int64_t *size, double *sums) {
    for (int64_t p = 0; p < P; p++)
        for (int64_t r = 0; r < R; r++) {
            const REAL *row = tensors[p] + r * size[p];
            double sum[16] = {0}; /* partial sums, which the processor adds side by side */
            int64_t k = 0;
            for (; k + 16 <= size[p]; k += 16)
                for (int l = 0; l < 16; l++) sum[l] += (double)row[k + l] * (double)row[k + l];
            for (; k < size[p]; k++) sum[k % 16] += (double)row[k] * (double)row[k];
            for (int l = 1; l < 16; l++) sum[0] += sum[l];
            sums[p * R + r] = sum[0];
        }
}
