"""Which of the processes that connected lately holds a socket: the usual case of attribution, without a search and without a thread.

Programs open one connection after the other, and the kernel gives them the same few descriptors again. So the places where clients' sockets
were held lately are asked first, the latest first: a system call of less than a microsecond for each, and at most `RECENT_HOLDERS` of them.
"""

cimport cython

from libc.string cimport memmove


@cython.final
cdef class RecentHolders:
    """Places (process and descriptor) at which sockets were held lately. `proc` is where procfs is mounted. Hold a lock around calls."""

    def __cinit__(self, bytes proc not None):
        self.proc = proc

    def note(self, int64_t pid, int64_t descriptor):
        """Remember a place; the one that was not useful for longest is forgotten."""
        cdef Holder holder
        cdef int place
        holder.pid = pid
        holder.descriptor = descriptor
        for place in range(self.count):
            if self.holders[place].pid == pid and self.holders[place].descriptor == descriptor:
                self.put_first(place, holder)
                return
        if self.count < RECENT_HOLDERS:
            self.count += 1
        self.put_first(self.count - 1, holder)

    def find(self, uint64_t inode):
        """Return the pid and the start token of the process that holds the socket of `inode` at a known place, or None.

        Of a socket that processes share after a fork it is the topmost of their line.
        """
        cdef SothProcess process
        cdef const char* proc = self.proc
        cdef Holder holder
        cdef int place = 0
        while place < self.count and not soth_holds_socket(proc, self.holders[place].pid, self.holders[place].descriptor, inode):
            place += 1
        if place == self.count:
            return None
        holder = self.holders[place]
        if not soth_read_process(proc, holder.pid, &process):
            return None
        while process.parent and soth_holds_socket(proc, process.parent, holder.descriptor, inode):
            holder.pid = process.parent
            if not soth_read_process(proc, holder.pid, &process):
                return None
        self.put_first(place, holder)
        return holder.pid, f"{process.start}.{process.stack}"

    def pids(self):
        """Return the processes known, the latest first."""
        return list(dict.fromkeys([self.holders[place].pid for place in range(self.count)]))

    cdef void put_first(self, int place, Holder holder) noexcept:
        memmove(&self.holders[1], &self.holders[0], place * sizeof(Holder))
        self.holders[0] = holder
