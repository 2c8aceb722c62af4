JUDGEMENTS: dict[str, int]
