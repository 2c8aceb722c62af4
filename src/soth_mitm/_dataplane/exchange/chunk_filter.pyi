from typing import final

from soth_mitm._dataplane.http.stages import ContentStage

@final
class ChunkFilter(ContentStage): ...
