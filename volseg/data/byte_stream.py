"""Read an exact number of bytes from a plain or gzip file and prove that nothing is missing or left over."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn

from volseg.checks import refuse

__all__ = ["ByteStream", "GzipStream"]

_CHUNK = 2**20


class ByteStream:
    """The bytes of an open plain file, read once from front to back.

    Args:
        path: named in errors.
        file: opened for reading in binary mode.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def read_some(self, size: int) -> bytes:
        """Return between 1 and `size` bytes, or none at the end."""
        return self._file.read(size)

    def read_up_to(self, size: int) -> bytes:
        """Return `size` bytes, or fewer where the data end before."""
        pieces: list[bytes] = []
        while size and (piece := self.read_some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def fill(self, target: memoryview) -> None:
        """Fill a writable byte view completely.

        Raises:
            InputError: when the data end before.
        """
        done = 0
        while done < len(target):
            piece = self.read_some(min(_CHUNK, len(target) - done))
            if not piece:
                refuse(
                    self._path,
                    f"{len(target)} bytes of voxels",
                    f"{done} before the data end",
                    "the file is truncated: copy or export it again",
                )
            target[done : done + len(piece)] = piece
            done += len(piece)

    def skip(self, size: int) -> None:
        """Read and drop `size` bytes, or fewer where the data end before."""
        while size and (piece := self.read_some(min(_CHUNK, size))):
            size -= len(piece)

    def finish(self) -> None:
        """Prove that the data end here; this is where checksums are compared.

        Raises:
            InputError: when anything follows or a checksum is wrong.
        """
        if self.read_some(1):
            refuse(
                self._path,
                "the end of the data behind the last voxel",
                "more bytes",
                "the header's size or datatype does not fit the data: export it again",
            )


class GzipStream(ByteStream):
    """The decompressed bytes of a gzip file; each member's CRC and length are checked, memory is bounded."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(path, file)
        self._inflater = zlib.decompressobj(wbits=31)
        self._pending = b""

    def read_some(self, size: int) -> bytes:
        """Return between 1 and `size` decompressed bytes, or none behind the last member."""
        while True:
            if self._inflater.eof and not self._open_next_member():
                return b""
            if not self._pending:
                self._pending = self._file.read(_CHUNK)
                if not self._pending:
                    self._refuse("an end inside the compressed data")
            try:
                piece = self._inflater.decompress(self._pending, size)
            except zlib.error as error:
                self._refuse(str(error))
            self._pending = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._pending = self._inflater.unused_data
            if piece:
                return piece

    def _open_next_member(self) -> bool:
        # gzip files may be concatenated (bgzip, pigz) and padded with zeros, as tapes and tar do
        while True:
            self._pending = self._pending.lstrip(b"\0")
            if self._pending:
                break
            self._pending = self._file.read(_CHUNK)
            if not self._pending:
                return False
        self._inflater = zlib.decompressobj(wbits=31)
        return True

    def _refuse(self, got: str) -> NoReturn:
        refuse(
            self._path,
            "intact gzip data",
            got,
            "the file is damaged or truncated: copy or export it again",
        )
