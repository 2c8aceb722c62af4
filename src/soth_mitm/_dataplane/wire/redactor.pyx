"""Replace many exact strings in a stream, whatever the pieces in which it comes.

What leaves does not depend on the pieces: the leftmost string is replaced first, of several at one
place the longest, in one pass, and the replacement is not searched. Only what may be the beginning
of a string is held back.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc


@cython.final
cdef class SearchedStrings:
    """Strings to search for.

    `texts` are 1 to 32,767 of them, of two bytes or more each; the search is as fast as the
    shortest is long. Raises ValueError otherwise.
    """

    def __cinit__(self, texts):
        cdef size_t at
        # sorted, so that the tables do not depend on the order of a set
        self.texts = tuple(sorted(set(texts)))
        if not 1 <= len(self.texts) <= SOTH_STRINGS_MOST:
            raise ValueError(f"expected 1 to {SOTH_STRINGS_MOST} strings, got {len(self.texts)}")
        self.strings = <soth_string*>PyMem_Malloc(len(self.texts) * sizeof(soth_string))
        if self.strings == NULL:
            raise MemoryError
        for at in range(<size_t>len(self.texts)):
            text = self.texts[at]
            # the strings may be secrets: an error shows none
            if not isinstance(text, bytes):
                raise TypeError(f"expected bytes, got {type(text).__name__}")
            if len(text) < SOTH_STRINGS_SHORTEST:
                raise ValueError(f"a string has {len(text)} bytes, and it needs {SOTH_STRINGS_SHORTEST}")
            self.strings[at].text = PyBytes_AS_STRING(text)
            self.strings[at].length = PyBytes_GET_SIZE(text)
        soth_strings_prepare(&self.tables, self.strings, len(self.texts))

    def __dealloc__(self):
        PyMem_Free(self.strings)


@cython.final
cdef class Redactor:
    """A stream in which each of the strings of `searched` leaves as `replacement`.

    `replaced` counts them. The bytes that it returns belong to the caller; data in which nothing is
    found is returned as it came.
    """

    def __cinit__(self, SearchedStrings searched not None, bytes replacement not None):
        self.searched = searched
        self.replacement = replacement
        self.held = b""
        self.replaced = 0

    @property
    def held_bytes(self):
        """How many bytes wait for what follows; fewer than the longest string has."""
        return PyBytes_GET_SIZE(self.held)

    cpdef bytes feed(self, bytes data):
        """Return what may leave now that `data` has come."""
        if PyBytes_GET_SIZE(self.held) > 0:
            data = self.held + data
            self.held = b""
        return self.pass_on(data, False)

    cpdef bytes finish(self):
        """Return what was held back, at the end of the stream. The redactor can begin anew then."""
        cdef bytes data = self.held
        self.held = b""
        return self.pass_on(data, True)

    cdef bytes pass_on(self, bytes data, bint is_end):
        cdef const char* text = PyBytes_AS_STRING(data)
        cdef size_t size = PyBytes_GET_SIZE(data)
        cdef size_t done = 0
        cdef size_t at = 0
        cdef size_t which = 0
        cdef list parts = []
        cdef int result
        while True:
            result = soth_strings_find(&self.searched.tables, text + done, size - done, is_end, &at, &which)
            if result != SOTH_STRINGS_FOUND:
                break
            parts.append(data[done:done + at])
            parts.append(self.replacement)
            self.replaced += 1
            done += at + self.searched.strings[which].length
        if result == SOTH_STRINGS_HELD:
            self.held = data[done + at:]
            parts.append(data[done:done + at])
        elif done == 0:
            return data
        else:
            parts.append(data[done:])
        return b"".join(parts)
