/* The origin of the benchmark: one thread, epoll and OpenSSL, answers prepared once and written from memory.
 *
 *   GET  /<n>       n bytes with Content-Length          POST /<n>   the same, after the whole body was read
 *   GET  /sse/<n>   n server-sent events, one chunk each, written at once
 *
 * Prints one line `tls=<port> plain=<port>` when both listeners (on 127.0.0.1) accept, then serves until SIGTERM or until whoever
 * started it is gone. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http1.h"

enum { MAX_EVENTS = 256, INPUT_SIZE = 16384, MAX_ANSWERS = 64 };
static const uint64_t MAX_BODY = 64u << 20;

/* A response as it is written, head and body in one piece; made at the first request for its path and kept. */
typedef struct {
    char path[64];
    char *bytes;
    size_t length;
} Answer;

typedef struct {
    int fd;
    SSL *ssl;                /* NULL on the plain listener */
    const Answer *answer;    /* being written, or NULL */
    size_t written;          /* bytes of it */
    bool close_after;        /* the client asked for it */
    bool waits_writable;     /* EPOLLOUT is registered, in place of EPOLLIN */
    bool in_body;            /* a request's head was taken, its body not yet */
    bool chunked;
    uint64_t body_left;
    Http1Chunks chunks;
    const Answer *next;      /* the answer to the request whose body is being read */
    size_t input_length;
    char input[INPUT_SIZE];
} Connection;

typedef struct { int fd; bool tls; } Listener;

static Answer answers[MAX_ANSWERS];
static unsigned answer_count;
static int poller;
static SSL_CTX *context;

static void die(const char *what) {
    fprintf(stderr, "origin: %s: %s\n", what, errno ? strerror(errno) : "failed");
    ERR_print_errors_fp(stderr);
    exit(2);
}

static Answer *new_answer(const char *path, size_t capacity) {
    if (answer_count == MAX_ANSWERS) return NULL;
    Answer *answer = &answers[answer_count++];
    snprintf(answer->path, sizeof answer->path, "%s", path);
    answer->bytes = malloc(capacity);
    if (!answer->bytes) die("malloc");
    return answer;
}

static Answer *make_sized(const char *path, uint64_t size) {
    Answer *answer = new_answer(path, size + 256);
    if (!answer) return NULL;
    static const char format[] =
        "HTTP/1.1 200 OK\r\nServer: bench-origin\r\nContent-Type: application/octet-stream\r\nContent-Length: %llu\r\n\r\n";
    int head = sprintf(answer->bytes, format, (unsigned long long)size);
    for (uint64_t i = 0; i < size; i++) answer->bytes[(size_t)head + i] = (char)('a' + i % 26);
    answer->length = (size_t)head + size;
    return answer;
}

static Answer *make_events(const char *path, uint64_t count) {
    static const char event[] = "data: {\"token\":\"benchmark\"}\n\n";
    Answer *answer = new_answer(path, 256 + count * (sizeof event + 16));
    if (!answer) return NULL;
    char *cursor = answer->bytes;
    cursor += sprintf(cursor, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (uint64_t i = 0; i < count; i++) cursor += sprintf(cursor, "%zx\r\n%s\r\n", sizeof event - 1, event);
    cursor += sprintf(cursor, "0\r\n\r\n");
    answer->length = (size_t)(cursor - answer->bytes);
    return answer;
}

/* Find or make the answer for a path; NULL for a path that the origin does not know. */
static const Answer *answer_for(const char *path) {
    for (unsigned i = 0; i < answer_count; i++)
        if (strcmp(answers[i].path, path) == 0) return &answers[i];
    char *end;
    bool events = strncmp(path, "/sse/", 5) == 0;
    const char *digits = events ? path + 5 : path + 1;
    if (*digits < '0' || *digits > '9') return NULL;
    uint64_t number = strtoull(digits, &end, 10);
    if (*end || number > (events ? 1000000 : MAX_BODY)) return NULL;
    return events ? make_events(path, number) : make_sized(path, number);
}

static void close_connection(Connection *connection) {
    if (connection->ssl) {
        SSL_shutdown(connection->ssl);
        SSL_free(connection->ssl);
        ERR_clear_error();
    }
    close(connection->fd);
    free(connection);
}

/* Read some bytes: their number, 0 when there are none now, -1 when the connection is over. */
static ssize_t read_some(Connection *connection, char *into, size_t space) {
    ssize_t got;
    if (connection->ssl) {
        got = SSL_read(connection->ssl, into, (int)space);
        if (got > 0) return got;
        int reason = SSL_get_error(connection->ssl, (int)got);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
        ERR_clear_error();
        return -1;
    }
    got = read(connection->fd, into, space);
    if (got > 0) return got;
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t write_some(Connection *connection, const char *bytes, size_t length) {
    ssize_t put;
    if (connection->ssl) {
        put = SSL_write(connection->ssl, bytes, (int)length);
        if (put > 0) return put;
        int reason = SSL_get_error(connection->ssl, (int)put);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
        ERR_clear_error();
        return -1;
    }
    put = send(connection->fd, bytes, length, MSG_NOSIGNAL);
    if (put >= 0) return put;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static int watch_writable(Connection *connection, bool wanted) {
    if (connection->waits_writable == wanted) return 0;
    connection->waits_writable = wanted;
    /* not both: what the client sends during an answer waits in the kernel, and must not wake us */
    struct epoll_event event = {.events = wanted ? EPOLLOUT : EPOLLIN, .data.ptr = connection};
    return epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Write what is left of the answer; 1 when it is out, 0 when the socket is full, -1 when the connection is over. */
static int write_answer(Connection *connection) {
    const Answer *answer = connection->answer;
    while (connection->written < answer->length) {
        ssize_t put = write_some(connection, answer->bytes + connection->written, answer->length - connection->written);
        if (put < 0) return -1;
        if (put == 0) return watch_writable(connection, true) < 0 ? -1 : 0;
        connection->written += (size_t)put;
    }
    connection->answer = NULL;
    if (watch_writable(connection, false) < 0) return -1;
    return connection->close_after ? -1 : 1;
}

static int answer_request(Connection *connection) {
    connection->in_body = false;
    connection->answer = connection->next;
    connection->written = 0;
    return write_answer(connection);
}

/* Take a complete head from the start of the input; -1 when it is not for us. */
static int take_head(Connection *connection, size_t head_length) {
    Http1Head head;
    if (http1_parse_head(connection->input, head_length, false, &head) < 0) return -1;
    const char *start = memchr(connection->input, ' ', head_length);
    if (!start) return -1;
    const char *end = memchr(start + 1, ' ', head_length - (size_t)(start + 1 - connection->input));
    char path[64];
    if (!end || end - start - 1 >= (long)sizeof path) return -1;
    memcpy(path, start + 1, (size_t)(end - start - 1));
    path[end - start - 1] = 0;
    connection->next = answer_for(path);
    if (!connection->next) {
        fprintf(stderr, "origin: no answer for %s (use /<bytes> up to %llu or /sse/<events>)\n", path, (unsigned long long)MAX_BODY);
        return -1;
    }
    connection->close_after = head.close;
    connection->chunked = head.chunked;
    connection->body_left = head.has_length ? head.content_length : 0;
    memset(&connection->chunks, 0, sizeof connection->chunks);
    connection->in_body = true;
    return 0;
}

/* Take body bytes: how many were taken, -1 when they are malformed; `*done` when the body is complete. */
static long take_body(Connection *connection, const char *bytes, size_t length, bool *done) {
    if (connection->chunked) {
        long taken = http1_feed_chunks(&connection->chunks, bytes, length);
        *done = connection->chunks.state == CHUNK_DONE;
        return taken;
    }
    size_t taken = length < connection->body_left ? length : (size_t)connection->body_left;
    connection->body_left -= taken;
    *done = connection->body_left == 0;
    return (long)taken;
}

/* Serve every request that is complete in the input; stops at an answer that does not fit into the socket. -1: the connection is over. */
static int serve_input(Connection *connection) {
    size_t at = 0;
    int outcome = 1;
    while (outcome == 1 && !connection->answer) {
        size_t left = connection->input_length - at;
        if (!connection->in_body) {
            memmove(connection->input, connection->input + at, left);
            connection->input_length = left;
            at = 0;
            size_t head_length = http1_head_length(connection->input, left);
            if (!head_length) return left == INPUT_SIZE ? -1 : 0;
            if (take_head(connection, head_length) < 0) return -1;
            at = head_length;
            left -= head_length;
        }
        bool done = false;
        long taken = take_body(connection, connection->input + at, left, &done);
        if (taken < 0) return -1;
        at += (size_t)taken;
        if (!done) break;
        outcome = answer_request(connection);
    }
    memmove(connection->input, connection->input + at, connection->input_length - at);
    connection->input_length -= at;
    return outcome < 0 ? -1 : 0;
}

/* Read and serve until nothing is left to read; -1 when the connection is over. */
static int on_readable(Connection *connection) {
    ssize_t got;
    do {
        if (connection->answer) return 0; /* one answer at a time */
        got = read_some(connection, connection->input + connection->input_length, INPUT_SIZE - connection->input_length);
        if (got < 0) return -1;
        if (got == 0) return 0;
        connection->input_length += (size_t)got;
        if (serve_input(connection) < 0) return -1;
    } while (connection->ssl ? SSL_has_pending(connection->ssl) : connection->in_body);
    return 0;
}

static int on_writable(Connection *connection) {
    if (connection->answer) {
        int outcome = write_answer(connection);
        if (outcome <= 0) return outcome;
        if (serve_input(connection) < 0) return -1;
    }
    return on_readable(connection);
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
        connection->fd = fd;
        if (listener->tls) {
            connection->ssl = SSL_new(context);
            if (!connection->ssl || !SSL_set_fd(connection->ssl, fd)) die("SSL_new");
            SSL_set_accept_state(connection->ssl);
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
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

static int select_http1(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in, unsigned in_length,
                        void *unused) {
    (void)ssl, (void)unused;
    static const unsigned char offer[] = "\x08http/1.1";
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_length, offer, sizeof offer - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED)
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
    SSL_CTX_set_alpn_select_cb(context, select_http1, NULL);
    if (SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1) die(argv[1]);
    if (SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1) die(argv[2]);

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
            int outcome = events[i].events & EPOLLOUT ? on_writable(connection) : on_readable(connection);
            if (outcome < 0) close_connection(connection);
        }
    }
}
