/* ext/many_strings.h against a search that tries each string at each place: at both borders of memory, at every length, and split anywhere. */
#define _GNU_SOURCE
#include "many_strings.h"

#include "guard.h"

enum { LONGEST = 48, SETS = 400, TEXTS = 40, MOST = 6 };

static soth_string strings[MOST];
static char texts[MOST][LONGEST];
static soth_strings all;
static unsigned long state = 88172645463325252UL;

/* Xorshift: the same in each run. */
static unsigned long next_number(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Few letters, so that beginnings, overlaps and repetitions are frequent. */
static void fill(char *to, size_t n, unsigned letters)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)('a' + next_number() % letters);
}

static int slow_find(const char *data, size_t n, int is_end, size_t *at, size_t *which)
{
    for (size_t start = 0; start < n; start++) {
        size_t best = 0;
        int held = 0;
        for (size_t i = 0; i < all.count; i++) {
            const size_t here = n - start < strings[i].length ? n - start : strings[i].length;
            if (memcmp(strings[i].text, data + start, here))
                continue;
            if (here < strings[i].length)
                held = held || !is_end;
            else if (strings[i].length > best) {
                best = strings[i].length;
                *which = i;
            }
        }
        *at = start;
        if (held)
            return SOTH_STRINGS_HELD;
        if (best)
            return SOTH_STRINGS_FOUND;
    }
    return SOTH_STRINGS_NONE;
}

static void check(const char *data, size_t n, int is_end)
{
    size_t at = 0, which = 0, slow_at = 0, slow_which = 0;
    const int result = soth_strings_find(&all, data, n, is_end, &at, &which);
    const int expected = slow_find(data, n, is_end, &slow_at, &slow_which);
    CHECK(result == expected, "%d and not %d in %.*s", result, expected, (int)n, data);
    if (result != SOTH_STRINGS_NONE)
        CHECK(at == slow_at, "at %zu and not %zu in %.*s", at, slow_at, (int)n, data);
    if (result == SOTH_STRINGS_FOUND)
        CHECK(strings[which].length == strings[slow_which].length, "another one in %.*s", (int)n, data);
}

/* A text of which a part is one of the strings, now and then. */
static void make_text(char *text, size_t n, unsigned letters)
{
    fill(text, n, letters);
    const soth_string *one = &strings[next_number() % all.count];
    if (one->length <= n && next_number() % 2)
        memcpy(text + next_number() % (n - one->length + 1), one->text, one->length);
}

int main(void)
{
    static char text[3 * LONGEST];
    guard_open();
    for (unsigned set = 0; set < SETS; set++) {
        const unsigned letters = 2 + set % 5;
        const size_t count = 1 + next_number() % MOST;
        for (size_t i = 0; i < count; i++) {
            strings[i].length = SOTH_STRINGS_SHORTEST + next_number() % (LONGEST - SOTH_STRINGS_SHORTEST);
            strings[i].text = texts[i];
            fill(texts[i], strings[i].length, letters);
            /* now and then a longer or shorter form of the one before */
            if (i && next_number() % 3 == 0)
                memcpy(texts[i], texts[i - 1], strings[i].length < strings[i - 1].length ? strings[i].length : strings[i - 1].length);
        }
        soth_strings_prepare(&all, strings, count);
        for (unsigned round = 0; round < TEXTS; round++) {
            const size_t n = next_number() % (sizeof text + 1);
            make_text(text, n, letters);
            for (int is_end = 0; is_end < 2; is_end++) {
                check(at_end(text, n), n, is_end);
                check(at_start(text, n), n, is_end);
            }
        }
    }
    /* one string that is longer than a skip can say */
    static char lengthy[700], haystack[2000];
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[699] = 'y';
    memset(haystack, 'z', sizeof haystack);
    strings[0].text = lengthy;
    strings[0].length = sizeof lengthy;
    soth_strings_prepare(&all, strings, 1);
    for (size_t place = 0; place <= sizeof haystack - sizeof lengthy; place += 13) {
        memset(haystack, 'z', sizeof haystack);
        memcpy(haystack + place, lengthy, sizeof lengthy);
        check(at_end(haystack, sizeof haystack), sizeof haystack, 0);
        check(at_end(haystack, place + 300), place + 300, 0);
    }
    return 0;
}
