"""What the product makes or reads in C only, as functions for tests."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from soth_mitm._dataplane.http.counters cimport FLOW_ENDS, FLOW_PROTOCOLS, STATUS_CLASSES, FlowCounts, Histogram
from soth_mitm._dataplane.http1.encoder cimport (
    CHUNK_LINE_ROOM,
    chunk_line,
    last_chunk,
    own_response_bytes,
)
from soth_mitm.process._linux.sock_diag cimport (
    SOTH_DIAG_NONE,
    SOTH_DIAG_REQUEST,
    SothEnd,
    SothSocket,
    fill_end,
    soth_diag_answer,
    soth_diag_request,
)


def encode_chunk(bytes data not None):
    """Return `data` as one chunk. Empty data has none: an empty chunk is the last one."""
    cdef char line[CHUNK_LINE_ROOM]
    cdef int size = chunk_line(line, len(data)) if data else 0
    return PyBytes_FromStringAndSize(line, size) + data + b"\r\n" if data else b""


def encode_last_chunk(bytes trailers not None=b""):
    """Return what ends a chunked body; `trailers` are field lines, each with its CRLF."""
    return last_chunk(trailers)


def own_response(int status, bytes body not None=b"", headers=(), bint close=False,
                 bint head_only=False):
    """Return a whole answer of the proxy's own; `headers` are (name, value) pairs of bytes that
    were validated before.
    """
    return own_response_bytes(status, body, headers, close, head_only)


def diag_request(bytes source not None, int source_port, bytes destination not None,
                 int destination_port, uint32_t sequence=0):
    """Return the question that `SockDiag.ask` puts, as bytes."""
    cdef SothEnd end
    cdef uint8_t[SOTH_DIAG_REQUEST] request
    fill_end(&end, source, source_port, destination, destination_port, 0)
    soth_diag_request(&end, sequence, request)
    return request[:SOTH_DIAG_REQUEST]


def diag_answer(bytes answer not None, uint32_t sequence=0):
    """Read an answer of the kernel: inode and user, None if there is no such connection. Raises
    OSError for any other refusal.
    """
    cdef SothSocket found
    cdef int code = soth_diag_answer(
        <const uint8_t*>PyBytes_AS_STRING(answer), PyBytes_GET_SIZE(answer), sequence, &found)
    if code < 0:
        raise OSError(-code, f"sock_diag does not answer: {os.strerror(-code)}")
    return None if code == SOTH_DIAG_NONE else (found.inode, found.uid)


def add_time(Histogram histogram not None, double seconds):
    """Count one time."""
    histogram.add(seconds)


def count_flow(FlowCounts counts not None, int protocol, int end, int status):
    """Count a flow that has ended."""
    counts.count(protocol, end, status)


def flow_sizes():
    """Return how many protocols, ends and classes of status are told apart."""
    return <int>FLOW_PROTOCOLS, <int>FLOW_ENDS, <int>STATUS_CLASSES
