from typing import final

GUID: bytes
FAULT_TEXTS: tuple[str, ...]

@final
class Extension: ...
