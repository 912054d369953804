/* float32 products on the matrix tiles of Intel's AMX, which multiply bfloat16 numbers and add them up in float32.
 *
 * Each factor is split into three bfloat16 numbers, x = x_1 + x_2 + x_3, that have its 24 bits between them. Of their nine
 * products those six count that are not below what float32 rounds away:
 *     x y = x_1 y_1 + (x_1 y_2 + x_2 y_1) + (x_1 y_3 + x_2 y_2 + x_3 y_1)
 * (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations",
 * 2019). AMX multiplies sixteen times as many numbers a cycle as AVX-512, so that six products are still the faster way.
 *
 * Tiles take parts below 2**-126 for 0, and infinite numbers have no parts: what they are multiplied with becomes NaN. */

#ifndef SKDNN_TILES_H
#define SKDNN_TILES_H

#include "program.h"
#include "tile_packing.h"

/* Numbers along the depth that are multiplied at a time, and numbers of the factor that is packed as a whole, as 300 x 416 are:
 * with two panels of the other one, what stays in the second cache. */
#define MAX_DEPTH 512
#define MAX_WHOLE (9 << 14)
#define MAX_NARROW_DEPTH 2048

/* Steps of the depth by which packing is ahead of multiplying, where it goes step by step. */
#define STEPS_AHEAD 1

/* Numbers along each side, and multiplications, from which tiles are faster than vectors: smaller products fill them badly, and
 * take as long to split as to multiply. */
#define MIN_SIDE 32
#define MIN_MULTIPLICATIONS (1 << 19)

/* What to do where it is known, when a function is inlined, that there is something to do. */
#define IF(condition, ...)                                                                                                     \
    if (condition) {                                                                                                           \
        __VA_ARGS__                                                                                                            \
    }

/* Loading a tile does not say that it reads memory. */
#define FENCE __asm__ volatile("" : : : "memory")

/* Where a block of the result goes. */
typedef struct {
    float *data;
    int64_t row;
    int is_transposed, adds; /* whether to write the block's transpose, and to add to what is there */
    const float *bias;       /* of the columns as they are written, or NULL */
} place;

/* The block of it that begins at a row and column of what is computed. */
INLINE place
block_of(place out, int64_t row, int64_t col)
{
    out.data += out.is_transposed ? col * out.row + row : row * out.row + col;
    out.bias = out.bias ? out.bias + (out.is_transposed ? row : col) : NULL;
    return out;
}

/* Write up to 16 x 16 sums. */
INLINE TILES void
write_block(const float *sums, int64_t sums_row, place out, int64_t n_rows, int64_t n_cols)
{
    __m512 x[SIDE];
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        x[i] = _mm512_load_ps(sums + i * sums_row);
    if (out.is_transposed) {
        transpose_square(x);
        const int64_t swapped = n_rows;
        n_rows = n_cols;
        n_cols = swapped;
    }
    const __mmask16 mask = mask_of(n_cols);
    const __m512 bias = out.bias ? _mm512_maskz_loadu_ps(mask, out.bias) : _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++) {
        if (i >= n_rows)
            break;
        float *own = out.data + i * out.row;
        const __m512 added = out.adds ? _mm512_maskz_loadu_ps(mask, own) : bias;
        _mm512_mask_storeu_ps(own, mask, _mm512_add_ps(x[i], added));
    }
}

/* The update of a block of parameters that is under way beside a product, row by row: without a velocity `w += rate * g`, else
 * `v = decay * v + share * g` and `w += rate * v`, where the gradient may have penalties, `g += l1 * sign(w)` and `g += l2 * w`,
 * first; each rounded as the operations of a chain round it. The gradient's rows are a panel long. */
typedef struct {
    float *w, *v;
    const float *g;
    int64_t row, n_rows, n_cols;
    float decay, share, rate, l1, l2;
    int has_l1, has_l2;
} update;

/* Go on with some of its rows. */
INLINE TILES void
update_rows(update *of, int64_t n)
{
    const __m512 decay = _mm512_set1_ps(of->decay), share = _mm512_set1_ps(of->share), rate = _mm512_set1_ps(of->rate);
    const __m512 l1 = _mm512_set1_ps(of->l1), l2 = _mm512_set1_ps(of->l2), one = _mm512_set1_ps(1.0f), none = _mm512_setzero_ps();
    for (; n > 0 && of->n_rows > 0; n--, of->n_rows--, of->g += TILE_PANEL, of->w += of->row) {
#pragma GCC unroll 2
        for (int j = 0; j < TILE_PANEL; j += SIDE) {
            const __mmask16 mask = mask_of(of->n_cols - j);
            const __m512 w = _mm512_maskz_loadu_ps(mask, of->w + j);
            __m512 by = _mm512_load_ps(of->g + j);
            if (of->has_l1) {
                const __m512 at_most_1 = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(w, none, _CMP_GT_OQ), none, one);
                const __m512 sign = _mm512_mask_sub_ps(at_most_1, _mm512_cmp_ps_mask(w, none, _CMP_LT_OQ), none, one);
                by = _mm512_fmadd_ps(l1, sign, by);
            }
            if (of->has_l2)
                by = _mm512_fmadd_ps(l2, w, by);
            if (of->v) {
                by = _mm512_fmadd_ps(share, by, _mm512_mul_ps(decay, _mm512_maskz_loadu_ps(mask, of->v + j)));
                _mm512_mask_storeu_ps(of->v + j, mask, by);
            }
            _mm512_mask_storeu_ps(of->w + j, mask, _mm512_fmadd_ps(rate, by, w));
        }
        of->v = of->v ? of->v + of->row : NULL;
    }
}

/* The product of 2 x 2 tiles over the depth, or of fewer: `left_tiles` and `right_tiles` are how many there are. Tiles 0 to 3
 * are sums, 4 and 5 the left factor, 6 and 7 the right one. Meanwhile up to `packs` tiles a step of another panel are packed,
 * and an update goes on by some rows a stage: the arithmetic of that is free beside products of tiles, though its stores are
 * not. */
INLINE TILES void
multiply_tiles(const int left_tiles, const int right_tiles, const uint16_t *left, const uint16_t *right, int64_t n_steps,
               stretch *next, int packs, update *behind, int64_t n_rows, int adds, float *sums, int64_t sums_row)
{
    const int64_t bytes = sums_row * (int64_t)sizeof(float), row = n_steps * PARTS * TILE_NUMBERS;
    const int64_t n_next = tiles_of(next->n_along, SIDE) * n_steps;
    float *below = sums + SIDE * sums_row;
    FENCE;
#define LEFT(part)                                                                                                             \
    _tile_loadd(4, left + part * TILE_NUMBERS, 64);                                                                            \
    IF(left_tiles == 2, _tile_loadd(5, left + row + part * TILE_NUMBERS, 64);)
#define RIGHT(part)                                                                                                            \
    _tile_loadd(6, right + part * TILE_NUMBERS, 64);                                                                           \
    IF(right_tiles == 2, _tile_loadd(7, right + row + part * TILE_NUMBERS, 64);)
#define MULTIPLY(stage)                                                                                                        \
    _tile_dpbf16ps(0, 4, 6);                                                                                                   \
    IF(right_tiles == 2, _tile_dpbf16ps(1, 4, 7);)                                                                             \
    IF(left_tiles == 2, _tile_dpbf16ps(2, 5, 6);)                                                                              \
    IF(left_tiles == 2 && right_tiles == 2, _tile_dpbf16ps(3, 5, 7);)                                                          \
    for (int k = 0; k < n_tiles; k++)                                                                                          \
        pack_rows(&tiles[k], 3 * stage, stage == 5 ? SIDE : 3 * stage + 3);                                                    \
    if (behind)                                                                                                                \
        update_rows(behind, n_rows);
    if (adds) {
        _tile_loadd(0, sums, bytes);
        IF(right_tiles == 2, _tile_loadd(1, sums + SIDE, bytes);)
        IF(left_tiles == 2, _tile_loadd(2, below, bytes);)
        IF(left_tiles == 2 && right_tiles == 2, _tile_loadd(3, below + SIDE, bytes);)
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t step = 0; step < n_steps; step++, left += PARTS * TILE_NUMBERS, right += PARTS * TILE_NUMBERS) {
        packing tiles[2];
        int n_tiles = 0;
        for (; n_tiles < packs && next->n_packed < n_next; n_tiles++, next->n_packed++)
            tiles[n_tiles] = straight_tile(next, next->n_packed / n_steps, next->n_packed % n_steps);
        RIGHT(2) LEFT(0) MULTIPLY(0)
        RIGHT(1) MULTIPLY(1)
        LEFT(1) MULTIPLY(2)
        RIGHT(0) MULTIPLY(3)
        LEFT(2) MULTIPLY(4)
        LEFT(0) MULTIPLY(5)
    }
    _tile_stored(0, sums, bytes);
    IF(right_tiles == 2, _tile_stored(1, sums + SIDE, bytes);)
    IF(left_tiles == 2, _tile_stored(2, below, bytes);)
    IF(left_tiles == 2 && right_tiles == 2, _tile_stored(3, below + SIDE, bytes);)
#undef LEFT
#undef RIGHT
#undef MULTIPLY
}

/* As many tiles of it as there are rows and columns. */
INLINE TILES void
multiply_block(int64_t n_rows, int64_t n_cols, const uint16_t *left, const uint16_t *right, int64_t n_steps, stretch *next,
               int packs, update *behind, int64_t rows_a_stage, int adds, float *to, int64_t to_row)
{
    if (n_rows > SIDE && n_cols > SIDE)
        multiply_tiles(2, 2, left, right, n_steps, next, packs, behind, rows_a_stage, adds, to, to_row);
    else if (n_rows > SIDE)
        multiply_tiles(2, 1, left, right, n_steps, next, packs, behind, rows_a_stage, adds, to, to_row);
    else if (n_cols > SIDE)
        multiply_tiles(1, 2, left, right, n_steps, next, packs, behind, rows_a_stage, adds, to, to_row);
    else
        multiply_tiles(1, 1, left, right, n_steps, next, packs, behind, rows_a_stage, adds, to, to_row);
}

/* Multiply a packed factor with a panel of the other one: up to two tiles' rows or columns of the result. Meanwhile the next
 * panel is packed. */
static TILES void
multiply_panel(const stretch *whole, const stretch *panel, stretch *next, place out)
{
    _Alignas(64) float sums[TILE_PANEL * TILE_PANEL];
    const int64_t n_steps = tiles_of(whole->n_depth, TILE_DEPTH);
    const int packs = whole->n_along <= TILE_PANEL ? 2 : 1; /* so that all are packed in the end */
    for (int64_t i = 0; i < whole->n_along; i += TILE_PANEL) {
        const uint16_t *own = whole->out + i / SIDE * n_steps * PARTS * TILE_NUMBERS;
        const uint16_t *left = whole->is_left ? own : panel->out, *right = whole->is_left ? panel->out : own;
        const int64_t n_rows = whole->is_left ? whole->n_along - i : panel->n_along;
        const int64_t n_cols = whole->is_left ? panel->n_along : whole->n_along - i;
        const place block = block_of(out, whole->is_left ? i : 0, whole->is_left ? 0 : i);
        /* Whole tiles are written where they belong, others from `sums`. */
        const int is_direct = !out.is_transposed && !out.bias && (n_rows >= TILE_PANEL || n_rows == SIDE) &&
                              (n_cols >= TILE_PANEL || n_cols == SIDE);
        float *const to = is_direct ? block.data : sums;
        const int64_t to_row = is_direct ? out.row : TILE_PANEL;
        multiply_block(n_rows, n_cols, left, right, n_steps, next, packs, NULL, 0, is_direct && out.adds, to, to_row);
        if (is_direct)
            continue;
        for (int k = 0; k < TILE_PANEL && k < n_rows; k += SIDE)
            for (int j = 0; j < TILE_PANEL && j < n_cols; j += SIDE)
                write_block(sums + k * TILE_PANEL + j, TILE_PANEL, block_of(block, k, j), n_rows - k, n_cols - j);
    }
}

/* Multiply up to two tiles' rows with a packed right factor. What comes out is the gradient of parameters, which are updated
 * block by block, each while the next one is multiplied and its gradient is in the first cache. */
static TILES void
multiply_panel_and_update(const stretch *panel, const stretch *whole, update all)
{
    _Alignas(64) float sums[2][TILE_PANEL * TILE_PANEL];
    const int64_t n_steps = tiles_of(whole->n_depth, TILE_DEPTH), rows_a_stage = tiles_of(TILE_PANEL, 6 * n_steps);
    stretch none = {.n_along = 0};
    update behind = {.n_rows = 0};
    for (int64_t i = 0; i < whole->n_along; i += TILE_PANEL) {
        float *const own = sums[i / TILE_PANEL % 2];
        multiply_block(panel->n_along, whole->n_along - i, panel->out, whole->out + i / SIDE * n_steps * PARTS * TILE_NUMBERS,
                       n_steps, &none, 0, &behind, rows_a_stage, 0, own, TILE_PANEL);
        behind = all;
        behind.w += i;
        behind.v = all.v ? all.v + i : NULL;
        behind.g = own;
        behind.n_rows = panel->n_along;
        behind.n_cols = whole->n_along - i;
    }
    update_rows(&behind, behind.n_rows);
}

/* The product of up to four tiles of the factor that is packed as a whole with one tile of the other, or of up to two with
 * two, over a step of the depth: `whole_row` is how far the tiles of the former are from each other. Tiles 0 to 3 are sums.
 * Meanwhile `n_next` full tiles of the next step are packed, row by row between products: all together are too much for the
 * processor to look ahead. */
INLINE TILES void
multiply_step(const int whole_tiles, const int other_tiles, const int whole_is_left, const uint16_t *whole, int64_t whole_row,
              const uint16_t *other, packing *next, const int n_next)
{
#define WHOLE(tile, i, part) _tile_loadd(tile, whole + i * whole_row + part * TILE_NUMBERS, 64);
#define OTHER(tile, i, part) _tile_loadd(tile, other + (i * PARTS + part) * TILE_NUMBERS, 64);
#define ADD(sum, own, others)                                                                                                  \
    if (whole_is_left) {                                                                                                       \
        _tile_dpbf16ps(sum, own, others);                                                                                      \
    } else {                                                                                                                   \
        _tile_dpbf16ps(sum, others, own);                                                                                      \
    }
#define PACK                                                                                                                   \
    IF(n_next > 0, pack_row(&next[0]);)                                                                                        \
    IF(n_next > 1, pack_row(&next[1]);)
/* Two whole tiles with two parts of the only other one. */
#define BOTH(i, j, part, first, second)                                                                                        \
    IF(whole_tiles > i, WHOLE(6, i, part) ADD(i, 6, first))                                                                    \
    PACK                                                                                                                       \
    IF(whole_tiles > j, WHOLE(7, j, part) ADD(j, 7, first))                                                                    \
    IF(whole_tiles > i, ADD(i, 6, second))                                                                                     \
    PACK                                                                                                                       \
    IF(whole_tiles > j, ADD(j, 7, second))
/* One with a part of it. */
#define ONE(i, part, own)                                                                                                      \
    IF(whole_tiles > i, WHOLE(own, i, part) ADD(i, own, 4))                                                                    \
    PACK
/* Two with a part of two others. */
#define OTHERS(part) OTHER(4, 0, part) OTHER(5, 1, part)
#define WHOLES(part) WHOLE(6, 0, part) WHOLE(7, 1, part)
#define ALL ADD(0, 6, 4) PACK ADD(1, 6, 5) ADD(2, 7, 4) PACK ADD(3, 7, 5)
    if (other_tiles == 1) {
        OTHER(4, 0, 2) OTHER(5, 0, 1)
        BOTH(0, 1, 0, 4, 5) BOTH(2, 3, 0, 4, 5)
        OTHER(4, 0, 0)
        BOTH(0, 1, 1, 5, 4) BOTH(2, 3, 1, 5, 4)
        ONE(0, 2, 5) ONE(1, 2, 6) ONE(2, 2, 7) ONE(3, 2, 5)
        ONE(0, 0, 6) ONE(1, 0, 7) ONE(2, 0, 5) ONE(3, 0, 6)
    } else {
        OTHERS(2) WHOLES(0) ALL PACK
        OTHERS(1) ALL PACK
        WHOLES(1) ALL PACK
        OTHERS(0) ALL PACK
        WHOLES(2) ALL
        WHOLES(0) ALL
    }
#undef WHOLE
#undef OTHER
#undef ADD
#undef PACK
#undef BOTH
#undef ONE
#undef OTHERS
#undef WHOLES
#undef ALL
}

/* Steps of a factor that is packed step by step: `at_a_time` of its tiles over the depth, then the next ones. */
typedef struct {
    const stretch *of;
    int at_a_time;
    int64_t n_steps, i, p, slot;
    uint16_t *packed; /* as many steps as are ahead, and the one that is in use */
} conveyor;

/* What is to be packed for the next step: up to two tiles. */
INLINE TILES int
tiles_of_step(conveyor *belt, packing *tiles)
{
    uint16_t *out = belt->packed + belt->slot * belt->at_a_time * PARTS * TILE_NUMBERS;
    int n = 0;
    for (; n < belt->at_a_time && (belt->i + n) * SIDE < belt->of->n_along; n++) {
        tiles[n] = straight_tile(belt->of, belt->i + n, belt->p);
        tiles[n].out = out + n * PARTS * TILE_NUMBERS;
    }
    belt->slot = belt->slot == STEPS_AHEAD ? 0 : belt->slot + 1;
    if (++belt->p == belt->n_steps) {
        belt->p = 0;
        belt->i += belt->at_a_time;
    }
    return n;
}

/* Multiply a packed factor of up to four tiles with another one that is packed a few steps ahead: what is packed is still in
 * the first cache when it is used, and used once. */
INLINE TILES void
multiply_narrow(const int whole_tiles, const int whole_is_left, const stretch *whole, const stretch *other, place out,
                uint16_t *packed)
{
    _Alignas(64) float sums[4][SIDE * SIDE];
    const int at_a_time = whole_tiles > 2 ? 1 : 2;
    const int64_t n_steps = tiles_of(whole->n_depth, TILE_DEPTH), whole_row = n_steps * PARTS * TILE_NUMBERS;
    conveyor belt = {other, at_a_time, n_steps, 0, 0, 0, packed};
    packing tiles[2];
    for (int ahead = 0; ahead < STEPS_AHEAD; ahead++)
        for (int k = tiles_of_step(&belt, tiles) - 1; k >= 0; k--)
            pack_rows(&tiles[k], 0, SIDE);
    int64_t slot = 0;
    for (int64_t i = 0; i * SIDE < other->n_along; i += at_a_time) {
        const int n_now = other->n_along - i * SIDE > SIDE ? at_a_time : 1;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t p = 0; p < n_steps; p++) {
            const uint16_t *own = whole->out + p * PARTS * TILE_NUMBERS, *now = packed + slot * at_a_time * PARTS * TILE_NUMBERS;
            const int n_next = tiles_of_step(&belt, tiles);
            const int are_full = n_next == at_a_time && is_full(&tiles[0]) && is_full(&tiles[at_a_time - 1]);
            const int packs = n_now == at_a_time && are_full; /* others are rare, and packed before */
            slot = slot == STEPS_AHEAD ? 0 : slot + 1;
            for (int k = 0; !packs && k < n_next; k++)
                pack_rows(&tiles[k], 0, SIDE);
            FENCE;
            if (packs)
                multiply_step(whole_tiles, at_a_time, whole_is_left, own, whole_row, now, tiles, at_a_time);
            else if (n_now == 1)
                multiply_step(whole_tiles, 1, whole_is_left, own, whole_row, now, NULL, 0);
            else
                multiply_step(whole_tiles, 2, whole_is_left, own, whole_row, now, NULL, 0);
        }
        _tile_stored(0, sums[0], 4 * SIDE);
        _tile_stored(1, sums[1], 4 * SIDE);
        _tile_stored(2, sums[2], 4 * SIDE);
        _tile_stored(3, sums[3], 4 * SIDE);
        for (int w = 0; w < whole_tiles; w++)
            for (int o = 0; o < n_now; o++) {
                const int64_t of_whole = w * SIDE, of_other = (i + o) * SIDE;
                const int64_t n_whole = whole->n_along - of_whole, n_other = other->n_along - of_other;
                write_block(sums[w * n_now + o], SIDE,
                            block_of(out, whole_is_left ? of_whole : of_other, whole_is_left ? of_other : of_whole),
                            whole_is_left ? n_whole : n_other, whole_is_left ? n_other : n_whole);
            }
    }
}

#define DEFINE_NARROW(n)                                                                                                       \
    static TILES void multiply_narrow_##n(const stretch *whole, const stretch *other, place out, uint16_t *packed)             \
    {                                                                                                                          \
        if (whole->is_left)                                                                                                    \
            multiply_narrow(n, 1, whole, other, out, packed);                                                                  \
        else                                                                                                                   \
            multiply_narrow(n, 0, whole, other, out, packed);                                                                  \
    }
DEFINE_NARROW(2)
DEFINE_NARROW(3)
DEFINE_NARROW(4)
#undef DEFINE_NARROW

/* Numbers along the depth that are multiplied at a time: parts about as deep as each other, so that more of the factor that is
 * packed as a whole has room. */
INLINE int64_t
depth_at_a_time(int64_t n_depth)
{
    return tiles_of(tiles_of(n_depth, tiles_of(n_depth, MAX_DEPTH)), TILE_DEPTH) * TILE_DEPTH;
}

/* Numbers along the result of the factor that is packed as a whole. */
INLINE int64_t
most_of_whole(int64_t n_along, int64_t n_depth)
{
    const int64_t most = MAX_WHOLE / depth_at_a_time(n_depth) / TILE_PANEL * TILE_PANEL;
    return n_along < most ? n_along : most;
}

/* Whether the smaller factor has so few tiles that the other one is used up at once. */
INLINE int
is_narrow(const operation *op)
{
    return (op->cols < op->rows ? op->cols : op->rows) <= 4 * SIDE && op->depth <= MAX_NARROW_DEPTH;
}

/* Numbers of scratch that a product needs: the parts of one factor and of two panels, or steps, of the other. */
static int64_t
tiles_scratch(const operation *op)
{
    const int64_t n_whole = op->cols < op->rows ? op->cols : op->rows;
    if (is_narrow(op))
        return (tiles_of(n_whole, SIDE) * tiles_of(op->depth, TILE_DEPTH) + 2 * (STEPS_AHEAD + 1)) * PARTS * TILE_NUMBERS / 2;
    const int64_t steps = depth_at_a_time(op->depth) / TILE_DEPTH;
    const int64_t n_tiles = (tiles_of(most_of_whole(n_whole, op->depth), SIDE) + 4) * steps * PARTS;
    return n_tiles * TILE_NUMBERS / 2; /* two of bfloat16 take the place of one */
}

INLINE factor
part_of(factor x, int64_t along, int64_t depth)
{
    x.data += along * x.along + depth * x.depth;
    return x;
}

/* How a product is made: the factors, and whether the result's transpose is computed. */
typedef struct {
    factor whole, other;
    int64_t n_whole, n_other;
    int whole_is_left, is_transposed;
} plan;

/* The larger factor is packed panel by panel, as the left one or the right one, whichever way its rows lie. */
INLINE plan
plan_of(const operation *op, float *const *x)
{
    const factor left = {x[1], op->x[1].row, op->x[1].col}, right = {x[2], op->x[2].col, op->x[2].row};
    if (op->cols >= op->rows)
        return (plan){left, right, op->rows, op->cols, right.along == 1, right.along != 1};
    return (plan){right, left, op->cols, op->rows, left.along == 1, left.along == 1};
}

/* Whether tiles make a product, and faster than vectors do. */
static int
tiles_are_faster(const operation *op)
{
    const operand *left = &op->x[1], *right = &op->x[2];
    const int is_large = op->rows >= MIN_SIDE && op->cols >= MIN_SIDE && op->depth >= MIN_SIDE &&
                         op->rows * op->cols * op->depth >= MIN_MULTIPLICATIONS;
    return is_large && (left->row == 1 || left->col == 1) && (right->row == 1 || right->col == 1);
}

static TILES void
tiles_product(const operation *op, float *const *x, float *scratch)
{
    const plan how = plan_of(op, x);
    const int64_t most = most_of_whole(how.n_whole, op->depth);
    uint16_t *parts = (uint16_t *)scratch;
    if (is_narrow(op)) {
        const stretch whole = {how.whole, how.n_whole, op->depth, how.whole_is_left, parts, 0};
        const stretch other = {how.other, how.n_other, op->depth, !how.whole_is_left, NULL, 0};
        const place out = {x[0], op->x[0].row, how.is_transposed, 0, x[3]};
        const int64_t n_tiles = tiles_of(how.n_whole, SIDE);
        uint16_t *packed = parts + n_tiles * tiles_of(op->depth, TILE_DEPTH) * PARTS * TILE_NUMBERS;
        pack(&whole);
        (n_tiles == 4 ? multiply_narrow_4 : n_tiles == 3 ? multiply_narrow_3 : multiply_narrow_2)(&whole, &other, out, packed);
        return;
    }
    const int64_t deepest = depth_at_a_time(op->depth);
    for (int64_t p = 0; p < op->depth; p += deepest) {
        const int64_t depth = op->depth - p < deepest ? op->depth - p : deepest;
        const int64_t size = tiles_of(depth, TILE_DEPTH) * PARTS * TILE_NUMBERS;
        for (int64_t i = 0; i < how.n_whole; i += most) {
            const int64_t n_own = how.n_whole - i < most ? how.n_whole - i : most;
            uint16_t *panels = parts + tiles_of(n_own, SIDE) * size;
            const stretch whole = {part_of(how.whole, i, p), n_own, depth, how.whole_is_left, parts, 0};
            stretch panel, next = {part_of(how.other, 0, p), how.n_other < TILE_PANEL ? how.n_other : TILE_PANEL, depth,
                                   !how.whole_is_left, panels, 0};
            pack(&whole);
            pack(&next);
            for (int64_t j = 0; j < how.n_other; j += TILE_PANEL) {
                const int64_t n_left = how.n_other - j - TILE_PANEL;
                panel = next;
                next.x = part_of(next.x, TILE_PANEL, 0);
                next.n_along = n_left < 0 ? 0 : n_left < TILE_PANEL ? n_left : TILE_PANEL;
                next.out = panel.out == panels ? panels + 2 * size : panels;
                next.n_packed = 0;
                const place out = {x[0], op->x[0].row, how.is_transposed, p > 0, p > 0 ? NULL : x[3]};
                multiply_panel(&whole, &panel, &next,
                               block_of(out, how.whole_is_left ? i : j, how.whole_is_left ? j : i));
            }
        }
    }
}

/* Whether a product can be made a few rows at a time: its right factor, packed as a whole, must stay in the second cache. */
static int
tiles_go_by_rows(const operation *op)
{
    return op->depth <= MAX_DEPTH && op->depth * op->cols <= MAX_WHOLE;
}

static int64_t
tiles_scratch_by_rows(const operation *op)
{
    return (tiles_of(op->cols, SIDE) + 2) * tiles_of(op->depth, TILE_DEPTH) * PARTS * TILE_NUMBERS / 2;
}

INLINE stretch
right_factor(const operation *op, float *const *x, float *scratch)
{
    return (stretch){{x[2], op->x[2].col, op->x[2].row}, op->cols, op->depth, 0, (uint16_t *)scratch, 0};
}

static TILES void
pack_right_factor(const operation *op, float *const *x, float *scratch)
{
    const stretch whole = right_factor(op, x, scratch);
    pack(&whole);
}

INLINE TILES stretch
pack_rows_of_left(const operation *op, float *const *x, const stretch *right)
{
    uint16_t *behind = right->out + tiles_of(op->cols, SIDE) * tiles_of(op->depth, TILE_DEPTH) * PARTS * TILE_NUMBERS;
    const stretch panel = {{x[1], op->x[1].row, op->x[1].col}, op->rows, op->depth, 1, behind, 0};
    pack(&panel);
    return panel;
}

/* Up to a panel's rows of a product, once the right factor is packed. */
static TILES void
multiply_rows(const operation *op, float *const *x, float *scratch)
{
    const stretch right = right_factor(op, x, scratch), panel = pack_rows_of_left(op, x, &right);
    stretch none = {.n_along = 0};
    multiply_panel(&right, &panel, &none, (place){x[0], op->x[0].row, 0, 0, x[3]});
}

/* The same rows of an update by a product that goes nowhere else. */
static TILES void
multiply_rows_and_update(const operation *op, float *const *x, float *scratch, update all)
{
    const stretch right = right_factor(op, x, scratch), panel = pack_rows_of_left(op, x, &right);
    multiply_panel_and_update(&panel, &right, all);
}

#endif
