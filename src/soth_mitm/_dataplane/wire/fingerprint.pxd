# The texts that JA3 and JA4 are digests of.


# Characters being written; no number takes more than was reserved for it
cdef struct Text:
    char* start
    char* end
