/* Squares of 16 x 16 float32 numbers in the vectors of AVX-512. */

#ifndef SKDNN_SQUARES_H
#define SKDNN_SQUARES_H

#include <immintrin.h>
#include <stdint.h>

#include "functions.h"

#define SIDE 16 /* also rows of a tile; columns, of one number of float32 or a pair of bfloat16 */
#define SQUARES __attribute__((target("avx512f")))

/* Transpose each of the four squares of 4 x 4 numbers that lie side by side in four vectors. */
INLINE SQUARES void
transpose_quads(const __m512 *x, __m512d *out)
{
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1])), b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3])), d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
    out[0] = _mm512_unpacklo_pd(a, c);
    out[1] = _mm512_unpackhi_pd(a, c);
    out[2] = _mm512_unpacklo_pd(b, d);
    out[3] = _mm512_unpackhi_pd(b, d);
}

/* The transpose of 16 x 16 numbers. */
INLINE SQUARES void
transpose_square(__m512 *x)
{
    __m512d y[SIDE], z[SIDE];
#pragma GCC unroll 4
    for (int i = 0; i < SIDE; i += 4)
        transpose_quads(x + i, y + i);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        z[i] = _mm512_shuffle_f64x2(y[i], y[i + 4], 0x88);
        z[i + 4] = _mm512_shuffle_f64x2(y[i], y[i + 4], 0xDD);
        z[i + 8] = _mm512_shuffle_f64x2(y[i + 8], y[i + 12], 0x88);
        z[i + 12] = _mm512_shuffle_f64x2(y[i + 8], y[i + 12], 0xDD);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_castpd_ps(_mm512_shuffle_f64x2(z[i], z[i + 8], 0x88));
        x[i + 8] = _mm512_castpd_ps(_mm512_shuffle_f64x2(z[i], z[i + 8], 0xDD));
        x[i + 4] = _mm512_castpd_ps(_mm512_shuffle_f64x2(z[i + 4], z[i + 12], 0x88));
        x[i + 12] = _mm512_castpd_ps(_mm512_shuffle_f64x2(z[i + 4], z[i + 12], 0xDD));
    }
}

INLINE SQUARES __mmask16
mask_of(int64_t n)
{
    return n >= SIDE ? 0xFFFF : n <= 0 ? 0 : (__mmask16)((1 << n) - 1);
}

/* The transpose of up to 16 x 16 numbers, with zeros beside them. */
INLINE SQUARES void
load_transposed(const float *in, int64_t row, int64_t n_rows, int64_t n_cols, __m512 *x)
{
    const __mmask16 mask = mask_of(n_cols);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        x[i] = _mm512_maskz_loadu_ps(i < n_rows ? mask : 0, in + i * row);
    transpose_square(x);
}

/* Write the transpose of up to 16 x 16 numbers. */
INLINE SQUARES void
transpose_up_to_square(const float *in, int64_t in_row, int64_t n_rows, int64_t n_cols, float *out, int64_t out_row)
{
    __m512 x[SIDE];
    const __mmask16 rows = mask_of(n_rows);
    load_transposed(in, in_row, n_rows, n_cols, x);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        _mm512_mask_storeu_ps(out + i * out_row, i < n_cols ? rows : 0, x[i]);
}

/* Write the transpose of 8 x 16 numbers. */
INLINE SQUARES void
transpose_half_square(const __m512 *x, float *out, int64_t out_row)
{
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512d y[2][4];
    transpose_quads(x, y[0]);
    transpose_quads(x + 4, y[1]);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const __m512d low = _mm512_permutex2var_pd(y[0][k], first, y[1][k]);
        const __m512d high = _mm512_permutex2var_pd(y[0][k], second, y[1][k]);
        _mm256_storeu_pd((double *)(out + k * out_row), _mm512_castpd512_pd256(low));
        _mm256_storeu_pd((double *)(out + (4 + k) * out_row), _mm512_extractf64x4_pd(low, 1));
        _mm256_storeu_pd((double *)(out + (8 + k) * out_row), _mm512_castpd512_pd256(high));
        _mm256_storeu_pd((double *)(out + (12 + k) * out_row), _mm512_extractf64x4_pd(high, 1));
    }
}

#endif
