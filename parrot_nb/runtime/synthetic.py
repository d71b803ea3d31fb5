"""Applications made up of sizes alone, in the shapes of the paper's evaluation, for `parrot_nb.runtime.simulate`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from parrot_nb.graph.records import ValueRecord, new_call
from parrot_nb.language.nodes import LATENCY, Perf
from parrot_nb.language.options import Options
from parrot_nb.runtime.simulate import Application, Job

_unique = itertools.count(1)


def job(function: str, prompt: Sequence[tuple[str | None, int]], output_tokens: int, reads: Sequence[ValueRecord] = ()) -> Job:
    """A call with a prompt of pieces.

    Args:
        function: its name.
        prompt: for each piece what it is, and its tokens; equal pieces at the beginning of prompts can be shared, and None is
            equal to nothing else.
        output_tokens: that it writes.
        reads: the variables that it needs.
    """
    inputs = {f"x{i}": node for i, node in enumerate(reads)}
    call = new_call(function, "semantic", inputs, (f"{function}_out",), Options())
    call.link()
    prefixes, digest, total = [], "", 0
    for piece, tokens in prompt:
        digest = f"{digest}/{piece if piece is not None else next(_unique)}"
        total += tokens
        prefixes.append((digest, total))
    return Job(call, tuple(prefixes), output_tokens)


def chain(
    steps: int = 10, *, chunk_tokens: int = 1024, output_tokens: int = 50, at_s: float = 0.0, perf: Perf = LATENCY
) -> Application:
    """A long document summarised chunk by chunk, each with the summary so far."""
    jobs: list[Job] = []
    for _ in range(steps):
        before = [jobs[-1].call.outputs[0]] if jobs else []
        prompt = [("refine", 40), (None, output_tokens * len(before) + chunk_tokens)]
        jobs.append(job("refine", prompt, output_tokens, before))
    return Application("chain", tuple(jobs), jobs[-1].call.outputs, perf, at_s)


def map_reduce(
    parts: int = 20, *, chunk_tokens: int = 1024, output_tokens: int = 50, at_s: float = 0.0, perf: Perf = LATENCY
) -> Application:
    """Chunks of a long document summarised side by side, and the summaries combined."""
    maps = [job("summarize", [("summarize", 40), (None, chunk_tokens)], output_tokens) for _ in range(parts)]
    summaries = [m.call.outputs[0] for m in maps]
    reduce = job("combine", [("combine", 40), (None, parts * output_tokens)], output_tokens, summaries)
    return Application("map_reduce", (*maps, reduce), reduce.call.outputs, perf, at_s)


def chat(*, prompt_tokens: int = 500, output_tokens: int = 100, at_s: float = 0.0, perf: Perf = LATENCY) -> Application:
    """One turn of a conversation."""
    turn = job("chat", [("chat", 50), (None, prompt_tokens)], output_tokens)
    return Application("chat", (turn,), turn.call.outputs, perf, at_s)


def chats(count: int, every_s: float, *, seed: int = 0, start_s: float = 0.0, perf: Perf = LATENCY) -> list[Application]:
    """Turns of many conversations that come at random times (a Poisson process), with lengths as people's vary."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    found, at_s = [], start_s
    for _ in range(count):
        at_s += chance.expovariate(1 / every_s)
        sizes = {"prompt_tokens": chance.randint(50, 1000), "output_tokens": chance.randint(50, 250)}
        found.append(chat(at_s=at_s, perf=perf, **sizes))
    return found


def multi_agent(
    files: int = 8, *, rounds: int = 3, task_tokens: int = 400, code_tokens: int = 150, review_tokens: int = 60, at_s: float = 0.0
) -> Application:
    """MetaGPT's way of writing a program: an architect, a coder for each file, then rounds in which every file is reviewed and
    revised with all the others in view (paper, section 8.4)."""
    design = job("architect", [("project", task_tokens)], 200)
    jobs = [design]
    shared = ("project", task_tokens), ("design", 200)
    app = next(_unique)

    def stage(name: str, base: Sequence[tuple[str | None, int]], tokens: int, reads: Sequence[ValueRecord]) -> list[ValueRecord]:
        made = [job(name, [*base, (None, 20)], tokens, reads) for _ in range(files)]
        jobs.extend(made)
        return [m.call.outputs[0] for m in made]

    codes = stage("code", shared, code_tokens, design.call.outputs)
    for i_round in range(rounds):
        listing = *shared, (f"app{app} files{i_round}", files * code_tokens)
        comments = stage("review", listing, review_tokens, codes)
        talk = *listing, (f"app{app} comments{i_round}", files * review_tokens)
        codes = stage("revise", talk, code_tokens, [*codes, *comments])
    return Application("multi_agent", tuple(jobs), tuple(codes), at_s=at_s)


GPTS = ((7437, 7, 704), (1116, 8, 89), (1694, 4, 631), (2031, 4, 416))  # the paper's: prompt, query and output tokens


def gpts(count: int, every_s: float, *, seed: int = 0) -> list[Application]:
    """Requests to four applications, each with a long prompt of its own that all its users share (paper, section 8.3)."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    found, at_s = [], 0.0
    for _ in range(count):
        at_s += chance.expovariate(1 / every_s)
        which = chance.randrange(len(GPTS))
        prompt, query, output = GPTS[which]
        request = job(f"gpt{which}", [(f"gpt{which}", prompt), (None, query)], output)
        found.append(Application("gpts", (request,), request.call.outputs, at_s=at_s))
    return found
