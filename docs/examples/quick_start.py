"""The quick start of the README: a gate that shows every request, blocks one path, and leaves one program alone.

python docs/examples/quick_start.py
"""

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, MitmProxyHandle, ProcessInfo, RawRequest


class Gate(InterceptHandler):
    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool:
        # the program at this path is tunnelled: nothing of it is read
        return process_info is None or process_info.exe_path != "/opt/agent/bin/trusted-local-agent"

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        print(request.method, request.url, flush=True)
        if "/blocked" in request.path:
            return HandlerDecision.block(403, b"blocked by policy\n")
        return HandlerDecision.ALLOW


def say_where(handle: MitmProxyHandle) -> None:
    print(f"try: curl -x {handle.url} --cacert {handle.ca_certificate_path} https://example.com/", flush=True)


def main(config: MitmConfig) -> None:
    config.interception.destinations.append("example.com:443")
    MitmProxyBuilder(config, Gate()).build().run_forever(say_where)


if __name__ == "__main__":
    main(MitmConfig())
