/* The load client of the benchmark: one thread, epoll and OpenSSL, a fixed number of connections with one request in flight on each.
 *
 * It measures what it understands: every response must have status 200 and the expected body length, everything else is counted by
 * class, shown once on stderr and makes the exit status 1. A run has two phases, warm-up and measurement; between them, and before it
 * ends, all connections stand still. With --gate it says so on stdout ("warm", then the JSON line) and waits for a line on stdin, so
 * that whoever started it can read the clocks of other processes exactly there. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http1.h"
#include "load_options.h"
#include "load_requests.h"
#include "outcome.h"

enum { MAX_EVENTS = 512, HEAD_SIZE = 16384, SCRATCH_SIZE = 262144, MAX_SHOWN_ERRORS = 5 };

typedef enum {
    CLOSED,         /* no socket */
    CONNECTING,     /* TCP handshake */
    ASKING_PROXY,   /* CONNECT written, its answer awaited */
    HANDSHAKING,    /* TLS handshake */
    WRITING,        /* request partly written */
    READING,        /* response awaited or partly read */
    IDLE            /* open, nothing in flight: between phases */
} State;

/* One of the concurrent connections; reopened in place. */
typedef struct {
    State state;
    int fd;
    SSL *ssl;
    SSL_SESSION *session;    /* newest ticket, kept over reopening when sessions are resumed */
    bool failed;             /* TLS broke: no close_notify any more */
    uint64_t used;           /* requests answered on this connection */
    size_t written;
    double began;            /* when this request, or the connection for it, began; seconds */
    bool in_body;
    Http1Head head;
    uint64_t body;           /* body bytes seen */
    Http1Chunks chunks;
    size_t head_length;      /* bytes kept of a head that came in pieces */
    char *head_bytes;        /* HEAD_SIZE bytes */
} Slot;

static int poller;
static SSL_CTX *context;
static Slot *slots;
static Outcome outcome;
static bool measuring;
static uint64_t issued, in_flight;
static double stop_at;
static unsigned shown_errors;
static char scratch[SCRATCH_SIZE];

static void start_next(Slot *slot);

static void close_slot(Slot *slot) {
    if (slot->state == CLOSED) return;
    if (slot->ssl) {
        if (!slot->failed && SSL_is_init_finished(slot->ssl)) SSL_shutdown(slot->ssl);
        SSL_free(slot->ssl);
        slot->ssl = NULL;
    }
    ERR_clear_error();
    close(slot->fd);
    slot->state = CLOSED;
}

/* Count an error of the request in flight, close its connection and go on with the next request. */
static void fail(Slot *slot, ErrorClass class, const char *detail) {
    outcome.errors[class]++;
    if (shown_errors < MAX_SHOWN_ERRORS) {
        shown_errors++;
        unsigned long code = ERR_peek_last_error();
        char reason[256] = "";
        if (code) ERR_error_string_n(code, reason, sizeof reason);
        fprintf(stderr, "load: %s error: %s%s%s\n", ERROR_NAMES[class], detail, *reason ? ": " : "", reason);
    }
    slot->failed = true;
    close_slot(slot);
    in_flight--;
    if (outcome_error_count(&outcome) >= options.max_errors) {
        fprintf(stderr, "load: gave up after %u errors\n", options.max_errors);
        outcome_end(&outcome);
        outcome_print(&outcome);
        exit(1);
    }
    start_next(slot);
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    Slot *slot = SSL_get_app_data(ssl);
    SSL_SESSION_free(slot->session);
    slot->session = session;
    return 1;
}

/* Read some bytes: their number, 0 when there are none now, -1 when the peer closed, -2 when the connection broke. */
static ssize_t read_some(Slot *slot, char *into, size_t space) {
    ssize_t got;
    if (slot->ssl) {
        got = SSL_read(slot->ssl, into, (int)space);
        if (got > 0) return got;
        int reason = SSL_get_error(slot->ssl, (int)got);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
        slot->failed = reason != SSL_ERROR_ZERO_RETURN;
        return reason == SSL_ERROR_SSL ? -2 : -1;
    }
    got = read(slot->fd, into, space);
    if (got > 0) return got;
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static ssize_t write_some(Slot *slot, const char *bytes, size_t length) {
    ssize_t put;
    if (slot->ssl) {
        put = SSL_write(slot->ssl, bytes, (int)length);
        if (put > 0) return put;
        int reason = SSL_get_error(slot->ssl, (int)put);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return 0;
        slot->failed = true;
        return reason == SSL_ERROR_SSL ? -2 : -1;
    }
    put = send(slot->fd, bytes, length, MSG_NOSIGNAL);
    if (put >= 0) return put;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void open_connection(Slot *slot) {
    int on = 1;
    slot->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (slot->fd < 0) die("socket");
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    slot->state = CONNECTING;
    slot->used = 0;
    slot->failed = false;
    if (connect(slot->fd, (struct sockaddr *)&options.address, sizeof options.address) < 0 && errno != EINPROGRESS) {
        fail(slot, ERROR_CONNECT, strerror(errno));
        return;
    }
    /* Edge-triggered, both directions, once: no epoll_ctl per request, at the price of always reading until there is nothing. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = slot};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, slot->fd, &event) < 0) die("epoll_ctl");
}

static bool may_issue(void) {
    if (!measuring) return issued < options.warmup;
    return options.requests ? issued < options.requests : now_seconds() < stop_at;
}

static void write_request(Slot *slot);

static void start_next(Slot *slot) {
    bool used_up = slot->state != CLOSED && options.per_connection && slot->used >= options.per_connection;
    if (used_up) close_slot(slot);
    if (!may_issue()) {
        if (slot->state != CLOSED) slot->state = IDLE;
        return;
    }
    issued++;
    in_flight++;
    slot->began = now_seconds();
    if (slot->state == CLOSED) {
        open_connection(slot);
    } else {
        slot->written = 0;
        write_request(slot);
    }
}

static void write_request(Slot *slot) {
    slot->state = WRITING;
    while (slot->written < request_length) {
        ssize_t put = write_some(slot, request_bytes + slot->written, request_length - slot->written);
        if (put < 0) {
            fail(slot, put == -2 ? ERROR_TLS : ERROR_CLOSED, "while the request was written");
            return;
        }
        if (put == 0) return;
        slot->written += (size_t)put;
        outcome.sent += (uint64_t)put;
    }
    slot->state = READING;
    slot->in_body = false;
    slot->head_length = 0;
    slot->body = 0;
    memset(&slot->chunks, 0, sizeof slot->chunks);
}

static void finish_response(Slot *slot) {
    if (slot->head.status != 200) {
        char detail[64];
        snprintf(detail, sizeof detail, "got status %d", slot->head.status);
        fail(slot, ERROR_STATUS, detail);
        return;
    }
    if (options.expected != UINT64_MAX && slot->body != options.expected) {
        char detail[96];
        snprintf(detail, sizeof detail, "got %llu bytes of body, expected %llu", (unsigned long long)slot->body,
                 (unsigned long long)options.expected);
        fail(slot, ERROR_LENGTH, detail);
        return;
    }
    outcome.requests++;
    outcome_add_latency(&outcome, now_seconds() - slot->began);
    slot->used++;
    in_flight--;
    if (slot->head.close) close_slot(slot);
    start_next(slot);
}

/* Take response bytes; 1 when the response is complete, 0 when more is needed, -1 when the slot has failed. */
static int take_response(Slot *slot, const char *bytes, size_t length) {
    if (!slot->in_body) {
        const char *head = bytes;
        size_t available = length, kept = slot->head_length;
        if (kept) { /* the head came in pieces: go on with what is kept */
            size_t room = HEAD_SIZE - kept;
            memcpy(slot->head_bytes + kept, bytes, length < room ? length : room);
            head = slot->head_bytes;
            available = kept + (length < room ? length : room);
        }
        size_t head_length = http1_head_length(head, available);
        if (!head_length) {
            if (available >= HEAD_SIZE) return fail(slot, ERROR_PROTOCOL, "response head too long"), -1;
            if (!kept) memcpy(slot->head_bytes, bytes, length);
            slot->head_length = available;
            return 0;
        }
        if (http1_parse_head(head, head_length, true, &slot->head) < 0) return fail(slot, ERROR_PROTOCOL, "malformed response head"), -1;
        slot->head_length = 0;
        bytes += head_length - kept;
        length -= head_length - kept;
        if (slot->head.status >= 100 && slot->head.status < 200) return length ? take_response(slot, bytes, length) : 0;
        slot->in_body = true;
    }
    size_t taken = length;
    bool done = false;
    if (slot->head.chunked) {
        long fed = http1_feed_chunks(&slot->chunks, bytes, length);
        if (fed < 0) return fail(slot, ERROR_PROTOCOL, "malformed chunk"), -1;
        taken = (size_t)fed;
        slot->body = slot->chunks.body;
        done = slot->chunks.state == CHUNK_DONE;
    } else if (slot->head.has_length) {
        uint64_t left = slot->head.content_length - slot->body;
        taken = length < left ? length : (size_t)left;
        slot->body += taken;
        done = slot->body == slot->head.content_length;
    } else {
        slot->body += length; /* until the peer closes */
    }
    if (taken < length) return fail(slot, ERROR_PROTOCOL, "bytes after the end of the response"), -1;
    return done;
}

static void read_response(Slot *slot) {
    for (;;) {
        ssize_t got = read_some(slot, scratch, sizeof scratch);
        if (got == 0) return;
        if (got < 0) {
            if (slot->in_body && !slot->head.has_length && !slot->head.chunked && got == -1) {
                slot->head.close = true;
                finish_response(slot);
            } else {
                fail(slot, got == -2 ? ERROR_TLS : ERROR_CLOSED, "before the response was complete");
            }
            return;
        }
        outcome.received += (uint64_t)got;
        int complete = take_response(slot, scratch, (size_t)got);
        if (complete < 0) return;
        if (complete) {
            finish_response(slot);
            return;
        }
    }
}

static void handshake(Slot *slot) {
    int done = SSL_do_handshake(slot->ssl);
    if (done != 1) {
        int reason = SSL_get_error(slot->ssl, done);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return;
        long verdict = SSL_get_verify_result(slot->ssl);
        fail(slot, ERROR_TLS, verdict == X509_V_OK ? "handshake failed" : X509_verify_cert_error_string(verdict));
        return;
    }
    if (SSL_session_reused(slot->ssl)) outcome.resumed_handshakes++;
    else outcome.full_handshakes++;
    slot->written = 0;
    write_request(slot);
}

/* The path to the target stands: begin TLS, or the request itself. */
static void begin_session(Slot *slot) {
    if (options.plain) {
        slot->written = 0;
        write_request(slot);
        return;
    }
    slot->ssl = SSL_new(context);
    if (!slot->ssl || !SSL_set_fd(slot->ssl, slot->fd)) die("SSL_new");
    SSL_set_app_data(slot->ssl, slot);
    SSL_set_connect_state(slot->ssl);
    X509_VERIFY_PARAM *parameters = SSL_get0_param(slot->ssl);
    if (!X509_VERIFY_PARAM_set1_ip_asc(parameters, options.name)) {
        ERR_clear_error();
        if (!SSL_set1_host(slot->ssl, options.name) || !SSL_set_tlsext_host_name(slot->ssl, options.name)) die("set name");
    }
    if (options.resume && slot->session) SSL_set_session(slot->ssl, slot->session);
    slot->state = HANDSHAKING;
    handshake(slot);
}

static void ask_proxy(Slot *slot) {
    slot->state = ASKING_PROXY;
    slot->head_length = 0;
    /* A fresh socket takes these few bytes at once; anything else is a broken machine. */
    if (send(slot->fd, connect_bytes, connect_length, MSG_NOSIGNAL) != (ssize_t)connect_length) {
        fail(slot, ERROR_CONNECT, "CONNECT could not be written");
        return;
    }
    outcome.sent += connect_length;
}

static void read_proxy_answer(Slot *slot) {
    ssize_t got = recv(slot->fd, slot->head_bytes + slot->head_length, HEAD_SIZE - slot->head_length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        fail(slot, ERROR_PROXY, "closed instead of an answer to CONNECT");
        return;
    }
    slot->head_length += (size_t)got;
    outcome.received += (uint64_t)got;
    size_t length = http1_head_length(slot->head_bytes, slot->head_length);
    if (!length) {
        if (slot->head_length == HEAD_SIZE) fail(slot, ERROR_PROXY, "answer to CONNECT too long");
        return;
    }
    Http1Head head;
    if (http1_parse_head(slot->head_bytes, length, true, &head) < 0 || head.status != 200) {
        char detail[128];
        size_t line = (size_t)((char *)memchr(slot->head_bytes, '\n', length) - slot->head_bytes);
        snprintf(detail, sizeof detail, "CONNECT answered %.*s", (int)(line < 100 ? line : 100), slot->head_bytes);
        fail(slot, ERROR_PROXY, detail);
    } else if (length != slot->head_length) {
        fail(slot, ERROR_PROTOCOL, "bytes after the answer to CONNECT before we spoke");
    } else {
        begin_session(slot);
    }
}

/* Nothing is in flight: take tickets and the like, notice that the peer closed. */
static void drain_idle(Slot *slot) {
    ssize_t got = read_some(slot, scratch, sizeof scratch);
    if (got > 0) {
        in_flight++;
        fail(slot, ERROR_PROTOCOL, "bytes while no request was in flight");
    } else if (got < 0) {
        slot->failed = true;
        close_slot(slot);
    }
}

static void on_ready(Slot *slot, uint32_t events) {
    switch (slot->state) {
    case CONNECTING: {
        int error = 0;
        socklen_t length = sizeof error;
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        if (getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error) fail(slot, ERROR_CONNECT, strerror(error));
        else if (options.through_proxy) ask_proxy(slot);
        else begin_session(slot);
        break;
    }
    case ASKING_PROXY: read_proxy_answer(slot); break;
    case HANDSHAKING: handshake(slot); break;
    case WRITING:
        if (events & EPOLLOUT) write_request(slot);
        if (slot->state != READING) break; /* fall through */
    case READING: read_response(slot); break;
    case IDLE: drain_idle(slot); break;
    case CLOSED: break; /* an event of this batch for a socket that another event of it closed */
    }
}

static void check_timeouts(void) {
    double oldest = now_seconds() - options.timeout;
    for (unsigned i = 0; i < options.connections; i++)
        if (slots[i].state != CLOSED && slots[i].state != IDLE && slots[i].began < oldest)
            fail(&slots[i], ERROR_TIMEOUT, "no complete response in time");
}

static void run_phase(void) {
    issued = in_flight = 0;
    outcome_begin(&outcome);
    stop_at = outcome.started + options.seconds;
    for (unsigned i = 0; i < options.connections; i++) start_next(&slots[i]);
    struct epoll_event events[MAX_EVENTS];
    double last_check = outcome.started;
    while (in_flight) {
        int count = epoll_wait(poller, events, MAX_EVENTS, 500);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) on_ready(events[i].data.ptr, events[i].events);
        double now = now_seconds();
        if (now - last_check > 0.5) {
            last_check = now;
            check_timeouts();
        }
    }
    outcome_end(&outcome);
}

static void wait_at_gate(void) {
    char line[16];
    if (options.gate && !fgets(line, sizeof line, stdin)) exit(3);
}

static void prepare_tls(void) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_min_proto_version(context, options.tls_version ? options.tls_version : TLS1_2_VERSION);
    if (options.tls_version) SSL_CTX_set_max_proto_version(context, options.tls_version);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08http/1.1", 9);
    if (options.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    } else {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
    if (options.insecure) return;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    int trusts = options.ca ? SSL_CTX_load_verify_file(context, options.ca) : SSL_CTX_set_default_verify_paths(context);
    if (!trusts) die(options.ca ? options.ca : "system roots");
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    slots = calloc(options.connections, sizeof *slots);
    if (poller < 0 || !slots) die("set-up");
    for (unsigned i = 0; i < options.connections; i++)
        if (!(slots[i].head_bytes = malloc(HEAD_SIZE))) die("malloc");
    prepare_tls();
    prepare_requests();
    run_phase();
    uint64_t warmup_errors = outcome_error_count(&outcome);
    if (options.gate) {
        printf("warm\n");
        fflush(stdout);
    }
    wait_at_gate();
    measuring = true;
    run_phase();
    for (int i = 0; i < ERROR_CLASSES; i++) warmup_errors += outcome.errors[i];
    outcome_print(&outcome);
    wait_at_gate();
    for (unsigned i = 0; i < options.connections; i++) close_slot(&slots[i]);
    return warmup_errors ? 1 : 0;
}
