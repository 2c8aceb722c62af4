"""Code as users write it; the type checkers must accept every line. Not run."""

from datetime import timedelta
from uuid import UUID

from soth_mitm import (
    CertificateAuthority,
    MitmProxyHandle,
    ThreadedHandle,
    TlsBypass,
    TrustReport,
    client_environment,
    install_ca_system_trust,
    is_ca_trusted,
    load_ca_from_pkcs12,
    uninstall_ca_system_trust,
    write_trust_files,
)
from soth_mitm._dataplane.http.messages import FrameKind, RawRequest, RawResponse, StreamChunk
from soth_mitm.chunk_decision import ChunkDecision, SseEvent
from soth_mitm.config import MitmConfig
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.decision import HandlerDecision
from soth_mitm.errors import TlsFailedError
from soth_mitm.handler import InterceptHandler, overridden_hooks
from soth_mitm.llm import LlmObserver, ModelCall, span_attributes
from soth_mitm.policy import Action, Policy


class PlainHandler(InterceptHandler):
    def on_connection_open(self, meta: ConnectionMeta) -> None:
        print(meta.connection_id)

    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        return process_info is None or process_info.exe_path != "/opt/agent/bin/trusted-local-agent"

    def on_tls_failure(self, host: str, error: TlsFailedError) -> None:
        print(host, error.side, error.reason)

    def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.Block(403, "blocked by policy") if "/blocked" in request.path else HandlerDecision.Allow

    def on_response(self, response: RawResponse) -> None:
        print(response.status)

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.DROP if chunk.text == "secret" else ChunkDecision.PASS

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        print(chunk.payload, chunk.replaced, chunk.injected)

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        print(connection_id, flow_id)

    def on_connection_close(self, connection_id: UUID) -> None:
        print(connection_id)


class CoroutineHandler(InterceptHandler):
    filter_kinds = frozenset({FrameKind.SSE_DATA})

    async def on_connection_open(self, meta: ConnectionMeta) -> None:
        print(meta.connection_id)

    async def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        return host != "localhost"

    async def on_tls_failure(self, host: str, error: TlsFailedError) -> None:
        print(host, error.detail)

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        return HandlerDecision.block(429, b"later", headers=[("Retry-After", "10"), (b"X-Why", b"quota")])

    async def on_response(self, response: RawResponse) -> None:
        print(response.status)

    async def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision:
        return ChunkDecision.replace("text", b"bytes", SseEvent("data", event="delta", id="1", retry=100))

    async def on_stream_chunk(self, chunk: StreamChunk) -> None:
        print(chunk.payload)

    async def on_stream_end(self, connection_id: UUID, flow_id: int) -> None:
        print(connection_id, flow_id)

    async def on_connection_close(self, connection_id: UUID) -> None:
        print(connection_id)


class CoroutineChild(CoroutineHandler):
    async def on_request(self, request: RawRequest) -> HandlerDecision:
        decision = await super().on_request(request)
        return decision if decision.is_block else HandlerDecision.block(403, headers={"X-Policy": "closed"})


def configure() -> MitmConfig:
    config = MitmConfig(bind="127.0.0.1:0")
    config.interception.destinations.append("api.example.com:443")
    config.tls.ca_cert_path = "ca.pem"
    config.upstream.client_cert_path["api.example.com:443"] = "client.pem"
    config.intercept_mode = "monitor"
    config.validate()
    return config


async def trust(handle: MitmProxyHandle, ca: CertificateAuthority) -> dict[str, str]:
    reports: list[TrustReport] = install_ca_system_trust(ca, browsers=False)
    if is_ca_trusted(ca) and reports[0].error is None:
        uninstall_ca_system_trust(ca)
    await handle.rotate_ca(load_ca_from_pkcs12(b"", "password"))
    environment = client_environment(write_trust_files(ca, "ca.pem"), "http://127.0.0.1:8080", direct=["localhost"])
    return environment | await handle.client_environment({"NO_PROXY": "localhost"})


def decide(policy: Policy) -> bool:
    decision = policy.decide("api.example.com", 443)
    return decision.action is Action.BLOCK and "on_request" in overridden_hooks(PlainHandler())


def left_for(bypass: TlsBypass) -> timedelta:
    print(bypass.host, bypass.port + bypass.failures, bypass.server_name, bypass.process.upper())
    return bypass.expires_at - bypass.opened_at


def forget_bypasses(handle: MitmProxyHandle | ThreadedHandle) -> int:
    longest = max(handle.tls_bypasses(), key=left_for)
    return handle.clear_tls_bypass(longest.host, longest.process) + handle.clear_tls_bypass(process="agent") + handle.clear_tls_bypass()


def spent(call: ModelCall) -> None:
    seconds: float = call.first_token or 0.0
    tokens: int = (call.tokens.input or 0) + (call.tokens.output or 0)
    names: list[str] = [tool.name for tool in call.tools if tool.complete]
    print(call.model or "?", seconds, tokens, names, call.as_dict()["outcome"], span_attributes(call)["gen_ai.provider.name"])


async def spent_later(call: ModelCall) -> None:
    spent(call)


OBSERVERS: list[InterceptHandler] = [LlmObserver(spent), LlmObserver(spent_later, endpoints={"llm.corp.example:443": "vllm"}, text_limit=0)]
