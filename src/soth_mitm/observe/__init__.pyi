from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import Fields, FlowKind, FlowMessage, FlowRecord, FlowUpdate, Piece, Timings
from soth_mitm.observe.har import HarContent, HarFlow, har_document, har_entry
from soth_mitm.observe.har_sink import HarSink
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.ndjson import EventLog, NdjsonSink, comparable
from soth_mitm.observe.otel import OtelSink
from soth_mitm.observe.store.sink import SqliteSink

__all__ = [
    "EventLog",
    "EventSink",
    "Fields",
    "FlowEvent",
    "FlowEventKind",
    "FlowKind",
    "FlowMessage",
    "FlowRecord",
    "FlowUpdate",
    "HarContent",
    "HarFlow",
    "HarSink",
    "Masker",
    "NdjsonSink",
    "OtelSink",
    "Piece",
    "SinkInfo",
    "SqliteSink",
    "Timings",
    "comparable",
    "har_document",
    "har_entry",
]
