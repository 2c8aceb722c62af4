from typing import final

@final
class Inflater:
    def __new__(cls, takeover: bool) -> Inflater: ...

@final
class Deflater: ...
