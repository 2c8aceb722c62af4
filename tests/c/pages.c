/* ext/pages.h: advice for whole pages of what was given and for nothing else, and every byte stays as it was. */
#define _GNU_SOURCE
#include "pages.h"

#include "guard.h"

#define SIZE ((size_t)4 << 20)

/* Whether the mapping with this address was advised so: 1, 0, or -1 where the kernel does not tell. */
static int is_advised(const char *address)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    int inside = 0, advised = -1;
    if (maps == NULL)
        return -1;
    while (fgets(line, sizeof line, maps)) {
        unsigned long long start, end;
        if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
            inside = start <= (uintptr_t)address && (uintptr_t)address < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            advised = strstr(line, " hg") != NULL;
    }
    fclose(maps);
    return advised;
}

int main(void)
{
    const int known = access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0;
    char *area = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    CHECK(area != MAP_FAILED, "mmap");
    for (size_t i = 0; i < 2 * SIZE; i++)
        area[i] = (char)(i * 7);
    char *ours = area + (SOTH_PAGE - (uintptr_t)area % SOTH_PAGE) + 100;

    soth_prefer_large_pages(ours, 0);
    soth_prefer_large_pages(ours, SOTH_PAGE);
    CHECK(is_advised(ours) != 1, "less than a whole page");
    soth_prefer_large_pages(ours, SIZE);
    if (known && is_advised(ours) >= 0) {
        CHECK(is_advised(ours) == 0, "the page that begins before what was given");
        CHECK(is_advised(ours + SOTH_PAGE) == 1, "what was given");
        CHECK(is_advised(ours + SIZE - SOTH_PAGE) == 1, "its last whole page");
        CHECK(is_advised(ours + SIZE) == 0, "the page that ends behind what was given");
    }
    for (size_t i = 0; i < 2 * SIZE; i++)
        CHECK(area[i] == (char)(i * 7), "byte %zu", i);

    /* memory that is none is no fault */
    guard_open();
    soth_prefer_large_pages(guard_page - SIZE, 2 * SIZE);
    return 0;
}
