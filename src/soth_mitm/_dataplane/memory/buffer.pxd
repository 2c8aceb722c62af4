# The memory of one loop. Blocks are handed out and come back; nothing else of the data plane allocates for bytes on their way.

from soth_mitm._dataplane.memory.budget cimport Budget

# Under AddressSanitizer nothing but what is in a buffer may be read there; elsewhere these are nothing
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
    LEADING_CRLF = 2           # may stand before a request head and is not counted by the limit of heads (RFC 9112 section 2.2)


# Borrowed memory, lent to a C function that wants a Python buffer (recv, SSL_read, SSL_write). Only for callees that are done with it when
# they return: the window is set anew for the next one.
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
    cdef char* fresh                       # where the next read goes, whoever's it is: BLOCK_SIZE bytes, or NULL

    # RuntimeError in any other thread; for the methods that Python can call
    cdef int check_thread(self) except -1
    cdef char* find_block(self, Py_ssize_t size) except NULL
    cdef char* take_block(self, Py_ssize_t size) except NULL
    cdef void give_block(self, char* block, Py_ssize_t size) noexcept
    # `fresh`, made when there is none. A read that finds nothing leaves it for the next one, so that nobody holds a block in vain
    cdef char* fresh_block(self) except NULL


# Contiguous bytes: filled at the end, consumed at the start. Holds a block only while there is something in it or a read under way.
cdef class Buffer:
    cdef Arena arena
    cdef char* base            # NULL: no block
    cdef Py_ssize_t capacity
    cdef Py_ssize_t start      # first byte that is not consumed
    cdef Py_ssize_t end        # one past the last byte

    # filling
    cdef int adopt_fresh(self) except -1                   # the arena's fresh block, which has been read into; when there is no block
    cdef Py_ssize_t room(self) noexcept
    cdef int reserve(self, Py_ssize_t wanted) except -1    # at least `wanted` bytes of room: moves, then grows
    cdef char* tail(self) noexcept                         # for writing `room()` bytes; commit() follows
    cdef void commit(self, Py_ssize_t count) noexcept
    cdef int append(self, const char* data, Py_ssize_t length) except -1
    cdef int append_exact(self, const char* data, Py_ssize_t length) except -1     # the same, for what is to stay for some time
    cdef int change_block(self, Py_ssize_t size) except -1     # to one of `size`, into which the bytes fit

    # reading
    cdef const char* data(self) noexcept
    cdef Py_ssize_t size(self) noexcept
    cdef void consume(self, Py_ssize_t count) noexcept     # gives the block back when nothing is left
    cdef void drop(self) noexcept
    cdef int shrink(self) except -1                        # to a block that suits what is left, which is to stay for some time
