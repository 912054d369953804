/* The kernels for one type of numbers and one set of vector instructions, and the loop over steps. both_types.inc.c
 * includes this file once for each pair, with these macros defined:
 *     real, IS_DOUBLE    the type
 *     NAME(x)            the pair's name for x
 *     TARGET             the attribute that permits the instructions
 *     VECTOR_BYTES       of a vector register
 *     TILE_ROWS          rows of a product's tile: with TILE_VECTORS columns of vectors, as many as there are registers for */

typedef real NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef real NAME(quad) __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));
#define vec NAME(vec)
#define quad NAME(quad)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(real)))

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#elif IS_DOUBLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (indices_double){__VA_ARGS__})
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (indices_float){__VA_ARGS__})
#endif

#if IS_DOUBLE
#define SQRT sqrt
#define EXP exp_double
#define TANH tanh_double
#define ERF erf
#define LOG1P log1p_double
#define LOG log_double
#else
#define SQRT sqrtf
#define EXP exp_float
#define TANH tanh_float
#define ERF erf_float
#define LOG1P log1p_float
#define LOG log_float
#endif

INLINE real NAME(softplus)(real x)
{
    return (x > 0 ? x : (real)0) + LOG1P(EXP(x > 0 ? -x : x));
}

/* tanh(softplus(x)), without the logarithm. */
INLINE real NAME(tanh_softplus)(real x)
{
    const real e = EXP(x > 20 ? (real)20 : x), n = e * (e + 2);
    return n / (n + 2);
}

INLINE real NAME(silu_slope)(real x, real sigmoid)
{
    return sigmoid * (1 + x * (1 - sigmoid));
}

INLINE real NAME(mish_slope)(real x, real t)
{
    return t + x * (1 - t * t) / (1 + EXP(-x));
}

INLINE real NAME(hard_sigmoid)(real x)
{
    return x < -3 ? (real)0 : x > 3 ? (real)1 : (x + 3) / 6;
}

#define SOFTPLUS NAME(softplus)
#define TANH_SOFTPLUS NAME(tanh_softplus)
#define SILU_SLOPE NAME(silu_slope)
#define MISH_SLOPE NAME(mish_slope)
#define HARD_SIGMOID NAME(hard_sigmoid)

#include "products.inc.c"

/* An elementwise operation over n numbers that lie one after the other. What is written may be one of what is read. */
typedef void NAME(loop)(int64_t n, real *const *x, const real *number);

#define X(name, n_operands, expression)                                                                                        \
    static TARGET void NAME(loop_##name)(int64_t n, real *const *x, const real *number)                                        \
    {                                                                                                                          \
        real *p0 = x[0];                                                                                                       \
        const real *p1 = n_operands > 1 ? x[1] : p0, *p2 = n_operands > 2 ? x[2] : p0, *p3 = n_operands > 3 ? x[3] : p0;       \
        const real n0 = number[0], n1 = number[1];                                                                             \
        (void)p1, (void)p2, (void)p3, (void)n0, (void)n1;                                                                      \
        INDEPENDENT for (int64_t i = 0; i < n; i++)                                                                            \
        {                                                                                                                      \
            const real x1 = p1[i], x2 = p2[i], x3 = p3[i];                                                                     \
            (void)x1, (void)x2, (void)x3;                                                                                      \
            p0[i] = expression;                                                                                                \
        }                                                                                                                      \
    }
ELEMENTWISE_OPERATIONS(X)
#undef X

static NAME(loop) *const NAME(loops)[] = {
#define X(name, ...) NAME(loop_##name),
    ELEMENTWISE_OPERATIONS(X)
#undef X
};

static const int NAME(n_operands)[] = {
#define X(name, n_operands, expression) n_operands,
    ELEMENTWISE_OPERATIONS(X)
#undef X
};

/* Elements of a row that are worked on at a time, by all operations of a chain. */
#define BLOCK 2048

/* A stretch of a row. An operand that does not lie one after the other there is copied first. */
static TARGET void
NAME(elementwise)(const operation *op, real *const *x, const real *number, int64_t row, int64_t start, int64_t n, real *scratch)
{
    real *part[4];
    for (int k = 0; k < NAME(n_operands)[op->code]; k++) {
        const int64_t stride = op->x[k].col;
        part[k] = x[k] + row * op->x[k].row + start * stride;
        if (k == 0 || stride == 1 || n == 1)
            continue;
        const real *from = part[k];
        if (op->code == CODE_mul && k == 2 && stride == 0) { /* a number for all of the row, which is often 1 */
            if (*from != 1 || part[0] != part[1])
                NAME(loop_mul_number)(n, part, (real[2]){*from});
            return;
        }
        part[k] = scratch + k * BLOCK;
        for (int64_t i = 0; i < n; i++)
            part[k][i] = from[i * stride];
    }
    NAME(loops)[op->code](n, part, number);
}

/* Softmax over each row, its logarithm, or both: x[0] is the first that is asked for, x[2] the logarithm where both are. Rows are
 * short: the matrix is transposed, to work on many of them side by side. */
static TARGET void
NAME(softmax)(const operation *op, real *const *x, real *scratch)
{
    const int64_t rows = op->rows, cols = op->cols, width = (rows + LANES - 1) / LANES * LANES;
    real *share = op->code == CODE_softmax ? x[0] : NULL, *logarithm = share ? x[2] : x[0];
    real *all = scratch, *exponential = all + cols * width, *largest = exponential + cols * width, *sum = largest + width;
    NAME(pack)(cols, rows, x[1], 1, cols, all);
    memcpy(largest, all, width * sizeof(real));
    memset(sum, 0, width * sizeof(real));
    for (int64_t j = 1; j < cols; j++)
        INDEPENDENT for (int64_t i = 0; i < width; i++)
        {
            const real new = all[j * width + i], old = largest[i];
            largest[i] = new > old || new != new ? new : old;
        }
    for (int64_t j = 0; j < cols; j++)
        INDEPENDENT for (int64_t i = 0; i < width; i++)
        {
            const real difference = all[j * width + i] - largest[i], e = EXP(difference);
            all[j * width + i] = difference;
            exponential[j * width + i] = e;
            sum[i] += e;
        }
    if (logarithm) {
        INDEPENDENT for (int64_t i = 0; i < width; i++)
            largest[i] = LOG(sum[i]);
        for (int64_t j = 0; j < cols; j++)
            INDEPENDENT for (int64_t i = 0; i < width; i++)
                all[j * width + i] -= largest[i];
        NAME(transpose_all)(cols, rows, all, width, logarithm, cols);
    }
    if (share) {
        INDEPENDENT for (int64_t i = 0; i < width; i++)
            sum[i] = 1 / sum[i];
        for (int64_t j = 0; j < cols; j++)
            INDEPENDENT for (int64_t i = 0; i < width; i++)
                exponential[j * width + i] *= sum[i];
        NAME(transpose_all)(cols, rows, exponential, width, share, cols);
    }
}

/* The sum of f(x) over n numbers, of which a vector's are added up side by side. */
#define SUM_OF(name, f)                                                                                                        \
    INLINE TARGET real NAME(name)(int64_t n, const real *x)                                                                    \
    {                                                                                                                          \
        vec sums[4] = {{0}};                                                                                                   \
        int64_t i = 0;                                                                                                         \
        for (; i + 4 * LANES <= n; i += 4 * LANES)                                                                             \
            for (int k = 0; k < 4; k++)                                                                                        \
                sums[k] += f(*(const vec *)(x + i + k * LANES));                                                               \
        const vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);                                                             \
        real sum = 0;                                                                                                          \
        for (int64_t k = 0; k < LANES; k++)                                                                                    \
            sum += all[k];                                                                                                     \
        for (; i < n; i++)                                                                                                     \
            sum += f(x[i]);                                                                                                    \
        return sum;                                                                                                            \
    }
#define ITSELF(x) (x)
#define SQUARE(x) ((x) * (x))
SUM_OF(sum, ITSELF)
SUM_OF(square_sum, SQUARE)
#undef SUM_OF
#undef ITSELF
#undef SQUARE

static TARGET void
NAME(row_norms)(const operation *op, real *const *x)
{
    for (int64_t i = 0; i < op->rows; i++)
        x[0][i] = SQRT(NAME(square_sum)(op->cols, x[1] + i * op->x[1].row));
}

static TARGET void
NAME(column_norms)(const operation *op, real *const *x)
{
    real *out = x[0];
    memset(out, 0, op->cols * sizeof(real));
    for (int64_t i = 0; i < op->rows; i++) {
        const real *row = x[1] + i * op->x[1].row;
        INDEPENDENT for (int64_t j = 0; j < op->cols; j++)
            out[j] += row[j] * row[j];
    }
    for (int64_t j = 0; j < op->cols; j++)
        out[j] = SQRT(out[j]);
}

static TARGET void
NAME(column_sums)(const operation *op, real *const *x)
{
    real *out = x[0];
    memset(out, 0, op->cols * sizeof(real));
    for (int64_t i = 0; i < op->rows; i++) {
        const real *row = x[1] + i * op->x[1].row, factor = x[2][i * op->x[2].col];
        INDEPENDENT for (int64_t j = 0; j < op->cols; j++)
            out[j] += factor * row[j];
    }
}

/* As torch's fused kernel has it. */
static TARGET void
NAME(adam)(int64_t n, real *const *x, const double *number)
{
    const double rate = number[0], step = number[1], beta_1 = number[2], beta_2 = number[3];
    const real new_share = (real)(1 - beta_1), decay = (real)beta_2, new_square_share = (real)(1 - beta_2);
    const real size = (real)(rate / (1 - pow(beta_1, step))), epsilon = (real)number[4];
    const real correction = (real)(1 / sqrt(1 - pow(beta_2, step)));
    real *parameters = x[0], *mean = x[1], *squares = x[2], *largest = x[3];
    const real *gradient = x[4];
    INDEPENDENT for (int64_t i = 0; i < n; i++)
    {
        const real g = gradient[i], m = mean[i] + new_share * (g - mean[i]);
        const real s = decay * squares[i] + new_square_share * g * g;
        mean[i] = m;
        squares[i] = s;
        if (!largest)
            parameters[i] -= size * m / (SQRT(s) * correction + epsilon);
    }
    if (!largest)
        return;
    INDEPENDENT for (int64_t i = 0; i < n; i++)
    {
        const real most = largest[i] < squares[i] || squares[i] != squares[i] ? squares[i] : largest[i];
        largest[i] = most;
        parameters[i] -= size * mean[i] / (SQRT(most) * correction + epsilon);
    }
}

static TARGET void
NAME(batch_norm)(const operation *op, real *const *x, const real *number, real *scratch)
{
    real *out = x[0], *running_mean = x[4], *running_variance = x[5], *mean = x[6], *inverse_std = x[7], *variance = scratch;
    const real *in = x[1], *scale = x[2], *shift = x[3], share = number[0], epsilon = number[1];
    const int64_t rows = op->rows, cols = op->cols;
    const real count = (real)rows;
    memset(mean, 0, cols * sizeof(real));
    memset(variance, 0, cols * sizeof(real));
    for (int64_t i = 0; i < rows; i++)
        INDEPENDENT for (int64_t j = 0; j < cols; j++)
            mean[j] += in[i * cols + j];
    INDEPENDENT for (int64_t j = 0; j < cols; j++)
        mean[j] /= count;
    for (int64_t i = 0; i < rows; i++)
        INDEPENDENT for (int64_t j = 0; j < cols; j++)
        {
            const real distance = in[i * cols + j] - mean[j];
            variance[j] += distance * distance;
        }
    INDEPENDENT for (int64_t j = 0; j < cols; j++)
    {
        running_mean[j] += share * (mean[j] - running_mean[j]);
        running_variance[j] += share * (variance[j] / (count - 1) - running_variance[j]);
        inverse_std[j] = 1 / SQRT(variance[j] / count + epsilon);
    }
    for (int64_t i = 0; i < rows; i++)
        INDEPENDENT for (int64_t j = 0; j < cols; j++)
            out[i * cols + j] = (in[i * cols + j] - mean[j]) * inverse_std[j] * scale[j] + shift[j];
}

static TARGET void
NAME(batch_norm_backward)(const operation *op, real *const *x)
{
    real *out = x[0], *scale_gradient = x[1], *shift_gradient = x[2];
    const real *gradient = x[3], *in = x[4], *scale = x[5], *mean = x[6], *inverse_std = x[7];
    const int64_t rows = op->rows, cols = op->cols;
    const real count = (real)rows;
    memset(scale_gradient, 0, cols * sizeof(real));
    memset(shift_gradient, 0, cols * sizeof(real));
    for (int64_t i = 0; i < rows; i++)
        INDEPENDENT for (int64_t j = 0; j < cols; j++)
        {
            const real g = gradient[i * cols + j];
            shift_gradient[j] += g;
            scale_gradient[j] += g * (in[i * cols + j] - mean[j]) * inverse_std[j];
        }
    for (int64_t i = 0; i < rows; i++)
        INDEPENDENT for (int64_t j = 0; j < cols; j++)
        {
            const real normalized = (in[i * cols + j] - mean[j]) * inverse_std[j];
            const real lost = (shift_gradient[j] + normalized * scale_gradient[j]) / count;
            out[i * cols + j] = (gradient[i * cols + j] - lost) * scale[j] * inverse_std[j];
        }
}

/* An operation's operands in a batch, and its numbers at a step. */
INLINE void
NAME(resolve)(const operation *op, int n_operands, int n_numbers, int64_t batch, const double *of_step, real **x, double *number)
{
    for (int k = 0; k < n_operands; k++)
        x[k] = op->x[k].data ? (real *)((char *)op->x[k].data + batch * op->x[k].step) : NULL;
    for (int k = 0; k < n_numbers; k++) {
        const int64_t variable = op->variable[k];
        number[k] = variable > 0 ? of_step[variable - 1] : variable < 0 ? -of_step[-variable - 1] : op->number[k];
    }
}

static TARGET void
NAME(run_chain)(const operation *op, int64_t batch, const double *of_step, real *scratch)
{
    real *x[MAX_CHAIN][4], number[MAX_CHAIN][2];
    for (int64_t i = 0; i < op->chain; i++) {
        double exact[2];
        NAME(resolve)(op + i, NAME(n_operands)[op[i].code], 2, batch, of_step, x[i], exact);
        number[i][0] = (real)exact[0];
        number[i][1] = (real)exact[1];
    }
    for (int64_t row = 0; row < op->rows; row++)
        for (int64_t start = 0; start < op->cols; start += BLOCK) {
            const int64_t n = op->cols - start < BLOCK ? op->cols - start : BLOCK;
            for (int64_t i = 0; i < op->chain; i++)
                NAME(elementwise)(op + i, x[i], number[i], row, start, n, scratch);
        }
}

static TARGET void
NAME(run_other)(const operation *op, int64_t batch, const double *of_step, real *scratch)
{
    static const int n_operands[] = {
#define X(name, n_operands, n_numbers) n_operands,
        OTHER_OPERATIONS(X)
#undef X
    };
    static const int n_numbers[] = {
#define X(name, n_operands, n_numbers) n_numbers,
        OTHER_OPERATIONS(X)
#undef X
    };
    real *x[MAX_OPERANDS];
    double exact[MAX_NUMBERS] = {0};
    const int64_t other = op->code - N_ELEMENTWISE;
    NAME(resolve)(op, n_operands[other], n_numbers[other], batch, of_step, x, exact);
    const real number[2] = {(real)exact[0], (real)exact[1]};
    switch (op->code) {
    case CODE_product:
        NAME(product)(op, x, scratch);
        break;
    case CODE_softmax:
    case CODE_log_softmax:
        NAME(softmax)(op, x, scratch);
        break;
    case CODE_total:
        *x[0] = NAME(sum)(op->cols, x[1]);
        break;
    case CODE_row_norms:
        NAME(row_norms)(op, x);
        break;
    case CODE_column_norms:
        NAME(column_norms)(op, x);
        break;
    case CODE_column_sums:
        NAME(column_sums)(op, x);
        break;
    case CODE_adam:
        NAME(adam)(op->cols, x, exact);
        break;
    case CODE_batch_norm:
        NAME(batch_norm)(op, x, number, scratch);
        break;
    case CODE_batch_norm_backward:
        NAME(batch_norm_backward)(op, x);
        break;
    }
}

/* Do what follows a product with some rows of its result, which are in `block`: numbers `first` to `first + n` of it. */
static TARGET void
NAME(follow)(const operation *op, int64_t n_operations, real *(*x)[MAX_FOLLOWER_OPERANDS], double (*number)[MAX_NUMBERS],
             real *block, int64_t first, int64_t n, real *scratch)
{
    for (int64_t start = first; start < first + n; start += BLOCK) {
        const int64_t own = first + n - start < BLOCK ? first + n - start : BLOCK;
        for (int64_t i = 0; i < n_operations; i++) {
            real *at[MAX_FOLLOWER_OPERANDS];
            for (int k = 0; k < MAX_FOLLOWER_OPERANDS; k++)
                at[k] = op[i].x[k].data == IN_SCRATCH ? block + (start - first)
                        : x[i][k]                     ? x[i][k] + start * op[i].x[k].col
                                                      : NULL;
            const real rounded[2] = {(real)number[i][0], (real)number[i][1]};
            if (op[i].code == CODE_adam)
                NAME(adam)(own, at, number[i]);
            else
                NAME(elementwise)(op + i, at, rounded, 0, 0, own, scratch);
        }
    }
}

/* Rows of a followed product that are made at a time. */
static int64_t
NAME(rows_at_a_time)(const operation *op)
{
#if USES_TILES
    if (tiles_are_faster(op))
        return tiles_go_by_rows(op) ? TILE_PANEL : op->rows;
#endif
    const int64_t rows = (FOLLOWED_NUMBERS / op->cols + TILE_ROWS) / TILE_ROWS * TILE_ROWS;
    return rows < op->rows ? rows : op->rows;
}

/* Numbers of scratch that it needs. */
static int64_t
NAME(followed_scratch)(const operation *op)
{
#if USES_TILES
    if (tiles_are_faster(op) && tiles_go_by_rows(op))
        return tiles_scratch_by_rows(op);
#endif
    operation part = *op;
    part.rows = NAME(rows_at_a_time)(op);
    const int64_t needs = NAME(product_scratch)(&part);
    part.rows = op->rows % part.rows ? op->rows % part.rows : part.rows;
    const int64_t last = NAME(product_scratch)(&part);
    return last > needs ? last : needs;
}

#if USES_TILES
/* Whether an operation adds a multiple of something to the result of the product that it follows. */
static int
adds_to_result(const operation *op)
{
    return op->code == CODE_add && op->x[0].data == IN_SCRATCH && op->x[1].data == IN_SCRATCH && op->x[2].data != IN_SCRATCH;
}

/* Whether what follows a product is the update of gradient descent, plain or with momentum and penalties, and of what. The signs
 * of an l1 penalty, which nobody else looks at, are then not written. */
static int
is_update(const operation *op, int64_t n, float *(*x)[MAX_FOLLOWER_OPERANDS], double (*number)[MAX_NUMBERS], update *out)
{
    const operation *last = op + n - 1;
    float *const *own = x[n - 1];
    if (last->code != CODE_add || last->x[0].data == IN_SCRATCH || own[0] != own[1] || last->x[0].col != 1)
        return 0;
    *out = (update){.w = own[0], .rate = (float)number[n - 1][0]};
    if (n > 2 && op->code == CODE_sign && x[0][1] == out->w && adds_to_result(op + 1) && x[1][2] == x[0][0]) {
        out->has_l1 = 1;
        out->l1 = (float)number[1][0];
        op += 2, x += 2, number += 2, n -= 2;
    }
    if (n > 1 && adds_to_result(op) && x[0][2] == out->w) {
        out->has_l2 = 1;
        out->l2 = (float)number[0][0];
        op += 1, x += 1, number += 1, n -= 1;
    }
    if (n == 1)
        return last->x[2].data == IN_SCRATCH;
    if (n != 3 || op[0].code != CODE_mul_number || op[1].code != CODE_add || op[1].x[2].data != IN_SCRATCH)
        return 0;
    out->v = x[0][0];
    out->decay = (float)number[0][0];
    out->share = (float)number[1][0];
    return x[0][1] == out->v && x[1][0] == out->v && x[1][1] == out->v && own[2] == out->v && op[0].x[0].col == 1;
}
#endif

static TARGET void
NAME(run_followed)(const operation *op, int64_t batch, const double *of_step, real *scratch, real *block)
{
    real *x[4], *followers[MAX_CHAIN + 1][MAX_FOLLOWER_OPERANDS];
    double number[MAX_CHAIN + 1][MAX_NUMBERS];
    const int64_t n_followers = op->chain - 1, most = NAME(rows_at_a_time)(op);
    NAME(resolve)(op, 4, 0, batch, of_step, x, NULL);
    for (int64_t i = 0; i < n_followers; i++)
        NAME(resolve)(op + 1 + i, MAX_FOLLOWER_OPERANDS, MAX_NUMBERS, batch, of_step, followers[i], number[i]);
#if USES_TILES
    update all;
    const int goes_by_rows = tiles_are_faster(op) && tiles_go_by_rows(op);
    const int updates = goes_by_rows && !x[3] && is_update(op + 1, n_followers, followers, number, &all);
    if (goes_by_rows)
        pack_right_factor(op, x, scratch);
#endif
    for (int64_t row = 0; row < op->rows; row += most) {
        operation part = *op;
        part.rows = op->rows - row < most ? op->rows - row : most;
        real *const own[4] = {block, x[1] + row * op->x[1].row, x[2], x[3]};
#if USES_TILES
        if (updates) {
            update rows = all;
            rows.row = op->cols;
            rows.w += row * op->cols;
            rows.v = all.v ? all.v + row * op->cols : NULL;
            multiply_rows_and_update(&part, own, scratch, rows);
            continue;
        }
        if (goes_by_rows)
            multiply_rows(&part, own, scratch);
        else
#endif
            NAME(product)(&part, own, scratch);
        NAME(follow)(op + 1, n_followers, followers, number, block, row * op->cols, part.rows * op->cols, scratch);
    }
}

static int
NAME(run)(const operation *operations, int64_t n_operations, const double *numbers, int64_t first, int64_t n_steps,
          int64_t n_numbers)
{
    int64_t size = 4 * BLOCK, block = 0;
    for (int64_t i = 0; i < n_operations; i++) {
        const operation *op = operations + i;
        const int is_softmax = op->code == CODE_softmax || op->code == CODE_log_softmax;
        if (op->code == CODE_product && op->chain > 1) {
            const int64_t needs = NAME(followed_scratch)(op), numbers = NAME(rows_at_a_time)(op) * op->cols;
            size = needs > size ? needs : size;
            block = numbers > block ? numbers : block;
            continue;
        }
        const int64_t needs = op->code == CODE_product      ? NAME(product_scratch)(op)
                              : is_softmax                  ? (op->rows + LANES) * (2 * op->cols + 2)
                              : op->code == CODE_batch_norm ? op->cols
                                                            : 0;
        size = needs > size ? needs : size;
    }
    size = (size + LANES - 1) / LANES * LANES;
    real *scratch = NULL;
    if (posix_memalign((void **)&scratch, 64, (size + block) * sizeof(real)))
        return -1;
#if USES_TILES
    tile_configuration others;
    configure_tiles(&others);
#endif
    for (int64_t step = 0; step < n_steps; step++)
        for (int64_t i = 0; i < n_operations; i += operations[i].chain) {
            const operation *op = operations + i;
            const double *own = numbers + step * n_numbers;
            if (op->code < N_ELEMENTWISE)
                NAME(run_chain)(op, first + step, own, scratch);
            else if (op->chain > 1)
                NAME(run_followed)(op, first + step, own, scratch, scratch + size);
            else
                NAME(run_other)(op, first + step, own, scratch);
        }
#if USES_TILES
    restore_tiles(&others);
#endif
    free(scratch);
    return 0;
}

#undef vec
#undef quad
#undef SHUFFLE
#undef LANES
#undef SQRT
#undef EXP
#undef TANH
#undef ERF
#undef LOG1P
#undef LOG
#undef SOFTPLUS
#undef TANH_SOFTPLUS
#undef SILU_SLOPE
#undef MISH_SLOPE
#undef HARD_SIGMOID
#undef BLOCK
