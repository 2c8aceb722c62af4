"""ext/mask.h and ext/utf8.h as Python functions."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.websocket.payload cimport SOTH_UTF8_BORDER, SOTH_UTF8_WRONG, soth_mask, soth_utf8, soth_utf8_whole

BORDER, WRONG = SOTH_UTF8_BORDER, SOTH_UTF8_WRONG


def mask(bytes data not None, bytes key not None, unsigned int phase, Py_ssize_t from_=0, Py_ssize_t to=0):
    """Return `data`, masked, and the phase behind it. Input and output stand `from_` and `to` octets from where memory is aligned."""
    cdef bytearray source = bytearray(from_) + data, out = bytearray(to + len(data))
    phase = soth_mask(PyByteArray_AS_STRING(out) + to, PyByteArray_AS_STRING(source) + from_, len(data), key, phase)
    return bytes(out[to:]), phase


def utf8(unsigned int state, bytes data not None):
    """Return the state behind `data`."""
    return soth_utf8(state, data, len(data))


def whole(unsigned int state, bytes data not None):
    """Return the whole characters of `data`, which ends in `state`."""
    return data[:soth_utf8_whole(state, PyBytes_AS_STRING(data), len(data))]
