"""Token healing: where prompt text ends and an output begins, the model chooses the token that spans the seam.

A prompt that ends in "Answer: " is tokenized with a last token " " of its own, although the model was trained on text in
which that space belongs to the next word's token. So the prompt's last tokens are not filled but *taken back*, and what is
generated must begin with their bytes: at each step a token is allowed if its bytes are a beginning of the bytes that are
still owed, or begin with them. Once they are paid, the generation is like any other. The text taken back is no part of the
value (the technique is due to `guidance`; here it works on bytes, and over several tokens).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_CACHED = 256  # sets of allowed tokens; applications end their prompts in few ways


class SeamIndex:
    """The ordinary tokens of a vocabulary, ordered by their bytes. Its methods may be called from any thread.

    Args:
        token_bytes: bytes of a token within a text; None for a control token.
        vocab_size: number of token ids.
        device: where sets of allowed tokens are wanted.
    """

    def __init__(self, token_bytes: Callable[[int], bytes | None], vocab_size: int, device: str) -> None:
        known = ((token_bytes(token_id), token_id) for token_id in range(vocab_size))
        ordered = sorted((text, token_id) for text, token_id in known if text)
        self._texts = [text for text, _ in ordered]
        self._ids = [token_id for _, token_id in ordered]
        self._device = device
        self._allowed: OrderedDict[tuple[bytes, frozenset[int]], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def allowed(self, owed: bytes, forbidden: frozenset[int] = frozenset()) -> Tensor:
        """The tokens that may come next, int64 [n], ascending: their bytes begin with `owed`, or `owed` begins with their bytes.

        Args:
            owed: bytes that the generation must still begin with; not empty.
            forbidden: tokens that end a text, and so pay nothing.
        """
        import torch

        key = owed, forbidden
        with self._lock:
            if (found := self._allowed.get(key)) is not None:
                self._allowed.move_to_end(key)
                return found
        ids = sorted(set(self._longer(owed)).union(self._shorter(owed)) - forbidden)
        found = torch.tensor(ids, dtype=torch.int64).to(self._device)
        with self._lock:
            self._allowed[key] = found
            if len(self._allowed) > MAX_CACHED:
                self._allowed.popitem(last=False)
        return found

    def _longer(self, owed: bytes) -> Sequence[int]:
        start, after = bisect_left(self._texts, owed), _after(owed)
        return self._ids[start : bisect_left(self._texts, after, start) if after else None]

    def _shorter(self, owed: bytes) -> Iterable[int]:
        for length in range(1, len(owed)):
            text = owed[:length]
            place = bisect_left(self._texts, text)
            while place < len(self._texts) and self._texts[place] == text:
                yield self._ids[place]
                place += 1


def _after(text: bytes) -> bytes:
    """The least bytes greater than all that begin with `text`; empty where there are none."""
    kept = text.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b""


@dataclass(slots=True)
class Seam:
    """The state of healing in one generation.

    Attributes:
        taken_back: token ids of the prompt that were not filled.
        owed: bytes that the generation must still write before its value begins.
        num_inside: tokens generated so far that lie wholly in the text taken back.
        num_tokens: the same, and the token that ends beyond it where there is one.
    """

    index: SeamIndex
    token_bytes: Callable[[int], bytes | None]
    taken_back: tuple[int, ...]
    forbidden: frozenset[int]
    owed: bytes = b""
    num_inside: int = 0
    num_tokens: int = 0

    @classmethod
    def of(
        cls, index: SeamIndex, token_bytes: Callable[[int], bytes | None], taken_back: Sequence[int], ends: Collection[int]
    ) -> Seam:
        """The seam at which these tokens were taken back; `ends` are the tokens that end a text."""
        owed = b"".join(token_bytes(token_id) or b"" for token_id in taken_back)
        return cls(index, token_bytes, tuple(taken_back), frozenset(ends), owed)

    @property
    def is_open(self) -> bool:
        """Whether bytes are still owed, so that the next token is restricted."""
        return bool(self.owed)

    def allowed(self) -> Tensor:
        """The tokens that may come next, int64 [n]."""
        return self.index.allowed(self.owed, self.forbidden)

    def accept(self, token_id: int) -> None:
        """Count a generated token against what is owed."""
        text = self.token_bytes(token_id) or b""
        assert text.startswith(self.owed) or self.owed.startswith(text), "only allowed tokens are sampled"
        self.num_inside += len(text) <= len(self.owed)
        self.num_tokens += 1
        self.owed = self.owed[len(text) :]
