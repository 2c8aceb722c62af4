/* The load client's HTTP/2: a fixed number of streams under way on each connection, the same request each time. libnghttp2 speaks. */
#define _GNU_SOURCE
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http2_output.h"
#include "load.h"

/* One request and its answer. */
typedef struct {
    int32_t id;              /* of the stream; 0: free */
    double began;
    int status;
    uint64_t body;           /* body bytes seen */
    uint64_t left;           /* body bytes of the request still to be written */
    bool ended;              /* the answer is complete */
} Request;

struct Talk {
    nghttp2_session *session;
    Http2Output output;
    unsigned under_way;      /* requests made and not over; the slot has claimed at least these */
    Request *requests;       /* options.streams of them */
};

const char PROTOCOL_ALPN[] = "\x02h2";
const bool PROTOCOL_NEEDS_ALPN = true;

static nghttp2_session_callbacks *callbacks;
static nghttp2_nv fields[8];
static size_t field_count;

static void add_field(const char *name, const char *value) {
    fields[field_count++] = (nghttp2_nv){.name = (uint8_t *)name, .namelen = strlen(name), .value = (uint8_t *)value,
                                         .valuelen = strlen(value)};
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length, const uint8_t *value,
                     size_t value_length, uint8_t flags, void *slot) {
    (void)flags, (void)slot;
    Request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (request && name_length == 7 && memcmp(name, ":status", 7) == 0 && value_length == 3)
        request->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *slot) {
    (void)flags, (void)bytes, (void)slot;
    Request *request = nghttp2_session_get_stream_user_data(session, id);
    if (request) request->body += length;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *slot) {
    (void)slot;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    Request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (request && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) request->ended = true;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user_data) {
    Slot *slot = user_data;
    Request *request = nghttp2_session_get_stream_user_data(session, id);
    if (!request) return 0;
    char detail[96];
    if (!request->ended) {
        snprintf(detail, sizeof detail, "stream %d reset: %s", id, nghttp2_http2_strerror(code));
        fail_request(slot, ERROR_CLOSED, detail);
    } else if (request->status != 200) {
        snprintf(detail, sizeof detail, "got status %d", request->status);
        fail_request(slot, ERROR_STATUS, detail);
    } else if (options.expected != UINT64_MAX && request->body != options.expected) {
        snprintf(detail, sizeof detail, "got %llu bytes of body, expected %llu", (unsigned long long)request->body,
                 (unsigned long long)options.expected);
        fail_request(slot, ERROR_LENGTH, detail);
    } else {
        finish_request(slot, request->began);
    }
    request->id = 0;
    slot->talk->under_way--;
    return 0;
}

static ssize_t write_body(nghttp2_session *session, int32_t id, uint8_t *into, size_t room, uint32_t *flags, nghttp2_data_source *source,
                          void *slot) {
    (void)session, (void)id, (void)slot;
    Request *request = source->ptr;
    size_t length = request->left < room ? (size_t)request->left : room;
    memset(into, 'p', length);
    request->left -= length;
    if (!request->left) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

void protocol_prepare(void) {
    static char length_text[32];
    if (options.per_connection) usage("--per-connection is for HTTP/1: use load");
    add_field(":method", options.post ? "POST" : "GET");
    add_field(":scheme", options.plain ? "http" : "https");
    add_field(":authority", options.target);
    add_field(":path", options.path);
    add_field("user-agent", "bench-load/1");
    add_field("accept", "*/*");
    add_field("authorization", "Bearer not-a-secret");
    if (options.post) {
        snprintf(length_text, sizeof length_text, "%llu", (unsigned long long)options.post);
        add_field("content-length", length_text);
    }
    if (nghttp2_session_callbacks_new(&callbacks) != 0) die("nghttp2_session_callbacks_new");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}

void protocol_add(Slot *slot) {
    slot->talk = calloc(1, sizeof *slot->talk);
    if (!slot->talk || !(slot->talk->requests = calloc(options.streams, sizeof(Request)))) die("calloc");
}

void protocol_open(Slot *slot) {
    struct Talk *talk = slot->talk;
    if (nghttp2_session_client_new(&talk->session, callbacks, slot) != 0) die("nghttp2_session_client_new");
    talk->output = (Http2Output){.length = 0};
    http2_announce(talk->session, (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
}

void protocol_close(Slot *slot) {
    struct Talk *talk = slot->talk;
    nghttp2_session_del(talk->session);
    talk->session = NULL;
    talk->under_way = 0;
    memset(talk->requests, 0, options.streams * sizeof *talk->requests);
}

bool protocol_is_used_up(const Slot *slot) {
    return !slot->talk->under_way && !nghttp2_session_check_request_allowed(slot->talk->session);
}

static void flush(Slot *slot) {
    ssize_t outcome_of_write = http2_write(slot->talk->session, &slot->talk->output, &slot->channel, &outcome.sent);
    if (outcome_of_write == CHANNEL_BROKEN) fail_connection(slot, ERROR_TLS, "while requests were written");
    else if (outcome_of_write < 0) fail_connection(slot, ERROR_CLOSED, "while requests were written");
}

void protocol_request(Slot *slot) {
    struct Talk *talk = slot->talk;
    Request *request = talk->requests;
    while (talk->under_way < slot->claimed && nghttp2_session_check_request_allowed(talk->session)) {
        while (request->id) request++;
        *request = (Request){.began = now_seconds(), .left = options.post};
        nghttp2_data_provider body = {.source.ptr = request, .read_callback = write_body};
        request->id = nghttp2_submit_request(talk->session, NULL, fields, field_count, options.post ? &body : NULL, request);
        if (request->id < 0) die(nghttp2_strerror(request->id));
        talk->under_way++;
    }
    flush(slot);
}

static void read_answers(Slot *slot) {
    struct Talk *talk = slot->talk;
    ssize_t got;
    while ((got = channel_read(&slot->channel, scratch, sizeof scratch)) > 0) {
        outcome.received += (uint64_t)got;
        ssize_t taken = nghttp2_session_mem_recv(talk->session, (const uint8_t *)scratch, (size_t)got);
        if (taken < 0) {
            fail_connection(slot, ERROR_PROTOCOL, nghttp2_strerror((int)taken));
            return;
        }
    }
    if (got < 0 && slot->claimed) {
        fail_connection(slot, got == CHANNEL_BROKEN ? ERROR_TLS : ERROR_CLOSED, "before all responses were complete");
    } else if (got < 0) {
        slot->channel.failed = true;
        close_slot(slot);
    } else {
        start_requests(slot);
        if (slot->state == OPEN && !slot->claimed) flush(slot); /* nothing to ask, but perhaps a SETTINGS to acknowledge */
    }
}

void protocol_ready(Slot *slot, uint32_t events) {
    if (events & EPOLLOUT) flush(slot);
    if (slot->state == OPEN) read_answers(slot);
}

void protocol_time_out(Slot *slot, double oldest) {
    for (unsigned i = 0; i < options.streams; i++) {
        if (slot->talk->requests[i].id && slot->talk->requests[i].began < oldest) {
            fail_connection(slot, ERROR_TIMEOUT, "no complete response in time");
            return;
        }
    }
}
