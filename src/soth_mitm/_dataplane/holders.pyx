"""Which of the processes that connected lately holds a socket: the usual case of attribution, without a search and without a thread.

Programs open one connection after the other, and the kernel gives them the same few descriptors again. So the places where their sockets
were held lately are asked first: those whose connections have ended, in the order in which they did, then the others. What was asked in
vain on the way to an answer is asked last the next time. A place costs a system call of two microseconds, and there are at most
`RECENT_HOLDERS`. Processes are held by open files of procfs, so that a pid that was given to another one is never taken for it.
"""

cimport cython

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from soth_mitm._dataplane.sock_diag cimport SockDiag, SothSocket


@cython.final
cdef class RecentHolders:
    """Places (process and descriptor) at which sockets were held lately. `proc` is where procfs is mounted. May be used by threads: the
    interpreter's lock is held in each call.

    `connection` is any number that the caller tells connections by; it orders the places, and no answer depends on it.
    """

    def __cinit__(self, bytes proc not None):
        self.proc = proc
        self.tokens = [None] * RECENT_PROCESSES

    def note(self, int64_t pid, int64_t descriptor, int64_t connection):
        """Remember where the socket of `connection` is held; the place that was not useful for longest is forgotten."""
        cdef int place, oldest, process
        if self.closed:
            # it was found by a look-up that hung
            return
        process = self.index_of(pid)
        if process < 0:
            return
        for place in range(self.count):
            if self.holders[place].process == process and self.holders[place].descriptor == descriptor:
                break
        else:
            if self.count == RECENT_HOLDERS:
                oldest = 0
                for place in range(self.count):
                    if self.holders[place].used < self.holders[oldest].used:
                        oldest = place
                self.remove(oldest)
                # it may have been the last one of this very process
                process = self.index_of(pid)
                if process < 0:
                    return
            place = self.count
            self.count += 1
            self.holders[place].process = process
            self.holders[place].descriptor = descriptor
        self.holders[place].connection = connection
        self.take(place)

    def find(self, uint64_t inode, int64_t connection):
        """Return the pid and the start token of the process that holds the socket of `inode` at a known place, or None.

        It is the process that opened it, if that is what was noted there: who had another socket at that descriptor did not inherit this.
        """
        return self.identity(self.process_of(inode, connection))

    def recall(self, SockDiag diag not None, bytes source not None, int source_port, bytes destination not None, int destination_port,
               uint32_t scope_id, int64_t connection):
        """Return what `find` does for the socket that `diag` names; also None when there is none, or the kernel does not answer."""
        cdef SothSocket found
        if diag.look_up(source, source_port, destination, destination_port, scope_id, &found) <= 0 or found.inode == 0:
            return None
        return self.identity(self.process_of(found.inode, connection))

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
        return list(dict.fromkeys([self.processes[self.holders[place].process].pid for place in range(self.count)]))

    def close(self):
        """Forget everything, and close what is open for it; nothing is noted any more."""
        cdef int process
        self.closed = True
        for process in range(RECENT_PROCESSES):
            if self.processes[process].pid:
                self.forget(process)

    def __dealloc__(self):
        cdef int process
        for process in range(RECENT_PROCESSES):
            if self.processes[process].pid:
                soth_close_process(&self.processes[process])

    cdef int process_of(self, uint64_t inode, int64_t connection) noexcept:
        cdef Holder holder
        cdef int place
        for place in range(self.count):
            holder = self.holders[place]
            if not soth_holds_socket(self.processes[holder.process].sockets, holder.descriptor, inode):
                continue
            if not soth_is_same(&self.processes[holder.process]):
                self.forget(holder.process)
                return -1
            self.holders[place].connection = connection
            self.pass_over(place)
            self.take(0)
            return holder.process
        return -1

    cdef object identity(self, int process):
        return None if process < 0 else (self.processes[process].pid, self.tokens[process])

    cdef int index_of(self, int64_t pid) except -2:
        cdef SothProcess opened
        cdef int process
        for process in range(RECENT_PROCESSES):
            if self.processes[process].pid == pid:
                if soth_is_same(&self.processes[process]):
                    return process
                self.forget(process)
                break
        if not soth_open_process(self.proc, pid, &opened):
            return -1
        process = self.free_index()
        self.processes[process] = opened
        self.tokens[process] = f"{opened.start}.{opened.stack}"
        return process

    cdef int free_index(self) noexcept:
        cdef uint64_t[RECENT_PROCESSES] used
        cdef int place, process, oldest = 0
        memset(used, 0, sizeof(used))
        for process in range(RECENT_PROCESSES):
            if self.processes[process].pid == 0:
                return process
        for place in range(self.count):
            process = self.holders[place].process
            used[process] = max(used[process], self.holders[place].used)
        for process in range(RECENT_PROCESSES):
            if used[process] < used[oldest]:
                oldest = process
        self.forget(oldest)
        return oldest

    cdef void forget(self, int process) noexcept:
        cdef int place = self.count
        while place:
            place -= 1
            if self.holders[place].process == process:
                self.remove(place)
        if self.processes[process].pid:
            soth_close_process(&self.processes[process])

    cdef void remove(self, int place) noexcept:
        cdef int process = self.holders[place].process
        self.count -= 1
        memmove(&self.holders[place], &self.holders[place + 1], (self.count - place) * sizeof(Holder))
        if place < self.freed:
            self.freed -= 1
        for place in range(self.count):
            if self.holders[place].process == process:
                return
        soth_close_process(&self.processes[process])

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
