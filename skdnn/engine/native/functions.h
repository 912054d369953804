/* Functions of one number that compilers vectorise: no branches, no calls. Polynomials are those of Cephes (Moshier) unless
 * another source is named; errors are about one unit in the last place. NaN stays NaN. */

#ifndef SKDNN_FUNCTIONS_H
#define SKDNN_FUNCTIONS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* exp(x) = 2**n * exp(r). Adding 1.5 * 2**(digits - 1) rounds to an integer, which then is in the low bits. 2**n is applied in
 * two halves, so that results below and beyond the normal range come out as they should. */

INLINE float exp_float(float x)
{
    const float shift = 12582912.0f;
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float shifted = x * 1.44269504088896341f + shift;
    const float n = shifted - shift;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits -= 0x4B400000;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const int32_t half = bits >> 1, first = (int32_t)((uint32_t)(half + 127) << 23),
                  second = (int32_t)((uint32_t)(bits - half + 127) << 23);
    float a, b;
    memcpy(&a, &first, sizeof a);
    memcpy(&b, &second, sizeof b);
    return y * a * b;
}

INLINE double exp_double(double x)
{
    const double shift = 6755399441055744.0;
    x = x > 710.0 ? 710.0 : x;
    x = x < -746.0 ? -746.0 : x;
    const double shifted = x * 1.4426950408889634074 + shift;
    const double n = shifted - shift;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits -= 0x4338000000000000;
    const double r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
    const double rr = r * r;
    const double p = r * ((1.26177193074810590878e-4 * rr + 3.02994407707441961300e-2) * rr + 9.99999999999999999910e-1);
    const double q = ((3.00198505138664455042e-6 * rr + 2.52448340349684104192e-3) * rr + 2.27265548208155028766e-1) * rr + 2.0;
    const double y = 1.0 + 2.0 * (p / (q - p));
    const int64_t half = bits >> 1, first = (int64_t)((uint64_t)(half + 1023) << 52),
                  second = (int64_t)((uint64_t)(bits - half + 1023) << 52);
    double a, b;
    memcpy(&a, &first, sizeof a);
    memcpy(&b, &second, sizeof b);
    return y * a * b;
}

INLINE float tanh_float(float x)
{
    const float size = x < 0.0f ? -x : x, z = x * x;
    float y = -5.70498872745e-3f;
    y = y * z + 2.06390887954e-2f;
    y = y * z - 5.37397155531e-2f;
    y = y * z + 1.33314422036e-1f;
    y = y * z - 3.33332819422e-1f;
    const float small = y * z * x + x, large = 1.0f - 2.0f / (exp_float(size + size) + 1.0f);
    return size < 0.625f ? small : x < 0.0f ? -large : large;
}

INLINE double tanh_double(double x)
{
    const double size = x < 0.0 ? -x : x, z = x * x;
    const double p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3;
    const double q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3;
    const double small = x * z * (p / q) + x, large = 1.0 - 2.0 / (exp_double(size + size) + 1.0);
    return size < 0.625 ? small : x < 0.0 ? -large : large;
}

/* A rational approximation on [-4, 4], as in Eigen and XLA. */
INLINE float erf_float(float x)
{
    x = x > 4.0f ? 4.0f : x;
    x = x < -4.0f ? -4.0f : x;
    const float z = x * x;
    float p = -2.72614225801306e-10f, q = -1.45660718464996e-05f;
    p = p * z + 2.77068142495902e-08f;
    p = p * z - 2.10102402082508e-06f;
    p = p * z - 5.69250639462346e-05f;
    p = p * z - 7.34990630326855e-04f;
    p = p * z - 2.95459980854025e-03f;
    p = p * z - 1.60960333262415e-02f;
    q = q * z - 2.13374055278905e-04f;
    q = q * z - 1.68282697438203e-03f;
    q = q * z - 7.37332916720468e-03f;
    q = q * z - 1.42647390514189e-02f;
    return x * p / q;
}

/* log(x) for positive x in the normal range: the exponent, and log1p of what is left, in [0, 1). */
#define LOG_OF(type, integer, digits, bias, log1p)                                                                             \
    integer bits;                                                                                                              \
    memcpy(&bits, &x, sizeof bits);                                                                                            \
    const integer exponent = (bits >> digits) - bias, mantissa = bits - exponent * ((integer)1 << digits);                                  \
    type m;                                                                                                                    \
    memcpy(&m, &mantissa, sizeof m);                                                                                           \
    const type y = log1p(m - 1) + (type)exponent * (type)0.69314718055994530942;                                               \
    return x < INFINITY ? y : x;

/* log(1 + u) for u in [0, 1], by the series of 2 * atanh(u / (2 + u)), whose terms fall by 9 at least. */
INLINE float log1p_float(float u)
{
    const float s = u / (2.0f + u), z = s * s;
    float y = 0.0f;
#pragma GCC unroll 8
    for (int i = 8; i >= 1; i--)
        y = (y + 1.0f / (2 * i + 1)) * z;
    return 2.0f * (s + s * y);
}

INLINE double log1p_double(double u)
{
    const double s = u / (2.0 + u), z = s * s;
    double y = 0.0;
#pragma GCC unroll 17
    for (int i = 17; i >= 1; i--)
        y = (y + 1.0 / (2 * i + 1)) * z;
    return 2.0 * (s + s * y);
}

INLINE float log_float(float x) { LOG_OF(float, int32_t, 23, 127, log1p_float) }

INLINE double log_double(double x) { LOG_OF(double, int64_t, 52, 1023, log1p_double) }

#undef LOG_OF

#endif
