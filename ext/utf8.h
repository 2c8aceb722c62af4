/* UTF-8 (RFC 3629 section 4), checked piece by piece: no surrogates, no overlong forms, nothing over U+10FFFF. */
#ifndef SOTH_UTF8_H
#define SOTH_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What may come next. A text may end at SOTH_UTF8_BORDER only; SOTH_UTF8_WRONG stays. */
enum {
    SOTH_UTF8_BORDER = 0,    /* a character */
    SOTH_UTF8_ONE = 1,       /* one more octet of this character, */
    SOTH_UTF8_TWO = 2,       /* two, */
    SOTH_UTF8_THREE = 3,     /* three; the next is 80 to BF */
    SOTH_UTF8_BEHIND_E0 = 4, /* two, the next is A0 to BF: else overlong */
    SOTH_UTF8_BEHIND_ED = 5, /* two, the next is 80 to 9F: else a surrogate */
    SOTH_UTF8_BEHIND_F0 = 6, /* three, the next is 90 to BF: else overlong */
    SOTH_UTF8_BEHIND_F4 = 7, /* three, the next is 80 to 8F: else over U+10FFFF */
    SOTH_UTF8_WRONG = 8
};

/* What follows an octet that begins a character: C0 to FF, in order. */
static const uint8_t soth_utf8_first[64] = {
    8, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* C0, C1 are overlong */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* D0 */
    4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 5, 2, 2, /* E0 */
    6, 3, 3, 3, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, /* F0 */
};

/* What follows 80 to 8F, 90 to 9F, A0 to AF and B0 to BF in each of the states that wait for them. */
static const uint8_t soth_utf8_next[8][4] = {
    {8, 8, 8, 8}, /* at a border none of them may stand */
    {0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {8, 8, 1, 1}, {1, 1, 8, 8}, {8, 2, 2, 2}, {2, 8, 8, 8},
};

/* The first octet from p on that is not ASCII, or `end`. */
static inline const char *soth_utf8_ascii(const char *p, const char *end)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t a, b, c, d;
    for (; end - p >= 32; p += 32) {
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        memcpy(&c, p + 16, 8);
        memcpy(&d, p + 24, 8);
        if ((a | b | c | d) & high)
            break;
    }
    for (; end - p >= 8; p += 8) {
        memcpy(&a, p, 8);
        if (a & high)
            break;
    }
    while (p < end && (uint8_t)*p < 0x80)
        p++;
    return p;
}

/* The state behind the n octets at p, which follow what led to `state`; SOTH_UTF8_WRONG from the first octet on that no text has there. */
static inline unsigned soth_utf8(unsigned state, const char *p, size_t n)
{
    const char *const end = p + n;
    while (p < end && state != SOTH_UTF8_WRONG) {
        const uint8_t octet = (uint8_t)*p++;
        if (state == SOTH_UTF8_BORDER) {
            if (octet < 0x80)
                p = soth_utf8_ascii(p, end);
            else
                state = octet < 0xc0 ? SOTH_UTF8_WRONG : soth_utf8_first[octet - 0xc0];
        } else {
            state = (octet & 0xc0) == 0x80 ? soth_utf8_next[state][octet >> 4 & 3] : SOTH_UTF8_WRONG;
        }
    }
    return state;
}

/* How many of the n octets at p are whole characters, if a text that was right so far is cut there in `state`. */
static inline size_t soth_utf8_whole(unsigned state, const char *p, size_t n)
{
    if (state == SOTH_UTF8_BORDER)
        return n;
    while (n > 0 && ((uint8_t)p[n - 1] & 0xc0) == 0x80)
        n--;
    return n > 0 ? n - 1 : 0;
}

#endif
