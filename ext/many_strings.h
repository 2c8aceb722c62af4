/* Searching for many strings at once, in data that comes in pieces (Wu and Manber, with blocks of two octets).
 *
 * The search looks at one block per step and skips as many octets as no string can begin in: the shortest string decides how many. Data
 * that holds none of the strings is passed at several octets per nanosecond. */
#ifndef SOTH_MANY_STRINGS_H
#define SOTH_MANY_STRINGS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SOTH_STRINGS_BLOCKS = 4096,
    SOTH_STRINGS_SHORTEST = 2,      /* octets of the shortest string that can be searched for */
    SOTH_STRINGS_MOST = 32767,
};

/* What a search came to. */
enum {
    SOTH_STRINGS_NONE,    /* no string is here, and none begins here */
    SOTH_STRINGS_FOUND,   /* one is at `at` */
    SOTH_STRINGS_HELD,    /* from `at` on to the end the data is the beginning of one */
};

typedef struct {
    const char *text;
    size_t length;
    int16_t next;   /* another with the same block at the end of its first octets, or -1 */
} soth_string;

typedef struct {
    soth_string *strings;
    size_t count;
    size_t shortest;
    size_t longest;
    uint8_t is_first[256];                 /* does any begin with this octet? */
    uint8_t skip[SOTH_STRINGS_BLOCKS];
    int16_t bucket[SOTH_STRINGS_BLOCKS];   /* the first that has this block there, or -1 */
} soth_strings;

static inline unsigned soth_strings_block(const char *p)
{
    return ((unsigned)(unsigned char)p[0] << 5 ^ (unsigned char)p[1]) & (SOTH_STRINGS_BLOCKS - 1);
}

/* Make the tables. `strings` holds `count` strings (1 to SOTH_STRINGS_MOST) of SOTH_STRINGS_SHORTEST octets or more, with text and length;
 * it and the texts must stay where they are. */
static inline void soth_strings_prepare(soth_strings *all, soth_string *strings, size_t count)
{
    memset(all, 0, sizeof *all);
    memset(all->bucket, 0xff, sizeof all->bucket);
    all->strings = strings;
    all->count = count;
    all->shortest = strings[0].length;
    for (size_t i = 0; i < count; i++) {
        if (strings[i].length < all->shortest)
            all->shortest = strings[i].length;
        if (strings[i].length > all->longest)
            all->longest = strings[i].length;
    }
    const size_t window = all->shortest;
    memset(all->skip, window - 1 < 255 ? (int)(window - 1) : 255, sizeof all->skip);
    for (size_t i = 0; i < count; i++) {
        soth_string *each = &strings[i];
        all->is_first[(unsigned char)each->text[0]] = 1;
        for (size_t end = 1; end < window; end++) {
            uint8_t *skip = &all->skip[soth_strings_block(each->text + end - 1)];
            if (window - 1 - end < *skip)
                *skip = (uint8_t)(window - 1 - end);
        }
        int16_t *first = &all->bucket[soth_strings_block(each->text + window - 2)];
        each->next = *first;
        *first = (int16_t)i;
    }
}

/* Judge the strings that may begin at `p`, of which `room` octets are here, at least those of the shortest. */
static inline int soth_strings_judge(const soth_strings *all, int first, const char *p, size_t room, int is_end, size_t *which)
{
    int found = SOTH_STRINGS_NONE;
    size_t length = 0;
    for (int i = first; i >= 0; i = all->strings[i].next) {
        const soth_string *each = &all->strings[i];
        if (each->length > room) {
            /* a longer one goes before a shorter one, so what is found waits for it */
            if (!is_end && !memcmp(each->text, p, room))
                return SOTH_STRINGS_HELD;
        }
        else if (each->length > length && !memcmp(each->text, p, each->length)) {
            found = SOTH_STRINGS_FOUND;
            length = each->length;
            *which = (size_t)i;
        }
    }
    return found;
}

/* Find the leftmost string in the n octets at `data`, and of several at one place the longest. `at` is where it is, `which` its number.
 * Unless `is_end`, more data may come: then SOTH_STRINGS_HELD says from where on the data must be searched again with what follows.
 * What is before `at` holds no string, and with SOTH_STRINGS_NONE that is all of it. */
static inline int soth_strings_find(const soth_strings *all, const char *data, size_t n, int is_end, size_t *at, size_t *which)
{
    const size_t window = all->shortest;
    size_t last = window - 1;   /* of the window */
    while (last < n) {
        const unsigned block = soth_strings_block(data + last - 1);
        if (all->skip[block]) {
            last += all->skip[block];
            continue;
        }
        const size_t start = last - (window - 1);
        const int result = soth_strings_judge(all, all->bucket[block], data + start, n - start, is_end, which);
        if (result != SOTH_STRINGS_NONE) {
            *at = start;
            return result;
        }
        last++;
    }
    if (is_end)
        return SOTH_STRINGS_NONE;
    /* what begins here has less than a window left */
    for (size_t start = last - (window - 1); start < n; start++) {
        if (!all->is_first[(unsigned char)data[start]])
            continue;
        for (size_t i = 0; i < all->count; i++) {
            if (!memcmp(all->strings[i].text, data + start, n - start)) {
                *at = start;
                return SOTH_STRINGS_HELD;
            }
        }
    }
    return SOTH_STRINGS_NONE;
}

#endif
