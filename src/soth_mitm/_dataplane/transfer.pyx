"""Moving body bytes: what the framing calls complete is taken from the source's inbox in one piece and sent on as it is."""

from soth_mitm._dataplane.body cimport BODY_CHUNKED, BODY_DONE, BODY_FAILED, Body, body_next
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.flow cimport Flow
from soth_mitm._dataplane.view cimport View, view_bytes


cdef Moved verdict(Body* body) noexcept:
    if body.state == BODY_DONE:
        return MOVED_ALL
    if body.state == BODY_FAILED:
        return MOVED_NONSENSE
    return MOVED_SOME


cdef int move_request(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.request_body
    cdef const char* data = source.inbox.data()
    cdef Py_ssize_t size = source.inbox.size(), total = 0, count
    cdef View payload, trailers
    cdef bint over
    # a copy of the content is kept when the wire's bytes are not the content, and for a handler that is asked afterwards
    cdef bint copying = (body.kind == BODY_CHUNKED) if target is None else flow.payload is not None
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
    return verdict(body)


cdef int move_response(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.response_body
    cdef const char* data = source.inbox.data()
    cdef Py_ssize_t size = source.inbox.size(), total = 0, count
    cdef View payload, trailers
    cdef bint seeing = flow.copy is not None or flow.framer is not None
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
    return verdict(body)
