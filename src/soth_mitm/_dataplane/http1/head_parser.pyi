from typing import final

from soth_mitm._dataplane.wire.head import Head

@final
class HeadReader:
    def __new__(cls, is_request: bool, limit: int = 65536, most_fields: int = 256) -> HeadReader: ...
    def feed(self, data: bytes) -> tuple[Head, int] | None: ...
