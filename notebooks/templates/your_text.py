"""Run `your_text.ipynb` on a text file: a summary of its parts, and an answer to a question, with the model in a folder.

`make demo MODEL=smollm2 TEXT=your.txt` does so with a small pretrained model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TEMPLATE = Path(__file__).with_suffix(".ipynb")
MAX_CHARS = 200_000  # some 50,000 tokens: minutes on two cores
QUESTION = "What is this text about?"
CELL_LIMIT_S = 1800


def readable(path: Path) -> Path:
    """Return the path of a text that the notebook can read; exit with one sentence where it is none."""
    if not path.exists():
        sys.exit(f"There is no file '{path}': name a text file, as in TEXT=notes.txt.")
    if not path.is_file():
        sys.exit(f"'{path}' is no file: name a text file, as in TEXT=notes.txt.")
    if path.stat().st_size > 4 * MAX_CHARS:  # no character takes more bytes in UTF-8
        sys.exit(f"'{path}' is longer than {MAX_CHARS:,} characters: name a part of it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        sys.exit(f"'{path}' is not text in UTF-8: save it as UTF-8, or export its text first if it is a document.")
    except OSError as error:
        sys.exit(f"'{path}' cannot be read ({error.strerror}): name another file.")
    if "\0" in text:
        sys.exit(f"'{path}' is a binary file: export its text first.")
    if not text.strip():
        sys.exit(f"'{path}' holds no text: name a file with some.")
    if len(text) > MAX_CHARS:
        sys.exit(f"'{path}' is longer than {MAX_CHARS:,} characters: name a part of it.")
    return path.resolve()


def run(text: Path, model: str, question: str | None, into: Path) -> Path:
    """Execute the notebook, and write it and its page into a folder; exit with one sentence where a cell fails.

    Args:
        text: the file to read.
        model: folder or hub id.
        question: what to ask about the text; `QUESTION` when None or empty.
        into: the folder, made where it is missing.

    Returns:
        The executed notebook.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

    notebook = nbformat.read(TEMPLATE, 4)
    (parameters,) = [cell for cell in notebook.cells if cell.id == "parameters"]
    parameters.source = f"TEXT = {str(text)!r}\nMODEL = {model!r}\nQUESTION = {question or QUESTION!r}"
    into.mkdir(parents=True, exist_ok=True)
    execute = ExecutePreprocessor(kernel_name="python3", timeout=CELL_LIMIT_S, store_widget_state=False, coalesce_streams=True)
    failed = None
    try:
        execute.preprocess(notebook, {"metadata": {"path": str(into)}})
    except CellExecutionError as error:
        failed = f"{error.ename}: {error.evalue}"
    target = into / TEMPLATE.name
    nbformat.write(notebook, target)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    target.with_suffix(".html").write_text(page, encoding="utf-8")
    if failed is not None:
        sys.exit(f"The notebook stopped at an error, see {target.with_suffix('.html')}: {failed}")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file in UTF-8, of at most 200,000 characters")
    parser.add_argument(
        "--model", required=True, help="folder or hub id of a causal language model, best one with a chat template"
    )
    parser.add_argument("--question", help="what to ask about the text")
    parser.add_argument("--into", type=Path, default=Path("build/demo"), help="folder for the executed notebook and its page")
    parser.add_argument("--check", action="store_true", help="only say whether the text can be read")
    options = parser.parse_args()
    text = readable(options.text)
    if options.check:
        return
    model = str(Path(options.model).resolve()) if Path(options.model).is_dir() else options.model
    run(text, model, options.question, options.into)


if __name__ == "__main__":
    main()
