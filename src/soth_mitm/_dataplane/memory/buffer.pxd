# The memory of one loop. Blocks are lent and come back; nothing else in the data plane allocates
# memory for bytes that pass through.

from soth_mitm._dataplane.memory.budget cimport Budget

# Under AddressSanitizer only the bytes of a buffer may be read in its block; elsewhere these do
# nothing
cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define SOTH_ASAN
    #elif defined(__has_feature)
    #if __has_feature(address_sanitizer)
    #define SOTH_ASAN
    #endif
    #endif
    #ifdef SOTH_ASAN
    #include <sanitizer/asan_interface.h>
    #define soth_hide(p, n) __asan_poison_memory_region((p), (size_t)(n))
    #define soth_show(p, n) __asan_unpoison_memory_region((p), (size_t)(n))
    #else
    #define soth_hide(p, n) ((void)0)
    #define soth_show(p, n) ((void)0)
    #endif
    """
    void soth_hide(const void* p, Py_ssize_t n) noexcept nogil
    void soth_show(const void* p, Py_ssize_t n) noexcept nogil


cdef enum:
    BLOCK_SIZE = 65536         # what one read buffer holds before it has to grow
    LEAST_BLOCK = 1024         # what one holds that waits, with little in it
    SCRATCH_SIZE = 262144      # what one read of ciphertext takes at most
    SPARE_BLOCKS = 64          # returned blocks kept for the next connection
    # allowed before a request head, not counted by its limit (RFC 9112 section 2.2)
    LEADING_CRLF = 2


# Borrowed memory, lent to a C function that wants a Python buffer (recv, SSL_read, SSL_write). Only
# for callees that are done with it when they return: the window is set anew for the next one.
cdef class Window:
    cdef char* ptr
    cdef Py_ssize_t len

    cdef Window over(self, char* ptr, Py_ssize_t length)


cdef class Arena:
    cdef readonly unsigned long owner      # the thread that everything with this arena belongs to
    cdef Window window
    cdef char* scratch
    cdef readonly Py_ssize_t max_buffer    # what a read buffer may grow to
    cdef readonly Budget budget            # counts the blocks that are out
    cdef int spare_count
    cdef char* spare[SPARE_BLOCKS]
    # the target of the next read of any connection: BLOCK_SIZE bytes, or NULL
    cdef char* fresh
    # what was written in this turn of the loop and is not flushed (transport/gathered_writes)
    cdef object gathered_writes

    # RuntimeError in any other thread; for the methods that Python can call
    cdef int check_thread(self) except -1
    cdef char* find_block(self, Py_ssize_t size) except NULL
    cdef char* take_block(self, Py_ssize_t size) except NULL
    cdef void give_block(self, char* block, Py_ssize_t size) noexcept
    # `fresh`, allocated when it is NULL. A read that finds nothing leaves it for the next one, so
    # that no connection holds a block for nothing
    cdef char* fresh_block(self) except NULL


# Contiguous bytes: filled at the end, consumed at the start. Holds a block only while it has bytes
# or a read is under way.
cdef class Buffer:
    cdef Arena arena
    cdef char* base            # NULL: no block
    cdef Py_ssize_t capacity
    cdef Py_ssize_t start      # first byte that is not consumed
    cdef Py_ssize_t end        # one past the last byte

    # filling
    # Take over the arena's fresh block, which a read has filled. There must be no block yet
    cdef int adopt_fresh(self) except -1
    cdef Py_ssize_t room(self) noexcept
    # Make room for at least `wanted` bytes: move the bytes, else grow
    cdef int reserve(self, Py_ssize_t wanted) except -1
    cdef char* tail(self) noexcept         # where `room()` bytes may be written; commit() follows
    cdef void commit(self, Py_ssize_t count) noexcept
    cdef int append(self, const char* data, Py_ssize_t length) except -1
    # The same in a block of just that size, for bytes that stay for some time
    cdef int append_exact(self, const char* data, Py_ssize_t length) except -1
    # to one of `size`, which the bytes fit into
    cdef int change_block(self, Py_ssize_t size) except -1

    # reading
    cdef const char* data(self) noexcept
    cdef Py_ssize_t size(self) noexcept
    cdef void consume(self, Py_ssize_t count) noexcept  # gives the block back when nothing is left
    cdef void drop(self) noexcept
    # to the smallest block for the bytes left, which stay for some time
    cdef int shrink(self) except -1
