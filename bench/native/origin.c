/* The origin of the benchmark: one thread, epoll and OpenSSL, answers from memory. origin_http1.c and origin_http2.c are the two
 * protocols, and say what they answer; each makes a program of its own of this file.
 *
 * Prints one line `tls=<port> plain=<port>` when both listeners (on 127.0.0.1) accept, then serves until SIGTERM or until whoever
 * started it is gone. */
#define _GNU_SOURCE
#include "origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { MAX_EVENTS = 256 };

typedef struct { int fd; bool tls; } Listener;

static int poller;
static SSL_CTX *context;

void die(const char *what) {
    fprintf(stderr, "origin: %s: %s\n", what, errno ? strerror(errno) : "failed");
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void close_connection(Connection *connection) {
    Channel *channel = &connection->channel;
    protocol_close(connection);
    if (channel->ssl) {
        if (!channel->failed) SSL_shutdown(channel->ssl);
        SSL_free(channel->ssl);
        ERR_clear_error();
    }
    close(channel->fd);
    free(connection);
}

int watch(Connection *connection, uint32_t events) {
    if (connection->watched == events) return 0;
    connection->watched = events;
    struct epoll_event event = {.events = events, .data.ptr = connection};
    return epoll_ctl(poller, EPOLL_CTL_MOD, connection->channel.fd, &event);
}

static void accept_all(const Listener *listener) {
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
            die("accept");
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *connection = calloc(1, sizeof *connection);
        if (!connection) die("calloc");
        connection->channel.fd = fd;
        connection->watched = EPOLLIN;
        if (listener->tls) {
            SSL *ssl = connection->channel.ssl = SSL_new(context);
            if (!ssl || !SSL_set_fd(ssl, fd)) die("SSL_new");
            SSL_set_accept_state(ssl);
        }
        protocol_open(connection);
        struct epoll_event event = {.events = connection->watched, .data.ptr = connection};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

static unsigned open_listener(Listener *listener, unsigned port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1;
    listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0) die("socket");
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener->fd, 4096) < 0) die("listen");
    if (getsockname(listener->fd, (struct sockaddr *)&address, &length) < 0) die("getsockname");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener->fd, &event) < 0) die("epoll_ctl");
    return ntohs(address.sin_port);
}

static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in, unsigned in_length,
                        void *unused) {
    (void)ssl, (void)unused;
    unsigned char *chosen;
    const unsigned char *own = (const unsigned char *)PROTOCOL_ALPN;
    if (SSL_select_next_proto(&chosen, out_length, own, (unsigned)strlen(PROTOCOL_ALPN), in, in_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: origin CERTIFICATE_CHAIN.pem KEY.pem [TLS_PORT [PLAIN_PORT]]   (port 0: any free one)\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* resumption by ticket only */
    SSL_CTX_set_session_id_context(context, (const unsigned char *)"bench", 5);
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
    if (SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1) die(argv[1]);
    if (SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1) die(argv[2]);

    protocol_prepare();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");
    static Listener listeners[2] = {{.tls = true}, {.tls = false}};
    unsigned ports[2];
    for (int i = 0; i < 2; i++) ports[i] = open_listener(&listeners[i], argc > 3 + i ? (unsigned)atoi(argv[3 + i]) : 0);
    printf("tls=%u plain=%u\n", ports[0], ports[1]);
    fflush(stdout);

    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            void *owner = events[i].data.ptr;
            if (owner == &listeners[0] || owner == &listeners[1]) {
                accept_all(owner);
                continue;
            }
            Connection *connection = owner;
            if (protocol_ready(connection, events[i].events) < 0) close_connection(connection);
        }
    }
}
