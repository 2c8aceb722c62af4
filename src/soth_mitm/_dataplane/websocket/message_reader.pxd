# Messages of one direction of a WebSocket, out of the octets as they are on the wire.

from libc.stdint cimport uint64_t

from soth_mitm._dataplane.websocket.deflate cimport Inflater
from soth_mitm._dataplane.websocket.frame cimport LONGEST_CONTROL, FrameReader


cdef enum:
    # A message may inflate to so many times what is shown of it, to keep the window
    INFLATED_FACTOR = 8


# What happens to a message with more octets than are shown
cdef enum WhenLong:
    CUT_LONG = 0               # at its end its beginning is told
    SHOW_LONG                  # its beginning is told at once
    REFUSE_LONG                # it is a violation
    WHEN_LONG


cdef enum MessageEvent:
    EVENT_MORE = 0             # more octets are needed
    EVENT_TURN                 # this turn has inflated enough; begin_turn(), and next() again
    EVENT_MESSAGE              # a text or binary message is complete
    EVENT_LONG                 # with SHOW_LONG: the beginning of a message that goes on
    EVENT_END                  # a message ends whose beginning was told; there is no payload
    EVENT_CONTROL              # a ping or pong is; its payload is not looked at
    EVENT_CLOSE                # the Close is; `payload` is code and reason, or b""
    EVENT_IGNORED              # octets behind the Close
    EVENT_VIOLATION            # `violation` says which; nothing is taken any more


cdef class MessageReader:
    # What the last event is about
    cdef readonly int kind             # Opcode
    cdef readonly bytes payload        # in the clear; valid until the next event
    cdef readonly bint is_complete     # `payload` is all of the message, not only its beginning
    cdef readonly bint is_compressed   # it came with RSV1
    cdef readonly uint64_t begin       # where it lies among all octets of the direction; control
    cdef readonly uint64_t end         # frames may lie inside a message; 0: not known yet
    cdef readonly int violation        # Violation

    cdef FrameReader frames
    cdef Inflater inflater             # made at the first RSV1
    cdef bint takeover
    cdef Py_ssize_t most               # octets of a message that are shown
    cdef int when_long                 # WhenLong
    cdef bint is_skipping              # skip() was called
    cdef Py_ssize_t allowance          # for inflating, in this turn

    cdef uint64_t at                   # octets that were taken
    cdef uint64_t frame_begin
    cdef bint is_in_frame              # its end was not dealt with
    cdef bint is_in_message
    cdef int message_kind              # of the message that is being read
    cdef uint64_t message_begin
    cdef bint message_compressed
    cdef uint64_t total                # octets of it so far, inflated
    cdef bint is_cut                   # no more of it is kept
    cdef bint is_untold                # EVENT_LONG is due
    cdef bint is_shown                 # its beginning was told
    cdef unsigned int utf8
    cdef bytes whole                   # what is shown of it, if that came in one piece,
    cdef bytearray block               # and otherwise
    cdef char[LONGEST_CONTROL] control
    cdef int control_size

    # Take what the n octets at p bring, up to the next event; how many is in `used`. The rest comes
    # again, with more behind it. The octets themselves are neither kept nor changed. Events do not
    # depend on how the octets are cut, apart from EVENT_TURN, and from which of two things that are
    # wrong with one compressed message is found.
    cdef int next(self, const char* p, Py_ssize_t n, Py_ssize_t* used) except -1
    # A turn of the loop begins: TURN_OCTETS may be inflated
    cdef void begin_turn(self) noexcept
    # A message that has begun is not waited for: tell what is here of it, as EVENT_LONG does, and
    # keep no more. False: none has begun, or its beginning was told.
    cdef bint show_beginning(self) except -1
    # Read no messages from here on, only frames: for an observer behind a message that cannot be
    # decoded. The violation is forgotten unless it is of a frame. Messages are no events any more.
    cdef int skip(self) except -1
    # Octets that are held of a message; the inflater's window is not among them
    cdef Py_ssize_t held(self) noexcept

    cdef int refuse(self, int violation) noexcept
    cdef int begin_frame(self) except -1
    cdef int end_frame(self) except -1
    cdef int end_control(self) except -1
    cdef int end_message(self) except -1
    cdef int take_payload(self, const char* p, Py_ssize_t n) except -1
    cdef int inflate(self) except -1
    cdef int add_masked(self, const char* p, Py_ssize_t n) except -1
    cdef int add_piece(self, bytes piece) except -1
    cdef Py_ssize_t room_for(self, Py_ssize_t n) noexcept
    cdef int check_text(self, const char* p, Py_ssize_t n) noexcept
    cdef int check_masked(self, const char* p, Py_ssize_t n, unsigned int phase) noexcept
    cdef int overflow(self) except -1
    cdef int stop_keeping(self) except -1
    cdef int tell(self, bint is_complete) except -1
