"""Right answers of a base model with and without a space at the end of the prompt, healed and not, through the public surface.

    python tests/real/seam_quality.py MODEL [DTYPE]

prints the table of docs/pages/prompts.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import parrot_nb as P

sys.path.insert(0, str(Path(__file__).parent))

from questions import CAPITALS, EXAMPLES, OPPOSITES, is_right

MAX_TOKENS = 5
TEMPLATES = {
    "Country: X, Capital: (two examples)": (EXAMPLES + "Country: {{input:x}}\nCapital:", CAPITALS[:21]),
    "The capital of X is the city of": ("The capital of {{input:x}} is the city of", CAPITALS[:21]),
    "The capital of X is": ("The capital of {{input:x}} is", CAPITALS),
    "The opposite of X is": ("The opposite of {{input:x}} is", OPPOSITES),
}


def count(template: str, questions: tuple[tuple[str, str], ...], *, space: bool, heal: bool) -> int:
    """The number of right answers of the current session's model."""
    source = f"{template}{' ' if space else ''}{{{{output:answer, heal={heal}, max_tokens={MAX_TOKENS}}}}}"
    ask = P.SemanticFunction(source, name="ask", options=P.language.Options.checked(chat=False))
    texts = ask.map([question for question, _ in questions]).get()
    return sum(is_right(text, answer) for text, (_, answer) in zip(texts, questions, strict=True))


def main() -> None:
    """Print the table of the model named on the command line."""
    model, dtype = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "float32"
    print(
        "| prompt | questions | without space | with space | without, `heal=False` | with, `heal=False` |\n|---|---|---|---|---|---|"
    )
    with P.Session(model=model, device="cpu", dtype=dtype):
        for name, (template, questions) in TEMPLATES.items():
            cells = [count(template, questions, space=space, heal=heal) for heal in (True, False) for space in (False, True)]
            print(f"| {name} | {len(questions)} | " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
