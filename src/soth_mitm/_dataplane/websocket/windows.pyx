"""Whether both ends of a compressed direction still remember the same octets.

A compressor refers to what it has sent before, as far back as its window reaches. If a message is
changed or left out, the receiver has other octets there. From that moment we compress each message
again. Our compressor is new at that moment, so it refers to nothing but what it has written itself.
When unchanged messages have filled the sender's window, both ends remember the same, and messages
pass as they came.

What the sender does with its own window, such as a new stream, makes that only earlier true.
Without takeover nothing is remembered, and a change has no aftermath.
"""

cimport cython

from soth_mitm._dataplane.memory.transitions cimport next_state, transitions_of
from soth_mitm._dataplane.websocket.deflate cimport new_deflater

WINDOWS_STATE_NAMES = ("equal", "own")
WINDOWS_INPUT_NAMES = ("change", "fill")

cdef const char* TABLE = b"1x" b"10"


@cython.final
cdef class Windows:
    """The windows of one direction. `bits`: of the sender's, as agreed, 8 to 15."""

    def __cinit__(self, int bits, bint takeover=True, bint recompresses=True):
        self.bits = bits
        self.takeover = takeover
        self.recompresses = recompresses

    cdef int move(self, int event) noexcept:
        self.state = next_state(TABLE, WINDOWS_INPUTS, self.state, event)
        return 0

    cdef int leave_out(self) except -1:
        if self.takeover:
            if self.state == WINDOWS_EQUAL and self.recompresses:
                self.deflater = new_deflater(self.bits, True)
            self.unchanged = 0
            self.move(INPUT_CHANGE)
        return 0

    cdef bytes compressed(self, bytes message):
        """Return the message by our compressor, or as it is if there is none."""
        self.is_compressed = self.deflater is not None
        return self.deflater.compress(message) if self.is_compressed else message

    cdef bytes keep(self, bytes message):
        cdef bytes payload
        self.is_compressed = True
        if self.state == WINDOWS_EQUAL:
            return None
        payload = self.compressed(message)
        if self.is_compressed:
            self.unchanged += <uint64_t>len(message)
            if self.unchanged >= <uint64_t>1 << self.bits:
                self.deflater = None
                self.move(INPUT_FILL)
        return payload

    cdef bytes replace(self, bytes message, bint may_compress):
        self.leave_out()
        if not self.takeover and self.recompresses and self.deflater is None:
            self.deflater = new_deflater(self.bits, False)
        if may_compress:
            return self.compressed(message)
        self.is_compressed = False
        return message


def windows_transitions():
    """Return {state: {input: state that follows}} of the windows of one direction."""
    return transitions_of(TABLE, WINDOWS_STATE_NAMES, WINDOWS_INPUT_NAMES)
