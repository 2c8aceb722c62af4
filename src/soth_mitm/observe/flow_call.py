"""The call of a model that a whole flow is, if it is one."""

from soth_mitm._dataplane.wire.decode import decoder_for
from soth_mitm.llm.model_call import ModelCall
from soth_mitm.observe.flow_record import Fields, FlowUpdate
from soth_mitm.observe.model_reading import CallReading


def call_of(flow: FlowUpdate, *, limit: int) -> ModelCall | None:
    """Return what came of the call; None: it is none, or got no answer. `limit` bytes of each side are decoded, of all that `flow` has."""
    record = flow.record
    if not CallReading.may_be(record):
        return None
    asked, is_whole, _ = _decoded(flow, False, record.request_fields, limit)
    reading = CallReading()
    if reading.begin(record, b"".join(data for _, data in asked), is_whole=is_whole and _has_all(flow, False)) is None:
        return None
    reading.answer(record)
    answered, is_whole, problem = _decoded(flow, True, record.response_fields, limit)
    for at, data in answered:
        reading.feed(data, at)
    if problem is not None:
        reading.fail_decoding(problem)
    elif not (is_whole and _has_all(flow, True)):
        reading.miss("not all of the answer was kept")
    return reading.end(record)


def _has_all(flow: FlowUpdate, to_client: bool) -> bool:
    size = flow.record.response_size if to_client else flow.record.request_size
    return sum(len(piece.data) for piece in flow.pieces if piece.to_client is to_client) >= size


def _decoded(flow: FlowUpdate, to_client: bool, fields: Fields, limit: int) -> tuple[list[tuple[float, bytes]], bool, str | None]:
    """Return a side's content with its times, whether all that is there was decoded, and what was wrong with its coding."""
    coding = next((value for name, value in fields if name.lower() == b"content-encoding"), None)
    decoder = decoder_for(coding, limit)
    found = [
        (piece.at, piece.data if decoder is None else decoder.feed(piece.data)) for piece in flow.pieces if piece.to_client is to_client
    ]
    if decoder is None or decoder.error is None:
        return found, True, None
    return found, False, None if decoder.overflow else decoder.error
