/* The origin's HTTP/2: `/<n>` is answered with n bytes, once the whole request was read. libnghttp2 speaks. */
#define _GNU_SOURCE
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http2_output.h"
#include "origin.h"

enum { MAX_STREAMS = 1000, READ_SIZE = 65536 };

/* A request and what is still to be written of its answer. */
typedef struct {
    bool known;              /* its path is one that we answer */
    uint64_t size, left;
} Request;

struct Talk {
    nghttp2_session *session;
    Http2Output output;
    uint64_t sent;
};

const char PROTOCOL_ALPN[] = "\x02h2";

static nghttp2_session_callbacks *callbacks;
static uint8_t letters[26 * 1024];
static char scratch[READ_SIZE];

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *unused) {
    (void)unused;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    Request *request = calloc(1, sizeof *request);
    if (!request) die("calloc");
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, request);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length, const uint8_t *value,
                     size_t value_length, uint8_t flags, void *unused) {
    (void)flags, (void)unused;
    Request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!request || name_length != 5 || memcmp(name, ":path", 5) != 0) return 0;
    uint64_t size = 0;
    for (size_t i = 1; i < value_length; i++) {
        if (value[i] < '0' || value[i] > '9' || size > MAX_BODY) return 0;
        size = size * 10 + (uint64_t)(value[i] - '0');
    }
    request->known = value_length > 1 && size <= MAX_BODY;
    request->size = request->left = size;
    return 0;
}

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags, nghttp2_data_source *source,
                           void *unused) {
    (void)session, (void)id, (void)unused;
    Request *request = source->ptr;
    size_t length = request->left < room ? (size_t)request->left : room;
    size_t phase = (size_t)((request->size - request->left) % 26);
    if (length > sizeof letters - phase) length = sizeof letters - phase;
    memcpy(into, letters + phase, length);
    request->left -= length;
    if (!request->left) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

#define FIELD(name, value, length) {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, (length), NGHTTP2_NV_FLAG_NONE}

static int answer(nghttp2_session *session, int32_t id, Request *request) {
    if (!request->known) {
        fprintf(stderr, "origin: no answer for this path (use /<bytes> up to %llu)\n", (unsigned long long)MAX_BODY);
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
    }
    char length_text[32];
    size_t digits = (size_t)snprintf(length_text, sizeof length_text, "%llu", (unsigned long long)request->size);
    const nghttp2_nv fields[] = {
        FIELD(":status", "200", 3),
        FIELD("server", "bench-origin", 12),
        FIELD("content-type", "application/octet-stream", 24),
        FIELD("content-length", length_text, digits),
    };
    nghttp2_data_provider body = {.source.ptr = request, .read_callback = read_answer};
    return nghttp2_submit_response(session, id, fields, sizeof fields / sizeof *fields, request->size ? &body : NULL);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *unused) {
    (void)unused;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    Request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    return request ? answer(session, frame->hd.stream_id, request) : 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *unused) {
    (void)code, (void)unused;
    free(nghttp2_session_get_stream_user_data(session, id));
    return 0;
}

void protocol_prepare(void) {
    for (size_t i = 0; i < sizeof letters; i++) letters[i] = (uint8_t)('a' + i % 26);
    if (nghttp2_session_callbacks_new(&callbacks) != 0) die("nghttp2_session_callbacks_new");
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}

void protocol_open(Connection *connection) {
    struct Talk *talk = connection->talk = calloc(1, sizeof *talk);
    if (!talk || nghttp2_session_server_new(&talk->session, callbacks, NULL) != 0) die("nghttp2_session_server_new");
    http2_announce(talk->session, (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS});
}

/* The streams that are still open have no on_stream_close. */
static void free_open_requests(nghttp2_session *session) {
    nghttp2_stream *root = nghttp2_session_get_root_stream(session);
    for (nghttp2_stream *stream = nghttp2_stream_get_first_child(root); stream; stream = nghttp2_stream_get_next_sibling(stream)) {
        int32_t id = nghttp2_stream_get_stream_id(stream);
        free(nghttp2_session_get_stream_user_data(session, id));
    }
}

void protocol_close(Connection *connection) {
    free_open_requests(connection->talk->session);
    nghttp2_session_del(connection->talk->session);
    free(connection->talk);
}

int protocol_ready(Connection *connection, uint32_t events) {
    struct Talk *talk = connection->talk;
    ssize_t got = 0;
    if (events & ~(uint32_t)EPOLLOUT) {
        while ((got = channel_read(&connection->channel, scratch, sizeof scratch)) > 0)
            if (nghttp2_session_mem_recv(talk->session, (const uint8_t *)scratch, (size_t)got) < 0) return -1;
        if (got < 0) return -1;
    }
    if (connection->channel.ssl && !SSL_is_init_finished(connection->channel.ssl)) return 0;
    ssize_t written = http2_write(talk->session, &talk->output, &connection->channel, &talk->sent);
    if (written < 0) return -1;
    /* A full socket must not keep us from reading: WINDOW_UPDATEs and requests still come. */
    return watch(connection, written ? EPOLLIN : EPOLLIN | EPOLLOUT);
}
