"""The books of what runs: every change of a call or variable, each of which is one event, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from parrot_nb.engine.protocol import Piece
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import NO_USAGE, Objective, Span, State, Usage
from parrot_nb.language.notify import message_of
from parrot_nb.runtime import events
from parrot_nb.runtime.arrivals import Arrivals
from parrot_nb.runtime.events import Phase, now_s
from parrot_nb.runtime.messages import Given, Outcome
from parrot_nb.runtime.wire import Say


class Books:
    """The only writer of the states of records. Lives on the runtime loop.

    Args:
        say: is told every change, after it has happened.
        begun: is told of each variable that a model is about to write.
        settle: takes up what `final` holds; called by `announce`.

    Attributes:
        final: variables whose ends nobody has taken up yet.
    """

    def __init__(self, say: Say, begun: Callable[[ValueRecord], None], settle: Callable[[], None]) -> None:
        self.final: deque[ValueRecord] = deque()
        self._say = say
        self._begun = begun
        self._settle = settle
        self._arrivals = Arrivals()

    def announce(self) -> None:
        """Have what has become final taken up now."""
        self._settle()

    # Calls

    def added(self, call: CallRecord, new_inputs: Sequence[ValueRecord], limits: Sequence[int | None], cell: int | None) -> None:
        """A call entered the graph with inputs that are new there, and with so many tokens at most for each output."""
        for node in new_inputs:
            self._say(events.VariableAdded(now_s(), node.id, node.name, None))
            if node.final:
                self.tell(node)
        inputs = tuple((name, node.id) for name, node in call.inputs.items())
        self._say(events.CallAdded(now_s(), call.id, call.name, call.kind, inputs, tuple(n.id for n in call.outputs), cell))
        for node, limit in zip(call.outputs, limits, strict=True):
            self._say(events.VariableAdded(now_s(), node.id, node.name, call.id, limit))

    def wanted(self, call: CallRecord, objective: Objective) -> None:
        """A call has an objective, or a stricter one."""
        call.objective = objective
        self._say(events.ObjectiveDeduced(now_s(), call.id, objective))

    def changed(
        self, call: CallRecord, state: State, phase: Phase, engine: str | None = None, error: BaseException | None = None
    ) -> None:
        """A call is in another state or phase."""
        call.state, call.error = state, error
        self._say(events.CallChanged(now_s(), call.id, state, phase, engine, None if error is None else message_of(error)))

    # Variables

    def given(self, node: ValueRecord, value: Given) -> None:
        """A user has set a variable."""
        take_over(node, value)
        self.tell(node)
        self.final.append(node)

    def begin(self, node: ValueRecord, note: str | None, codec: str | None = None) -> None:
        """A variable is about to be written, by a model where `codec` is given; `note` must be said beside it."""
        node.note, node.codec = note, codec
        node.begin()
        self.tell(node)
        if codec is not None:
            self._begun(node)

    def append(self, node: ValueRecord, piece: Piece, *, thinking: bool = False) -> None:
        """More of a variable has come, or of what the model thinks before it."""
        if thinking:
            node.num_thinking_tokens += piece.num_tokens
        if piece.text and thinking:
            node.think(piece.text)
        elif piece.text:
            node.pieces.append(piece.text)
        if piece.text or piece.num_tokens:
            grown = events.ThinkingAppended if thinking else events.TextAppended
            self._say(grown(now_s(), node.id, piece.text, piece.num_tokens))
        node.streamed_lead += piece.lead
        node.streamed_ids += piece.settled_ids
        self._arrivals.grown(node)

    def streamed(self, node: ValueRecord, num_tokens: int) -> asyncio.Future[None]:
        """Ends when so many tokens of a variable that is being written are certain, or it is final."""
        return self._arrivals.tokens(node, num_tokens)

    def arrival(self, node: ValueRecord) -> asyncio.Future[None]:
        """Ends when a variable is final."""
        return self._arrivals.end(node)

    def arrived(self, node: ValueRecord) -> None:
        """The end of a variable is taken up: whoever waits for it goes on."""
        self._arrivals.final(node)

    def resolve(
        self,
        node: ValueRecord,
        spans: tuple[Span, ...] | None,
        *,
        shown: str = "",
        finish: str | None = None,
        usage: Usage | None = None,
        like: int | None = None,
    ) -> None:
        """A variable has its value, which is that of the variable `like` where that is given."""
        node.resolve(spans, shown=shown, finish=finish, usage=usage)
        self._say(self._outcome(node, like=like))
        self.tell(node, like=like)
        self.final.append(node)

    def fail(self, node: ValueRecord, error: BaseException) -> None:
        """A variable will have no value; nothing happens where it was final already."""
        if node.fail(error):
            self._say(self._outcome(node, error=error))
            self.tell(node)
            self.final.append(node)

    @staticmethod
    def _outcome(node: ValueRecord, *, like: int | None = None, error: BaseException | None = None) -> Outcome:
        thought = node.thinking_pieces is not None
        return Outcome(node.id, node.spans, node.logprobs, thought, like, node.num_thinking_tokens, node.taken_back, error)

    def tell(self, node: ValueRecord, *, like: int | None = None) -> None:
        """Say what a variable is now; its value may be that of another, which came first."""
        done = node.state == "done"
        usage = node.usage
        self._say(
            events.VariableChanged(
                now_s(),
                node.id,
                node.state,
                text=None if not done else node.text if node.spans is not None else node.shown,
                finish=node.finish,
                decoded_tokens=usage.decoded_tokens - usage.thinking_tokens,
                error=None if node.error is None else message_of(node.error),
                note=node.note,
                from_memo=usage.from_memo,
                usage=None if usage is NO_USAGE else usage,
                scores=node.scores if done else None,
                like=like,
            )
        )


def take_over(node: ValueRecord, value: Given) -> None:
    """Give a record what the notebook says of its variable."""
    node.spans, node.written, node.refusal, node.shown = value.spans, value.written, value.refusal, value.shown
    node.state, node.error, node.note = value.state, value.error, value.note
