"""An engine whose text is a hash of its context: fast, exact and predictable, so that what the runtime does with an
engine can be compared with a plain sequential interpreter (`expected_text`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

from parrot_nb.engine.protocol import Capabilities, EngineLoad, GenerationEnd, ModelInfo, Pace, Piece, Priority, Sampling, Speed
from parrot_nb.errors import ContextLengthError, EngineError

MAX_CONTEXT_TOKENS = 100_000


class ByteCodec:
    key = "bytes"
    has_chat_template = False

    def __init__(self, opening_ids: tuple[int, ...] = ()) -> None:
        self.opening_ids = opening_ids

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        return list(text.encode())

    vocab_size = 256

    def split_controls(self, text: str) -> list[str | int]:
        return [text] if text else []

    def stable_chars(self, text: str, *, first: bool = False) -> int:
        return len(text)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def is_control(self, token_id: int) -> bool:
        return token_id >= 256

    def first_after(self, token_id: int) -> bool:
        return False

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode()

    def chat_frame(self, num_turns: int, system: str | None) -> tuple[tuple[str | int, ...], ...]:
        raise AssertionError("has no chat template")

    def chat_trims(self, num_turns: int, system: str | None) -> tuple[tuple[bool, bool], ...]:
        raise AssertionError("has no chat template")


def expected_text(prompt: bytes, max_tokens: int) -> tuple[str, str]:
    """(text, finish) that the engine writes after a prompt."""
    written = b""
    for _ in range(max_tokens):
        digest = hashlib.sha256(prompt + written).digest()
        if digest[0] < 16:
            return written.decode(), "stop"
        written += bytes([97 + digest[1] % 26])
    return written.decode(), "length"


class HashEngine:
    """Text in the context steers it: "FAIL" fails after two tokens, "HANG" writes nothing until `release` is set."""

    name = "hash"
    speed = Speed()
    capabilities = Capabilities(shares_kv=False, streams_fills=True, takes_token_ids=True)

    def __init__(self, model: str) -> None:
        self.model = ModelInfo(model, "Hash", 0, "cpu", "uint8", MAX_CONTEXT_TOKENS, note="hashes, not language")
        self.codec = ByteCodec()
        self.contexts: dict[int, list[int]] = {}
        self.release = asyncio.Event()
        self.num_opened = 0
        self.most_open = 0
        self.order: list[tuple[Priority, bytes]] = []
        self._priorities: dict[int, Priority] = {}
        self.closed = False
        self.paces: dict[int, Pace | None] = {}
        self.expected: dict = {}
        self.num_cleared = 0

    def open(self, priority: Priority) -> int:
        self.num_opened += 1
        self.contexts[self.num_opened] = []
        self._priorities[self.num_opened] = priority
        self.most_open = max(self.most_open, len(self.contexts))
        return self.num_opened

    def set_priority(self, context: int, priority: Priority) -> None:
        self._priorities[context] = priority

    def set_pace(self, context: int, pace: Pace | None) -> None:
        self.paces[context] = pace

    def fill(self, context: int, token_ids: Sequence[int]) -> None:
        if len(self.contexts[context]) + len(token_ids) >= MAX_CONTEXT_TOKENS:
            raise ContextLengthError(f"The text is longer than {MAX_CONTEXT_TOKENS} tokens.")
        self.contexts[context] += token_ids

    async def generate(
        self, context: int, sampling: Sampling, *, likely: Sequence[int] = (), taken_back: Sequence[int] = ()
    ) -> AsyncIterator[Piece]:
        self.contexts[context] += taken_back  # every token is one byte: none spans the seam
        prompt = bytes(self.contexts[context])
        self.order.append((self._priorities[context], prompt))
        if b"HANG" in prompt:
            await self.release.wait()
        text, finish = expected_text(prompt, sampling.max_tokens)
        for i_char, char in enumerate(text):
            await asyncio.sleep(0)
            if b"FAIL" in prompt and i_char == 2:
                raise EngineError("The engine was told to fail.")
            if context not in self.contexts:
                return
            self.contexts[context].append(ord(char))
            yield Piece(char, 1, settled_ids=(ord(char),))
        if b"FAIL" in prompt:
            raise EngineError("The engine was told to fail.")
        ids = tuple(text.encode())
        written_ids = (*taken_back, *ids)
        yield Piece(
            "", 0, GenerationEnd(finish, ids, len(prompt) - len(taken_back), 0, len(ids), 0.0, 0.0, 0.0, written_ids=written_ids)
        )

    def free(self, context: int) -> None:
        self.contexts.pop(context, None)

    def expect(self, key, token_ids: Sequence[int], next_use: int) -> None:
        self.expected[key] = (bytes(token_ids), next_use)

    def forget(self, key) -> None:
        self.expected.pop(key, None)

    def clear_cache(self) -> None:
        self.num_cleared += 1

    def load(self) -> EngineLoad:
        owned = len(self.contexts)
        return EngineLoad(owned, owned, 0, 1000, 1000 - owned, 0, owned, 1, 0.0)

    async def close(self) -> None:
        self.closed = True
        self.contexts.clear()
