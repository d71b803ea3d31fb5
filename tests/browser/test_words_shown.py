"""Every attack of `tests/attacks/payloads.txt` through every view of a real JupyterLab and Notebook 7, and through the pages and
files that we write: no script of it runs, nothing is asked of any server that we did not ask for, and no link leads elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook
from notebook_pages import NotebookPage

from parrot_nb.record import write_trace

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ATTACKS = Path(__file__).parents[1] / "attacks"

TRAP = """() => {
  window.trapped = [];
  Object.defineProperty(window, '__pwned', {set: (value) => window.trapped.push(`__pwned = ${value}`), get: () => undefined});
  for (const name of ['alert', 'confirm', 'prompt']) window[name] = (said) => window.trapped.push(`${name}: ${said}`);
}"""

# What in an element could act or load, or lead to where its address does not say.
ACTS = """(area) => {
  const found = [], names = 'script iframe object embed base meta link form frame portal template use animate set foreignObject';
  for (const element of area.querySelectorAll('*')) {
    if (element.closest('.jp-RenderedText')) continue;  // plain text, in which JupyterLab makes links of addresses
    const tag = element.localName, formula = element.closest('mjx-container, .MathJax');
    if (names.split(' ').includes(tag)) found.push(tag);
    if (formula && (tag === 'a' || element.hasAttribute('href') || element.hasAttribute('id'))) found.push(`formula ${tag}`);
    for (const {name, value} of element.attributes) {
      const act = name.startsWith('on') || ['srcdoc', 'action', 'formaction', 'xlink:href', 'data-commandlinker-command'].includes(name)
        || (name === 'src' && !/^data:image\\/(png|svg\\+xml);base64,/.test(value))
        || (name === 'href' && !/^(https?:\\/\\/|mailto:|#)/i.test(value))
        || (name === 'style' && /url\\(|position: *fixed/i.test(value));
      if (act) found.push(`${tag} ${name}=${value.slice(0, 80)}`);
    }
  }
  return found;
}"""

CELLS = [
    'from IPython.display import HTML\nHTML(\'<img src="/wanted?pwned" onerror="window.__pwned = 1">\')',
    (
        "%load_ext parrot_nb\nimport json, math, time, pandas as pd, parrot_nb as P\nfrom IPython.display import SVG, Latex, Markdown\n"
        "payloads = json.load(open('payloads.json'))\nsaid = [P.variable(value=p, name=p) for p in payloads]"
    ),
    "for v in said: display(v.markdown)",
    "for v in said: display(v)",
    "echoed = [P.native_function(lambda text: text, name=p)(v) for p, v in zip(payloads, said)]\nP.gather(*echoed).get() and None",
    """def fail(text):
    raise ValueError(text)

failed = [P.native_function(fail, name=p)(p) for p in payloads[::4]]
for v in failed: v.submit()
time.sleep(1)
for v in failed: display(v)""",
    "%parrot vars",
    "%parrot\n%parrot timeline",
    (
        "shown = [pd.DataFrame({p: [p]}) for p in payloads[::4]] + [kind(p) for p in payloads for kind in (Markdown, Latex)]\n"
        "shown += [Latex(f'${p}$') for p in payloads]\n"
        'shown += [SVG(\'<svg xmlns="http://www.w3.org/2000/svg" onload="__pwned=1"><script>__pwned=1</script></svg>\')]\n'
        "drawn = [P.native_function(lambda x=x: x, name='drawn')() for x in shown]\nP.gather(*drawn).get()\nfor v in drawn: display(v)"
    ),
    """late = P.variable(name='late')
late.node.begin()
display(late.markdown)
views = P.current_session().observer
for payload in payloads:
    for piece in (payload[:len(payload) // 3], payload[len(payload) // 3:], '\\n\\n'):
        late.node.append(piece)
        views.flush_now(in_cell=True)
late.set(late.node.text)
views.flush_now(in_cell=True)""",
    "P.replay('foreign.json', speed=math.inf)",
    "described = P.SemanticFunction('\\n'.join(p.replace('{{', '{ {') for p in payloads) + '{{output:y}}', name='described')\ndescribed?",
    "%parrot export report.html\n%parrot export graph.svg",
    """for i in range(0, len(payloads), 10):
    rows = P.native_function(lambda x: x, name=payloads[i]).map([{'x': p} for p in payloads[i:i + 10]])
    rows.get()
    display(rows)""",
    """for p in payloads[::4]:
    same = P.native_function(lambda x: x, name=p)
    table = [{'x': p, 'said': p}]
    display(P.evaluate(same, table, 'said'), P.compare({p: same, 'other ' + p: same}, table, 'said'))""",
    "%%parrot plan\nfor p in payloads[::4]: P.SemanticFunction('Say {{input:x}} {{output:y}}', name=p)(p)",
    "for p in payloads: display(P.SemanticFunction(p.replace('{{', '{ {') + ' {{output:y}}', name=p))",
    """import typing
for i in range(0, len(payloads), 30):
    kind = typing.Literal[tuple(payloads[i:i + 30])]
    chosen = P.SemanticFunction('Say {{output:y: kind, score=True}}', name=payloads[i], namespace={'kind': kind})()
    chosen.get()
    display(chosen)""",
    """for p in payloads[::2]:
    thought = P.variable(name=p)
    thought.node.begin()
    thought.node.think(p)
    thought.set(p)
    display(thought)""",
    "raise P.UsageError('\\n'.join(payloads))",
    "print('all', 'done')",
]
CONTROL, MARKDOWN, VARIABLES, GRAPH, STREAMED, REPLAY = 0, 2, 3, 4, 9, 10


def attacks(name: str):
    """A module of the fast tests, which hold the attacks."""
    spec = importlib.util.spec_from_file_location(name, ATTACKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAYLOADS = attacks("page_audit").payloads()


def foreign_trace(path: Path) -> None:
    """A trace that holds every attack as names, texts, notes and errors."""
    import sys

    sys.path.insert(0, str(ATTACKS))
    try:
        shown = attacks("test_words_emitted")
    finally:
        sys.path.remove(str(ATTACKS))
    log = [
        shown.moved(event, 100 * i)
        for i, payload in enumerate(PAYLOADS)
        for event in shown.history(payload)
        if getattr(event, "call_id", None) in (10, 12) or getattr(event, "variable_id", 99) <= 13
    ]
    write_trace(path, sorted(log, key=lambda event: event.time_s))


class Watched:
    """A page with the trap in it; it notes every request."""

    def __init__(self, page) -> None:
        self.page = page
        self.requests: list[tuple[str, str]] = []
        page.add_init_script(f"({TRAP})()")
        page.on("request", lambda request: self.requests.append((request.method, request.url)))
        page.on("dialog", lambda dialog: dialog.dismiss())
        # Where a page asks for MathJax of elsewhere it gets none; whatever else it asks for is noted above.
        page.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: route.abort())

    @property
    def trapped(self) -> list[str]:
        return [said for frame in self.page.frames for said in frame.evaluate("() => window.trapped ?? []")]


OWN = re.compile(  # what the front ends ask for by themselves
    r"/(lab|static|notebooks|tree|custom|nbextensions|kernelspecs|favicon|lsp/status|"
    r"api/(kernels|sessions|kernelspecs|me|events|status|config|nbconvert|resolvePath))\b"  # the last: paths in tracebacks
)
OURS = {"", "attacked.ipynb", "untrusted.ipynb"}  # the folder, and notebooks in it
CONTENTS = re.compile(r"/api/contents(?:/([^/]*)(?:/checkpoints(?:/\w+)?)?)?")


def strange(requests: list[tuple[str, str]], address: str) -> list[tuple[str, str]]:
    """Requests that neither the front end nor the test has any reason for."""
    found = []
    for method, url in requests:
        parts = urlsplit(url)
        if parts.scheme in ("data", "blob"):
            continue
        contents = CONTENTS.fullmatch(parts.path)
        fine = (
            OWN.match(parts.path)
            or (contents and (contents[1] or "") in OURS)
            or (method, parts.path) == ("GET", "/api/terminals")
        )
        if not url.startswith(address) or not fine or parts.path.endswith(("/x", "/1")) or "pwned" in parts.path:
            found.append((method, url))
    return found


@pytest.fixture(scope="module")
def opened(browser, face):
    (face.folder / "payloads.json").write_text(json.dumps(PAYLOADS), encoding="utf-8")
    foreign_trace(face.folder / "foreign.json")
    settings = face.folder.parent / "config/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"maxNumberOutputs": 10000}', encoding="utf-8")  # of a cell: all are drawn
    path = face.folder / "attacked.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in CELLS], metadata=kernel), path)
    notebook = NotebookPage(browser, face, path, width=1300, height=4000)
    notebook.watched = Watched(notebook.page)
    notebook.open()
    notebook.run(CONTROL)
    notebook.page.wait_for_function("window.trapped.length > 0")
    assert notebook.watched.trapped == ["__pwned = 1"], "the trap works"
    assert set(strange(notebook.watched.requests, face.address)) == {("GET", f"{face.address}/wanted?pwned")}
    notebook.page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs'); }")
    notebook.page.wait_for_timeout(1000)
    notebook.page.evaluate("() => { window.trapped.length = 0; }")
    notebook.watched.requests.clear()
    for cell in range(1, len(CELLS)):
        notebook.run(cell)
    yield notebook
    notebook.close()


def quiet(notebook, face) -> None:
    """Nothing ran and nothing was asked for."""
    notebook.page.wait_for_timeout(1500)
    assert notebook.watched.trapped == []
    assert strange(notebook.watched.requests, face.address) == []
    assert not (face.folder / "pwned.txt").exists()
    log = (face.folder.parent / "server.log").read_text(encoding="utf-8")
    asked = re.findall(r"\b(?:GET|PUT|POST|DELETE) (/\S*)", log)
    assert [path for path in asked if "pwned" in path and not path.startswith(("/wanted", "/api/resolvePath"))] == []
    assert [path for path in asked if re.search(r"/(x|1|x\.\w+|logout)(\?|$)", path)] == []


def outputs(notebook, cell: int) -> str:
    return str(notebook.code_cell(cell).locator(".jp-OutputArea").first.text_content())


@pytest.mark.everywhere
def test_no_word_acts_in_a_notebook(opened, face):
    assert "all done" in opened.output(len(CELLS) - 1)
    for cell in (MARKDOWN, VARIABLES, STREAMED):
        assert "__pwned=1" in outputs(opened, cell), "the words are there"
    assert opened.code_cell(MARKDOWN).locator("a[href^='https://evil.test/']").count() >= 2
    for cell in range(1, len(CELLS)):
        area = opened.code_cell(cell).locator(".jp-OutputArea").first
        area.scroll_into_view_if_needed()
        assert area.evaluate(ACTS) == [], CELLS[cell]
    quiet(opened, face)


def test_formulas_that_draw_are_typeset_and_no_others(opened):
    opened.code_cell(MARKDOWN).locator("mjx-container").first.wait_for(state="attached")
    formulas = opened.page.locator(".jp-OutputArea mjx-container")
    assert formulas.count() > 0
    assert not formulas.locator("a, [href], [id^=jupyter], .jp-Button").count()
    for cell in (VARIABLES, GRAPH, REPLAY):
        assert not opened.code_cell(cell).locator("mjx-container").count()


@pytest.mark.everywhere
def test_no_word_acts_in_the_interactive_graph(opened, face):
    graph = opened.code_cell(GRAPH).locator(".pg")
    graph.locator(".pg-node").first.wait_for()
    nodes = graph.locator(".pg-node")
    for i in range(0, nodes.count(), 20):
        nodes.nth(i).evaluate("node => node.click()")
        graph.locator(".pg-panel").wait_for()
        opened.page.wait_for_timeout(100)
        assert graph.evaluate(ACTS) == []
    assert "=1" in str(graph.locator(".pg-panel").text_content()) or graph.locator(".pg-panel .pg-value").count()
    quiet(opened, face)


def test_no_word_acts_in_the_help_of_a_function(opened, face):
    opened.page.evaluate(
        """async () => {
          const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
          notebook.activeCellIndex = notebook.widgets.length - 1;
          notebook.activeCell.model.sharedModel.setSource('described');
          notebook.mode = 'edit';
          await notebook.activeCell.ready;
          notebook.activeCell.editor.focus();
          notebook.activeCell.editor.setCursorPosition({line: 0, column: 5});
          await app.commands.execute('tooltip:launch-notebook');
        }"""
    )
    tip = opened.page.locator(".jp-Tooltip")
    tip.wait_for()
    assert "__pwned=1" in str(tip.text_content())
    assert tip.evaluate(ACTS) == []
    opened.page.keyboard.press("Escape")
    quiet(opened, face)


@pytest.mark.everywhere
def test_no_word_acts_when_the_notebook_is_opened_again_without_trust(opened, browser, face):
    opened.saved()
    found = nbformat.read(opened.path, as_version=4)
    found.cells = found.cells[1:]  # without the one that is meant to act
    found.metadata["changed"] = "so that no signature fits"
    for cell in found.cells:
        cell.metadata["trusted"] = False
    nbformat.write(found, face.folder / "untrusted.ipynb")
    again = NotebookPage(browser, face, face.folder / "untrusted.ipynb", width=1300, height=4000)
    again.watched = Watched(again.page)
    again.open(kernel=False)
    again.code_cell(MARKDOWN - 1).locator(".jp-OutputArea-output").first.wait_for()
    for cell in range(len(found.cells)):
        again.code_cell(cell).scroll_into_view_if_needed()
        again.page.wait_for_timeout(200)
    assert again.page.locator("body").evaluate("body => body.innerText.includes('__pwned=1')")
    quiet(again, face)
    again.page.close()


@pytest.mark.parametrize("sanitize", [False, True])
def test_no_word_acts_in_what_nbconvert_makes(opened, browser, face, tmp_path, sanitize):
    opened.saved()
    found = nbformat.read(opened.path, as_version=4)
    found.cells = found.cells[1:]
    html, _ = HTMLExporter(sanitize_html=sanitize).from_notebook_node(found)
    (tmp_path / "notebook.html").write_text(html, encoding="utf-8")
    page = Watched(browser.new_page())
    page.page.goto((tmp_path / "notebook.html").as_uri())
    page.page.wait_for_timeout(1500)
    assert "__pwned=1" in str(page.page.locator("body").text_content())
    for area in page.page.locator(".jp-OutputArea").all():
        assert area.evaluate(ACTS) == []
    assert page.trapped == []
    assert {urlsplit(url).hostname for _, url in page.requests} <= {None, "cdnjs.cloudflare.com"}, (
        "its own MathJax and require.js"
    )
    assert [url for _, url in page.requests if url.startswith("file:") and not url.endswith("/notebook.html")] == []
    page.page.close()


@pytest.mark.parametrize("name", ["report.html", "graph.svg"])
def test_no_word_acts_in_our_own_files(opened, browser, face, name):
    if name == "graph.svg" and not shutil.which("dot"):
        pytest.skip("needs Graphviz")
    page = Watched(browser.new_page())
    address = (face.folder / name).as_uri()
    page.page.goto(address)
    page.page.wait_for_timeout(500)
    assert page.trapped == []
    assert page.page.locator(":root").evaluate(ACTS) == ([] if name == "graph.svg" else ["meta", "meta"])
    assert page.requests == [("GET", address)]
    assert "\0" not in (face.folder / name).read_text(encoding="utf-8")
    page.page.close()
