/* ext/scan.h: each vector version against its scalar one, every byte at every place of every short length, beside unreadable memory. */
#define _GNU_SOURCE
#include "scan.h"

#include "guard.h"

enum { LONGEST = 50 };

typedef size_t finder(const char *, size_t);

static int is_control(uint8_t byte) { return (byte < 0x20 && byte != '\t') || byte == 0x7f; }
static int is_break(uint8_t byte) { return byte == '\r' || byte == '\n' || byte == 0; }
static int is_not_visible(uint8_t byte) { return byte <= 0x20 || byte >= 0x7f; }
static int is_not_token(uint8_t byte)
{
    const int alphanumeric = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    return !alphanumeric && (byte == 0 || !strchr("!#$%&'*+-.^_`|~", byte));
}

/* `filler` is passed over; every byte value stands once at every place of every length. */
static void check_finder(const char *name, finder *find, finder *scalar, int (*stops)(uint8_t), char filler)
{
    char text[LONGEST];
    for (size_t n = 0; n <= LONGEST; n++)
        for (size_t place = 0; place <= n; place++)
            for (int byte = 0; byte < 256; byte++) {
                memset(text, filler, sizeof text);
                if (place < n)
                    text[place] = (char)byte;
                const size_t expected = place < n && stops((uint8_t)byte) ? place : n;
                CHECK(find(at_end(text, n), n) == expected, "%s: byte %d at %zu of %zu", name, byte, place, n);
                CHECK(find(at_start(text, n), n) == expected, "%s: byte %d at %zu of %zu", name, byte, place, n);
                CHECK(scalar(at_end(text, n), n) == expected, "%s, scalar: byte %d at %zu of %zu", name, byte, place, n);
            }
}

/* Random bytes, so that several stop in one block of sixteen. */
static void check_random(const char *name, finder *find, finder *scalar, unsigned seed, const char *common)
{
    char text[LONGEST];
    srand(seed);
    for (int round = 0; round < 20000; round++) {
        const size_t n = (size_t)rand() % (LONGEST + 1);
        for (size_t i = 0; i < n; i++)
            text[i] = rand() % 8 ? common[(size_t)rand() % strlen(common)] : (char)(rand() % 256);
        CHECK(find(at_end(text, n), n) == scalar(at_start(text, n), n), "%s: round %d", name, round);
    }
}

static void check_comparing(void)
{
    CHECK(soth_equals_lower(at_end("Content-Length", 14), "content-length", 14), "mixed case");
    CHECK(!soth_equals_lower(at_end("Content\rLength", 14), "content-length", 14), "0x0d is no lower-case 0x2d");
    CHECK(!soth_equals_lower(at_end("contenT_length", 14), "content-length", 14), "another byte");
    CHECK(soth_equals_lower(at_end("", 0), "", 0), "nothing equals nothing");
    for (int one = 0; one < 256; one++)
        for (int other = 0; other < 256; other++) {
            const char a = (char)one, b = (char)other;
            const int letters = (one | 0x20) == (other | 0x20) && (one | 0x20) >= 'a' && (one | 0x20) <= 'z';
            CHECK(soth_equals_fold(&a, &b, 1) == (one == other || letters), "bytes %d and %d", one, other);
        }
}

static ptrdiff_t block_end(const char *text, size_t n, int loose, int by_byte)
{
    size_t scanned = 0;
    ptrdiff_t end = SOTH_END_MORE;
    for (size_t seen = by_byte ? 0 : n; seen <= n && end == SOTH_END_MORE; seen++) {
        end = soth_find_block_end(at_end(text, seen), seen, loose, &scanned);
        CHECK(scanned <= seen, "scanned is ahead of what was seen");
    }
    return end;
}

static void check_block_end(void)
{
    static const struct {
        const char *text;
        ptrdiff_t end;
    } cases[] = {
        {"", SOTH_END_MORE}, {"\r", SOTH_END_MORE}, {"\r\n", 2}, {"\r\nrest", 2}, {"a\r\n", SOTH_END_MORE}, {"a\r\n\r", SOTH_END_MORE},
        {"a\r\n\r\n", 5}, {"a\r\n\r\n\r\n", 5}, {"a: b\r\nc: d\r\n\r\nrest\n", 14}, {"a\n", SOTH_END_BARE_LF}, {"\n", SOTH_END_BARE_LF},
        {"a\r\n\n", SOTH_END_BARE_LF}, {"a\rb", SOTH_END_BARE_CR}, {"\r\r\n", SOTH_END_BARE_CR}, {"a\r\n\r\r\n", SOTH_END_BARE_CR},
        {"a\x01", SOTH_END_CONTROL}, {"a\x7f\r\n\r\n", SOTH_END_CONTROL}, {"a\tb\r\n\r\n", 7}, {"a: \xff\x80\r\n\r\n", 9},
        {"a long line of more than sixteen bytes\r\nand another one, as long as it\r\n\r\n", 74},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int by_byte = 0; by_byte < 2; by_byte++) {
            const ptrdiff_t end = block_end(cases[i].text, strlen(cases[i].text), 0, by_byte);
            CHECK(end == cases[i].end, "case %zu, by byte %d: %td", i, by_byte, end);
            if (cases[i].end != SOTH_END_CONTROL) {
                const ptrdiff_t loose = block_end(cases[i].text, strlen(cases[i].text), 1, by_byte);
                CHECK(loose == cases[i].end, "case %zu, loose, by byte %d: %td", i, by_byte, loose);
            }
        }
    for (int loose = 0; loose < 2; loose++)
        CHECK(block_end("a\0\r\n\r\n", 6, loose, 0) == SOTH_END_CONTROL, "NUL");
    CHECK(block_end("a\x01\x7f\x1f\v\r\n\r\n", 9, 1, 0) == 9, "control bytes in a loose block");
}

int main(void)
{
    guard_open();
    check_finder("control", soth_find_control, soth_find_control_scalar, is_control, 'x');
    check_finder("control", soth_find_control, soth_find_control_scalar, is_control, (char)0xff);
    check_finder("control", soth_find_control, soth_find_control_scalar, is_control, '\t');
    check_finder("break", soth_find_break, soth_find_break_scalar, is_break, 'x');
    check_finder("break", soth_find_break, soth_find_break_scalar, is_break, '\x01');
    check_finder("not visible", soth_find_not_visible, soth_find_not_visible_scalar, is_not_visible, '/');
    check_finder("not token", soth_find_not_token, soth_find_not_token_scalar, is_not_token, 'a');
    check_finder("not token", soth_find_not_token, soth_find_not_token_scalar, is_not_token, '_');
    for (int byte = 0; byte < 256; byte++) {
        const char name[] = {'a', (char)byte, '-'};
        CHECK(soth_is_lower_token(name, 3) == (!is_not_token((char)byte) && !(byte >= 'A' && byte <= 'Z')), "a lower-case token");
    }
    CHECK(!soth_is_lower_token("", 0), "no name is no token");
    check_random("control", soth_find_control, soth_find_control_scalar, 1, "abc \t\xe9");
    check_random("break", soth_find_break, soth_find_break_scalar, 4, "abc \t\x01\xe9");
    check_random("not visible", soth_find_not_visible, soth_find_not_visible_scalar, 2, "/abc?=~!");
    check_random("not token", soth_find_not_token, soth_find_not_token_scalar, 3, "aZ09-_!|");
    for (int byte = 0; byte < 256; byte++)
        CHECK(soth_is_token_byte((char)byte) == !is_not_token((uint8_t)byte), "byte %d", byte);
    check_comparing();
    check_block_end();
    return 0;
}
