# Processes that owned a client's socket lately, and at which descriptor.

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
    RECENT_SLOTS = 48
    RECENT_PROCESSES = 32      # each costs two descriptors of ours


cdef struct SocketOwner:
    int process            # its index in `processes`
    int64_t descriptor
    int64_t connection     # whose socket was found here last
    uint64_t used          # when, in look-ups


cdef class RecentSocketOwners:
    cdef bytes proc                                # where procfs is mounted
    cdef SocketOwner[RECENT_SLOTS] slots           # in the order in which they are tried
    cdef int count
    # how many at the front had their connection closed since
    cdef int reusable
    cdef uint64_t clock
    cdef bint closed
    cdef SothProcess[RECENT_PROCESSES] processes   # those of the slots; pid 0: none
    cdef list tokens                               # their start tokens

    # The process that has the socket of `inode` at one of its slots, as an index of `processes`;
    # -1: none known. That slot counts as used from now on
    cdef int process_of(self, uint64_t inode, int64_t connection) noexcept
    cdef object identity(self, int process)            # (pid, start token) of that one; None for -1
    # The index of `pid`, which is opened if it is not yet; -1: it has ended, or we may not look at
    # it
    cdef int index_of(self, int64_t pid) except -2
    # of `processes`; the least recently used one gives way
    cdef int free_index(self) noexcept
    cdef void forget(self, int process) noexcept       # and its slots
    cdef void remove(self, int slot) noexcept          # and its process, when it was its last
    cdef void move_to_end(self, int count) noexcept    # the first `count` slots are tried last
    # its socket is open now: it is tried after all others
    cdef void mark_used(self, int slot) noexcept
