/* The fused loops over time as a native CPU kernel: RNN, LSTM and GRU, forward and backward.
 *
 * A thread takes a slice of the rows (sequences) of one replica through all time steps; nothing waits between
 * steps. How rows are cut into slices depends on the shape alone, and what slices contribute to a weight's gradient is
 * added in their order, so every bit of the result is the same for any number of threads.
 *
 * Compiled once for each precision (REAL float or double) and vector width (VBYTES). Vectors are the extension that
 * gcc and clang share, so the same source serves x86-64 and arm64.
 *
 * A sequence may end before time step T: then `lengths` holds the length of each, longest first. The rows after its end
 * are neither read nor written. A worker takes over the caller's floating-point mode, so that flushing denormal numbers
 * to zero (torch.set_flush_denormal) means the same on every thread. The backward pass in single precision always
 * flushes them.
 *
 * Letters: R replicas, T time steps, B sequences, I inputs, H units, G blocks of pre-activations (see kinds.py),
 * P of them in each product, V rows of the table; d_ before a name: its gradient. `call.h` has all shapes.
 */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "vector.h"
#include "product.h"
#include "call.h"
#include "forward.h"
#include "backward.h"
#include "squares.h"
#include "peak.h"
