"""Likely costs of calls, in tokens and seconds: from their text, from what the same function wrote before, and from
how long the engine's steps take."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from parrot_nb.engine.protocol import Speed
from parrot_nb.graph import Cost, prefix_hashes
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.template import Constant, Output

CHARS_PER_TOKEN = 4.0  # of text whose tokens are not known
REMEMBER = 0.7  # weight of what was known of a function, with each new length
MAX_KNOWN = 10_000  # outputs, and native functions, of which something is known


class Size(NamedTuple):
    """Tokens of a call: of its prompt, and what it will probably write."""

    prompt_tokens: float
    output_tokens: float


class Costs(Protocol):
    """Estimates of calls for the scheduler."""

    def size(self, call: CallRecord) -> Size:
        """Return the probable size of a call."""

    def prefixes(self, call: CallRecord) -> list[tuple[str, float]]:
        """(hash, tokens up to there) at the boundaries before a call's first output, in order: calls that agree in a hash
        can share KV up to there."""


_Key = TypeVar("_Key", bound=Hashable)


class _Means(Generic[_Key]):
    """Means that follow what was measured last, by name; those measured last are kept."""

    def __init__(self) -> None:
        self._means: OrderedDict[_Key, float] = OrderedDict()

    def get(self, key: _Key) -> float | None:
        """Return the mean under this key, or None if nothing was measured."""
        return self._means.get(key)

    def add(self, key: _Key, value: float) -> None:
        """Add a measurement."""
        before = self._means.pop(key, value)
        self._means[key] = REMEMBER * before + (1 - REMEMBER) * value
        if len(self._means) > MAX_KNOWN:
            self._means.popitem(last=False)


class TextCosts:
    """Costs by the text of calls; `written` teaches it. Lives on the runtime loop.

    Args:
        options: the session's defaults.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._written = _Means[tuple[str, str]]()  # tokens, by function and output
        self._native_s = _Means[str]()  # seconds of native functions

    def written(self, call: CallRecord, node: ValueRecord, num_tokens: int) -> None:
        """An output was generated with so many tokens."""
        self._written.add((call.name, node.name), num_tokens)

    def took(self, call: CallRecord, seconds: float) -> None:
        """A native function has run."""
        self._native_s.add(call.name, seconds)

    def native_s(self, call: CallRecord) -> float:
        """Return the likely seconds of a native function; 0 before it has run."""
        return self._native_s.get(call.name) or 0.0

    def cost(self, call: CallRecord, speed: Speed) -> Cost:
        """Seconds of a call that runs alone; nothing is known of a native function that has not run yet."""
        if call.kind != "semantic":
            seconds = self.native_s(call) if call.kind == "native" else 0.0
            return Cost(seconds, seconds)
        return cost_of(self.size(call), speed)

    def size(self, call: CallRecord) -> Size:
        """See `Costs.size`."""
        if call.kind != "semantic":
            return Size(0.0, 0.0)
        prompt, output = call.prompt.constant_chars / CHARS_PER_TOKEN, 0.0
        for node in call.inputs.values():
            prompt += self.tokens_of(node)
        for node in call.outputs:
            output += self.output_tokens(call, node)
        return Size(prompt, output)

    def prefixes(self, call: CallRecord) -> list[tuple[str, float]]:
        """See `Costs.prefixes`."""
        found: list[tuple[str, float]] = []
        num_tokens = 0.0
        for digest, segment in zip(prefix_hashes(call), call.segments, strict=False):
            match segment:
                case Constant(text=text):
                    num_tokens += len(text) / CHARS_PER_TOKEN
                case Output():
                    break
                case _:
                    num_tokens += self.tokens_of(call.inputs[segment.name])
            found.append((digest, num_tokens))
        return found

    def tokens_of(self, node: ValueRecord) -> float:
        """Return the tokens of a value, or of what will probably become one."""
        if node.spans is not None:
            tokens = 0.0
            for span in node.spans:
                tokens += len(span.text) / CHARS_PER_TOKEN if span.token_ids is None else len(span.token_ids)
            return tokens
        if node.producer is None or node.final:
            return 0.0
        if node.producer.kind == "semantic":
            return self.output_tokens(node.producer, node)
        return sum(self._direct_tokens(source) for source in node.producer.inputs.values())

    def output_tokens(self, call: CallRecord, node: ValueRecord) -> float:
        """Return the tokens that a call will probably write to a variable: as many as lately, or its `max_tokens`."""
        known = self._written.get((call.name, node.name))
        if known is not None:
            return known
        for output in _outputs(call):
            if output.name == node.name:
                said = output.options.max_tokens, call.options.max_tokens, self._options.max_tokens, DEFAULTS.max_tokens
                return float(next(count for count in said if count is not None))
        raise AssertionError(f"{call} writes no {node.name}")

    def _direct_tokens(self, node: ValueRecord) -> float:
        """Return the tokens of one input of a join; of a join of joins, what is already written, so that depth costs nothing."""
        if node.spans is not None or node.producer is None:
            return self.tokens_of(node)
        return self.output_tokens(node.producer, node) if node.producer.kind == "semantic" else 0.0


def _outputs(call: CallRecord) -> Iterator[Output]:
    return (segment for segment in call.segments if isinstance(segment, Output))


def cost_of(size: Size, speed: Speed) -> Cost:
    """Seconds of a call that runs alone."""
    first_s = speed.step_s(1) + size.prompt_tokens * speed.prefill_s
    return Cost(first_s, first_s + max(0.0, size.output_tokens - 1) * speed.step_s(1))


CostOf = Callable[[CallRecord], Cost]
