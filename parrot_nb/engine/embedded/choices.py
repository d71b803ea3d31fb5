"""Scored choices: the log-likelihood of each of several texts after one prompt, in two steps at most.

The choices' tokens form a tree under the prompt. What is needed is the model's distribution at each of its inner nodes, so the
tree is cut into chains that together go through all of these. The first chain is computed on the prompt's own context, whose
pages the other chains then share: in a step of their own, in which all of them are. Where each choice is a single token there is
but one chain, of one row.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.failures import too_long
from parrot_nb.engine.embedded.script import Place, Script
from parrot_nb.engine.protocol import ContextId, GenerationEnd, ModelInfo, Pace, Piece, Priority, Sampling
from parrot_nb.engine.scoring import ScoredChoice, likeliest, shared_out
from parrot_nb.errors import EngineError, NonFiniteError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.codec import TokenizerCodec

MAX_BRANCHES = 64  # contexts that are open at once for one prompt

_Node = tuple[int, ...]  # tokens after the prompt


class Host(Protocol):
    """Services of the engine for the scoring of choices."""

    codec: TokenizerCodec
    model: ModelInfo
    max_context_tokens: int

    def open(self, priority: Priority) -> ContextId:
        """See `Engine.open`."""

    def set_pace(self, context: ContextId, pace: Pace | None) -> None:
        """See `Engine.set_pace`."""

    def fill(self, context: ContextId, token_ids: Sequence[int]) -> None:
        """See `Engine.fill`."""

    def free(self, context: ContextId) -> None:
        """See `Engine.free`."""

    def write_script(self, context: ContextId, script: Script) -> Generation:
        """Have a script written after what was filled."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A path of the tree.

    Attributes:
        filled: its tokens as far as chains before it have been there.
        script: the rest, with what is asked at each node.
    """

    filled: _Node
    script: Script

    @property
    def nodes(self) -> Iterable[_Node]:
        """The nodes of its script, in order."""
        return accumulate((place.token for place in self.script[:-1]), lambda node, token: (*node, token), initial=self.filled)


def chains_of(spelled: Sequence[_Node]) -> list[Chain]:
    """Cut the tree of these token sequences, none of which is empty, into chains; the first begins at its root and is as long as
    any."""
    following: dict[_Node, dict[int, None]] = {}
    for ids in spelled:
        for i, token in enumerate(ids):
            following.setdefault(ids[:i], {})[token] = None
    paths = [node for node in following if not any((*node, token) in following for token in following[node])]
    paths.sort(key=len, reverse=True)
    found: list[Chain] = []
    known: set[_Node] = set()
    for path in paths:
        start = next(i for i in range(len(path) + 1) if path[:i] not in known)
        nodes = [path[:i] for i in range(start, len(path) + 1)]
        known.update(nodes)
        asked = [tuple(following[node]) for node in nodes]
        tokens = [*path[start:], asked[-1][0]]
        found.append(Chain(path[:start], tuple(map(Place, tokens, asked))))
    return found


async def choose(host: Host, owner: Context, sampling: Sampling, taken_back: Sequence[int]) -> Piece:
    """Score choices after what a context holds, and append the likeliest to it.

    Args:
        host: the engine.
        owner: the context.
        sampling: with the choices, none of which is empty, and how they are compared.
        taken_back: see `Engine.generate`; each choice is spelled together with the text of these tokens.

    Raises:
        EngineError: a choice has no tokens.
        ContextLengthError: the context has no room for the longest of them.
        NonFiniteError: the model gives no log-probabilities.
    """
    assert sampling.scoring is not None, "somebody asked for scores"
    assert sampling.constraint is not None, "scores are of choices"
    texts: list[str] = json.loads(sampling.constraint.body)
    codec, prompt = host.codec, list(owner.tokens)
    before = b"".join(codec.token_bytes(token_id) or b"" for token_id in taken_back)
    spelled = [tuple(codec.encode(before.decode(errors="replace") + text)) for text in texts]
    if (odd := next((text for text, ids in zip(texts, spelled, strict=True) if not ids), None)) is not None:
        raise EngineError(f"The tokenizer has no tokens for the choice {odd!r}: take it out of the choices.")
    longest = len(prompt) + max(map(len, spelled))
    if longest > host.max_context_tokens:
        raise too_long(longest, host.max_context_tokens, host.model)
    first, *others = chains_of(spelled)
    logprobs: dict[tuple[_Node, int], float] = {}
    end = await _computed(host, owner.id, owner, first, logprobs)
    prefilled = end.prefilled_tokens + len(first.script) - 1
    branched_s = time.monotonic()
    if others:
        owner.set_aside()
        for start in range(0, len(others), MAX_BRANCHES):
            prefilled += await _branched(host, owner, prompt, others[start : start + MAX_BRANCHES], logprobs)
    scored = [
        ScoredChoice(text, math.fsum(logprobs[ids[:i], token] for i, token in enumerate(ids)), len(ids))
        for text, ids in zip(texts, spelled, strict=True)
    ]
    if not any(math.isfinite(choice.logprob) for choice in scored):
        raise NonFiniteError("The model gives no choice a probability: try another dtype, such as float32.")
    choices = shared_out(scored, sampling.scoring)
    best = likeliest(choices)
    ids = spelled[best]
    owner.become([*prompt, *ids])
    lead, num_inside = _lead(codec, ids, len(before), texts[best])
    ended = replace(
        end,
        finish="stop",
        token_ids=ids[num_inside:],
        prefilled_tokens=prefilled,
        decoded_tokens=len(ids),
        guessed_tokens=0,
        decode_s=end.decode_s + time.monotonic() - branched_s,
        lead=lead,
        written_ids=ids,
        complete=True,
        choices=choices,
    )
    return Piece(texts[best], len(ids), ended, lead=lead)


async def _branched(
    host: Host, owner: Context, prompt: Sequence[int], chains: Sequence[Chain], logprobs: dict[tuple[_Node, int], float]
) -> int:
    """Compute chains beside each other, each in a context of its own; returns how many tokens that took."""
    contexts: list[ContextId] = []
    try:
        for chain in chains:
            context = host.open(owner.priority)
            contexts.append(context)
            host.set_pace(context, owner.pace)
            host.fill(context, [*prompt, *chain.filled])
        generations = [host.write_script(context, chain.script) for context, chain in zip(contexts, chains, strict=True)]
        ends = [await _read(generation, chain, logprobs) for generation, chain in zip(generations, chains, strict=True)]
    finally:
        for context in contexts:
            host.free(context)
    return sum(end.prefilled_tokens + len(chain.script) - 1 for end, chain in zip(ends, chains, strict=True))


async def _computed(
    host: Host, context: ContextId, owner: Context, chain: Chain, logprobs: dict[tuple[_Node, int], float]
) -> GenerationEnd:
    """Compute a chain on the prompt's own context."""
    generation = host.write_script(context, chain.script)
    try:
        return await _read(generation, chain, logprobs)
    finally:
        if owner.generation is generation:  # whoever asked went away
            owner.generation = None


async def _read(generation: Generation, chain: Chain, logprobs: dict[tuple[_Node, int], float]) -> GenerationEnd:
    """Wait for a chain, and take in what the model said at its nodes."""
    async for piece in generation.told():
        end = piece.end
    if end is None or len(generation.scores) != len(chain.script):
        raise EngineError("The engine ended the scoring of choices early: %parrot reset, then call again.")
    for node, score in zip(chain.nodes, generation.scores, strict=True):
        logprobs.update({(node, token): logprob for token, logprob in score.others})
    return end


def _lead(codec: TokenizerCodec, ids: Sequence[int], num_before: int, text: str) -> tuple[str, int]:
    """Beginning of the text that tokens share with what was taken back, `num_before` bytes, and after how many tokens it ends."""
    ends = list(accumulate(len(codec.token_bytes(token_id) or b"") for token_id in ids))
    data = text.encode()
    for count, end in enumerate([0, *ends]):
        if end >= num_before:
            lead = data[: end - num_before]
            whole = lead.decode(errors="ignore")
            if len(whole.encode()) == len(lead):
                return whole, count
    return text, len(ids)
