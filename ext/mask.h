/* The masking of WebSocket payload (RFC 6455 section 5.3): XOR with a key of four octets, over and over. */
#ifndef SOTH_MASK_H
#define SOTH_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The key as it applies from octet `phase` (0 to 3) of the payload on, as a number whose octets in memory are the key's. */
static inline uint32_t soth_mask_word(const char *key, unsigned phase)
{
    char turned[4];
    uint32_t word;
    if (phase == 0) {
        memcpy(&word, key, 4);
        return word;
    }
    for (unsigned i = 0; i < 4; i++)
        turned[i] = key[(phase + i) & 3];
    memcpy(&word, turned, 4);
    return word;
}

/* Mask or unmask the n octets at `in` to `out`, which is `in` or does not overlap it. `phase` (0 to 3) is how many octets of the key the
 * payload before them has used; the answer is the phase behind them. Neither pointer needs an alignment. */
static inline unsigned soth_mask(char *out, const char *in, size_t n, const char *key, unsigned phase)
{
    const uint32_t half = soth_mask_word(key, phase);
    const uint64_t word = (uint64_t)half << 32 | half;
    const char *const end = in + n;
    uint64_t a, b, c, d;
    for (; end - in >= 32; in += 32, out += 32) {
        memcpy(&a, in, 8);
        memcpy(&b, in + 8, 8);
        memcpy(&c, in + 16, 8);
        memcpy(&d, in + 24, 8);
        a ^= word;
        b ^= word;
        c ^= word;
        d ^= word;
        memcpy(out, &a, 8);
        memcpy(out + 8, &b, 8);
        memcpy(out + 16, &c, 8);
        memcpy(out + 24, &d, 8);
    }
    for (; end - in >= 8; in += 8, out += 8) {
        memcpy(&a, in, 8);
        a ^= word;
        memcpy(out, &a, 8);
    }
    if (end - in >= 4) {
        uint32_t four;
        memcpy(&four, in, 4);
        four ^= half;
        memcpy(out, &four, 4);
        in += 4;
        out += 4;
    }
    /* all steps so far were whole keys */
    for (unsigned at = phase; in < end; at++)
        *out++ = (char)(*in++ ^ key[at & 3]);
    return (unsigned)((phase + n) & 3);
}

#endif
