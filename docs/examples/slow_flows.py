"""Print what took longer than a second, as it ends.

python docs/examples/slow_flows.py example.com:443
"""

import sys
from collections.abc import Sequence

from soth_mitm import MitmConfig, MitmProxyBuilder
from soth_mitm.observe import EventSink, FlowEvent, FlowUpdate


class SlowFlows(EventSink):
    flows = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        for item in batch:
            if isinstance(item, FlowUpdate) and item.record.is_over and (item.record.took or 0) >= self._seconds:
                record = item.record
                first = record.timings.first_byte
                waited = "no response" if first is None else f"first byte after {first:.1f} s"
                print(f"{record.took:6.1f} s  {record.method} {record.host}{record.path!a} {record.status}, {waited}", flush=True)


if __name__ == "__main__":
    config = MitmConfig()
    config.interception.destinations.extend(sys.argv[1:] or ["example.com:443"])
    MitmProxyBuilder(config).with_event_sink(SlowFlows(1.0)).build().run_forever()
