/* The origin's HTTP/1.1: responses prepared once, head and body in one piece.
 *
 *   GET  /<n>       n bytes with Content-Length          POST /<n>   the same, after the whole body was read
 *   GET  /sse/<n>   n server-sent events, one chunk each, written at once */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "http1.h"
#include "origin.h"

enum { INPUT_SIZE = 16384, MAX_ANSWERS = 64 };

/* A response as it is written, head and body in one piece; made at the first request for its path and kept. */
typedef struct {
    char path[64];
    char *bytes;
    size_t length;
} Answer;

/* The request that is being read or answered. */
struct Talk {
    const Answer *answer;    /* being written, or NULL */
    size_t written;          /* bytes of it */
    bool close_after;        /* the client asked for it */
    bool in_body;            /* a request's head was taken, its body not yet */
    bool chunked;
    uint64_t body_left;
    Http1Chunks chunks;
    const Answer *next;      /* the answer to the request whose body is being read */
    size_t input_length;
    char input[INPUT_SIZE];
};

const char PROTOCOL_ALPN[] = "\x08http/1.1";

static Answer answers[MAX_ANSWERS];
static unsigned answer_count;

void protocol_prepare(void) {}

void protocol_open(Connection *connection) {
    connection->talk = calloc(1, sizeof *connection->talk);
    if (!connection->talk) die("calloc");
}

void protocol_close(Connection *connection) {
    free(connection->talk);
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

/* Write what is left of the answer; 1 when it is out, 0 when the socket is full, -1 when the connection is over. */
static int write_answer(Connection *connection) {
    struct Talk *talk = connection->talk;
    const Answer *answer = talk->answer;
    while (talk->written < answer->length) {
        ssize_t put = channel_write(&connection->channel, answer->bytes + talk->written, answer->length - talk->written);
        if (put < 0) return -1;
        /* not both: what the client sends during an answer waits in the kernel, and must not wake us */
        if (put == 0) return watch(connection, EPOLLOUT);
        talk->written += (size_t)put;
    }
    talk->answer = NULL;
    if (watch(connection, EPOLLIN) < 0) return -1;
    return talk->close_after ? -1 : 1;
}

static int answer_request(Connection *connection) {
    struct Talk *talk = connection->talk;
    talk->in_body = false;
    talk->answer = talk->next;
    talk->written = 0;
    return write_answer(connection);
}

/* Take a complete head from the start of the input; -1 when it is not for us. */
static int take_head(Connection *connection, size_t head_length) {
    struct Talk *talk = connection->talk;
    Http1Head head;
    if (http1_parse_head(talk->input, head_length, false, &head) < 0) return -1;
    const char *start = memchr(talk->input, ' ', head_length);
    if (!start) return -1;
    const char *end = memchr(start + 1, ' ', head_length - (size_t)(start + 1 - talk->input));
    char path[64];
    if (!end || end - start - 1 >= (long)sizeof path) return -1;
    memcpy(path, start + 1, (size_t)(end - start - 1));
    path[end - start - 1] = 0;
    talk->next = answer_for(path);
    if (!talk->next) {
        fprintf(stderr, "origin: no answer for %s (use /<bytes> up to %llu or /sse/<events>)\n", path, (unsigned long long)MAX_BODY);
        return -1;
    }
    talk->close_after = head.close;
    talk->chunked = head.chunked;
    talk->body_left = head.has_length ? head.content_length : 0;
    memset(&talk->chunks, 0, sizeof talk->chunks);
    talk->in_body = true;
    return 0;
}

/* Take body bytes: how many were taken, -1 when they are malformed; `*done` when the body is complete. */
static long take_body(Connection *connection, const char *bytes, size_t length, bool *done) {
    struct Talk *talk = connection->talk;
    if (talk->chunked) {
        long taken = http1_feed_chunks(&talk->chunks, bytes, length);
        *done = talk->chunks.state == CHUNK_DONE;
        return taken;
    }
    size_t taken = length < talk->body_left ? length : (size_t)talk->body_left;
    talk->body_left -= taken;
    *done = talk->body_left == 0;
    return (long)taken;
}

/* Serve every request that is complete in the input; stops at an answer that does not fit into the socket. -1: the connection is over. */
static int serve_input(Connection *connection) {
    struct Talk *talk = connection->talk;
    size_t at = 0;
    int outcome = 1;
    while (outcome == 1 && !talk->answer) {
        size_t left = talk->input_length - at;
        if (!talk->in_body) {
            memmove(talk->input, talk->input + at, left);
            talk->input_length = left;
            at = 0;
            size_t head_length = http1_head_length(talk->input, left);
            if (!head_length) return left == INPUT_SIZE ? -1 : 0;
            if (take_head(connection, head_length) < 0) return -1;
            at = head_length;
            left -= head_length;
        }
        bool done = false;
        long taken = take_body(connection, talk->input + at, left, &done);
        if (taken < 0) return -1;
        at += (size_t)taken;
        if (!done) break;
        outcome = answer_request(connection);
    }
    memmove(talk->input, talk->input + at, talk->input_length - at);
    talk->input_length -= at;
    return outcome < 0 ? -1 : 0;
}

/* Read and serve until nothing is left to read; -1 when the connection is over. */
static int on_readable(Connection *connection) {
    struct Talk *talk = connection->talk;
    ssize_t got;
    do {
        if (talk->answer) return 0; /* one answer at a time */
        got = channel_read(&connection->channel, talk->input + talk->input_length, INPUT_SIZE - talk->input_length);
        if (got < 0) return -1;
        if (got == 0) return 0;
        talk->input_length += (size_t)got;
        if (serve_input(connection) < 0) return -1;
    } while (connection->channel.ssl ? SSL_has_pending(connection->channel.ssl) : talk->in_body);
    return 0;
}

static int on_writable(Connection *connection) {
    struct Talk *talk = connection->talk;
    if (talk->answer) {
        int outcome = write_answer(connection);
        if (outcome <= 0) return outcome;
        if (serve_input(connection) < 0) return -1;
    }
    return on_readable(connection);
}

int protocol_ready(Connection *connection, uint32_t events) {
    return events & EPOLLOUT ? on_writable(connection) : on_readable(connection);
}
