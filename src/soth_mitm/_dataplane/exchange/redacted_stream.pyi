from collections.abc import Mapping
from typing import final

from soth_mitm._dataplane.http.stream import Stream, StreamCallbacks
from soth_mitm._dataplane.wire.head import Head

BODY_FIELDS: tuple[bytes, ...]

@final
class RedactedCallbacks(StreamCallbacks): ...

@final
class RedactedStream(Stream): ...

def redacted(head: Head, strings: Mapping[bytes, bytes], drops_body: bool) -> Head: ...
