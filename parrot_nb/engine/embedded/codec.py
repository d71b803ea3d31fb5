"""Text to token ids and back, with no way for text to become a control token.

Prompt text goes through a clone of the tokenizer that knows no added tokens; a few tokenizers can still produce a
control id from text, through their base vocabulary, so the result is checked. What a chat template writes goes through
a clone that knows them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from hashlib import blake2b
from typing import Any

from parrot_nb.errors import EngineError, ModelLoadError

MAX_TEMPLATE_CHARS = 200_000  # the longest chat templates in use have about 30,000
MAX_RENDERED_CHARS = 1_000_000
MAX_RENDER_S = 10.0


class TokenizerCodec:
    """The codec (`parrot_nb.engine.protocol.Codec`) of a Hugging Face tokenizer.

    Args:
        tokenizer: a fast (Rust) tokenizer.

    Raises:
        ModelLoadError: it is not a fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelLoadError(
                f"The tokenizer {type(tokenizer).__name__} has no fast version, which is needed to keep data from forging "
                "control tokens: save the model with a tokenizer.json."
            )
        from tokenizers import Tokenizer

        self._tokenizer = tokenizer
        state = json.loads(backend.to_str())
        added = state["added_tokens"]
        self.key = blake2b(backend.to_str().encode(), digest_size=16).hexdigest()
        self._special = {token["id"] for token in added if token["special"]} | set(tokenizer.all_special_ids)
        self._added = {token["id"]: token["content"] for token in added}
        self._control = self._special | set(self._added)
        plain = _without_added_tokens(state, self._control)
        self._first = Tokenizer.from_str(json.dumps(plain))
        self._rest = Tokenizer.from_str(json.dumps(_without_prefix_space(plain)))
        self._frame = Tokenizer.from_str(
            json.dumps(_without_prefix_space({**state, "post_processor": None, "truncation": None, "padding": None}))
        )
        self._frame.encode_special_tokens = False
        self.opening_ids = _opening_ids(tokenizer)
        self._anchor = tuple(self.encode("a"))
        self._frames: dict[tuple[int, str | None], tuple[tuple[int, ...], ...]] = {}
        self._texts: dict[
            int, str
        ] = {}  # of single ordinary ids: with every token that comes, that of the one before is asked for

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if the tokenizer knows one."""
        return self._tokenizer.eos_token_id

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self._tokenizer.chat_template)

    @property
    def anchor(self) -> tuple[int, ...]:
        """An ordinary token to decode others after."""
        return self._anchor

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """The ids of a stretch of text, never a control id; see `Codec.encode`."""
        if not text:
            return []
        ids = list((self._first if first else self._rest).encode(text, add_special_tokens=False).ids)
        if self._control.isdisjoint(ids):
            return ids
        return self._spelled_out(ids)

    def _spelled_out(self, ids: Sequence[int]) -> list[int]:
        """Replace control ids that the base vocabulary let through by the ids of their characters."""
        safe: list[int] = []
        for token_id in ids:
            if token_id not in self._control:
                safe.append(token_id)
                continue
            for char in self._added.get(token_id) or self._tokenizer.convert_ids_to_tokens(token_id):
                parts = self._rest.encode(char, add_special_tokens=False).ids
                safe += [part for part in parts if part not in self._control]
        return safe

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens shown as their names."""
        text, run = "", list[int]()
        for token_id in token_ids:
            if token_id in self._control:
                text += self.decode_plain(run) + (
                    self._added.get(token_id) or str(self._tokenizer.convert_ids_to_tokens(token_id))
                )
                run = []
            else:
                run.append(token_id)
        return text + self.decode_plain(run)

    def decode_plain(self, token_ids: Sequence[int]) -> str:
        """The text of ordinary ids."""
        if len(token_ids) != 1:
            return str(self._rest.decode(list(token_ids), skip_special_tokens=False)) if token_ids else ""
        (token_id,) = token_ids
        if token_id not in self._texts:
            self._texts[token_id] = str(self._rest.decode([token_id], skip_special_tokens=False))
        return self._texts[token_id]

    def shown(self, token_id: int) -> str | None:
        """For a control token, its text: "" for a special one, an added token's own; None for an ordinary token."""
        if token_id in self._special:
            return ""
        return self._added.get(token_id)

    def carried_over(self, token_ids: Sequence[int]) -> list[int]:
        """Generated ids as they may be filled elsewhere: special tokens left out, added ones spelled out."""
        if self._control.isdisjoint(token_ids):
            return list(token_ids)
        safe: list[int] = []
        for token_id in token_ids:
            text = self.shown(token_id)
            safe += [token_id] if text is None else self.encode(text)
        return safe

    # INTERIM BEGIN
    @property
    def vocab_size(self) -> int:
        return (
            self._rest.get_vocab_size(with_added_tokens=True)
            if not self._control
            else max(self._rest.get_vocab_size(), max(self._control) + 1)
        )

    def split_controls(self, text: str) -> list[str | int]:
        import re

        names = {content: i for i, content in self._added.items()}
        if not names:
            return [text] if text else []
        parts = re.split("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")", text)
        return [names.get(part, part) for part in parts if part]

    def stable_chars(self, text: str, *, first: bool = False) -> int:
        import re

        cut = 0
        for match in re.finditer(r"(?<=[a-zA-Z])(?= [a-zA-Z])", text):
            cut = match.start()
        return cut

    def token_bytes(self, token_id: int) -> bytes | None:
        if token_id in self._control:
            return None
        token = self._rest.id_to_token(token_id)
        if token is None:
            return None
        if not hasattr(self, "_unicode"):
            from transformers.convert_slow_tokenizer import bytes_to_unicode

            self._unicode = {c: b for b, c in bytes_to_unicode().items()}
            self._bytelevel = '"ByteLevel"' in self._rest.to_str()[-3000:] or '"ByteLevel"' in self._rest.to_str()[:5000]
        if self._bytelevel and all(c in self._unicode for c in token):
            return bytes(self._unicode[c] for c in token)
        if len(token) == 6 and token.startswith("<0x"):
            return bytes([int(token[3:5], 16)])
        return token.replace("\u2581", " ").encode()

    # INTERIM END

    def chat_frame(self, num_turns: int, system: str | None) -> ChatFrame:
        """What the chat template writes around contents; see `Codec.chat_frame`."""
        key = num_turns, system
        if key not in self._frames:
            self._frames[key] = self._make_frame(num_turns, system)
        return self._frames[key]

    def chat_trims(self, num_turns, system):
        return ((False, False),) * num_turns

    def first_after(self, token_id):
        return False

    def _make_frame(self, num_turns: int, system: str | None) -> tuple[tuple[int, ...], ...]:
        marks = [f"parrot{secrets.token_hex(12)}" for _ in range(2 * num_turns)]  # nobody can have written these
        system_mark = f"parrot{secrets.token_hex(12)}"
        messages = [] if system is None else [{"role": "system", "content": system_mark}]
        frame: list[tuple[int, ...]] = []
        for i_turn in range(num_turns):
            messages.append({"role": "user", "content": marks[2 * i_turn]})
            rendered = self._rendered(messages)
            start = 0
            if i_turn:
                previous = marks[2 * i_turn - 1]
                start = _index(rendered, previous) + len(previous)
            user = _index(rendered, marks[2 * i_turn], start)
            frame.append(self._frame_ids(rendered[start:user], system_mark, system or ""))
            frame.append(self._frame_ids(rendered[user + len(marks[2 * i_turn]) :], system_mark, system or ""))
            messages.append({"role": "assistant", "content": marks[2 * i_turn + 1]})
        return tuple(frame)

    def _frame_ids(self, text: str, system_mark: str, system: str) -> tuple[int, ...]:
        """Ids of template text; the system text in it is a user's and becomes plain ids."""
        ids: list[int] = []
        for i, stretch in enumerate(text.split(system_mark)):
            ids += self.encode(system) if i else []
            ids += self._frame.encode(stretch, add_special_tokens=False).ids if stretch else []
        return tuple(ids)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        template = self._tokenizer.chat_template
        if len(str(template)) > MAX_TEMPLATE_CHARS:
            raise EngineError(f"The chat template has more than {MAX_TEMPLATE_CHARS} characters: use --raw.")

        def render() -> str:
            # Contents are marks, so what the template may do to them (trim, escape) is seen below.
            return str(
                self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
            )

        pool = ThreadPoolExecutor(1, thread_name_prefix="parrot-chat-template")
        try:
            text = pool.submit(render).result(timeout=MAX_RENDER_S)
        except FutureTimeoutError:
            raise EngineError(f"The chat template did not finish within {MAX_RENDER_S:g} s: use --raw.") from None
        except Exception as error:  # a template can raise anything
            raise EngineError(f"The chat template failed ({type(error).__name__}: {error}): use --raw.") from error
        finally:
            pool.shutdown(wait=False)
        if len(text) > MAX_RENDERED_CHARS:
            raise EngineError(f"The chat template made more than {MAX_RENDERED_CHARS} characters: use --raw.")
        return text


def _index(text: str, mark: str, start: int = 0) -> int:
    index = text.find(mark, start)
    if index < 0 or text.find(mark, index + 1) >= 0:
        raise EngineError("The chat template drops, repeats or reorders a turn: use --raw.")
    return index


def _without_added_tokens(state: dict[str, Any], control: set[int]) -> dict[str, Any]:
    plain = {**state, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    model = state["model"]
    if model["type"] == "Unigram":  # such a model finds control pieces in text by their score
        vocab = [[piece, -1e6 if i in control else score] for i, (piece, score) in enumerate(model["vocab"])]
        plain["model"] = {**model, "vocab": vocab}
    return plain


def _without_prefix_space(state: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer for text in the middle of a prompt: it puts no space before it."""
    return {**state, "pre_tokenizer": _no_prefix(state.get("pre_tokenizer")), "normalizer": _no_prepend(state.get("normalizer"))}


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


def _opening_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts in front of a sequence."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start])
    return ()
