"""Frames of HTTP/2 as the `hyperframe` library writes them: padding, priority and promised streams lie around the same content."""

from hyperframe.frame import DataFrame, Frame, HeadersFrame, PushPromiseFrame
from hypothesis import given
from hypothesis import strategies as st

from soth_mitm._dataplane.http2.frame import inspect_frame


@given(
    st.sampled_from([DataFrame, HeadersFrame, PushPromiseFrame]),
    st.integers(1, 2**31 - 1),
    st.binary(max_size=300),
    st.none() | st.integers(0, 255),
    st.booleans(),
)
def test_what_another_library_writes(
    kind: type[DataFrame | HeadersFrame | PushPromiseFrame], stream: int, data: bytes, padding: int | None, priority: bool
) -> None:
    frame: Frame = kind(stream_id=stream, data=data)
    if padding is not None:
        frame.flags.add("PADDED")
        frame.pad_length = padding  # type: ignore[union-attr]
    if priority and kind is HeadersFrame:
        frame.flags.add("PRIORITY")
    if isinstance(frame, PushPromiseFrame):
        frame.promised_stream_id = 2
    wire = frame.serialize()
    length, number, _, named, content = inspect_frame(wire)
    assert (length, number, named, content) == (len(wire) - 9, frame.type, stream, data)
