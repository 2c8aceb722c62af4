"""Changes to the header fields of a head, by name and without regard to case.

The head itself stays as it came. An encoder writes it with its edits in one pass. Lines that no edit
names keep their bytes and their order. A field that is set stands where the first of that name stood;
without such a place it stands behind all other fields.

Set and remove replace what was done before to fields of that name; append adds to it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from soth_mitm._dataplane.wire.fields cimport (
    ERROR_OWN_FIELD, check_field, field_error_text, is_own_field,
)
from soth_mitm._dataplane.wire.headers cimport field_bytes
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower


@cython.final
cdef class FieldEdit:
    """What happens to the fields of one name."""


cdef inline bytes field_line(bytes name, bytes value):
    return b"%b: %b\r\n" % (name, value)


cdef int check(bytes name, bytes value) except -1:
    """Return the FieldError that forbids a handler this field."""
    cdef const char* text = PyBytes_AS_STRING(name)
    cdef size_t length = PyBytes_GET_SIZE(name)
    cdef int error = check_field(text, length, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if error:
        return error
    return ERROR_OWN_FIELD if is_own_field(text, length) else 0


cdef int allowed(object name, int error) except -1:
    """Raise the ValueError that a FieldError stands for."""
    if error:
        raise ValueError(f"header {name!r}: {field_error_text(error)}")
    return 0


@cython.final
cdef class HeadEdits:
    """Changes to the header fields of one message."""

    def __cinit__(self):
        self.edits = []
        self.appended = []

    cdef int set_field(self, bytes name, bytes value) except -1:
        cdef bytes trimmed = value.strip(b" \t")
        cdef int error = check(name, trimmed)
        return error if error else self.put(name, field_line(name, trimmed))

    cdef int append_field(self, bytes name, bytes value) except -1:
        cdef bytes trimmed = value.strip(b" \t")
        cdef int error = check(name, trimmed)
        return error if error else self.put_more(name.lower(), field_line(name, trimmed))

    cdef int remove_field(self, bytes name) except -1:
        cdef int error = check(name, b"")
        return error if error else self.put(name, None)

    cdef int put_more(self, bytes name, bytes line) except -1:
        self.appended.append((name, line))
        self.size += len(line)
        return 0

    cdef int put(self, bytes name, bytes line) except -1:
        cdef bytes lower = name.lower()
        cdef FieldEdit edit = None
        cdef list others = [pair for pair in self.appended if pair[0] != lower]
        if len(others) < len(self.appended):
            self.size -= sum([len(pair[1]) for pair in self.appended if pair[0] == lower])
            self.appended = others
        for edit in self.edits:
            if edit.name == lower:
                break
        else:
            edit = FieldEdit()
            edit.name = lower
            self.edits.append(edit)
        if edit.line is not None:
            self.size -= len(edit.line)
        edit.line = line
        if line is not None:
            self.size += len(line)
        return 0

    cpdef int frame_with_length(self, int64_t length) except -1:
        self.put(b"transfer-encoding", None)
        self.put(b"content-length", b"Content-Length: %d\r\n" % length)
        self.frames = True
        return 0

    cpdef int frame_with_chunks(self) except -1:
        self.put(b"content-length", None)
        self.put(b"transfer-encoding", b"Transfer-Encoding: chunked\r\n")
        self.frames = True
        return 0

    cpdef int frame_without_content(self) except -1:
        self.put(b"content-length", None)
        self.put(b"transfer-encoding", None)
        self.frames = True
        return 0

    cpdef int set_host(self, bytes authority) except -1:
        return self.put(b"host", field_line(b"Host", authority))

    cdef void begin(self) noexcept:
        cdef FieldEdit edit
        for edit in self.edits:
            edit.is_written = False

    cdef FieldEdit find(self, const char* name, uint32_t length):
        cdef FieldEdit edit
        for edit in self.edits:
            if (PyBytes_GET_SIZE(edit.name) == length
                    and soth_equals_lower(name, PyBytes_AS_STRING(edit.name), length)):
                return edit
        return None

    cdef char* write(self, FieldEdit edit, char* out) noexcept:
        if edit.is_written or edit.line is None:
            return out
        edit.is_written = True
        return copied(edit.line, out)

    cdef char* write_rest(self, char* out) noexcept:
        cdef FieldEdit edit
        cdef tuple pair
        for edit in self.edits:
            out = self.write(edit, out)
        for pair in self.appended:
            out = copied(<bytes>pair[1], out)
        return out

    def set(self, name, value):
        """Put one field in place of all fields of that name.

        ValueError says which rule of HTTP forbids it, or that the proxy sets this field itself.
        """
        allowed(name, self.set_field(field_bytes(name), field_bytes(value)))

    def append(self, name, value):
        """Add a field behind all others. Raises as `set` does."""
        allowed(name, self.append_field(field_bytes(name), field_bytes(value)))

    def remove(self, name):
        """Take out all fields of that name. Raises as `set` does."""
        allowed(name, self.remove_field(field_bytes(name)))


cdef inline char* copied(bytes line, char* out) noexcept:
    memcpy(out, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
    return out + PyBytes_GET_SIZE(line)
