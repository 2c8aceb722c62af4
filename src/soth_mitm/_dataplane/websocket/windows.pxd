# Whether both ends of a compressed direction still remember the same octets.

from libc.stdint cimport uint64_t

from soth_mitm._dataplane.websocket.deflate cimport Deflater


cdef enum WindowsState:
    WINDOWS_EQUAL = 0          # what the sender compresses, the receiver can read as it is
    WINDOWS_OWN                # the receiver reads what we compress
    WINDOWS_STATES


cdef enum WindowsInput:
    INPUT_CHANGE = 0           # a compressed message was changed or left out
    INPUT_FILL                 # since then, unchanged messages have filled the window
    WINDOWS_INPUTS


# For messages that the sender compressed, in order. Others do not matter here.
cdef class Windows:
    cdef readonly int state
    cdef int bits              # of the sender's window, as agreed
    cdef bint takeover         # the sender's messages may refer to those before them
    cdef bint recompresses     # websocket.recompress
    cdef Deflater deflater     # in WINDOWS_OWN
    cdef uint64_t unchanged    # octets that the receiver got as sent since the last change
    cdef readonly bint is_compressed   # what the last call returned: it needs RSV1

    # The payload for a message that passes unchanged; None: the frames that it came in. In
    # WINDOWS_EQUAL the message is not looked at, so it need not be complete. In WINDOWS_OWN one
    # that is too long to be held is left out here, and goes on in fragments without compression.
    cdef bytes keep(self, bytes message)
    # The payload for a message in the place of one that was compressed. `may_compress` is False if
    # a secret is in it: the length would tell what stands beside the secret.
    cdef bytes replace(self, bytes message, bint may_compress)
    # The receiver gets none of a message, or gets it in another way than through here
    cdef int leave_out(self) except -1
    cdef int move(self, int event) noexcept
    cdef bytes compressed(self, bytes message)
