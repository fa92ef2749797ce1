/* What both kinds of attention are given of a layer: its rows of the step, and the paged cache.

`query` [rows, heads, dim], `key` and `value` [rows, kv_heads, dim] with strides of their own for rows and heads; `out`
[rows, heads, dim]; these in bf16 or fp32, and of all of the step's rows. In fp32: caches [blocks, kv_heads, size, dim],
`sinks` [heads] or NULL. `blocks` [sequences, width]: where the tokens of those sequences lie that the call is about.
`window` and `softcap` 0: none. `dim` and `size` are multiples of 8, and `dim` is 256 at most. */

#include "common.h"

/* Laid out as `c_layer.Layer` has it. */
typedef struct {
    const void *query, *key, *value;
    int64_t q_row, q_head, k_row, k_head, v_row, v_head;
    float *keys, *values;
    const float *sinks;
    void *out;
    const int32_t *blocks;
    int64_t heads, kv_heads, dim, size, width, window;
    float scale, softcap;
    int32_t bf16;
} Layer;

/* Where block `b` of a sequence begins in a cache. `dim`, here and below: that of `l`, known to the compiler or not. */
INLINE float *block_at(const Layer *l, float *cache, int64_t sequence, int64_t head, int64_t b, int64_t dim) {
    const int64_t block = l->blocks[sequence * l->width + b];
    return cache + (block * l->kv_heads + head) * l->size * dim;
}

INLINE float *token_at(const Layer *l, float *cache, int64_t sequence, int64_t head, int64_t token, int64_t dim) {
    return block_at(l, cache, sequence, head, token / l->size, dim) + token % l->size * dim;
}

/* The keys and values of the step's `row`, a sequence's `token`. */
INLINE void store_token(const Layer *l, int64_t row, int64_t sequence, int64_t head, int64_t token) {
    float *key = token_at(l, l->keys, sequence, head, token, l->dim);
    float *value = token_at(l, l->values, sequence, head, token, l->dim);
    for (int64_t d = 0; d < l->dim; d++) {
        key[d] = load(l->key, row * l->k_row + head * l->k_head + d, l->bf16);
        value[d] = load(l->value, row * l->v_row + head * l->v_head + d, l->bf16);
    }
}
