from typing import final

ERROR_TEXTS: dict[int, str]

@final
class FieldList:
    @property
    def octets(self) -> int: ...
    @property
    def is_over(self) -> bool: ...

@final
class HpackDecoder:
    def decode_block(self, block: bytes, limit: int = 65536) -> tuple[list[tuple[bytes, bytes, bool]], bool]: ...
    @property
    def table_size(self) -> int: ...
