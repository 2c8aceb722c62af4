# Processes that held a client's socket lately, and at which descriptor.

from libc.stdint cimport int64_t, uint64_t


cdef extern from "procfs.h" nogil:
    ctypedef struct SothProcess:
        int64_t parent
        uint64_t start
        uint64_t stack

    bint soth_holds_socket(const char* proc, int64_t pid, int64_t descriptor, uint64_t inode) noexcept
    bint soth_read_process(const char* proc, int64_t pid, SothProcess* process) noexcept


cdef enum:
    RECENT_HOLDERS = 48


cdef struct Holder:
    int64_t pid
    int64_t descriptor


cdef class RecentHolders:
    cdef bytes proc                       # where procfs is mounted
    cdef Holder[RECENT_HOLDERS] holders   # the latest first
    cdef int count

    cdef void put_first(self, int place, Holder holder) noexcept
