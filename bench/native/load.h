/* What load.c does for both protocols, and what load_http1.c and load_http2.c each do for it. */
#ifndef LOAD_H
#define LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "load_options.h"
#include "outcome.h"

enum { HEAD_SIZE = 16384, SCRATCH_SIZE = 262144 };

typedef enum {
    CLOSED,         /* no socket */
    CONNECTING,     /* TCP handshake */
    ASKING_PROXY,   /* CONNECT written, its answer awaited */
    HANDSHAKING,    /* TLS handshake */
    OPEN            /* the protocol speaks */
} State;

/* One of the concurrent connections; reopened in place. */
typedef struct {
    State state;
    Channel channel;
    SSL_SESSION *ticket;     /* newest, kept over reopening when sessions are resumed */
    unsigned claimed;        /* requests that are this connection's to make or under way on it */
    double began;            /* when the connection, or the newest request on it, began; seconds */
    size_t head_length;      /* bytes kept of a head that came in pieces */
    char *head_bytes;        /* HEAD_SIZE bytes */
    struct Talk *talk;       /* the protocol's own */
} Slot;

extern Outcome outcome;
extern char scratch[SCRATCH_SIZE];

/* Let the slot make as many requests as it may, and open its connection for them. */
void start_requests(Slot *slot);
/* Count an answer that is as expected. */
void finish_request(Slot *slot, double began);
/* Count an error of one request; its connection goes on. */
void fail_request(Slot *slot, ErrorClass class, const char *detail);
/* Count an error of each request that the connection has, close it and go on with the next requests. */
void fail_connection(Slot *slot, ErrorClass class, const char *detail);
void close_slot(Slot *slot);

/* What ALPN offers, as its wire format has it. */
extern const char PROTOCOL_ALPN[];
/* Whether a peer must choose it; otherwise it may choose nothing. */
extern const bool PROTOCOL_NEEDS_ALPN;
/* Make what all requests share; once, before anything is dialled. */
void protocol_prepare(void);
/* Make what one slot needs; once. */
void protocol_add(Slot *slot);
/* A connection stands, and nothing was said on it. */
void protocol_open(Slot *slot);
/* Make the requests that are claimed and not made. */
void protocol_request(Slot *slot);
/* The socket has news. */
void protocol_ready(Slot *slot, uint32_t events);
/* Whether the next request wants another connection. */
bool protocol_is_used_up(const Slot *slot);
/* Fail what began before `oldest`. */
void protocol_time_out(Slot *slot, double oldest);
/* The connection is being closed. */
void protocol_close(Slot *slot);

#endif
