/* What origin.c does for both protocols, and what origin_http1.c and origin_http2.c each do for it. */
#ifndef ORIGIN_H
#define ORIGIN_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "channel.h"

/* The largest body that is asked for. */
static const uint64_t MAX_BODY = 128u << 20;

typedef struct {
    Channel channel;
    uint32_t watched;        /* what epoll looks for */
    struct Talk *talk;       /* the protocol's own */
} Connection;

_Noreturn void die(const char *what);
/* Have epoll look for these events; 0, or -1. */
int watch(Connection *connection, uint32_t events);

/* What ALPN chooses, as its wire format has it. */
extern const char PROTOCOL_ALPN[];
/* Once, before anything is accepted. */
void protocol_prepare(void);
/* A connection was accepted. */
void protocol_open(Connection *connection);
/* The socket can be read or, when that was watched for, written; 0, or -1 when the connection is over. */
int protocol_ready(Connection *connection, uint32_t events);
void protocol_close(Connection *connection);

#endif
