# Windows of HTTP/2 (RFC 9113 sections 5.2 and 6.9), both directions, of streams and of connections.
# All in 64 bits: a window may be negative, and sums of 32-bit numbers are not.

from libc.stdint cimport int64_t, uint32_t


# What the peer may send us. `left`, what is announced no more and what is kept here add up to `size`.
cdef struct ReceiveWindow:
    int64_t left               # what the peer may still send; negative after SETTINGS that made it smaller
    int64_t size               # what it is filled up to
    int64_t taken              # was taken by whoever it was for, and is not announced yet
    double taken_at            # when some was taken last; negative: never
    int64_t used               # was taken since the last look at the pace
    double looked_at           # when that was
    bint was_held              # some had to wait since then: who takes it is the slow one


cdef enum WindowFault:
    WINDOW_OK = 0
    WINDOW_ZERO                # an increment of 0
    WINDOW_OVERFLOW            # over 2^31 - 1
    WINDOW_EXCEEDED            # the peer sent more than it may


cdef void open_window(ReceiveWindow* window, int64_t size) noexcept nogil
# `length` octets came; `slack` more than `left` are let pass. A WindowFault.
cdef int receive_octets(ReceiveWindow* window, uint32_t length, int64_t slack) noexcept nogil
# `length` of them were taken; `waits`: others were not, yet. What is to be announced now, 0: nothing. A
# window of which half was used within two round trips doubles, and one within half a round trip becomes
# four times as large, up to `most`, unless some had to wait. With a `most` of 0 it does not grow.
cdef uint32_t take_octets(ReceiveWindow* window, uint32_t length, bint waits, double now, double round_trip, int64_t most) noexcept nogil
# So much content is announced: what the window grows by at once to hold it, `most` altogether. To be announced.
cdef uint32_t expect_octets(ReceiveWindow* window, int64_t length, int64_t most) noexcept nogil
# Our SETTINGS changed what the window began with
cdef void shift_window(ReceiveWindow* window, int64_t difference) noexcept nogil

# What we may send: WINDOW_UPDATE, and SETTINGS that change what the window began with. A WindowFault.
cdef int widen_send_window(int64_t* left, uint32_t increment) noexcept nogil
cdef int shift_send_window(int64_t* left, int64_t difference) noexcept nogil

# The ErrorCode of the stream or of the connection
cdef int window_fault_code(int fault) noexcept nogil
# One line for people
cdef str window_fault_text(int fault)
