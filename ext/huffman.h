/* The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B): sizes, encoding, decoding.
 *
 * The code is canonical: symbols of one length have consecutive codes in ascending order, so the 257 lengths say all. The tables are made
 * from them once by soth_huffman_prepare(), which is to be called before anything else and from one thread; afterwards they are constant. */
#ifndef SOTH_HUFFMAN_H
#define SOTH_HUFFMAN_H

#include <stddef.h>
#include <stdint.h>

enum {
    SOTH_HUFFMAN_SYMBOLS = 257, /* the bytes, and EOS */
    SOTH_HUFFMAN_EOS = 256,
    SOTH_HUFFMAN_LONGEST = 30,
    SOTH_HUFFMAN_SHORTEST = 5,
    SOTH_HUFFMAN_WINDOW = 12, /* codes of so many bits, or two that fit together, are found by one look */
    SOTH_HUFFMAN_MALFORMED = -1
};

static const uint8_t soth_huffman_length[SOTH_HUFFMAN_SYMBOLS] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10,
    13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,
    15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30};

typedef struct {
    uint8_t first;      /* the symbol whose code the window begins with */
    uint8_t second;     /* the one behind it, if its code is whole too */
    uint8_t first_bits; /* 0: the first code is longer than the window */
    uint8_t bits;       /* of both; equal to first_bits when there is one only */
} SothHuffmanEntry;

static uint32_t soth_huffman_code[SOTH_HUFFMAN_SYMBOLS];
static SothHuffmanEntry soth_huffman_window[1 << SOTH_HUFFMAN_WINDOW];
/* for each length: its first code, how many there are, and where their symbols stand in soth_huffman_order */
static uint32_t soth_huffman_first[SOTH_HUFFMAN_LONGEST + 1];
static uint16_t soth_huffman_count[SOTH_HUFFMAN_LONGEST + 1];
static uint16_t soth_huffman_start[SOTH_HUFFMAN_LONGEST + 1];
static uint16_t soth_huffman_order[SOTH_HUFFMAN_SYMBOLS];

/* The symbol whose code the `bits` lowest bits of `code` begin with, and the length of that code; -1 when they begin with none. */
static inline int soth_huffman_find(uint32_t code, int bits, int *length)
{
    for (int n = SOTH_HUFFMAN_SHORTEST; n <= bits; n++) {
        const uint32_t at = (code >> (bits - n)) - soth_huffman_first[n];
        if (at < soth_huffman_count[n]) {
            *length = n;
            return soth_huffman_order[soth_huffman_start[n] + at];
        }
    }
    return -1;
}

static inline void soth_huffman_prepare(void)
{
    uint32_t code = 0;
    uint16_t place = 0;
    for (int n = 1; n <= SOTH_HUFFMAN_LONGEST; n++) {
        code <<= 1;
        soth_huffman_first[n] = code;
        soth_huffman_start[n] = place;
        soth_huffman_count[n] = 0;
        for (int symbol = 0; symbol < SOTH_HUFFMAN_SYMBOLS; symbol++) {
            if (soth_huffman_length[symbol] != n)
                continue;
            soth_huffman_code[symbol] = code++;
            soth_huffman_order[place++] = (uint16_t)symbol;
            soth_huffman_count[n]++;
        }
    }
    for (uint32_t window = 0; window < 1u << SOTH_HUFFMAN_WINDOW; window++) {
        SothHuffmanEntry *entry = &soth_huffman_window[window];
        int first_bits = 0, second_bits = 0;
        const int first = soth_huffman_find(window, SOTH_HUFFMAN_WINDOW, &first_bits);
        *entry = (SothHuffmanEntry){0, 0, 0, 0};
        if (first < 0)
            continue;
        const int left = SOTH_HUFFMAN_WINDOW - first_bits;
        const int second = soth_huffman_find(window & ((1u << left) - 1), left, &second_bits);
        *entry = (SothHuffmanEntry){(uint8_t)first, second < 0 ? 0 : (uint8_t)second, (uint8_t)first_bits,
                                    (uint8_t)(second < 0 ? first_bits : first_bits + second_bits)};
    }
}

/* How many bytes the n bytes at p take when they are encoded. */
static inline size_t soth_huffman_encoded_size(const char *p, size_t n)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits += soth_huffman_length[(uint8_t)p[i]];
    return (size_t)((bits + 7) / 8);
}

/* Write the code of the n bytes at p to `out`, which has room for soth_huffman_encoded_size(p, n) bytes. The last byte is filled up with
 * the beginning of EOS, ones. */
static inline void soth_huffman_encode(const char *p, size_t n, char *out)
{
    uint64_t held = 0;
    int bits = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t symbol = (uint8_t)p[i];
        held = held << soth_huffman_length[symbol] | soth_huffman_code[symbol];
        bits += soth_huffman_length[symbol];
        while (bits >= 8) {
            bits -= 8;
            *out++ = (char)(uint8_t)(held >> bits);
        }
    }
    if (bits)
        *out = (char)(uint8_t)(held << (8 - bits) | 0xffu >> bits);
}

/* How many bytes the n encoded bytes at p can come to, at most; one more is written to in passing and belongs to the room that `out` of
 * soth_huffman_decode must have. */
static inline size_t soth_huffman_decoded_room(size_t n)
{
    return n * 8 / SOTH_HUFFMAN_SHORTEST + 2;
}

/* Decode the n bytes at p to `out`; how many bytes that were. SOTH_HUFFMAN_MALFORMED: EOS in the string, more than seven bits of padding,
 * or padding that is not all ones. */
static inline ptrdiff_t soth_huffman_decode(const char *p, size_t n, char *out)
{
    const char *const end = p + n;
    char *const begin = out;
    uint64_t held = 0; /* the next bits, highest first; below them zeros */
    int bits = 0;
    for (;;) {
        while (bits <= 56 && p < end) {
            held |= (uint64_t)(uint8_t)*p++ << (56 - bits);
            bits += 8;
        }
        const SothHuffmanEntry entry = soth_huffman_window[held >> (64 - SOTH_HUFFMAN_WINDOW)];
        if (entry.first_bits && entry.bits <= bits) {
            out[0] = (char)entry.first;
            out[1] = (char)entry.second;
            out += 1 + (entry.bits > entry.first_bits);
            held <<= entry.bits;
            bits -= entry.bits;
            continue;
        }
        if (entry.first_bits && entry.first_bits <= bits) {
            *out++ = (char)entry.first;
            held <<= entry.first_bits;
            bits -= entry.first_bits;
            continue;
        }
        if (!entry.first_bits && bits > SOTH_HUFFMAN_WINDOW) {
            int length = 0;
            const int limit = bits < SOTH_HUFFMAN_LONGEST ? bits : SOTH_HUFFMAN_LONGEST;
            const int symbol = soth_huffman_find((uint32_t)(held >> (64 - limit)), limit, &length);
            if (symbol == SOTH_HUFFMAN_EOS)
                return SOTH_HUFFMAN_MALFORMED;
            if (symbol >= 0) {
                *out++ = (char)(uint8_t)symbol;
                held <<= length;
                bits -= length;
                continue;
            }
        }
        break;
    }
    if (bits > 7 || (bits && held >> (64 - bits) != (1u << bits) - 1))
        return SOTH_HUFFMAN_MALFORMED;
    return out - begin;
}

#endif
