/* Looking at many bytes at once: where a control byte, a line or a head ends, what is a token, what compares equal.
 *
 * Every soth_find_* returns an index, `n` when there is no such byte, and reads nothing outside [p, p + n). The *_scalar functions say what
 * is meant; the vector versions behind the plain names do the same sixteen bytes at a time (SSE2 on x86-64, NEON on arm64). */
#ifndef SOTH_SCAN_H
#define SOTH_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(SOTH_SCALAR_ONLY)
#elif defined(__SSE2__) || defined(_M_X64)
#define SOTH_SSE2 1
#include <emmintrin.h>
#elif defined(__ARM_NEON) || defined(_M_ARM64)
#define SOTH_NEON 1
#include <arm_neon.h>
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

/* tchar of RFC 9110 section 5.6.2 */
static const uint8_t soth_token_table[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,
    ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1,
    ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};

static inline uint8_t soth_lower(uint8_t byte)
{
    return (uint8_t)(byte - 'A') < 26 ? (uint8_t)(byte | 0x20) : byte;
}

static inline int soth_is_token_byte(char byte) { return soth_token_table[(uint8_t)byte]; }

/* ---- sixteen bytes: a mask with the bits of the matching bytes set, lowest first; SOTH_FIRST is the index of the lowest ---- */

#if defined(SOTH_SSE2)

typedef unsigned soth_mask;

static inline size_t soth_first(soth_mask mask)
{
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long index;
    _BitScanForward(&index, mask);
    return index;
#else
    return (size_t)__builtin_ctz(mask);
#endif
}

static inline soth_mask soth_control16(const char *p)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    const __m128i bad = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), low);
    return (soth_mask)_mm_movemask_epi8(_mm_or_si128(bad, _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
}

static inline soth_mask soth_break16(const char *p)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\r')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\n')));
    return (soth_mask)_mm_movemask_epi8(_mm_or_si128(ends, _mm_cmpeq_epi8(v, _mm_setzero_si128())));
}

static inline soth_mask soth_not_visible16(const char *p)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p); /* signed: 0x80 and up are below ' ' */
    const __m128i good = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)), _mm_cmpgt_epi8(v, _mm_set1_epi8(' ')));
    return (soth_mask)_mm_movemask_epi8(good) ^ 0xffffu;
}

/* letters, digits and '-': what nearly every field name is made of */
static inline soth_mask soth_not_common16(const char *p)
{
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i lower = _mm_or_si128(v, _mm_set1_epi8(0x20));
    const __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)), _mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
    const __m128i digit = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)), _mm_cmplt_epi8(v, _mm_set1_epi8('9' + 1)));
    const __m128i dash = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));
    return (soth_mask)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(letter, digit), dash)) ^ 0xffffu;
}

#elif defined(SOTH_NEON)

typedef uint64_t soth_mask; /* four bits for each byte */

static inline size_t soth_first(soth_mask mask)
{
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long index;
    _BitScanForward64(&index, mask);
    return index >> 2;
#else
    return (size_t)__builtin_ctzll(mask) >> 2;
#endif
}

static inline soth_mask soth_neon_mask(uint8x16_t matches)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(matches), 4)), 0);
}

static inline soth_mask soth_control16(const char *p)
{
    const uint8x16_t v = vld1q_u8((const uint8_t *)p);
    const uint8x16_t low = vbicq_u8(vcleq_u8(v, vdupq_n_u8(0x1f)), vceqq_u8(v, vdupq_n_u8('\t')));
    return soth_neon_mask(vorrq_u8(low, vceqq_u8(v, vdupq_n_u8(0x7f))));
}

static inline soth_mask soth_break16(const char *p)
{
    const uint8x16_t v = vld1q_u8((const uint8_t *)p);
    const uint8x16_t ends = vorrq_u8(vceqq_u8(v, vdupq_n_u8('\r')), vceqq_u8(v, vdupq_n_u8('\n')));
    return soth_neon_mask(vorrq_u8(ends, vceqq_u8(v, vdupq_n_u8(0))));
}

static inline soth_mask soth_not_visible16(const char *p)
{
    const uint8x16_t v = vld1q_u8((const uint8_t *)p);
    return soth_neon_mask(vorrq_u8(vcleq_u8(v, vdupq_n_u8(' ')), vcgeq_u8(v, vdupq_n_u8(0x7f))));
}

static inline soth_mask soth_not_common16(const char *p)
{
    const uint8x16_t v = vld1q_u8((const uint8_t *)p);
    const uint8x16_t letter = vcltq_u8(vsubq_u8(vorrq_u8(v, vdupq_n_u8(0x20)), vdupq_n_u8('a')), vdupq_n_u8(26));
    const uint8x16_t digit = vcltq_u8(vsubq_u8(v, vdupq_n_u8('0')), vdupq_n_u8(10));
    return soth_neon_mask(vmvnq_u8(vorrq_u8(vorrq_u8(letter, digit), vceqq_u8(v, vdupq_n_u8('-')))));
}

#endif

/* ---- a control byte, HTAB excepted: all that may never stand in a field value, and every CR and LF ---- */

static inline size_t soth_find_control_scalar(const char *p, size_t n)
{
    size_t i = 0;
    for (; i < n; i++) {
        const uint8_t byte = (uint8_t)p[i];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f)
            break;
    }
    return i;
}

static inline size_t soth_find_control(const char *p, size_t n)
{
    size_t i = 0;
#if defined(SOTH_SSE2) || defined(SOTH_NEON)
    for (; n - i >= 16; i += 16) {
        const soth_mask mask = soth_control16(p + i);
        if (mask)
            return i + soth_first(mask);
    }
#endif
    return i + soth_find_control_scalar(p + i, n - i);
}

/* ---- CR, LF or NUL: what may not even stand in a field value of a response, whose other control bytes pass ---- */

static inline size_t soth_find_break_scalar(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] != '\r' && p[i] != '\n' && p[i] != '\0')
        i++;
    return i;
}

static inline size_t soth_find_break(const char *p, size_t n)
{
    size_t i = 0;
#if defined(SOTH_SSE2) || defined(SOTH_NEON)
    for (; n - i >= 16; i += 16) {
        const soth_mask mask = soth_break16(p + i);
        if (mask)
            return i + soth_first(mask);
    }
#endif
    return i + soth_find_break_scalar(p + i, n - i);
}

/* ---- a byte that is not visible ASCII (0x21 to 0x7e): the end of a request target ---- */

static inline size_t soth_find_not_visible_scalar(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && (uint8_t)p[i] > ' ' && (uint8_t)p[i] < 0x7f)
        i++;
    return i;
}

static inline size_t soth_find_not_visible(const char *p, size_t n)
{
    size_t i = 0;
#if defined(SOTH_SSE2) || defined(SOTH_NEON)
    for (; n - i >= 16; i += 16) {
        const soth_mask mask = soth_not_visible16(p + i);
        if (mask)
            return i + soth_first(mask);
    }
#endif
    return i + soth_find_not_visible_scalar(p + i, n - i);
}

/* ---- a byte that is no tchar: the end of a method or a field name ---- */

static inline size_t soth_find_not_token_scalar(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && soth_token_table[(uint8_t)p[i]])
        i++;
    return i;
}

static inline size_t soth_find_not_token(const char *p, size_t n)
{
    size_t i = 0;
#if defined(SOTH_SSE2) || defined(SOTH_NEON)
    for (; n - i >= 16; i += 16) {
        const soth_mask mask = soth_not_common16(p + i);
        if (mask) {
            i += soth_first(mask);
            break; /* most often the end; if it is one of the rarer tchars, the table goes on from here */
        }
    }
#endif
    return i + soth_find_not_token_scalar(p + i, n - i);
}

/* Are the n bytes at p a token without an upper-case letter, as a field name of HTTP/2 is (RFC 9113 section 8.2)? */
static inline int soth_is_lower_token(const char *p, size_t n)
{
    unsigned good = n != 0;
    for (size_t i = 0; i < n; i++)
        good &= soth_token_table[(uint8_t)p[i]] & (unsigned)((uint8_t)(p[i] - 'A') >= 26);
    return (int)good;
}

/* ---- comparing ---- */

/* Are the n bytes at p, ASCII letters lowered, those at `lower` (which holds no upper-case letter)? */
static inline int soth_equals_lower(const char *p, const char *lower, size_t n)
{
    if (memcmp(p, lower, n) == 0)
        return 1; /* what HTTP/2 always is, and many a name of HTTP/1 */
    for (size_t i = 0; i < n; i++)
        if (soth_lower((uint8_t)p[i]) != (uint8_t)lower[i])
            return 0;
    return 1;
}

/* Are the n bytes at p and q the same, ASCII case apart? */
static inline int soth_equals_fold(const char *p, const char *q, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (soth_lower((uint8_t)p[i]) != soth_lower((uint8_t)q[i]))
            return 0;
    return 1;
}

/* ---- the end of a block of CRLF lines ---- */

enum { SOTH_END_MORE = 0, SOTH_END_BARE_LF = -1, SOTH_END_BARE_CR = -2, SOTH_END_CONTROL = -3 };

/* Find the empty line that ends a head or a trailer section. > 0: its end, the final CRLF included (2 when the block is that line alone);
 * SOTH_END_MORE: not here yet; else the first byte that may stand in no such block, which in a `loose` one is a NUL or half a line end only.
 * `scanned` is 0 at first and is kept between calls on the same growing block: bytes before it are looked at no more than once again. */
static inline ptrdiff_t soth_find_block_end(const char *p, size_t n, int loose, size_t *scanned)
{
    size_t i = *scanned;
    for (;;) {
        i += loose ? soth_find_break(p + i, n - i) : soth_find_control(p + i, n - i);
        if (i == n)
            break;
        if (p[i] != '\r')
            return p[i] == '\n' ? SOTH_END_BARE_LF : SOTH_END_CONTROL;
        if (i + 1 == n)
            break;
        if (p[i + 1] != '\n')
            return SOTH_END_BARE_CR;
        if (i == 0 || p[i - 1] == '\n')
            return (ptrdiff_t)(i + 2);
        i += 2;
    }
    *scanned = i;
    return SOTH_END_MORE;
}

#endif
