/* ext/procfs.h: forms of /proc/<pid>/stat, and this process as the kernel tells of it. */
#define _GNU_SOURCE
#include "procfs.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "guard.h"

static void check_stat(const char *text, int expected)
{
    SothProcess process = {0};
    const size_t n = strlen(text);
    const int got = soth_parse_stat(at_end(text, n), n, &process);
    CHECK(got == expected, "`%s` gave %d", text, got);
    if (expected)
        CHECK(process.parent == 12 && process.start == 20 && process.stack == 26, "`%s`: parent %lld, start %llu, stack %llu", text,
              (long long)process.parent, (unsigned long long)process.start, (unsigned long long)process.stack);
}

int main(void)
{
    guard_open();
    /* the third field is the state, the fourth the parent, and so on: field n holds n here, the parent apart */
    check_stat("7 (sh) S 12 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 20 23 24 25 26 27 26 29\n", 1);
    check_stat("7 (a) b ) (c)) S 12 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 20 23 24 25 26 27 26", 1);
    check_stat("7 (sh) S 12 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 20 23 24 25 26 27", 0);
    check_stat("7 (sh) S 12", 0);
    check_stat("7 (sh)", 0);
    check_stat("7 (sh)S", 0);
    check_stat("7 sh S 12", 0);
    check_stat("7 (sh) S  12 5 6", 0);
    check_stat("", 0);
    check_stat(")", 0);
#if defined(__linux__)
    SothProcess self = {0};
    CHECK(soth_read_process("/proc", getpid(), &self), "our own stat cannot be read");
    CHECK(self.parent == getppid() && self.start > 0, "parent %lld, start %llu", (long long)self.parent, (unsigned long long)self.start);
    CHECK(!soth_read_process("/proc", 1LL << 40, &self), "a process that cannot be was found");
    CHECK(!soth_holds_socket("/proc", getpid(), 0, 0), "descriptor 0 passes for a socket with inode 0");
    int pair[2];
    struct stat about;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && fstat(pair[0], &about) == 0, "a pair of sockets");
    CHECK(soth_holds_socket("/proc", getpid(), pair[0], about.st_ino), "our own socket was not found");
    CHECK(!soth_holds_socket("/proc", getpid(), pair[1], about.st_ino), "the other end passes for it");
    CHECK(!soth_holds_socket("/proc", getpid(), 9999, about.st_ino), "a descriptor that is not open passes for it");
#endif
    return 0;
}
