"""The runtime's side of a session: takes messages, has them done, and says what happens. It knows no user object.

Lives on one asyncio loop, in a process of its own or in a thread of the notebook's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parrot_nb.errors import CallCancelledError, ParrotError, SessionError
from parrot_nb.graph import Graph
from parrot_nb.graph.records import NO_PROMPT, CallRecord, Prompt, ValueRecord
from parrot_nb.language.notify import message_of
from parrot_nb.language.options import Options
from parrot_nb.language.template import Segment
from parrot_nb.runtime import messages, rendering
from parrot_nb.runtime.books import take_over
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.runtime.engines import EnginePool, Loader
from parrot_nb.runtime.executor import Executor
from parrot_nb.runtime.fitting import most_context_tokens, pieces
from parrot_nb.runtime.messages import Answer, Description, Given, Made, Message, Question
from parrot_nb.runtime.recent import Recent
from parrot_nb.runtime.store import Store
from parrot_nb.runtime.wire import Say

MAX_PROMPTS = 1_000  # templates with options that are known again when they come again


class Runtime:
    """See the module.

    Args:
        choice: which model is run, and how it is loaded.
        options: the session's defaults.
        policy: name of the scheduling policy.
        say: tells the notebook; called on the loop.
        loader: makes the engine of a model, where it is not `choice` that does.
        store: path of the file in which generations outlive the session; None for none.

    Raises:
        SessionError: there is no such policy.
    """

    def __init__(
        self,
        choice: ModelChoice,
        options: Options,
        policy: str,
        say: Say,
        loader: Loader | None = None,
        *,
        store: str | None = None,
    ) -> None:
        self._choice = choice
        self._options = options
        self._say = say
        self._graph = Graph()
        self._prompts: Recent[tuple[tuple[Segment, ...], Options], Prompt] = Recent(MAX_PROMPTS)
        self._answering: dict[int, asyncio.Task[None]] = {}
        settings: tuple[Callable[[], int], Callable[[], str]] = (
            lambda: int(choice.settings["engines"]),
            lambda: str(choice.settings["sampling"]),
        )
        self._engines = EnginePool(loader or choice.load, say, *settings)
        self._executor = Executor(
            graph=self._graph,
            say=say,
            engines=self._engines,
            policy=policy,
            off=lambda: choice.settings["off"],
            default_model=lambda: choice.model,
            options=options,
        )
        self._changing_store = asyncio.Lock()
        self._store_path = store  # until the first message: the loop may not run yet

    def handle(self, message: Message) -> None:
        """Do what the notebook says (on the loop)."""
        if self._store_path is not None:
            path, self._store_path = self._store_path, None
            self._executor.memo.store = self._opened(path)
        match message:
            case messages.Submission():
                self._submit(message)
            case messages.Reading(ids, perf):
                self._executor.request(self._known(ids), perf)
            case messages.Cancelling(None):
                self._executor.cancel()
            case messages.Cancelling(ids, readers=True) if ids is not None:
                self._executor.cancel_readers_of(self._known(ids))
            case messages.Cancelling(ids, why=why) if ids is not None:
                self._executor.cancel(self._known(ids), why)
            case messages.Lost(ids):
                self._executor.lost(self._known(ids))
            case messages.ValueSet(value):
                self._executor.value_set(value)
            case messages.FunctionEnded():
                self._executor.functions.ended(message)
            case messages.Judged():
                self._executor.functions.judged(message)
            case messages.Query(number, question):
                self._answering[number] = asyncio.get_running_loop().create_task(self._answer(number, question))
            case messages.Abandoned(number):
                if (task := self._answering.get(number)) is not None:
                    task.cancel()
            case _:
                raise SessionError(f"A message that has no place here: {type(message).__name__}.")

    def crashed(self, error: BaseException) -> None:
        """Our own bug: let no reader wait for ever."""
        self._executor.fail_all(error)

    # Submissions

    def _submit(self, submission: messages.Submission) -> None:
        prompts: dict[tuple[int | None, int], Prompt] = {}
        values = {value.id: value for value in submission.values}
        made: dict[int, ValueRecord] = {}
        calls = []
        for entry in submission.calls:
            if self._graph.call(entry.id) is None:  # an interrupted notebook may say a thing twice
                inputs = {name: self._input(name, i, values, made) for name, i in entry.inputs}
                key = entry.prompt, entry.options
                if (prompt := prompts.get(key)) is None:
                    prompt = prompts[key] = self._prompt(submission, *key)
                call = _record(entry, inputs, submission.options[entry.options], prompt)
                made.update({node.id: node for node in call.outputs})
                calls.append((call, entry.cell))
        self._executor.submit(calls, eager=submission.eager)
        if (reading := submission.reading) is not None:
            self._executor.request(self._known(reading.variable_ids), reading.perf)

    def _input(self, name: str, variable_id: int, values: Mapping[int, Given], made: dict[int, ValueRecord]) -> ValueRecord:
        """The variable that a call reads: one that is here, one of this submission, or one that is given."""
        node = made.get(variable_id) or self._graph.variable(variable_id)
        given = values.get(variable_id)
        if node is None and given is not None:
            node = made[variable_id] = record_of(given)
        elif node is None:
            node = made[variable_id] = ValueRecord(variable_id, name, reachable=False)
            node.fail(CallCancelledError(f"'{name}' was left off, since nobody could read it any more: make its call again."))
        elif given is not None:
            node.reachable = node.reachable or given.held  # a user had let go of it, and has it again
            if node.spans is None and node.final:
                node.written, node.refusal = given.written, given.refusal  # asked for now
        return node

    def _prompt(self, submission: messages.Submission, prompt: int | None, options: int) -> Prompt:
        """One object for all calls whose templates and options are equal."""
        if prompt is None:
            return NO_PROMPT
        key = submission.prompts[prompt], submission.options[options]
        return self._prompts.get(key) or self._prompts.keep(key, Prompt(key[0]))

    def _known(self, variable_ids: tuple[int, ...]) -> list[ValueRecord]:
        return [node for i in variable_ids if (node := self._graph.variable(i)) is not None]

    # Questions

    async def _answer(self, number: int, question: Question) -> None:
        try:
            answer = await self._answer_to(number, question)
        except ParrotError as error:
            answer = Answer(number, error=error)
        except BaseException as error:  # a library's panic is no Exception
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                return  # whoever asked does so no more
            failure = SessionError(f"The runtime could not answer, {type(error).__name__}: {message_of(error)}.")
            failure.__cause__ = error
            answer = Answer(number, error=failure)
        finally:
            del self._answering[number]
        self._say(answer)

    async def _answer_to(self, number: int, question: Question) -> Answer:
        match question:
            case messages.IsIdle():
                return Answer(number, idle=self._executor.idle)
            case messages.Models():
                return self._models(number)
            case messages.Describe(call_id):
                call = self._graph.call(call_id)
                description = None if call is None else Description(call.path, call.placed, call.target)
                return Answer(number, description=description)
            case messages.Render():
                return Answer(number, segments=await self._render(question))
            case messages.LoadModel(model, settings):
                return Answer(number, models=(await self._load_model(model, dict(settings)),))
            case messages.Reset():
                await self._executor.reset()
            case messages.Split(text, tokens, overlap, model):
                codec = (await self._engines.get(model or self._choice.model)).codec
                return Answer(number, texts=tuple(await asyncio.to_thread(pieces, text, tokens, overlap, codec)))
            case messages.PlanCalls(submission):
                return Answer(number, plan=await self._executor.plan(_records(submission)))
            case messages.UseStore(path):
                await self._use_store(path)
            case messages.SyncStore():
                if (store := self._executor.memo.store) is not None:
                    await store.sync()
            case messages.Close():
                await self.close()
        return Answer(number)

    def _models(self, number: int) -> Answer:
        ready = self._engines.ready
        loads = {model: engine.load() for model, engine in ready.items()}
        return Answer(number, models=tuple(engine.model for engine in ready.values()), loads=loads)

    async def _render(self, question: messages.Render) -> Any:
        options = question.options.over(self._options)
        engine = await self._engines.get(options.model or self._choice.model)
        options = options.over(Options(heal=engine.model.heals))
        values = {name: record_of(given) for name, given in question.values}
        return rendering.render(question.name, question.segments, values, engine.codec, options, most_context_tokens(engine))

    async def _load_model(self, model: str, settings: dict[str, Any]) -> Any:
        if self._executor.num_open:
            raise SessionError(
                "Calls are running on the model: wait for them, or cancel them with %parrot cancel, then load another."
            )
        await self._engines.close(self._choice.model)  # first, so that both need not fit into memory at once
        self._engines.forget_failures()
        self._executor.forget_engines()
        self._engines.make_way(str(settings.get("device", self._choice.settings["device"])))
        with self._choice.changed(model, settings):
            try:
                return (await self._engines.get(model)).model
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._engines.discard(model)
                raise

    async def close(self) -> None:
        """Cancel everything, close the engines and the store."""
        try:
            await self._executor.reset()
        finally:
            try:
                await self._engines.close()
            finally:
                await self._use_store(None)

    def finish_store(self, patience_s: float) -> None:
        """Write what the store has not written yet: the process is about to end. Any thread."""
        if (store := self._executor.memo.store) is not None:
            store.finish(patience_s)

    async def _use_store(self, path: str | None) -> None:
        memo = self._executor.memo
        async with self._changing_store:
            before, memo.store = memo.store, None
            if before is not None:
                await before.close()
            memo.store = None if path is None else self._opened(path)

    def _opened(self, path: str) -> Store:
        return Store(Path(path), lambda notice: self._say(messages.StoreNotice(notice)))


def record_of(value: Given) -> ValueRecord:
    """The record of a variable that comes from outside."""
    node = ValueRecord(value.id, value.name, reachable=value.held)
    take_over(node, value)
    return node


def _records(submission: messages.Submission) -> list[CallRecord]:
    """Records of calls that enter no graph: what nothing tells the value of has none yet."""
    values = {value.id: record_of(value) for value in submission.values}
    prompts: dict[tuple[int | None, int], Prompt] = {(None, i): NO_PROMPT for i in range(len(submission.options))}
    calls = []
    for entry in submission.calls:
        key = entry.prompt, entry.options
        if entry.prompt is not None and key not in prompts:
            prompts[key] = Prompt(submission.prompts[entry.prompt])
        inputs = {name: values.get(i) or values.setdefault(i, ValueRecord(i, name)) for name, i in entry.inputs}
        call = _record(entry, inputs, submission.options[entry.options], prompts[key])
        values.update({node.id: node for node in call.outputs})
        calls.append(call)
    return calls


def _record(made: Made, inputs: Mapping[str, ValueRecord], options: Options, prompt: Prompt) -> CallRecord:
    call = CallRecord(
        made.id,
        made.name,
        made.kind,
        inputs,
        tuple(name for _, name, _ in made.outputs),
        options,
        prompt=prompt,
        parts=made.parts,
        has_condition=made.has_condition,
        checked=made.checked,
    )
    call.outputs = tuple(ValueRecord(i, name, call, reachable=held) for i, name, held in made.outputs)
    call.link()
    return call
