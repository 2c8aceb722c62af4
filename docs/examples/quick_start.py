"""The quick start of the README: a gate that blocks one path and leaves one program alone."""

import asyncio

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, ProcessInfo, RawRequest


class Gate(InterceptHandler):
    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        return process_info is None or process_info.exe_path != "/opt/agent/bin/trusted-local-agent"

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        if "/blocked" in request.path:
            return HandlerDecision.block(403, b"blocked by policy")
        return HandlerDecision.ALLOW


async def main() -> None:
    config = MitmConfig()
    config.interception.destinations.append("api.example.com:443")

    proxy = MitmProxyBuilder(config, Gate()).build()
    handle = await proxy.start()

    _metrics = handle.metrics()
    await handle.shutdown(2)


if __name__ == "__main__":
    asyncio.run(main())
