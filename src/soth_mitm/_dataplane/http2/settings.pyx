"""SETTINGS of HTTP/2: read with every rule that a value has, written as far as they say something."""

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.http2.frame cimport (
    ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, FRAME_SIZE, MAX_FRAME_SIZE, MAX_WINDOW, NO_ERROR, PROTOCOL_ERROR, read_16,
    read_32, write_16, write_32,
)
from soth_mitm._dataplane.http2.hpack_table cimport DEFAULT_TABLE
from soth_mitm._dataplane.http2.octets cimport Octets

from soth_mitm._dataplane.http2.frame import name_error_code

FAULT_TEXTS = {
    SETTINGS_TOO_MANY: f"a SETTINGS frame has more than {MAX_SETTINGS} entries",
    SETTINGS_FLAG: "a setting that is 0 or 1 is neither",
    SETTINGS_PUSH: "a server announces that it would take pushes",
    SETTINGS_WINDOW: "SETTINGS_INITIAL_WINDOW_SIZE is over 2^31 - 1",
    SETTINGS_FRAME_SIZE: "SETTINGS_MAX_FRAME_SIZE is not in 2^14..2^24 - 1",
    SETTINGS_WITHDRAWN: "SETTINGS_ENABLE_CONNECT_PROTOCOL was 1 and is 0",
}


cdef void default_settings(Settings* settings) noexcept nogil:
    settings.table_size = settings.table_least = DEFAULT_TABLE
    settings.max_streams = UNLIMITED
    settings.window = DEFAULT_WINDOW
    settings.frame_size = FRAME_SIZE
    settings.list_size = UNLIMITED
    settings.push = True
    settings.connect_protocol = False
    settings.no_priorities = False


cdef int read_settings(Settings* settings, const char* payload, uint32_t length, bint from_server) noexcept nogil:
    cdef uint32_t at = 0, value
    cdef int fault
    if length > MAX_SETTINGS * SETTING_ENTRY:
        return SETTINGS_TOO_MANY
    settings.table_least = settings.table_size
    while at < length:
        value = read_32(payload + at + 2)
        fault = _read_setting(settings, read_16(payload + at), value, from_server)
        if fault:
            return fault
        at += SETTING_ENTRY
    return SETTINGS_OK


cdef int _read_setting(Settings* settings, uint32_t name, uint32_t value, bint from_server) noexcept nogil:
    if name == SETTING_HEADER_TABLE_SIZE:
        settings.table_size = value
        settings.table_least = min(settings.table_least, value)
    elif name == SETTING_ENABLE_PUSH:
        if value > 1:
            return SETTINGS_FLAG
        if from_server and value:
            return SETTINGS_PUSH
        settings.push = value
    elif name == SETTING_MAX_CONCURRENT_STREAMS:
        settings.max_streams = value
    elif name == SETTING_INITIAL_WINDOW_SIZE:
        if value > MAX_WINDOW:
            return SETTINGS_WINDOW
        settings.window = value
    elif name == SETTING_MAX_FRAME_SIZE:
        if value < FRAME_SIZE or value > MAX_FRAME_SIZE:
            return SETTINGS_FRAME_SIZE
        settings.frame_size = value
    elif name == SETTING_MAX_HEADER_LIST_SIZE:
        settings.list_size = value
    elif name == SETTING_ENABLE_CONNECT_PROTOCOL:
        if value > 1:
            return SETTINGS_FLAG
        if settings.connect_protocol and not value:
            return SETTINGS_WITHDRAWN
        settings.connect_protocol = value
    elif name == SETTING_NO_RFC7540_PRIORITIES:
        if value > 1:
            return SETTINGS_FLAG
        settings.no_priorities = value
    return SETTINGS_OK


cdef int write_settings(Octets out, const Settings* settings, bint is_server) except -1:
    cdef Settings default
    cdef char* at
    out.reserve(8 * SETTING_ENTRY)
    default_settings(&default)
    at = out.data + out.size
    at = _write_setting(at, SETTING_HEADER_TABLE_SIZE, settings.table_size, default.table_size)
    if not is_server:
        at = _write_setting(at, SETTING_ENABLE_PUSH, settings.push, default.push)
    at = _write_setting(at, SETTING_MAX_CONCURRENT_STREAMS, settings.max_streams, default.max_streams)
    at = _write_setting(at, SETTING_INITIAL_WINDOW_SIZE, settings.window, default.window)
    at = _write_setting(at, SETTING_MAX_FRAME_SIZE, settings.frame_size, default.frame_size)
    at = _write_setting(at, SETTING_MAX_HEADER_LIST_SIZE, settings.list_size, default.list_size)
    at = _write_setting(at, SETTING_ENABLE_CONNECT_PROTOCOL, settings.connect_protocol, default.connect_protocol)
    at = _write_setting(at, SETTING_NO_RFC7540_PRIORITIES, settings.no_priorities, default.no_priorities)
    out.size = at - out.data
    return 0


cdef inline char* _write_setting(char* at, uint32_t name, uint32_t value, uint32_t default) noexcept nogil:
    if value == default:
        return at
    write_16(at, name)
    write_32(at + 2, value)
    return at + SETTING_ENTRY


cdef int settings_fault_code(int fault) noexcept nogil:
    if fault == SETTINGS_OK:
        return NO_ERROR
    if fault == SETTINGS_TOO_MANY:
        return ENHANCE_YOUR_CALM
    return FLOW_CONTROL_ERROR if fault == SETTINGS_WINDOW else PROTOCOL_ERROR


cdef str settings_fault_text(int fault):
    return FAULT_TEXTS[fault]


def apply_settings(*payloads, bint from_server=False):
    """Apply SETTINGS payloads to the defaults, and return all values by name.

    Raises ValueError for a value that is an error of the connection, with the code's name and a text.
    """
    cdef Settings settings
    cdef bytes payload
    cdef int fault
    default_settings(&settings)
    for payload in payloads:
        if len(payload) % SETTING_ENTRY:
            raise ValueError("an entry has six octets")
        fault = read_settings(&settings, payload, <uint32_t>len(payload), from_server)
        if fault:
            raise ValueError(name_error_code(settings_fault_code(fault)), settings_fault_text(fault))
    return {
        "table_size": settings.table_size, "table_least": settings.table_least, "max_streams": settings.max_streams,
        "window": settings.window, "frame_size": settings.frame_size, "list_size": settings.list_size,
        "push": bool(settings.push), "connect_protocol": bool(settings.connect_protocol),
        "no_priorities": bool(settings.no_priorities),
    }


def make_settings(values not None, bint is_server=False):
    """Return the payload that announces these values, named as in `apply_settings`; the others are the defaults."""
    cdef Settings settings
    cdef Octets out = Octets()
    default_settings(&settings)
    settings.table_size = values.get("table_size", settings.table_size)
    settings.max_streams = values.get("max_streams", settings.max_streams)
    settings.window = values.get("window", settings.window)
    settings.frame_size = values.get("frame_size", settings.frame_size)
    settings.list_size = values.get("list_size", settings.list_size)
    settings.push = values.get("push", settings.push)
    settings.connect_protocol = values.get("connect_protocol", settings.connect_protocol)
    settings.no_priorities = values.get("no_priorities", settings.no_priorities)
    write_settings(out, &settings, is_server)
    return (<char*>out.data)[:out.size]
