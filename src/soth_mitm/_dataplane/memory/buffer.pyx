"""The memory of one loop: scratch space, blocks, windows onto them, and read buffers.

An idle connection holds no block. A window shows borrowed memory to a C function without an object
per call.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from soth_mitm._dataplane.memory.budget cimport Budget
from soth_mitm._dataplane.memory.ledger cimport LEDGER, LEDGER_BLOCK, note


@cython.final
cdef class Window:
    """A buffer object over memory that it does not own; valid until the next call of `over`."""

    cdef Window over(self, char* ptr, Py_ssize_t length):
        self.ptr = ptr
        self.len = length
        return self

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.ptr, self.len, 0, flags)

    def __len__(self):
        return self.len

    def __setitem__(self, key, value):
        # asyncio's proactor loop fills a protocol's buffer by slice assignment
        memoryview(self)[key] = value


# its buffers give their blocks back when they go away, be it with everything else in one collection
@cython.final
@cython.no_gc_clear
cdef class Arena:
    """The memory of one loop. `max_buffer` bounds one message head, chunk line or trailer section.
    """

    def __cinit__(self, Py_ssize_t max_buffer=BLOCK_SIZE, Budget budget=None):
        self.budget = Budget() if budget is None else budget
        self.max_buffer = max(max_buffer + LEADING_CRLF, BLOCK_SIZE)
        self.scratch = <char*>malloc(SCRATCH_SIZE)
        if self.scratch == NULL:
            raise MemoryError()
        self.window = Window()
        self.owner = PyThread_get_thread_ident()

    def __dealloc__(self):
        free(self.scratch)
        free(self.fresh)
        while self.spare_count:
            self.spare_count -= 1
            free(self.spare[self.spare_count])

    cdef int check_thread(self) except -1:
        if PyThread_get_thread_ident() != self.owner:
            raise RuntimeError("this connection belongs to the thread of its event loop; "
                               "use loop.call_soon_threadsafe to get there")
        return 0

    def allow_buffer(self, Py_ssize_t max_buffer):
        """Raise the bound of one buffer: a reloaded configuration may need more than the first one.
        """
        self.check_thread()
        self.max_buffer = max(self.max_buffer, max_buffer + LEADING_CRLF)

    cdef char* find_block(self, Py_ssize_t size) except NULL:
        cdef char* block
        if size == BLOCK_SIZE and self.spare_count:
            self.spare_count -= 1
            return self.spare[self.spare_count]
        block = <char*>malloc(size)
        if block == NULL:
            raise MemoryError()
        return block

    cdef char* fresh_block(self) except NULL:
        if self.fresh == NULL:
            self.fresh = self.find_block(BLOCK_SIZE)
        return self.fresh

    cdef char* take_block(self, Py_ssize_t size) except NULL:
        cdef char* block = self.find_block(size)
        self.budget.take(size)
        note(LEDGER_BLOCK, 1)
        return block

    cdef void give_block(self, char* block, Py_ssize_t size) noexcept:
        self.budget.give(size)
        note(LEDGER_BLOCK, -1)
        soth_show(block, size)
        # debug builds free each block at once, so that a sanitizer sees a later access
        if not LEDGER and size == BLOCK_SIZE and self.spare_count < SPARE_BLOCKS:
            self.spare[self.spare_count] = block
            self.spare_count += 1
        else:
            free(block)


# needs its arena to the end: when a loop is abandoned, one collection takes all of its connections
@cython.final
@cython.no_gc_clear
cdef class Buffer:
    """Contiguous bytes on their way, in a block of an arena."""

    def __cinit__(self, Arena arena not None):
        self.arena = arena

    def __dealloc__(self):
        self.drop()

    cdef int adopt_fresh(self) except -1:
        self.base = self.arena.fresh
        self.capacity = BLOCK_SIZE
        self.arena.fresh = NULL
        self.arena.budget.take(BLOCK_SIZE)
        note(LEDGER_BLOCK, 1)
        return 0

    cdef Py_ssize_t room(self) noexcept:
        return self.capacity - self.end

    cdef int reserve(self, Py_ssize_t wanted) except -1:
        cdef Py_ssize_t used = self.end - self.start, size
        if self.capacity - self.end >= wanted and self.base != NULL:
            return 0
        if self.base == NULL:
            size = self.arena.budget.window(BLOCK_SIZE)
            while size < wanted:
                size *= 2
            self.base = self.arena.take_block(size)
            self.capacity = size
            return 0
        soth_show(self.base, self.capacity)
        if self.capacity - used >= wanted:
            memmove(self.base, self.base + self.start, used)
        else:
            size = self.capacity
            while size - used < wanted:
                size *= 2
            self.change_block(size)
        self.start = 0
        self.end = used
        return 0

    cdef int change_block(self, Py_ssize_t size) except -1:
        cdef char* block = self.arena.take_block(size)
        memcpy(block, self.base + self.start, self.end - self.start)
        self.arena.give_block(self.base, self.capacity)
        self.base = block
        self.capacity = size
        self.end -= self.start
        self.start = 0
        return 0

    cdef int shrink(self) except -1:
        cdef Py_ssize_t size = LEAST_BLOCK
        while size < self.end - self.start:
            size *= 2
        if self.base != NULL and size <= self.capacity // 4:
            self.change_block(size)
        return 0

    cdef char* tail(self) noexcept:
        soth_show(self.base + self.end, self.capacity - self.end)
        return self.base + self.end

    cdef void commit(self, Py_ssize_t count) noexcept:
        self.end += count
        soth_hide(self.base + self.end, self.capacity - self.end)

    cdef int append(self, const char* data, Py_ssize_t length) except -1:
        self.reserve(length)
        memcpy(self.tail(), data, length)
        self.commit(length)
        return 0

    cdef int append_exact(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t used = self.end - self.start
        if self.base == NULL:
            self.base = self.arena.take_block(length)
            self.capacity = length
        elif self.capacity - self.end < length and used > self.capacity - self.capacity // 4:
            # moving nearly all of it to the front, for little room, would be done again at once
            self.change_block(max(2 * self.capacity, used + length))
        return self.append(data, length)

    cdef const char* data(self) noexcept:
        return self.base + self.start

    cdef Py_ssize_t size(self) noexcept:
        return self.end - self.start

    cdef void consume(self, Py_ssize_t count) noexcept:
        self.start += count
        soth_hide(self.base, self.start)
        if self.start == self.end:
            self.drop()

    cdef void drop(self) noexcept:
        if self.base != NULL:
            self.arena.give_block(self.base, self.capacity)
            self.base = NULL
        self.capacity = 0
        self.start = 0
        self.end = 0
