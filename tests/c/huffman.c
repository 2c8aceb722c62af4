/* ext/huffman.h: the examples of RFC 7541 appendix C, every byte and pair of bytes there and back, padding, and nothing touched outside. */
#define _GNU_SOURCE
#include "huffman.h"

#include "guard.h"

static unsigned char expected[4096];

static size_t from_hex(const char *text)
{
    size_t n = 0;
    for (; text[2 * n]; n++) {
        unsigned value;
        CHECK(sscanf(text + 2 * n, "%2x", &value) == 1, "%s", text);
        expected[n] = (unsigned char)value;
    }
    return n;
}

/* Encode and decode; both the input and, for the encoder, the output end where memory ends. */
static void check_round_trip(const char *text, size_t n)
{
    static char encoded[8192], decoded[8192], copy[4096];
    memcpy(copy, text, n);
    const size_t size = soth_huffman_encoded_size(at_end(copy, n), n);
    CHECK(size <= guard_size, "%zu", size);
    soth_huffman_encode(copy, n, guard_page + guard_size - size);
    memcpy(encoded, guard_page + guard_size - size, size);
    soth_huffman_encode(at_end(copy, n), n, encoded);
    const ptrdiff_t back = soth_huffman_decode(at_end(encoded, size), size, decoded);
    CHECK(back == (ptrdiff_t)n, "%td bytes came back of %zu", back, n);
    CHECK(!memcmp(decoded, copy, n), "other bytes came back");
    CHECK((size_t)back < soth_huffman_decoded_room(size), "no room for what is written in passing");
}

static void check_vector(const char *text, const char *hex)
{
    static char out[4096];
    const size_t n = from_hex(hex);
    CHECK(soth_huffman_encoded_size(text, strlen(text)) == n, "%s", text);
    soth_huffman_encode(text, strlen(text), out);
    CHECK(!memcmp(out, expected, n), "%s", text);
    CHECK(soth_huffman_decode(at_end(expected, n), n, out) == (ptrdiff_t)strlen(text), "%s", text);
    CHECK(!memcmp(out, text, strlen(text)), "%s", text);
}

static void check_malformed(const char *hex, const char *why)
{
    static char out[4096];
    const size_t n = from_hex(hex);
    CHECK(soth_huffman_decode(at_end(expected, n), n, out) == SOTH_HUFFMAN_MALFORMED, "%s: %s", hex, why);
}

/* The most that a string may come to: written to room that ends where memory ends. */
static void check_room(void)
{
    static char zeros[64], encoded[64];
    memset(zeros, '0', sizeof zeros); /* the code of '0' is five zero bits */
    const size_t size = soth_huffman_encoded_size(zeros, sizeof zeros);
    soth_huffman_encode(zeros, sizeof zeros, encoded);
    for (size_t n = 0; n <= size; n++) {
        const size_t room = soth_huffman_decoded_room(n);
        const ptrdiff_t written = soth_huffman_decode(encoded, n, guard_page + guard_size - room);
        CHECK(written == SOTH_HUFFMAN_MALFORMED || (size_t)written < room, "%zu", n);
    }
}

int main(void)
{
    static char text[512];
    unsigned random = 1;
    guard_open();
    soth_huffman_prepare();
    CHECK(soth_huffman_code[SOTH_HUFFMAN_EOS] == 0x3fffffff, "EOS");
    CHECK(soth_huffman_code['0'] == 0 && soth_huffman_code['~'] == 0x1ffd && soth_huffman_code[255] == 0x3ffffee, "codes");

    check_vector("", "");
    check_vector("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff");
    check_vector("no-cache", "a8eb10649cbf");
    check_vector("custom-key", "25a849e95ba97d7f");
    check_vector("custom-value", "25a849e95bb8e8b4bf");
    check_vector("302", "6402");
    check_vector("private", "aec3771a4b");
    check_vector("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff");
    check_vector("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                 "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007");

    for (int a = 0; a < 256; a++) {
        text[0] = (char)a;
        check_round_trip(text, 1);
        for (int b = 0; b < 256; b++) {
            text[1] = (char)b;
            check_round_trip(text, 2);
        }
    }
    for (int round = 0; round < 20000; round++) {
        const size_t n = (size_t)round % sizeof text;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525u + 1013904223u;
            text[i] = (char)(round & 1 ? random >> 24 : 32 + (random >> 24) % 95);
        }
        check_round_trip(text, n);
    }

    check_malformed("ff", "eight bits of padding");
    check_malformed("1fff", "a whole byte of padding behind `a`");
    check_malformed("18", "padding of zeros behind `a`");
    check_malformed("1e", "padding that is not all ones");
    check_malformed("ffffffff", "EOS");
    check_malformed("1ffffffff8", "EOS behind `a`");
    check_malformed("ffffff", "a code cut short");
    check_malformed("fe", "a code cut short at its seventh bit");
    CHECK(soth_huffman_decode(at_end("\x1f", 1), 1, text) == 1 && text[0] == 'a', "three bits of padding");
    check_room();
    return 0;
}
