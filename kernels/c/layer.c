/* The small operations of a decoder layer, each in one pass: RMS norm, RoPE, the gate of an MLP. */

#include "common.h"

#define PIECE 16 /* rows to a piece of work */

typedef struct {
    const void *x, *residual, *weight;
    void *sum, *out;
    int64_t rows, heads, stride, dim;
    float eps;
    int bf16;
} Norm;

INLINE void norm_row(const Norm *t, int64_t from, int64_t to, int bf16) {
    const int64_t width = bf16 ? 2 : 4, dim = t->dim;
    const char *x = (const char *)t->x + from * width;
    char *out = (char *)t->out + to * width;
    if (t->residual != NULL) {
        const char *residual = (const char *)t->residual + to * width;
        char *sum = (char *)t->sum + to * width;
        for (int64_t i = 0; i < dim; i++)
            store(sum, i, load(x, i, bf16) + load(residual, i, bf16), bf16);
        x = sum;
    }
    float square = 0.0f;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < dim; i++) {
        float s = load(x, i, bf16);
        square += s * s;
    }
    const float scale = 1.0f / sqrtf(square / (float)dim + t->eps);
    for (int64_t i = 0; i < dim; i++) {
        float s = rounded(load(x, i, bf16) * scale, bf16);
        store(out, i, load(t->weight, i, bf16) * s, bf16);
    }
}

static void norm_piece(const void *task, int64_t piece) {
    const Norm *t = task;
    int64_t last = (piece + 1) * PIECE < t->rows ? (piece + 1) * PIECE : t->rows;
    for (int64_t row = piece * PIECE; row < last; row++)
        for (int64_t head = 0; head < t->heads; head++) {
            int64_t from = row * t->stride + head * t->dim, to = (row * t->heads + head) * t->dim;
            if (t->bf16)
                norm_row(t, from, to, 1);
            else
                norm_row(t, from, to, 0);
        }
}

/* `rows` of `heads` vectors of `dim`, rows `stride` apart in `x`; all else is contiguous. `residual` NULL: no sum. */
void rms_norm(const void *x, const void *residual, const void *weight, void *sum, void *out, int64_t rows,
              int64_t heads, int64_t stride, int64_t dim, float eps, int bf16, Fork fork, int threads) {
    Norm t = {x, residual, weight, sum, out, rows, heads, stride, dim, eps, bf16};
    spread(norm_piece, &t, (rows + PIECE - 1) / PIECE, fork, threads);
}

typedef struct {
    void *query, *key;
    const void *cos, *sin;
    int64_t rows, heads, q_stride, kv_heads, k_stride, dim, half;
    int bf16;
} Rope;

INLINE void turn(const Rope *t, void *x, int64_t stride, int64_t heads, int64_t row, int bf16) {
    const int64_t half = t->half, angle = row * 2 * half, width = bf16 ? 2 : 4;
    const char *cos = (const char *)t->cos + angle * width, *sin = (const char *)t->sin + angle * width;
    for (int64_t head = 0; head < heads; head++) {
        char *vector = (char *)x + (row * stride + head * t->dim) * width;
        for (int64_t i = 0; i < half; i++) {
            float first = load(vector, i, bf16), second = load(vector, half + i, bf16);
            float a = first * load(cos, i, bf16) - second * load(sin, i, bf16);
            float b = second * load(cos, half + i, bf16) + first * load(sin, half + i, bf16);
            store(vector, i, a, bf16);
            store(vector, half + i, b, bf16);
        }
    }
}

static void rope_piece(const void *task, int64_t piece) {
    const Rope *t = task;
    int64_t last = (piece + 1) * PIECE < t->rows ? (piece + 1) * PIECE : t->rows;
    for (int64_t row = piece * PIECE; row < last; row++)
        if (t->bf16) {
            turn(t, t->query, t->q_stride, t->heads, row, 1);
            turn(t, t->key, t->k_stride, t->kv_heads, row, 1);
        } else {
            turn(t, t->query, t->q_stride, t->heads, row, 0);
            turn(t, t->key, t->k_stride, t->kv_heads, row, 0);
        }
}

/* In place; a row's heads stand one after the other, rows are `stride` apart. `half` of `dim` is half of what turns. */
void rope(void *query, void *key, const void *cos, const void *sin, int64_t rows, int64_t heads, int64_t q_stride,
          int64_t kv_heads, int64_t k_stride, int64_t dim, int64_t half, int bf16, Fork fork, int threads) {
    Rope t = {query, key, cos, sin, rows, heads, q_stride, kv_heads, k_stride, dim, half, bf16};
    spread(rope_piece, &t, (rows + PIECE - 1) / PIECE, fork, threads);
}

typedef struct {
    const void *gate, *up;
    void *out;
    int64_t count;
    int bf16;
} Gate;

#define NUMBERS 16384 /* to a piece of work */

INLINE void gate_numbers(const Gate *t, int64_t first, int64_t last, int bf16) {
    for (int64_t i = first; i < last; i++) {
        float g = load(t->gate, i, bf16);
        float small = exponential(-fabsf(g)); /* never overflows */
        float silu = g * ((g < 0.0f ? small : 1.0f) / (1.0f + small));
        store(t->out, i, rounded(silu, bf16) * load(t->up, i, bf16), bf16);
    }
}

static void gate_piece(const void *task, int64_t piece) {
    const Gate *t = task;
    int64_t first = piece * NUMBERS, last = first + NUMBERS < t->count ? first + NUMBERS : t->count;
    if (t->bf16)
        gate_numbers(t, first, last, 1);
    else
        gate_numbers(t, first, last, 0);
}

void silu_mul(const void *gate, const void *up, void *out, int64_t count, int bf16, Fork fork, int threads) {
    Gate t = {gate, up, out, count, bf16};
    spread(gate_piece, &t, (count + NUMBERS - 1) / NUMBERS, fork, threads);
}
