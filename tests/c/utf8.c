/* ext/utf8.h: every character and every sequence of up to four octets against the rule of RFC 3629 written as numbers, runs of ASCII of
 * every length with a wrong octet at every place, splits, and nothing read outside. */
#define _GNU_SOURCE
#include "utf8.h"

#include "guard.h"

/* The length of the character that the n octets begin with, as its number says: shortest form, no surrogate, at most 10FFFF. 0: none. */
static size_t character(const unsigned char *p, size_t n)
{
    const size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    static const unsigned long least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (length == 0 || length > n)
        return 0;
    unsigned long number = length == 1 ? p[0] : p[0] & (0x7f >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        number = number << 6 | (p[i] & 0x3f);
    }
    if (number < least[length] || number > 0x10ffff || number >> 11 == 0x1b)
        return 0;
    return length;
}

static int is_text(const unsigned char *p, size_t n)
{
    while (n > 0) {
        const size_t length = character(p, n);
        if (length == 0)
            return 0;
        p += length;
        n -= length;
    }
    return 1;
}

static void check_octets(const unsigned char *p, size_t n)
{
    const unsigned state = soth_utf8(SOTH_UTF8_BORDER, (const char *)p, n);
    CHECK((state == SOTH_UTF8_BORDER) == is_text(p, n), "%02x %02x %02x %02x, %zu of them: %u", p[0], p[1], p[2], p[3], n, state);
    unsigned bytewise = SOTH_UTF8_BORDER;
    for (size_t i = 0; i < n; i++)
        bytewise = soth_utf8(bytewise, (const char *)p + i, 1);
    CHECK(bytewise == state, "%02x %02x %02x %02x, %zu of them, one by one", p[0], p[1], p[2], p[3], n);
}

/* What is not wrong yet can become a text, and what is wrong cannot: with the octets that close each state best. */
static void check_hope(const unsigned char *p, size_t n)
{
    static const unsigned char last[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
    unsigned char tried[8];
    int hope = is_text(p, n);
    memcpy(tried, p, n);
    for (size_t more = 1; more <= 3 && !hope; more++)
        for (size_t i = 0; i < sizeof last && !hope; i++) {
            memset(tried + n, 0x80, more);
            tried[n] = last[i];
            hope = is_text(tried, n + more);
        }
    const unsigned state = soth_utf8(SOTH_UTF8_BORDER, (const char *)p, n);
    CHECK((state != SOTH_UTF8_WRONG) == hope, "%02x %02x %02x, %zu of them: %u", p[0], p[1], p[2], n, state);
}

static void check_sequences(void)
{
    /* of the octets that do not begin with the same bits, the borders between the rules and what stands beside them */
    static const unsigned char octets[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
                                           0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    unsigned char p[4] = {0, 0, 0, 0};
    for (unsigned a = 0; a < 256; a++) {
        p[0] = (unsigned char)a;
        check_octets(p, 1);
        check_hope(p, 1);
        for (unsigned b = 0; b < 256; b++) {
            p[1] = (unsigned char)b;
            check_octets(p, 2);
            check_hope(p, 2);
            for (size_t c = 0; c < sizeof octets; c++) {
                p[2] = octets[c];
                check_octets(p, 3);
                check_hope(p, 3);
                for (size_t d = 0; d < sizeof octets; d++) {
                    p[3] = octets[d];
                    check_octets(p, 4);
                }
            }
        }
    }
}

/* Runs of ASCII up to where memory ends, at every alignment, with one octet that is wrong, and with a character cut by the end. */
static void check_runs(void)
{
    char text[100];
    for (size_t n = 0; n <= sizeof text; n++) {
        memset(text, 'a', sizeof text);
        CHECK(soth_utf8(SOTH_UTF8_BORDER, at_end(text, n), n) == SOTH_UTF8_BORDER, "%zu", n);
        CHECK(soth_utf8(SOTH_UTF8_BORDER, at_start(text, n), n) == SOTH_UTF8_BORDER, "%zu", n);
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)0x80;
            CHECK(soth_utf8(SOTH_UTF8_BORDER, at_end(text, n), n) == SOTH_UTF8_WRONG, "%zu at %zu", n, i);
            text[i] = (char)0xff;
            CHECK(soth_utf8(SOTH_UTF8_BORDER, at_end(text, n), n) == SOTH_UTF8_WRONG, "%zu at %zu", n, i);
            text[i] = 'a';
        }
        if (n > 2) {
            memcpy(text + n - 3, "\xe2\x82\xac", 3);
            const char *p = at_end(text, n);
            CHECK(soth_utf8(SOTH_UTF8_BORDER, p, n) == SOTH_UTF8_BORDER, "%zu", n);
            CHECK(soth_utf8(SOTH_UTF8_BORDER, p, n - 1) == SOTH_UTF8_ONE, "%zu", n);
            CHECK(soth_utf8(SOTH_UTF8_BORDER, p, n - 2) == SOTH_UTF8_TWO, "%zu", n);
            for (size_t cut = 0; cut <= n; cut++)
                CHECK(soth_utf8(soth_utf8(SOTH_UTF8_BORDER, p, cut), p + cut, n - cut) == SOTH_UTF8_BORDER, "%zu cut at %zu", n, cut);
        }
    }
    CHECK(soth_utf8(SOTH_UTF8_WRONG, "a", 1) == SOTH_UTF8_WRONG, "wrong stays wrong");
    for (unsigned state = 0; state <= SOTH_UTF8_WRONG; state++)
        CHECK(soth_utf8(state, guard_page + guard_size, 0) == state, "nothing changes nothing");
}

static void check_whole(void)
{
    static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80";
    static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    for (size_t n = 0; n < sizeof whole / sizeof *whole; n++) {
        const char *p = at_start(text, n);
        CHECK(soth_utf8_whole(soth_utf8(SOTH_UTF8_BORDER, p, n), p, n) == whole[n], "%zu", n);
    }
    /* the piece may begin within the character that is cut */
    CHECK(soth_utf8_whole(SOTH_UTF8_ONE, at_start("\x9f\x98", 2), 2) == 0, "no first octet");
    CHECK(soth_utf8_whole(SOTH_UTF8_BEHIND_F0, at_start("\xf0", 1), 1) == 0, "the first octet alone");
}

int main(void)
{
    guard_open();
    check_sequences();
    check_runs();
    check_whole();
    return 0;
}
