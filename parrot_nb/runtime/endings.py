"""Usage, notes and errors that a call ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parrot_nb.engine.protocol import GenerationEnd
from parrot_nb.errors import CallCancelledError, CallError, CheckError, ContextLengthError, TruncatedError, UpstreamError
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import TokenLogprob, Usage, VariableNode
from parrot_nb.language.notify import message_of


def usage_of(ends: Sequence[GenerationEnd], *, from_memo: bool, thought: GenerationEnd | None = None) -> Usage:
    """Return the usage of all attempts at an output and of the thinking before them. Prefill ends with the first token of all."""
    end = _together(ends)
    tokens = end.prefilled_tokens, end.reused_tokens, end.decoded_tokens
    if thought is None:
        spent_s = end.queued_s, end.prefill_s, end.decode_s
        return Usage(*tokens, *spent_s, from_memo, end.guessed_tokens, attempts=len(ends))
    return Usage(
        prefilled_tokens=thought.prefilled_tokens + end.prefilled_tokens,
        reused_tokens=thought.reused_tokens + end.reused_tokens,
        decoded_tokens=thought.decoded_tokens + end.decoded_tokens,
        queued_s=thought.queued_s,
        prefill_s=thought.prefill_s,
        decode_s=thought.decode_s + end.queued_s + end.prefill_s + end.decode_s,
        from_memo=from_memo,
        guessed_tokens=thought.guessed_tokens + end.guessed_tokens,
        thinking_tokens=thought.decoded_tokens,
        attempts=len(ends),
    )


def _together(ends: Sequence[GenerationEnd]) -> GenerationEnd:
    """Several generations as one: those after the first are part of its decoding."""
    first, *others = ends
    if not others:
        return first
    return replace(
        first,
        prefilled_tokens=sum(end.prefilled_tokens for end in ends),
        reused_tokens=sum(end.reused_tokens for end in ends),
        decoded_tokens=sum(end.decoded_tokens for end in ends),
        guessed_tokens=sum(end.guessed_tokens for end in ends),
        decode_s=first.decode_s + sum(end.queued_s + end.prefill_s + end.decode_s for end in others),
    )


def logprobs_of(end: GenerationEnd) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities of a generation's tokens; None where nobody asked for them."""
    if end.scores is None:
        return None
    return tuple(TokenLogprob(score.text, score.logprob, score.others) for score in end.scores)


def scores_of(end: GenerationEnd) -> tuple[tuple[str, float], ...] | None:
    """Choices of a generation with their probabilities; None where none were scored."""
    return None if end.choices is None else tuple((choice.text, choice.probability) for choice in end.choices)


def truncated(call: str, output: str, end: GenerationEnd, text: str, max_tokens: int) -> TruncatedError | None:
    """Return the error of a call whose output was cut off before its text was a value; None where it was not."""
    if end.complete is not False:
        return None
    had = f"it had {_clipped(text)!r}"
    if end.finish == "stop":
        return TruncatedError(
            f"'{output}' of '{call}' was ended by a stop string before it was a value ({had}): leave that string out."
        )
    if (end.decoded_tokens or len(end.context_ids)) < max_tokens:  # none are decoded where it is taken from the memo
        return TruncatedError(
            f"'{output}' of '{call}' was not yet a value when the context was full ({had}): shorten the prompt."
        )
    told = f"'{output}' of '{call}' was not yet a value after max_tokens={max_tokens}"
    return TruncatedError(f"{told} ({had}): raise max_tokens, or bound the type.")


def refused(call: str, output: str, attempts: Sequence[tuple[str, str]]) -> CheckError:
    """Return the error of a call whose output was refused each time that it was written; attempts are (text, reason)."""
    text, reason = attempts[-1]
    times = "" if len(attempts) == 1 else f" {len(attempts)} times, at last"
    told = f"'{output}' of '{call}' was refused{times}: {reason.rstrip('.')}; it was {_clipped(text)!r}."
    return CheckError(f"{told} Say in the prompt what is wanted, or ask for more retries.", tuple(attempts))


class RefusedIfTooLong:
    """Raises the error of `refused` where another attempt has no room in the context; that of the context where there was none."""

    __slots__ = ("_attempts", "_call", "_output")

    def __init__(self, call: str, output: str, attempts: Sequence[tuple[str, str]]) -> None:
        self._call, self._output, self._attempts = call, output, attempts

    def __enter__(self) -> None:
        """Begin what may need too much room."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise it, if the context's error has come and something was refused before."""
        if isinstance(error, ContextLengthError) and self._attempts:
            raise refused(self._call, self._output, self._attempts) from error


def _clipped(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else "…" + text[1 - limit :]


def note_of_inputs(call: CallRecord) -> str | None:
    """Return the note to be shown beside a value that is made of others, if any of them has one."""
    return next((node.note for node in call.inputs.values() if node.note is not None), None)


def upstream_error(call: CallRecord | Call, node: ValueRecord | VariableNode) -> UpstreamError:
    """Return the error of a call that reads a variable without value; its cause is the first error of the chain."""
    error = node.error
    first = error.__cause__ if isinstance(error, UpstreamError) and error.__cause__ is not None else error
    source = node.producer.name if node.producer is not None else node.name
    upstream = UpstreamError(
        f"'{call.name}' did not run: '{node.name}', which it reads from '{source}', has no value ({first if first is None else message_of(first)})."
    )
    upstream.__cause__ = first
    return upstream


def cancelled_error(call: CallRecord, why: str) -> CallCancelledError:
    """Return the error of a call that is not wanted any more."""
    return CallCancelledError(f"'{call.name}' {why}: call it again for a result.")


def missed_target(node: ValueRecord, end: GenerationEnd, first_s: float) -> str | None:
    """Return a note on a variable that did not come as fast as requested; `first_s` is when its first token came,
    on the event log's clock. Nothing is said of a reader that came when it was being written already."""
    target = node.target
    if target is None:
        return None
    told = []
    if target.ttft_s is not None and node.read_s is not None and first_s - node.read_s > target.ttft_s:
        told.append(f"first token after {first_s - node.read_s:.2g} s instead of {target.ttft_s:g} s")
    tpot_s = end.decode_s / max(1, end.decoded_tokens - 1)
    if target.tpot_s is not None and tpot_s > target.tpot_s:
        told.append(f"{tpot_s:.2g} s a token instead of {target.tpot_s:g} s")
    return f"target missed: {', '.join(told)}" if told else None


def none_acceptable(call: CallRecord) -> CallError:
    """Return the error that `P.first` fails with."""
    sources = list(call.inputs.values())
    refused = sum(node.state == "done" for node in sources)
    if not refused:
        return upstream_error(call, next(node for node in sources if node.error is not None))
    failed = len(sources) - refused
    told = f"None of the {len(sources)} values of P.first was acceptable: {refused} refused by its condition"
    return CallError(f"{told}, {failed} without value." if failed else f"{told}.")
