"""Properties of a tokenizer's vocabulary: which ids are control tokens, what a token adds to a text, where a text can be cut.

All tokenizers made here share the model (vocabulary and merges) of the one that they are made of; only its small parts
are written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from parrot_nb.engine.deadline import Deadline

PARTS = ("normalizer", "pre_tokenizer", "decoder")
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACES = {"Ġ": " ", "▁": " ", "Ċ": "\n"}  # as byte-level and SentencePiece vocabularies write them
# Texts on which a rule about cuts is tried before it is believed.
SAMPLES = (
    "The quick brown fox, it's 12 o'clock.\nAnd then\n\nHe said: \"don't\" x y z A b\n\tC d  e f",
    "def f(x):\n    return x + 1 if x else None\n\n# über naïve café 你好 world 🦜 ok go\r\nfine a b\n",
    "<b>Bold text</b> [INST] one two [/INST] a_b c-d e/f g.h I j <tool x y> foo@bar baz\n \nq r",
)


def parts_of(backend: Any) -> dict[str, Any]:
    """The parts of a tokenizer besides its model and added tokens, as data."""
    parts = {name: getattr(backend, name) for name in PARTS}
    return {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}


class PlainTokenizer:
    """A tokenizer with the model of another, with parts and added tokens of its own, and the ids of the other.

    Args:
        backend: the tokenizer whose model is shared.
        parts: as `parts_of` gives them.
        added: its added tokens by their ids there.
    """

    def __init__(self, backend: Any, parts: dict[str, Any], added: dict[int, Any]) -> None:
        from tokenizers import AddedToken, Tokenizer

        empty: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "post_processor": None,
            "added_tokens": [],
        }
        small = Tokenizer.from_str(json.dumps({**empty, **parts, "model": {"type": "BPE", "vocab": {}, "merges": []}}))
        self._tokenizer = Tokenizer(backend.model)
        for name in PARTS:
            if (part := getattr(small, name)) is not None:
                setattr(self._tokenizer, name, part)
        ordered = sorted(added.items())
        if backend.normalizer is not None and parts["normalizer"] != parts_of(backend)["normalizer"]:
            # Their text is normalised like a text of its own, to begin with a space, say, and looked for in that form.
            ordered = [
                (
                    token_id,
                    AddedToken(backend.normalizer.normalize_str(token.content), **_how(token)) if token.normalized else token,
                )
                for token_id, token in ordered
            ]
        self._tokenizer.add_tokens([token for token_id, token in ordered])
        given = ((self._tokenizer.token_to_id(token.content), token_id) for token_id, token in ordered)
        self._ids = {here: there for here, there in given if here != there}

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        with Deadline(len(text)):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self._ids.get(token_id, token_id) for token_id in ids] if self._ids else ids

    def encode_with_offsets(self, text: str) -> list[tuple[int, int, int]]:
        """The ids of a text, each with the characters that it stands for: (id, begin, end)."""
        with Deadline(len(text)):
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [(self._ids.get(token_id, token_id), *span) for token_id, span in zip(encoding.ids, encoding.offsets, strict=True)]


def _how(token: Any) -> dict[str, bool]:
    """How an added token is looked for."""
    return {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}


def without_prefix_space(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a tokenizer for text in the middle of a prompt: it puts no space before it."""
    return {**parts, "pre_tokenizer": _no_prefix(parts["pre_tokenizer"]), "normalizer": _no_prepend(parts["normalizer"])}


def _no_prefix(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    part = dict(part)
    if part.get("type") == "Metaspace":
        part["prepend_scheme"] = "never"
        part.pop("add_prefix_space", None)
    elif part.get("type") == "ByteLevel":
        part["add_prefix_space"] = False
    elif part.get("type") == "Sequence":
        part["pretokenizers"] = [_no_prefix(inner) for inner in part["pretokenizers"]]
    return part


def _no_prepend(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") == "Prepend":
        return None
    if part.get("type") == "Sequence":
        inner = [kept for kept in map(_no_prepend, part["normalizers"]) if kept is not None]
        return {**part, "normalizers": inner}
    return part


def _flat(part: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a part, a sequence taken apart."""
    if not isinstance(part, dict):
        return []
    return [step for nested in part[inner] for step in _flat(nested, inner)] if part.get("type") == "Sequence" else [part]


class TokenBytes:
    """The bytes that ordinary tokens add to a text in the middle of it.

    Args:
        backend: the tokenizer.
        decoder: its decoder, as data.
        added: contents of its added tokens by id.
        decode: the text of ordinary ids; asked where the decoder is of a kind that is not known here.
        anchor: ordinary ids to decode others after.
    """

    def __init__(
        self,
        backend: Any,
        decoder: Any,
        added: dict[int, str],
        decode: Callable[[Sequence[int]], str],
        anchor: Sequence[int],
    ) -> None:
        self._token = backend.id_to_token
        self._added = added
        self._decode = decode
        self._anchor = list(anchor)
        steps = _flat(decoder, "decoders")
        kinds = {step["type"] for step in steps}
        self.is_byte_level = kinds == {"ByteLevel"}
        self.falls_back_to_bytes = "ByteFallback" in kinds
        self._replaced: list[tuple[str, str]] | None = _replacements(steps)
        self._bytes_of_char = _byte_alphabet() if self.is_byte_level else {}

    def __call__(self, token_id: int) -> bytes | None:
        """The bytes of an ordinary token; None if there is no token of this id."""
        token = self._token(token_id)
        if token is None:
            return None
        if self.is_byte_level:
            if token_id not in self._added:
                try:
                    return bytes([self._bytes_of_char[char] for char in token])
                except KeyError:
                    pass
            return str(token).encode()
        if self.is_byte(token_id):
            return bytes([int(token[3:5], 16)])
        if self._replaced is not None:
            for pattern, content in self._replaced:
                token = token.replace(pattern, content)
            return str(token).encode()
        before = self._decode(self._anchor)
        return self._decode([*self._anchor, token_id]).removeprefix(before).encode()

    def is_byte(self, token_id: int) -> bool:
        """True if a token stands for one byte of a character that the vocabulary lacks."""
        return self.falls_back_to_bytes and BYTE_TOKEN.fullmatch(self._token(token_id) or "") is not None

    def is_open(self, token_ids: Sequence[int]) -> bool:
        """True if tokens after these may change the text of their last ones."""
        if self.falls_back_to_bytes:
            return self.is_byte(token_ids[-1])
        if not self.is_byte_level:
            return False
        tail = b"".join(self(token_id) or b"" for token_id in token_ids[-4:])[-4:]
        for length in range(1, min(3, len(tail)) + 1):  # bytes since the last one that can begin a character
            byte = tail[-length]
            if byte & 0xC0 != 0x80:
                return _is_begun(tail[-length:])
        return False


def _is_begun(tail: bytes) -> bool:
    """True if bytes are the beginning of a character, and not all of it."""
    try:
        tail.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start == 0
    return False


def _replacements(steps: list[dict[str, Any]]) -> list[tuple[str, str]] | None:
    """Return a decoder's replacements in every token; None if it does anything else to tokens in the middle of a text."""
    replaced: list[tuple[str, str]] = []
    fused = False
    for step in steps:
        match step:
            case {"type": "Metaspace", "replacement": replacement}:
                replaced.append((replacement, " "))
            case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
                replaced.append((pattern, content))
            case {"type": "Fuse"}:
                fused = True
            case {"type": "ByteFallback"}:
                pass
            case {"type": "Strip"} if fused:  # at the ends of the whole text
                pass
            case _:
                return None
    return replaced or None


def _byte_alphabet() -> dict[str, int]:
    """The characters in which byte-level vocabularies are written, and their bytes: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}


def unsafe_cuts(tokens: str) -> dict[str, set[str]]:
    """For a space and a line's end, the ASCII letters that some token holds before them; `tokens` are all in one text."""
    unsafe: dict[str, set[str]] = {" ": set(), "\n": set()}
    for pair in set(re.findall(r"[A-Za-z][▁Ġ Ċ\n]", tokens)):
        unsafe[SPACES.get(pair[1], pair[1])].add(pair[0])
    return unsafe


def cut_pattern(
    unsafe: dict[str, set[str]], added: Iterable[Any], splits: Callable[[str], bool], *, is_unigram: bool, spaces_sections: bool
) -> re.Pattern[str] | None:
    """A pattern that matches a text up to its last cut; None if no cut is safe by the vocabulary.

    A cut is between an ASCII letter and a space with a letter behind it, or a line's end. No merge of BPE and no piece
    crosses it if no token of the vocabulary holds such a letter before such a space, so that both sides are tokenized
    as if alone. Pieces of Unigram are also chosen by sums of scores, which round differently after another beginning:
    there the pre-tokenizer must part the text.

    Args:
        unsafe: of all tokens of the vocabulary, from `unsafe_cuts`.
        added: ordinary added tokens.
        splits: whether the pre-tokenizer parts a text of two letters with something between them.
        is_unigram: whether the model is Unigram.
        spaces_sections: whether text after an added token begins with a space of its own.
    """
    for token in added:
        if re.search(r"[A-Za-z][▁Ġ Ċ\s]", token.content) or (
            (token.rstrip or spaces_sections) and re.search(r"[A-Za-z]$", token.content)
        ):
            return None
    kept = []
    for space, behind in ((" ", " [A-Za-z]"), ("\n", "\n")):
        letters = "".join(sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") - unsafe[space]))
        if letters and (not is_unigram or splits(f"a{space}b")):
            kept.append(f"[{letters}](?={behind})")
    return re.compile(f"(?s:.*)(?:{'|'.join(kept)})") if kept else None
