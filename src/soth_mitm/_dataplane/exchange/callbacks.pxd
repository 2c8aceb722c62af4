# What the parts of an exchange (its hook queue, its share of the budget) tell it.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.stream cimport StreamCallbacks


cdef class ExchangeCallbacks(StreamCallbacks):
    # A reason (PauseReason) to read less has come (true) or gone
    cdef int on_pressure(self, int reason, bint now) except -1
    # The budget was waited for long enough: copies grow no more
    cdef int on_copies_late(self) except -1
    # on_request was called after the request had left, and returned this
    cdef int on_late_decision(self, object decision) except -1
    # A body that the handler gave has an item, an end or an error; its iterable is closed, and it is of no more use
    cdef int on_own_body(self, object body) except -1
    cdef int on_own_body_closed(self, object body) except -1
    # A MessageTap of its tunnel has read messages: they are in `found`
    cdef int on_messages(self, object tap) except -1
    # A filter has found a chunk: fill in what the exchange knows of it. Returns whether the handler is to be asked about it
    cdef bint on_chunk_found(self, StreamChunk chunk) except -1
    # What a ChunkFilter let pass, or sent instead, has left
    cdef int on_chunk_left(self, object stage, StreamChunk chunk) except -1
    # A ContentStage waits for a hook; it goes on, or the hook has returned after it was closed
    cdef int on_stage_waits(self, object stage) except -1
    cdef int on_stage_ready(self, object stage) except -1
    # A chunk of this exchange is to be shown: fill in what says whose it is
    cdef int describe_chunk(self, object chunk, str direction, int64_t sequence) except -1
    # A call of a hook that is not queued has suspended; it has returned
    cdef int on_call_begun(self) except -1
    cdef int on_call_returned(self) except -1
    # Event sinks are to be told of its flow: fill in FlowFacts
    cdef int describe_flow(self, object facts) except -1
    # The last hook that was queued has returned
    cdef int on_queue_idle(self) except -1


# What a direction of a tunnel tells it
cdef class TunnelCallbacks(StreamCallbacks):
    # What was waited for has come: go on with that MessageTap
    cdef int on_tap(self, object tap) except -1
