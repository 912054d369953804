/* Matrix products. Of two factors one is read where it lies, number by number; the other is packed into panels of a few
 * vectors' width, so that it is read vector by vector. A tile of the result stays in registers over the whole depth, so that
 * an element is always the sum of the same products in the same order. */

/* Columns of a panel. */
#define PANEL (TILE_VECTORS * LANES)

INLINE TARGET void
NAME(tile)(const int n_rows, const int n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth, const real *b,
           real *c, int64_t c_row, int64_t n_cols, const real *row_bias, const real *col_bias, int is_transposed)
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
            right[j] = *(const vec *)(b + (p * n_vectors + j) * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < n_vectors; j++)
                sum[i][j] += a[i * a_row + p * a_depth] * right[j];
    }
    if (!is_transposed && n_cols == n_vectors * LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < n_vectors; j++)
                *(vec *)(c + i * c_row + j * LANES) = sum[i][j];
        return;
    }
    vec buffer[TILE_ROWS * TILE_VECTORS];
    const real *numbers = (const real *)buffer;
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < n_vectors; j++)
            buffer[i * n_vectors + j] = sum[i][j];
    if (is_transposed)
        for (int64_t j = 0; j < n_cols; j++)
#pragma GCC unroll 16
            for (int i = 0; i < n_rows; i++)
                c[j * c_row + i] = numbers[i * n_vectors * LANES + j];
    else
        for (int i = 0; i < n_rows; i++)
            memcpy(c + i * c_row, numbers + i * n_vectors * LANES, n_cols * sizeof(real));
}

#define TILE(n_rows, n_vectors)                                                                                                \
    NAME(tile)(n_rows, n_vectors, depth, a, a_row, a_depth, b, c, c_row, n_cols, row_bias, col_bias, is_transposed)
#define TILES_OF(n_rows)                                                                                                       \
    do {                                                                                                                       \
        if (n_vectors == 1)                                                                                                    \
            TILE(n_rows, 1);                                                                                                   \
        else if (n_vectors == 2)                                                                                               \
            TILE(n_rows, 2);                                                                                                   \
        else                                                                                                                   \
            TILE(n_rows, TILE_VECTORS);                                                                                        \
        a += n_rows * a_row;                                                                                                   \
        c += is_transposed ? n_rows : n_rows * c_row;                                                                          \
        row_bias = row_bias ? row_bias + n_rows : NULL;                                                                        \
        rows -= n_rows;                                                                                                        \
    } while (0)

/* All rows of a panel. */
static TARGET void
NAME(multiply_panel)(int64_t rows, int64_t n_vectors, int64_t depth, const real *a, int64_t a_row, int64_t a_depth,
                     const real *b, real *c, int64_t c_row, int64_t n_cols, const real *row_bias, const real *col_bias,
                     int is_transposed)
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

/* Pack `cols` columns, padded with zeros to whole vectors. */
static TARGET void
NAME(pack)(int64_t depth, int64_t cols, const real *b, int64_t b_row, int64_t b_col, real *out)
{
    const int64_t width = (cols + LANES - 1) / LANES * LANES;
    if (b_col == 1) {
        for (int64_t p = 0; p < depth; p++) {
            memcpy(out + p * width, b + p * b_row, cols * sizeof(real));
            for (int64_t j = cols; j < width; j++)
                out[p * width + j] = 0;
        }
        return;
    }
    for (int64_t start = 0; start < depth; start += 16) {
        const int64_t end = start + 16 < depth ? start + 16 : depth;
        for (int64_t j = 0; j < cols; j++)
            for (int64_t p = start; p < end; p++)
                out[p * width + j] = b[p * b_row + j * b_col];
        for (int64_t j = cols; j < width; j++)
            for (int64_t p = start; p < end; p++)
                out[p * width + j] = 0;
    }
}

/* What it costs to multiply (rows, depth) by (depth, cols), the latter packed: a vector's product is half a cycle, and packing
 * a number is as much. */
static int64_t
NAME(cost)(int64_t rows, int64_t depth, int64_t cols)
{
    return depth * (rows * ((cols + LANES - 1) / LANES) + cols);
}

static int
NAME(is_transposed)(const operation *op)
{
    return NAME(cost)(op->cols, op->depth, op->rows) < NAME(cost)(op->rows, op->depth, op->cols);
}

/* Numbers of scratch that a product needs: a panel, and its bias. */
static int64_t
NAME(product_scratch)(const operation *op)
{
    return (op->depth + 1) * PANEL;
}

static TARGET void
NAME(product)(const operation *op, real *const *x, real *scratch)
{
    const operand *left = &op->x[1], *right = &op->x[2];
    const int is_transposed = NAME(is_transposed)(op);
    const int64_t rows = is_transposed ? op->cols : op->rows, cols = is_transposed ? op->rows : op->cols;
    const real *a = is_transposed ? x[2] : x[1], *b = is_transposed ? x[1] : x[2], *bias = x[3];
    const int64_t a_row = is_transposed ? right->col : left->row, a_depth = is_transposed ? right->row : left->col;
    const int64_t b_row = is_transposed ? left->col : right->row, b_col = is_transposed ? left->row : right->col;
    real *padded_bias = scratch + op->depth * PANEL;
    for (int64_t start = 0; start < cols; start += PANEL) {
        const int64_t n_cols = cols - start < PANEL ? cols - start : PANEL;
        const int64_t n_vectors = (n_cols + LANES - 1) / LANES;
        NAME(pack)(op->depth, n_cols, b + start * b_col, b_row, b_col, scratch);
        if (bias && !is_transposed) {
            memset(padded_bias, 0, PANEL * sizeof(real));
            memcpy(padded_bias, bias + start, n_cols * sizeof(real));
        }
        NAME(multiply_panel)(rows, n_vectors, op->depth, a, a_row, a_depth, scratch,
                             x[0] + (is_transposed ? start * op->x[0].row : start), op->x[0].row, n_cols,
                             is_transposed ? bias : NULL, bias && !is_transposed ? padded_bias : NULL, is_transposed);
    }
}

#undef PANEL
