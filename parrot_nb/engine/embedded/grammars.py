"""Constrained generation: which tokens keep a text within its type.

A constraint is compiled into a grammar over bytes (by `llguidance`), once per tokenizer. Each generation has a matcher of its
own that follows what is sampled; before each sample it says which tokens may come next (`parrot_nb.engine.embedded.masks`).
What the prompt has said of the text already belongs to it: at a healed seam the grammar begins with the text taken back, and
with `begin=...` the matcher has read that before the first token.
"""

from __future__ import annotations

import asyncio
import json
import re
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Literal

from parrot_nb.engine.protocol import Constraint
from parrot_nb.engine.waits import unbroken
from parrot_nb.errors import ConstraintError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from parrot_nb.engine.embedded.codec import TokenizerCodec

MAX_BODY_CHARS = 200_000  # of a constraint: half a second to compile at most
COMPILE_S = 2.0
MAX_KEPT = 64  # compiled grammars per tokenizer; a large one takes some MB
Layout = Literal["line", "free"]
LAYOUTS: tuple[Layout, ...] = ("line", "free")
# JSON is one line, as `json.dumps` writes it: where blanks are free, a weak model writes as many as it may, three quarters of a text,
# and no separator is certain. Only a text that begins in another layout (`begin=`) may go on freely, within bounds.
WHITE_SPACE: dict[Layout, dict[str, Any]] = {
    "line": {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False},
    "free": {"whitespace_pattern": r" {0,2}|\r?\n[ \t]{0,20}"},
}
NUM_BYTES = 256
# The model may spell what is certain in any tokens, as without a constraint; by default llguidance allows the tokenizer's alone.
HEADER = '%llguidance {"no_forcing": true}\n'
BYTES_OF_TOKEN = 16  # of forced text that is spelled at once
MOST_FORCED = 16  # tokens, likewise


class Grammars:
    """The compiled grammars of one tokenizer; the engines that share the codec share them. Lives on their event loop.

    Args:
        codec: the tokenizer.
    """

    def __init__(self, codec: TokenizerCodec) -> None:
        self._codec = weakref.ref(codec)  # which has this
        self._tokenizer: Future[LLTokenizer] | None = None
        self._compiled: OrderedDict[tuple[str, str, str, Layout], LLMatcher] = OrderedDict()
        # Threads of its own: a grammar that is refused by the clock may go on for a moment.
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="parrot-grammars")
        self._masks = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="parrot-masks"
        )  # one: a matcher has one user at a time

    async def start(self, constraint: Constraint, taken_back: Sequence[int]) -> Grammar:
        """A matcher at the beginning of a text.

        Args:
            constraint: what the text must obey.
            taken_back: the prompt's last tokens, which the model writes again before the text (token healing).

        Raises:
            ConstraintError: the constraint cannot be compiled, takes too long, or excludes `constraint.said`.
        """
        codec = self._codec()
        assert codec is not None, "the engine that asks has the codec"
        owed = b"".join(codec.token_bytes(token_id) or b"" for token_id in taken_back)
        said = constraint.said.encode()
        if not (said.endswith(owed) or owed.endswith(said)):  # a tokenizer that changes text
            raise ConstraintError(f"The text begin={constraint.said!r} cannot be healed with this tokenizer: use heal=False.")
        before = owed[: max(0, len(owed) - len(said))].decode()  # whole characters: the prompt is cut between them
        said = before.encode() + said
        num_read = len(said) - len(owed)
        ids = self._byte_ids(said, codec.vocab_size)
        for layout in LAYOUTS if constraint.kind == "json" and constraint.said else LAYOUTS[:1]:
            matcher = (await self._matcher(constraint, before, layout)).deep_copy()
            if matcher.try_consume_tokens(ids) == len(ids):
                break
        else:
            raise ConstraintError(f"The text begin={constraint.said!r} cannot begin a value of this type: change one of them.")
        matcher.rollback(len(ids) - num_read)
        return Grammar(matcher, said, codec.vocab_size, self._masks, await self._with_tokenizer())

    async def _matcher(self, constraint: Constraint, before: str, layout: Layout) -> LLMatcher:
        """The compiled grammar, at its start, of a text that follows on `before`."""
        key = constraint.kind, constraint.body, before, layout
        if (found := self._compiled.get(key)) is not None:
            self._compiled.move_to_end(key)
            return found
        if len(constraint.body) > MAX_BODY_CHARS:
            raise ConstraintError(
                f"The type is too large to compile ({len(constraint.body)} characters, at most {MAX_BODY_CHARS}): make it smaller."
            )
        tokenizer = await self._with_tokenizer()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(COMPILE_S):
                found = await loop.run_in_executor(self._pool, compiled, constraint, before, tokenizer, layout)
        except TimeoutError:
            raise ConstraintError(f"The type takes longer than {COMPILE_S:g} s to compile: make it simpler.") from None
        self._compiled[key] = found
        if len(self._compiled) > MAX_KEPT:
            self._compiled.popitem(last=False)
        return found

    async def _with_tokenizer(self) -> LLTokenizer:
        """The tables of the vocabulary: some 0.3 s for 50,000 tokens and 3 s for 260,000, once."""
        if self._tokenizer is None:
            codec = self._codec()
            assert codec is not None, "the engine that asks has the codec"
            self._tokenizer = self._pool.submit(tokenizer_of, codec)
        return await unbroken(asyncio.wrap_future(self._tokenizer))

    @staticmethod
    def _byte_ids(text: bytes, vocab_size: int) -> list[int]:
        return [vocab_size + byte for byte in text]


class Grammar:
    """State of one generation's grammar: what its text may still become. Lives on the event loop, but for the masks of a step,
    which are computed in `pool` while the loop waits for that step.

    Attributes:
        num_tokens: ids of the vocabulary; those after them are single bytes, and the end of the text (`end_id`).
        pending: the computation of the masks of a step that has been planned.
        failure: why it cannot say any more what may follow; None while it can.
    """

    def __init__(
        self, matcher: LLMatcher, said: bytes, num_tokens: int, pool: ThreadPoolExecutor, tokenizer: LLTokenizer
    ) -> None:
        self.matcher = matcher
        self.num_tokens = num_tokens
        self.pool = pool
        self._tokenizer = tokenizer
        self._plan: tuple[int, ...] = ()
        self.pending: Future[Any] | None = None
        self.failure: str | None = None
        self._said = said

    @property
    def end_id(self) -> int:
        """The id that stands for the end of the text in masks."""
        return self.num_tokens + NUM_BYTES

    @property
    def is_complete(self) -> bool:
        """True if the text so far is all of a value."""
        return self.matcher.is_accepting()

    @property
    def is_over(self) -> bool:
        """True if nothing can follow on the text so far."""
        return self.matcher.is_stopped()

    def accept(self, token_id: int) -> None:
        """Add a sampled token to the text."""
        self._plan = self._plan[1:] if self._plan[:1] == (token_id,) else ()
        self.matcher.consume_token(token_id)
        self.note_failure()

    def note_failure(self) -> None:
        """Keep the reason if the matcher has given up; it never goes on then."""
        if self.failure is None and self.matcher.is_error():
            self.failure = self.matcher.get_error().split("\n", 1)[0]

    def num_allowed(self, token_ids: Sequence[int]) -> int:
        """Return how many of these tokens in a row the text can go on with."""
        self._settle()
        return self.matcher.validate_tokens(list(token_ids))

    def forced(self) -> tuple[int, ...]:
        """Return the tokens of the text that must come next, as the tokenizer spells it, without those that may span its end.

        It depends on the text alone: what is left of an answer is the answer until another token is accepted.
        """
        if not self._plan:
            self._settle()
            if certain := self.matcher.compute_ff_bytes()[: BYTES_OF_TOKEN * MOST_FORCED]:
                ids, _ = self._tokenizer.tokenize_partial(_whole(certain))
                ids = ids[:MOST_FORCED]
                self._plan = tuple(ids[: self.matcher.validate_tokens(ids)])
        return self._plan

    def spelled(self, token_id: int, forced: int) -> int:
        """Return the token to write where one is forced: the model's own if the grammar allows it, else the forced one."""
        own = token_id == forced or (token_id < self.num_tokens and self.matcher.validate_tokens([token_id]) == 1)
        return token_id if own else forced

    def _settle(self) -> None:
        """Wait for the masks of a step that has failed: some 10 us."""
        if self.pending is not None:
            wait([self.pending])
            self.pending = None

    def accepts(self, text: str) -> bool:
        """True if this text, with what was said before it, is all of a value."""
        fresh = self.matcher.deep_copy()
        ids = [self.num_tokens + byte for byte in self._said + text.encode()]
        return fresh.reset() and fresh.try_consume_tokens(ids) == len(ids) and fresh.is_accepting()


def compiled(constraint: Constraint, before: str, tokenizer: LLTokenizer, layout: Layout = "line") -> LLMatcher:
    """The matcher of a text that follows on `before`, at its start. Raises ConstraintError."""
    from llguidance import LLMatcher

    matcher = LLMatcher(tokenizer, grammar_of(constraint, before, layout), log_level=0)
    if matcher.is_error():
        raise ConstraintError(f"The type cannot be compiled ({_reason(matcher.get_error())}): write it in another way.")
    return matcher


def grammar_of(constraint: Constraint, before: str = "", layout: Layout = "line") -> str:
    """A constraint in the language of `llguidance`, with a text that stands before it, and JSON in this layout."""
    from llguidance import LLMatcher

    match constraint.kind:
        case "json":
            schema = json.loads(constraint.body)
            schema = {**(schema if isinstance(schema, dict) else {}), "x-guidance": WHITE_SPACE[layout]}
            start = f"start: {json.dumps(before)} value" if before else "start: value"
            return f"{HEADER}{start}\nvalue: %json {json.dumps(schema)}\n"
        case "lark":
            start = f"{json.dumps(before)} @value" if before else "@value"
            grammars = [{"lark_grammar": f"{HEADER}start: {start}\n"}, {"name": "value", "lark_grammar": constraint.body}]
            return json.dumps({"grammars": grammars})
        case "choices":
            pattern = "|".join(_escaped(choice) for choice in json.loads(constraint.body))
        case "regex":
            pattern = constraint.body
    made = json.loads(LLMatcher.grammar_from_regex(f"{_escaped(before)}(?:{pattern})"))
    return f"{HEADER}{made['grammars'][0]['lark_grammar']}"


def tokenizer_of(codec: TokenizerCodec) -> LLTokenizer:
    """A codec's vocabulary for `llguidance`, followed by the 256 bytes and an end of its own: so a text that is not made of the
    model's tokens can be read too, and which tokens end a text is left to each generation."""
    from llguidance import LLTokenizer, TokenizerWrapper

    num_tokens = codec.vocab_size
    texts = [codec.token_bytes(token_id) for token_id in range(num_tokens)]
    encode = weakref.WeakMethod(codec.encode)

    class Vocabulary:
        def __init__(self) -> None:
            self.eos_token_id = num_tokens + NUM_BYTES
            self.bos_token_id = None
            named = [text or b"\xff<%d>" % token_id for token_id, text in enumerate(texts)]
            self.tokens = [*named, *(bytes([byte]) for byte in range(NUM_BYTES)), b"\xff<end>"]
            # Control tokens, ids without token and tokens without text: no grammar allows them.
            self.special_token_ids = [*(token_id for token_id, text in enumerate(texts) if not text), self.eos_token_id]

        def __call__(self, text: str | bytes, **_: Any) -> list[int]:
            found = encode()
            assert found is not None, "a grammar is used while the codec is"
            return found(text.decode() if isinstance(text, bytes) else text)

    return LLTokenizer(TokenizerWrapper(Vocabulary()), n_vocab=num_tokens + NUM_BYTES + 1)


def _whole(text: bytes) -> bytes:
    """A text without the beginning of a character at its end."""
    return text.decode(errors="ignore").encode()


def _escaped(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~/])", r"\\\1", text)


def _reason(error: str) -> str:
    """The part of a compiler's message that says what is wrong, in one line."""
    lines = [line.strip() for line in error.split("\n") if line.strip()]
    found = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else "unknown")
    return found.rstrip(".")[:200]
