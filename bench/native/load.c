/* The load client of the benchmark: one thread, epoll and OpenSSL, a fixed number of connections with a fixed number of requests in
 * flight on each. load_http1.c and load_http2.c are the two protocols; each makes a program of its own of this file.
 *
 * It measures what it understands: every response must have status 200 and the expected body length, everything else is counted by
 * class, shown once on stderr and makes the exit status 1. A run has two phases, warm-up and measurement; between them, and before it
 * ends, all connections stand still. With --gate it says so on stdout ("warm", then the JSON line) and waits for a line on stdin, so
 * that whoever started it can read the clocks of other processes exactly there. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "http1.h"

enum { MAX_EVENTS = 512, MAX_SHOWN_ERRORS = 5 };

Outcome outcome;
char scratch[SCRATCH_SIZE];

static int poller;
static SSL_CTX *context;
static Slot *slots;
static bool measuring;
static uint64_t issued, in_flight;
static double stop_at;
static unsigned shown_errors;
static char *connect_bytes;
static size_t connect_length;

void close_slot(Slot *slot) {
    if (slot->state == CLOSED) return;
    if (slot->state == OPEN) protocol_close(slot);
    Channel *channel = &slot->channel;
    if (channel->ssl) {
        if (!channel->failed && SSL_is_init_finished(channel->ssl)) SSL_shutdown(channel->ssl);
        SSL_free(channel->ssl);
        channel->ssl = NULL;
    }
    ERR_clear_error();
    close(channel->fd);
    slot->state = CLOSED;
}

/* Count errors of so many requests, and say the first few; ends the program after too many. */
static void count_errors(Slot *slot, unsigned requests, ErrorClass class, const char *detail) {
    outcome.errors[class] += requests;
    slot->claimed -= requests;
    in_flight -= requests;
    if (shown_errors < MAX_SHOWN_ERRORS) {
        shown_errors++;
        unsigned long code = ERR_peek_last_error();
        char reason[256] = "";
        if (code) ERR_error_string_n(code, reason, sizeof reason);
        fprintf(stderr, "load: %s error: %s%s%s\n", ERROR_NAMES[class], detail, *reason ? ": " : "", reason);
    }
    if (outcome_error_count(&outcome) >= options.max_errors) {
        fprintf(stderr, "load: gave up after %u errors\n", options.max_errors);
        outcome_end(&outcome);
        outcome_print(&outcome);
        exit(1);
    }
}

void fail_request(Slot *slot, ErrorClass class, const char *detail) {
    count_errors(slot, 1, class, detail);
}

void fail_connection(Slot *slot, ErrorClass class, const char *detail) {
    if (!slot->claimed) { /* one error all the same */
        slot->claimed++;
        in_flight++;
    }
    count_errors(slot, slot->claimed, class, detail);
    slot->channel.failed = true;
    close_slot(slot);
    start_requests(slot);
}

void finish_request(Slot *slot, double began) {
    outcome.requests++;
    outcome_add_latency(&outcome, now_seconds() - began);
    slot->claimed--;
    in_flight--;
}

static int keep_ticket(SSL *ssl, SSL_SESSION *ticket) {
    Slot *slot = SSL_get_app_data(ssl);
    SSL_SESSION_free(slot->ticket);
    slot->ticket = ticket;
    return 1;
}

static void open_connection(Slot *slot) {
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    slot->channel = (Channel){.fd = fd};
    slot->state = CONNECTING;
    slot->began = now_seconds();
    if (connect(fd, (struct sockaddr *)&options.address, sizeof options.address) < 0 && errno != EINPROGRESS) {
        fail_connection(slot, ERROR_CONNECT, strerror(errno));
        return;
    }
    /* Edge-triggered, both directions, once: no epoll_ctl per request, at the price of always reading until there is nothing. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = slot};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static bool may_issue(void) {
    if (!measuring) return issued < options.warmup;
    return options.requests ? issued < options.requests : now_seconds() < stop_at;
}

void start_requests(Slot *slot) {
    if (slot->state == OPEN && protocol_is_used_up(slot)) close_slot(slot);
    while (slot->claimed < options.streams && may_issue()) {
        issued++;
        in_flight++;
        slot->claimed++;
    }
    if (!slot->claimed) return;
    if (slot->state == CLOSED) open_connection(slot);
    else if (slot->state == OPEN) protocol_request(slot);
}

/* TCP and TLS stand, up to whoever answers. */
static void begin_talk(Slot *slot) {
    slot->state = OPEN;
    protocol_open(slot);
    protocol_request(slot);
}

static void handshake(Slot *slot) {
    SSL *ssl = slot->channel.ssl;
    int done = SSL_do_handshake(ssl);
    if (done != 1) {
        int reason = SSL_get_error(ssl, done);
        if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return;
        long verdict = SSL_get_verify_result(ssl);
        fail_connection(slot, ERROR_TLS, verdict == X509_V_OK ? "handshake failed" : X509_verify_cert_error_string(verdict));
        return;
    }
    const unsigned char *chosen;
    unsigned chosen_length;
    SSL_get0_alpn_selected(ssl, &chosen, &chosen_length);
    if (PROTOCOL_NEEDS_ALPN && !chosen_length) {
        fail_connection(slot, ERROR_TLS, "the peer did not choose our protocol");
        return;
    }
    if (SSL_session_reused(ssl)) outcome.resumed_handshakes++;
    else outcome.full_handshakes++;
    begin_talk(slot);
}

/* The path to the target stands: begin TLS, or the request itself. */
static void begin_session(Slot *slot) {
    if (options.plain) {
        begin_talk(slot);
        return;
    }
    SSL *ssl = slot->channel.ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, slot->channel.fd)) die("SSL_new");
    SSL_set_app_data(ssl, slot);
    SSL_set_connect_state(ssl);
    X509_VERIFY_PARAM *parameters = SSL_get0_param(ssl);
    if (!X509_VERIFY_PARAM_set1_ip_asc(parameters, options.name)) {
        ERR_clear_error();
        if (!SSL_set1_host(ssl, options.name) || !SSL_set_tlsext_host_name(ssl, options.name)) die("set name");
    }
    if (options.resume && slot->ticket) SSL_set_session(ssl, slot->ticket);
    slot->state = HANDSHAKING;
    handshake(slot);
}

static void ask_proxy(Slot *slot) {
    slot->state = ASKING_PROXY;
    slot->head_length = 0;
    /* A fresh socket takes these few bytes at once; anything else is a broken machine. */
    if (send(slot->channel.fd, connect_bytes, connect_length, MSG_NOSIGNAL) != (ssize_t)connect_length) {
        fail_connection(slot, ERROR_CONNECT, "CONNECT could not be written");
        return;
    }
    outcome.sent += connect_length;
}

static void read_proxy_answer(Slot *slot) {
    ssize_t got = recv(slot->channel.fd, slot->head_bytes + slot->head_length, HEAD_SIZE - slot->head_length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        fail_connection(slot, ERROR_PROXY, "closed instead of an answer to CONNECT");
        return;
    }
    slot->head_length += (size_t)got;
    outcome.received += (uint64_t)got;
    size_t length = http1_head_length(slot->head_bytes, slot->head_length);
    if (!length) {
        if (slot->head_length == HEAD_SIZE) fail_connection(slot, ERROR_PROXY, "answer to CONNECT too long");
        return;
    }
    Http1Head head;
    if (http1_parse_head(slot->head_bytes, length, true, &head) < 0 || head.status != 200) {
        char detail[128];
        size_t line = (size_t)((char *)memchr(slot->head_bytes, '\n', length) - slot->head_bytes);
        snprintf(detail, sizeof detail, "CONNECT answered %.*s", (int)(line < 100 ? line : 100), slot->head_bytes);
        fail_connection(slot, ERROR_PROXY, detail);
    } else if (length != slot->head_length) {
        fail_connection(slot, ERROR_PROTOCOL, "bytes after the answer to CONNECT before we spoke");
    } else {
        begin_session(slot);
    }
}

static void on_ready(Slot *slot, uint32_t events) {
    switch (slot->state) {
    case CONNECTING: {
        int error = 0;
        socklen_t length = sizeof error;
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        if (getsockopt(slot->channel.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error)
            fail_connection(slot, ERROR_CONNECT, strerror(error));
        else if (options.through_proxy) ask_proxy(slot);
        else begin_session(slot);
        break;
    }
    case ASKING_PROXY: read_proxy_answer(slot); break;
    case HANDSHAKING: handshake(slot); break;
    case OPEN: protocol_ready(slot, events); break;
    case CLOSED: break; /* an event of this batch for a socket that another event of it closed */
    }
}

static void check_timeouts(void) {
    double oldest = now_seconds() - options.timeout;
    for (unsigned i = 0; i < options.connections; i++) {
        Slot *slot = &slots[i];
        if (slot->state == OPEN) protocol_time_out(slot, oldest);
        else if (slot->state != CLOSED && slot->began < oldest) fail_connection(slot, ERROR_TIMEOUT, "no connection in time");
    }
}

static void run_phase(void) {
    issued = in_flight = 0;
    outcome_begin(&outcome);
    stop_at = outcome.started + options.seconds;
    for (unsigned i = 0; i < options.connections; i++) start_requests(&slots[i]);
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
    SSL_CTX_set_alpn_protos(context, (const unsigned char *)PROTOCOL_ALPN, (unsigned)strlen(PROTOCOL_ALPN));
    if (options.resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_ticket);
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
    protocol_prepare();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    slots = calloc(options.connections, sizeof *slots);
    if (poller < 0 || !slots) die("set-up");
    for (unsigned i = 0; i < options.connections; i++) {
        if (!(slots[i].head_bytes = malloc(HEAD_SIZE))) die("malloc");
        protocol_add(&slots[i]);
    }
    prepare_tls();
    if (asprintf(&connect_bytes, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", options.target, options.target) < 0) die("asprintf");
    connect_length = strlen(connect_bytes);
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
