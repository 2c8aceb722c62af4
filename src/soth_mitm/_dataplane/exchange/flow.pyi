from collections.abc import Callable
from typing import Any, final

from soth_mitm._dataplane.http.settings import Settings
from soth_mitm._dataplane.memory.waiter import Waiter
from soth_mitm._dataplane.upstream.pool import OriginPool
from soth_mitm._dataplane.wire.head import Head

@final
class Route:
    def __new__(
        cls,
        pool: OriginPool | None,
        meta: Any,
        scheme: str,
        authority: str,
        *,
        observed: bool = ...,
        status: int = ...,
        reason: bytes = ...,
        facts: Any = ...,
        on_facts: Callable[[Any, Any], Any] | None = ...,
        question: Any = ...,
        on_answer: Callable[[Any, Any], Route | None] | None = ...,
    ) -> Route: ...
    @property
    def pool(self) -> OriginPool | None: ...
    @property
    def meta(self) -> Any: ...
    @property
    def facts(self) -> Any: ...
    @property
    def on_facts(self) -> Callable[[Any, Any], Any] | None: ...
    @property
    def question(self) -> Any: ...
    @property
    def on_answer(self) -> Callable[[Any, Any], Route | None] | None: ...
    @property
    def scheme(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def observed(self) -> bool: ...
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> bytes: ...

@final
class Frames: ...

@final
class Flow(Waiter):
    def __new__(cls, settings: Settings, owner: Waiter, route: Route, request: Head) -> Flow: ...
