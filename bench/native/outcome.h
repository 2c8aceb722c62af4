/* What a load run counts, and the one JSON line it ends with. */
#ifndef BENCH_OUTCOME_H
#define BENCH_OUTCOME_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef enum {
    ERROR_CONNECT,       /* TCP connection refused or failed */
    ERROR_PROXY,         /* CONNECT answered with something other than 200 */
    ERROR_TLS,           /* handshake or record failed, certificates included */
    ERROR_STATUS,        /* response status other than 200 */
    ERROR_LENGTH,        /* response body of another length than expected */
    ERROR_PROTOCOL,      /* not HTTP, or bytes nobody asked for */
    ERROR_CLOSED,        /* connection over before the response was complete */
    ERROR_TIMEOUT,       /* no complete response within --timeout */
    ERROR_CLASSES
} ErrorClass;

static const char *const ERROR_NAMES[ERROR_CLASSES] = {"connect", "proxy", "tls", "status", "length", "protocol", "closed", "timeout"};

typedef struct {
    uint64_t requests;                 /* answered with the status and the length that were expected */
    uint64_t errors[ERROR_CLASSES];
    uint64_t full_handshakes, resumed_handshakes;
    uint64_t sent, received;           /* bytes as the application sees them, CONNECT included, TLS framing not */
    uint32_t *samples;                 /* latencies in tenths of a microsecond */
    size_t sample_count, sample_room;
    double started, ended;             /* seconds */
    double cpu_started, cpu_ended;     /* seconds of this process */
} Outcome;

static inline double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Start counting anew; the sample store is kept. */
static inline void outcome_begin(Outcome *outcome) {
    Outcome fresh = {.samples = outcome->samples, .sample_room = outcome->sample_room};
    *outcome = fresh;
    outcome->started = now_seconds();
    outcome->cpu_started = cpu_seconds();
}

static inline void outcome_end(Outcome *outcome) {
    outcome->ended = now_seconds();
    outcome->cpu_ended = cpu_seconds();
}

static inline void outcome_add_latency(Outcome *outcome, double seconds) {
    if (outcome->sample_count == outcome->sample_room) {
        outcome->sample_room = outcome->sample_room ? outcome->sample_room * 2 : 1 << 16;
        outcome->samples = realloc(outcome->samples, outcome->sample_room * sizeof *outcome->samples);
        if (!outcome->samples) abort();
    }
    double tenths = seconds * 1e7;
    outcome->samples[outcome->sample_count++] = tenths < 4294967295.0 ? (uint32_t)tenths : UINT32_MAX;
}

static inline uint64_t outcome_error_count(const Outcome *outcome) {
    uint64_t total = 0;
    for (int i = 0; i < ERROR_CLASSES; i++) total += outcome->errors[i];
    return total;
}

static inline int compare_samples(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

/* Return the latency in microseconds that the given share of the sorted samples does not exceed. */
static inline double outcome_percentile(const Outcome *outcome, double share) {
    if (!outcome->sample_count) return 0;
    size_t rank = (size_t)(share * (double)outcome->sample_count);
    if (rank >= outcome->sample_count) rank = outcome->sample_count - 1;
    return outcome->samples[rank] / 10.0;
}

static inline void outcome_print(Outcome *outcome) {
    if (outcome->sample_count) qsort(outcome->samples, outcome->sample_count, sizeof *outcome->samples, compare_samples);
    double seconds = outcome->ended - outcome->started;
    printf("{\"requests\": %llu, \"errors\": {\"total\": %llu", (unsigned long long)outcome->requests,
           (unsigned long long)outcome_error_count(outcome));
    for (int i = 0; i < ERROR_CLASSES; i++) printf(", \"%s\": %llu", ERROR_NAMES[i], (unsigned long long)outcome->errors[i]);
    printf("}, \"seconds\": %.6f, \"rate\": %.1f", seconds, seconds > 0 ? (double)outcome->requests / seconds : 0.0);
    printf(", \"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}", outcome_percentile(outcome, 0.5),
           outcome_percentile(outcome, 0.9), outcome_percentile(outcome, 0.99), outcome_percentile(outcome, 1.0));
    printf(", \"handshakes\": {\"full\": %llu, \"resumed\": %llu}", (unsigned long long)outcome->full_handshakes,
           (unsigned long long)outcome->resumed_handshakes);
    printf(", \"bytes\": {\"sent\": %llu, \"received\": %llu}, \"cpu_seconds\": %.6f}\n", (unsigned long long)outcome->sent,
           (unsigned long long)outcome->received, outcome->cpu_ended - outcome->cpu_started);
    fflush(stdout);
}

#endif
