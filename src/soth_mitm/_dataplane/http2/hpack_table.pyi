from typing import final

@final
class HpackTable:
    @property
    def added(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def limit(self) -> int: ...
