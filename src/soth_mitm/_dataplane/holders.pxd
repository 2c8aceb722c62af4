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
    int64_t connection     # whose socket was found here last
    uint64_t used          # when, in look-ups


cdef class RecentHolders:
    cdef bytes proc                       # where procfs is mounted
    cdef Holder[RECENT_HOLDERS] holders   # in the order in which they are tried
    cdef int count
    cdef int freed                        # how many at the front were given free since they were taken
    cdef uint64_t clock

    cdef void pass_over(self, int places) noexcept     # ask the first `places` last
    cdef void take(self, int place) noexcept           # it is in use now: ask it after all others
