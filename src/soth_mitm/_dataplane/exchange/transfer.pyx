"""Moving body bytes: what the framing calls complete is taken from the source's read buffer in one piece and sent on as it is."""

from soth_mitm._dataplane.http1.framing cimport BODY_DONE, BODY_FAILED, Body, body_next
from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport FRAMED_AT_ONCE, Flow
from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody
from soth_mitm._dataplane.memory.view cimport View, view_bytes


cdef enum:
    MOST_PIECES = 512      # of a body that are moved in one turn of the loop


cdef Moved verdict(Body* body) noexcept:
    if body.state == BODY_DONE:
        return MOVED_ALL
    if body.state == BODY_FAILED:
        return MOVED_NONSENSE
    return MOVED_SOME


cdef int collect_request(Flow flow, Endpoint source) except -1:
    cdef Body* body = &flow.request_body
    cdef Py_ssize_t size = source.read_buffer.size(), total
    cdef Moved moved
    if size:
        total = flow.collect(source.read_buffer.data(), size)
        flow.settings.counters.bytes_from_clients += total
        source.read_buffer.consume(total)
    if flow.bounded and body.payload_total > flow.settings.body_limit:
        return MOVED_OVER
    moved = verdict(body)
    if moved == MOVED_SOME:
        flow.grow(True)
    return moved


cdef bint send_collected(Flow flow, Endpoint target) except -1:
    """Send on what was collected before the decision, as far as the target takes it now; true when all of it is on its way."""
    cdef BufferedBody collected = flow.collected
    cdef char* block = NULL
    cdef View piece
    if collected.framing is not None and not collected.is_sent():
        block = target.arena.take_block(BLOCK_SIZE)
    try:
        while not collected.is_sent():
            if target.write_paused:
                return False
            collected.next_piece(block, BLOCK_SIZE, &piece)
            target.send(piece.ptr, piece.len)
            flow.settings.counters.bytes_to_upstreams += piece.len
            if piece.len == BLOCK_SIZE:
                # before the next one: only then it is known whether the target takes it
                target.flush()
        return True
    finally:
        if block != NULL:
            target.arena.give_block(block, BLOCK_SIZE)


cdef bint show_collected(Flow flow, Endpoint target) except -1:
    """Push frames of what was sent on, as many as one turn of the loop may; true when they are all that it has."""
    cdef bint is_all = False
    if not flow.is_paced:
        is_all = flow.see_collected()
        if flow.up.found:
            # traffic first, then the handler
            target.flush()
            flow.push_frames(flow.up)
    return is_all and not flow.ended


cdef int move_request(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.request_body
    cdef const char* data = source.read_buffer.data()
    cdef Py_ssize_t size = source.read_buffer.size(), total = 0, count
    cdef View payload, trailers
    cdef bint copying = flow.payload is not None
    cdef bint over, sent, full = False
    cdef Py_ssize_t length
    cdef Moved moved
    if flow.collected is not None:
        sent = send_collected(flow, target)
        if flow.up is not None and not show_collected(flow, target):
            # a handler that is behind is waited for, and others have their turn
            return MOVED_SOME if flow.ended or flow.is_paced else MOVED_MORE
        if not sent:
            return MOVED_SOME
        if body.state != BODY_DONE or not flow.is_repeatable() or flow.response is not None:
            flow.forget_collected()
    if flow.up is not None:
        flow.frame_decoded(flow.up)
    while total < size:
        length = size - total
        if flow.up is not None and flow.up.framer is not None:
            if flow.has_enough_of(flow.up):
                full = True
                break
            length = min(length, <Py_ssize_t>FRAMED_AT_ONCE)
        count = body_next(body, data + total, length, &payload, &trailers)
        if count == 0 and length < size - total:
            # a line or a trailer section that is longer
            count = body_next(body, data + total, size - total, &payload, &trailers)
        if count <= 0:
            break
        total += count
        if copying and payload.len:
            flow.keep_payload(payload)
        if flow.up is not None:
            flow.see_frames(flow.up, payload)
        if trailers.len:
            flow.request_trailers = view_bytes(trailers)
    over = flow.bounded and body.payload_total > flow.settings.body_limit
    if total:
        if not over:
            target.send(data, total)
            flow.settings.counters.bytes_to_upstreams += total
        flow.settings.counters.bytes_from_clients += total
        source.read_buffer.consume(total)
    if over:
        return MOVED_OVER
    moved = verdict(body)
    if flow.up is not None:
        if flow.up.found:
            target.flush()
            flow.push_frames(flow.up)
        if moved != MOVED_NONSENSE and (flow.up.decoded is not None or (full and moved == MOVED_SOME)):
            return MOVED_SOME if flow.ended else MOVED_MORE
        if moved == MOVED_ALL:
            flow.end_upload()
    if moved == MOVED_SOME and (copying or flow.up is not None):
        flow.grow(False)
    return moved


cdef int move_response(Flow flow, Endpoint source, Endpoint target) except -1:
    cdef Body* body = &flow.response_body
    cdef const char* data = source.read_buffer.data()
    cdef Py_ssize_t size = source.read_buffer.size(), total = 0, sent = 0, relayed = 0, count, length
    cdef View payload, trailers
    cdef bint seeing = flow.copy is not None or flow.down is not None
    cdef int pieces = 0
    cdef bint full = False
    cdef Moved moved
    if flow.down is not None:
        flow.frame_decoded(flow.down)
    while total < size:
        if pieces == MOST_PIECES or flow.has_enough_of(flow.down):
            full = True
            break
        length = size - total
        if flow.down is not None and flow.down.framer is not None and length > FRAMED_AT_ONCE:
            length = FRAMED_AT_ONCE
        count = body_next(body, data + total, length, &payload, &trailers)
        if count == 0 and length < size - total:
            # a line or a trailer section that is longer
            count = body_next(body, data + total, size - total, &payload, &trailers)
        if count <= 0:
            break
        pieces += 1
        if flow.unchunked:
            target.send(payload.ptr, payload.len)
            relayed += payload.len
        elif body.gap_len:
            target.send(data + sent, total + body.gap - sent)
            relayed += total + body.gap - sent
            sent = total + body.gap + body.gap_len
        total += count
        if seeing and payload.len:
            flow.see_payload(payload)
        if trailers.len:
            flow.response_trailers = view_bytes(trailers)
    if total:
        if not flow.unchunked:
            target.send(data + sent, total - sent)
            relayed += total - sent
        flow.settings.counters.bytes_from_upstreams += total
        flow.settings.counters.bytes_to_clients += relayed
        source.read_buffer.consume(total)
    if flow.down is not None and flow.down.found:
        # traffic first, then the handler
        target.flush()
        flow.push_frames(flow.down)
    moved = verdict(body)
    if moved != MOVED_NONSENSE and (
            (flow.down is not None and flow.down.decoded is not None) or (full and moved == MOVED_SOME)):
        return MOVED_MORE
    if moved == MOVED_SOME and seeing:
        flow.grow(False)
    return moved
