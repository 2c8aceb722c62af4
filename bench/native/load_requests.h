/* What the load client says: the same bytes on every connection, made once. */
#ifndef LOAD_REQUESTS_H
#define LOAD_REQUESTS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load_options.h"

static char *request_bytes, *connect_bytes;
static size_t request_length, connect_length;

static void prepare_requests(void) {
    if (asprintf(&connect_bytes, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", options.target, options.target) < 0) die("asprintf");
    connect_length = strlen(connect_bytes);
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

#endif
