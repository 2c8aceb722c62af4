# What a peer may cost on one connection, and what is said of one that costs more. Both sides are
# guarded: an upstream can do all of this too. Time is given, never asked for.

from libc.stdint cimport int64_t, uint32_t


# The first answer but LIMIT_OK that a limit gives ends the connection, LIMIT_POLITE aside
cdef enum Limit:
    LIMIT_OK = 0
    LIMIT_POLITE               # no new streams: most of what is odd has been used up
    LIMIT_RESETS               # streams were ended early too often
    LIMIT_GLITCHES             # odd things, each of them legal, or the cause of a stream error
    LIMIT_OVERHEAD             # bytes that carry nothing
    LIMIT_HEAD                 # a header block of too many frames or octets
    LIMIT_HEAD_TIME            # one that does not end
    LIMIT_LIST                 # one whose fields are far too many
    LIMIT_STREAMS              # streams opened beyond the limit, many at once
    LIMIT_REPLIES              # replies that the peer does not read
    LIMIT_STALL                # a window that does not open
    LIMIT_SETTINGS             # our SETTINGS are not acknowledged
    LIMITS_END


cdef enum:
    LIST_FACTOR = 4            # a list so many times over its limit ends the connection
    OVERHEAD_FACTOR = 8        # all octets against what they carry and OVERHEAD_FREE
    OVERHEAD_FREE = 1048576
    STALL_OCTETS = 4096        # what a stream has to move in stall_seconds, or its rest
    MAX_INTERIM = 64           # interim heads before one response
    MAX_FIELDS = 256           # of one list


# What is allowed, the same for many connections. Numbers are those of the keys.
cdef class Http2Limits:
    cdef readonly int max_streams              # that a client opens, or that we open on one upstream connection
    cdef readonly uint32_t list_size           # octets of a field list
    cdef readonly uint32_t initial_window      # of a stream
    cdef readonly int64_t max_window
    cdef readonly double reset_burst
    cdef readonly double resets_per_second
    cdef readonly double glitch_burst
    cdef readonly double glitches_per_second
    cdef readonly int max_queued_replies
    cdef readonly double head_seconds          # for one header block
    cdef readonly double stall_seconds

    cdef int max_head_frames(self) noexcept
    cdef int64_t max_head_octets(self) noexcept


# Holds `burst`, and fills up by `rate` a second
cdef struct Bucket:
    double level
    double at


# What one connection has used up
cdef class LimitCounters:
    cdef readonly Http2Limits limits
    cdef Bucket resets
    cdef Bucket glitches
    cdef readonly int64_t total_glitches
    cdef int64_t all_octets
    cdef int64_t payload_octets
    cdef int replies
    cdef bint was_polite
    cdef int head_frames
    cdef int64_t head_octets
    cdef double head_began

    # A stream ended before its time, by the peer or by its fault
    cdef int note_reset(self, double now) noexcept
    cdef int note_glitch(self, double now) noexcept
    # Octets in or out, and how many of them are field blocks and content
    cdef int note_octets(self, int64_t octets, int64_t payload) noexcept
    # A reply was written, and `is_unread` says whether the peer has not taken what was written before
    cdef int note_reply(self, bint is_unread) noexcept
    # A header block begins or goes on with `octets`
    cdef int begin_head(self, uint32_t octets, double now) noexcept
    cdef int go_on_head(self, uint32_t octets, double now) noexcept
    cdef int check_head_time(self, double now) noexcept        # of a block that has begun

# A word for the counters: "glitches"
cdef str limit_name(int limit)
# One line for people
cdef str limit_text(int limit)
