/* Matrix products. Of two factors one is read where it lies, number by number; the other is packed into panels of a few
 * vectors' width, so that it is read vector by vector. A tile of the result stays in registers over the whole depth, so that
 * an element is always the sum of the same products in the same order. */

/* Whether squares of numbers are transposed as a whole. */
#define HAS_SQUARES (VECTOR_BYTES == 64 && !IS_DOUBLE)

/* Columns of a panel. */
#define PANEL (TILE_VECTORS * LANES)

/* Columns beyond whole vectors up to which they are multiplied by themselves. */
#define MAX_REST (LANES / 4)

/* Rows up to which a panel is read where it lies, if it can be: it is read too seldom to be worth a copy that lies closer. */
#define MAX_ROWS_UNPACKED 128

/* Bytes from number to number along the depth, and panels, from which the other factor is packed, too. */
#define MIN_STRIDE_PACKED 1024
#define MIN_PANELS_PACKED 4

/* Vectors of which only the first `n` numbers, at least one and not all, are there: others are read as 0, and not written. */
INLINE TARGET vec
NAME(load_part)(const real *from, int64_t n)
{
#if VECTOR_BYTES == 64 && IS_DOUBLE
    return (vec)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), from);
#elif VECTOR_BYTES == 64
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
#else
    vec part = {0};
    memcpy(&part, from, n * sizeof(real));
    return part;
#endif
}

INLINE TARGET void
NAME(store_part)(real *to, vec part, int64_t n)
{
#if VECTOR_BYTES == 64 && IS_DOUBLE
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << n) - 1), (__m512d)part);
#elif VECTOR_BYTES == 64
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)part);
#else
    memcpy(to, &part, n * sizeof(real));
#endif
}

/* Write the transpose of 4 x 4 numbers. */
INLINE TARGET void
NAME(transpose)(const real *in, int64_t in_row, real *out, int64_t out_row)
{
    const quad a = *(const quad *)in, b = *(const quad *)(in + in_row);
    const quad c = *(const quad *)(in + 2 * in_row), d = *(const quad *)(in + 3 * in_row);
    const quad ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    const quad ab_2 = SHUFFLE(a, b, 2, 6, 3, 7), cd_2 = SHUFFLE(c, d, 2, 6, 3, 7);
    *(quad *)out = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(quad *)(out + out_row) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *(quad *)(out + 2 * out_row) = SHUFFLE(ab_2, cd_2, 0, 1, 4, 5);
    *(quad *)(out + 3 * out_row) = SHUFFLE(ab_2, cd_2, 2, 3, 6, 7);
}

/* Write the transpose of a matrix, 4 x 4 numbers at a time or more. */
static TARGET void
NAME(transpose_all)(int64_t rows, int64_t cols, const real *in, int64_t in_row, real *out, int64_t out_row)
{
#if HAS_SQUARES
    if (rows >= SIDE / 2 && cols >= SIDE / 2) {
        for (int64_t i = 0; i < rows; i += SIDE)
            for (int64_t j = 0; j < cols; j += SIDE)
                transpose_up_to_square(in + i * in_row + j, in_row, rows - i, cols - j, out + j * out_row + i, out_row);
        return;
    }
#endif
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
        int64_t i = 0;
        for (; i + 4 <= rows; i += 4)
            NAME(transpose)(in + i * in_row + j, in_row, out + j * out_row + i, out_row);
        for (; i < rows; i++)
            for (int64_t k = j; k < j + 4; k++)
                out[k * out_row + i] = in[i * in_row + k];
    }
    for (; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            out[j * out_row + i] = in[i * in_row + j];
}

INLINE TARGET void
NAME(tile)(const int n_rows, const int n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth, const real *b,
           int64_t b_row, real *c, int64_t c_row, int64_t n_cols, const real *row_bias, const real *col_bias, const int is_transposed)
{
    vec sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n_vectors; j++) {
            sum[i][j] = (vec){0} + (row_bias ? row_bias[i] : (real)0);
            if (col_bias)
                sum[i][j] += *(const vec *)(col_bias + j * LANES);
        }
    for (int64_t p = 0; p < depth; p++) {
        vec right[TILE_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < n_vectors; j++)
            right[j] = *(const vec *)(b + p * b_row + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < n_vectors; j++)
                sum[i][j] += a[i * a_row + p * a_depth] * right[j];
    }
    if (!is_transposed) {
        const int64_t rest = n_cols - (n_vectors - 1) * LANES;
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < n_vectors; j++)
                if (j < n_vectors - 1 || rest == LANES)
                    *(vec *)(c + i * c_row + j * LANES) = sum[i][j];
                else
                    NAME(store_part)(c + i * c_row + j * LANES, sum[i][j], rest);
        return;
    }
#if HAS_SQUARES
    if (n_rows == 8 && n_cols == n_vectors * LANES) {
#pragma GCC unroll 4
        for (int k = 0; k < n_vectors; k++) {
            __m512 own[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++)
                own[i] = (__m512)sum[i][k];
            transpose_half_square(own, c + k * LANES * c_row, c_row);
        }
        return;
    }
#endif
    vec buffer[TILE_ROWS * TILE_VECTORS];
    const real *numbers = (const real *)buffer;
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n_vectors; j++)
            buffer[i * n_vectors + j] = sum[i][j];
    int64_t j = 0;
    for (; n_rows % 4 == 0 && j + 4 <= n_cols; j += 4)
#pragma GCC unroll 4
        for (int i = 0; i < n_rows; i += 4)
            NAME(transpose)(numbers + i * n_vectors * LANES + j, n_vectors * LANES, c + j * c_row + i, c_row);
    for (; j < n_cols; j++)
        for (int i = 0; i < n_rows; i++)
            c[j * c_row + i] = numbers[i * n_vectors * LANES + j];
}

#define TILE(n_rows, n_vectors)                                                                                                \
    NAME(tile)(n_rows, n_vectors, depth, a, a_row, a_depth, b, b_row, c, c_row, n_cols, row_bias, col_bias, is_transposed)
#define TILES_OF(n_rows)                                                                                                       \
    do {                                                                                                                       \
        if (n_vectors == 1)                                                                                                    \
            TILE(n_rows, 1);                                                                                                   \
        else if (n_vectors == 2)                                                                                               \
            TILE(n_rows, 2);                                                                                                   \
        else                                                                                                                   \
            TILE(n_rows, TILE_VECTORS);                                                                                        \
        a += n_rows == TILE_ROWS ? a_block : n_rows * a_row;                                                                   \
        c += is_transposed ? n_rows : n_rows * c_row;                                                                          \
        row_bias = row_bias ? row_bias + n_rows : NULL;                                                                        \
        rows -= n_rows;                                                                                                        \
    } while (0)

/* All rows of a panel. */
INLINE TARGET void
NAME(multiply_rows)(int64_t rows, int64_t n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth,
                    int64_t a_block, const real *b, int64_t b_row, real *c, int64_t c_row, int64_t n_cols, const real *row_bias,
                    const real *col_bias, const int is_transposed)
{
    while (rows >= TILE_ROWS)
        TILES_OF(TILE_ROWS);
#if TILE_ROWS > 4
    if (rows >= 4)
        TILES_OF(4);
#endif
    if (rows >= 2)
        TILES_OF(2);
    if (rows >= 1)
        TILES_OF(1);
}

#undef TILE
#undef TILES_OF

/* Apart for results that are written as they are, and transposed: one function for both would keep fewer sums in registers. */
static TARGET void
NAME(multiply_panel)(int64_t rows, int64_t n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth,
                     int64_t a_block, const real *b, int64_t b_row, real *c, int64_t c_row, int64_t n_cols, const real *col_bias)
{
    NAME(multiply_rows)(rows, n_vectors, depth, a, a_row, a_depth, a_block, b, b_row, c, c_row, n_cols, NULL, col_bias, 0);
}

static TARGET void
NAME(multiply_panel_transposed)(int64_t rows, int64_t n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth,
                                int64_t a_block, const real *b, int64_t b_row, real *c, int64_t c_row, int64_t n_cols, const real *row_bias)
{
    NAME(multiply_rows)(rows, n_vectors, depth, a, a_row, a_depth, a_block, b, b_row, c, c_row, n_cols, row_bias, NULL, 1);
}

/* Pack `cols` columns, padded with zeros to whole vectors. */
static TARGET void
NAME(pack)(int64_t depth, int64_t cols, const real *b, int64_t b_row, int64_t b_col, real *out)
{
    const int64_t width = (cols + LANES - 1) / LANES * LANES;
    if (b_col == 1) {
        const int64_t whole = cols / LANES * LANES;
        for (int64_t p = 0; p < depth; p++, b += b_row, out += width) {
            for (int64_t j = 0; j < whole; j += LANES)
                *(vec *)(out + j) = *(const vec *)(b + j);
            if (whole < cols)
                *(vec *)(out + whole) = NAME(load_part)(b + whole, cols - whole);
        }
        return;
    }
    if (width > cols)
        memset(out, 0, depth * width * sizeof(real));
    if (b_row == 1) {
        NAME(transpose_all)(cols, depth, b, b_col, out, width);
        return;
    }
    for (int64_t p = 0; p < depth; p++)
        for (int64_t j = 0; j < cols; j++)
            out[p * width + j] = b[p * b_row + j * b_col];
}

/* Up to 4 x 2 numbers of the transpose of a product whose factors both lie along the depth. */
INLINE TARGET void
NAME(dots)(const int n_rows, const int n_cols, int64_t depth, const real *a, int64_t a_row, const real *b, int64_t b_col,
           real *c, int64_t c_row, const real *bias)
{
    vec sum[4][2] = {{{0}}};
    int64_t p = 0;
    for (; p + LANES <= depth; p += LANES)
#pragma GCC unroll 4
        for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < n_cols; j++)
                sum[i][j] += *(const vec *)(a + i * a_row + p) * *(const vec *)(b + j * b_col + p);
    for (int i = 0; i < n_rows; i++)
        for (int j = 0; j < n_cols; j++) {
            real total = bias ? bias[i] : 0;
            for (int64_t k = 0; k < LANES; k++)
                total += sum[i][j][k];
            for (int64_t q = p; q < depth; q++)
                total += a[i * a_row + q] * b[j * b_col + q];
            c[j * c_row + i] = total;
        }
}

/* A few columns that would fill a small part of a vector. */
static TARGET void
NAME(multiply_rest)(int64_t rows, int64_t cols, int64_t depth, const real *a, int64_t a_row, const real *b, int64_t b_col,
                    real *c, int64_t c_row, const real *bias)
{
    for (int64_t i = 0; i < rows; i += 4)
        for (int64_t j = 0; j < cols; j += 2) {
            const int n_rows = rows - i < 4 ? (int)(rows - i) : 4, n_cols = cols - j < 2 ? 1 : 2;
            const real *some = a + i * a_row, *others = b + j * b_col, *own_bias = bias ? bias + i : NULL;
            real *out = c + j * c_row + i;
            if (n_rows == 4 && n_cols == 2)
                NAME(dots)(4, 2, depth, some, a_row, others, b_col, out, c_row, own_bias);
            else
                NAME(dots)(n_rows, n_cols, depth, some, a_row, others, b_col, out, c_row, own_bias);
        }
}

/* What it costs to multiply (rows, depth) by (depth, cols), the latter packed: a vector's product is half a cycle; so is
 * packing a number, or a quarter where squares are transposed as a whole, and reading one of the other factor where that does
 * not lie along the depth. */
static int64_t
NAME(cost)(int64_t rows, int64_t depth, int64_t cols, int64_t a_depth)
{
    return depth * (rows * ((cols + LANES - 1) / LANES + (a_depth != 1)) + (HAS_SQUARES ? cols / 2 : cols));
}

static int
NAME(is_transposed)(const operation *op)
{
    return NAME(cost)(op->cols, op->depth, op->rows, op->x[2].row) < NAME(cost)(op->rows, op->depth, op->cols, op->x[1].col);
}

/* Whether the factor that is read where it lies is worth a copy along the depth: it is far from lying so, and read often. */
static int
NAME(packs_both)(const operation *op)
{
    const int is_transposed = NAME(is_transposed)(op);
    const int64_t a_depth = is_transposed ? op->x[2].row : op->x[1].col, cols = is_transposed ? op->rows : op->cols;
    return a_depth * (int64_t)sizeof(real) >= MIN_STRIDE_PACKED && cols >= MIN_PANELS_PACKED * PANEL;
}

/* Numbers of scratch that a product needs: a panel and its bias, and the other factor where that is packed, too. */
static int64_t
NAME(product_scratch)(const operation *op)
{
#if USES_TILES
    if (tiles_are_faster(op))
        return tiles_scratch(op);
#endif
    const int64_t rows = NAME(is_transposed)(op) ? op->cols : op->rows;
    return (op->depth + 1) * PANEL + (NAME(packs_both)(op) ? (rows + TILE_ROWS) * op->depth : 0);
}

/* Pack the rows of a factor in blocks of a tile's, number by number along the depth. */
static TARGET void
NAME(pack_rows)(int64_t rows, int64_t depth, const real *a, int64_t a_row, int64_t a_depth, real *out)
{
    for (int64_t i = 0; i < rows; i += TILE_ROWS, out += TILE_ROWS * depth) {
        const int64_t n_rows = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
        for (int64_t p = 0; p < depth; p++)
            for (int64_t k = 0; k < n_rows; k++)
                out[p * TILE_ROWS + k] = a[(i + k) * a_row + p * a_depth];
    }
}

static TARGET void
NAME(product)(const operation *op, real *const *x, real *scratch)
{
#if USES_TILES
    if (tiles_are_faster(op)) {
        tiles_product(op, x, scratch);
        return;
    }
#endif
    const operand *left = &op->x[1], *right = &op->x[2];
    const int is_transposed = NAME(is_transposed)(op);
    const int64_t rows = is_transposed ? op->cols : op->rows, cols = is_transposed ? op->rows : op->cols;
    const real *a = is_transposed ? x[2] : x[1], *b = is_transposed ? x[1] : x[2], *bias = x[3];
    int64_t a_row = is_transposed ? right->col : left->row, a_depth = is_transposed ? right->row : left->col;
    const int64_t b_row = is_transposed ? left->col : right->row, b_col = is_transposed ? left->row : right->col;
    real *padded_bias = scratch + op->depth * PANEL;
    const int64_t rest = is_transposed && a_depth == 1 && b_row == 1 && cols % LANES <= MAX_REST ? cols % LANES : 0;
    if (rest)
        NAME(multiply_rest)(rows, rest, op->depth, a, a_row, b + (cols - rest) * b_col, b_col,
                            x[0] + (cols - rest) * op->x[0].row, op->x[0].row, bias);
    int64_t a_block = TILE_ROWS * a_row;
    if (NAME(packs_both)(op)) {
        real *packed = padded_bias + PANEL;
        NAME(pack_rows)(rows, op->depth, a, a_row, a_depth, packed);
        a = packed;
        a_row = 1;
        a_depth = TILE_ROWS;
        a_block = TILE_ROWS * op->depth;
    }
    for (int64_t start = 0, n_cols; start < cols - rest; start += n_cols) {
        /* Two panels of two vectors rather than one of three and one of one, which reads as many numbers as it multiplies. */
        const int64_t n_left = (cols - rest - start + LANES - 1) / LANES;
        const int64_t n_vectors = n_left == TILE_VECTORS + 1 ? 2 : n_left < TILE_VECTORS ? n_left : TILE_VECTORS;
        n_cols = cols - rest - start < n_vectors * LANES ? cols - rest - start : n_vectors * LANES;
        const real *panel = b + start * b_col;
        int64_t panel_row = b_row;
        if (rows > MAX_ROWS_UNPACKED || b_col != 1 || n_cols % LANES) {
            NAME(pack)(op->depth, n_cols, panel, b_row, b_col, scratch);
            panel = scratch;
            panel_row = n_vectors * LANES;
        }
        if (is_transposed) {
            NAME(multiply_panel_transposed)(rows, n_vectors, op->depth, a, a_row, a_depth, a_block, panel, panel_row,
                                            x[0] + start * op->x[0].row, op->x[0].row, n_cols, bias);
            continue;
        }
        if (bias) {
            memset(padded_bias, 0, PANEL * sizeof(real));
            memcpy(padded_bias, bias + start, n_cols * sizeof(real));
        }
        NAME(multiply_panel)(rows, n_vectors, op->depth, a, a_row, a_depth, a_block, panel, panel_row, x[0] + start, op->x[0].row,
                             n_cols, bias ? padded_bias : NULL);
    }
}

#undef HAS_SQUARES
#undef PANEL
#undef MAX_REST
#undef MAX_ROWS_UNPACKED
#undef MIN_STRIDE_PACKED
#undef MIN_PANELS_PACKED
