/* ext/hpack_static.h: every line has the lengths that it says, and the entries that RFC 7541 names in its text stand where it says. */
#define _GNU_SOURCE
#include "hpack_static.h"

#include "guard.h"

static void check_entry(int index, const char *line)
{
    CHECK(!strcmp(soth_hpack_static[index].line, line), "%d is %s", index, soth_hpack_static[index].line);
}

int main(void)
{
    CHECK(sizeof soth_hpack_static / sizeof *soth_hpack_static == 62, "entries");
    for (int i = 1; i <= SOTH_HPACK_STATIC_COUNT; i++) {
        const SothHpackStatic entry = soth_hpack_static[i];
        CHECK(strlen(entry.line) == (size_t)entry.name_len + entry.value_len + 4, "%d", i);
        CHECK(!strncmp(entry.line + entry.name_len, ": ", 2), "%d", i);
        CHECK(!strcmp(entry.line + entry.name_len + 2 + entry.value_len, "\r\n"), "%d", i);
    }
    check_entry(1, ":authority: \r\n");
    check_entry(2, ":method: GET\r\n");
    check_entry(8, ":status: 200\r\n");
    check_entry(16, "accept-encoding: gzip, deflate\r\n");
    check_entry(61, "www-authenticate: \r\n");
    return 0;
}
