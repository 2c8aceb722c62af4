/* Linux procfs: a process held by open files, so that nothing else can pass for it, and whether it holds a socket at a descriptor.
 * Elsewhere no process can be held. */
#ifndef SOTH_PROCFS_H
#define SOTH_PROCFS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t pid;
    int64_t parent;
    uint64_t start; /* clock ticks since boot */
    uint64_t stack; /* bottom of the stack: it moves when the process executes another program; 0 for what we may not inspect */
    int sockets;    /* its directory of descriptors: this process's for ever, whoever has its pid later */
    int image;      /* its environment, which can be read until it ends or executes another program; -1: that tells nothing */
    int stat;       /* instead of that: its stat, to be compared with the above; else -1 */
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

static inline int soth_open_of(const char *proc, int64_t pid, const char *name, int flags)
{
    char path[SOTH_PROCFS_PATH];
    const int length = snprintf(path, sizeof path, "%s/%lld/%s", proc, (long long)pid, name);
    return length < 0 || (size_t)length >= sizeof path ? -1 : open(path, O_RDONLY | O_CLOEXEC | flags);
}

static inline void soth_close(int file)
{
    if (file >= 0)
        close(file);
}

static inline int soth_read_stat(int file, SothProcess *process)
{
    char text[2048];
    const ssize_t n = pread(file, text, sizeof text, 0);
    return n > 0 && soth_parse_stat(text, (size_t)n, process);
}

static inline void soth_close_process(SothProcess *process)
{
    soth_close(process->sockets);
    soth_close(process->image);
    soth_close(process->stat);
    process->pid = 0;
}

static inline int soth_stat_is_same(const SothProcess *process)
{
    SothProcess now = {0};
    return soth_read_stat(process->stat, &now) && now.start == process->start && now.stack == process->stack;
}

/* Does its memory end with the program that it executes? A child that has executed none yet has its parent's stack, and may share all of
 * its parent's memory (vfork(2)), which outlives what the child executes then. */
static inline int soth_has_own_memory(const char *proc, const SothProcess *process)
{
    SothProcess parent = {0};
    const int stat = soth_open_of(proc, process->parent, "stat", 0);
    const int found = stat >= 0 && soth_read_stat(stat, &parent);
    soth_close(stat);
    return found && parent.stack != process->stack;
}

/* Hold process `pid` until soth_close_process(). 0 when there is no such process, or we may not look, or it executes another program
 * this very moment; then nothing is held. */
static inline int soth_open_process(const char *proc, int64_t pid, SothProcess *process)
{
    char byte;
    process->pid = pid;
    process->sockets = soth_open_of(proc, pid, "fd", O_DIRECTORY);
    process->stat = soth_open_of(proc, pid, "stat", 0);
    const int found = process->sockets >= 0 && process->stat >= 0 && soth_read_stat(process->stat, process);
    process->image = soth_open_of(proc, pid, "environ", 0);
    /* what was opened in between is of the program that the stat is of */
    if (!found || !soth_stat_is_same(process)) {
        soth_close_process(process);
        return 0;
    }
    if (process->image >= 0 && pread(process->image, &byte, 1, 0) == 1 && soth_has_own_memory(proc, process)) {
        close(process->stat);
        process->stat = -1;
    } else {
        soth_close(process->image);
        process->image = -1;
    }
    return 1;
}

/* Does it live, and execute the program that it did when it was opened? */
static inline int soth_is_same(const SothProcess *process)
{
    char byte;
    return process->image >= 0 ? pread(process->image, &byte, 1, 0) == 1 : soth_stat_is_same(process);
}

/* Is the socket of `inode` held at `descriptor` in the directory of descriptors `sockets`? */
static inline int soth_holds_socket(int sockets, int64_t descriptor, uint64_t inode)
{
    char name[24], found[64], wanted[64];
    snprintf(name, sizeof name, "%lld", (long long)descriptor);
    const int n = snprintf(wanted, sizeof wanted, "socket:[%llu]", (unsigned long long)inode);
    return sockets >= 0 && readlinkat(sockets, name, found, sizeof found) == n && memcmp(found, wanted, (size_t)n) == 0;
}

#else

static inline void soth_close_process(SothProcess *process)
{
    process->pid = 0;
}

static inline int soth_open_process(const char *proc, int64_t pid, SothProcess *process)
{
    (void)proc, (void)pid, (void)process;
    return 0;
}

static inline int soth_is_same(const SothProcess *process)
{
    (void)process;
    return 0;
}

static inline int soth_holds_socket(int sockets, int64_t descriptor, uint64_t inode)
{
    (void)sockets, (void)descriptor, (void)inode;
    return 0;
}

#endif
#endif
