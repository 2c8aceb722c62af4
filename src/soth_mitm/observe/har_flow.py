"""A flow as a sink was given it, made ready for a HAR file: its content decoded and masked."""

from collections.abc import Iterable

import msgspec

from soth_mitm._dataplane.wire.decode import decoder_for
from soth_mitm.observe.flow_record import Fields, FlowKind, FlowUpdate, Piece
from soth_mitm.observe.har import HarContent, HarFlow, Json, size_of
from soth_mitm.observe.masking import Masker


def har_flow(flow: FlowUpdate, masker: Masker, *, limit: int, call: Json | None = None) -> HarFlow:
    """Return it. `flow` has all of its content; `limit` is how many bytes of each body are shown without their content coding."""
    record = flow.record
    masked: list[str] = []
    request_fields = _masked_head(record.request_fields, masker, "request", masked)
    response_fields = _masked_head(record.response_fields, masker, "response", masked)
    path = masker.path(record.path)
    if path != record.path:
        masked.append("request.url")
    if record.kind is FlowKind.HTTP:
        request = _content(flow.pieces, False, record.request_fields, record.request_size, masker, limit)
        response = _content(flow.pieces, True, record.response_fields, record.response_size, masker, limit)
    else:
        request, response = HarContent(size=record.request_size), HarContent(size=record.response_size)
    masked += [f"{name}.content" for name, content in (("request", request), ("response", response)) if content.is_masked]
    messages = []
    for message in flow.messages:
        if message.opcode == 1:
            data = masker.text(message.data)
            if data is not message.data:
                message = msgspec.structs.replace(message, data=data)
                if "messages" not in masked:
                    masked.append("messages")
        messages.append(message)
    process = record.connection.process_info
    return HarFlow(
        flow_id=record.flow_id,
        kind=record.kind,
        started=record.started,
        took=record.took,
        timings=record.timings,
        scheme=record.scheme,
        host=record.host,
        port=record.port,
        method=record.method,
        path=path,
        status=record.status,
        http_version=record.http_version,
        upstream_http_version=record.upstream_http_version,
        request_fields=request_fields,
        response_fields=response_fields,
        request_head_size=size_of(record.request_fields),
        response_head_size=size_of(record.response_fields),
        request_size=record.request_size,
        response_size=record.response_size,
        request=request,
        response=response,
        messages=tuple(messages),
        missed=flow.missed,
        websocket_close=record.websocket_close,
        upstream_address=record.upstream_address,
        upstream_connection_id=record.upstream_connection_id,
        outcome=record.outcome,
        cause=record.cause,
        decision=record.decision,
        protocol=record.protocol,
        pattern=record.pattern,
        grpc_status=record.grpc_status,
        program=None if process is None else process.exe_name,
        pid=None if process is None else process.pid,
        call=call,
        masked=tuple(masked),
    )


def _masked_head(fields: Fields, masker: Masker, side: str, masked: list[str]) -> Fields:
    shown = masker.head(fields)
    if shown is not fields:
        pairs = zip(fields, shown, strict=True)
        changed = [name.lower().decode("latin-1") for (name, value), (_, masked_value) in pairs if value != masked_value]
        masked += [f"{side}.headers.{name}" for name in dict.fromkeys(changed)]
    return shown


def _content(pieces: Iterable[Piece], to_client: bool, fields: Fields, size: int, masker: Masker, limit: int) -> HarContent:
    own = [piece for piece in pieces if piece.to_client is to_client]
    if not own:
        return HarContent(size=size, is_cut=size > 0)
    coding = next((value for name, value in fields if name.lower() == b"content-encoding"), None)
    media = next((value for name, value in fields if name.lower() == b"content-type"), b"").decode("latin-1")
    decoder = decoder_for(coding, limit)
    mask = masker.stream(media)
    is_whole = sum(len(piece.data) for piece in own) >= size
    chunks: list[tuple[float, bytes]] = []
    plain: list[bytes] = []
    room = limit
    for piece in own:
        data = piece.data if decoder is None else decoder.feed(piece.data)
        if len(data) > room:
            data = data[:room]
            is_whole = False
        room -= len(data)
        plain.append(data)
        chunks.append((piece.at, mask.finish(data) if piece is own[-1] else mask.feed(data)))
    if decoder is not None and is_whole:
        decoder.finish()
    if decoder is not None and decoder.error is not None:
        if not decoder.overflow:
            # what cannot be read cannot be masked either
            return HarContent(is_cut=not is_whole, problem=decoder.error)
        is_whole = False
    known = limit - room if is_whole else size if decoder is None else None
    is_masked = b"".join(plain) != b"".join(data for _, data in chunks)
    return HarContent(tuple((at, data) for at, data in chunks if data), known, not is_whole, "", is_masked)
