from typing import final

@final
class Octets: ...
