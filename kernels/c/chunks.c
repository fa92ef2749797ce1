/* Attention of chunks of prompts: several rows each, the last ones of a sequence in the paged cache.

    out[i] = softmax(scale q[i] K[:i+1]^T) V[:i+1]

A piece of work is the query heads of one KV head for some of a chunk's rows, each query in a lane of its own: keys and
values are read as they lie, a number at a time for all lanes, and no sum is across lanes. Tokens go by tiles, which
begin at multiples of TILE; with each, what was summed is scaled to the highest score so far (the online softmax of
FlashAttention). Each query's sums are in the order of its own tokens, so a row's bits do not depend on its chunk. */

#include "cache.h"

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

typedef struct {
    Layer layer;
    const Chunk *chunks;
    const Part *parts;
    int64_t count;
} Chunks;

/* What a token of the next tile has, if there is one: blocks lie anywhere, so the processor can't guess the next. */
INLINE void fetch(const Layer *l, float *cache, int64_t chunk, int64_t head, int64_t token, int64_t end, int64_t dim) {
    const float *from = token_at(l, cache, chunk, head, token < end ? token : end - 1, dim);
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
    const Layer *const l = &t->layer;
    const Chunk chunk = t->chunks[part.chunk];
    const int64_t group = l->heads / l->kv_heads, left = chunk.rows * group - part.first;
    const int64_t queries = left < vectors * LANES ? left : vectors * LANES, before = chunk.context - chunk.rows;
    Lanes q[MOST_DIM * VECTORS], out[MOST_DIM * VECTORS], p[TILE * VECTORS], high[VECTORS], total[VECTORS] = {0};
    Whole position[VECTORS];
    float *const q_lanes = (float *)q, *const out_lanes = (float *)out;
#define ROW(I) (chunk.start + (part.first + (I)) / group)
#define HEAD(I) (head * group + (part.first + (I)) % group)
    for (int i = 0; i < vectors * LANES; i++) {
        const int64_t n = i < queries ? i : queries - 1; /* a lane without a query repeats the last one */
        const int64_t from = ROW(n) * l->q_row + HEAD(n) * l->q_head;
        position[i / LANES][i % LANES] = (int32_t)(before + ROW(n) - chunk.start);
        high[i / LANES][i % LANES] = LOWEST;
        for (int64_t d = 0; d < dim; d++)
            q_lanes[d * vectors * LANES + i] = load(l->query, from + d, l->bf16) * l->scale;
    }
    memset(out, 0, (size_t)(dim * vectors) * sizeof(Lanes));
    const int64_t lowest = position[0][0], end = position[vectors - 1][LANES - 1] + 1;
    const int64_t begin = l->window > 0 && lowest >= l->window ? lowest - l->window + 1 : 0;
    for (int64_t from = begin / TILE * TILE; from < end; from += TILE) {
        const int64_t count = from + TILE < end ? TILE : end - from;
        const float *values[TILE];
        Lanes higher[VECTORS];
        memcpy(higher, high, sizeof higher);
        for (int64_t n = 0; n < count; n += TOGETHER) {
            Lanes *s = p + n * vectors;
            for (int j = 0; j < TOGETHER; j++)
                fetch(l, l->keys, part.chunk, head, from + n + TILE + j, end, dim);
            score(q, token_at(l, l->keys, part.chunk, head, from + n, dim), s, dim, vectors);
            const int hides = from + n + TOGETHER > lowest + 1 || (l->window > 0 && from + n < end - l->window);
            for (int j = 0; j < TOGETHER; j++)
                for (int v = 0; v < vectors; v++) {
                    Lanes one = s[j * vectors + v];
                    if (l->softcap > 0.0f)
                        one = capped(one, l->softcap);
                    if (hides) {
                        const Whole behind = position[v] - (int32_t)(from + n + j);
                        const Whole seen = (behind >= 0) & (l->window > 0 ? behind < (int32_t)l->window : ~(Whole){0});
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
            values[n] = token_at(l, l->values, part.chunk, head, from + n, dim);
            fetch(l, l->values, part.chunk, head, from + n + TILE, end, dim);
            for (int v = 0; v < vectors; v++)
                total[v] += p[n * vectors + v] = exponentials(p[n * vectors + v] - high[v]);
        }
        /* What no row sees any more is not read: its blocks may be somebody else's by now. */
        const int64_t first = from < begin ? begin - from : 0;
        add(p + first * vectors, values + first, count - first, out, dim, vectors);
    }
    for (int i = 0; l->sinks != NULL && i < queries; i++)
        total[i / LANES][i % LANES] += expf(l->sinks[HEAD(i)] - high[i / LANES][i % LANES]);
    for (int64_t d = 0; d < dim; d++)
        for (int v = 0; v < vectors; v++)
            out[d * vectors + v] /= total[v];
    for (int64_t i = 0; i < queries; i++) {
        float one[MOST_DIM];
        for (int64_t d = 0; d < dim; d++)
            one[d] = out_lanes[d * vectors * LANES + i];
        for (int64_t d = 0; d < dim; d++)
            store(l->out, (ROW(i) * l->heads + HEAD(i)) * dim + d, one[d], l->bf16);
    }
#undef ROW
#undef HEAD
}

static void attend_part(const void *task, int64_t piece) {
    const Chunks *t = task;
    /* Heads in the outer loop: their keys and values stay in the processor's cache. */
    const int64_t dim = t->layer.dim, head = piece / t->count;
    const Part part = t->parts[piece % t->count];
    const int64_t left = t->chunks[part.chunk].rows * (t->layer.heads / t->layer.kv_heads) - part.first;
    const int vectors = left <= LANES ? 1 : 2;
    if (dim == 64 && vectors == 2) /* common widths get loops of known length */
        attend(t, part, head, 64, 2);
    else if (dim == 64)
        attend(t, part, head, 64, 1);
    else if (dim == 128 && vectors == 2)
        attend(t, part, head, 128, 2);
    else if (vectors == 2)
        attend(t, part, head, dim, 2);
    else
        attend(t, part, head, dim, 1);
}

static void store_chunk(const void *task, int64_t piece) {
    const Chunks *t = task;
    const int64_t which = piece / t->layer.kv_heads, head = piece % t->layer.kv_heads;
    const Chunk chunk = t->chunks[which];
    for (int64_t i = 0; i < chunk.rows; i++)
        store_token(&t->layer, chunk.start + i, which, head, chunk.context - chunk.rows + i);
}

/* The rows of the `chunks` [chunk_count], whose sequences are those of `layer`, are stored, and then attended to.
`parts` [count]: all queries of a KV head, `part_queries` to each. */
void attend_chunks(const Layer *layer, const Chunk *chunks, const Part *parts, int64_t chunk_count, int64_t count,
                   Fork fork, int threads) {
    Chunks t = {*layer, chunks, parts, count};
    spread(store_chunk, &t, chunk_count * layer->kv_heads, fork, threads);
    spread(attend_part, &t, count * layer->kv_heads, fork, threads);
}
