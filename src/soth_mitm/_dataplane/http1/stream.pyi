from typing_extensions import disjoint_base

from soth_mitm._dataplane.http.stream import Stream

@disjoint_base
class Http1Stream(Stream): ...
