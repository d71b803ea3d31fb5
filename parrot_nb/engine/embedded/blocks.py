"""Steps in blocks of always as many rows, so that a row's result does not depend on which rows are computed with it.

A matrix product chooses its kernel, and with it the order in which it adds, by the number of its rows: in bfloat16 the same
prompt alone and in a batch can get other tokens. Here the decoder only ever sees `BLOCK_ROWS` rows. What is missing is filled up
with rows of a page that no context uses, and attention is row by row (`parrot_kernels.rowwise`). So each operation on a row is
always of the same shapes; that its result is the same at each place in a block, whatever is in the others, is tried at load.
A token's keys, values and logits then follow from its text alone, however that is chunked, shared, drafted or computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows
from parrot_nb.engine.embedded.cache import KVMemory
from parrot_nb.engine.embedded.step import Run
from parrot_nb.engine.embedded.trial import Computes

BLOCK_ROWS = 16  # one row alone costs SmolLM2 1.5 times as much as without; sixteen cost the same


@dataclass(frozen=True, slots=True)
class BlockRows:
    """Rows of one context in a step.

    Attributes:
        token_ids: of the rows.
        start: position of the first.
        pages: of the context.
        num_samples: of how many last rows the logits are needed.
    """

    token_ids: Sequence[int]
    start: int
    pages: Sequence[int]
    num_samples: int


class Blocks:
    """Computes the logits of steps in blocks.

    Args:
        decoder: on a CPU, with dense layers: the shapes of all its operations follow from the number of rows.
        memory: the cache.
        page_size: tokens per page.
        spare_page: one that no context uses.
    """

    def __init__(self, decoder: Computes, memory: KVMemory, page_size: int, spare_page: int) -> None:
        self._decoder, self._memory, self._page_size, self._spare_page = decoder, memory, page_size, spare_page

    def logits(self, contexts: Sequence[BlockRows]) -> Tensor:
        """Compute a step: logits [N, V] of the rows that are needed, in the contexts' order; what is new lands in the cache.

        A context may go on after pages that another one computes in this step, and then begins at a later position: so contexts
        are computed by their first positions, and no block reads what a later one writes.
        """
        order = sorted(range(len(contexts)), key=lambda i: contexts[i].start)
        parts = self._in_order([contexts[i] for i in order]).split([contexts[i].num_samples for i in order])
        return torch.cat([part for _, part in sorted(zip(order, parts, strict=True), key=lambda pair: pair[0])])

    def _in_order(self, contexts: Sequence[BlockRows]) -> Tensor:
        found: list[Tensor] = []
        block: list[tuple[BlockRows, int, int]] = []  # of each context in it, from which row on, and how many
        room = BLOCK_ROWS
        for context in contexts:
            done = 0
            while done < len(context.token_ids):
                count = min(room, len(context.token_ids) - done)
                block.append((context, done, count))
                done, room = done + count, room - count
                if not room:
                    found.append(self._block(block))
                    block, room = [], BLOCK_ROWS
        if block:
            found.append(self._block(block))
        return torch.cat(found)

    def _block(self, block: Sequence[tuple[BlockRows, int, int]]) -> Tensor:
        rows: list[ContextRows] = []
        tokens: list[int] = []
        positions: list[int] = []
        needed: list[int] = []
        for context, done, count in block:
            first = len(context.token_ids) - context.num_samples  # the first row whose logits are needed
            needed += [len(tokens) + i for i in range(count) if done + i >= first]
            tokens += context.token_ids[done : done + count]
            positions += range(context.start + done, context.start + done + count)
            rows.append(ContextRows(context.start + done, count, list(context.pages)))
        spare = BLOCK_ROWS - len(tokens)
        rows += [ContextRows(0, 1, [self._spare_page])] * spare
        run = Run(AttentionPlan.build(rows, self._page_size, rowwise=True), self._memory)
        ids, where = torch.tensor([*tokens, *[0] * spare]), torch.tensor([*positions, *[0] * spare])
        # Logits of all rows, or of none that is used: the last product is of the same shape, too.
        logits = self._decoder(ids, where, run, None if needed else torch.tensor([0]))
        return logits[needed]


def depends_on_others(decoder: Computes, memory: KVMemory, page_size: int, text: Sequence[int]) -> bool:
    """Try whether the place of a row in a block, or what is in its other rows, changes the row's logits.

    Args:
        decoder: to try.
        memory: with `BLOCK_ROWS` + 2 pages, which may be overwritten.
        page_size: tokens per page.
        text: ordinary text, at least one token.
    """
    blocks = Blocks(decoder, memory, page_size, spare_page=BLOCK_ROWS + 1)
    tokens = [text[i % len(text)] for i in range(BLOCK_ROWS)]
    one = BlockRows(tokens[:1], 0, [BLOCK_ROWS], 1)
    alone = blocks.logits([one])
    for place in range(BLOCK_ROWS):
        others = [BlockRows([token], 0, [i], 1) for i, token in enumerate(tokens[1:])]
        crowd = blocks.logits([*others[:place], one, *others[place:]])
        if not torch.equal(crowd[place : place + 1].view(torch.uint8), alone.view(torch.uint8)):
            return True
    return False
