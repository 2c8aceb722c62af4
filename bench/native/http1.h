/* The little of HTTP/1.1 that a load client and an origin need: find a head, read its few framing headers, skip a body.
 *
 * Both sides of a measurement are ours, so this parser trusts its peer: it never guards against smuggling and must not be copied into
 * a proxy. It does say when a message is malformed, so that a broken opponent is counted as broken. */
#ifndef BENCH_HTTP1_H
#define BENCH_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* What a head says about what follows it. */
typedef struct {
    int status;              /* responses only: the three digits, 0 on a request */
    bool has_length;         /* Content-Length was there */
    bool chunked;            /* the body is chunked */
    bool close;              /* the connection ends after this message */
    uint64_t content_length; /* bytes; meaningful with has_length */
} Http1Head;

/* A chunked body on its way; zero it to start. */
typedef struct {
    enum { CHUNK_SIZE, CHUNK_SIZE_REST, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNK_DONE } state;
    uint64_t left;     /* bytes of the current chunk still to come */
    uint64_t body;     /* body bytes seen so far */
    unsigned digits;   /* digits of the size line read so far */
    unsigned line;     /* bytes of the current trailer line, CR and LF not counted */
} Http1Chunks;

/* Return the length of the head at the start of the bytes, its empty line included, or 0 when it is not complete. */
static inline size_t http1_head_length(const char *bytes, size_t length) {
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    return end ? (size_t)(end - bytes) + 4 : 0;
}

/* Tell whether the header line is called `name` (which ends in a colon) and put its value's start into `value`. */
static inline bool http1_header_is(const char *line, size_t length, const char *name, size_t name_length, const char **value) {
    if (length < name_length || strncasecmp(line, name, name_length) != 0) return false;
    const char *cursor = line + name_length;
    while (cursor < line + length && (*cursor == ' ' || *cursor == '\t')) cursor++;
    *value = cursor;
    return true;
}

/* Read the framing headers of a complete head; 0, or -1 when it is malformed. */
static inline int http1_parse_head(const char *bytes, size_t length, bool response, Http1Head *head) {
    memset(head, 0, sizeof *head);
    if (response) {
        if (length < 13 || memcmp(bytes, "HTTP/1.", 7) != 0 || bytes[8] != ' ') return -1;
        for (int i = 9; i < 12; i++) {
            if (bytes[i] < '0' || bytes[i] > '9') return -1;
            head->status = head->status * 10 + (bytes[i] - '0');
        }
        head->close = bytes[7] == '0';
    }
    const char *end = bytes + length - 2;
    const char *line = memchr(bytes, '\n', length);
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(bytes + length - line));
        size_t line_length = (size_t)(next - line);
        const char *value;
        if (http1_header_is(line, line_length, "content-length:", 15, &value)) {
            if (*value < '0' || *value > '9') return -1;
            head->has_length = true;
            head->content_length = 0;
            while (*value >= '0' && *value <= '9') head->content_length = head->content_length * 10 + (uint64_t)(*value++ - '0');
        } else if (http1_header_is(line, line_length, "transfer-encoding:", 18, &value)) {
            head->chunked = strncasecmp(value, "chunked", 7) == 0;
        } else if (http1_header_is(line, line_length, "connection:", 11, &value)) {
            if (strncasecmp(value, "close", 5) == 0) head->close = true;
            else if (strncasecmp(value, "keep-alive", 10) == 0) head->close = false;
        }
        line = next;
    }
    return 0;
}

static inline int http1_hex_digit(char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
    return -1;
}

/* Take bytes of a chunked body until it is done or they are used up; return how many were taken, or -1 when they are malformed. */
static inline long http1_feed_chunks(Http1Chunks *chunks, const char *bytes, size_t length) {
    size_t at = 0;
    while (at < length && chunks->state != CHUNK_DONE) {
        char byte = bytes[at];
        int digit;
        switch (chunks->state) {
        case CHUNK_SIZE:
            digit = http1_hex_digit(byte);
            if (digit >= 0) {
                if (++chunks->digits > 15) return -1;
                chunks->left = chunks->left * 16 + (uint64_t)digit;
            } else if (chunks->digits == 0) {
                return -1;
            } else {
                chunks->state = CHUNK_SIZE_REST;
                continue;
            }
            break;
        case CHUNK_SIZE_REST:
            if (byte == '\n') chunks->state = chunks->left ? CHUNK_DATA : CHUNK_TRAILER;
            break;
        case CHUNK_DATA: {
            size_t taken = length - at < chunks->left ? length - at : (size_t)chunks->left;
            chunks->left -= taken;
            chunks->body += taken;
            at += taken;
            if (chunks->left == 0) chunks->state = CHUNK_DATA_END;
            continue;
        }
        case CHUNK_DATA_END:
            if (byte == '\n') {
                chunks->state = CHUNK_SIZE;
                chunks->digits = 0;
            } else if (byte != '\r') {
                return -1;
            }
            break;
        case CHUNK_TRAILER:
            if (byte == '\n') {
                if (chunks->line == 0) chunks->state = CHUNK_DONE;
                chunks->line = 0;
            } else if (byte != '\r') {
                chunks->line++;
            }
            break;
        case CHUNK_DONE:
            break;
        }
        at++;
    }
    return (long)at;
}

#endif
