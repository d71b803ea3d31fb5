"""The tokenizer interface for the runtime: text to token ids and back, with no way for a value to become a control token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Part = str | int  # plain text, or the id of a control token


@dataclass(frozen=True, slots=True)
class Thinking:
    """Marks around a model's thoughts before an answer.

    Attributes:
        opens: before them, behind the piece of `chat_frame(..., thinking=True)` that opens the answer.
        closes: behind them where the model wrote `stop`, which is left out of the thoughts, or ended its text.
        closes_cut: behind them where a budget ended them, as the model's makers describe it.
        empty: in place of all these where nothing is to be thought.
        past: in their place before an answer of an earlier turn: templates leave out what was thought there.
        stop: the stop string that ends them.
        always: True if the chat template cannot switch thinking off.
    """

    opens: tuple[Part, ...]
    closes: tuple[Part, ...]
    closes_cut: tuple[Part, ...]
    empty: tuple[Part, ...]
    past: tuple[Part, ...]
    stop: str
    always: bool


class Codec(Protocol):
    """Text to token ids and back, for one tokenizer, with no way for a value to become a control token.

    Control tokens are the special tokens and the marks of structure: added tokens that the chat template uses. All other
    tokens are ordinary: text is encoded to them, and each adds bytes of its own to a text.
    """

    @property
    def key(self) -> str:
        """Names the vocabulary; ids may cross between codecs of equal key. Takes up to a second when first asked for."""

    @property
    def opening_ids(self) -> tuple[int, ...]:
        """Ids that every raw prompt starts with (usually a BOS token); may be empty. Not repeated where the prompt's own first
        parts are these ids."""

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat_frame` can be asked for."""

    @property
    def thinking(self) -> Thinking | None:
        """How the model thinks; None if it does not, or has no chat template."""

    @property
    def vocab_size(self) -> int:
        """The number of ids: all are less. Some may have no token."""

    def is_control(self, token_id: int) -> bool:
        """True for control tokens."""

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """The ids of plain text, never a control token.

        A stretch of plain text between two control tokens has the ids that the tokenizer gives for it in the whole text if
        it is encoded as one, with `first=True` where the prompt (or its `opening_ids`) begins with it, and
        `first=first_after(token_id)` behind a control token. `first=False` is also for text that goes on after text which
        has its ids already (a model wrote it). Some tokenizers put a space before first text.
        """

    def first_after(self, token_id: int) -> bool:
        """Whether text right behind this control token is encoded as `first`: so with tokenizers that put a space before
        every section of a text, not only before the whole."""

    def split_controls(self, text: str) -> list[Part]:
        """The constant text of a raw template as the tokenizer reads it: stretches of plain text, and the ids of control
        tokens that its author wrote. White space that such tokens take with them is in no stretch. `encode_parts` of the
        result is what the tokenizer gives for the text."""

    def stable_chars(self, text: str, *, first: bool = False) -> int:
        """A number n such that for every text t, `encode(text + t, first=first)` is `encode(text[:n], first=first)` and
        `encode(text[n:] + t)` in a row. As great as is cheaply known; 0 where nothing is."""

    def token_bytes(self, token_id: int) -> bytes | None:
        """The UTF-8 bytes that an ordinary token adds to a text in the middle of it; None for a control token and an id
        without token. Those of `encode(text)` in a row are the text, as the tokenizer normalises it. A token for what the
        vocabulary lacks (`<unk>`) adds none of its own."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens shown as their names."""

    def chat_frame(self, num_turns: int, system: str | None, *, thinking: bool = False) -> tuple[tuple[Part, ...], ...]:
        """Return the pieces that the chat template writes around `num_turns` user turns, each answered by an assistant turn.

        With `thinking` it is told that the model thinks, and the marks that open thoughts are left out (`Thinking.opens`).

        Returns 2 * num_turns pieces: before user content 0, before assistant content 0, before user content 1, and so on.
        The assistant's content is to be generated after its piece. A piece is plain text of the template (or the system
        text) and ids of control tokens, no two texts in a row. Its text at an end goes on in the content beside it: they
        are encoded as one.

        Raises:
            EngineError: the template failed, or cannot be used turn by turn.
        """

    def chat_trims(self, num_turns: int, system: str | None) -> tuple[tuple[bool, bool], ...]:
        """Return for each user turn whether the white space at the beginning and at the end of its content is left out.

        Raises:
            EngineError: as `chat_frame`.
        """


def encode_parts(codec: Codec, parts: Iterable[Part], *, first: bool = True, after: int | None = None) -> list[int]:
    """The ids of stretches of plain text and control tokens in a row: adjacent texts are encoded as one stretch.

    Args:
        codec: encodes them.
        parts: plain text, and ids of control tokens.
        first: True if the prompt (or its `opening_ids`) begins with these parts.
        after: the control token before them, if they follow on one.
    """
    ids: list[int] = []
    text, text_first = "", first if after is None else codec.first_after(after)
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        ids += codec.encode(text, first=text_first)
        ids.append(part)
        text, text_first = "", codec.first_after(part)
    return ids + codec.encode(text, first=text_first)
