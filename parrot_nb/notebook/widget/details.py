"""All that the side panel says of one call. Read from the call itself, on any thread: a call changes in ways that leave
every state of it readable (`parrot_nb.language.nodes`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from parrot_nb.errors import ParrotError
from parrot_nb.graph import explain, prefix_hashes
from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.template import Constant
from parrot_nb.language.text import to_text
from parrot_nb.language.variable import SemanticVariable
from parrot_nb.notebook import errors
from parrot_nb.notebook.bars import label, likeliest, percent
from parrot_nb.notebook.state import CallView
from parrot_nb.notebook.values import thought

MAX_CHARS = 40_000  # of one text: more is neither read nor laid out in time
WAITING = ("waiting", "queued")


def details(call: Call, calls: Iterable[Call], view: CallView | None, now_s: float, host: Host | None = None) -> dict[str, Any]:
    """Return the contents of the panel for `call`.

    Args:
        call: which.
        calls: all of the session, among which some may begin with the same prompt.
        view: the call as the event log has it.
        now_s: the log's clock.
        host: the session, which knows why the call runs as it does.
    """
    shared, others = shared_segments(call, calls) if call.kind == "semantic" else (0, 0)
    return {
        "id": call.id,
        "prompt": prompt_segments(call, shared) if call.kind == "semantic" else [],
        "sharers": others,
        "inputs": [_input(name, node) for name, node in call.inputs.items()],
        "outputs": [_output(node) for node in call.outputs],
        "why": explain(SemanticVariable.of(call.outputs[0], host)).splitlines()[1:],
        "tokens": _tokens(call),
        "seconds": seconds(view, now_s),
        "engine": call.engine,
        "error": errors.rendered(call.error) if call.error is not None else [],
    }


def shared_segments(call: Call, calls: Iterable[Call]) -> tuple[int, int]:
    """Return how many segments at the beginning of a call's prompt are another call's too, and how many others share them."""
    own = prefix_hashes(call)
    longest, others = 0, 0
    for other in calls:
        if other is call or other.kind != "semantic":
            continue
        theirs = prefix_hashes(other)
        common = next((i for i, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), min(len(own), len(theirs)))
        if common > longest:
            longest, others = common, 0
        others += common == longest > 0
    return longest, others


def seconds(view: CallView | None, now_s: float) -> list[tuple[str, float]]:
    """The time spent in each phase, in order of first appearance; that of the phase it is in runs until now."""
    spent: defaultdict[str, float] = defaultdict(float)
    phases = view.phases if view is not None else ()
    ends = [*(begun_s for _, begun_s in phases[1:]), now_s]
    for (phase, begun_s), end_s in zip(phases, ends, strict=False):  # no phase yet: nothing has happened to it
        if phase != "ended":
            spent["queued" if phase in WAITING else phase] += end_s - begun_s
    return [(phase, round(time_s, 3)) for phase, time_s in spent.items()]


def prompt_segments(call: Call, shared: int) -> list[dict[str, Any]]:
    """Return the segments of a call's prompt with the texts of its variables; the first `shared` of them are another call's too."""
    outputs = dict(zip(call.output_names, call.outputs, strict=True))
    segments = []
    for i, segment in enumerate(call.segments):
        if isinstance(segment, Constant):
            shown = {"kind": "constant", "text": segment.text}
        elif segment.name in outputs:
            node = outputs[segment.name]
            shown = {"kind": "output", "name": segment.name, "taken_back": node.taken_back, **_shown(node)}
        else:
            shown = {"kind": "input", "name": segment.name, **_shown(call.inputs[segment.name])}
        segments.append({**shown, "shared": i < shared})
    return segments


def _input(name: str, node: VariableNode) -> dict[str, Any]:
    producer = None if node.producer is None else node.producer.name
    return {"parameter": name, "name": node.name, "producer": producer, **_shown(node)}


def _output(node: VariableNode) -> dict[str, Any]:
    thinking = node.thinking
    folded = (
        None
        if thinking is None
        else {"text": thinking[:MAX_CHARS], "cut": max(0, len(thinking) - MAX_CHARS), "said": thought(node)}
    )
    scores = [(label(text), percent(share), share) for text, share in likeliest(node.scores or ())]
    return {"name": node.name, "finish": node.finish, "note": node.note, "thinking": folded, "scores": scores, **_shown(node)}


def _shown(node: VariableNode) -> dict[str, Any]:
    text = _text(node)
    return {"state": node.state, "text": text[:MAX_CHARS], "cut": max(0, len(text) - MAX_CHARS)}


def _text(node: VariableNode) -> str:
    if node.spans is not None or node.state != "done":
        return node.text
    try:
        return to_text(node.value, f"variable '{node.name}'")
    except ParrotError:  # a Python object that no prompt could read
        return safe_repr(node.value)


def safe_repr(value: Any) -> str:
    """Return an object's repr; its type where the repr raises."""
    try:
        return repr(value)
    except Exception as error:  # user code: it must not end the thread that sends
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def _tokens(call: Call) -> dict[str, Any]:
    usages = [node.usage for node in call.outputs]
    kinds = ("prefilled", "reused", "decoded", "guessed")
    counted: dict[str, Any] = {kind: sum(getattr(usage, f"{kind}_tokens") for usage in usages) for kind in kinds}
    return {**counted, "memo": any(usage.from_memo for usage in usages)}
