"""Moving body bytes: what the framing calls complete is taken from the source's inbox in one piece and sent on as it is."""

from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.body cimport BODY_CHUNKED, BODY_DONE, BODY_FAILED, BODY_LENGTH, Body, body_next
from soth_mitm._dataplane.buffer cimport BLOCK_SIZE
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.flow cimport Copy, Flow
from soth_mitm._dataplane.view cimport View, view_bytes


cdef Moved verdict(Body* body) noexcept:
    if body.state == BODY_DONE:
        return MOVED_ALL
    if body.state == BODY_FAILED:
        return MOVED_NONSENSE
    return MOVED_SOME


cdef bint move_collected(Flow flow, Endpoint target) except -1:
    """Send on what was collected before the decision, as far as the target takes it now; true when all of it is on its way."""
    cdef Copy wire = flow.wire
    cdef Py_ssize_t length
    while wire.sent < wire.size:
        if target.blocked:
            return False
        length = min(wire.size - wire.sent, <Py_ssize_t>BLOCK_SIZE)
        target.send(PyBytes_AS_STRING(wire.content) + wire.sent, length)
        flow.plane.counters.bytes_to_upstreams += length
        wire.sent += length
        if length == BLOCK_SIZE:
            # before the next one: only then it is known whether the target takes it
            target.flush()
    return True


cdef int move_request(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.request_body
    cdef const char* data = source.inbox.data()
    cdef Py_ssize_t size = source.inbox.size(), total = 0, count
    cdef View payload, trailers
    cdef bint over
    # a copy of the content is kept when the wire's bytes are not the content, and for a handler that is asked afterwards
    cdef bint copying = (body.kind == BODY_CHUNKED) if target is None else flow.payload is not None
    cdef Moved moved
    if target is not None and flow.wire is not None:
        if not move_collected(flow, target):
            return MOVED_SOME
        if body.state != BODY_DONE or not flow.is_repeatable() or flow.response is not None:
            flow.forget_wire()
    if target is None and body.kind == BODY_LENGTH:
        # no further than the handler is shown, so that it can be shown these very bytes
        size = min(size, flow.plane.body_limit - body.payload_total)
    while total < size:
        count = body_next(body, data + total, size - total, &payload, &trailers)
        if count <= 0:
            break
        total += count
        if copying and payload.len:
            flow.keep_payload(payload)
        if trailers.len:
            flow.request_trailers = view_bytes(trailers)
    over = flow.bounded and body.payload_total > flow.plane.body_limit
    if total:
        if over:
            pass
        elif target is None:
            flow.keep_request(data, total)
        else:
            target.send(data, total)
            flow.plane.counters.bytes_to_upstreams += total
        flow.plane.counters.bytes_from_clients += total
        source.inbox.consume(total)
    if over:
        return MOVED_OVER
    moved = verdict(body)
    if moved == MOVED_SOME and (target is None or copying):
        flow.grow(target is None)
    return moved


cdef int move_response(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.response_body
    cdef const char* data = source.inbox.data()
    cdef Py_ssize_t size = source.inbox.size(), total = 0, count
    cdef View payload, trailers
    cdef bint seeing = flow.copy is not None or flow.framer is not None
    cdef Moved moved
    while total < size:
        count = body_next(body, data + total, size - total, &payload, &trailers)
        if count <= 0:
            break
        total += count
        if seeing and payload.len:
            flow.see_payload(payload)
        if trailers.len:
            flow.response_trailers = view_bytes(trailers)
    if total:
        target.send(data, total)
        flow.plane.counters.bytes_from_upstreams += total
        flow.plane.counters.bytes_to_clients += total
        source.inbox.consume(total)
        if flow.frames:
            # traffic first, then the handler
            target.flush()
            flow.push_frames()
    moved = verdict(body)
    if moved == MOVED_SOME and seeing:
        flow.grow(False)
    return moved
