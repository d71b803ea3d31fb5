"""The reader of the `gguf` package, made fast and shared: transformers reads a file's header with it up to three times.

The package makes several arrays of numpy for each string of a vocabulary, each through a memory map, which takes 5 to 20
seconds a file. Here elements of an array are cut out of one plain view, and what is read is the same.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_alone = threading.Lock()  # held while the package's reader is replaced


class SharedReader:
    """The one reader of each file for all that transformers reads of a model."""

    def __init__(self) -> None:
        self._readers: dict[str, Any] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context in which this reader takes the place of the package's; one at a time in a process."""
        import gguf

        def read(path: str | os.PathLike[str], mode: str = "r") -> Any:
            if mode != "r":
                return own(path, mode)
            key = os.path.realpath(path)
            if key not in self._readers:
                self._readers[key] = _fast(own)(path)
            return self._readers[key]

        with _alone:
            own = gguf.GGUFReader
            gguf.GGUFReader = read
            try:
                yield
            finally:
                gguf.GGUFReader = own


def _fast(own: Any) -> Any:
    """A subclass of the package's reader."""
    import numpy as np
    from gguf import GGUFValueType

    class FastReader(own):  # type: ignore[misc]  # the package has no types
        """Reads arrays of a header at once."""

        _view: Any = None  # of the file, as a plain array

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[Any]]:
            if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
            if self._view is None:
                self._view = np.asarray(self.data)
            view = self._view
            inner, count = struct.unpack_from("<IQ", view, orig_offs)
            start = orig_offs + 12
            head = [view[orig_offs : orig_offs + 4].view(np.uint32), view[orig_offs + 4 : start].view(np.uint64)]
            types = [GGUFValueType.ARRAY] + [GGUFValueType(inner)] * bool(count)
            if inner == GGUFValueType.STRING:
                parts, at = head, start
                for _ in range(count):
                    (length,) = struct.unpack_from("<Q", view, at)
                    parts += (view[at : at + 8].view(np.uint64), view[at + 8 : at + 8 + length])
                    at += 8 + length
                return at - orig_offs, parts, list(range(3, 2 * count + 2, 2)), types
            kind = self.gguf_scalar_to_np.get(GGUFValueType(inner))
            if kind is None:
                return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
            end = start + count * np.dtype(kind).itemsize
            return end - orig_offs, [*head, *view[start:end].view(kind).reshape(-1, 1)], list(range(2, count + 2)), types

    return FastReader
