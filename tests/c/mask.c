/* ext/mask.h: every length, phase and alignment of either side against a loop over octets, in place too, split anywhere, and nothing
 * touched outside. */
#define _GNU_SOURCE
#include "mask.h"

#include "guard.h"

enum { LONGEST = 140 };

static const char key[4] = {(char)0x9f, 0x00, 0x55, (char)0xff};
static char source[LONGEST], expected[LONGEST], out[LONGEST + 16];

static void expect(size_t n, unsigned phase)
{
    for (size_t i = 0; i < n; i++)
        expected[i] = (char)(source[i] ^ key[(phase + i) % 4]);
}

/* Input and output at every alignment; what stands around the output stays. */
static void check_alignments(size_t n, unsigned phase)
{
    char input[LONGEST + 8];
    for (size_t from = 0; from < 8; from++) {
        memcpy(input + from, source, n);
        for (size_t to = 1; to < 9; to++) {
            memset(out, 0x5a, sizeof out);
            const unsigned behind = soth_mask(out + to, input + from, n, key, phase);
            CHECK(behind == (phase + n) % 4, "length %zu, phase %u", n, phase);
            CHECK(!memcmp(out + to, expected, n), "length %zu, phase %u, from %zu, to %zu", n, phase, from, to);
            CHECK(out[to - 1] == 0x5a && out[to + n] == 0x5a, "length %zu: written outside", n);
        }
    }
}

/* Read up to where memory ends, and write up to there, in place. */
static void check_borders(size_t n, unsigned phase)
{
    soth_mask(out, at_end(source, n), n, key, phase);
    CHECK(!memcmp(out, expected, n), "length %zu, phase %u", n, phase);
    soth_mask(out, at_start(source, n), n, key, phase);
    CHECK(!memcmp(out, expected, n), "length %zu, phase %u", n, phase);
    char *place = guard_page + guard_size - n;
    memcpy(place, source, n);
    soth_mask(place, place, n, key, phase);
    CHECK(!memcmp(place, expected, n), "in place, length %zu, phase %u", n, phase);
    soth_mask(guard_page, at_start(source, n), n, key, phase);
    CHECK(!memcmp(guard_page, expected, n), "in place at the start, length %zu, phase %u", n, phase);
}

/* In two pieces, with the phase that the first leaves. */
static void check_splits(size_t n, unsigned phase)
{
    for (size_t cut = 0; cut <= n; cut++) {
        const unsigned middle = soth_mask(out, source, cut, key, phase);
        const unsigned behind = soth_mask(out + cut, source + cut, n - cut, key, middle);
        CHECK(behind == (phase + n) % 4, "length %zu, cut %zu", n, cut);
        CHECK(!memcmp(out, expected, n), "length %zu, phase %u, cut %zu", n, phase, cut);
    }
}

int main(void)
{
    guard_open();
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (char)(i * 37 + 11);
    for (size_t n = 0; n <= LONGEST; n++) {
        for (unsigned phase = 0; phase < 4; phase++) {
            expect(n, phase);
            check_alignments(n, phase);
            check_borders(n, phase);
            check_splits(n, phase);
        }
    }
    return 0;
}
