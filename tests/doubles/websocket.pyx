"""What the WebSocket engine does in C and between its modules, as Python functions."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.websocket.deflate cimport Deflater, Inflater, new_deflater
from soth_mitm._dataplane.websocket.handshake cimport (
    Agreement, asks_for_websocket, read_agreement, remove_other_offers, request_fault, response_fault,
)
from soth_mitm._dataplane.websocket.payload cimport SOTH_UTF8_BORDER, SOTH_UTF8_WRONG, soth_mask, soth_utf8, soth_utf8_whole
from soth_mitm._dataplane.websocket.windows cimport Windows
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

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


def asks(Head request not None):
    """Tell whether a request asks for a WebSocket."""
    return bool(asks_for_websocket(request))


def fault_of_request(Head request not None):
    """Return an index of FAULT_TEXTS: why the request cannot open a WebSocket."""
    return request_fault(request)


def fault_of_response(Head request not None, Head response not None):
    """Return an index of FAULT_TEXTS: why the 101 does not open what `request` asks for."""
    return response_fault(request, response)


def agreement(Head request not None, Head response not None):
    """Return what of the 101 is a fault, an index of FAULT_TEXTS, and what both agree on."""
    cdef Agreement agreed
    fault = read_agreement(request, response, &agreed)
    return fault, {
        "compresses": bool(agreed.compresses),
        "is_foreign": bool(agreed.is_foreign),
        "client": (bool(agreed.client_takeover), agreed.client_bits),
        "upstream": (bool(agreed.upstream_takeover), agreed.upstream_bits),
    }


def without_other_offers(Head request not None, HeadEdits edits not None):
    """Return how many offers were taken out of the request, by `edits`."""
    return remove_other_offers(request, edits)


def inflate(Inflater inflater not None, payloads not None, Py_ssize_t allowance):
    """Inflate one message, whose payload comes in pieces: (message or None, pieces that it was given out in, what is left of the allowance).

    None: it is malformed. `allowance` is given anew for each piece that is given out.
    """
    cdef Py_ssize_t left = allowance
    found = []
    inflater.begin()
    for payload in [*payloads, None]:
        if payload is None:
            inflater.end()
        else:
            inflater.feed(payload)
        while inflater.is_pending:
            left = allowance
            piece = inflater.take(&left)
            if piece is None:
                return None, found, left
            found.append(piece)
    return b"".join(found), found, left


def inflate_nothing_without_allowance(Inflater inflater not None, bytes payload not None):
    """Return what is given out of a payload while nothing may be, and whether there is more."""
    cdef Py_ssize_t left = 0
    inflater.begin()
    inflater.feed(payload)
    return inflater.take(&left), left, bool(inflater.is_pending)


def compress(int bits, bint takeover, messages not None):
    """Return the payloads of messages, compressed one after the other; None: there is no compressor for such a window."""
    cdef Deflater deflater = new_deflater(bits, takeover)
    return None if deflater is None else [deflater.compress(message) for message in messages]


def keep(Windows windows not None, bytes message not None):
    return windows.keep(message)


def replace(Windows windows not None, bytes message not None, bint may_compress=True):
    return windows.replace(message, may_compress)


def leave_out(Windows windows not None):
    windows.leave_out()


def has_deflater(Windows windows not None):
    return windows.deflater is not None
