/* What lies unread in a socket at this moment, without waiting and whatever mode the socket is in. */
#ifndef SOTH_LIVENESS_H
#define SOTH_LIVENESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#include <winsock2.h>
#ifdef _MSC_VER
#pragma comment(lib, "ws2_32.lib")
#endif
#else
#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#endif

enum { SOTH_READ_ENDED = 0, SOTH_READ_NOTHING = -1 };

/* Take up to n bytes (n > 0) that have arrived into p: how many. SOTH_READ_NOTHING: there are none, and the connection stands.
 * SOTH_READ_ENDED: the peer's FIN or RST is there, or the socket is none.
 * On Windows a loop may have a read of its own under way, which must not be overtaken: nothing is taken there, and bytes answer
 * SOTH_READ_ENDED as well. */
static inline ptrdiff_t soth_read_now(intptr_t socket, char *p, size_t n)
{
#ifdef _WIN32
    const struct timeval at_once = {0, 0};
    fd_set readable;
    (void)p;
    (void)n;
    FD_ZERO(&readable);
    FD_SET((SOCKET)socket, &readable);
    return select(0, &readable, NULL, NULL, &at_once) == 0 ? SOTH_READ_NOTHING : SOTH_READ_ENDED;
#else
    ssize_t count;
    do {
        count = recv((int)socket, p, n, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count >= 0)
        return count;
    return errno == EAGAIN || errno == EWOULDBLOCK ? SOTH_READ_NOTHING : SOTH_READ_ENDED;
#endif
}

#endif
