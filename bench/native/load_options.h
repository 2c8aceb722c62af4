/* What the load client is told on its command line, and how it ends when it cannot do that. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    struct sockaddr_in address;
    const char *target, *name, *ca, *path;
    bool through_proxy, plain, resume, insecure, gate;
    unsigned connections, streams, timeout, max_errors;
    uint64_t requests, warmup, per_connection, post, expected;
    double seconds;
    int tls_version;
} Options;

extern Options options;

/* Say what failed, and errno or OpenSSL's errors with it; exit status 2. */
_Noreturn void die(const char *what);

/* Complain about the command line and show the usage; exit status 2. */
_Noreturn void usage(const char *complaint);

void parse_options(int argc, char **argv);

#endif
