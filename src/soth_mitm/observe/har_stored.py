"""A flow of a store, made ready for a HAR file. What a store has is decoded and masked already."""

from soth_mitm.observe.flow_record import FlowKind, FlowMessage
from soth_mitm.observe.har import HarContent, HarFlow
from soth_mitm.observe.store.flow_content import FlowContent, Side


def stored_har_flow(flow: FlowContent) -> HarFlow:
    """Return it."""
    row, detail = flow.row, flow.detail
    messages = [FlowMessage(each.at_us / 1e6, each.to_client, each.opcode, each.data, each.size) for each in flow.messages]
    return HarFlow(
        flow_id=row.id,
        kind=FlowKind(row.kind),
        started=row.started,
        took=row.took,
        timings=detail.timings,
        scheme=row.scheme,
        host=row.host,
        port=row.port,
        method=row.method,
        path=row.path,
        status=row.status,
        http_version=detail.http_version,
        upstream_http_version=detail.upstream_http_version,
        request_fields=flow.request.fields,
        response_fields=flow.response.fields,
        request_size=row.request_bytes,
        response_size=row.response_bytes,
        request=_content(flow.request, row.request_bytes),
        response=_content(flow.response, row.response_bytes),
        messages=tuple(messages),
        missed=detail.missed,
        websocket_close=detail.websocket_close,
        upstream_address=detail.upstream_address,
        upstream_connection_id=detail.upstream_connection_id,
        outcome=row.outcome,
        cause=row.reason,
        decision=detail.decision,
        protocol=row.protocol,
        pattern=detail.pattern,
        grpc_status=detail.grpc_status,
        program=row.program or None,
        pid=row.pid,
        call=detail.call,
    )


def _content(side: Side, size: int) -> HarContent:
    if side.is_binary:
        return HarContent(problem="it is no text, of which a store keeps nothing")
    if side.is_undecoded:
        return HarContent(is_cut=side.is_shortened, problem="its content coding could not be removed")
    chunks = tuple(side.chunks)
    is_coded = bool(side.values("content-encoding"))
    if not is_coded:
        return HarContent(chunks, size, side.is_shortened)
    return HarContent(chunks, None if side.is_shortened else sum(len(data) for _, data in chunks), side.is_shortened)
