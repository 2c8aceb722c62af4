"""What a proxy saw, told beside its traffic: event sinks, what they are given, and what they are made of.

    builder.with_event_sink(NdjsonSink("events.ndjson"))

A name is imported when it is asked for: a program that keeps no flows does not load what keeps them.
"""

from importlib import import_module

_PLACES = {
    "EventSink": "event_sink",
    "SinkInfo": "event_sink",
    "FlowEvent": "flow_event",
    "FlowEventKind": "flow_event",
    "Fields": "flow_record",
    "FlowKind": "flow_record",
    "FlowMessage": "flow_record",
    "FlowRecord": "flow_record",
    "FlowUpdate": "flow_record",
    "Piece": "flow_record",
    "Timings": "flow_record",
    "Masker": "masking",
    "HarContent": "har",
    "HarFlow": "har",
    "har_document": "har",
    "har_entry": "har",
    "HarSink": "har_sink",
    "NdjsonSink": "ndjson",
    "OtelSink": "otel",
    "EventLog": "ndjson",
    "comparable": "ndjson",
    "SqliteSink": "store.sink",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
