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

def diag_request(source: bytes, source_port: int, destination: bytes, destination_port: int, sequence: int = 0) -> bytes: ...
def diag_answer(answer: bytes, sequence: int = 0) -> tuple[int, int] | None: ...
