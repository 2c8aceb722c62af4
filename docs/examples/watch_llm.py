"""Print what a model answers, event by event, while the program that asked gets it too.

python docs/examples/watch_llm.py api.example.com:443
"""

import sys

from soth_mitm import FrameKind, HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest, StreamChunk


class WatchLlm(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        process = request.connection_meta.process_info
        print(f"\n{process.exe_name if process else '?'} asked {request.authority}: {request.body.decode(errors='replace')}", flush=True)
        return HandlerDecision.ALLOW

    def on_stream_chunk(self, chunk: StreamChunk) -> None:
        if chunk.frame_kind is FrameKind.SSE_DATA:
            print(f"{chunk.sequence:4} {chunk.event_type or 'message'}: {chunk.payload.decode(errors='replace')}", flush=True)


if __name__ == "__main__":
    config = MitmConfig()
    config.interception.destinations.extend(sys.argv[1:] or ["api.example.com:443"])
    MitmProxyBuilder(config, WatchLlm()).build().run_forever()
