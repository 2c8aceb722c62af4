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
    shortest is long. Raises ValueError otherwise. A mapping has a replacement for each.
    """

    def __cinit__(self, texts):
        cdef size_t at
        # sorted, so that the tables do not depend on the order of a set
        self.texts = tuple(sorted(set(texts)))
        if isinstance(texts, dict):
            self.replacements = tuple([texts[text] for text in self.texts])
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

    cpdef bint is_in(self, bytes data) noexcept:
        """Tell whether one of the strings is in `data`."""
        cdef size_t at = 0
        cdef size_t which = 0
        return soth_strings_find(
            &self.tables, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), True, &at, &which) == SOTH_STRINGS_FOUND


@cython.final
cdef class Redactor:
    """A stream in which each of the strings of `searched` leaves as `replacement`, or as its own.

    `replaced` counts them. The bytes that it returns belong to the caller; data in which nothing is
    found is returned as it came.
    """

    def __cinit__(self, SearchedStrings searched not None, bytes replacement=None):
        if replacement is None and searched.replacements is None:
            raise ValueError("the strings have no replacements of their own")
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
            parts.append(<bytes>self.searched.replacements[which] if self.replacement is None else self.replacement)
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


@cython.final
cdef class Lookout:
    """A stream that ends where one of the strings of `searched` is in it.

    What leaves holds no string, and no beginning of one that another piece completes, unless
    `let_go` has let that go.
    """

    def __cinit__(self, SearchedStrings searched not None):
        self.searched = searched
        self.context = b""

    @property
    def held_bytes(self):
        """How many bytes wait for what follows; fewer than the longest string has."""
        return PyBytes_GET_SIZE(self.context) - self.passed

    cpdef bytes feed(self, bytes data):
        """Return what may leave now that `data` has come; None, from now on, when a string is there."""
        return self.pass_on(self.context + data if PyBytes_GET_SIZE(self.context) else data, False)

    cpdef bytes finish(self):
        """Return what was held back, at the end of the stream; None when a string is there."""
        return self.pass_on(self.context, True)

    cpdef bytes let_go(self):
        """Return what is held back, at the end of a message that may be answered before more comes.

        What follows is searched with it all the same.
        """
        cdef bytes left = self.context[self.passed:]
        self.passed = PyBytes_GET_SIZE(self.context)
        return left

    cdef bytes pass_on(self, bytes data, bint is_end):
        cdef size_t at = 0
        cdef size_t which = 0
        cdef Py_ssize_t passed = self.passed
        cdef Py_ssize_t begins
        cdef int result = SOTH_STRINGS_FOUND
        if not self.has_found:
            result = soth_strings_find(
                &self.searched.tables, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), is_end, &at, &which)
        if result == SOTH_STRINGS_FOUND:
            self.has_found = True
            self.context = b""
            self.passed = 0
            return None
        if result == SOTH_STRINGS_NONE:
            self.context = b""
            self.passed = 0
            return data[passed:] if passed else data
        begins = <Py_ssize_t>at
        self.context = data[begins:]
        self.passed = max(passed - begins, <Py_ssize_t>0)
        return data[passed:begins] if begins > passed else b""
