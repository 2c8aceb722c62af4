from typing import final

from soth_mitm._dataplane.memory.waiter import Waiter

VERDICTS: dict[str, int]

@final
class ChunkJudge(Waiter): ...
