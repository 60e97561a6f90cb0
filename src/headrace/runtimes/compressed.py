"""Reads the compressed files that joblib writes, as a stream that cannot grow without bound."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, BinaryIO

from headrace.runtimes import pickle_scan

MAX_INFLATED = 32 << 20
"""Bytes that are inflated of one file; past it the scan of a pickle is reported as incomplete."""

_MAX_DICTIONARY = 160 << 20
_CHUNK = 1 << 16


class Damaged(Exception):
    """The compressed data is not valid."""


def kind(head: bytes) -> str | None:
    """``zlib``, ``gzip``, ``bz2``, ``xz`` or ``lzma`` by the first bytes, as joblib tells them apart."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bz2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"\x5d\x00") and len(head) > 13:
        return "lzma"
    # Deflate with a 32 KiB window, at the four levels that zlib writes into its header (RFC 1950).
    if head.startswith((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
        return "zlib"
    return None


class _Zlib:
    """zlib's decompressor with the interface of bz2 and lzma."""

    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "zlib": lambda: _Zlib(zlib.MAX_WBITS),
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MAX_DICTIONARY),
}


class Inflating(io.RawIOBase):
    """The inflated bytes of a file. Raises Damaged, and LimitReached past ``MAX_INFLATED``."""

    def __init__(self, file: BinaryIO | IO[bytes], compression: str) -> None:
        self._file = file
        self._inner = _DECOMPRESSORS[compression]()
        self._left = MAX_INFLATED

    @classmethod
    def buffered(cls, file: BinaryIO | IO[bytes], compression: str) -> io.BufferedReader:
        return io.BufferedReader(cls(file, compression), _CHUNK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise pickle_scan.LimitReached
        size = min(len(buffer), self._left)
        while not self._inner.eof:
            data = self._file.read(_CHUNK) if self._inner.needs_input else b""
            try:
                out = self._inner.decompress(data, size)
            except (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError) as error:
                raise Damaged(str(error)) from error
            if out:
                buffer[: len(out)] = out
                self._left -= len(out)
                return len(out)
            if not data and self._inner.needs_input:
                raise Damaged("it is cut off")
        return 0
