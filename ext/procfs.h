/* Linux procfs: is a socket held at this descriptor of that process, and which process is it now. Elsewhere it knows of none. */
#ifndef SOTH_PROCFS_H
#define SOTH_PROCFS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t parent;
    uint64_t start; /* clock ticks since boot */
    uint64_t stack; /* bottom of the stack: it moves when the process executes another program; 0 for what we may not inspect */
} SothProcess;

/* The fields of /proc/<pid>/stat (proc(5)) behind the name, which may hold blanks and parentheses and so ends at the last one: the parent
 * is field 4, the start 22, the stack's bottom 28. 0 when `text` does not have them. */
static inline int soth_parse_stat(const char *text, size_t n, SothProcess *process)
{
    size_t i = n;
    int field = 2;
    while (i && text[i - 1] != ')')
        i--;
    if (!i)
        return 0;
    while (i < n && field < 28) {
        uint64_t value = 0;
        if (text[i++] != ' ')
            return 0;
        const size_t start = i;
        for (; i < n && text[i] != ' ' && text[i] != '\n'; i++)
            value = value * 10 + (uint64_t)(uint8_t)(text[i] - '0');
        if (i == start)
            return 0;
        field++;
        if (field == 4)
            process->parent = (int64_t)value;
        else if (field == 22)
            process->start = value;
        else if (field == 28)
            process->stack = value;
    }
    return field == 28;
}

#if defined(__linux__)

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SOTH_PROCFS_PATH = 512 };

/* Does process `pid` hold the socket of `inode` at `descriptor`? Also 0 when we may not look. */
static inline int soth_holds_socket(const char *proc, int64_t pid, int64_t descriptor, uint64_t inode)
{
    char path[SOTH_PROCFS_PATH], found[64], wanted[64];
    const int length = snprintf(path, sizeof path, "%s/%lld/fd/%lld", proc, (long long)pid, (long long)descriptor);
    const int n = snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)inode);
    if (length < 0 || (size_t)length >= sizeof path)
        return 0;
    return readlink(path, found, sizeof found) == n && memcmp(found, wanted, (size_t)n) == 0;
}

/* 0 when there is no such process, or we may not look. */
static inline int soth_read_process(const char *proc, int64_t pid, SothProcess *process)
{
    char path[SOTH_PROCFS_PATH], text[2048];
    const int length = snprintf(path, sizeof path, "%s/%lld/stat", proc, (long long)pid);
    if (length < 0 || (size_t)length >= sizeof path)
        return 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    const ssize_t n = read(file, text, sizeof text);
    close(file);
    return n > 0 && soth_parse_stat(text, (size_t)n, process);
}

#else

static inline int soth_holds_socket(const char *proc, int64_t pid, int64_t descriptor, uint64_t inode)
{
    (void)proc, (void)pid, (void)descriptor, (void)inode;
    return 0;
}

static inline int soth_read_process(const char *proc, int64_t pid, SothProcess *process)
{
    (void)proc, (void)pid, (void)process;
    return 0;
}

#endif
#endif
