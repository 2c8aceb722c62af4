STREAMS: dict[str, int]
