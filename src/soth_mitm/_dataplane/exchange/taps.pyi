from typing import final

@final
class FrameTap: ...
