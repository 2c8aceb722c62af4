# Content of an exchange that passes through stages: what filter_stream_chunk decides on.

from soth_mitm._dataplane.exchange.credentials cimport UploadSearch
from soth_mitm._dataplane.exchange.exchange_responses cimport ExchangeResponses
from soth_mitm._dataplane.exchange.staged_content cimport StagedContent
from soth_mitm._dataplane.http.stages cimport ContentStage
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.wire.head cimport Head


# What leaves of a request is searched for credentials
cdef class SearchStage(ContentStage):
    cdef UploadSearch search
    cdef Stream sink


cdef enum:
    MOVED_ON = -1              # beside a Moved: more content can be fed


cdef class ExchangeStages(ExchangeResponses):
    cdef bint is_filtered(self, int stream) noexcept   # a message that is such a Stream
    cdef bint stage_response(self, int stream) except -1   # false: it cannot be filtered, and the client was answered
    cdef bint stage_request(self) except -1            # the same, of the request that is to be sent
    cdef StagedContent filtering(self, int stream, Head head, str direction)

    cdef int relay_staged(self, StagedContent staged, Stream source, Stream sink) except -1     # a Moved
    cdef int relay_staged_request(self) except -1      # what was collected of it first; a Moved
    cdef int after_stages(self, StagedContent staged, Stream source, Stream sink) except -2     # a Moved, or MOVED_ON

    cdef int end_staged(self, ContentStage stage, bint is_request) except -1
    cdef int cut_staged(self, object error, bint is_request) except -1
    cdef int end_upload_of_client(self, object error) except -1
    cdef int end_download(self, object error) except -1    # in order, behind what has left
