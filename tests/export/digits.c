/* The demo's network on fixed-point activations: convolutions and the linear layer by shifts and additions alone.
 *
 * Reads images of 64 bytes (0 to 255) from standard input, prints a class a line. Integer part: all of `shifted`.
 * Float part: BatchNorm (one multiplication and addition a value), the scaling of the input, the classifier's bias.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "weights.h"

#define FRACTION 12 /* bits of an activation below the point */

typedef struct { const uint8_t *codes; int sign; int n_2; } Weight;

/* Returns x * weight * 2^(FRACTION - n_2) for x with FRACTION bits below the point: only shifts. */
static int64_t shifted(int64_t x, Weight w, int at) {
    int code = w.codes[at], index = code & (w.sign - 1);
    if (code == 0) return 0;
    return code & w.sign ? -(x << (index - 1)) : x << (index - 1);
}

static double real(int64_t sum, int n_2) { return ldexp((double)sum, n_2 - FRACTION); }
static int64_t fixed(double x) { return llround(ldexp(x, FRACTION)); }

static void convolve(const int64_t *in, int channels, int size, int64_t *out, int filters, Weight w,
                     const float *gamma, const float *beta, const float *mean, const float *variance) {
    for (int f = 0; f < filters; f++)
        for (int y = 0; y < size; y++)
            for (int x = 0; x < size; x++) {
                int64_t sum = 0;
                for (int c = 0; c < channels; c++)
                    for (int i = 0; i < 9; i++) {
                        int v = y + i / 3 - 1, u = x + i % 3 - 1;
                        if (v >= 0 && v < size && u >= 0 && u < size)
                            sum += shifted(in[(c * size + v) * size + u], w, (f * channels + c) * 9 + i);
                    }
                double normal = (real(sum, w.n_2) - mean[f]) / sqrt(variance[f] + 1e-5) * gamma[f] + beta[f];
                out[(f * size + y) * size + x] = normal > 0 ? fixed(normal) : 0;
            }
}

#define WEIGHT(name, NAME) ((Weight){name##_codes, NAME##_SIGN, name##_n_2[0]})
#define NORM(n) features_##n##_weight, features_##n##_bias, features_##n##_running_mean, features_##n##_running_var

int main(int argc, char **argv) {
    double mean, std;
    unsigned char image[64];
    static int64_t a[64 * 64], b[64 * 64];
    if (argc != 3 || sscanf(argv[1], "%lf", &mean) != 1 || sscanf(argv[2], "%lf", &std) != 1) return 2;
    while (fread(image, 1, 64, stdin) == 64) {
        for (int i = 0; i < 64; i++) a[i] = fixed((image[i] / 255.0 - mean) / std);
        convolve(a, 1, 8, b, 16, WEIGHT(features_0_weight, FEATURES_0_WEIGHT), NORM(1));
        convolve(b, 16, 8, a, 32, WEIGHT(features_3_weight, FEATURES_3_WEIGHT), NORM(4));
        for (int c = 0; c < 32; c++)
            for (int i = 0; i < 16; i++) {
                int64_t *p = a + (c * 8 + i / 4 * 2) * 8 + i % 4 * 2, most = p[0];
                for (int j = 1; j < 4; j++) if (p[j / 2 * 8 + j % 2] > most) most = p[j / 2 * 8 + j % 2];
                b[c * 16 + i] = most;
            }
        convolve(b, 32, 4, a, 64, WEIGHT(features_7_weight, FEATURES_7_WEIGHT), NORM(8));
        for (int c = 0; c < 64; c++)
            for (int i = 0; i < 4; i++) {
                int64_t *p = a + (c * 4 + i / 2 * 2) * 4 + i % 2 * 2;
                b[c * 4 + i] = (p[0] + p[1] + p[4] + p[5]) >> 2;
            }
        Weight w = WEIGHT(classifier_weight, CLASSIFIER_WEIGHT);
        int best = 0;
        double most = -INFINITY;
        for (int k = 0; k < 10; k++) {
            int64_t sum = 0;
            for (int i = 0; i < 256; i++) sum += shifted(b[i], w, k * 256 + i);
            double logit = real(sum, w.n_2) + classifier_bias[k];
            if (logit > most) { most = logit; best = k; }
        }
        printf("%d\n", best);
    }
    return 0;
}
