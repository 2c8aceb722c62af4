/* Linux sock_diag (sock_diag(7)): which socket is one end of a TCP connection. The messages are the same everywhere; only Linux answers. */
#ifndef SOTH_SOCK_DIAG_H
#define SOTH_SOCK_DIAG_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint32_t inode; /* 0: no process holds it */
    uint32_t uid;
} SothSocket;

/* One end of a connection. Addresses are in network order, IPv4 in the first four bytes; ports are in host order. */
typedef struct {
    int is_v6;
    uint8_t source[16], destination[16];
    uint16_t source_port, destination_port;
    uint32_t scope_id; /* the interface of a link-local address, else 0 */
} SothEnd;

enum {
    SOTH_DIAG_REQUEST = 72,
    SOTH_DIAG_FOUND = 1,
    SOTH_DIAG_NONE = 0,
    SOTH_NETLINK_HEADER = 16,
    SOTH_SOCK_DIAG_BY_FAMILY = 20,
    SOTH_NLM_F_REQUEST = 1,
    SOTH_NLMSG_ERROR = 2,
    SOTH_TCP = 6,
    SOTH_TCP_LISTEN = 10,
    SOTH_LINUX_AF_INET = 2,
    SOTH_LINUX_AF_INET6 = 10,
    SOTH_LINUX_ENOENT = 2
};

/* netlink header: length, type, flags, sequence, port id; inet_diag_req_v2: family, protocol, extensions, states; inet_diag_sockid: ports
 * and addresses as on the wire, interface, cookie. Numbers without a wire form are in this machine's order. */
static inline void soth_diag_request(const SothEnd *end, uint32_t sequence, uint8_t request[SOTH_DIAG_REQUEST])
{
    const uint32_t length = SOTH_DIAG_REQUEST, all_states = 0xFFFFFFFF;
    const uint16_t type = SOTH_SOCK_DIAG_BY_FAMILY, flags = SOTH_NLM_F_REQUEST;
    memset(request, 0, SOTH_DIAG_REQUEST);
    memcpy(request, &length, 4);
    memcpy(request + 4, &type, 2);
    memcpy(request + 6, &flags, 2);
    memcpy(request + 8, &sequence, 4);
    request[16] = end->is_v6 ? SOTH_LINUX_AF_INET6 : SOTH_LINUX_AF_INET;
    request[17] = SOTH_TCP;
    memcpy(request + 20, &all_states, 4);
    request[24] = (uint8_t)(end->source_port >> 8);
    request[25] = (uint8_t)end->source_port;
    request[26] = (uint8_t)(end->destination_port >> 8);
    request[27] = (uint8_t)end->destination_port;
    memcpy(request + 28, end->source, end->is_v6 ? 16 : 4);
    memcpy(request + 44, end->destination, end->is_v6 ? 16 : 4);
    memcpy(request + 60, &end->scope_id, 4);
    memset(request + 64, 0xFF, 8);
}

/* SOTH_DIAG_FOUND, SOTH_DIAG_NONE, or the negative error number with which the kernel refused (-EBADMSG: it is no answer to the request of
 * that sequence number). Where no connection matches, the kernel names a listener on that port if there is one: that is not the end that
 * was asked for. */
static inline int soth_diag_answer(const uint8_t *answer, size_t n, uint32_t sequence, SothSocket *found)
{
    enum { STATE = SOTH_NETLINK_HEADER + 1, OWNER = SOTH_NETLINK_HEADER + 4 + 48 + 12 };
    uint16_t type;
    if (n < SOTH_NETLINK_HEADER + 4 || memcmp(answer + 8, &sequence, 4))
        return -EBADMSG;
    memcpy(&type, answer + 4, 2);
    if (type == SOTH_NLMSG_ERROR) {
        int32_t code;
        memcpy(&code, answer + SOTH_NETLINK_HEADER, 4);
        return code == -SOTH_LINUX_ENOENT ? SOTH_DIAG_NONE : code < 0 ? code : -EBADMSG;
    }
    if (n < OWNER + 8)
        return -EBADMSG;
    if (answer[STATE] == SOTH_TCP_LISTEN)
        return SOTH_DIAG_NONE;
    memcpy(&found->uid, answer + OWNER, 4);
    memcpy(&found->inode, answer + OWNER + 4, 4);
    return SOTH_DIAG_FOUND;
}

#if defined(__linux__)

#include <sys/socket.h>
#include <unistd.h>

enum { SOTH_NETLINK_SOCK_DIAG = 4 };

/* A socket to ask the kernel through, or the negative error number. */
static inline int soth_diag_open(void)
{
    const int file = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, SOTH_NETLINK_SOCK_DIAG);
    return file < 0 ? -errno : file;
}

static inline void soth_diag_close(int file)
{
    close(file);
}

/* Ask for the socket at that end; as soth_diag_answer(). The kernel has answered when it has taken the question. */
static inline int soth_diag_ask(int file, const SothEnd *end, uint32_t sequence, SothSocket *found)
{
    uint8_t request[SOTH_DIAG_REQUEST], answer[4096];
    soth_diag_request(end, sequence, request);
    /* nobody else's port: an unconnected netlink socket sends to the kernel */
    if (send(file, request, sizeof request, 0) < 0)
        return -errno;
    const ssize_t n = recv(file, answer, sizeof answer, 0);
    return n < 0 ? -errno : soth_diag_answer(answer, (size_t)n, sequence, found);
}

#else

static inline int soth_diag_open(void)
{
    return -ENOTSUP;
}

static inline void soth_diag_close(int file)
{
    (void)file;
}

static inline int soth_diag_ask(int file, const SothEnd *end, uint32_t sequence, SothSocket *found)
{
    (void)file, (void)end, (void)sequence, (void)found;
    return -ENOTSUP;
}

#endif
#endif
