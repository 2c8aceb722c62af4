/* What both ends of a measurement do alike in HTTP/2: announce windows that never end, and write the session's frames in large pieces.
 *
 * The windows are as large as HTTP/2 allows, as h2load has them, so that only the proxy's own windows can hold a body up. */
#ifndef BENCH_HTTP2_OUTPUT_H
#define BENCH_HTTP2_OUTPUT_H

#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"

enum { HTTP2_OUTPUT_SIZE = 65536, HTTP2_WINDOW = (1u << 30) - 1 };

/* Frames on their way to the socket; zero it to start. */
typedef struct {
    size_t length, written;
    const uint8_t *piece;    /* of the session: what did not fit any more */
    size_t piece_left;
    char bytes[HTTP2_OUTPUT_SIZE];
} Http2Output;

/* Begin a session: SETTINGS with one entry of the caller's, and the connection's window. */
static inline void http2_announce(nghttp2_session *session, nghttp2_settings_entry own) {
    nghttp2_settings_entry settings[] = {own, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HTTP2_WINDOW}};
    if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 2) != 0) abort();
    if (nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, HTTP2_WINDOW) != 0) abort();
}

/* Take frames from the session until the output is full or there are none; -1 when the session is broken. */
static inline int http2_gather(nghttp2_session *session, Http2Output *output) {
    output->length = output->written = 0;
    while (output->length < HTTP2_OUTPUT_SIZE) {
        if (!output->piece_left) {
            ssize_t given = nghttp2_session_mem_send(session, &output->piece);
            if (given < 0) return -1;
            if (given == 0) return 0;
            output->piece_left = (size_t)given;
        }
        size_t room = HTTP2_OUTPUT_SIZE - output->length;
        size_t taken = output->piece_left < room ? output->piece_left : room;
        memcpy(output->bytes + output->length, output->piece, taken);
        output->length += taken;
        output->piece += taken;
        output->piece_left -= taken;
    }
    return 0;
}

/* Write all frames of the session: 1 when all are out, 0 when the socket is full, or what channel_write says of a connection that is over. */
static inline ssize_t http2_write(nghttp2_session *session, Http2Output *output, Channel *channel, uint64_t *sent) {
    for (;;) {
        if (output->written == output->length) {
            if (http2_gather(session, output) < 0) return CHANNEL_CLOSED;
            if (output->length == 0) return 1;
        }
        ssize_t put = channel_write(channel, output->bytes + output->written, output->length - output->written);
        if (put <= 0) return put;
        output->written += (size_t)put;
        *sent += (uint64_t)put;
    }
}

#endif
