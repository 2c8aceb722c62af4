# The kernel's answer to the question which socket is one end of a TCP connection (Linux).

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "sock_diag.h" nogil:
    enum:
        SOTH_DIAG_REQUEST
        SOTH_DIAG_NONE

    ctypedef struct SothSocket:
        uint32_t inode
        uint32_t uid

    ctypedef struct SothEnd:
        bint is_v6
        uint8_t source[16]
        uint8_t destination[16]
        uint16_t source_port
        uint16_t destination_port
        uint32_t scope_id

    void soth_diag_request(const SothEnd* end, uint32_t sequence, uint8_t* request) noexcept
    int soth_diag_answer(
        const uint8_t* answer, size_t n, uint32_t sequence, SothSocket* found) noexcept
    int soth_diag_open() noexcept
    void soth_diag_close(int file) noexcept
    int soth_diag_ask(int file, const SothEnd* end, uint32_t sequence, SothSocket* found) noexcept


cdef class SockDiag:
    cdef int file            # the socket to the kernel; -1: not open
    cdef bint closed
    cdef uint32_t sequence

    # Fill `found`: SOTH_DIAG_FOUND, SOTH_DIAG_NONE, or the negative error number with which the
    # kernel, or the sandbox around us, refused. Raises ValueError as `fill_end`
    cdef int look_up(self, bytes source, int source_port, bytes destination, int destination_port,
                     uint32_t scope_id, SothSocket* found) except? -1
    cdef void drop(self) noexcept    # close the socket; the next question opens another


# Fill `end`; ValueError when the addresses are not both of 4 or both of 16 bytes
cdef int fill_end(SothEnd* end, bytes source, int source_port, bytes destination,
                  int destination_port, uint32_t scope_id) except -1

# Fill `end`; addresses are packed. Raises ValueError when they are not of one family
cdef int fill_end(SothEnd* end, bytes source, int source_port, bytes destination,
                  int destination_port, uint32_t scope_id) except -1
