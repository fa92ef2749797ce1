/* What the kernels share: numbers in fp32 or bf16, an exponential that vectorises, and torch's own threads.

Arithmetic is in fp32. Compiled without -ffinite-math-only: what is no number stays none, so that its request can be
told. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* Number `i` of `from`, which is of bf16 or fp32. */
INLINE float load(const void *from, int64_t i, int bf16) {
    return bf16 ? from_bits((uint32_t)((const uint16_t *)from)[i] << 16) : ((const float *)from)[i];
}

/* Rounded to the nearest, ties to even, as torch does; NaN stays NaN. */
INLINE uint16_t to_bf16(float x) {
    uint32_t bits = to_bits(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
}

INLINE float rounded(float x, int bf16) { return bf16 ? from_bits((uint32_t)to_bf16(x) << 16) : x; }

INLINE void store(void *to, int64_t i, float x, int bf16) {
    if (bf16)
        ((uint16_t *)to)[i] = to_bf16(x);
    else
        ((float *)to)[i] = x;
}

/* e^x to 1e-7 or so, for x <= 88; 0 below -87, NaN for NaN. 2^n e^r with |r| <= ln 2 / 2 (Cephes' expf). */
INLINE float exponential(float x) {
    float bound = x < -87.0f ? -87.0f : x;
    float n = rintf(bound * 1.44269504f);
    float r = (bound - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    float found = p * from_bits((uint32_t)((int32_t)n + 127) << 23);
    return x < -87.0f ? 0.0f : found;
}

/* Pieces of work 0 to `count`, each done once, by torch's own pool of threads: a second pool would wait for cores that
the first one keeps. `fork` is GOMP_parallel; NULL: this thread does all. */
typedef void (*Fork)(void (*)(void *), void *, unsigned, unsigned);
typedef struct {
    void (*piece)(const void *, int64_t);
    const void *task;
    int64_t count, next;
} Pieces;

static void take_pieces(void *data) {
    Pieces *pieces = data;
    for (;;) {
        int64_t i = __atomic_fetch_add(&pieces->next, 1, __ATOMIC_RELAXED);
        if (i >= pieces->count)
            return;
        pieces->piece(pieces->task, i);
    }
}

static void spread(void (*piece)(const void *, int64_t), const void *task, int64_t count, Fork fork, int threads) {
    Pieces pieces = {piece, task, count, 0};
    if (fork == NULL || threads < 2 || count < 2)
        take_pieces(&pieces);
    else
        fork(take_pieces, &pieces, (unsigned)(threads < count ? threads : count), 0);
}
