"""Text to token ids and back, with no way for a value to become a control token.

**Which tokens are control tokens.** Special tokens are. An added token that is not special is ordinary text (Gemma's
newlines and HTML tags, runs of spaces of code models): it is encoded, sampled and decoded as `transformers` does. The
exception are marks of structure: added tokens whose content, if it is more than white space, occurs in the chat template
(`<tool_call>`, `<think>`). A mark may be generated, and is shown as its text then, but no text that is encoded becomes
one: in values, in constants of a chat prompt, and in generated text that is carried elsewhere it is spelled out by other
ids. Only the text of the chat template itself and the constants of a raw prompt, whose author writes the model's own
marks, are read with control tokens (`split_controls`).

The token for what a vocabulary lacks (`<unk>`) stands for such characters as it does in `transformers`, unless it also
begins or ends texts; then they are left out. The text "<unk>" is spelled out like that of any special token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar
from weakref import WeakMethod

from parrot_nb.engine.codec import Part, Thinking
from parrot_nb.engine.embedded.frames import ChatTemplate, template_text
from parrot_nb.engine.embedded.grammars import Grammars
from parrot_nb.engine.embedded.thinking import Found, find_thinking
from parrot_nb.engine.embedded.vocabulary import (
    SAMPLES,
    PlainTokenizer,
    TokenBytes,
    cut_pattern,
    parts_of,
    unsafe_cuts,
    without_prefix_space,
)
from parrot_nb.errors import ModelLoadError

MAX_VOCABULARY = 2**24  # ids that are looked at; the largest in use have some 260,000

A = TypeVar("A")
T = TypeVar("T")


class TokenizerCodec:
    """The codec (`parrot_nb.engine.codec.Codec`) of a Hugging Face tokenizer; the module says which tokens are control.

    Args:
        tokenizer: a fast (Rust) tokenizer.
        num_rows: tokens that the model has an embedding for; None where that is not known.

    Raises:
        ModelLoadError: it is not a fast tokenizer, or writes tokens that the model has no embedding for.
    """

    def __init__(self, tokenizer: Any, num_rows: int | None = None) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"The tokenizer {type(tokenizer).__name__} has no fast version, which is needed to keep data from forging "
                "control tokens: save the model with a tokenizer.json."
            )
        self._tokenizer = tokenizer
        self._backend = backend
        self._num_rows = num_rows
        added = backend.get_added_tokens_decoder()
        self._added = {token_id: token.content for token_id, token in added.items()}
        self._special = {token_id for token_id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._chat = ChatTemplate(
            tokenizer,
            _unheld(self.split_controls),
            strips_before=lambda token_id: token_id in added and added[token_id].lstrip,
            strips_behind=lambda token_id: token_id in added and added[token_id].rstrip,
        )
        # Some templates write a mark in parts: it is in what they make, not in their text.
        template = template_text(tokenizer.chat_template) + (self._chat.written() if tokenizer.chat_template else "")
        named = set(getattr(tokenizer, "chat_control_tokens", None) or ())
        self._control = self._special | {
            token_id for token_id, content in self._added.items() if content in named or (content.strip() and content in template)
        }
        self.opening_ids = _opening_ids(tokenizer)
        readable = {i: token for i, token in added.items() if num_rows is None or i < num_rows}
        if num_rows is not None:
            self._check_rows(num_rows, template)
        ordinary = {i: token for i, token in added.items() if i not in self._control}
        self._parts = parts_of(backend)
        bare = without_prefix_space(self._parts)
        self._rest = PlainTokenizer(backend, bare, ordinary)
        self._first = self._rest if bare == self._parts else PlainTokenizer(backend, self._parts, ordinary)
        self._whole = PlainTokenizer(backend, self._parts, readable)
        self._ordinary = ordinary
        self._readable_control = self._control if num_rows is None else {i for i in self._control if i < num_rows}
        self._unknown_id = self._find_unknown()
        self._forbidden = self._control - {self._unknown_id}
        self._begins: dict[int, bool] = {}
        # Some tokenizers put a space before every section between two added tokens, ordinary ones too.
        self._spaces_sections = self._first is not self._rest and any(self._is_first_behind(self._first, i) for i in ordinary)
        self._anchor = tuple(self.encode("a"))
        self._bytes = TokenBytes(backend, self._parts["decoder"], self._added, _unheld(self.decode_plain), self._anchor)
        self._texts: dict[
            int, str
        ] = {}  # of single ordinary ids: with every token that comes, that of the one before is asked for

    @cached_property
    def key(self) -> str:
        """A hash of all tokens and of what is done to text around them."""
        digest = blake2b(digest_size=16)
        digest.update(repr((sorted(self._control), sorted(self._added.items()), self._parts, self.opening_ids)).encode())
        digest.update(self._scan[0])
        digest.update(repr([self._rest.encode(text) for text in SAMPLES]).encode())
        return digest.hexdigest()

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars of constrained generations, compiled for this vocabulary."""
        return Grammars(self)

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if the tokenizer knows one."""
        token_id: int | None = self._tokenizer.eos_token_id
        return token_id

    @cached_property
    def turn_end_id(self) -> int | None:
        """The special token that the chat template writes after an answer, if it does."""
        token_id = self._chat.turn_end() if self.has_chat_template else None
        return token_id if token_id in self._special else None

    @property
    def vocab_size(self) -> int:
        """The number of ids: the greatest one, and one more."""
        return max(int(self._backend.get_vocab_size(with_added_tokens=False)), 1 + max(self._added, default=-1))

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self._tokenizer.chat_template)

    @property
    def anchor(self) -> tuple[int, ...]:
        """An ordinary token to decode others after."""
        return self._anchor

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that no encoded text has: special tokens and marks of structure."""
        return frozenset(self._control)

    def is_control(self, token_id: int) -> bool:
        """True for special tokens and marks of structure."""
        return token_id in self._control

    def special_id(self, content: str) -> int | None:
        """The special token of this content, if there is one."""
        token_id: int | None = self._backend.token_to_id(content)
        return token_id if token_id in self._special else None

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """The ids of plain text, never a control token; see `Codec.encode`."""
        if not text:
            return []
        if not first and self._spaces_sections:
            return self._encode_section(text)
        plain = self._first if first else self._rest
        ids = plain.encode(text)
        return ids if self._control.isdisjoint(ids) else self._spelled_out(plain.encode_with_offsets(text), text)

    def _encode_section(self, text: str) -> list[int]:
        """The ids of text that goes on after other text, where sections after added tokens begin with a space."""
        spans = self._rest.encode_with_offsets(text)
        for i, (token_id, _, end) in enumerate(spans):
            if token_id in self._ordinary and self.first_after(token_id):
                # An added token counts even if the one before took it for white space.
                start = min([end, *(begin for _, begin, last in spans[i + 1 :] if begin < last)])
                return self._spelled_out(spans[: i + 1], text) + self.encode(text[start:], first=True)
        return self._spelled_out(spans, text)

    def _spelled_out(self, spans: Sequence[tuple[int, int, int]], text: str) -> list[int]:
        """Replace control ids that the base vocabulary let through by the ids of their characters."""
        safe: list[int] = []
        for token_id, begin, end in spans:
            if token_id not in self._control or (
                token_id == self._unknown_id and text[begin:end].strip() != self._name(token_id)
            ):
                safe.append(token_id)
                continue
            for char in self._name(token_id):
                safe += [part for part in self._rest.encode(char) if part not in self._control]
        return safe

    def split_controls(self, text: str) -> list[Part]:
        """Stretches of plain text and ids of control tokens, as the tokenizer reads text; see `Codec.split_controls`."""
        parts: list[Part] = []
        start = 0
        for token_id, begin, end in self._whole.encode_with_offsets(text) if text else ():
            is_unknown = token_id == self._unknown_id and text[begin:end].strip() != self._name(token_id)
            if token_id not in self._readable_control or is_unknown:
                if begin < start and begin < end:  # an added token counts even if the one before took it for white space
                    start = begin
                continue
            if begin > start:
                parts.append(text[start:begin])
            parts.append(token_id)
            start = end
        return [*parts, text[start:]] if start < len(text) else parts

    def first_after(self, token_id: int) -> bool:
        """Whether text right after a control token is encoded as `first`; see `Codec.first_after`."""
        if self._first is self._rest:
            return False
        if token_id not in self._begins:
            self._begins[token_id] = self._is_first_behind(self._whole, token_id)
        return self._begins[token_id]

    def _is_first_behind(self, plain: PlainTokenizer, token_id: int) -> bool:
        """Whether a tokenizer reads text behind an added token as it reads the beginning of a text."""
        for text in ("ab", ".ab"):  # a token that must be a word of its own is none before a letter
            ids = plain.encode(self._name(token_id) + text)
            if token_id in ids:
                return ids[ids.index(token_id) + 1 :] == self._first.encode(text)
        return False

    def stable_chars(self, text: str, *, first: bool = False) -> int:
        """Characters whose ids no text after this one changes; see `Codec.stable_chars`."""
        match = self._cuts.match(text) if self._cuts is not None else None
        return 0 if match is None else match.end()

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes that an ordinary token adds to a text, None for a control token; see `Codec.token_bytes`."""
        return None if token_id in self._control else self._bytes(token_id)

    def is_open(self, token_ids: Sequence[int]) -> bool:
        """True if tokens after these may change the text of their last ones: they end in a part of a character."""
        return self._bytes.is_open(token_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens shown as their names."""
        text, run = "", list[int]()
        for token_id in token_ids:
            if token_id in self._control:
                text += self.decode_plain(run) + self._name(token_id)
                run = []
            else:
                run.append(token_id)
        return text + self.decode_plain(run)

    def decode_plain(self, token_ids: Sequence[int]) -> str:
        """The text of ordinary ids."""
        if len(token_ids) != 1:
            return str(self._backend.decode(list(token_ids), skip_special_tokens=False)) if token_ids else ""
        (token_id,) = token_ids
        if token_id not in self._texts:
            self._texts[token_id] = str(self._backend.decode([token_id], skip_special_tokens=False))
        return self._texts[token_id]

    def shown(self, token_id: int) -> str | None:
        """Return a control token's text: "" for a special one, a mark's own; None for an ordinary token."""
        if token_id in self._special:
            return ""
        return self._added[token_id] if token_id in self._control else None

    def carried_over(self, token_ids: Sequence[int]) -> list[int]:
        """Generated ids as they may be filled elsewhere: special tokens left out, marks of structure spelled out."""
        if self._control.isdisjoint(token_ids):
            return list(token_ids)
        safe: list[int] = []
        for token_id in token_ids:
            text = self.shown(token_id)
            safe += [token_id] if text is None else self.encode(text)
        return safe

    def chat_frame(self, num_turns: int, system: str | None, *, thinking: bool = False) -> tuple[tuple[Part, ...], ...]:
        """Return the pieces that the chat template writes around contents; see `Codec.chat_frame`."""
        opening = self._thinking.opening if thinking and self._thinking is not None else ""
        return self._chat.frame(num_turns, system, thinking=thinking, opening=opening).pieces

    @property
    def thinking(self) -> Thinking | None:
        """How the model thinks; see `Codec.thinking`."""
        return None if self._thinking is None else self._thinking.thinking

    @cached_property
    def _thinking(self) -> Found | None:
        openings = self._chat.openings() if self.has_chat_template else None
        if openings is None:
            return None
        return find_thinking(openings, self.split_controls, lambda content: self._backend.token_to_id(content) is not None)

    def chat_trims(self, num_turns: int, system: str | None) -> tuple[tuple[bool, bool], ...]:
        """Return which white space of user contents is left out; see `Codec.chat_trims`."""
        return self._chat.frame(num_turns, system).trims

    # What follows is asked once

    def _name(self, token_id: int) -> str:
        return self._added.get(token_id) or str(self._backend.id_to_token(token_id))

    @cached_property
    def _scan(self) -> tuple[bytes, dict[str, set[str]], int]:
        """A hash of all tokens, what they hold that a cut could go through, and how many of the ids below `vocab_size` are tokens."""
        token = self._backend.id_to_token
        tokens = [token(token_id) for token_id in range(min(self.vocab_size, MAX_VOCABULARY))]
        text = "\0".join([content or "" for content in tokens])
        return blake2b(text.encode("utf-8", "surrogatepass")).digest(), unsafe_cuts(text), len(tokens) - tokens.count(None)

    def prepare(self) -> None:
        """Compute what takes up to a second for a large vocabulary, before it is needed.

        Raises:
            ModelLoadError: a text may hold tokens that the model has no embedding for.
        """
        self._check_ids()
        _ = self.key, self._cuts

    def _check_ids(self) -> None:
        count = int(self._backend.get_vocab_size(with_added_tokens=True))
        has_all = self._scan[2] == count  # then there are none behind them
        if self._num_rows is None or (has_all and self.vocab_size <= self._num_rows):
            return
        last = max(self._backend.get_vocab(with_added_tokens=False).values(), default=0)
        if last >= self._num_rows:
            raise ModelLoadError(
                f"The tokenizer has tokens up to the id {last}, but the model has embeddings for {self._num_rows} tokens only: get "
                "the tokenizer that belongs to the model."
            )

    def _check_rows(self, num_rows: int, template: str) -> None:
        """Refuse a tokenizer whose texts would hold tokens that the model knows nothing of."""
        for token_id, content in sorted(self._added.items()):
            written = token_id in self.opening_ids or token_id not in self._control or (content.strip() and content in template)
            if token_id >= num_rows and written:
                raise ModelLoadError(
                    f"The tokenizer has the added token {content!r} with the id {token_id}, but the model has embeddings for "
                    f"{num_rows} tokens only: take the token out of the tokenizer, or save the model after "
                    f"resize_token_embeddings({token_id + 1})."
                )

    def _find_unknown(self) -> int | None:
        """The token for characters that the vocabulary lacks, where it means nothing else."""
        model = self._backend.model
        name = getattr(model, "unk_token", None)
        token_id = self._backend.token_to_id(name) if name else None
        if type(model).__name__ == "Unigram":
            name = getattr(self._tokenizer, "unk_token", None)
            token_id = self._backend.token_to_id(name) if name else None
        if token_id is None or token_id in self.opening_ids or token_id == self._tokenizer.eos_token_id:
            return None
        return int(token_id)

    @cached_property
    def _cuts(self) -> Any:
        """The pattern of `cut_pattern`, if it holds for the samples."""
        pre_tokenizer = self._backend.pre_tokenizer

        def splits(text: str) -> bool:
            return pre_tokenizer is not None and len(pre_tokenizer.pre_tokenize_str(text)) > 1

        is_unigram = type(self._backend.model).__name__ == "Unigram"
        pattern = cut_pattern(
            self._scan[1], self._ordinary.values(), splits, is_unigram=is_unigram, spaces_sections=self._spaces_sections
        )
        if pattern is None:
            return None
        for text in SAMPLES:
            for end in range(1, len(text)):
                match = pattern.match(text[:end])
                for first in (False, True) if match else ():
                    cut = match.end() if match else 0
                    whole = self.encode(text, first=first)
                    if whole != self.encode(text[:cut], first=first) + self.encode(text[cut:]):
                        return None
        return pattern


def _unheld(method: Callable[[A], T]) -> Callable[[A], T]:
    """A method that does not keep its object: a part that holds one would keep a vocabulary until the garbage is collected."""
    held = WeakMethod(method)

    def call(argument: A) -> T:
        found = held()
        assert found is not None, "a part of a codec is used while the codec is"
        return found(argument)

    return call


def _opening_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that the tokenizer puts in front of a sequence."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start])
    return ()
