from typing import final

@final
class SockDiag:
    def __new__(cls) -> SockDiag: ...
    def ask(
        self,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
        scope_id: int = 0,
    ) -> tuple[int, int] | None: ...
    def close(self) -> None: ...
