"""`%%semantic` defines functions; `%parrot` shows and steers the session."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from parrot_nb.errors import TemplateError
from parrot_nb.language import MAGIC_OPTIONS, SemanticFunction, SemanticVariable, Template, parse_line
from parrot_nb.notebook.accounts import accounts_of
from parrot_nb.notebook.benches import run_bench
from parrot_nb.notebook.commands import CELL_COMMANDS, COMMANDS, MODEL_OPTIONS, NUMBERS, SWITCHES
from parrot_nb.notebook.compare import compare, settings_of
from parrot_nb.notebook.executions import SHOWS
from parrot_nb.notebook.export import export
from parrot_nb.notebook.inventory import inventory
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.loading import show_loading
from parrot_nb.notebook.plans import plan_cell
from parrot_nb.notebook.report import Plain, Report, Reports, report
from parrot_nb.notebook.stores import run_store
from parrot_nb.notebook.timelines import show_timeline
from parrot_nb.notebook.widget import FrontEnd
from parrot_nb.session import Session, current_session, default_session_or_none, prepare

if TYPE_CHECKING:
    from parrot_nb.engine.protocol import ModelInfo

MAGIC = "%%semantic"
# Of a line, what is no comment: that begins with a # at the beginning of a word and outside quotation marks.
CODE = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|(?<=\S)#|[^#])*""")
SEMANTIC_HELP = """Define a semantic function: the cell's text is a prompt, its outputs are written by the model.

    %%semantic [NAME][(params)] [-> outputs] [options]

    %%semantic write_test(task, code) -> test --max-tokens 200
    You write test code for {{input:task}}.
    Code: {{input:code}}
    Your test code: {{output:test, stop="\\n\\n"}}

Then `test = write_test(task, code)` adds a call to the graph at once, and `test.get()` waits for its value.
Without a signature it is read off the text. Without a NAME the prompt runs at once: its inputs are the notebook's
variables of these names, and its outputs become variables of the notebook.

Placeholders:
    {{input:NAME}}     a value: text, a number, a list, or another call's variable; with fit="middle", "end" or "start" it is
                       cut there if the context has no room for it
    {{output:NAME}}    where the model writes; options may follow, as in {{output:NAME, max_tokens=20, stop=["\\n"]}}
    {{output:NAME: T}} the same of a type, as in int, "yes" | "no", list[str], a dataclass: its value is Python's, not a text
    {{output:NAME: "a" | "b", score=True}}  the likeliest of these, with the probability of each in its `scores`
    {{retry}} {{attempt}} {{error}} {{/retry}}  right before an output: what a further attempt is told of a refused one
    {{NAME}}           an output if the line declares it, else an input
    \\{{                literal braces

Options:
"""

NOTHING_YET = report("parrot_nb: nothing has run yet; the model is loaded when it is first needed.", [])


@magics_class
class ParrotMagics(Magics):
    """The magics of the extension.

    Args:
        shell: of the notebook.
        views: makes the live views of a session.
        front: the page.
    """

    def __init__(self, shell: Any, views: Any, front: FrontEnd) -> None:
        super().__init__(shell)
        self._views = views
        self._front = front

    @no_var_expand
    @cell_magic
    def semantic(self, line: str, cell: str) -> Any:
        body = cell.removesuffix("\n").removesuffix("\r")
        names = self.shell.user_ns
        said = parse_line(line, offset=len(MAGIC) + 1, prefix=f"{MAGIC} ", namespace=names)
        try:
            template = Template.parse(body, outputs=said.outputs or (), filename="<cell>", namespace=names)
            function = SemanticFunction(
                template,
                name=said.name,
                parameters=said.parameters,
                outputs=said.outputs,
                options=said.options,
                types=said.types,
                check=said.check,
            )
        except TemplateError as error:
            raise error.shifted(1) from None  # line 1 of the cell is the magic's
        if said.name is not None:
            self.shell.user_ns[said.name] = function
            if Session.isolates:
                prepare()  # what is defined is called soon
            return None
        return self._run_now(function)

    semantic.__doc__ = SEMANTIC_HELP + "\n".join(f"    {name:<14} {text}" for name, text in MAGIC_OPTIONS.items())

    def _run_now(self, function: SemanticFunction) -> Any:
        missing = [name for name in function.signature.parameters if name not in self.shell.user_ns]
        if missing:
            raise UsageError(f"The prompt reads '{missing[0]}', which the notebook does not have: set it, or name the function.")
        result = function(**{name: self.shell.user_ns[name] for name in function.signature.parameters})
        outputs = [result] if isinstance(result, SemanticVariable) else list(result)
        self.shell.user_ns.update(zip(function.output_names, outputs, strict=True))
        return outputs[0] if len(outputs) == 1 else result

    @line_magic
    def parrot(self, line: str) -> Any:
        try:
            words = shlex.split(_without_comment(line))
        except ValueError as error:
            raise UsageError(f"%parrot: {error}.") from None
        command, arguments = (words[0], words[1:]) if words else ("", [])
        if command and command not in COMMANDS:
            raise UsageError(f"%parrot has no '{command}': choose from {', '.join(COMMANDS)}.")
        takes_arguments = command in ("model", "bench", "export", "graph", "store", "vars")
        if arguments and not takes_arguments:
            raise UsageError(f"%parrot {command} takes no arguments.")
        return getattr(self, f"_{command or 'status'}")(*([arguments] if takes_arguments else []))

    parrot.__doc__ = "Show what is loaded and running; with a word after it:\n\n" + "\n".join(
        f"    %parrot {word:<9} {text}" for word, text in COMMANDS.items()
    )

    @no_var_expand
    @cell_magic("parrot")
    def parrot_cell(self, line: str, cell: str) -> Any:
        """Run the cell's code in some other way."""
        words = line.split()
        if words[:1] == ["show"]:  # a word that is known is read before the cell runs
            raise UsageError(f"%%parrot show takes one of {', '.join(SHOWS)}, and code below it.")
        if not words or words[0] not in CELL_COMMANDS:
            said = f" has no '{words[0]}'" if words else " needs a word"
            raise UsageError(
                f"%%parrot{said}: write {' or '.join(f'%%parrot {word}' for word in CELL_COMMANDS)} above the code to run."
            )
        if words[0] == "plan":
            if words[1:]:
                raise UsageError("%%parrot plan takes no arguments: write the code to plan below it.")
            return plan_cell(self.shell, current_session(), cell)
        return compare(self.shell, current_session(), settings_of(words[1:]), cell)

    parrot_cell.__doc__ = "Run the cell's code in some other way:\n\n" + "\n".join(
        f"    %%parrot {word:<7} {text}" for word, text in CELL_COMMANDS.items()
    )

    def _status(self) -> Report | Reports:
        session = default_session_or_none()
        if session is None:
            return NOTHING_YET
        rows = model_rows(session)
        rows.append(("runtime", session.place))
        if session.store.place is not None:
            rows.append(("store", session.store.place))
        counts = Counter(call.state for call in session.calls())
        rows.append(("calls", ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"))
        usages = [node.usage for node in session.variables()]
        totals = [sum(getattr(u, f"{kind}_tokens") for u in usages) for kind in ("prefilled", "reused", "decoded")]
        rows.append(("tokens", f"{totals[0]} prefilled, {totals[1]} reused, {totals[2]} decoded"))
        if taken := sum(u.from_memo for u in usages):
            rows.append(("memo", f"{taken} outputs taken over from equal calls; --fresh generates anew"))
        taken_by_function = accounts_of(session)
        status = report("parrot_nb", rows)
        return status if taken_by_function is None else Reports((status, taken_by_function))

    def _help(self) -> Report:
        return report(
            "%parrot shows what is loaded and running; with a word after it:",
            [*((f"%parrot {c}", t) for c, t in COMMANDS.items()), *((f"%%parrot {c}", t) for c, t in CELL_COMMANDS.items())],
        )

    def _model(self, arguments: list[str]) -> Report | Reports | None:
        if not arguments:
            session = default_session_or_none()
            return NOTHING_YET if session is None else report("Models", model_rows(session))
        model: str | None = None
        # Switches and recommendations are for the model that they are said with.
        settings: dict[str, Any] = {**dict.fromkeys(SWITCHES.values(), False), "sampling": "greedy"}
        words = list(arguments)
        while words:
            word, _, value = words.pop(0).partition("=")
            if word in SWITCHES:
                settings[SWITCHES[word]] = True
            elif word in MODEL_OPTIONS:
                if not value and not words:
                    raise UsageError(f"{word} needs a value.")
                settings[MODEL_OPTIONS[word]] = _number(word, value or words.pop(0))
            elif word.startswith("--"):
                raise UsageError(f"%parrot model has no option '{word}': choose from {', '.join([*MODEL_OPTIONS, *SWITCHES])}.")
            elif model is None:
                model = f"{word}={value}" if value else word
            else:
                raise UsageError(f"%parrot model takes one model, not '{model}' and '{word}'.")
        if model is None:
            raise UsageError("%parrot model needs a hub id or a folder.")
        if "off" in settings:
            settings["off"] = tuple(name for name in settings["off"].split(",") if name)
        session = current_session()
        show_loading(self._views(session), model, lambda: session.load_model(model, **settings), self._status)
        return None

    def _bench(self, arguments: list[str]) -> Plain | None:
        if not arguments:
            raise UsageError("%parrot bench needs a workload, such as copilot; python -m parrot_nb.bench --help lists them.")
        return run_bench(self._views(current_session()), self._front, arguments)

    def _graph(self, arguments: list[str]) -> None:
        if arguments not in ([], ["--still"]):
            raise UsageError("%parrot graph takes nothing, or --still for a picture that later runs do not change.")
        views: LiveViews = self._views(current_session())
        views.show_graph(still=bool(arguments))

    def _timeline(self) -> None:
        show_timeline(self._views(current_session()), current_session())

    def _export(self, arguments: list[str]) -> Plain:
        if len(arguments) != 1:
            raise UsageError("%parrot export takes one file: report.html, app.py, trace.json or graph.svg.")
        return Plain(export(current_session(), arguments[0], self.shell.user_ns))

    def _store(self, arguments: list[str]) -> Report:
        return run_store(current_session(), arguments)

    def _vars(self, arguments: list[str]) -> Report:
        if arguments not in ([], ["--all"]):
            raise UsageError("%parrot vars takes nothing, or --all for a row for each call of a map.")
        return inventory(default_session_or_none(), self.shell.user_ns, groups=not arguments)

    def _cancel(self) -> None:
        session = default_session_or_none()
        if session is not None:
            session.cancel()

    def _reset(self) -> None:
        session: Session | None = default_session_or_none()
        if session is not None:
            session.reset()


def model_rows(session: Session) -> list[tuple[str, str]]:
    """A few rows for each model that is loaded."""
    rows: list[tuple[str, str]] = []
    loads = session.loads()
    for info in session.models():
        rows.append(
            (
                "model",
                f"{info.id}: {info.architecture}, {info.num_parameters / 1e6:.1f} M parameters, {info.dtype} on {info.device}",
            )
        )
        rows.append(("context", f"up to {info.max_context_tokens} tokens"))
        load = loads[info.id]
        pages = (
            f"{load.owned_pages} used, {load.cached_pages} cached, {load.free_pages} free, of {load.page_size_tokens} tokens each"
        )
        rows.append(("KV pages", pages))
        rows += [("KV memory", info.room)] if info.room else []
        now, most = load.threads
        if most:
            others = "" if now == most else f" of {most}: other processes need the cores"
            rows.append(("threads", f"{now}{others}"))
        if info.swapped:
            rows.append(("optimised", ", ".join(info.swapped)))
        if info.quantized:
            rows.append(("quantised", info.quantized))
        rows += [("generation", sentence) for sentence in info.generation]
        if info.recommended:
            rows.append(("recommended", _recommended(info, session.choice.settings["sampling"])))
        rows += [(verdict.outcome, str(verdict)) for verdict in info.verdicts if verdict.outcome != "taken"]
        if info.note:
            rows.append(("note", info.note))
    if not loads:
        rows.append(("model", f"{session.default_model}, not loaded yet"))
    return rows


def _without_comment(line: str) -> str:
    code = CODE.match(line)
    return "" if code is None else code[0]


def _number(option: str, value: str) -> str | float:
    """The value of an option of `%parrot model`: a number where it takes one."""
    if option not in NUMBERS:
        return value
    kind, called = NUMBERS[option]
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{option} must be {called}, not '{value}'.") from None


def _recommended(info: ModelInfo, sampling: str) -> str:
    """Line that says what a model's makers recommend, and how to take it."""
    options = ", ".join(f"{name}={value:g}" for name, value in info.recommended)
    taken = "taken, as --sampling model says" if sampling == "model" else "take it with %parrot model ID --sampling model"
    return f"{options} ({taken})"
