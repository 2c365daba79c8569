/* The loops over whole vectors in C: those of the codecs and of the outer step.
 *
 * They make the same bytes as numpy, in one pass over memory. protocol/codec/kernel.py calls them.
 * protocol/codec/{floats,blocks}.py and protocol/averaging/outer_step.py define what they compute, and
 * tests/protocol/codec/test_kernel.py and tests/protocol/averaging/test_outer_step.py compare every bit.
 *
 * Bits depend on these rules:
 * - Every float operation is one that numpy makes, in its order, on float32. The file is compiled with
 *   -ffp-contract=off and never with -ffast-math.
 * - No sum of float32 runs across elements. Greatest magnitudes do, as integers, whose order does not matter,
 *   and the squares of a chunk do, as doubles in 64 lanes whose order is fixed. So a compiler may use any
 *   vector width up to that.
 * - Received values may lie at any address and hold anything. They are read through types that allow this,
 *   and checked before they are used.
 *
 * Every function returns 0, or 1 if it refuses a value or an encoding. The caller then asks numpy for the
 * reason.
 */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "float32 arithmetic with more than float32's precision makes other bytes than numpy"
#endif

#if !defined(PLAIN) && defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define KERNEL __attribute__((target_clones("avx2", "default"))) /* The loader chooses by the processor. */
#else
#define KERNEL
#endif
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t __attribute__((aligned(1), may_alias)) wire16;
typedef uint32_t __attribute__((aligned(1), may_alias)) wire32;

enum { CHUNK = 4096, TILE = 1024 }; /* Elements. A tile is a multiple of every block, and two tiles fit the first cache. */

static const uint32_t MAGNITUDE = 0x7fffffff, INFINITE = 0x7f800000, LARGEST = 0x7f7fffff;
static const float ROUNDER = 12582912.0f; /* 1.5 * 2**23: added to |x| < 2**22 it rounds to the nearest integer, ties to even. */

INLINE uint32_t bits_of(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }
INLINE float float_of(uint32_t bits) { float value; memcpy(&value, &bits, 4); return value; }
INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* elements */

INLINE uint32_t bfloat16_of(uint32_t bits)
{
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return rounded - ((rounded & 0x7f80) == 0x7f80);
}

INLINE float from_bfloat16(uint32_t half) { return float_of(half << 16); }

INLINE uint32_t float16_of(uint32_t bits)
{
    uint32_t sign = (bits >> 16) & 0x8000, size = bits & MAGNITUDE;
    size = size > 0x477fe000 ? 0x477fe000 : size;               /* 65504 */
    uint32_t small = bits_of(float_of(size) + 0.5f) - 0x3f000000; /* Below 2**-14 the addition rounds at the right place. */
    uint32_t normal = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
    return sign | (size < 0x38800000 ? small : normal);
}

INLINE float from_float16(uint32_t half)
{
    uint32_t shifted = (half & 0x7fff) << 13;
    uint32_t small = bits_of(float_of(shifted + 0x38800000) - 6.103515625e-05f); /* 2**-14 */
    return float_of((shifted < 0x00800000 ? small : shifted + 0x38000000) | (half & 0x8000) << 16);
}

/* Write a decoded value, or add it with its weight. `adding` is known at compile time. */
INLINE void put(float *out, float value, int adding, float weight) { *out = adding ? *out + value * weight : value; }

INLINE float in_range(float value)
{
    uint32_t bits = bits_of(value), size = bits & MAGNITUDE;
    uint32_t end = (bits & ~MAGNITUDE) | LARGEST;
    return float_of(size > INFINITE ? 0 : size == INFINITE ? end : bits);
}

INLINE uint32_t peak_of(const float *values, size_t count)
{
    int32_t peak = 0; /* Signed, because some processors have no unsigned vector maximum. Magnitudes have no sign bit. */
    for (size_t i = 0; i < count; i++) {
        int32_t size = (int32_t)(bits_of(values[i]) & MAGNITUDE);
        peak = size > peak ? size : peak;
    }
    return (uint32_t)peak;
}

/* float32, bfloat16, float16 */

INLINE size_t float32_size(size_t count) { return 4 * count; }
INLINE size_t half_size(size_t count) { return 2 * count; }

INLINE int float32_chunk_encode(const float *values, size_t count, uint8_t *out)
{
    memcpy(out, values, 4 * count);
    return peak_of(values, count) >= INFINITE;
}

INLINE int float32_chunk_check(const uint8_t *chunk, size_t count)
{
    const wire32 *source = (const wire32 *)chunk;
    int32_t peak = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t size = (int32_t)(source[i] & MAGNITUDE);
        peak = size > peak ? size : peak;
    }
    return (uint32_t)peak >= INFINITE;
}

INLINE void float32_tile(const uint8_t *chunk, size_t elements, size_t at, size_t count, int adding, float weight, float *out)
{
    const wire32 *source = (const wire32 *)chunk + at;
    (void)elements;
    for (size_t i = 0; i < count; i++)
        put(out + i, float_of(source[i]), adding, weight);
}

INLINE int halves_check(const uint8_t *chunk, size_t count, unsigned exponent)
{
    const wire16 *source = (const wire16 *)chunk;
    int16_t peak = 0;
    for (size_t i = 0; i < count; i++) {
        int16_t size = (int16_t)(source[i] & exponent);
        peak = size > peak ? size : peak;
    }
    return peak == (int16_t)exponent;
}

INLINE int bfloat16_chunk_encode(const float *values, size_t count, uint8_t *out)
{
    wire16 *halves = (wire16 *)out;
    for (size_t i = 0; i < count; i++)
        halves[i] = (uint16_t)bfloat16_of(bits_of(values[i]));
    return peak_of(values, count) >= INFINITE;
}

INLINE int bfloat16_chunk_check(const uint8_t *chunk, size_t count) { return halves_check(chunk, count, 0x7f80); }

INLINE void bfloat16_tile(const uint8_t *chunk, size_t elements, size_t at, size_t count, int adding, float weight, float *out)
{
    const wire16 *source = (const wire16 *)chunk + at;
    (void)elements;
    for (size_t i = 0; i < count; i++)
        put(out + i, from_bfloat16(source[i]), adding, weight);
}

INLINE int float16_chunk_encode(const float *values, size_t count, uint8_t *out)
{
    wire16 *halves = (wire16 *)out;
    for (size_t i = 0; i < count; i++)
        halves[i] = (uint16_t)float16_of(bits_of(values[i]));
    return peak_of(values, count) >= INFINITE;
}

INLINE int float16_chunk_check(const uint8_t *chunk, size_t count) { return halves_check(chunk, count, 0x7c00); }

INLINE void float16_tile(const uint8_t *chunk, size_t elements, size_t at, size_t count, int adding, float weight, float *out)
{
    const wire16 *source = (const wire16 *)chunk + at;
    (void)elements;
    for (size_t i = 0; i < count; i++)
        put(out + i, from_float16(source[i]), adding, weight);
}

/* int8, int4 */

static const uint32_t SMALLEST_SCALE = 0x0280;
enum { INT8_BLOCK = 256, INT4_BLOCK = 64 };
static const uint32_t INT8_LARGEST_SCALE = 0x7c01, INT4_LARGEST_SCALE = 0x7dff;

INLINE size_t scales_size(size_t count, size_t block) { return 2 * ((count + block - 1) / block); }
INLINE size_t int8_size(size_t count) { return scales_size(count, INT8_BLOCK) + count; }
INLINE size_t int4_size(size_t count) { return scales_size(count, INT4_BLOCK) + (count + 1) / 2; }

INLINE int scales_check(const uint8_t *chunk, size_t count, size_t block, uint32_t kept_bits, uint32_t largest)
{
    const wire16 *scales = (const wire16 *)chunk;
    int bad = 0;
    for (size_t i = 0; i < (count + block - 1) / block; i++) {
        uint32_t size = scales[i] & kept_bits;
        bad |= size < SMALLEST_SCALE || size > largest;
    }
    return bad;
}

INLINE int int8_block(const float *values, size_t count, wire16 *scale, int8_t *levels)
{
    uint32_t peak = peak_of(values, count);
    if (peak >= INFINITE)
        return 1;
    uint32_t half = bfloat16_of(bits_of(float_of(peak) / 127.0f));
    half = half < SMALLEST_SCALE ? SMALLEST_SCALE : half;
    *scale = (uint16_t)half;
    float steps = 1.0f / from_bfloat16(half);
    for (size_t i = 0; i < count; i++)
        levels[i] = (int8_t)bits_of(values[i] * steps + ROUNDER);
    return 0;
}

INLINE int int8_chunk_encode(const float *values, size_t count, uint8_t *out)
{
    wire16 *scales = (wire16 *)out;
    int8_t *levels = (int8_t *)out + scales_size(count, INT8_BLOCK);
    size_t at = 0;
    for (; at + INT8_BLOCK <= count; at += INT8_BLOCK) /* The compiler knows this length. */
        if (int8_block(values + at, INT8_BLOCK, scales++, levels + at))
            return 1;
    return at < count && int8_block(values + at, count - at, scales, levels + at);
}

INLINE int int8_chunk_check(const uint8_t *chunk, size_t count)
{
    const int8_t *levels = (const int8_t *)chunk + scales_size(count, INT8_BLOCK);
    int8_t lowest = 0;
    for (size_t i = 0; i < count; i++)
        lowest = levels[i] < lowest ? levels[i] : lowest;
    return lowest == -128 || scales_check(chunk, count, INT8_BLOCK, 0xffff, INT8_LARGEST_SCALE);
}

INLINE void int8_levels(const int8_t *levels, size_t count, float scale, int adding, float weight, float *out)
{
    for (size_t i = 0; i < count; i++)
        put(out + i, (float)levels[i] * scale, adding, weight);
}

INLINE void int8_tile(const uint8_t *chunk, size_t elements, size_t at, size_t count, int adding, float weight, float *out)
{
    const wire16 *scales = (const wire16 *)chunk + at / INT8_BLOCK;
    const int8_t *levels = (const int8_t *)chunk + scales_size(elements, INT8_BLOCK) + at;
    size_t i = 0;
    for (; i + INT8_BLOCK <= count; i += INT8_BLOCK)
        int8_levels(levels + i, INT8_BLOCK, from_bfloat16(*scales++), adding, weight, out + i);
    if (i < count)
        int8_levels(levels + i, count - i, from_bfloat16(*scales), adding, weight, out + i);
}

INLINE int int4_block(const float *values, size_t count, wire16 *scale, uint8_t *pairs)
{
    uint32_t peak = 0; /* The sign is below the magnitude, so the greatest magnitude brings its sign along. */
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of(values[i]), size = bits << 1 | bits >> 31;
        peak = size > peak ? size : peak;
    }
    if (peak >> 1 >= INFINITE)
        return 1;
    uint32_t half = bfloat16_of(bits_of(float_of(peak >> 1) * 0.125f));
    half = half > INT4_LARGEST_SCALE ? INT4_LARGEST_SCALE : half;
    half = half < SMALLEST_SCALE ? SMALLEST_SCALE : half | (~peak & 1) << 15;
    *scale = (uint16_t)half;
    float steps = 1.0f / from_bfloat16(half);
    int8_t levels[INT4_BLOCK] = {0};
    for (size_t i = 0; i < count; i++) {
        int8_t level = (int8_t)bits_of(values[i] * steps + ROUNDER);
        levels[i] = (int8_t)(level - (level == 8));
    }
    const wire16 *both = (const wire16 *)levels;
    for (size_t i = 0; i < (count + 1) / 2; i++)
        pairs[i] = (uint8_t)((both[i] & 0x0f) | (both[i] >> 4 & 0xf0));
    return 0;
}

INLINE int int4_chunk_encode(const float *values, size_t count, uint8_t *out)
{
    wire16 *scales = (wire16 *)out;
    uint8_t *pairs = out + scales_size(count, INT4_BLOCK);
    size_t at = 0;
    for (; at + INT4_BLOCK <= count; at += INT4_BLOCK)
        if (int4_block(values + at, INT4_BLOCK, scales++, pairs + at / 2))
            return 1;
    return at < count && int4_block(values + at, count - at, scales, pairs + at / 2);
}

INLINE int int4_chunk_check(const uint8_t *chunk, size_t count)
{
    if (count % 2 && chunk[int4_size(count) - 1] >> 4)
        return 1;
    return scales_check(chunk, count, INT4_BLOCK, 0x7fff, INT4_LARGEST_SCALE);
}

INLINE void int4_levels(const uint8_t *pairs, size_t count, float scale, int adding, float weight, float *out)
{
    int8_t levels[INT4_BLOCK]; /* 16 times each level, with its sign. */
    wire16 *both = (wire16 *)levels;
    for (size_t i = 0; i < (count + 1) / 2; i++)
        both[i] = (uint16_t)((pairs[i] << 4 | pairs[i] << 8) & 0xf0f0);
    for (size_t i = 0; i < count; i++)
        put(out + i, (float)levels[i] * scale, adding, weight);
}

INLINE void int4_tile(const uint8_t *chunk, size_t elements, size_t at, size_t count, int adding, float weight, float *out)
{
    const wire16 *scales = (const wire16 *)chunk + at / INT4_BLOCK;
    const uint8_t *pairs = chunk + scales_size(elements, INT4_BLOCK) + at / 2;
    size_t i = 0;
    for (; i + INT4_BLOCK <= count; i += INT4_BLOCK)
        int4_levels(pairs + i / 2, INT4_BLOCK, from_bfloat16(*scales++) * 0.0625f, adding, weight, out + i);
    if (i < count)
        int4_levels(pairs + i / 2, count - i, from_bfloat16(*scales) * 0.0625f, adding, weight, out + i);
}

/* the clip, as protocol/averaging/clip.py defines it */

enum { LANES = 64 }; /* A tile is a multiple of them. */
static const size_t VOTERS_FOR_MEDIAN = 4;
static const double MOST_FLOORS = 8.0;

/* Add the squares of a tile to the lanes. The square of a float32 is exact in double. */
INLINE void add_squares(const float *values, size_t count, double *lanes)
{
    size_t at = 0;
    for (; at + LANES <= count; at += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            double value = (double)values[at + lane];
            lanes[lane] += value * value;
        }
    for (size_t lane = 0; at + lane < count; lane++) {
        double value = (double)values[at + lane];
        lanes[lane] += value * value;
    }
}

INLINE double sum_of_lanes(double *lanes)
{
    for (size_t distance = LANES / 2; distance; distance /= 2)
        for (size_t lane = 0; lane < distance; lane++)
            lanes[lane] += lanes[lane + distance];
    return lanes[0];
}

/* The bound of one chunk. `ordered` has room for all parts. */
INLINE double clip_bound(const double *roots, const uint8_t *votes, size_t parts, double lowest, double *ordered)
{
    size_t judges = 0;
    for (int all = 0; all < 2 && !judges; all++)
        for (size_t part = 0; part < parts; part++)
            if (all || votes[part]) {
                size_t place = judges++;
                for (; place && ordered[place - 1] > roots[part]; place--)
                    ordered[place] = ordered[place - 1];
                ordered[place] = roots[part];
            }
    size_t zeros = 0;
    for (; lowest <= 0.0 && zeros + 1 < judges && ordered[zeros] == 0.0;)
        zeros++;
    double bound = ordered[judges >= VOTERS_FOR_MEDIAN ? zeros + (judges - zeros - 1) / 2 : judges - 1], highest = MOST_FLOORS * lowest;
    if (lowest <= 0.0)
        return bound;
    bound = bound > lowest ? bound : lowest;
    return bound < highest ? bound : highest;
}

/* The energy of each chunk. */
KERNEL int energies(const float *values, size_t elements, double *out)
{
    for (size_t start = 0; start < elements; start += CHUNK) {
        double lanes[LANES] = {0};
        add_squares(values + start, least(CHUNK, elements - start), lanes);
        *out++ = sum_of_lanes(lanes);
    }
    return 0;
}

/* whole vectors */

#define DEFINE(NAME, SIZE)                                                                                                                 \
    KERNEL int NAME##_encode(const float *values, size_t elements, float over, uint8_t *out)                                               \
    {                                                                                                                                      \
        float quotients[CHUNK];                                                                                                            \
        for (size_t start = 0; start < elements; start += CHUNK) {                                                                         \
            size_t count = least(CHUNK, elements - start);                                                                                 \
            const float *chunk = values + start;                                                                                           \
            if (over != 1.0f) {                                                                                                            \
                for (size_t i = 0; i < count; i++)                                                                                         \
                    quotients[i] = chunk[i] / over;                                                                                        \
                chunk = quotients;                                                                                                         \
            }                                                                                                                              \
            if (NAME##_chunk_encode(chunk, count, out))                                                                                    \
                return 1;                                                                                                                  \
            out += SIZE(count);                                                                                                            \
        }                                                                                                                                  \
        return 0;                                                                                                                          \
    }                                                                                                                                      \
    KERNEL int NAME##_check(const uint8_t *data, size_t elements)                                                                          \
    {                                                                                                                                      \
        int bad = 0;                                                                                                                       \
        for (size_t start = 0; start < elements && !bad; start += CHUNK) {                                                                 \
            bad = NAME##_chunk_check(data, least(CHUNK, elements - start));                                                                \
            data += SIZE(CHUNK);                                                                                                           \
        }                                                                                                                                  \
        return bad;                                                                                                                        \
    }                                                                                                                                      \
    KERNEL int NAME##_decode(const uint8_t *data, size_t elements, float *out)                                                             \
    {                                                                                                                                      \
        for (size_t start = 0; start < elements; start += CHUNK, data += SIZE(CHUNK)) {                                                    \
            size_t count = least(CHUNK, elements - start);                                                                                 \
            if (NAME##_chunk_check(data, count))                                                                                           \
                return 1;                                                                                                                  \
            NAME##_tile(data, count, 0, count, 0, 1.0f, out + start);                                                                      \
        }                                                                                                                                  \
        return 0;                                                                                                                          \
    }                                                                                                                                      \
    KERNEL int NAME##_add(const uint8_t *data, size_t elements, float weight, float *out)                                                  \
    {                                                                                                                                      \
        if (NAME##_check(data, elements)) /* A refused encoding adds nothing. */                                                                   \
            return 1;                                                                                                                      \
        for (size_t start = 0; start < elements; start += CHUNK, data += SIZE(CHUNK)) {                                                    \
            size_t count = least(CHUNK, elements - start);                                                                                 \
            NAME##_tile(data, count, 0, count, 1, weight, out + start);                                                                    \
        }                                                                                                                                  \
        return 0;                                                                                                                          \
    }                                                                                                                                      \
    KERNEL int NAME##_mean(const uint8_t *const *data, const float *weights, size_t parts, float total, size_t elements, float *out)       \
    {                                                                                                                                      \
        float sum[TILE];                                                                                                                   \
        for (size_t start = 0, from = 0; start < elements; start += CHUNK, from += SIZE(CHUNK)) {                                          \
            size_t length = least(CHUNK, elements - start);                                                                                \
            for (size_t part = 0; part < parts; part++)                                                                                    \
                if (NAME##_chunk_check(data[part] + from, length))                                                                         \
                    return 1;                                                                                                              \
            for (size_t at = 0; at < length; at += TILE) {                                                                                 \
                size_t count = least(TILE, length - at);                                                                                   \
                memset(sum, 0, sizeof sum);                                                                                                \
                for (size_t part = 0; part < parts; part++) /* A tile of known length is twice as fast. */                                \
                    count == TILE ? NAME##_tile(data[part] + from, length, at, TILE, 1, weights[part], sum)                                \
                                  : NAME##_tile(data[part] + from, length, at, count, 1, weights[part], sum);                              \
                for (size_t i = 0; i < count; i++)                                                                                         \
                    out[start + at + i] = in_range(sum[i] / total);                                                                        \
            }                                                                                                                              \
        }                                                                                                                                  \
        return 0;                                                                                                                          \
    }                                                                                                                                      \
    /* `scratch` has room for two values of each part. `kept` becomes the sum of each part's factors over all chunks. */                   \
    KERNEL int NAME##_clipped_mean(const uint8_t *const *data, const double *weights, const double *ratios, const uint8_t *votes,         \
                                   size_t parts, float total, double norm, double parameters, size_t elements, double *scratch,           \
                                   double *kept, float *out)                                                                               \
    {                                                                                                                                      \
        float sum[TILE];                                                                                                                   \
        double *roots = scratch, *ordered = scratch + parts;                                                                               \
        for (size_t part = 0; part < parts; part++)                                                                                        \
            kept[part] = 0.0;                                                                                                              \
        for (size_t start = 0, from = 0; start < elements; start += CHUNK, from += SIZE(CHUNK)) {                                          \
            size_t length = least(CHUNK, elements - start);                                                                                \
            for (size_t part = 0; part < parts; part++) {                                                                                  \
                double lanes[LANES] = {0};                                                                                                 \
                if (NAME##_chunk_check(data[part] + from, length))                                                                         \
                    return 1;                                                                                                              \
                for (size_t at = 0; at < length; at += TILE) {                                                                             \
                    size_t count = least(TILE, length - at);                                                                               \
                    if (count == TILE) {                                                                                                   \
                        NAME##_tile(data[part] + from, length, at, TILE, 0, 1.0f, sum);                                                    \
                        add_squares(sum, TILE, lanes);                                                                                     \
                    } else {                                                                                                               \
                        NAME##_tile(data[part] + from, length, at, count, 0, 1.0f, sum);                                                   \
                        add_squares(sum, count, lanes);                                                                                    \
                    }                                                                                                                      \
                }                                                                                                                          \
                roots[part] = sqrt(sum_of_lanes(lanes));                                                                                   \
            }                                                                                                                              \
            double lowest = norm > 0.0 ? norm * sqrt((double)length / parameters) : 0.0;                                                   \
            double bound = clip_bound(roots, votes, parts, lowest, ordered);                                                               \
            for (size_t part = 0; part < parts; part++) {                                                                                  \
                double most = ratios[part] * bound, factor = roots[part] > most ? most / roots[part] : 1.0;                                \
                kept[part] += factor;                                                                                                      \
                roots[part] = weights[part] * factor;                                                                                      \
            }                                                                                                                              \
            for (size_t at = 0; at < length; at += TILE) {                                                                                 \
                size_t count = least(TILE, length - at);                                                                                   \
                memset(sum, 0, sizeof sum);                                                                                                \
                for (size_t part = 0; part < parts; part++)                                                                                \
                    count == TILE ? NAME##_tile(data[part] + from, length, at, TILE, 1, (float)roots[part], sum)                           \
                                  : NAME##_tile(data[part] + from, length, at, count, 1, (float)roots[part], sum);                         \
                for (size_t i = 0; i < count; i++)                                                                                         \
                    out[start + at + i] = in_range(sum[i] / total);                                                                        \
            }                                                                                                                              \
        }                                                                                                                                  \
        return 0;                                                                                                                          \
    }

DEFINE(float32, float32_size)
DEFINE(bfloat16, half_size)
DEFINE(float16, half_size)
DEFINE(int8, int8_size)
DEFINE(int4, int4_size)

/* Nesterov momentum as protocol/averaging/outer_step.py defines it, in one pass over memory instead of six. */
KERNEL int outer_step(const float *anchor, const float *momentum, const float *mean, size_t elements, float rate, float mu,
                      float *restrict out_anchor, float *restrict out_momentum)
{
    for (size_t i = 0; i < elements; i++) {
        float next = momentum[i] * mu + mean[i];
        float step = (next * mu + mean[i]) * rate;
        out_momentum[i] = next;
        out_anchor[i] = anchor[i] - step;
    }
    return 0;
}

int kernel_revision(void) { return 3; } /* The same as REVISION in kernel.py. Change both when the results change. */
