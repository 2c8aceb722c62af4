from typing import final

from soth_mitm._dataplane.http.stream import StreamCallbacks

@final
class ResponseDrain(StreamCallbacks): ...
