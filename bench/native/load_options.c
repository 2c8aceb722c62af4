/* Reads the load client's command line. */
#define _GNU_SOURCE
#include "load_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "failed");
    ERR_print_errors_fp(stderr);
    exit(2);
}

Options options = {.path = "/1024", .connections = 16, .streams = 1, .timeout = 30, .max_errors = 100, .expected = UINT64_MAX};

static const char USAGE[] =
    "usage: load --connect IPV4:PORT [options]     (dial a TLS server, or with --proxy an HTTP proxy)\n"
    "  --proxy               send CONNECT for --target first        --target HOST:PORT  of CONNECT and Host [--connect]\n"
    "  --plain               no TLS                                 --name NAME         SNI and verified name [host of --target]\n"
    "  --ca FILE | --insecure  whom to trust [system roots]         --tls 1.2|1.3       exactly this version\n"
    "  --path PATH           [/1024]                                --post BYTES        POST a body of this size\n"
    "  --expect BYTES        length of every response body          --connections N     concurrent [16]\n"
    "  --requests N | --seconds S  how long to measure              --warmup N          requests before [0]\n"
    "  --streams N           concurrent on one connection [1]: load-http2 only\n"
    "  --per-connection N    requests on one connection [0: all]    --resume            resume TLS sessions\n"
    "  --timeout S           for one request [30]                   --max-errors N      give up after [100]\n"
    "  --gate                print \"warm\" and wait for a line on stdin before measuring; wait again after the JSON line\n"
    "  --watchdog S          end with SIGALRM after so long, whatever happens\n";

void usage(const char *complaint) {
    fprintf(stderr, "load: %s\n%s", complaint, USAGE);
    exit(2);
}

static void parse_address(const char *text) {
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || colon - text >= (long)sizeof host) usage("--connect wants IPV4:PORT");
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    options.address.sin_family = AF_INET;
    options.address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &options.address.sin_addr) != 1 || !options.address.sin_port) usage("--connect wants IPV4:PORT");
    if (!options.target) options.target = text;
}

void parse_options(int argc, char **argv) {
    enum { CONNECT = 256, PROXY, TARGET, PLAIN, NAME, CA, INSECURE, TLS, PATH, POST, EXPECT, CONNECTIONS, REQUESTS, SECONDS, WARMUP,
           STREAMS, PER_CONNECTION, RESUME, TIMEOUT, MAX_ERRORS, GATE, WATCHDOG };
    static const struct option known[] = {
        {"connect", 1, 0, CONNECT}, {"proxy", 0, 0, PROXY}, {"target", 1, 0, TARGET}, {"plain", 0, 0, PLAIN}, {"name", 1, 0, NAME},
        {"ca", 1, 0, CA}, {"insecure", 0, 0, INSECURE}, {"tls", 1, 0, TLS}, {"path", 1, 0, PATH}, {"post", 1, 0, POST},
        {"expect", 1, 0, EXPECT}, {"connections", 1, 0, CONNECTIONS}, {"requests", 1, 0, REQUESTS}, {"seconds", 1, 0, SECONDS},
        {"warmup", 1, 0, WARMUP}, {"per-connection", 1, 0, PER_CONNECTION}, {"resume", 0, 0, RESUME}, {"timeout", 1, 0, TIMEOUT},
        {"streams", 1, 0, STREAMS},
        {"max-errors", 1, 0, MAX_ERRORS}, {"gate", 0, 0, GATE}, {"watchdog", 1, 0, WATCHDOG}, {0, 0, 0, 0}};
    const char *address = NULL;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case CONNECT: address = optarg; break;
        case PROXY: options.through_proxy = true; break;
        case TARGET: options.target = optarg; break;
        case PLAIN: options.plain = true; break;
        case NAME: options.name = optarg; break;
        case CA: options.ca = optarg; break;
        case INSECURE: options.insecure = true; break;
        case TLS: options.tls_version = strcmp(optarg, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION; break;
        case PATH: options.path = optarg; break;
        case POST: options.post = strtoull(optarg, NULL, 10); break;
        case EXPECT: options.expected = strtoull(optarg, NULL, 10); break;
        case CONNECTIONS: options.connections = (unsigned)atoi(optarg); break;
        case STREAMS: options.streams = (unsigned)atoi(optarg); break;
        case REQUESTS: options.requests = strtoull(optarg, NULL, 10); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case WARMUP: options.warmup = strtoull(optarg, NULL, 10); break;
        case PER_CONNECTION: options.per_connection = strtoull(optarg, NULL, 10); break;
        case RESUME: options.resume = true; break;
        case TIMEOUT: options.timeout = (unsigned)atoi(optarg); break;
        case MAX_ERRORS: options.max_errors = (unsigned)atoi(optarg); break;
        case GATE: options.gate = true; break;
        case WATCHDOG: alarm((unsigned)atoi(optarg)); break;
        default: usage("unknown option");
        }
    }
    if (!address) usage("--connect is missing");
    parse_address(address);
    if (!options.connections) usage("--connections wants at least 1");
    if (!options.streams) usage("--streams wants at least 1");
    if (!options.requests == !(options.seconds > 0)) usage("give one of --requests and --seconds");
    if (!options.name) {
        const char *colon = strrchr(options.target, ':');
        options.name = strndup(options.target, colon ? (size_t)(colon - options.target) : strlen(options.target));
    }
}
