from collections.abc import Callable
from typing import Any, final

from soth_mitm._dataplane.http.counters import FlowCounts
from soth_mitm._dataplane.upstream.pool import OriginPool

@final
class Route:
    """Where requests go. `pool` is None for a refusal, which is answered `status` and `reason`."""

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
        counts: FlowCounts | None = ...,
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
    def counts(self) -> FlowCounts | None: ...
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
