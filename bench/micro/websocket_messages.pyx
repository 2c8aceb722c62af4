"""Frames and messages of WebSocket, without Python in between: what `bench_websocket.py` measures, which also compiles it."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport free, malloc

from soth_mitm._dataplane.websocket.deflate cimport Deflater, new_deflater
from soth_mitm._dataplane.websocket.frame cimport STEP_HEAD, STEP_PAYLOAD, FrameReader
from soth_mitm._dataplane.websocket.message_reader cimport EVENT_MESSAGE, EVENT_TURN, MessageReader
from soth_mitm._dataplane.websocket.message_writer cimport MessageWriter
from soth_mitm._dataplane.websocket.payload cimport SOTH_UTF8_BORDER, soth_mask, soth_utf8


def check_frames(FrameReader reader not None, bytes data not None):
    """Read the frames in `data` and do nothing with them; how many."""
    cdef const char* p = PyBytes_AS_STRING(data)
    cdef Py_ssize_t n = len(data), used = 0
    cdef int count = 0, step
    while True:
        step = reader.next(p, n, &used)
        if step == STEP_HEAD:
            count += 1
        elif step != STEP_PAYLOAD:
            return count
        p += used
        n -= used


def read_messages(MessageReader reader not None, bytes data not None):
    """Read the messages in `data`, each as an object; how many."""
    cdef const char* p = PyBytes_AS_STRING(data)
    cdef Py_ssize_t n = len(data), used = 0
    cdef int count = 0, event
    while True:
        event = reader.next(p, n, &used)
        if event == EVENT_MESSAGE:
            count += 1
        elif event == EVENT_TURN:
            reader.begin_turn()
        else:
            return count
        p += used
        n -= used


def write_messages(MessageWriter writer not None, bytes payload not None, int count):
    """Write `count` messages."""
    cdef int i
    for i in range(count):
        writer.message(1, payload, False)


def compress_messages(bytes payload not None, int bits, int count):
    """Compress `count` messages one after the other."""
    cdef Deflater deflater = new_deflater(bits, True)
    cdef int i
    for i in range(count):
        deflater.compress(payload)


def unmask(bytes data not None, int count):
    """Unmask `data` so many times."""
    cdef char* out = <char*>malloc(len(data) + 1)
    cdef unsigned int phase = 0
    cdef int i
    for i in range(count):
        phase += soth_mask(out, PyBytes_AS_STRING(data), len(data), b"\x01\xfe\x37\x80", i & 3)
    free(out)
    return phase


def check_text(bytes data not None, int count):
    """Check `data` so many times."""
    cdef unsigned int state = SOTH_UTF8_BORDER
    cdef int i
    for i in range(count):
        state |= soth_utf8(SOTH_UTF8_BORDER, PyBytes_AS_STRING(data), len(data))
    return state
