/* ext/liveness.h: each thing that can lie in a socket, on sockets that block, and nothing written beyond what was given. */
#define _GNU_SOURCE
#include "liveness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include "guard.h"

static int ours, theirs;

/* Two ends of one TCP connection over loopback; `ours` blocks. */
static void connect_ends(void)
{
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0, "listen");
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
    ours = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ours, (struct sockaddr *)&address, size) == 0, "connect");
    theirs = accept(listener, NULL, NULL);
    CHECK(theirs >= 0, "accept");
    close(listener);
}

/* Until something has arrived: what loopback delivers is there at once, but nobody promises it. */
static void await_arrival(void)
{
    struct pollfd readable = {.fd = ours, .events = POLLIN};
    CHECK(poll(&readable, 1, 5000) == 1, "poll");
}

static ptrdiff_t read_now(size_t n)
{
    /* the byte after the n cannot be written */
    return soth_read_now(ours, guard_page + guard_size - n, n);
}

int main(void)
{
    guard_open();
    connect_ends();
    CHECK(read_now(8) == SOTH_READ_NOTHING, "an idle connection");
    CHECK(read_now(8) == SOTH_READ_NOTHING, "looking changes nothing");
    CHECK(send(theirs, "hello", 5, 0) == 5, "send");
    await_arrival();
    CHECK(read_now(2) == 2 && memcmp(guard_page + guard_size - 2, "he", 2) == 0, "as much as there is room for");
    CHECK(read_now(8) == 3 && memcmp(guard_page + guard_size - 8, "llo", 3) == 0, "no more than there is");
    CHECK(read_now(8) == SOTH_READ_NOTHING, "and then nothing");
    CHECK(send(theirs, "x", 1, 0) == 1 && shutdown(theirs, SHUT_WR) == 0, "send and end");
    await_arrival();
    CHECK(read_now(8) == 1, "bytes before the end");
    await_arrival();
    CHECK(read_now(8) == SOTH_READ_ENDED, "FIN");
    CHECK(read_now(8) == SOTH_READ_ENDED, "FIN stays");
    close(theirs);
    close(ours);

    connect_ends();
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    CHECK(setsockopt(theirs, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0, "SO_LINGER");
    close(theirs);
    await_arrival();
    CHECK(read_now(8) == SOTH_READ_ENDED, "RST");
    CHECK(read_now(8) == SOTH_READ_ENDED, "RST stays");
    close(ours);
    CHECK(read_now(8) == SOTH_READ_ENDED, "no socket");
    return 0;
}
