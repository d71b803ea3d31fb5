"""One prompt of a plan: put together as a run does it, as far as its texts exist."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

from parrot_nb.engine.protocol import Engine
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import Span
from parrot_nb.runtime import prompt
from parrot_nb.runtime.costs import TextCosts
from parrot_nb.runtime.fitting import fit_input
from parrot_nb.runtime.memo import MemoContext
from parrot_nb.runtime.stretches import PromptWriter

UNKNOWN_BITS = 32  # an unknown token is a negative number: the id of its variable, and its place in there


class Walk:
    """See the module.

    Args:
        call: a semantic call; its outputs are given values where these are known.
        engine: that it would run on.
        context: in which the memo finds them; never opened.
        costs: what is known of the lengths of texts.
        most_context_tokens: of the engine.

    Attributes:
        token_ids: of the context at the end; unknown ones are negative.
        num_filled: those of them that are filled, and not written by the model in this call.
        exact: whether all that is filled is known; not where a check may yet refuse a text that is remembered.
        knows_all: whether every output is known already.
        first_prompt_tokens: before the first output.
        first_key: equal for prompts whose first outputs will be equal; None where each may differ.
        written_tokens: that the model will probably write.
        thinking_tokens: that it may think at most, before its answers.
    """

    def __init__(
        self, call: CallRecord, engine: Engine, context: MemoContext, costs: TextCosts, most_context_tokens: int
    ) -> None:
        self.token_ids: list[int] = []
        self.num_filled = 0
        self.exact = self.knows_all = True
        self.first_prompt_tokens = self.written_tokens = self.thinking_tokens = 0
        self.first_key: bytes | None = None
        self._most_context_tokens = most_context_tokens
        self._call = call
        self._engine = engine
        self._context = context
        self._costs = costs
        self._writer = PromptWriter(engine.codec)
        self._nodes = prompt.nodes_of(call)
        self._thinks = False

    async def over(self, operations: Sequence[prompt.Operation]) -> None:
        """Go over the operations of the call.

        Raises:
            InputValueError: a value has no text.
        """
        for i_operation, operation in enumerate(operations):
            match operation:
                case prompt.FillVariable(name):
                    if operation.fit is not None and self._nodes[name].final:
                        await self._fit(operations[i_operation:])
                    self._value(self._nodes[name])
                case prompt.Think():
                    await self._think(operation)
                case prompt.Generate():
                    await self._generate(operation)
                case _:
                    prompt.add(operation, self._writer)

    def _value(self, node: ValueRecord) -> None:
        if node.final:
            self._writer.add_spans(prompt.variable_spans(node))
            return
        self._fill(self._writer.close())
        self._unknown(node, round(self._costs.tokens_of(node)), filled=True)

    async def _fit(self, operations: Sequence[prompt.Operation]) -> None:
        """Cut an input as a run would, as far as what stands beside it is known."""
        before = len(self.token_ids) + self._writer.num_open_tokens

        async def arrived(node: ValueRecord) -> None:
            self.exact = self.exact and node.final

        await fit_input(
            operations, self._nodes, self._engine.codec, arrived, num_tokens=before, most_context_tokens=self._most_context_tokens
        )

    async def _think(self, operation: prompt.Think) -> None:
        self._thinks = True
        for mark in operation.opens:
            prompt.add(mark, self._writer)
        self._fill(self._writer.end(heals=False).token_ids)
        self._begin_output()
        cut = False
        if self.knows_all:
            sampling = operation.bounded(self._engine.codec, self._context.num_tokens, self._most_context_tokens)
            place = self._call.name, operation.name, "thinking"
            known = await self._context.recall(sampling, place)
            self.knows_all = known is not None and known.end is not None
            if known is not None and known.end is not None:
                self.token_ids += known.end.context_ids
                cut = known.end.finish == "length"
        self.thinking_tokens += self._most_context_tokens if operation.budget is None else operation.budget
        for mark in operation.closes(cut=cut):
            prompt.add(mark, self._writer)

    async def _generate(self, operation: prompt.Generate) -> None:
        node = self._nodes[operation.name]
        seam = self._writer.end(heals=operation.heals)
        self._fill(seam.token_ids)
        self.num_filled += len(seam.taken_back)
        if not self.first_prompt_tokens and (operation.sampling.temperature == 0 or operation.sampling.seed is not None):
            self.first_key = blake2b(array("q", (*self.token_ids, *seam.taken_back)).tobytes(), digest_size=20).digest()
        self._begin_output()
        if self.knows_all:
            known = await self._context.recall(operation.sampling, (self._call.name, node.name), seam.taken_back)
            if known is not None and (end := known.end) is not None:
                judged = operation.sampling.constraint is not None or node.name in self._call.checked
                self.exact = self.exact and not (operation.retries and judged)
                lead = operation.begin + end.lead
                text = known.text[len(end.lead) :]
                node.resolve((*((Span(lead),) if lead else ()), Span(text, end.token_ids, self._engine.codec.key)))
                self.token_ids += end.context_ids
                return
            self.knows_all = False
        num_tokens = round(self._costs.output_tokens(self._call, node))
        self.written_tokens += num_tokens
        self._unknown(node, num_tokens, filled=False)

    def _begin_output(self) -> None:
        self.first_prompt_tokens = self.first_prompt_tokens or self.num_filled

    def _fill(self, token_ids: Sequence[int]) -> None:
        self.token_ids += token_ids
        self.num_filled += len(token_ids)
        if self.knows_all:
            self._context.fill(token_ids)

    def _unknown(self, node: ValueRecord, num_tokens: int, *, filled: bool) -> None:
        """Append a text that does not exist yet."""
        start = -(node.id << UNKNOWN_BITS)
        self.token_ids += range(start - num_tokens, start)
        self.knows_all = False
        if filled:
            self.num_filled += num_tokens
        self.exact = self.exact and not filled
