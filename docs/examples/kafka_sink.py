"""Send each flow that has ended to a topic of Kafka, without its content and with credentials masked.

pip install confluent-kafka
python docs/examples/kafka_sink.py 127.0.0.1:9092 api.example.com:443
"""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from soth_mitm import InterceptHandler, MitmConfig, MitmProxyBuilder
from soth_mitm.observe import EventSink, Fields, FlowEvent, FlowUpdate, Masker, SinkInfo


class KafkaSink(EventSink):
    """`producer` is a `confluent_kafka.Producer`. The key of a message is the host, so that what is told of a host stays in order."""

    name = "kafka"
    flows = True

    def __init__(self, producer: Any, topic: str, *, tag_key: bytes | None = None) -> None:
        self._producer = producer
        self._topic = topic
        # with a key of 16 bytes or more, equal values have equal tags, whichever proxy masked them
        self._masker = Masker(key=tag_key)
        self._proxy: dict[str, object] = {}
        self.delivered = 0
        self.lost = 0

    def open(self, info: SinkInfo) -> None:
        # raises where there is no broker: the proxy does not start then
        self._producer.list_topics(timeout=10)
        self._proxy = {"proxy": str(info.proxy_id), "worker": info.worker}

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        for update in batch:
            if isinstance(update, FlowUpdate) and update.record.is_over:
                self._send(update.record.host.encode("utf-8", "replace"), self._message(update))
        self._producer.poll(0)

    def _send(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, key=key, value=value, on_delivery=self._on_delivery)
                return
            except BufferError:
                # its queue is full: wait here, and let the proxy's queue for this sink fill up, which counts what it drops
                self._producer.poll(1)

    def _on_delivery(self, error: object, _message: object) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.lost += 1

    def _message(self, update: FlowUpdate) -> bytes:
        record = update.record
        process = record.connection.process_info
        found = self._proxy | {
            "flow": record.flow_id,
            "kind": record.kind,
            "started": record.started,
            "took": record.took,
            "outcome": record.outcome,
            "cause": record.cause,
            "program": process and process.exe_name,
            "method": record.method,
            "host": record.host,
            "port": record.port,
            "path": self._masker.path(record.path),
            "status": record.status,
            "request_fields": self._head(record.request_fields),
            "response_fields": self._head(record.response_fields),
            "request_size": record.request_size,
            "response_size": record.response_size,
        }
        texts = {name: encodable(value) if isinstance(value, str) else value for name, value in found.items()}
        return msgspec.json.encode(texts)

    def _head(self, fields: Fields) -> list[tuple[str, str]]:
        return [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in self._masker.head(fields)]

    def close(self, timeout: float) -> None:
        self.lost += self._producer.flush(timeout * 0.9)


def encodable(text: str) -> str:
    """Peers may send halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    from confluent_kafka import Producer

    brokers, *destinations = sys.argv[1:] or ["127.0.0.1:9092", "api.example.com:443"]
    producer = Producer({"bootstrap.servers": brokers, "compression.type": "zstd", "linger.ms": 50})
    config = MitmConfig()
    config.interception.destinations.extend(destinations)
    MitmProxyBuilder(config, InterceptHandler()).with_event_sink(KafkaSink(producer, "flows")).build().run_forever()
