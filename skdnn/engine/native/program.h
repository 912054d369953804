/* A program: the operations of one training step, over memory that stays where it is.
 *
 * skdnn/engine/program.py writes programs, as arrays of `operation`; module.c hands its layout and codes to Python. */

#ifndef SKDNN_PROGRAM_H
#define SKDNN_PROGRAM_H

#include <stdint.h>

#define MAX_OPERANDS 10
#define MAX_NUMBERS 5

/* A matrix. Element (i, j) of batch b is at (char *)data + b * step, plus i * row + j * col elements. */
typedef struct {
    void *data;
    int64_t step;
    int64_t row, col;
} operand;

/* Where an operand is that has no place of its own: in scratch memory, some rows of it at a time. */
#define IN_SCRATCH ((void *)1)

/* One kernel's call. What it writes comes first among its operands. `number[i]` is a constant where `variable[i]` is 0; else
 * it is the number of the step at |variable| - 1, with the sign of `variable`. A chain of operations on equally many elements
 * begins with one whose `chain` is its length; so does a product and what follows it, on as many elements as its result has,
 * which is in scratch memory. */
typedef struct {
    int64_t code, chain;
    int64_t rows, cols, depth;
    operand x[MAX_OPERANDS];
    double number[MAX_NUMBERS];
    int64_t variable[MAX_NUMBERS];
} operation;

/* Element by element: name, number of operands that are read and written, expression in x0 (what is written, before), x1, ...
 * and the numbers n0, n1, ... */
#define ELEMENTWISE_OPERATIONS(X)                                                                                              \
    X(fill, 1, n0)                                                                                                             \
    X(copy, 2, x1)                                                                                                             \
    X(neg, 2, -x1)                                                                                                             \
    X(abs, 2, x1 < 0 ? -x1 : x1)                                                                                               \
    X(sign, 2, x1 > 0 ? (real)1 : x1 < 0 ? (real)-1 : (real)0)                                                                 \
    X(sqrt, 2, SQRT(x1))                                                                                                       \
    X(rsqrt, 2, (real)1 / SQRT(x1))                                                                                            \
    X(reciprocal, 2, (real)1 / x1)                                                                                             \
    X(exp, 2, EXP(x1))                                                                                                         \
    X(add, 3, x1 + n0 * x2)                                                                                                    \
    X(sub, 3, x1 - n0 * x2)                                                                                                    \
    X(add_number, 2, x1 + n0)                                                                                                  \
    X(subtract_from, 2, n0 - x1)                                                                                               \
    X(mul, 3, x1 * x2)                                                                                                         \
    X(mul_number, 2, x1 * n0)                                                                                                  \
    X(div, 3, x1 / x2)                                                                                                         \
    X(div_number, 2, x1 / n0)                                                                                                  \
    X(maximum, 3, x1 > x2 || x1 != x1 ? x1 : x2)                                                                               \
    X(clamp_min, 2, x1 < n0 ? n0 : x1)                                                                                         \
    X(clamp_max, 2, x1 > n0 ? n0 : x1)                                                                                         \
    X(greater, 2, (real)(x1 > n0))                                                                                             \
    X(equal, 2, (real)(x1 == n0))                                                                                              \
    X(square, 2, x1 * x1)                                                                                                      \
    X(xlogy, 3, x1 == 0 ? (real)0 : x1 * LOG(x2))                                                                              \
    X(where, 4, x1 != 0 ? x2 : x3)                                                                                             \
    X(less_or_equal, 2, (real)(x1 <= n0))                                                                                      \
    X(masked_fill, 3, x2 != 0 ? n0 : x1)                                                                                       \
    X(lerp, 3, x1 + n0 * (x2 - x1))                                                                                            \
    X(addcmul, 4, x1 + n0 * x2 * x3)                                                                                           \
    X(addcdiv, 4, x1 + n0 * (x2 / x3))                                                                                         \
    X(relu, 2, x1 < 0 ? (real)0 : x1)                                                                                          \
    X(threshold_backward, 3, x2 <= n0 ? (real)0 : x1)                                                                          \
    X(leaky_relu, 2, x1 > 0 ? x1 : n0 * x1)                                                                                    \
    X(leaky_relu_backward, 3, x2 > 0 ? x1 : n0 * x1)                                                                           \
    X(elu, 2, x1 > 0 ? n1 * x1 : n0 * n1 * (EXP(x1 > 0 ? (real)0 : x1) - 1))                                                   \
    X(elu_backward, 3, x2 > 0 ? n1 * x1 : x1 * (x2 + n0 * n1))                                                                 \
    X(sigmoid, 2, (real)1 / (1 + EXP(-x1)))                                                                                    \
    X(sigmoid_backward, 3, x1 * ((1 - x2) * x2))                                                                               \
    X(tanh, 2, TANH(x1))                                                                                                       \
    X(tanh_backward, 3, x1 * (1 - x2 * x2))                                                                                    \
    X(gelu, 2, (real)0.5 * x1 * (1 + ERF(x1 * (real)0.70710678118654752440)))                                                  \
    X(gelu_backward, 3,                                                                                                        \
      x1 * ((real)0.5 * (1 + ERF(x2 * (real)0.70710678118654752440)) +                                                         \
            x2 * (real)0.39894228040143267794 * EXP((real)-0.5 * x2 * x2)))                                                    \
    X(silu, 2, x1 / (1 + EXP(-x1)))                                                                                            \
    X(silu_backward, 3, x1 * SILU_SLOPE(x2, (real)1 / (1 + EXP(-x2))))                                                         \
    X(softplus, 2, x1 > n0 ? x1 : SOFTPLUS(x1))                                                                                \
    X(softplus_backward, 3, x2 > n0 ? x1 : x1 / (1 + EXP(-x2)))                                                                \
    X(mish, 2, x1 * TANH_SOFTPLUS(x1))                                                                                         \
    X(mish_backward, 3, x1 * MISH_SLOPE(x2, TANH_SOFTPLUS(x2)))                                                                \
    X(hardswish, 2, x1 * HARD_SIGMOID(x1))                                                                                     \
    X(hardswish_backward, 3, x2 <= -3 ? (real)0 : x2 >= 3 ? x1 : x1 * (x2 / 3 + (real)0.5))

/* Those that are not: name, number of operands and of numbers. */
#define OTHER_OPERATIONS(X)                                                                                                    \
    X(product, 4, 0)             /* out, left, right, bias or NULL: (rows, depth) @ (depth, cols) */                           \
    X(softmax, 3, 0)             /* out, in, logarithm or NULL: over each row */                                               \
    X(log_softmax, 2, 0)         /* out, in: over each row */                                                                  \
    X(total, 2, 0)               /* out, in: the sum of all */                                                                 \
    X(row_norms, 2, 0)           /* out, in: a Euclidean norm a row */                                                         \
    X(column_norms, 2, 0)        /* out, in: a Euclidean norm a column */                                                      \
    X(column_sums, 3, 0)         /* out, in, factor of each row */                                                             \
    X(adam, 5, 5)                /* parameters, mean, squares, largest or NULL, gradient; rate, step, betas, epsilon */        \
    X(batch_norm, 8, 2)          /* out, in, scale, shift, running mean and variance, mean, inverse std; share, epsilon */     \
    X(batch_norm_backward, 8, 0) /* out, gradients of scale and shift, gradient, in, scale, mean, inverse std */

enum {
#define X(name, ...) CODE_##name,
    ELEMENTWISE_OPERATIONS(X) N_ELEMENTWISE,
    LAST_ELEMENTWISE = N_ELEMENTWISE - 1,
    OTHER_OPERATIONS(X) N_OPERATIONS
#undef X
};

/* What one call runs: steps of `n_steps` batches from `first` on, each with `n_numbers` numbers. Returns -1 without memory,
 * else 0. */
typedef int runner(const operation *operations, int64_t n_operations, const double *numbers, int64_t first, int64_t n_steps,
                   int64_t n_numbers);

#endif
