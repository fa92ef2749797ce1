/* Attention of chunks of prompts: several rows each, the last ones of a sequence in the paged cache.

    out[i] = softmax(scale q[i] K[:i+1]^T) V[:i+1]

A piece of work is the query heads of one KV head for some of a chunk's rows, each query in a lane of its own: keys and
values are read as they lie, a number at a time for all lanes, and no sum is across lanes. Tokens go by tiles, which
begin at multiples of TILE; with each, what was summed is scaled to the highest score so far (the online softmax of
FlashAttention). Each query's sums are in the order of its own tokens, so a row's bits do not depend on its chunk. */

#include "common.h"

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define VECTORS 2
#define TILE 32 /* tokens, a multiple of TOGETHER */
#define TOGETHER 8 /* tokens' scores, or numbers of a value, whose sums stay in registers */
#define MOST_DIM 256
#define LOWEST (-3e38f)

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Whole __attribute__((vector_size(4 * LANES)));

/* Rows `start` to `start + rows - 1` of the step are the last ones of a sequence of `context` tokens. */
typedef struct {
    int32_t start, rows, context;
} Chunk;

/* Queries of a part, `first` on: of a chunk's rows times the query heads of a KV head. */
const int64_t part_queries = VECTORS * LANES;

typedef struct {
    int32_t chunk, first;
} Part;

/* One call's tensors; `attend_chunks` says what they are. */
typedef struct {
    const void *query, *key, *value;
    int64_t q_row, q_head, k_row, k_head, v_row, v_head;
    float *keys, *values;
    const float *sinks;
    void *out;
    const int32_t *blocks;
    const Chunk *chunks;
    const Part *parts;
    int64_t count, heads, kv_heads, dim, size, width, window;
    float scale, softcap;
    int bf16;
} Chunks;

/* Where the numbers of a chunk's token stand in a cache. */
INLINE float *place(const Chunks *t, float *cache, int64_t chunk, int64_t head, int64_t token, int64_t dim) {
    const int64_t block = t->blocks[chunk * t->width + token / t->size];
    return cache + ((block * t->kv_heads + head) * t->size + token % t->size) * dim;
}

/* What a token of the next tile has, if there is one: blocks lie anywhere, so the processor can't guess the next. */
INLINE void fetch(const Chunks *t, float *cache, int64_t chunk, int64_t head, int64_t token, int64_t end, int64_t dim) {
    const float *from = place(t, cache, chunk, head, token < end ? token : end - 1, dim);
    for (int64_t d = 0; d < dim; d += 16)
        __builtin_prefetch(from + d, 0, 2);
}

/* s[j] = q . k[j] for TOGETHER tokens, of all queries. */
INLINE void score(const Lanes *q, const float *k, Lanes *s, int64_t dim, int vectors) {
    Lanes sum[TOGETHER][VECTORS] = {0};
    for (int64_t d = 0; d < dim; d++)
        for (int j = 0; j < TOGETHER; j++)
            for (int v = 0; v < vectors; v++)
                sum[j][v] += q[d * vectors + v] * k[j * dim + d];
    for (int j = 0; j < TOGETHER; j++)
        for (int v = 0; v < vectors; v++)
            s[j * vectors + v] = sum[j][v];
}

/* out[d] += sum_t p[t] value[t][d], for `count` tokens. */
INLINE void add(const Lanes *p, const float *const *values, int64_t count, Lanes *out, int64_t dim, int vectors) {
    for (int64_t d = 0; d < dim; d += TOGETHER) {
        Lanes sum[TOGETHER][VECTORS];
        for (int j = 0; j < TOGETHER; j++)
            for (int v = 0; v < vectors; v++)
                sum[j][v] = out[(d + j) * vectors + v];
        for (int64_t t = 0; t < count; t++)
            for (int j = 0; j < TOGETHER; j++)
                for (int v = 0; v < vectors; v++)
                    sum[j][v] += p[t * vectors + v] * values[t][d + j];
        for (int j = 0; j < TOGETHER; j++)
            for (int v = 0; v < vectors; v++)
                out[(d + j) * vectors + v] = sum[j][v];
    }
}

INLINE Lanes pick(Whole which, Lanes one, Lanes other) {
    return (Lanes)((which & (Whole)one) | (~which & (Whole)other));
}

INLINE Lanes exponentials(Lanes x) {
    float each[LANES];
    memcpy(each, &x, sizeof x);
#pragma omp simd
    for (int i = 0; i < LANES; i++)
        each[i] = exponential(each[i]);
    memcpy(&x, each, sizeof x);
    return x;
}

static __attribute__((noinline)) Lanes capped(Lanes x, float softcap) {
    for (int i = 0; i < LANES; i++)
        x[i] = softcap * tanhf(x[i] / softcap);
    return x;
}

INLINE void attend(const Chunks *t, Part part, int64_t head, int64_t dim, int vectors) {
    const Chunk chunk = t->chunks[part.chunk];
    const int64_t group = t->heads / t->kv_heads, left = chunk.rows * group - part.first;
    const int64_t queries = left < vectors * LANES ? left : vectors * LANES, before = chunk.context - chunk.rows;
    Lanes q[MOST_DIM * VECTORS], out[MOST_DIM * VECTORS], p[TILE * VECTORS], high[VECTORS], total[VECTORS] = {0};
    Whole position[VECTORS];
    float *const q_lanes = (float *)q, *const out_lanes = (float *)out;
#define ROW(I) (chunk.start + (part.first + (I)) / group)
#define HEAD(I) (head * group + (part.first + (I)) % group)
    for (int i = 0; i < vectors * LANES; i++) {
        const int64_t n = i < queries ? i : queries - 1; /* a lane without a query repeats the last one */
        const int64_t from = ROW(n) * t->q_row + HEAD(n) * t->q_head;
        position[i / LANES][i % LANES] = (int32_t)(before + ROW(n) - chunk.start);
        high[i / LANES][i % LANES] = LOWEST;
        for (int64_t d = 0; d < dim; d++)
            q_lanes[d * vectors * LANES + i] = load(t->query, from + d, t->bf16) * t->scale;
    }
    memset(out, 0, (size_t)(dim * vectors) * sizeof(Lanes));
    const int64_t lowest = position[0][0], end = position[vectors - 1][LANES - 1] + 1;
    const int64_t begin = t->window > 0 && lowest >= t->window ? lowest - t->window + 1 : 0;
    for (int64_t from = begin / TILE * TILE; from < end; from += TILE) {
        const int64_t count = from + TILE < end ? TILE : end - from;
        const float *values[TILE];
        Lanes higher[VECTORS];
        memcpy(higher, high, sizeof higher);
        for (int64_t n = 0; n < count; n += TOGETHER) {
            Lanes *s = p + n * vectors;
            for (int j = 0; j < TOGETHER; j++)
                fetch(t, t->keys, part.chunk, head, from + n + TILE + j, end, dim);
            score(q, place(t, t->keys, part.chunk, head, from + n, dim), s, dim, vectors);
            const int hides = from + n + TOGETHER > lowest + 1 || (t->window > 0 && from + n < end - t->window);
            for (int j = 0; j < TOGETHER; j++)
                for (int v = 0; v < vectors; v++) {
                    Lanes one = s[j * vectors + v];
                    if (t->softcap > 0.0f)
                        one = capped(one, t->softcap);
                    if (hides) {
                        const Whole behind = position[v] - (int32_t)(from + n + j);
                        const Whole seen = (behind >= 0) & (t->window > 0 ? behind < (int32_t)t->window : ~(Whole){0});
                        one = pick(seen, one, (Lanes){0} - INFINITY);
                    }
                    s[j * vectors + v] = one;
                    higher[v] = pick(one > higher[v], one, higher[v]);
                }
        }
        for (int v = 0; v < vectors; v++) {
            const Lanes factor = exponentials(high[v] - higher[v]);
            high[v] = higher[v];
            total[v] *= factor;
            for (int64_t d = 0; d < dim; d++)
                out[d * vectors + v] *= factor;
        }
        for (int64_t n = 0; n < count; n++) {
            values[n] = place(t, t->values, part.chunk, head, from + n, dim);
            fetch(t, t->values, part.chunk, head, from + n + TILE, end, dim);
            for (int v = 0; v < vectors; v++)
                total[v] += p[n * vectors + v] = exponentials(p[n * vectors + v] - high[v]);
        }
        /* What no row sees any more is not read: its blocks may be somebody else's by now. */
        const int64_t first = from < begin ? begin - from : 0;
        add(p + first * vectors, values + first, count - first, out, dim, vectors);
    }
    for (int i = 0; t->sinks != NULL && i < queries; i++)
        total[i / LANES][i % LANES] += expf(t->sinks[HEAD(i)] - high[i / LANES][i % LANES]);
    for (int64_t d = 0; d < dim; d++)
        for (int v = 0; v < vectors; v++)
            out[d * vectors + v] /= total[v];
    for (int64_t i = 0; i < queries; i++) {
        float one[MOST_DIM];
        for (int64_t d = 0; d < dim; d++)
            one[d] = out_lanes[d * vectors * LANES + i];
        for (int64_t d = 0; d < dim; d++)
            store(t->out, (ROW(i) * t->heads + HEAD(i)) * dim + d, one[d], t->bf16);
    }
#undef ROW
#undef HEAD
}

static void attend_part(const void *task, int64_t piece) {
    const Chunks *t = task;
    const int64_t head = piece / t->count; /* in the outer loop: its keys and values stay in the processor's cache */
    const Part part = t->parts[piece % t->count];
    const int64_t left = t->chunks[part.chunk].rows * (t->heads / t->kv_heads) - part.first;
    const int vectors = left <= LANES ? 1 : 2;
    if (t->dim == 64 && vectors == 2) /* common widths get loops of known length */
        attend(t, part, head, 64, 2);
    else if (t->dim == 64)
        attend(t, part, head, 64, 1);
    else if (t->dim == 128 && vectors == 2)
        attend(t, part, head, 128, 2);
    else if (vectors == 2)
        attend(t, part, head, t->dim, 2);
    else
        attend(t, part, head, t->dim, 1);
}

static void store_chunk(const void *task, int64_t piece) {
    const Chunks *t = task;
    const int64_t which = piece / t->kv_heads, head = piece % t->kv_heads;
    const Chunk chunk = t->chunks[which];
    for (int64_t i = 0; i < chunk.rows; i++) {
        const int64_t row = chunk.start + i, token = chunk.context - chunk.rows + i;
        float *key = place(t, t->keys, which, head, token, t->dim);
        float *value = place(t, t->values, which, head, token, t->dim);
        for (int64_t d = 0; d < t->dim; d++) {
            key[d] = load(t->key, row * t->k_row + head * t->k_head + d, t->bf16);
            value[d] = load(t->value, row * t->v_row + head * t->v_head + d, t->bf16);
        }
    }
}

/* `query` [rows, heads, dim], `key` and `value` [rows, kv_heads, dim] with strides of their own for rows and heads;
`out` [rows, heads, dim]; these in bf16 or fp32, and of all of the step's rows: those of the `chunks` are stored, and
then attended to. In fp32: caches [blocks, kv_heads, size, dim], `sinks` [heads] or NULL. `blocks` [chunks, width].
`parts` [count]: all queries of a KV head, `part_queries` to each. `window` and `softcap` 0: none. `dim` is a multiple
of TOGETHER, MOST_DIM at most, and `size` one too. */
void attend_chunks(const void *query, const void *key, const void *value, int64_t q_row, int64_t q_head, int64_t k_row,
                   int64_t k_head, int64_t v_row, int64_t v_head, float *keys, float *values, const float *sinks,
                   void *out, const int32_t *blocks, const Chunk *chunks, const Part *parts, int64_t chunk_count,
                   int64_t count, int64_t heads, int64_t kv_heads, int64_t dim, int64_t size, int64_t width,
                   int64_t window, float scale, float softcap, int bf16, Fork fork, int threads) {
    Chunks t = {query, key, value, q_row, q_head, k_row, k_head, v_row, v_head, keys, values, sinks, out, blocks,
                chunks, parts, count, heads, kv_heads, dim, size, width, window, scale, softcap, bf16};
    spread(store_chunk, &t, chunk_count * kv_heads, fork, threads);
    spread(attend_part, &t, count * kv_heads, fork, threads);
}
