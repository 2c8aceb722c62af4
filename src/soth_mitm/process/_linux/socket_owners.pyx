"""Which of the processes that connected lately owns a socket: the usual case of attribution,
without a search and without a thread.

Programs open one connection after the other, and the kernel gives them the same few descriptors
again. A *slot* is a process and a descriptor at which a client's socket was found. Slots whose
connections have closed are tried first, in the order in which they closed, then the others. The
slots that were tried in vain before an answer are tried last the next time. A try costs a system
call of two microseconds, and there are at most `RECENT_SLOTS`. Each process is held by open files
of procfs, so a pid that the kernel has given to another process is never taken for it.
"""

cimport cython

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from soth_mitm.process._linux.sock_diag cimport SockDiag, SothSocket


@cython.final
cdef class RecentSocketOwners:
    """Slots (process and descriptor) at which sockets were found lately. `proc` is where procfs is
    mounted. May be used by threads: each call holds the interpreter's lock.

    `connection` is any number that identifies a connection; it orders the slots, and no answer
    depends on it.
    """

    def __cinit__(self, bytes proc not None):
        self.proc = proc
        self.tokens = [None] * RECENT_PROCESSES

    def note(self, int64_t pid, int64_t descriptor, int64_t connection):
        """Remember where the socket of `connection` is; the least recently used slot is forgotten.
        """
        cdef int slot, oldest, process
        if self.closed:
            # the answer of a look-up that hung
            return
        process = self.index_of(pid)
        if process < 0:
            return
        for slot in range(self.count):
            if self.slots[slot].process == process and self.slots[slot].descriptor == descriptor:
                break
        else:
            if self.count == RECENT_SLOTS:
                oldest = 0
                for slot in range(self.count):
                    if self.slots[slot].used < self.slots[oldest].used:
                        oldest = slot
                self.remove(oldest)
                # it may have been the last one of this very process
                process = self.index_of(pid)
                if process < 0:
                    return
            slot = self.count
            self.count += 1
            self.slots[slot].process = process
            self.slots[slot].descriptor = descriptor
        self.slots[slot].connection = connection
        self.mark_used(slot)

    def find(self, uint64_t inode, int64_t connection):
        """Return the pid and the start token of the process that has the socket of `inode` at a
        known slot, or None.

        If the process that opened the socket was noted there, it is that one: a process that had
        another socket at this descriptor did not inherit this socket.
        """
        return self.identity(self.process_of(inode, connection))

    def find_connection(self, SockDiag diag not None, bytes source not None, int source_port,
                        bytes destination not None, int destination_port, uint32_t scope_id,
                        int64_t connection):
        """Return what `find` does for the socket that `diag` names; also None when there is none,
        or the kernel does not answer.
        """
        cdef SothSocket found
        cdef int answer = diag.look_up(
            source, source_port, destination, destination_port, scope_id, &found)
        if answer <= 0 or found.inode == 0:
            return None
        return self.identity(self.process_of(found.inode, connection))

    def connection_closed(self, int64_t connection):
        """Move the slot of `connection`, which has closed, forward: the process will use the
        descriptor again.
        """
        cdef SocketOwner owner
        cdef int slot
        for slot in range(self.reusable, self.count):
            if self.slots[slot].connection == connection:
                owner = self.slots[slot]
                memmove(&self.slots[self.reusable + 1], &self.slots[self.reusable],
                        (slot - self.reusable) * sizeof(SocketOwner))
                self.slots[self.reusable] = owner
                self.reusable += 1
                return

    def pids(self):
        """Return the known processes, in the order in which they are tried."""
        pids = [self.processes[self.slots[slot].process].pid for slot in range(self.count)]
        return list(dict.fromkeys(pids))

    def close(self):
        """Forget everything and close the files; nothing is noted from now on."""
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
        cdef SocketOwner owner
        cdef int slot, sockets
        for slot in range(self.count):
            owner = self.slots[slot]
            sockets = self.processes[owner.process].sockets
            if not soth_holds_socket(sockets, owner.descriptor, inode):
                continue
            if not soth_is_same(&self.processes[owner.process]):
                self.forget(owner.process)
                return -1
            self.slots[slot].connection = connection
            self.move_to_end(slot)
            self.mark_used(0)
            return owner.process
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
        cdef int slot, process, oldest = 0
        memset(used, 0, sizeof(used))
        for process in range(RECENT_PROCESSES):
            if self.processes[process].pid == 0:
                return process
        for slot in range(self.count):
            process = self.slots[slot].process
            used[process] = max(used[process], self.slots[slot].used)
        for process in range(RECENT_PROCESSES):
            if used[process] < used[oldest]:
                oldest = process
        self.forget(oldest)
        return oldest

    cdef void forget(self, int process) noexcept:
        cdef int slot = self.count
        while slot:
            slot -= 1
            if self.slots[slot].process == process:
                self.remove(slot)
        if self.processes[process].pid:
            soth_close_process(&self.processes[process])

    cdef void remove(self, int slot) noexcept:
        cdef int process = self.slots[slot].process
        self.count -= 1
        memmove(&self.slots[slot], &self.slots[slot + 1], (self.count - slot) * sizeof(SocketOwner))
        if slot < self.reusable:
            self.reusable -= 1
        for slot in range(self.count):
            if self.slots[slot].process == process:
                return
        soth_close_process(&self.processes[process])

    cdef void move_to_end(self, int count) noexcept:
        cdef SocketOwner[RECENT_SLOTS] passed
        memcpy(passed, self.slots, count * sizeof(SocketOwner))
        memmove(self.slots, &self.slots[count], (self.count - count) * sizeof(SocketOwner))
        memcpy(&self.slots[self.count - count], passed, count * sizeof(SocketOwner))
        self.reusable = max(self.reusable - count, 0)

    cdef void mark_used(self, int slot) noexcept:
        cdef SocketOwner owner = self.slots[slot]
        self.clock += 1
        owner.used = self.clock
        memmove(&self.slots[slot], &self.slots[slot + 1],
                (self.count - 1 - slot) * sizeof(SocketOwner))
        self.slots[self.count - 1] = owner
        if slot < self.reusable:
            self.reusable -= 1
