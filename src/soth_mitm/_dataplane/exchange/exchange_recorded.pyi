from typing import final

from soth_mitm._dataplane.exchange.exchange_state import ExchangeState
from soth_mitm._dataplane.http.stages import ContentStage

class ExchangeRecorded(ExchangeState): ...

@final
class RecordStage(ContentStage): ...
