# One stream of a session: its state, its windows, and content that came and was not taken yet.

from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http2.flow_control cimport ReceiveWindow
from soth_mitm._dataplane.memory.buffer cimport Buffer


cdef enum StreamWait:
    WAIT_NOTHING = 0
    WAIT_TURN                  # for the connection's window, the socket, or its turn: it is in the ring
    WAIT_WINDOW                # for its own window


cdef class SessionStream:
    cdef readonly uint32_t id
    cdef public object owner           # whatever the owner keeps here
    cdef int state                     # StreamState: changed by change_state() only
    cdef bint is_known                 # to its owner
    cdef bint is_counted               # among those that the peer has open
    cdef bint is_released              # its owner has done with it

    # what comes in
    cdef ReceiveWindow window
    cdef int64_t promised              # what the window has grown by, while more may come
    cdef bint has_head                 # the final head came
    cdef Py_ssize_t head_size          # its octets
    cdef readonly bint has_ended       # END_STREAM came
    cdef int interim_heads
    cdef readonly bytes protocol       # of an extended CONNECT; None
    cdef bint has_no_content           # whatever Content-Length says: HEAD, 204, 304
    cdef int64_t content_length        # -1: not known
    cdef int64_t content_total
    cdef Buffer kept                   # None: nothing was ever kept
    cdef bint end_waits                # behind what is kept: the end, and perhaps trailers
    cdef bytes trailers_wait

    # what goes out
    cdef int64_t send_left
    cdef bint sent_head                # the final one
    cdef int wait                      # StreamWait
    cdef double waits_since            # negative: all was taken at last
    cdef int64_t moved                 # octets since then
    cdef SessionStream before          # in the ring
    cdef SessionStream after

    cdef Py_ssize_t kept_size(self) noexcept


# Who may write next: streams in turn
cdef class WriteRing:
    cdef SessionStream first
    cdef SessionStream last

    cdef void append(self, SessionStream stream) noexcept      # which is not in it
    cdef void remove(self, SessionStream stream) noexcept      # nothing happens if it is not
    cdef SessionStream pop(self)                               # None: it is empty
