/* How the system provides memory that is about to be written to. */
#ifndef SOTH_PAGES_H
#define SOTH_PAGES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

/* The largest page that any system counts in; advice begins and ends at one. */
enum { SOTH_PAGE = 65536 };

/* Advise the system to provide the n bytes at p in large pieces, where it has such: in small ones they cost more than what is done with
 * them. What lies there stays as it is. */
static inline void soth_prefer_large_pages(const char *p, size_t n)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t start = ((uintptr_t)p + SOTH_PAGE - 1) / SOTH_PAGE * SOTH_PAGE;
    const uintptr_t end = ((uintptr_t)p + n) / SOTH_PAGE * SOTH_PAGE;
    if (start < end)
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)p;
    (void)n;
#endif
}

#endif
