"""Windows of HTTP/2: what a peer may send, when it is told that it may send more, and how a window grows.

Credit follows consumption. What was taken by the other side of an exchange is announced when it is half
of a small window, so that there is not an update for each frame, and an eighth of a large one: what is not
announced is a part of the window that the peer cannot use, and a link that is long and fast needs it. While
some has to wait, more of it would only wait as well, and half of any window is announced at once. A
window grows only while it is what holds its peer up: half of it was used within two round trips, and
whoever takes the content was never the slower one in between.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http2.frame cimport FLOW_CONTROL_ERROR, MAX_WINDOW, NO_ERROR, PROTOCOL_ERROR

from soth_mitm._dataplane.http2.frame import name_error_code

cdef enum:
    ANNOUNCED_AT_ONCE = 131072     # octets that are announced however large the window is

FAULT_TEXTS = {
    WINDOW_ZERO: "a WINDOW_UPDATE increases nothing",
    WINDOW_OVERFLOW: "a window would be over 2^31 - 1",
    WINDOW_EXCEEDED: "more DATA came than the window allows",
}


cdef void open_window(ReceiveWindow* window, int64_t size) noexcept nogil:
    window.left = window.size = size
    window.taken = window.used = 0
    window.looked_at = window.taken_at = -1
    window.was_held = False


cdef int receive_octets(ReceiveWindow* window, uint32_t length, int64_t slack) noexcept nogil:
    if length > window.left + slack:
        return WINDOW_EXCEEDED
    window.left -= length
    return WINDOW_OK


cdef uint32_t take_octets(ReceiveWindow* window, uint32_t length, bint waits, double now, double round_trip, int64_t most) noexcept nogil:
    cdef int64_t growth = 0
    cdef int64_t increment
    cdef double seconds
    if now - window.taken_at > round_trip / 2:
        # the peer waited, for us or for what it sends, which says nothing of its pace
        window.looked_at = now
        window.used = 0
    window.taken_at = now
    window.taken += length
    window.used += length
    window.was_held = window.was_held or waits
    if 2 * window.used >= window.size:
        seconds = now - window.looked_at
        if not window.was_held and seconds < 2 * round_trip and window.size < most:
            growth = min(window.size if 2 * seconds >= round_trip else 3 * window.size, most - window.size)
        window.used = 0
        window.looked_at = now
        window.was_held = False
    if growth == 0 and 2 * window.taken < window.size and (
            waits or window.taken < max(window.size >> 3, <int64_t>ANNOUNCED_AT_ONCE)):
        return 0
    window.size += growth
    increment = window.taken + growth
    # only for a window that our SETTINGS made negative, or one of 2^31 - 1
    increment = min(increment, MAX_WINDOW - window.left)
    window.left += increment
    window.taken = 0
    return <uint32_t>increment


cdef uint32_t expect_octets(ReceiveWindow* window, int64_t length, int64_t most) noexcept nogil:
    cdef int64_t growth = min(length, most) - window.size
    if growth <= 0:
        return 0
    window.size += growth
    window.left += growth
    return <uint32_t>growth


cdef void shift_window(ReceiveWindow* window, int64_t difference) noexcept nogil:
    window.left += difference
    window.size += difference


cdef int widen_send_window(int64_t* left, uint32_t increment) noexcept nogil:
    if increment == 0:
        return WINDOW_ZERO
    if left[0] + increment > MAX_WINDOW:
        return WINDOW_OVERFLOW
    left[0] += increment
    return WINDOW_OK


cdef int shift_send_window(int64_t* left, int64_t difference) noexcept nogil:
    if left[0] + difference > MAX_WINDOW:
        return WINDOW_OVERFLOW
    left[0] += difference
    return WINDOW_OK


cdef int window_fault_code(int fault) noexcept nogil:
    if fault == WINDOW_OK:
        return NO_ERROR
    return PROTOCOL_ERROR if fault == WINDOW_ZERO else FLOW_CONTROL_ERROR


cdef str window_fault_text(int fault):
    return FAULT_TEXTS[fault]


@cython.final
cdef class WindowPair:
    """A window of each direction, for tests and tools; a session keeps its own as structs.

    What is not allowed raises ValueError with the code's name and a text.
    """

    cdef ReceiveWindow window
    cdef int64_t sending

    def __cinit__(self, int64_t size=65535):
        open_window(&self.window, size)
        self.sending = size

    cdef int check(self, int fault) except -1:
        if fault:
            raise ValueError(name_error_code(window_fault_code(fault)), window_fault_text(fault))
        return 0

    def receive(self, uint32_t length, int64_t slack=0):
        """So much came."""
        self.check(receive_octets(&self.window, length, slack))

    def take(self, uint32_t length, double now=0.0, double round_trip=0.0, int64_t most=0, bint waits=False):
        """So much was taken; returns what is to be announced."""
        return take_octets(&self.window, length, waits, now, round_trip, most)

    def expect(self, int64_t length, int64_t most):
        """So much is announced by a head; returns what is to be announced."""
        return expect_octets(&self.window, length, most)

    def shift(self, int64_t difference):
        """Our SETTINGS changed."""
        shift_window(&self.window, difference)

    def widen(self, uint32_t increment):
        """A WINDOW_UPDATE came."""
        self.check(widen_send_window(&self.sending, increment))

    def shift_sending(self, int64_t difference):
        """The peer's SETTINGS changed."""
        self.check(shift_send_window(&self.sending, difference))

    @property
    def left(self):
        """What the peer may send."""
        return self.window.left

    @property
    def size(self):
        """What its window is filled up to."""
        return self.window.size

    @property
    def send_left(self):
        """What we may send."""
        return self.sending
