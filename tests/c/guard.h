/* Memory that ends where readable memory ends, on either side, and the one assertion of these tests. */
#ifndef GUARD_H
#define GUARD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK(condition, ...)                                                                                                              \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                                \
            fprintf(stderr, __VA_ARGS__);                                                                                                  \
            fprintf(stderr, "\n");                                                                                                         \
            exit(1);                                                                                                                       \
        }                                                                                                                                  \
    } while (0)

static char *guard_page;
static size_t guard_size;

/* One readable page between two that are not. */
static inline void guard_open(void)
{
    guard_size = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 3 * guard_size, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(pages != MAP_FAILED, "mmap");
    CHECK(mprotect(pages + guard_size, guard_size, PROT_READ | PROT_WRITE) == 0, "mprotect");
    guard_page = pages + guard_size;
}

/* The n bytes so that the one after them cannot be read. */
static inline const char *at_end(const void *data, size_t n)
{
    return memcpy(guard_page + guard_size - n, data, n);
}

/* The n bytes so that the one before them cannot be read. */
static inline const char *at_start(const void *data, size_t n)
{
    return memcpy(guard_page, data, n);
}

#endif
