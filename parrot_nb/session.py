"""A session: one graph, one executor, its engines and one event log, and the hand-over between threads."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from parrot_nb.errors import CallCancelledError, SessionError
from parrot_nb.graph import Graph
from parrot_nb.language.host import Host, RenderedSegment, SessionObserver, entered_host, provide_default_host
from parrot_nb.language.nodes import LATENCY, Call, Perf, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.variable import SemanticVariable, nodes_of
from parrot_nb.record import ProgressLine
from parrot_nb.runtime import EnginePool, EventLog, Executor, RuntimeLoop, rendering
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.runtime.engines import Loader
from parrot_nb.runtime.native import NativeRunner
from parrot_nb.runtime.waiting import wait_for, wait_until_final
from parrot_nb.tiny import default_model

if TYPE_CHECKING:
    from parrot_nb.engine.protocol import EngineLoad, ModelInfo

T = TypeVar("T")

INTERRUPTED_S = 5.0  # for engines to close where whoever waits for that is interrupted


class Session:
    """Everything that belongs together while prompts run.

    Nothing starts before it is needed: the runtime thread at the first read or cell end, the model at the first
    semantic call that runs. Use as a context manager (`with P.Session(...) as s:`) to have calls made inside run here.

    Args:
        model: hub id ("owner/name@revision" too), local folder or `.gguf` file of a causal language model; or a transformers model that you hold, which is
            served as it is, with its `tokenizer`; the embedded default when None.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "float32", "bfloat16" or "float16".
        kv_memory: bytes for the KV cache, as a number or like "2GB"; chosen from free memory when None.
        max_context: longest context in tokens; the model's when None.
        trust_remote_code: run Python code that comes with the model.
        revision: branch, tag or commit of `model` on the hub; its main branch when None.
        reproducible: let a text depend on its own prompt, options and seed only, in bfloat16 and float16 too, not on what runs
            beside it; slower. On a CPU, for decoders of the Llama shape.
        off: optimisations to do without, to see what each is worth: "memo", "dead_work", "prefill_ahead", "streaming", and those of `load_engine`.
        engines: how many engines of each model to spread calls over, each with weights and a cache of its own; with
            `device="auto"` on a machine with several GPUs each takes the next one.
        compile: have torch.compile compile the model's layers: shorter steps, longer loading. On a CPU, for models of the Llama
            shape with up to 1 GB of weights in their layers; others run as without it, with a warning.
        sampling: "greedy", or "model": where nobody says an option, what the model's makers recommend in its generation_config holds
            instead of the greedy defaults; `models()` has it under `recommended`, and so has `%parrot`.
        step_timeout: seconds after which an engine whose step has not ended is given up; its calls move to another, or fail.
        policy: how calls are ordered and spread: "parrot", or to compare "fifo", "app-fifo", "latency-centric" or
            "throughput-centric" (`parrot_nb.runtime.policies`).
        eager: run calls that nobody has read when the cell ends (in a script: at the first read).
        loader: makes the engine of a model id, given who wants to hear of its steps; the embedded engine's when None.
        options: session-wide defaults, such as `temperature=0.7` or `max_tokens=64`.

    Raises:
        OptionError: an unknown option or an unusable value.
        SessionError: an unusable policy, number of engines, `step_timeout` or `sampling`.
        ModelError: a model that you hold and that cannot be served.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        tokenizer: Any = None,
        device: str = "auto",
        dtype: str = "auto",
        kv_memory: int | str | None = None,
        max_context: int | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        reproducible: bool = False,
        off: Collection[str] = (),
        engines: int = 1,
        compile: bool = False,  # noqa: A002 - as torch calls it
        step_timeout: float = 300.0,
        sampling: str = "greedy",
        policy: str = "parrot",
        eager: bool = True,
        loader: Loader | None = None,
        **options: Any,
    ) -> None:
        self.eager = eager
        self.events = EventLog()
        self.observer: SessionObserver | None = None
        self.waiter: Callable[[Session, Sequence[VariableNode], float | None], None] | None = None
        self.options = Options.checked(**options)
        self._choice = ModelChoice(
            model,
            tokenizer,
            default_model,
            {
                "device": device,
                "dtype": dtype,
                "kv_memory": kv_memory,
                "max_context": max_context,
                "trust_remote_code": trust_remote_code,
                "revision": revision,
                "reproducible": reproducible,
                "off": off,
                "engines": engines,
                "compile": compile,
                "step_timeout": step_timeout,
                "sampling": sampling,
            },
        )
        self._graph = Graph()
        self._buffer: deque[tuple[Call, int | None]] = deque()
        self._call_ids: set[int] = set()
        self._cell: int | None = None
        self._interrupted: list[VariableNode] = []
        self._lost: deque[VariableNode] = deque()
        self._closed = False
        self._when_closed: list[Callable[[], None]] = []
        self._entered: list[Token[Host | None]] = []
        self._starting = threading.Lock()  # guards the hand-over point below: several threads may need it first
        self._runtime: RuntimeLoop | None = None
        self._native = NativeRunner(self)
        settings = (lambda: int(self._choice.settings["engines"])), (lambda: str(self._choice.settings["sampling"]))
        self._engines = EnginePool(loader or self._choice.load, self.events, *settings)
        self._executor = Executor(
            graph=self._graph,
            log=self.events,
            engines=self._engines,
            native=self._native,
            policy=policy,
            off=lambda: self._choice.settings["off"],
            default_model=lambda: self.default_model,
            options=self.options,
        )
        _sessions.add(self)

    # What the language asks for (`parrot_nb.language.host.Host`)

    def submit(self, call: Call) -> None:
        """Take a new call; it is sent on at the next read or when the cell ends."""
        self._check_open()
        for node in call.inputs.values():
            if node.producer is not None and not node.final and node.producer.id not in self._call_ids:
                raise SessionError(
                    f"Variable '{node.name}' belongs to another session or was reset: make the call that produces it again."
                )
        call.link()
        self._call_ids.add(call.id)
        if "dead_work" not in self._choice.settings["off"]:
            for node in call.outputs:
                node.when_lost = self._lost.append
        self._buffer.append((call, self._cell))
        if self.observer is not None:
            self.observer.submitted(call)

    def read(self, nodes: Sequence[VariableNode], perf: Perf | None) -> None:
        """Send on what was submitted, and run what these variables depend on; a reader who names no objective waits,
        so it is LATENCY."""
        self._check_open()
        self._check_may_wait()
        self.flush()
        self._start().post(self._executor.request, list(nodes), perf or LATENCY)
        if self.observer is not None:
            self.observer.reading(nodes)

    def wait(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        """Block until every node is final; see `Host.wait`."""
        self._check_may_wait()
        try:
            (self.waiter or wait_blocking)(self, nodes, timeout_s)
        except KeyboardInterrupt:
            self.cancel_reading(nodes)
            raise

    def interrupted(self, nodes: Sequence[VariableNode]) -> None:
        """An `await` of these nodes was cancelled; `take_interrupted` hands them to whoever knows why."""
        self._interrupted.extend(nodes)

    def cancel(self, *variables: SemanticVariable | VariableNode | Sequence[VariableNode]) -> None:
        """Cancel the calls that produce these variables; without arguments, all calls. Returns at once."""
        if self._runtime is None and not self._buffer:
            return
        self.flush()
        if variables:
            self._start().post(self._executor.cancel, nodes_of(variables))
        else:
            self._start().post(self._executor.cancel)

    def render(self, function: Any, inputs: Mapping[str, VariableNode]) -> tuple[RenderedSegment, ...]:
        """A semantic function's prompt as the model would get it; see `Host.render`."""
        self._check_open()
        self._check_may_wait()
        options = function.settings.over(self.options)
        engine = self._result(self._start().run(self._engines.get(options.model or self.default_model)))
        options = options.over(Options(heal=engine.model.heals))
        return rendering.render(function.template.segments, inputs, engine.codec, options)

    # Cells

    def begin_cell(self, number: int) -> None:
        """Calls made from now on belong to this cell."""
        self._cell = number

    def end_cell(self) -> None:
        """The cell is over: send on the calls that nobody has read."""
        self.flush()
        self._cell = None

    def flush(self) -> None:
        """Send submitted calls on to the graph. Returns at once."""
        batch = []
        while self._buffer:
            with contextlib.suppress(IndexError):  # another thread was faster
                batch.append(self._buffer.popleft())
        if batch:
            self._start().post(lambda: self._executor.submit(batch, eager=self.eager))
        lost = [self._lost.popleft() for _ in range(len(self._lost))]
        if lost and self._runtime is not None:
            self._runtime.post(self._executor.lost, lost)

    def take_interrupted(self) -> list[VariableNode]:
        """The variables whose `await` was cancelled since this was last asked."""
        taken, self._interrupted = self._interrupted, []
        return taken

    def cancel_reading(self, nodes: Sequence[VariableNode]) -> None:
        """Their reader gave up: cancel their calls and what runs for these alone. Returns at once."""
        if self._runtime is not None:
            self._runtime.post(self._executor.cancel_readers_of, list(nodes))

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
        self._check_open()
        self._check_may_wait()
        name = self._choice.named(model, tokenizer, settings)
        self.flush()
        loading = self._start().run(self._replace_model(name, {"revision": None, **settings}))
        try:
            return self._result(loading)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: '{name}' was not loaded; what was downloaded is kept") from None

    async def _replace_model(self, model: str, settings: dict[str, Any]) -> ModelInfo:
        if self._executor.num_open:
            raise SessionError(
                "Calls are running on the model: wait for them, or cancel them with %parrot cancel, then load another."
            )
        await self._engines.close(self.default_model)  # first, so that both need not fit into memory at once
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

    def models(self) -> list[ModelInfo]:
        """The models that are loaded."""
        return self._ask(lambda: [engine.model for engine in self._engines.ready.values()], [])

    def loads(self) -> dict[str, EngineLoad]:
        """What each loaded model's engine is doing now, by model id."""
        return self._ask(lambda: {model: engine.load() for model, engine in self._engines.ready.items()}, {})

    def _ask(self, question: Callable[[], T], otherwise: T) -> T:
        """What the runtime thread answers; `otherwise` where none runs."""
        if self._runtime is None or not self._runtime.alive:
            return otherwise

        async def ask() -> T:
            return question()

        return self._result(self._runtime.run(ask()))

    @property
    def default_model(self) -> str:
        """The model of calls that name none."""
        return self._choice.model

    # The graph

    @property
    def graph(self) -> Graph:
        """The calls and variables that were sent on. The runtime thread changes it; read it, and do not keep it."""
        return self._graph

    def calls(self) -> list[Call]:
        """All calls, those not yet sent on included."""
        return [*self._graph.calls, *(call for call, _ in tuple(self._buffer))]

    def variables(self) -> list[VariableNode]:
        """All variables of these calls, in order of their first appearance."""
        nodes = {node.id: node for node in self._graph.variables}
        for call, _ in tuple(self._buffer):
            nodes.update({node.id: node for node in (*call.inputs.values(), *call.outputs)})
        return list(nodes.values())

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is about to."""
        return not self._buffer and self._ask(lambda: self._executor.idle, otherwise=True)

    # Its life

    def reset(self) -> None:
        """Cancel everything and forget all calls and variables; models stay loaded. All KV pages are free after."""
        self._check_open()
        self._check_may_wait()
        self.flush()
        self._interrupted.clear()
        if self._runtime is not None:
            self._result(self._runtime.run(self._executor.reset()))
        self._call_ids.clear()

    def close(self) -> None:
        """Cancel everything, close the engines (a step that runs has a few seconds to end) and stop the runtime thread."""
        if self._closed:
            return
        self._check_may_wait()
        self._closed = True
        unsent = list(self._buffer)
        self._buffer.clear()
        for call, _ in unsent:
            for node in call.outputs:
                node.fail(CallCancelledError(f"'{call.name}' was cancelled: its session was closed."))
        with contextlib.ExitStack() as last:  # whatever goes wrong leaves no thread behind
            while self._when_closed:
                last.callback(self._when_closed.pop())
            last.callback(self._native.close)
            if self._runtime is not None:
                last.callback(self._runtime.stop)
                closing = self._runtime.run(self._close_engines())
                last.callback(futures.wait, [closing], INTERRUPTED_S)
                self._result(closing, cancels=False)

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the session has been closed, on the thread that closed it."""
        if self._closed:
            return callback()
        return self._when_closed.append(callback)

    async def _close_engines(self) -> None:
        try:
            await self._executor.reset()
        finally:
            await self._engines.close()

    def __enter__(self) -> Self:
        self._check_open()
        self._entered.append(entered_host.set(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        entered_host.reset(self._entered.pop())
        if not self._entered:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.calls())} calls"
        return f"<parrot_nb session, model {self.default_model}, {state}>"

    def _start(self) -> RuntimeLoop:
        with self._starting:
            if self._runtime is None:
                self._runtime = RuntimeLoop("parrot-runtime", on_crash=self._executor.fail_all)
            return self._runtime

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("The session is closed: make a new one with P.Session(), or reload the extension.")

    def _check_may_wait(self) -> None:
        if self._runtime is not None and self._runtime.is_current:
            raise SessionError("A callback of the runtime must not wait for it: use another thread.")

    def _result(self, future: futures.Future[T], *, cancels: bool = True) -> T:
        """Wait for the runtime in short steps, so that an interrupt gets through, which `cancels` what is waited for."""
        with ProgressLine(self.events) as line:
            return wait_for(future, line.tick, cancels=cancels)


def wait_blocking(session: Session, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
    """As `wait_until_final`. Raises SessionError on the thread of the `async` native functions: none could go on meanwhile."""
    if session._native.on_async_loop():
        raise SessionError("An async native function must not block in get(): await the variable instead.")
    with ProgressLine(session.events) as line:
        wait_until_final(nodes, timeout_s, line.tick)


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_default_session: Session | None = None
_making_default = threading.Lock()
on_default_session: Callable[[Session], None] | None = None  # a face wants to know its session before the first call


def current_session() -> Session:
    """The session entered with `with`, else the default one, made on first need."""
    entered = entered_host.get()
    if isinstance(entered, Session):
        return entered
    global _default_session
    with _making_default:
        if _default_session is None or _default_session._closed:
            _default_session = Session()
            if on_default_session is not None:
                on_default_session(_default_session)
        return _default_session


def default_session_or_none() -> Session | None:
    """The default session, if one was made and is open."""
    return None if _default_session is None or _default_session._closed else _default_session


@atexit.register
def _close_all() -> None:
    for session in list(_sessions):
        with contextlib.suppress(Exception):  # the process ends; there is nobody left to tell
            session.close()


provide_default_host(current_session)
