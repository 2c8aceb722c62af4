JUDGEMENTS: dict[str, int]
RESPONSE_JUDGEMENTS: dict[str, int]
