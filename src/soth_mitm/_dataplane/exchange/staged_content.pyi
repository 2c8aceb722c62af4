from typing import final

from soth_mitm._dataplane.http.stages import ContentStage

DESCRIBING: tuple[bytes, ...]

@final
class TextStage(ContentStage): ...

@final
class StagedContent: ...
