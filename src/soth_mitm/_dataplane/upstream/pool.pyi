from collections.abc import Callable
from typing import Any, final

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.transport.callbacks import EndpointCallbacks
from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm.errors import WireError

class Upstream(Endpoint):
    def __new__(cls, arena: Arena, callbacks: EndpointCallbacks) -> Upstream: ...
    facts: Any
    @property
    def served(self) -> int: ...

@final
class Parked(EndpointCallbacks):
    def __new__(cls, upstream: Upstream) -> Parked: ...

@final
class OriginPool:
    on_first_return: Callable[[Upstream], object] | None
    on_refusal: Callable[[Exception, bool], WireError] | None
    def __new__(
        cls,
        origin: Any,
        dial: Callable[[OriginPool], object],
        counters: Counters,
        idle_deadline: DeadlineQueue,
        surplus_deadline: DeadlineQueue,
        *,
        max_open: int,
        max_idle: int,
    ) -> OriginPool: ...
    def connected(self, upstream: Upstream) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def limit(self, max_open: int, max_idle: int) -> None: ...
    @property
    def max_open(self) -> int: ...
    @property
    def max_idle(self) -> int: ...
    @property
    def idle_deadline(self) -> DeadlineQueue: ...
    @property
    def surplus_deadline(self) -> DeadlineQueue: ...
    @property
    def origin(self) -> Any: ...
    @property
    def dial(self) -> Callable[[OriginPool], object]: ...
    @property
    def open(self) -> int: ...
    @property
    def dialling(self) -> int: ...
    @property
    def idle_count(self) -> int: ...
    @property
    def waiting_count(self) -> int: ...
