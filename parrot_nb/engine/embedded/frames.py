"""Chat templates: what one writes around the contents of messages, and the token that it writes after an answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from parrot_nb.engine.codec import Part
from parrot_nb.engine.embedded.template_budget import TemplateTooLargeError
from parrot_nb.engine.embedded.templates import compile_template
from parrot_nb.engine.embedded.thinking import Openings
from parrot_nb.errors import EngineError

MAX_TEMPLATE_CHARS = 200_000  # the longest chat templates in use have about 30,000
MAX_RENDERED_CHARS = 1_000_000
MAX_RENDER_S = 10.0
PAD_LEFT, PAD_RIGHT = "\t \n", "\n \t"  # white space that no template writes beside a content by itself


@dataclass(frozen=True, slots=True)
class Frame:
    """Text and control tokens that a chat template writes around contents.

    Attributes:
        pieces: of each stretch of it, plain text and ids of control tokens.
        trims: of each user turn, whether white space at the content's beginning and end is left out.
    """

    pieces: tuple[tuple[Part, ...], ...]
    trims: tuple[tuple[bool, bool], ...]


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: has `chat_template` and `apply_chat_template`.
        split: the tokenizer's reading of template text: stretches of plain text and ids of control tokens.
        strips_before: whether a control token takes the white space before it.
        strips_behind: whether it takes the white space behind it.
    """

    def __init__(
        self,
        tokenizer: Any,
        split: Callable[[str], list[Part]],
        strips_before: Callable[[int], bool],
        strips_behind: Callable[[int], bool],
    ) -> None:
        self._tokenizer = tokenizer
        self._split = split
        self._strips_before = strips_before
        self._strips_behind = strips_behind
        self._compiled: Any = None
        self._frames: dict[tuple[int, str | None, bool], Frame] = {}

    def frame(self, num_turns: int, system: str | None, *, thinking: bool = False, opening: str = "") -> Frame:
        """The frame of so many user turns, each answered.

        Args:
            num_turns: how many.
            system: text of a system turn.
            thinking: whether the template is told that the model thinks.
            opening: what it writes to open an answer's thoughts then; left out of the frame.

        Raises:
            EngineError: the template failed, or cannot be used turn by turn.
        """
        key = num_turns, system, thinking
        if key not in self._frames:
            self._frames[key] = self._make(num_turns, system, thinking, opening)
        return self._frames[key]

    def openings(self) -> Openings | None:
        """Return the texts with which the template opens an answer; None if it fails."""
        user, answer = _mark(), _mark()
        asked = [{"role": "user", "content": user}]
        try:
            plain, thinking = (self._rendered(asked, thinking=thinks).rpartition(user)[2] for thinks in (False, True))
        except EngineError:
            return None
        try:
            whole = self._rendered([*asked, {"role": "assistant", "content": answer}], opens_answer=False)
            answered = whole.rpartition(answer)[0].rpartition(user)[2] or None
        except EngineError:
            answered = None
        return Openings(plain, thinking, answered, template_text(self._tokenizer.chat_template))

    def turn_end(self) -> int | None:
        """The control token that the template writes right after the last answer of a conversation, if any."""
        mark = _mark()
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
        try:
            rendered = self._rendered(messages, opens_answer=False)
        except EngineError:
            return None
        _, found, behind = rendered.rpartition(mark)
        parts = [part for part in self._split(behind) if not isinstance(part, str) or part.strip()] if found else []
        return parts[0] if parts and isinstance(parts[0], int) else None

    def written(self) -> str:
        """Return the text that the template writes in a conversation with all roles, or with those that it knows."""
        answer = {"role": "assistant", "content": "b"}
        conversation = [{"role": "user", "content": "a"}, answer, {"role": "user", "content": "c"}]
        for messages in ([{"role": "system", "content": "d"}, *conversation], conversation):
            try:
                return self._rendered(messages) + self._rendered(messages[:-1], opens_answer=False)
            except EngineError:
                continue
        return ""

    def _make(self, num_turns: int, system: str | None, thinking: bool, opening: str) -> Frame:
        marks = [_mark() for _ in range(2 * num_turns)]
        system_mark = _mark()
        messages = [] if system is None else [{"role": "system", "content": system_mark}]
        pieces: list[tuple[Part, ...]] = []
        trims: list[tuple[bool, bool]] = []
        for i_turn in range(num_turns):
            user, answer = marks[2 * i_turn], marks[2 * i_turn + 1]
            messages.append({"role": "user", "content": user})
            rendered = self._rendered(messages, thinking=thinking).removesuffix(opening)
            start = 0
            if i_turn:
                previous = marks[2 * i_turn - 1]
                start = _index(rendered, previous) + len(previous)
            content = _index(rendered, user, start)
            padded = self._rendered([*messages[:-1], {"role": "user", "content": PAD_LEFT + user + PAD_RIGHT}])
            left, right = PAD_LEFT + user not in padded, user + PAD_RIGHT not in padded
            if system is not None and i_turn == 0:
                system = self._trimmed_system(messages, system, system_mark)
            before = self._parts(rendered[start:content], system_mark, system or "")
            behind = self._parts(rendered[content + len(user) :], system_mark, system or "")
            left |= bool(before) and isinstance(before[-1], int) and self._strips_behind(before[-1])
            right |= bool(behind) and isinstance(behind[0], int) and self._strips_before(behind[0])
            pieces += [before, behind]
            trims.append((left, right))
            messages.append({"role": "assistant", "content": answer})
        return Frame(tuple(pieces), tuple(trims))

    def _trimmed_system(self, messages: Sequence[dict[str, str]], system: str, mark: str) -> str:
        """The system text, less the white space that the template takes from it."""
        padded = self._rendered([{"role": "system", "content": PAD_LEFT + mark + PAD_RIGHT}, *messages[1:]])
        if PAD_LEFT + mark not in padded:
            system = system.lstrip()
        return system.rstrip() if mark + PAD_RIGHT not in padded else system

    def _parts(self, text: str, system_mark: str, system: str) -> tuple[Part, ...]:
        """Template text as the tokenizer reads it; the system text in it is a user's, and plain."""
        parts: list[Part] = []
        for i, stretch in enumerate(text.split(system_mark)):
            template = self._split(stretch)
            if i:
                plain = system
                if parts and isinstance(parts[-1], int) and self._strips_behind(parts[-1]):
                    plain = plain.lstrip()
                if template and isinstance(template[0], int) and self._strips_before(template[0]):
                    plain = plain.rstrip()
                _append(parts, plain)
            for part in template:
                _append(parts, part)
        return tuple(parts)

    def _rendered(self, messages: Sequence[dict[str, str]], *, opens_answer: bool = True, thinking: bool = False) -> str:
        tokenizer, settings = self._tokenizer, {"add_generation_prompt": opens_answer, "enable_thinking": thinking}
        settings["thinking"] = thinking  # as DeepSeek V3.1 and Granite call it
        if len(str(tokenizer.chat_template)) > MAX_TEMPLATE_CHARS:
            raise EngineError(f"The chat template has more than {MAX_TEMPLATE_CHARS} characters: use --raw.")

        def render() -> str:
            # Contents are marks, so what the template may do to them (trim, escape) is seen by the caller.
            if _has_way_of_its_own(tokenizer):
                return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
            if self._compiled is None:
                self._compiled = compile_template(_default(tokenizer.chat_template))
            names = {**tokenizer.special_tokens_map, **settings}
            return str(
                self._compiled.render(messages=[dict(message) for message in messages], tools=None, documents=None, **names)
            )

        pool = ThreadPoolExecutor(1, thread_name_prefix="parrot-chat-template")
        try:
            text = pool.submit(render).result(timeout=MAX_RENDER_S)
        except FutureTimeoutError:
            raise EngineError(f"The chat template did not finish within {MAX_RENDER_S:g} s: use --raw.") from None
        except EngineError:
            raise
        except TemplateTooLargeError as error:
            raise EngineError(f"The chat template {error}: use --raw.") from error
        except Exception as error:  # a template can raise anything
            raise EngineError(f"The chat template failed ({type(error).__name__}: {error}): use --raw.") from error
        finally:
            pool.shutdown(wait=False)
        if len(text) > MAX_RENDERED_CHARS:
            raise EngineError(f"The chat template made more than {MAX_RENDERED_CHARS} characters: use --raw.")
        return text


def _has_way_of_its_own(tokenizer: Any) -> bool:
    """Whether a tokenizer's class applies templates otherwise than transformers does for all."""
    method = getattr(type(tokenizer), "apply_chat_template", None)
    return method is not None and method.__qualname__ != "PreTrainedTokenizerBase.apply_chat_template"


def _default(chat_template: Any) -> str:
    """The chat template for conversations without tools, where a tokenizer has several."""
    if not isinstance(chat_template, dict):
        return str(chat_template)
    if "default" not in chat_template:
        raise EngineError(f"There is no default among the chat templates ({', '.join(chat_template)}): use --raw.")
    return str(chat_template["default"])


def template_text(chat_template: Any) -> str:
    """All text of a chat template, or of several."""
    if isinstance(chat_template, dict):
        return "\n".join(map(template_text, chat_template.values()))
    if isinstance(chat_template, (list, tuple)):
        return "\n".join(map(template_text, chat_template))
    return str(chat_template or "")


def _mark() -> str:
    return f"parrot{secrets.token_hex(12)}"  # nobody can have written it


def _append(parts: list[Part], part: Part) -> None:
    """Append a part, joined with a stretch of text before it."""
    if isinstance(part, str) and parts and isinstance(parts[-1], str):
        parts[-1] += part
    elif part != "":
        parts.append(part)


def _index(text: str, mark: str, start: int = 0) -> int:
    index = text.find(mark, start)
    if index < 0 or text.find(mark, index + 1) >= 0:
        raise EngineError("The chat template drops, repeats or reorders a turn: use --raw.")
    return index
