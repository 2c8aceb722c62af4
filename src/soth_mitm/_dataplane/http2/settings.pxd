# SETTINGS (RFC 9113 section 6.5, RFC 8441 section 3, RFC 9218 section 2.1): what they mean, what they
# may be, and how they are written.

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.http2.octets cimport Octets


cdef enum SettingName:
    SETTING_HEADER_TABLE_SIZE = 1
    SETTING_ENABLE_PUSH = 2
    SETTING_MAX_CONCURRENT_STREAMS = 3
    SETTING_INITIAL_WINDOW_SIZE = 4
    SETTING_MAX_FRAME_SIZE = 5
    SETTING_MAX_HEADER_LIST_SIZE = 6
    SETTING_ENABLE_CONNECT_PROTOCOL = 8
    SETTING_NO_RFC7540_PRIORITIES = 9


cdef enum:
    SETTING_ENTRY = 6              # octets
    MAX_SETTINGS = 32              # entries of one frame
    DEFAULT_WINDOW = 65535
    UNLIMITED = 0xFFFFFFFF


# What one side has announced
cdef struct Settings:
    uint32_t table_size
    uint32_t table_least           # the smallest of them in the frame that was read last
    uint32_t max_streams
    uint32_t window
    uint32_t frame_size
    uint32_t list_size
    bint push
    bint connect_protocol
    bint no_priorities


cdef enum SettingsFault:
    SETTINGS_OK = 0
    SETTINGS_TOO_MANY              # over MAX_SETTINGS
    SETTINGS_FLAG                  # neither 0 nor 1
    SETTINGS_PUSH                  # a server that would push
    SETTINGS_WINDOW                # over 2^31 - 1
    SETTINGS_FRAME_SIZE            # outside 2^14..2^24 - 1
    SETTINGS_WITHDRAWN             # ENABLE_CONNECT_PROTOCOL was 1


# What holds before the first SETTINGS frame
cdef void default_settings(Settings* settings) noexcept nogil
# Apply a payload, whose length is a multiple of six; `from_server` says who sent it. A SettingsFault.
# What is not known is ignored.
cdef int read_settings(Settings* settings, const char* payload, uint32_t length, bint from_server) noexcept nogil
# Append the entries of `settings` that are not the default. A server's push is no entry.
cdef int write_settings(Octets out, const Settings* settings, bint is_server) except -1
# The ErrorCode of the connection
cdef int settings_fault_code(int fault) noexcept nogil
# One line for people
cdef str settings_fault_text(int fault)
