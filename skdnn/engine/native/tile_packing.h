/* Tiles of Intel's AMX: whether there are any, how they are configured, and how factors of products are split and packed for
 * them. What the parts are is in tiles.h. */

#ifndef SKDNN_TILE_PACKING_H
#define SKDNN_TILE_PACKING_H

#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "squares.h"

#define TILES __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,amx-tile,amx-bf16")))

#define PARTS 3
#define TILE_DEPTH (2 * SIDE)            /* numbers that a product of tiles adds up */
#define TILE_NUMBERS (SIDE * TILE_DEPTH) /* of bfloat16, in a tile */
#define TILE_PANEL (2 * SIDE)            /* rows or columns of the result that are computed at a time */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_of_row[16];
    uint8_t rows[16];
} tile_configuration;

/* Configure the processor's tiles, and tell how they were before. The compilers' own functions for this do not say what memory
 * they read and write. */
static void
configure_tiles(tile_configuration *before)
{
    tile_configuration own = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        own.rows[i] = SIDE;
        own.bytes_of_row[i] = 4 * SIDE;
    }
    __asm__ volatile("sttilecfg %0" : "=m"(*before));
    __asm__ volatile("ldtilecfg %0" : : "m"(own));
}

static void
restore_tiles(const tile_configuration *before)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*before));
}

/* A factor: number (i, p) of what it has along the result and the depth is at data[i * along + p * depth]. */
typedef struct {
    const float *data;
    int64_t along, depth;
} factor;

/* Whether the processor has tiles, and the system grants this process their use. */
static TILES int
tiles_are_available(void)
{
    unsigned a, b, c, d;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    const int has_tiles = d >> 24 & 1, has_bf16 = d >> 22 & 1;
    return has_tiles && has_bf16 && syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tiles' data */) == 0;
}

/* Split 2 x 16 numbers into their parts, rounded to nearest, and write each part's in pairs. */
INLINE TILES void
split(__m512 first, __m512 second, uint16_t *out)
{
    const __m512i half = _mm512_set1_epi32(0x8000), high = _mm512_set1_epi32((int)0xFFFF0000);
#pragma GCC unroll 3
    for (int part = 0; part < PARTS; part++) {
        __m512i a = _mm512_castps_si512(first), b = _mm512_castps_si512(second);
        if (part < PARTS - 1) { /* the last one has no more than its bits */
            a = _mm512_and_si512(_mm512_add_epi32(a, half), high);
            b = _mm512_and_si512(_mm512_add_epi32(b, half), high);
            first = _mm512_sub_ps(first, _mm512_castsi512_ps(a));
            second = _mm512_sub_ps(second, _mm512_castsi512_ps(b));
        }
        _mm512_store_si512(out + part * TILE_NUMBERS, _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(a, 16), b));
    }
}

/* Write the transpose of up to 16 x 16 numbers, with zeros beside them. */
INLINE TILES void
transpose_into(const float *in, int64_t row, int64_t n_rows, int64_t n_cols, float *out)
{
    __m512 x[SIDE];
    load_transposed(in, row, n_rows, n_cols, x);
#pragma GCC unroll 16
    for (int i = 0; i < SIDE; i++)
        _mm512_store_ps(out + i * SIDE, x[i]);
}

/* A tile to be packed, from rows of its numbers that lie one after the other. Pairs are of numbers 16 apart along the depth:
 * which are paired does not matter as long as both factors pair the same. `second` is how far the pairs' second numbers are
 * from their first ones; there are as many rows of either, and columns, as told. */
typedef struct {
    const float *in;
    int64_t row, second, n_firsts, n_seconds;
    __mmask16 mask, second_mask;
    uint16_t *out;
} packing;

/* Whether it has all its rows and columns. */
INLINE TILES int
is_full(const packing *tile)
{
    return tile->n_firsts >= SIDE && tile->n_seconds >= SIDE && (tile->mask & tile->second_mask) == 0xFFFF;
}

/* Pack the next row of a full tile. */
INLINE TILES void
pack_row(packing *tile)
{
    split(_mm512_loadu_ps(tile->in), _mm512_loadu_ps(tile->in + tile->second), tile->out);
    tile->in += tile->row;
    tile->out += TILE_DEPTH;
}

/* Pack some of its rows. */
INLINE TILES void
pack_rows(const packing *tile, int begin, int end)
{
    const float *in = tile->in + begin * tile->row;
    uint16_t *out = tile->out + begin * TILE_DEPTH;
    if (is_full(tile)) {
#pragma GCC unroll 4
        for (int i = begin; i < end; i++, in += tile->row, out += TILE_DEPTH)
            split(_mm512_loadu_ps(in), _mm512_loadu_ps(in + tile->second), out);
        return;
    }
    for (int i = begin; i < end; i++, in += tile->row, out += TILE_DEPTH) {
        const __mmask16 mask = i < tile->n_firsts ? tile->mask : 0, second_mask = i < tile->n_seconds ? tile->second_mask : 0;
        split(_mm512_maskz_loadu_ps(mask, in), _mm512_maskz_loadu_ps(second_mask, in + tile->second), out);
    }
}

/* What of a factor is packed: tile by tile along the result and within that along the depth, the parts of each one after the
 * other. A tile of the left factor has a row for each number along the result, one of the right factor for each pair along
 * the depth. */
typedef struct {
    factor x;
    int64_t n_along, n_depth;
    int is_left;
    uint16_t *out;
    int64_t n_packed; /* tiles so far, where they are packed little by little */
} stretch;

INLINE int64_t
tiles_of(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

/* Whether its tiles' rows lie in memory as they are. */
INLINE int
is_straight(factor x, int is_left)
{
    return is_left ? x.depth == 1 : x.along == 1;
}

/* The tile at (i, p) of a straight factor. */
INLINE TILES packing
straight_tile(const stretch *of, int64_t i, int64_t p)
{
    const int64_t along = of->n_along - i * SIDE, first = of->n_depth - p * TILE_DEPTH, second = first - SIDE;
    const float *in = of->x.data + i * SIDE * of->x.along + p * TILE_DEPTH * of->x.depth;
    uint16_t *out = of->out + (i * tiles_of(of->n_depth, TILE_DEPTH) + p) * PARTS * TILE_NUMBERS;
    if (of->is_left)
        return (packing){in, of->x.along, SIDE, along, along, mask_of(first), mask_of(second), out};
    return (packing){in, of->x.depth, SIDE * of->x.depth, first, second, mask_of(along), mask_of(along), out};
}

static TILES void
pack(const stretch *of)
{
    uint16_t *out = of->out;
    const factor x = of->x;
    for (int64_t i = 0; i < tiles_of(of->n_along, SIDE); i++)
        for (int64_t p = 0; p < tiles_of(of->n_depth, TILE_DEPTH); p++, out += PARTS * TILE_NUMBERS) {
            if (is_straight(x, of->is_left)) {
                const packing tile = straight_tile(of, i, p);
                pack_rows(&tile, 0, SIDE);
                continue;
            }
            _Alignas(64) float squares[2 * SIDE * SIDE];
            const int64_t along = of->n_along - i * SIDE;
            for (int k = 0; k < 2; k++) {
                const int64_t depth = of->n_depth - p * TILE_DEPTH - k * SIDE;
                const float *in = x.data + i * SIDE * x.along + (p * TILE_DEPTH + k * SIDE) * x.depth;
                if (of->is_left)
                    transpose_into(in, x.depth, depth, along, squares + k * SIDE * SIDE);
                else
                    transpose_into(in, x.along, along, depth, squares + k * SIDE * SIDE);
            }
            const packing tile = {squares, SIDE, SIDE * SIDE, SIDE, SIDE, 0xFFFF, 0xFFFF, out};
            pack_rows(&tile, 0, SIDE);
        }
}

#endif
