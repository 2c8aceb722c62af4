"""Which of the processes that connected lately holds a socket: the usual case of attribution, without a search and without a thread.

Programs open one connection after the other, and the kernel gives them the same few descriptors again. So the places where their sockets
were held lately are asked first: those whose connections have ended, in the order in which they did, then the others. What was asked in
vain on the way to an answer is asked last the next time. A place costs a system call of two microseconds, and there are at most
`RECENT_HOLDERS`.
"""

cimport cython

from libc.string cimport memcpy, memmove


@cython.final
cdef class RecentHolders:
    """Places (process and descriptor) at which sockets were held lately. `proc` is where procfs is mounted. Hold a lock around calls.

    `connection` is any number that the caller tells connections by; it orders the places, and no answer depends on it.
    """

    def __cinit__(self, bytes proc not None):
        self.proc = proc

    def note(self, int64_t pid, int64_t descriptor, int64_t connection):
        """Remember where the socket of `connection` is held; the place that was not useful for longest is forgotten."""
        cdef int place, oldest = 0
        for place in range(self.count):
            if self.holders[place].pid == pid and self.holders[place].descriptor == descriptor:
                oldest = place
                break
            if self.holders[place].used < self.holders[oldest].used:
                oldest = place
        else:
            if self.count < RECENT_HOLDERS:
                oldest = self.count
                self.count += 1
        self.holders[oldest].pid = pid
        self.holders[oldest].descriptor = descriptor
        self.holders[oldest].connection = connection
        self.take(oldest)

    def find(self, uint64_t inode, int64_t connection):
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
        self.holders[place].pid = holder.pid
        self.holders[place].connection = connection
        self.pass_over(place)
        self.take(0)
        return holder.pid, f"{process.start}.{process.stack}"

    def ended(self, int64_t connection):
        """The socket of `connection` is closed: the next one of its process is likely to be held at the same place."""
        cdef Holder holder
        cdef int place
        for place in range(self.freed, self.count):
            if self.holders[place].connection == connection:
                holder = self.holders[place]
                memmove(&self.holders[self.freed + 1], &self.holders[self.freed], (place - self.freed) * sizeof(Holder))
                self.holders[self.freed] = holder
                self.freed += 1
                return

    def pids(self):
        """Return the processes known, in the order in which they are asked."""
        return list(dict.fromkeys([self.holders[place].pid for place in range(self.count)]))

    cdef void pass_over(self, int places) noexcept:
        cdef Holder[RECENT_HOLDERS] passed
        memcpy(passed, self.holders, places * sizeof(Holder))
        memmove(self.holders, &self.holders[places], (self.count - places) * sizeof(Holder))
        memcpy(&self.holders[self.count - places], passed, places * sizeof(Holder))
        self.freed = max(self.freed - places, 0)

    cdef void take(self, int place) noexcept:
        cdef Holder holder = self.holders[place]
        self.clock += 1
        holder.used = self.clock
        memmove(&self.holders[place], &self.holders[place + 1], (self.count - 1 - place) * sizeof(Holder))
        self.holders[self.count - 1] = holder
        if place < self.freed:
            self.freed -= 1
