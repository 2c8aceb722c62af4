from typing import final

from soth_mitm._dataplane.exchange.exchange_responses import ExchangeResponses
from soth_mitm._dataplane.http.stages import ContentStage

ENDED: bytes
FAILED: bytes

@final
class SearchStage(ContentStage): ...

class ExchangeStages(ExchangeResponses): ...
