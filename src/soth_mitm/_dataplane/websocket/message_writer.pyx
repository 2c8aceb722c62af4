"""Frames of our own. A message is one frame: some peers fail on fragments that are compressed."""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from soth_mitm._dataplane.websocket.frame cimport (
    BIT_COMPRESSED, BIT_CONTROL, BIT_FIN, LONGEST_CONTROL, LONGEST_HEAD, OPCODE_CLOSE,
    close_violation, write_frame_head,
)
from soth_mitm._dataplane.websocket.payload cimport soth_mask

cdef enum:
    KEY_OCTETS = 4
    KEYS_AT_ONCE = 1024        # a system call for each would cost more than the frame


@cython.final
cdef class MessageWriter:
    """Writer of the frames of one direction. `masks`: it is the one to the upstream."""

    def __cinit__(self, bint masks):
        self.masks = masks
        self.keys = b""

    cdef bytes frame(self, int bits, bytes payload):
        cdef char[LONGEST_HEAD] head
        cdef const char* key = NULL
        cdef Py_ssize_t n = PyBytes_GET_SIZE(payload)
        cdef int size
        cdef bytes made
        if bits & BIT_CONTROL and n > LONGEST_CONTROL:
            raise ValueError(f"a control frame has 125 octets of payload at most, not {n}")
        if self.masks:
            if self.next_key == PyBytes_GET_SIZE(self.keys):
                # with keys that it knows a client could choose what is on the wire (RFC 6455
                # section 10.3)
                self.keys = os.urandom(KEY_OCTETS * KEYS_AT_ONCE)
                self.next_key = 0
            key = PyBytes_AS_STRING(self.keys) + self.next_key
            self.next_key += KEY_OCTETS
        size = write_frame_head(head, bits, n, key)
        made = PyBytes_FromStringAndSize(NULL, size + n)
        memcpy(PyBytes_AS_STRING(made), head, size)
        if key == NULL:
            memcpy(PyBytes_AS_STRING(made) + size, PyBytes_AS_STRING(payload), n)
        else:
            soth_mask(PyBytes_AS_STRING(made) + size, PyBytes_AS_STRING(payload), n, key, 0)
        return made

    cdef bytes message(self, int opcode, bytes payload, bint is_compressed):
        return self.frame(BIT_FIN | opcode | (BIT_COMPRESSED if is_compressed else 0), payload)

    cdef bytes close(self, int code, bytes reason):
        cdef bytes payload = code.to_bytes(2, "big") + reason
        if close_violation(payload, len(payload)):
            raise ValueError(f"a Close must not be sent with code {code} and this reason")
        return self.frame(BIT_FIN | OPCODE_CLOSE, payload)

    def write_frame(self, int bits, bytes payload not None):
        """Return one frame; `bits` are FIN, RSV and opcode."""
        return self.frame(bits, payload)

    def write_message(self, int opcode, bytes payload not None, bint is_compressed=False):
        """Return a message in one frame."""
        return self.message(opcode, payload, is_compressed)

    def write_close(self, int code, bytes reason not None=b""):
        """Return a Close. ValueError: it must not be sent with this code or reason."""
        return self.close(code, reason)
