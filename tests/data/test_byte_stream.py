from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.checks import InputError
from volseg.data.byte_stream import ByteStream, GzipStream

PATH = Path("a.gz")


@given(
    data=st.binary(max_size=300),
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=9),
    cut=st.integers(0, 300),
)
def test_a_stream_gives_back_what_was_packed_in_any_pieces(data, pieces, cut):
    packed = gzip.compress(data[:cut]) + gzip.compress(data[cut:]) + b"\0" * pieces[0]
    for stream in (GzipStream(PATH, io.BytesIO(packed)), ByteStream(PATH, io.BytesIO(data))):
        got = b""
        while piece := stream.read_up_to(pieces[len(got) % len(pieces)]):
            got += piece
        assert got == data
        stream.finish()


@given(data=st.binary(min_size=1, max_size=300), part=st.floats(0, 1, exclude_max=True))
def test_a_cut_gzip_stream_is_never_accepted(data, part):
    packed = gzip.compress(data)
    stream = GzipStream(PATH, io.BytesIO(packed[: int(part * len(packed))]))
    with pytest.raises(InputError, match=r"a\.gz: expected intact gzip data"):  # noqa: PT012 - either call may
        stream.fill(memoryview(bytearray(len(data))))
        stream.finish()


def test_missing_and_surplus_bytes_are_refused():
    with pytest.raises(InputError, match="4 bytes of voxels, got 3 before the data end"):
        ByteStream(PATH, io.BytesIO(b"abc")).fill(memoryview(bytearray(4)))
    stream = ByteStream(PATH, io.BytesIO(b"abc"))
    stream.skip(2)
    with pytest.raises(InputError, match="got more bytes"):
        stream.finish()
