/* ext/procfs.h: forms of /proc/<pid>/stat, and processes as the kernel tells of them. */
#define _GNU_SOURCE
#include "procfs.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

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

#if defined(__linux__)
static char *const arguments[] = {"cat", NULL};

static int execute_when_told(void *pipes)
{
    static char *const environment[] = {"A=1", NULL};
    const int *ends = pipes;
    char byte;
    if (read(ends[0], &byte, 1) != 1)
        _exit(1);
    dup2(ends[0], 0);
    dup2(ends[3], 1);
    execve("/bin/cat", arguments, environment);
    _exit(1);
}

/* as after vfork(), but that we need not wait for it */
static void check_shared_memory(void)
{
    static char stack[1 << 16];
    SothProcess child = {0};
    int pipes[4];
    char byte;
    CHECK(pipe(pipes) == 0 && pipe(pipes + 2) == 0, "pipes");
    CHECK(fcntl(pipes[1], F_SETFD, FD_CLOEXEC) == 0, "the child is to see the end of its input");
    const pid_t pid = clone(execute_when_told, stack + sizeof stack, CLONE_VM | SIGCHLD, pipes);
    CHECK(pid > 0 && soth_open_process("/proc", pid, &child), "the child cannot be opened");
    CHECK(soth_is_same(&child), "the child is not what it is");
    CHECK(write(pipes[1], "12", 2) == 2 && read(pipes[2], &byte, 1) == 1, "the child executes another program");
    CHECK(!soth_is_same(&child), "the child that shared our memory passes for what it was, though it executes another program");
    soth_close_process(&child);
    close(pipes[1]);
    CHECK(waitpid(pid, NULL, 0) == pid, "the child ends");
    for (int i = 0; i < 4; i++)
        if (i != 1)
            close(pipes[i]);
}
#endif

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
    SothProcess self = {0}, child = {0}, nobody = {0};
    CHECK(soth_open_process("/proc", getpid(), &self), "we cannot be opened ourselves");
    CHECK(self.parent == getppid() && self.start > 0, "parent %lld, start %llu", (long long)self.parent, (unsigned long long)self.start);
    CHECK(soth_is_same(&self), "we are not the same");
    CHECK(!soth_open_process("/proc", 1LL << 40, &nobody) && nobody.pid == 0, "a process that cannot be was opened");
    CHECK(!soth_holds_socket(self.sockets, 0, 0), "descriptor 0 passes for a socket with inode 0");
    CHECK(!soth_holds_socket(-1, 0, 0), "nobody passes for the holder of a socket");
    int pair[2];
    struct stat about;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && fstat(pair[0], &about) == 0, "a pair of sockets");
    CHECK(soth_holds_socket(self.sockets, pair[0], about.st_ino), "our own socket was not found");
    CHECK(!soth_holds_socket(self.sockets, pair[1], about.st_ino), "the other end passes for it");
    CHECK(!soth_holds_socket(self.sockets, 9999, about.st_ino), "a descriptor that is not open passes for it");

    /* a child that ends: with an environment and without one */
    static char *const environments[][2] = {{"A=1", NULL}, {NULL, NULL}};
    for (int empty = 0; empty < 2; empty++) {
        int go[2], words[2];
        char byte;
        CHECK(pipe(go) == 0 && pipe(words) == 0, "pipes");
        const pid_t pid = fork();
        if (pid == 0) {
            dup2(go[0], 0);
            dup2(words[1], 1);
            close(go[1]);
            close(words[0]);
            execve("/bin/cat", arguments, environments[empty]);
            _exit(1);
        }
        close(go[0]);
        close(words[1]);
        CHECK(write(go[1], "1", 1) == 1 && read(words[0], &byte, 1) == 1, "the child runs");
        CHECK(soth_open_process("/proc", pid, &child), "the child cannot be opened");
        CHECK((child.image < 0) == empty && (child.stat < 0) == !empty, "image %d, stat %d", child.image, child.stat);
        CHECK(child.parent == getpid() && soth_is_same(&child), "the child is not what it is");
        CHECK(soth_holds_socket(child.sockets, pair[0], about.st_ino), "the child does not hold our socket");
        close(go[1]);
        CHECK(waitpid(pid, NULL, 0) == pid, "the child ends");
        CHECK(!soth_is_same(&child), "the child lives on");
        CHECK(!soth_holds_socket(child.sockets, pair[0], about.st_ino), "the child holds on");
        soth_close_process(&child);
        close(words[0]);
    }
    soth_close_process(&self);
    check_shared_memory();
#endif
    return 0;
}
