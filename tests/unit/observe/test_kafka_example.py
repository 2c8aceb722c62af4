"""The example of a sink of one's own, docs/examples/kafka_sink.py, with a producer that is none of Kafka's but behaves like one."""

import json
import runpy
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from soth_mitm.observe.sink_feeds import check_sink
from support.made_flows import event, exchange, fields, mixed, model_stream, refused, sink_info
from support.source import ROOT

Delivered = Callable[[object, object], None]

pytestmark = pytest.mark.skipif(not (ROOT / "docs/examples").is_dir(), reason="the examples are in the tree")


class MadeProducer:
    """Takes `places` messages at a time, and delivers them when it is asked; `is_up` False: it delivers none."""

    def __init__(self, places: int = 3, *, is_up: bool = True, has_broker: bool = True) -> None:
        self._places = places
        self._waiting: deque[tuple[bytes, bytes, Delivered]] = deque()
        self._is_up = is_up
        self._has_broker = has_broker
        self.topics: list[tuple[str, bytes, dict[str, Any]]] = []
        self.refusals = 0

    def list_topics(self, timeout: float) -> None:
        if not self._has_broker:
            raise RuntimeError("no broker")

    def produce(self, topic: str, *, key: bytes, value: bytes, on_delivery: Delivered) -> None:
        if len(self._waiting) >= self._places:
            self.refusals += 1
            raise BufferError("Local: Queue full")
        self.topics.append((topic, key, json.loads(value)))
        self._waiting.append((key, value, on_delivery))

    def poll(self, timeout: float) -> int:
        count = 0
        while self._is_up and self._waiting:
            self._waiting.popleft()[2](None, object())
            count += 1
        return count

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self._waiting)


def sink_of(producer: MadeProducer, **options: Any) -> Any:
    sink = runpy.run_path(str(ROOT / "docs/examples/kafka_sink.py"))["KafkaSink"](producer, "flows", **options)
    sink.open(sink_info())
    return sink


def test_each_flow_is_a_message() -> None:
    producer = MadeProducer()
    sink = sink_of(producer)
    check_sink(sink)
    sink.accept([event(), exchange(1), *model_stream(2), refused(3), *mixed(50, first_id=4)])
    sink.close(1.0)
    assert {topic for topic, _, _ in producer.topics} == {"flows"}
    assert [found["flow"] for _, _, found in producer.topics] == list(range(1, 54))
    assert (sink.delivered, sink.lost) == (53, 0)
    # its queue was full in between
    assert producer.refusals > 0
    _, key, found = producer.topics[0]
    assert key == b"api.example.com"
    assert (found["method"], found["path"], found["status"], found["program"]) == ("GET", "/items/1?page=2", 200, "claude")
    assert found["proxy"] == str(sink_info().proxy_id)


def test_credentials_are_masked() -> None:
    producer = MadeProducer()
    sink = sink_of(producer, tag_key=bytes(32))
    secret = "sk-0123456789abcdef"
    sink.accept([exchange(path=f"/?key={secret}", request_fields=fields(authorization=f"Bearer {secret}"), host="\udcff", cause="\ud800")])
    assert secret not in json.dumps(producer.topics[0][2])
    assert producer.topics[0][2]["request_fields"][0][1].startswith("Bearer masked #")


def test_what_is_not_delivered_is_counted() -> None:
    sink = sink_of(MadeProducer(10, is_up=False))
    sink.accept([exchange(1), exchange(2)])
    sink.close(1.0)
    assert (sink.delivered, sink.lost) == (0, 2)
    sink._on_delivery(object(), object())
    assert sink.lost == 3


def test_no_broker_is_told_at_start() -> None:
    with pytest.raises(RuntimeError, match="no broker"):
        sink_of(MadeProducer(has_broker=False))
