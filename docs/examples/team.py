"""A chain of rules with a handler behind them.

python -m soth_mitm run --destination '*.example.com:443' --handler team:Team
"""

from soth_mitm import Chain, HandlerDecision, InterceptHandler, RawRequest, SseEvent, rules


class Watch(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        # what the rules have left of it
        print(request.method, request.url)
        return HandlerDecision.ALLOW


class Team(Chain):
    def __init__(self) -> None:
        super().__init__(
            rules.block_hosts("*.telemetry.example:*"),
            rules.set_header("X-Team", "search", hosts=["api.example.com:443"]),
            rules.map_remote("https://api.example.com/v2/*", "http://127.0.0.1:8000"),
            rules.mock_json("POST", "https://llm.example.com/v1/chat", [SseEvent('{"text": "Hello"}'), SseEvent("[DONE]")]),
            Watch(),
        )
