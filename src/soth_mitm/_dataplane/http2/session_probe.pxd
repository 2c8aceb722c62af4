# A session that Python can use: for tests, fuzzing and tools.

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http2.session cimport Outlet, Session, SessionCallbacks
from soth_mitm._dataplane.http2.session_stream cimport SessionStream


cdef class RecordingOutlet(Outlet):
    cdef bytearray sent
    cdef bint counts                   # what was sent counts as not taken by the system until it is


cdef class RecordingCallbacks(SessionCallbacks):
    cdef list events
    cdef dict streams                  # every stream that was opened, by number
    cdef dict room                     # how much content is taken of a stream; not in it: all
    cdef object on_event               # called with each event, or None

    cdef int note(self, tuple event) except -1


cdef class SessionProbe:
    cdef readonly Session session
    cdef readonly Counters totals
    cdef RecordingOutlet outlet
    cdef RecordingCallbacks callbacks

    cdef SessionStream stream(self, number)
