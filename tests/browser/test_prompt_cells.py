"""`%%semantic` cells look like prompts in a real JupyterLab and Notebook 7, and other cells like Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebook_pages import NotebookPage, weak_texts

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.everywhere]

CELLS = [
    "%load_ext parrot_nb\nimport parrot_nb as P",
    "%%semantic write(task) -> text --max-tokens 60\nDon't import this for me: if it's for you, don't.\n{{input:task}} {{output:text}}",
    "def add(a, b):\n    return a + b if a else None",
]


@pytest.fixture(scope="module")
def opened(browser, face):
    opened = NotebookPage.of(browser, face, "prompts", CELLS, width=1100, height=700)
    yield opened
    opened.close()


@pytest.fixture
def page(opened):
    return opened.page


def kinds(page) -> list[str]:
    return page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.mimeType)")


def wait_for(page, expected: list[str]) -> None:
    script = "expected => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.mimeType)) === JSON.stringify(expected)"
    page.wait_for_function(script, arg=expected, timeout=60_000)


COLORED = """index => {
    const cell = window.jupyterapp.shell.currentWidget.content.widgets[index].node;
    const plain = getComputedStyle(cell.querySelector('.cm-content')).color;
    const words = [...cell.querySelectorAll('.cm-line span')].filter(s => getComputedStyle(s).color !== plain).map(s => s.textContent);
    return words.length ? words : null;
}"""


def colored(page, index: int) -> list[str]:
    """The words that the editor of a cell shows in another colour than plain text, once it has loaded its language."""
    return page.wait_for_function(COLORED, arg=index, timeout=60_000).json_value()


def set_source(page, index: int, text: str) -> None:
    page.evaluate(
        "([index, text]) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.setSource(text)",
        [index, text],
    )


PYTHON, PROMPT = "text/x-ipython", "text/jinja2"


def test_a_prompt_is_not_coloured_as_python(opened, page):
    wait_for(page, [PYTHON, PROMPT, PYTHON])
    assert {"import", "as"} <= set(colored(page, 0))
    assert {"def", "return"} <= set(colored(page, 2))
    words = colored(page, 1)
    assert not {"import", "for", "if", "is"} & set(words), words
    assert not any("t import this" in word for word in words), "an apostrophe begins no string"
    opened.theme("Light")
    opened.shot(f"{opened.face.name}-prompt-cells", page)


MARKED = """index => {
    const cell = window.jupyterapp.shell.currentWidget.content.widgets[index].node;
    return [...cell.querySelectorAll('.parrot-magic, .parrot-reads, .parrot-writes, .parrot-unknown')]
      .map(span => [span.className, span.textContent]);
}"""


def test_placeholders_have_colours_that_can_be_read(opened, page):
    cell = '%%semantic f(task, tone) -> text: str\nOf {{input:task}} {{ tone }} {{text, stop="}}"}} {{input:tsak}} \\{{no}} {{output:other}}'
    set_source(page, 1, cell)
    page.wait_for_selector(".parrot-unknown")
    kinds = {text: kind.removeprefix("parrot-") for kind, text in page.evaluate(MARKED, 1)}
    assert kinds == {
        "%%semantic f(task, tone) -> text: str": "magic", "{{input:task}}": "reads", "{{ tone }}": "reads",
        '{{text, stop="}}"}}': "writes", "{{input:tsak}}": "unknown", "{{output:other}}": "unknown",
    }  # fmt: skip
    for theme in ("Light", "Dark"):
        opened.theme(theme)
        assert not weak_texts(opened.code_cell(1).locator(".cm-content")), theme
        opened.shot(f"{opened.face.name}-prompt-colours-{theme.lower()}", opened.code_cell(1))
    set_source(page, 1, CELLS[1])
    page.wait_for_function("() => !document.querySelector('.parrot-unknown')")
    assert page.evaluate(MARKED, 2) == []


def test_it_follows_the_first_line(page):
    set_source(page, 2, "%%semantic add(a) -> b\nAdd for me: {{input:a}} {{output:b}}")
    wait_for(page, [PYTHON, PROMPT, PROMPT])
    set_source(page, 1, "x = 'no prompt any more'")
    wait_for(page, [PYTHON, PYTHON, PROMPT])
    set_source(page, 1, "%%semanticx is another magic")
    set_source(page, 2, CELLS[2])
    wait_for(page, [PYTHON, PYTHON, PYTHON])
    set_source(page, 1, CELLS[1])
    wait_for(page, [PYTHON, PROMPT, PYTHON])


def test_it_is_so_while_typing_and_for_new_cells(page):
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2; }")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:insert-cell-below'); }")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:enter-edit-mode'); }")
    page.keyboard.type("%%semantic")
    wait_for(page, [PYTHON, PROMPT, PYTHON, PROMPT])
    page.keyboard.press("Backspace")
    wait_for(page, [PYTHON, PROMPT, PYTHON, PYTHON])


def test_commands_of_the_palette(page):
    page.evaluate("async () => { await window.jupyterapp.commands.execute('parrot-nb:new-prompt'); }")
    assert PROMPT in kinds(page)[3:]
    page.evaluate("async () => { await window.jupyterapp.commands.execute('parrot-nb:graph'); }")
    page.get_by_text("there is no graph").or_(page.get_by_text("`%parrot` not found")).first.wait_for(timeout=60_000)
    labels = page.evaluate(
        "() => window.jupyterapp.commands.listCommands().filter(id => id.startsWith('parrot-nb:')).map(id => window.jupyterapp.commands.label(id))"
    )
    assert labels == [
        "New Prompt Cell",
        "Show the Graph of Calls",
        "Show the Timeline",
        "List Calls and Values",
        "Cancel All Calls",
    ]
    for _ in range(2):
        page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:delete-cell'); }")


def test_a_kernel_that_starts_anew_changes_nothing(page):
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info; }")
    page.wait_for_timeout(500)
    assert kinds(page)[:3] == [PYTHON, PROMPT, PYTHON]


def test_nothing_went_wrong(opened):
    assert not opened.messages


def test_the_package_brings_it_where_jupyterlab_looks():
    import json
    import tomllib

    root = Path(__file__).parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    ((source, target),) = wheel["shared-data"].items()
    described = json.loads((root / source / "package.json").read_text())
    assert target == f"share/jupyter/labextensions/{described['name']}"
    assert (root / source / described["jupyterlab"]["_build"]["load"]).is_file()
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert described["version"] == version
