from collections.abc import Callable
from typing import Any, final

from typing_extensions import disjoint_base

from soth_mitm._dataplane.http.counters import Counters
from soth_mitm._dataplane.http.stream import HttpConnection
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm._dataplane.memory.waiter import Waiter
from soth_mitm._dataplane.transport.endpoint import Endpoint
from soth_mitm.errors import WireError

@disjoint_base
class PooledConnection(HttpConnection):
    @property
    def served(self) -> int: ...
    def abort(self) -> None: ...

@final
class OriginPool(Waiter):
    fallback: Callable[[], OriginPool] | None
    on_first_return: Callable[[Endpoint], object] | None
    on_refusal: Callable[[Exception, bool], WireError] | None
    first_answer: DeadlineQueue | None
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
    def connected(self, connection: PooledConnection) -> None: ...
    def expect(self, streams: int) -> None: ...
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
    def streams_expected(self) -> int: ...
    @property
    def idle_count(self) -> int: ...
    @property
    def waiting_count(self) -> int: ...
