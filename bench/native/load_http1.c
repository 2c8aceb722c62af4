/* The load client's HTTP/1.1: one request in flight on each connection, the same bytes each time. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http1.h"
#include "load.h"

/* The request in flight, and its answer. */
struct Talk {
    uint64_t used;           /* requests answered on this connection */
    size_t written;
    bool in_body;
    Http1Head head;
    uint64_t body;           /* body bytes seen */
    Http1Chunks chunks;
};

const char PROTOCOL_ALPN[] = "\x08http/1.1";
const bool PROTOCOL_NEEDS_ALPN = false;

static char *request_bytes;
static size_t request_length;

void protocol_prepare(void) {
    if (options.streams != 1) usage("--streams is for HTTP/2: use load-http2");
    char *head, length_header[128] = "";
    if (options.post)
        snprintf(length_header, sizeof length_header, "Content-Type: application/octet-stream\r\nContent-Length: %llu\r\n",
                 (unsigned long long)options.post);
    static const char format[] =
        "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench-load/1\r\nAccept: */*\r\nAuthorization: Bearer not-a-secret\r\n%s\r\n";
    int length = asprintf(&head, format, options.post ? "POST" : "GET", options.path, options.target, length_header);
    if (length < 0) die("asprintf");
    request_length = (size_t)length + options.post;
    request_bytes = realloc(head, request_length + 1);
    if (!request_bytes) die("realloc");
    memset(request_bytes + length, 'p', options.post);
}

void protocol_add(Slot *slot) {
    slot->talk = calloc(1, sizeof *slot->talk);
    if (!slot->talk) die("calloc");
}

void protocol_open(Slot *slot) {
    slot->talk->used = 0;
}

void protocol_close(Slot *slot) {
    (void)slot;
}

bool protocol_is_used_up(const Slot *slot) {
    return options.per_connection && slot->talk->used >= options.per_connection;
}

static void write_request(Slot *slot) {
    struct Talk *talk = slot->talk;
    while (talk->written < request_length) {
        ssize_t put = channel_write(&slot->channel, request_bytes + talk->written, request_length - talk->written);
        if (put < 0) {
            fail_connection(slot, put == CHANNEL_BROKEN ? ERROR_TLS : ERROR_CLOSED, "while the request was written");
            return;
        }
        if (put == 0) return;
        talk->written += (size_t)put;
        outcome.sent += (uint64_t)put;
    }
}

void protocol_request(Slot *slot) {
    struct Talk *talk = slot->talk;
    *talk = (struct Talk){.used = talk->used};
    slot->head_length = 0;
    if (talk->used) slot->began = now_seconds(); /* the first one began with its connection */
    write_request(slot);
}

static void finish_response(Slot *slot) {
    struct Talk *talk = slot->talk;
    if (talk->head.status != 200) {
        char detail[64];
        snprintf(detail, sizeof detail, "got status %d", talk->head.status);
        fail_connection(slot, ERROR_STATUS, detail);
        return;
    }
    if (options.expected != UINT64_MAX && talk->body != options.expected) {
        char detail[96];
        snprintf(detail, sizeof detail, "got %llu bytes of body, expected %llu", (unsigned long long)talk->body,
                 (unsigned long long)options.expected);
        fail_connection(slot, ERROR_LENGTH, detail);
        return;
    }
    finish_request(slot, slot->began);
    talk->used++;
    if (talk->head.close) close_slot(slot);
    start_requests(slot);
}

/* Take response bytes; 1 when the response is complete, 0 when more is needed, -1 when the slot has failed. */
static int take_response(Slot *slot, const char *bytes, size_t length) {
    struct Talk *talk = slot->talk;
    if (!talk->in_body) {
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
            if (available >= HEAD_SIZE) return fail_connection(slot, ERROR_PROTOCOL, "response head too long"), -1;
            if (!kept) memcpy(slot->head_bytes, bytes, length);
            slot->head_length = available;
            return 0;
        }
        if (http1_parse_head(head, head_length, true, &talk->head) < 0) return fail_connection(slot, ERROR_PROTOCOL, "malformed response head"), -1;
        slot->head_length = 0;
        bytes += head_length - kept;
        length -= head_length - kept;
        if (talk->head.status >= 100 && talk->head.status < 200) return length ? take_response(slot, bytes, length) : 0;
        talk->in_body = true;
    }
    size_t taken = length;
    bool done = false;
    if (talk->head.chunked) {
        long fed = http1_feed_chunks(&talk->chunks, bytes, length);
        if (fed < 0) return fail_connection(slot, ERROR_PROTOCOL, "malformed chunk"), -1;
        taken = (size_t)fed;
        talk->body = talk->chunks.body;
        done = talk->chunks.state == CHUNK_DONE;
    } else if (talk->head.has_length) {
        uint64_t left = talk->head.content_length - talk->body;
        taken = length < left ? length : (size_t)left;
        talk->body += taken;
        done = talk->body == talk->head.content_length;
    } else {
        talk->body += length; /* until the peer closes */
    }
    if (taken < length) return fail_connection(slot, ERROR_PROTOCOL, "bytes after the end of the response"), -1;
    return done;
}

static void read_response(Slot *slot) {
    struct Talk *talk = slot->talk;
    for (;;) {
        ssize_t got = channel_read(&slot->channel, scratch, sizeof scratch);
        if (got == 0) return;
        if (got < 0) {
            if (talk->in_body && !talk->head.has_length && !talk->head.chunked && got == CHANNEL_CLOSED) {
                talk->head.close = true;
                finish_response(slot);
            } else {
                fail_connection(slot, got == CHANNEL_BROKEN ? ERROR_TLS : ERROR_CLOSED, "before the response was complete");
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

/* Nothing is in flight: take tickets and the like, notice that the peer closed. */
static void drain_idle(Slot *slot) {
    ssize_t got = channel_read(&slot->channel, scratch, sizeof scratch);
    if (got > 0) {
        fail_connection(slot, ERROR_PROTOCOL, "bytes while no request was in flight");
    } else if (got < 0) {
        slot->channel.failed = true;
        close_slot(slot);
    }
}

void protocol_ready(Slot *slot, uint32_t events) {
    if (!slot->claimed) {
        drain_idle(slot);
        return;
    }
    if (slot->talk->written < request_length && events & EPOLLOUT) write_request(slot);
    if (slot->state == OPEN && slot->talk->written == request_length) read_response(slot);
}

void protocol_time_out(Slot *slot, double oldest) {
    if (slot->claimed && slot->began < oldest) fail_connection(slot, ERROR_TIMEOUT, "no complete response in time");
}
