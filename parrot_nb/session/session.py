"""A session: the notebook's side of what runs. It tells a runtime what to do, and keeps the user's handles up to date."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from parrot_nb.engine.load_limits import LOAD_TIMEOUT_S
from parrot_nb.engine.loads import LoadInterrupted
from parrot_nb.errors import CallCancelledError, ParrotError, SessionError
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import Entered, RenderedSegment, SessionObserver
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, LatencyTarget, Perf, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.perf import objective_of
from parrot_nb.language.together import nodes_of
from parrot_nb.language.variable import SemanticVariable
from parrot_nb.record import ProgressLine
from parrot_nb.runtime import messages
from parrot_nb.runtime.analysis import stricter
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.runtime.engines import Loader
from parrot_nb.runtime.events import EventLog, SessionReset, now_s
from parrot_nb.runtime.messages import Answer, Description, Item, Question
from parrot_nb.runtime.policies import check_policy
from parrot_nb.session.budget import add_to_budgets
from parrot_nb.session.connection import Connection
from parrot_nb.session.functions import FunctionRunner
from parrot_nb.session.handles import Handles
from parrot_nb.session.links import IN_THREAD, Broken, Link, ThreadLink, warn_of_thread
from parrot_nb.session.outgoing import given
from parrot_nb.session.plans import Plan, make_plan
from parrot_nb.session.process import NoProcessError
from parrot_nb.session.sessions import opened, serve
from parrot_nb.session.spare import process_for
from parrot_nb.session.storing import SessionStore
from parrot_nb.session.unsent import Unsent
from parrot_nb.session.waiting import wait_until_final
from parrot_nb.tiny import default_model

if TYPE_CHECKING:
    from parrot_nb.engine.protocol import EngineLoad, ModelInfo


class Session(Handle):
    """Everything that belongs together while prompts run.

    Nothing starts before it is needed: the runtime, in a process of its own, at the first read or cell end, the model at the first
    semantic call that runs. Use as a context manager (`with P.Session(...) as s:`) to have calls made inside run here.

    Args:
        model: hub id ("owner/name@revision" too), local folder or `.gguf` file of a causal language model; or a transformers model that you hold, which is
            served as it is, with its `tokenizer`; the embedded default when None.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16".
        quantize: "none", or "int8" or "int4": weights as small integers, on a CPU (`load_engine`).
        kv_memory: bytes for the KV cache, as a number or like "2GB"; chosen from free memory when None.
        max_context: longest context in tokens; the model's when None.
        trust_remote_code: run Python code that comes with the model.
        revision: branch, tag or commit of `model` on the hub; its main branch when None.
        reproducible: let a text depend on its own prompt, options and seed only, not on what runs beside it (`load_engine`).
        off: optimisations to do without, to see what each is worth: "memo", "dead_work", "prefill_ahead", "streaming", and those of `load_engine`.
        engines: how many engines of each model to spread calls over, each with weights and a cache of its own; with
            `device="auto"` on a machine with several GPUs each takes the next one.
        compile: have torch.compile compile the model's layers: shorter steps, longer loading, on a CPU (`load_engine`).
        sampling: "greedy", or "model": where nobody says an option, what the model's makers recommend in its generation_config holds
            instead of the greedy defaults; `models()` has it under `recommended`, and so has `%parrot`.
        step_timeout: seconds after which an engine whose step has not ended is given up; its calls move to another, or fail.
        load_timeout: seconds that loading a model may take, without its download.
        policy: how calls are ordered and spread: "parrot", or to compare "fifo", "app-fifo", "latency-centric" or
            "throughput-centric" (`parrot_nb.runtime.policies`).
        eager: run calls that nobody has read when the cell ends (in a script: at the first read).
        isolate: run graph and engines in a process of their own, so that neither they nor what cells compute hold each other up; False
            runs them in a thread of this process, as do a model that you hold and a `loader`, and as it is where no process can be
            started, with a warning. None is as `Session.isolates` says.
        loader: makes the engine of a model id, given who wants to hear of its steps; the embedded engine's when None.
        store: file in which generations outlive the session, made if it does not exist; nothing is stored when None.
        options: session-wide defaults, such as `temperature=0.7` or `max_tokens=64`.

    Raises:
        OptionError: an unknown option or an unusable value.
        SessionError: an unusable policy, number of engines, timeout or `sampling`.
        ModelError: a model that you hold and that cannot be served.
    """

    isolates: ClassVar[bool] = True
    _noun, _home, _remedy = "A session", "its process", "make one with P.Session() where it is needed"

    def __init__(
        self,
        model: Any = None,
        *,
        tokenizer: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        quantize: str = "none",
        kv_memory: int | str | None = None,
        max_context: int | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        reproducible: bool = False,
        off: Collection[str] = (),
        engines: int = 1,
        compile: bool = False,  # noqa: A002 - as torch calls it
        step_timeout: float = 300.0,
        load_timeout: float = LOAD_TIMEOUT_S,
        sampling: str = "greedy",
        policy: str = "parrot",
        eager: bool = True,
        isolate: bool | None = None,
        loader: Loader | None = None,
        store: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.eager = eager
        self.events = EventLog(60_000)  # events: some 20 MB, of some 2,500 calls
        self.observer: SessionObserver | None = None
        self.waiter: Callable[[Session, Sequence[VariableNode], float | None], None] | None = None
        self.options = Options.checked(**options)
        self.policy = check_policy(policy)
        self.isolate = self.isolates if isolate is None else isolate
        self.loader = loader
        self._no_process: str | None = None  # why none can be started
        self.choice = ModelChoice(
            model, tokenizer, default_model,
            {
                "device": device, "dtype": dtype, "quantize": quantize, "kv_memory": kv_memory, "max_context": max_context, "engines": engines,
                "trust_remote_code": trust_remote_code, "revision": revision, "reproducible": reproducible, "off": tuple(off),
                "compile": compile, "step_timeout": step_timeout, "load_timeout": load_timeout, "sampling": sampling,
            },
        )  # fmt: skip
        self._connection = Connection(self._make_link, self.events, self._fail_open)
        self.store = SessionStore(self._connection)
        self._functions = FunctionRunner(self, self._connection.tell_if_running)
        self._handles = Handles(self.events, self._functions.results, self._functions.parsed)
        self._unsent = Unsent(self._connection, self._handles)
        self.cell: Callable[[], int | None] = lambda: None  # which cell a call belongs to that this thread makes
        self._interrupted: list[VariableNode] = []
        self._closed: str | None = None
        self._when_closed: list[Callable[[], None]] = []
        self._when_cancelled: list[weakref.WeakMethod[Callable[[frozenset[int] | None], None]]] = []
        self._entered: list[Entered] = []
        self.store.begin(store)
        opened(self)

    # What the language asks for (`parrot_nb.language.host.Host`)

    def submit(self, calls: Sequence[Call]) -> None:
        """Take new calls, in order; they are sent on at the next read or when the cell ends."""
        self._connection.describe(calls)
        with self._connection.lock:
            self._check_open()  # in here, so that nothing comes after `close`
            new = [call for call in calls if not call.submitted]
            made = {call.id for call in new}
            for node in (node for call in new for node in call.inputs.values()):
                if not (node.producer is None or node.final or node.producer.id in made or self._handles.knows(node.producer)):
                    raise SessionError(
                        f"Variable '{node.name}' belongs to another session or was reset: make the call that produces it again."
                    )
            self._handles.add(new, self.cell())
            self._unsent.add(new)
            for call in new:
                call.link()  # last: what it held until now may be lost with it
        add_to_budgets(self, new)
        if self.observer is not None:
            for call in new:
                self.observer.submitted(call)

    def read(self, nodes: Sequence[VariableNode], perf: Perf | None) -> None:
        """Send on what was submitted, and run what these variables depend on; a reader who names no objective waits,
        so it is LATENCY."""
        self._connection.check_may_wait()
        self._functions.reading(nodes)
        perf = perf or LATENCY
        with self._connection.lock:
            self._check_open()
            for node in nodes:
                if node.objective is None or objective_of(perf) is not THROUGHPUT:
                    node.objective = objective_of(perf)
                if isinstance(perf, LatencyTarget):
                    node.target = stricter(node.target, perf)
            made = tuple(node.id for node in nodes if node.producer is not None)
            self._unsent.flush(eager=self.eager, reading=messages.Reading(made, perf) if made else None)
        if self.observer is not None:
            self.observer.reading(nodes)

    def wait(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        """Block until every node is final; see `Host.wait`."""
        self._connection.check_may_wait()
        try:
            if self.waiter is not None:
                self.waiter(self, nodes, timeout_s)
            else:
                self.wait_blocking(nodes, timeout_s)
        except KeyboardInterrupt:
            self.cancel_reading(nodes)
            raise
        finally:
            self._functions.read(nodes)
            self.store.warn()

    def wait_blocking(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        """As `wait_until_final`. Raises SessionError on the thread of `async` native functions: none could go on meanwhile."""
        if self._functions.on_async_loop():
            raise SessionError("An async native function must not block in get(): await the variable instead.")
        with ProgressLine(self.events) as line:
            wait_until_final(nodes, timeout_s, line.tick)

    def interrupted(self, nodes: Sequence[VariableNode]) -> None:
        """An `await` of these nodes was cancelled; `take_interrupted` hands them to whoever knows why."""
        self._functions.read(nodes)
        self._interrupted = [node for node in (*self._interrupted, *nodes) if not node.final]

    def cancel(self, *variables: SemanticVariable | VariableNode | Sequence[VariableNode], why: str = "was cancelled") -> None:
        """Cancel the calls that produce these variables; without arguments, all calls. Returns at once; errors say `why`."""
        self.flush()
        ids = tuple(node.id for node in nodes_of(variables)) if variables else None
        self._tell_cancelled(None if ids is None else frozenset(ids))  # first: whoever waits for calls would make others
        self._connection.tell_if_running(messages.Cancelling(ids, why=why))

    def when_cancelled(self, callback: Callable[[frozenset[int] | None], None]) -> None:
        """As `Host.when_cancelled`."""
        self._when_cancelled.append(weakref.WeakMethod(callback))

    def _tell_cancelled(self, ids: frozenset[int] | None) -> None:
        self._when_cancelled = [each for each in self._when_cancelled if each() is not None]
        for each in self._when_cancelled:
            if (callback := each()) is not None:
                callback(ids)

    def render(self, function: Any, inputs: Mapping[str, VariableNode]) -> tuple[RenderedSegment, ...]:
        """A semantic function's prompt as the model would get it; see `Host.render`."""
        values = tuple((name, given(node, needs_text=True)) for name, node in inputs.items())
        options = function.settings.over(self.options)
        return self.ask(messages.Render(function.name, function.template.segments, values, options)).segments

    def plan(self, calls: Sequence[Call]) -> Plan:
        """A plan of these calls and of those that they wait for; see `Host.plan`."""
        return make_plan(self.ask, calls)

    def ask(self, question: Question) -> Answer:
        """The answer of the runtime, which is started if need be."""
        self._check_open()
        return self._connection.ask(question)

    def describe(self, call: Call) -> Description:
        """Return what was deduced of a call, as far as the runtime still knows it; see `Host.describe`."""
        if self._connection.is_current:
            return Description()
        return self._connection.ask_if_running(messages.Describe(call.id)).description or Description()

    # Cells

    def flush(self) -> None:
        """Send submitted calls on to the runtime, as at the end of a cell. Returns at once."""
        self._unsent.flush(eager=self.eager)
        self.store.warn()

    def take_interrupted(self) -> list[VariableNode]:
        """The variables whose `await` was cancelled since this was last asked."""
        taken, self._interrupted = self._interrupted, []
        return taken

    def cancel_reading(self, nodes: Sequence[VariableNode]) -> None:
        """Cancel the calls of variables whose reader gave up, and what runs for these alone. Returns at once."""
        self._connection.tell_if_running(messages.Cancelling(tuple(node.id for node in nodes), readers=True))

    # Models

    def load_model(self, model: Any, *, tokenizer: Any = None, **settings: Any) -> ModelInfo:
        """Make `model` the default, load it now and let the one before go.

        Args:
            model: hub id, local folder or `.gguf` file; or a transformers model that you hold.
            tokenizer: of a model that you hold.
            settings: those of the session from `device` to `sampling`; but for `revision`, what is not given stays as it is.

        Raises:
            SessionError: calls are running, or a setting cannot be used.
            ModelError: it cannot be loaded; the model before is the default again.
            EngineLostError: a step of the model before still runs, and keeps its memory on that device.
        """
        self._check_open(waits=True)
        name = self.choice.named(model, tokenizer, settings)
        settings = {"revision": None, **settings} | ({"off": tuple(settings["off"])} if "off" in settings else {})
        self.flush()
        link = self._connection.link
        here = isinstance(link, ThreadLink) or (link is None and not self._runs_isolated(self.choice.said))
        question = messages.LoadModel(name, settings)
        try:
            if here and not self._runs_isolated(name):
                return self._connection.ask(question).models[0]
            return self._unsent.load_afresh(question, self.choice, eager=self.eager)
        except KeyboardInterrupt:
            raise LoadInterrupted(str(name)) from None

    def models(self) -> list[ModelInfo]:
        """The models that are loaded."""
        return list(self._connection.ask_if_running(messages.Models()).models)

    def loads(self) -> dict[str, EngineLoad]:
        """Return the current load of each loaded model's engine, by model id."""
        return dict(self._connection.ask_if_running(messages.Models()).loads)

    @property
    def default_model(self) -> str:
        """The model of calls that name none."""
        return self.choice.model

    @property
    def place(self) -> str:
        """Place where graph and engines run, in words."""
        planned = "in a process of its own, not started yet" if self._runs_isolated(self.choice.said) else IN_THREAD
        place = planned if (link := self._connection.link) is None else link.place
        return place if self._no_process is None else f"{place}: no process can be started ({self._no_process})"

    @property
    def has_runtime(self) -> bool:
        """True if the session's runtime has been started."""
        return self._connection.link is not None

    def _hear(self, item: Item) -> None:
        """The runtime says something (on the thread that hears it)."""
        match item:
            case Answer():
                self._connection.answered(item)
            case messages.StoreNotice():
                self.store.hear(item)
            case messages.FunctionWanted() | messages.FunctionUnwanted() | messages.ConditionAsked() | messages.CheckAsked():
                self._functions.hear(item, self._handles.call(item.call_id))
            case _:
                self._handles.apply(item)

    # The graph

    def calls(self) -> list[Call]:
        """The calls, those not yet sent on included: all that have not ended or that somebody can still read, and of the others the
        last ones."""
        return self._handles.calls

    def variables(self) -> list[VariableNode]:
        """All variables of these calls, in order of their first appearance."""
        return self._handles.variables()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is about to."""
        return not self._unsent and self._connection.ask_if_running(messages.IsIdle()).idle

    # Its life

    def reset(self) -> None:
        """Cancel everything and forget all calls and variables; models stay loaded. All KV pages are free after."""
        self._check_open(waits=True)
        self._tell_cancelled(None)
        self.flush()
        self._interrupted.clear()
        if self._connection.ask_if_running(messages.Reset()).number == 0:  # there is no runtime to say so
            with self._connection.lock:
                self._handles.apply(SessionReset(now_s()))

    def close(self) -> None:
        """Cancel everything, close the engines (a step that runs has a few seconds to end) and end the runtime."""
        if self._closed is not None:
            return
        self._connection.check_may_wait()
        with self._connection.lock:
            self._closed = "The session is closed: make a new one with P.Session(), or reload the extension."
        for call in self._unsent.take_all():
            self._handles.fail(call, CallCancelledError(f"'{call.name}' was cancelled: its session was closed."))
        with contextlib.ExitStack() as last:  # whatever goes wrong leaves no thread behind
            while self._when_closed:
                last.callback(self._when_closed.pop())
            last.callback(self._functions.close)
            last.callback(self._fail_open, CallCancelledError("The call was cancelled: its session was closed."))
            self._connection.close()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the session has been closed, on the thread that closed it."""
        return callback() if self._closed is not None else self._when_closed.append(callback)

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._closed is None

    def abandon(self, why: str) -> None:
        """Take no calls any more, and wait for nothing: the threads that it lives by are not in this process."""
        self._closed = why
        self._connection.abandon()
        self._handles.abandon(SessionError(why))

    def __enter__(self) -> Self:
        self._check_open()
        self._entered.append(Entered(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        own = [entered for entered in self._entered if entered.thread == threading.get_ident()] or self._entered
        self._entered.remove(own[-1])
        own[-1].leave()
        if not self._entered:
            self.close()

    def __repr__(self) -> str:
        return f"<parrot_nb session, model {self.default_model}, {f'{len(self.calls())} calls' if self.is_open else 'closed'}>"

    # Its runtime

    def _runs_isolated(self, model: str | None) -> bool:
        return self.isolate and self._no_process is None and self.loader is None and not self.choice.holds(model)

    def _make_link(self, broken: Broken) -> Link:
        if self._runs_isolated(self.choice.said):
            choice = self.choice
            start = messages.Start(
                messages.VERSION, choice.said, str(default_model()), choice.settings, self.options, self.policy, self.store.place
            )
            try:
                return process_for(start, self._hear, broken)
            except NoProcessError as error:
                self._no_process = str(error)
                warn_of_thread(error)
        return ThreadLink(self._runtime_here, self._hear)

    def _runtime_here(self, say: Callable[[Item], None]) -> Any:
        from parrot_nb.runtime.runtime import Runtime

        return Runtime(self.choice, self.options, self.policy, say, self.loader, store=self.store.place)

    def _fail_open(self, error: ParrotError) -> None:
        for call in self._unsent.sent():
            self._functions.unwanted(call.id)
            self._handles.fail(call, error)

    def _check_open(self, *, waits: bool = False) -> None:
        if self._closed is not None:
            raise SessionError(self._closed)
        if waits:
            self._connection.check_may_wait()


serve(Session)
