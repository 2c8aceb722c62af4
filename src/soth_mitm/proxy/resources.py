"""What all configurations of one proxy share."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from soth_mitm._dataplane.exchange.open_websockets import OpenWebSockets
from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.hooks import HookCounters
from soth_mitm._dataplane.memory.budget import Budget
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm.connection import SocketAddress
from soth_mitm.observe.observation import Observation
from soth_mitm.observe.recording import ProxyRecording
from soth_mitm.observe.sink_feeds import SinkFeeds
from soth_mitm.proxy.calls import HandlerReports
from soth_mitm.proxy.counters import ConnectionCounters
from soth_mitm.proxy.flow_counts import PatternCounts
from soth_mitm.proxy.learning import Learning
from soth_mitm.proxy.own_address import OwnAddress
from soth_mitm.proxy.process_lookup import ProcessLookup


@dataclass(slots=True, frozen=True)
class ProxyResources:
    """What a proxy has from its start to its end, whatever is reloaded."""

    loop: asyncio.AbstractEventLoop
    handler: object
    reports: HandlerReports
    budget: Budget
    arena: Arena
    counters: Counters
    flow_counts: PatternCounts
    hook_counters: HookCounters
    connection_counters: ConnectionCounters
    lookup: ProcessLookup
    learning: Learning
    observation: Observation | None
    sinks: SinkFeeds | None
    recording: ProxyRecording | None
    """What event sinks are told; None: there are none."""
    minting: Executor
    """Where leaf certificates are minted."""
    decoding: Executor
    """Where long request bodies are decoded."""
    websockets: OpenWebSockets
    """Those whose messages are read."""
    own_address: Callable[[SocketAddress], OwnAddress | None]
    """Which of our listening addresses connecting to an address would lead to."""
