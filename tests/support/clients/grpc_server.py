"""A gRPC server with all four kinds of calls, the health service and reflection.

Arguments: its certificate, its key, or nothing for plain text. It prints its port and serves until its standard input ends.
"""

import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVICE = "test.Echo"


def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Say it back, and something in both kinds of metadata; `fail` and `slow` do as they say."""
    context.send_initial_metadata((("x-first", "one"),))
    context.set_trailing_metadata((("x-last", "two"), ("x-data-bin", b"\x00\xff")))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00e4")
    if request == b"slow":
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait()
    return request


def server_stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Say it as often as it says."""
    for number in range(int(request)):
        yield str(number).encode()


def client_stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    """Say how much came."""
    return str(sum(map(len, requests))).encode()


def both_stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each at once."""
    for request in requests:
        yield request[::-1]


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "BothStream": grpc.stream_stream_rpc_method_handler(both_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    servicer = health.HealthServicer()
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if len(sys.argv) > 1:
        certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("localhost:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0).wait()


main()
