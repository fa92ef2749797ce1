/* Attention of rows that decode, each over its own sequence in the paged cache, read where it lies.

    out = softmax(scale q K^T) V

A piece of work is a run of rows whose sequences begin with the same blocks, and the query heads of one KV head: keys
and values that they have in common are read once for all of them. Each query's sums are in the order that they have for
a row alone, so what goes together changes no bit. */

#include "cache.h"

#define LANES 8
#define AHEAD 2 /* blocks that are fetched before they are read */
#define WIDE 4
#define TOGETHER 4 /* query heads that go together: their sums stay in registers */

typedef float Lanes __attribute__((vector_size(32)));
typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

/* `from` NULL: nothing. */
INLINE void fetch(const float *from, int64_t count) {
    for (int64_t i = 0; from != NULL && i < count; i += 16)
        __builtin_prefetch(from + i, 0, 1);
}

INLINE Lanes lanes(const float *from) { return *(const Unaligned *)from; }

/* Lane i: the sum of the lanes of part[i]. */
INLINE Lanes sums(const Lanes *part) {
    Lanes four[4], two[2];
    for (int i = 0; i < 4; i++)
        four[i] = __builtin_shufflevector(part[i], part[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) +
                  __builtin_shufflevector(part[i], part[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    for (int i = 0; i < 2; i++)
        two[i] = __builtin_shufflevector(four[i], four[i + 2], 0, 1, 8, 9, 4, 5, 12, 13) +
                 __builtin_shufflevector(four[i], four[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(two[0], two[1], 0, 8, 2, 10, 4, 12, 6, 14) +
           __builtin_shufflevector(two[0], two[1], 1, 9, 3, 11, 5, 13, 7, 15);
}

/* STATEMENT with the constant LEFT for `count` queries, fewer than TOGETHER. */
#define REST(COUNT, STATEMENT)                                                                                         \
    switch (COUNT) {                                                                                                   \
    case 1: { enum { LEFT = 1 }; STATEMENT; break; }                                                                   \
    case 2: { enum { LEFT = 2 }; STATEMENT; break; }                                                                   \
    case 3: { enum { LEFT = 3 }; STATEMENT; break; }                                                                   \
    }

/* Rows `order[first]` to `order[last - 1]`, whose first `common` blocks are the same. */
typedef struct {
    int32_t first, last, common;
} Run;

typedef struct {
    Layer layer;
    float *scratch;
    const int32_t *starts, *contexts, *order;
    const Run *runs;
    int64_t rows, count, longest;
} Rows;

/* score[g][t] = scale q[g] . k[t], for all tokens of a block. `next`: the block after it, fetched meanwhile. */
INLINE void score_block(const float *q, const float *k, const float *next, float *score, int group, int64_t dim,
                        int64_t size, int64_t stride, float scale) {
    for (int64_t t = 0; t < size; t += LANES) {
        Lanes part[TOGETHER][LANES];
        for (int i = 0; i < LANES; i++) {
            Lanes sum[TOGETHER] = {0};
            fetch(next == NULL ? NULL : next + (t + i) * dim, dim);
            for (int64_t d = 0; d < dim; d += LANES) {
                const Lanes key = lanes(k + (t + i) * dim + d);
                for (int g = 0; g < group; g++)
                    sum[g] += lanes(q + g * dim + d) * key;
            }
            for (int g = 0; g < group; g++)
                part[g][i] = sum[g];
        }
        for (int g = 0; g < group; g++)
            *(Unaligned *)(score + g * stride + t) = sums(part[g]) * scale;
    }
}

/* out[g] += sum_t p[g][t] v[t], for tokens `first` to `last` of a block. */
INLINE void add_block(const float *v, const float *next, const float *p, float *out, int64_t first, int64_t last,
                      int group, int64_t dim, int64_t stride) {
    for (int64_t d = 0; d < dim; d += WIDE * LANES) {
        const int wide = dim - d < WIDE * LANES ? (int)(dim - d) / LANES : WIDE;
        Lanes sum[TOGETHER][WIDE];
        for (int g = 0; g < group; g++)
            for (int w = 0; w < wide; w++)
                sum[g][w] = lanes(out + g * dim + d + w * LANES);
        for (int64_t t = first; t < last; t++) {
            fetch(next == NULL ? NULL : next + t * dim + d, WIDE * LANES);
            for (int w = 0; w < wide; w++) {
                const Lanes value = lanes(v + t * dim + d + w * LANES);
                for (int g = 0; g < group; g++)
                    sum[g][w] += p[g * stride + t] * value;
            }
        }
        for (int g = 0; g < group; g++)
            for (int w = 0; w < wide; w++)
                *(Unaligned *)(out + g * dim + d + w * LANES) = sum[g][w];
    }
}

/* Where the keys or values of a row's block `b` begin; past the last one, the last one's. */
INLINE float *place(const Rows *t, float *cache, int64_t row, int64_t head, int64_t b, int64_t dim) {
    const int64_t last = (t->contexts[row] - 1) / t->layer.size;
    return block_at(&t->layer, cache, row, head, b < last ? b : last, dim);
}

/* The first token of `context` that a row sees, and its first block that its run does not read in common. */
INLINE int64_t first_seen(const Rows *t, int64_t context) {
    return t->layer.window > 0 && context > t->layer.window ? context - t->layer.window : 0;
}

INLINE int64_t own_block(const Rows *t, Run run, int64_t begin) {
    return begin / t->layer.size > run.common ? begin / t->layer.size : run.common;
}

/* A block's scores, and its values' sums, for `count` queries: TOGETHER at a time. The first of them fetch. */
INLINE void score_all(const Rows *t, const float *q, const float *k, const float *next, float *s, int64_t count,
                      int64_t dim) {
    const int64_t size = t->layer.size, stride = t->longest;
    const float scale = t->layer.scale;
    int64_t i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER)
        score_block(q + i * dim, k, i ? NULL : next, s + i * stride, TOGETHER, dim, size, stride, scale);
    REST(count - i, score_block(q + i * dim, k, i ? NULL : next, s + i * stride, LEFT, dim, size, stride, scale))
}

INLINE void add_all(const Rows *t, const float *v, const float *next, const float *p, float *out, int64_t first,
                    int64_t last, int64_t count, int64_t dim) {
    const int64_t stride = t->longest;
    int64_t i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER)
        add_block(v, i ? NULL : next, p + i * stride, out + i * dim, first, last, TOGETHER, dim, stride);
    REST(count - i, add_block(v, i ? NULL : next, p + i * stride, out + i * dim, first, last, LEFT, dim, stride))
}

/* Scores to weights, in place, of tokens `begin` to `context`. `sink`: one more score, whose value is zero, or NULL. */
INLINE void soften(float *s, int64_t begin, int64_t context, float softcap, const float *sink) {
    float highest = -INFINITY, total = 0.0f;
    if (softcap > 0.0f)
        for (int64_t n = begin; n < context; n++)
            s[n] = softcap * tanhf(s[n] / softcap);
#pragma omp simd reduction(max : highest)
    for (int64_t n = begin; n < context; n++)
        highest = s[n] > highest ? s[n] : highest;
#pragma omp simd reduction(+ : total)
    for (int64_t n = begin; n < context; n++) {
        s[n] = exponential(s[n] - highest);
        total += s[n];
    }
    if (sink != NULL)
        total += expf(*sink - highest);
    for (int64_t n = begin; n < context; n++)
        s[n] /= total;
}

/* The `group` query heads of a KV head, of a run's rows; `room` for their scores, for themselves, and for what they
read. */
INLINE void attend(const Rows *t, Run run, int64_t head, int64_t group, int64_t dim, float *room) {
    const Layer *const l = &t->layer;
    const int64_t size = l->size, stride = t->longest, rows = run.last - run.first, count = rows * group;
    const int32_t *order = t->order + run.first;
    float *score = room, *q = room + count * stride, *out = q + count * dim;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < group; i++)
            for (int64_t d = 0; d < dim; d++) {
                const int64_t to = (r * group + i) * dim + d;
                q[to] = load(l->query, t->starts[order[r]] * l->q_row + (head * group + i) * l->q_head + d, l->bf16);
                out[to] = 0.0f;
            }
#define BLOCK(CACHE, R, B)                                                                                             \
    place(t, l->CACHE, order[R], head, B, dim), place(t, l->CACHE, order[R], head, (B) + AHEAD, dim)
    for (int64_t b = 0; b < run.common; b++)
        score_all(t, q, BLOCK(keys, 0, b), score + b * size, count, dim);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t context = t->contexts[order[r]], at = r * group, begin = first_seen(t, context);
        for (int64_t b = own_block(t, run, begin); b * size < context; b++)
            score_all(t, q + at * dim, BLOCK(keys, r, b), score + at * stride + b * size, group, dim);
        for (int64_t i = 0; i < group; i++)
            soften(score + (at + i) * stride, begin, context, l->softcap,
                   l->sinks == NULL ? NULL : l->sinks + head * group + i);
    }
    for (int64_t b = 0; b < run.common; b++)
        add_all(t, BLOCK(values, 0, b), score + b * size, out, 0, size, count, dim);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t context = t->contexts[order[r]], at = r * group, begin = first_seen(t, context);
        for (int64_t b = own_block(t, run, begin); b * size < context; b++) {
            const int64_t first = b * size < begin ? begin - b * size : 0;
            const int64_t last = (b + 1) * size > context ? context - b * size : size;
            add_all(t, BLOCK(values, r, b), score + at * stride + b * size, out + at * dim, first, last, group, dim);
        }
        for (int64_t d = 0; d < group * dim; d++)
            store(l->out, (t->starts[order[r]] * l->heads + head * group) * dim + d, out[at * dim + d], l->bf16);
    }
#undef BLOCK
}

static void attend_piece(const void *task, int64_t piece) {
    const Rows *t = task;
    /* Heads in the outer loop: runs that share a prefix read it from the processor's cache. */
    const int64_t dim = t->layer.dim, head = piece / t->count, group = t->layer.heads / t->layer.kv_heads;
    const Run run = t->runs[piece % t->count];
    for (int64_t r = run.first; r < run.last; r++)
        store_token(&t->layer, t->starts[t->order[r]], t->order[r], head, t->contexts[t->order[r]] - 1);
    float *room = t->scratch + (head * t->rows + run.first) * group * (t->longest + 2 * dim);
    if (dim == 64) /* common widths get loops of known length */
        attend(t, run, head, group, 64, room);
    else if (dim == 128)
        attend(t, run, head, group, 128, room);
    else
        attend(t, run, head, group, dim, room);
}

/* Rows `starts` [rows] of the step, each the last token of its own sequence, where it is stored first. `contexts`
[rows]; `order`: the rows, as the `runs` [count] count them, which hold each of them once; a run's `common` blocks are
read whole by all of its rows, and none of them is written to; with a window nothing is common. `scratch` [rows, heads,
longest + 2 dim] in fp32. `longest` is a multiple of the blocks' size, and no context exceeds it. */
void attend_rows(const Layer *layer, float *scratch, const int32_t *starts, const int32_t *contexts,
                 const int32_t *order, const Run *runs, int64_t rows, int64_t count, int64_t longest, Fork fork,
                 int threads) {
    Rows t = {*layer, scratch, starts, contexts, order, runs, rows, count, longest};
    spread(attend_piece, &t, count * layer->kv_heads, fork, threads);
}
