/* Products of few rows by a large matrix, y = x W^T + b, in bf16 or fp32, with sums in fp32.

Such a product takes as long as reading the matrix from memory, so that is what this does: the matrix is read once,
from its first number to its last, some way ahead of what is computed, and goes through all rows of x. Each number of y
is the same whatever rows come with its own. */

#include "common.h"

#if defined(__AVX512F__) && defined(__AVX512BF16__)
#include <immintrin.h>

#define COLUMNS 4 /* rows of the matrix, and ROWS of x, that go together: their sums stay in registers */
#define ROWS 4
#define AHEAD 3  /* how many times COLUMNS ahead the matrix is fetched */
#define LINE 64  /* bytes of a register, and of what is fetched at once */
#define PIECE 64 /* rows of the matrix in a piece of work */

typedef float Sums __attribute__((vector_size(LINE)));

/* `line`: bytes of a row of x and of the matrix. */
typedef struct {
    const char *x, *w;
    const void *bias;
    char *y;
    int64_t rows, line, outer;
    int bf16;
} Product;

/* Lane i: the sum of the lanes of part[i]. Halves are added to halves, four times over. */
INLINE Sums sums(const Sums *part) {
    Sums eight[8], four[4], two[2];
#define PICK(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
    for (int i = 0; i < 8; i++) {
        const Sums a = part[i], b = part[i + 8];
        eight[i] = PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                   PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
    for (int i = 0; i < 4; i++) {
        const Sums a = eight[i], b = eight[i + 4];
        four[i] = PICK(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
                  PICK(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    for (int i = 0; i < 2; i++) {
        const Sums a = four[i], b = four[i + 2];
        two[i] = PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                 PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    return PICK(two[0], two[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           PICK(two[0], two[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
#undef PICK
}

/* Rows `row` on of x by COLUMNS of the matrix's; on the way `each` lines are fetched for one that is read, from `next`
on. */
INLINE void tile(const Product *t, int64_t row, int64_t column, int rows, const char *next, int each, int bf16) {
    const int64_t line = t->line, size = bf16 ? 2 : 4;
    const char *x = t->x + row * line, *w = t->w + column * line;
    Sums sum[ROWS * COLUMNS] = {0};
    for (int64_t k = 0; k < line; k += LINE) {
        __m512 weight[COLUMNS];
        for (int n = 0; n < COLUMNS; n++)
            weight[n] = _mm512_loadu_ps(w + n * line + k);
        for (int n = 0; n < each; n++)
            _mm_prefetch(next + k * each + n * LINE, _MM_HINT_T1); /* nearer has no room for so much */
        for (int m = 0; m < rows; m++) {
            const __m512 value = _mm512_loadu_ps(x + m * line + k);
            for (int n = 0; n < COLUMNS; n++) {
                Sums *to = &sum[m * COLUMNS + n];
                *to = bf16 ? (Sums)_mm512_dpbf16_ps((__m512)*to, (__m512bh)value, (__m512bh)weight[n])
                           : (Sums)_mm512_fmadd_ps(value, weight[n], (__m512)*to);
            }
        }
    }
    Sums found = sums(sum);
    if (t->bias != NULL)
        for (int i = 0; i < ROWS * COLUMNS; i++)
            found[i] += load(t->bias, column + i % COLUMNS, bf16);
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh((__m512)found);
    const char *from = bf16 ? (const char *)&rounded : (const char *)&found;
    for (int m = 0; m < rows; m++)
        memcpy(t->y + ((row + m) * t->outer + column) * size, from + m * COLUMNS * size, COLUMNS * size);
}

INLINE void multiply(const Product *t, int64_t piece, int bf16) {
    const int64_t end = (piece + 1) * PIECE < t->outer ? (piece + 1) * PIECE : t->outer;
    const int64_t passes = (t->rows + ROWS - 1) / ROWS;
    const int each = passes < COLUMNS ? (int)((COLUMNS + passes - 1) / passes) : 1;
    for (int64_t column = piece * PIECE; column < end; column += COLUMNS) {
        const char *next = t->w + (column + AHEAD * COLUMNS) * t->line;
        int64_t row = 0;
        for (; row + ROWS <= t->rows; row += ROWS, next += each * t->line)
            tile(t, row, column, ROWS, next, each, bf16);
        switch (t->rows - row) {
        case 1: tile(t, row, column, 1, next, each, bf16); break;
        case 2: tile(t, row, column, 2, next, each, bf16); break;
        case 3: tile(t, row, column, 3, next, each, bf16); break;
        }
    }
}

static void multiply_piece(const void *task, int64_t piece) {
    const Product *t = task;
    if (t->bf16)
        multiply(t, piece, 1);
    else
        multiply(t, piece, 0);
}

/* `x` [rows, inner], `w` [outer, inner], `bias` [outer] or NULL, `y` [rows, outer], of one type; a row of `inner`
numbers is a multiple of LINE bytes, `outer` one of COLUMNS. */
void few_rows(const void *x, const void *w, const void *bias, void *y, int64_t rows, int64_t inner, int64_t outer,
              int bf16, Fork fork, int threads) {
    Product t = {x, w, bias, y, rows, inner * (bf16 ? 2 : 4), outer, bf16};
    if (rows > 0)
        spread(multiply_piece, &t, (outer + PIECE - 1) / PIECE, fork, threads);
}
#endif
