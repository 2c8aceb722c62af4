import ssl
from typing import final

from soth_mitm._dataplane.memory.buffer import Arena

@final
class TlsEngine:
    def __new__(
        cls,
        arena: Arena,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None = ...,
        session: ssl.SSLSession | None = ...,
    ) -> TlsEngine: ...
    @property
    def ssl_object(self) -> ssl.SSLObject: ...
    def agreed(self) -> tuple[str | None, str | None, str | None, bool]: ...
    @property
    def has_shown(self) -> bool: ...
