"""Limits of an HTTP/2 connection: buckets, bounds of a header block, and the rule about overhead.

A bucket lets an honest peer be odd for a moment: it holds a burst and fills up again. Streams that a peer
made us reset draw from the same bucket as those that it reset itself, for both cost the same. What nothing
else counts is caught by the last rule: all octets of a connection against what they carry.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t

LIMIT_NAMES = {
    LIMIT_POLITE: "polite",
    LIMIT_RESETS: "resets",
    LIMIT_GLITCHES: "glitches",
    LIMIT_OVERHEAD: "overhead",
    LIMIT_HEAD: "head",
    LIMIT_HEAD_TIME: "head_time",
    LIMIT_LIST: "list",
    LIMIT_STREAMS: "streams",
    LIMIT_REPLIES: "replies",
    LIMIT_STALL: "stall",
    LIMIT_SETTINGS: "settings",
}
LIMIT_TEXTS = {
    LIMIT_POLITE: "the peer used up most of its glitches",
    LIMIT_RESETS: "streams are reset too often",
    LIMIT_GLITCHES: "there are too many odd frames",
    LIMIT_OVERHEAD: "too many octets carry nothing",
    LIMIT_HEAD: "a header block has too many frames or octets",
    LIMIT_HEAD_TIME: "a header block does not end in time",
    LIMIT_LIST: "a field list is far too large",
    LIMIT_STREAMS: "far too many streams are opened at once",
    LIMIT_REPLIES: "the peer does not read our replies",
    LIMIT_STALL: "the peer opens its window too slowly",
    LIMIT_SETTINGS: "our SETTINGS are not acknowledged in time",
}


@cython.final
cdef class Http2Limits:
    """What a peer may cost on one connection."""

    def __cinit__(self, *, int max_streams=100, uint32_t list_size=65536, uint32_t initial_window=65535,
                  int64_t max_window=8388608, double reset_burst=1000, double resets_per_second=100,
                  double glitch_burst=10000, double glitches_per_second=330, int max_queued_replies=1000,
                  double head_seconds=30, double stall_seconds=60):
        self.max_streams = max_streams
        self.list_size = list_size
        self.initial_window = initial_window
        self.max_window = max_window
        self.reset_burst = reset_burst
        self.resets_per_second = resets_per_second
        self.glitch_burst = glitch_burst
        self.glitches_per_second = glitches_per_second
        self.max_queued_replies = max_queued_replies
        self.head_seconds = head_seconds
        self.stall_seconds = stall_seconds

    cdef int max_head_frames(self) noexcept:
        # what the largest list needs in frames of full size, a quarter more, and some small ones
        return <int>(<int64_t>self.list_size * 5 // (4 * 16384)) + 5

    cdef int64_t max_head_octets(self) noexcept:
        # a field takes more octets in a list than in a block: more than this is over LIST_FACTOR anyway
        return <int64_t>self.list_size * LIST_FACTOR


cdef bint draw(Bucket* bucket, double burst, double rate, double now) noexcept nogil:
    """Take one from the bucket; False when it is empty."""
    bucket.level = min(burst, bucket.level + max(0.0, now - bucket.at) * rate)
    bucket.at = now
    if bucket.level < 1:
        return False
    bucket.level -= 1
    return True


@cython.final
cdef class LimitCounters:
    """What one connection has used up of its limits. Each answer is a name of LIMIT_NAMES, or "" for go on."""

    def __cinit__(self, Http2Limits limits not None):
        self.limits = limits
        self.resets.level = limits.reset_burst
        self.glitches.level = limits.glitch_burst

    cdef int note_reset(self, double now) noexcept:
        return LIMIT_OK if draw(&self.resets, self.limits.reset_burst, self.limits.resets_per_second, now) else LIMIT_RESETS

    cdef int note_glitch(self, double now) noexcept:
        self.total_glitches += 1
        if not draw(&self.glitches, self.limits.glitch_burst, self.limits.glitches_per_second, now):
            return LIMIT_GLITCHES
        # a quarter is left: the peer may finish what it has begun
        if not self.was_polite and 4 * self.glitches.level < self.limits.glitch_burst:
            self.was_polite = True
            return LIMIT_POLITE
        return LIMIT_OK

    cdef int note_octets(self, int64_t octets, int64_t payload) noexcept:
        self.all_octets += octets
        self.payload_octets += payload
        if self.all_octets > OVERHEAD_FACTOR * (self.payload_octets + OVERHEAD_FREE):
            return LIMIT_OVERHEAD
        return LIMIT_OK

    cdef int note_reply(self, bint is_unread) noexcept:
        self.replies = self.replies + 1 if is_unread else 1
        return LIMIT_OK if self.replies <= self.limits.max_queued_replies else LIMIT_REPLIES

    cdef int begin_head(self, uint32_t octets, double now) noexcept:
        self.head_frames = 0
        self.head_octets = 0
        self.head_began = now
        return self.go_on_head(octets, now)

    cdef int go_on_head(self, uint32_t octets, double now) noexcept:
        self.head_frames += 1
        self.head_octets += octets
        if self.head_frames > self.limits.max_head_frames() or self.head_octets > self.limits.max_head_octets():
            return LIMIT_HEAD
        return self.check_head_time(now)

    cdef int check_head_time(self, double now) noexcept:
        return LIMIT_HEAD_TIME if now - self.head_began > self.limits.head_seconds else LIMIT_OK

    def reset(self, double now):
        """A stream ended before its time."""
        return limit_name(self.note_reset(now))

    def glitch(self, double now):
        """Something odd came."""
        return limit_name(self.note_glitch(now))

    def octets(self, int64_t octets, int64_t payload):
        """So many octets went by, of which `payload` carry something."""
        return limit_name(self.note_octets(octets, payload))

    def reply(self, bint is_unread):
        """A reply was written; the peer has, or has not, taken what was written before."""
        return limit_name(self.note_reply(is_unread))

    def head(self, bint begins, uint32_t octets, double now):
        """A frame of a header block came."""
        return limit_name(self.begin_head(octets, now) if begins else self.go_on_head(octets, now))


cdef str limit_name(int limit):
    return LIMIT_NAMES[limit] if limit else ""


cdef str limit_text(int limit):
    return LIMIT_TEXTS[limit]
