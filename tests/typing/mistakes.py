"""Mistakes that the type checker must find: each line that ends in `# error` and no other. Not run."""

from soth_mitm import MitmProxyHandle, TlsBypass
from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.config import MitmConfig
from soth_mitm.decision import HandlerDecision
from soth_mitm.handler import InterceptHandler
from soth_mitm.llm import LlmObserver, ModelCall


class ForgotToAnswer(InterceptHandler):
    async def on_request(self, request: RawRequest) -> None:  # error
        print(request.path)


class AnswersWithTrue(InterceptHandler):
    def on_request(self, request: RawRequest) -> bool:  # error
        return True


def misconfigure() -> None:
    config = MitmConfig()
    config.intercept_mode = "observe"  # error
    config.upstream.timeout_ms = "5s"  # error
    config.upstream.timeout_seconds = 5  # error
    config.interception.destinations = "api.example.com:443"  # error
    HandlerDecision.block("403")  # error


def forget(handle: MitmProxyHandle, bypass: TlsBypass) -> None:
    handle.clear_tls_bypass(bypass)  # error
    bypass.failures = 0  # error


def spend(call: ModelCall) -> int:
    call.text = "x"  # error
    LlmObserver()  # error
    LlmObserver(len)  # error
    return call.tokens.input + 1  # error
