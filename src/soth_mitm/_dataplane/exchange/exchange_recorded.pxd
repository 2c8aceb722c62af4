# What event sinks are told of an exchange. Each of these is called only where `recording` is not None.

from soth_mitm._dataplane.exchange.exchange_state cimport ExchangeState
from soth_mitm._dataplane.exchange.flow_recording cimport AnsweredBy
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.stages cimport ContentStage
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.head cimport Head


cdef class ExchangeRecorded(ExchangeState):
    cdef int begin_recording(self) except -1
    # The request's head, once it is known where it goes
    cdef int record_request(self) except -1
    # What was collected of its body, once
    cdef int record_collected(self) except -1
    cdef int record_upstream(self) except -1           # there is a stream for it
    cdef int record_no_upstream(self, object error) except -1
    cdef int record_head(self, Head head) except -1    # of the upstream's final response
    cdef int record_interim(self, Head head) except -1
    # The client is sent `relayed`
    cdef int record_response(self, AnsweredBy by) except -1
    # It is sent a response of ours. `headers` None: the body is a line for people; `body` None: it follows
    cdef int record_answer(self, int status, bytes body, object headers) except -1
    cdef int record_body(self, View piece) except -1   # of the response, as the client is sent it
    cdef int record_frame(self, StreamChunk chunk, str direction) except -1
    cdef int record_end(self) except -1
    cdef dict websocket_close(self)
    # Whether frames of a stream of that type are to be told
    cdef bint records_frames(self, int stream) noexcept
    cdef bint records_messages(self) noexcept
    cdef ContentStage record_stage(self)               # content that passes through stages is recorded there


# Passes on what it is fed, and has it recorded
cdef class RecordStage(ContentStage):
    cdef ExchangeRecorded exchange
