import msgspec
from hypothesis import given
from hypothesis import strategies as st

from onrecord.record.frames import FrameReader, frame


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(0, 30)))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    messages: list[bytes], sizes: list[int]
) -> None:
    stream = b"".join(map(frame, messages))
    reader = FrameReader()
    received = []
    for size in sizes:
        received += reader.feed(stream[:size])
        stream = stream[size:]
    received += reader.feed(stream)

    assert [msgspec.msgpack.decode(message) for message in received] == messages
