# Processes that held a client's socket lately, and at which descriptor.

from libc.stdint cimport int64_t, uint64_t


cdef extern from "procfs.h" nogil:
    ctypedef struct SothProcess:
        int64_t pid
        uint64_t start
        uint64_t stack
        int sockets

    bint soth_open_process(const char* proc, int64_t pid, SothProcess* process) noexcept
    void soth_close_process(SothProcess* process) noexcept
    bint soth_is_same(const SothProcess* process) noexcept
    bint soth_holds_socket(int sockets, int64_t descriptor, uint64_t inode) noexcept


cdef enum:
    RECENT_HOLDERS = 48
    RECENT_PROCESSES = 32      # each costs two descriptors of ours


cdef struct Holder:
    int process            # its index in `processes`
    int64_t descriptor
    int64_t connection     # whose socket was found here last
    uint64_t used          # when, in look-ups


cdef class RecentHolders:
    cdef bytes proc                                # where procfs is mounted
    cdef Holder[RECENT_HOLDERS] holders            # in the order in which they are tried
    cdef int count
    cdef int freed                                 # how many at the front were given free since they were taken
    cdef uint64_t clock
    cdef bint closed
    cdef SothProcess[RECENT_PROCESSES] processes   # those of the places; pid 0: none
    cdef list tokens                               # their start tokens

    # Who holds the socket of `inode` at a place of its own, an index of `processes`; that place is in use from now on. -1: nobody known
    cdef int process_of(self, uint64_t inode, int64_t connection) noexcept
    cdef object identity(self, int process)            # (pid, start token) of that one; None for -1
    # A place for `pid`, which is opened unless it is; -1: there is no such process any more, or we may not look
    cdef int index_of(self, int64_t pid) except -2
    cdef int free_index(self) noexcept                 # of `processes`; the one that was not useful for longest gives way
    cdef void forget(self, int process) noexcept       # and its places
    cdef void remove(self, int place) noexcept         # and its process, when it was its last
    cdef void pass_over(self, int places) noexcept     # ask the first `places` last
    cdef void take(self, int place) noexcept           # it is in use now: ask it after all others
