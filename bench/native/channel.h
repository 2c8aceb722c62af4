/* A socket with or without TLS, read and written the same way by both ends of a measurement. */
#ifndef BENCH_CHANNEL_H
#define BENCH_CHANNEL_H

#include <errno.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHANNEL_CLOSED = -1, CHANNEL_BROKEN = -2 };

typedef struct {
    int fd;
    SSL *ssl;                /* NULL: plain */
    bool failed;             /* TLS broke: no close_notify any more */
} Channel;

/* What a TLS call that moved nothing means: 0 when it must wait, else one of the two above. */
static inline ssize_t channel_trouble(Channel *channel, int result) {
    int reason = SSL_get_error(channel->ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
    channel->failed = reason != SSL_ERROR_ZERO_RETURN;
    return reason == SSL_ERROR_SSL ? CHANNEL_BROKEN : CHANNEL_CLOSED;
}

/* Read some bytes: their number, 0 when there are none now, CHANNEL_CLOSED when the peer closed, CHANNEL_BROKEN when TLS broke. */
static inline ssize_t channel_read(Channel *channel, char *into, size_t space) {
    if (channel->ssl) {
        int got = SSL_read(channel->ssl, into, (int)space);
        return got > 0 ? got : channel_trouble(channel, got);
    }
    ssize_t got = recv(channel->fd, into, space, 0);
    if (got > 0) return got;
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : CHANNEL_CLOSED;
}

/* Write some bytes: their number, 0 when the socket is full, or as above. */
static inline ssize_t channel_write(Channel *channel, const char *bytes, size_t length) {
    if (channel->ssl) {
        int put = SSL_write(channel->ssl, bytes, (int)length);
        return put > 0 ? put : channel_trouble(channel, put);
    }
    ssize_t put = send(channel->fd, bytes, length, MSG_NOSIGNAL);
    if (put >= 0) return put;
    return errno == EAGAIN || errno == EINTR ? 0 : CHANNEL_CLOSED;
}

#endif
