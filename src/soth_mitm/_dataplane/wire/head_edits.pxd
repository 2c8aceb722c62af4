# Changes to the header fields of a head. The encoders apply them while they write the head.
#
# There are two entrances. `set_field`, `append_field` and `remove_field` are for handlers: they check,
# and refuse a field that the proxy sets itself. The other functions are for the code that frames and
# routes the message: they check nothing.

from libc.stdint cimport int64_t, uint32_t


# All fields of one name are taken out, and one line may stand in the place of the first
cdef class FieldEdit:
    cdef bytes name                # in lower case
    cdef bytes line                # with its CRLF; None: the field is removed
    cdef bint is_written           # by the encoder that is at work


cdef class HeadEdits:
    cdef list edits                # FieldEdit, one for each name
    cdef list appended             # (name in lower case, line)
    cdef readonly Py_ssize_t size  # of all lines that are written
    cdef readonly bint frames      # the framing that the head announces is replaced

    # For handlers. 0 or a FieldError; a value's surrounding white space is left out.
    cdef int set_field(self, bytes name, bytes value) except -1      # one in place of all of that name
    cdef int append_field(self, bytes name, bytes value) except -1   # one more, behind all others
    cdef int remove_field(self, bytes name) except -1

    # For the proxy itself. `line` is `Name: value` with its CRLF, or several such lines, or None; `name` is in lower case for put_more().
    cdef int put_more(self, bytes name, bytes line) except -1        # one more, behind all others
    cdef int put(self, bytes name, bytes line) except -1
    cpdef int frame_with_length(self, int64_t length) except -1      # Content-Length alone
    cpdef int frame_with_chunks(self) except -1                      # Transfer-Encoding alone
    cpdef int frame_without_content(self) except -1                  # neither
    cpdef int set_host(self, bytes authority) except -1

    # For encoders. `begin` comes first, then each field of the head in turn.
    cdef void begin(self) noexcept
    cdef FieldEdit find(self, const char* name, uint32_t length)     # None: the field stays as it is
    # Write the edit's line to `out` unless that was done; returns where the next line begins
    cdef char* write(self, FieldEdit edit, char* out) noexcept
    # Write all lines that have no place in the head
    cdef char* write_rest(self, char* out) noexcept
