# Credentials of requests: what may go which way, which values a request needs, and the head and the body with the values in them.

from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.wire.decode cimport Decoder
from soth_mitm._dataplane.wire.grpc cimport GrpcParts
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.redactor cimport Lookout, Redactor, SearchedStrings


# Where the placeholder of one credential is replaced
cdef class CredentialPlaces:
    cdef readonly int number           # of the credential in its configuration
    cdef bytes placeholder
    cdef frozenset headers             # names in lower case
    cdef frozenset parameters          # names as they are when decoded
    cdef bint in_basic
    cdef bint in_path
    cdef bint in_body
    cdef bint in_messages
    cdef tuple spellings               # of the placeholder, in a body: as it is, in JSON, in a form


# What holds for the requests that go one way. Shared by all of them; never changed
cdef class CredentialTerms:
    cdef SearchedStrings forbidden     # placeholders and values that may not go there; None: there are none
    cdef dict permitted                # CredentialPlaces by placeholder
    cdef SearchedStrings wanted        # their placeholders as a head may spell them; None: there are none
    cdef object pattern                # of their placeholders
    cdef bint fills_bodies
    cdef bint fills_messages
    cdef SearchedStrings redaction     # values of them in all their spellings, with their placeholders; None: responses are not searched
    cdef SearchedStrings grpc_redaction    # the same, each with as many asterisks

    cdef bint forbids(self, bytes data) noexcept
    cdef bint forbids_head(self, Head head) except -1
    cdef bint may_fill(self, Head head) except -1      # False: there is no placeholder in it
    # The numbers of the credentials whose placeholder stands in a place of theirs
    cdef set needed_by_head(self, Head head)
    cdef set needed_by_body(self, Head head, bytes body)
    cdef set all_in_body(self)
    cdef set all_in_messages(self)

    # `values` has the value of each number. The head that is written instead of `head`: `head` itself if nothing changes.
    # ValueError: a value cannot stand in its place
    cdef Head filled_head(self, Head head, dict values)
    cdef SearchedStrings body_strings(self, Head head, dict values)    # None: nothing of the body is replaced
    # Of a WebSocket that goes this way. None: its messages are not searched. ValueError: a value cannot stand in a text message
    cdef MessageTerms message_terms(self, dict values, object counted)


# What holds for the messages of one WebSocket
cdef class MessageTerms:
    cdef SearchedStrings forbidden     # may be in none to the upstream; None: there are none
    cdef list numbers                  # of the credentials that are put in, each with the spellings of its placeholder
    cdef SearchedStrings in_text       # placeholders, with the values that text messages to the upstream have instead; None: there are none
    cdef SearchedStrings in_json       # the same in text that is JSON
    cdef SearchedStrings redaction     # values, with the placeholders that text to the client has instead; None: there are none
    cdef SearchedStrings binary_redaction      # the same in binary messages, with as many asterisks
    cdef object counted                # its count(numbers) and count_redacted(count) are told

    cdef bint forbids(self, bytes payload) noexcept
    # The payload itself where nothing changes
    cdef bytes with_values(self, bytes payload)
    cdef bytes without_values(self, bytes payload, bint is_text)
    cdef bytes close_without_values(self, bytes payload)       # code and reason


# What a body passes on its way to an upstream
cdef class UploadSearch:
    cdef Lookout lookout               # None: nothing is forbidden there
    cdef Redactor filling              # None: nothing is replaced
    cdef Decoder decoder               # of a body that is coded; or None
    cdef bint leaves_plain             # it goes on without its coding; feed it CODED_AT_ONCE, as it may become long
    cdef Lookout plain                 # what is decoded of one that goes on as it came passes this; or None
    cdef bytes coded                   # what may not leave before that
    cdef GrpcParts messages            # None: it is no gRPC
    cdef str error                     # why it cannot be searched, and ends; or None

    # What may leave now. None: it holds what may not go there, and nothing of it leaves from here on
    cdef bytes feed(self, bytes data)
    cdef bytes finish(self)
    cdef bytes feed_decoded(self, bytes data)
    cdef bytes feed_messages(self, bytes data)
    cdef Py_ssize_t held(self) noexcept
    # The same, sent; nothing is sent once it has found that
    cdef int send(self, Stream sink, const char* data, Py_ssize_t length) except -1
    cdef int send_rest(self, Stream sink) except -1
    cdef bint has_found(self) noexcept     # or it cannot be searched
    cdef int send_bytes(self, Stream sink, bytes data) except -1


# None: it passes as it is. `decoder`: of what it is fed; `messages`: it is gRPC
cdef UploadSearch new_upload_search(CredentialTerms terms, SearchedStrings strings, Decoder decoder, GrpcParts messages)
