"""A client of that server, through the proxy that `https_proxy` or `http_proxy` names. It prints what it got as JSON.

Arguments: the port, and the file of the proxy's CA where it is to speak TLS.
"""

import json
import queue
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

LARGE = bytes(range(251)) * 4000


def main() -> None:
    target = f"localhost:{sys.argv[1]}"
    options = (("grpc.max_receive_message_length", -1),)
    if len(sys.argv) > 2:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(sys.argv[2]).read_bytes()), options)
    else:
        channel = grpc.insecure_channel(target, options)
    got: dict[str, Any] = {}
    with channel:
        # the first call of all
        stub = health_pb2_grpc.HealthStub(channel)
        got["health"] = stub.Check(health_pb2.HealthCheckRequest(service="test.Echo"), timeout=20).status
        unary = channel.unary_unary("/test.Echo/Unary")
        answer, call = unary.with_call(b"hello", timeout=20, metadata=(("x-asked", "yes"),))
        got["unary"] = answer.decode()
        got["initial"] = dict(call.initial_metadata()).get("x-first")
        trailing = dict(call.trailing_metadata())
        got["trailing"] = [trailing.get("x-last"), list(trailing.get("x-data-bin", b""))]
        got["large"] = unary(LARGE, timeout=20) == LARGE
        got["compressed"] = unary(LARGE, timeout=20, compression=grpc.Compression.Gzip) == LARGE
        try:
            unary(b"fail", timeout=20)
        except grpc.RpcError as error:
            got["failed"] = [error.code().name, error.details()]
        try:
            unary(b"slow", timeout=0.3)
        except grpc.RpcError as error:
            got["late"] = error.code().name
        try:
            channel.unary_unary("/test.Echo/Nothing")(b"", timeout=20)
        except grpc.RpcError as error:
            # trailers only
            got["unknown"] = error.code().name
        got["served"] = [piece.decode() for piece in channel.unary_stream("/test.Echo/ServerStream")(b"5", timeout=20)]
        got["sent"] = int(channel.stream_unary("/test.Echo/ClientStream")(iter([LARGE] * 3), timeout=20))
        got["both"] = ping_pong(channel.stream_stream("/test.Echo/BothStream"))
        cancelled = channel.unary_stream("/test.Echo/ServerStream")(b"100000000", timeout=20)
        next(cancelled)
        cancelled.cancel()
        got["after_cancel"] = unary(b"again", timeout=20).decode()
        reflecting = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflecting.ServerReflectionInfo(iter([asked]), timeout=20)
        got["services"] = sorted(service.name for service in listed.list_services_response.service)
    print(json.dumps(got))


def ping_pong(method: Any) -> list[str]:
    """Send each message when the one before was answered."""
    to_send: queue.Queue[bytes | None] = queue.Queue()
    to_send.put(b"ab")
    answers = []
    calls = method(iter(to_send.get, None), timeout=20)
    for answer in calls:
        answers.append(answer.decode())
        to_send.put(b"cd" if len(answers) < 3 else None)
    return answers


main()
