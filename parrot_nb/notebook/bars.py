"""The probabilities of scored choices, as bars and in words: the likeliest first."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_nb.language.escaping import escape

Scores = Sequence[tuple[str, float]]  # texts of choices with their probabilities

MAX_BARS = 8  # what the others have together is one more
LABEL_CHARS = 32
INK, MUTED = "var(--jp-ui-font-color1, #212121)", "var(--jp-ui-font-color2, #616161)"
FILL, TRACK = "var(--jp-brand-color1, #1976d2)", "var(--jp-layout-color2, #eeeeee)"
MONO = "var(--jp-code-font-family, ui-monospace, Menlo, Consolas, monospace)"


def likeliest(scores: Scores) -> list[tuple[str, float]]:
    """The choices and their probabilities in the order of these; of many choices the first, and what the others have together."""
    ordered = sorted(scores, key=lambda each: -each[1])
    if len(ordered) <= MAX_BARS:
        return ordered
    rest = ordered[MAX_BARS:]
    return [*ordered[:MAX_BARS], (f"{len(rest)} more", sum(share for _, share in rest))]


def bars_html(scores: Scores) -> str:
    """A row for each choice: its text, a bar, and its probability in words."""
    rows = "".join(
        f'<div style="display:contents"><span style="overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:{INK}">'
        f"{escape(label(text))}</span>"
        f'<span style="background:{TRACK};border-radius:2px;height:8px;align-self:center">'
        f'<span style="display:block;width:{100 * share:.1f}%;height:8px;border-radius:2px;background:{FILL}"></span></span>'
        f'<span style="text-align:right;color:{MUTED}">{escape(percent(share))}</span></div>'
        for text, share in likeliest(scores)
    )
    return (
        '<div class="parrot-scores" style="display:grid;grid-template-columns:minmax(0,max-content) minmax(48px,160px) max-content;'
        f'gap:2px 10px;padding:6px 10px 2px;font:12px/1.4 {MONO}">{rows}</div>'
    )


def bars_text(scores: Scores) -> str:
    """The same in words, on one line."""
    return " · ".join(f"{label(text)} {percent(share)}" for text, share in likeliest(scores))


def percent(share: float) -> str:
    """A probability in percent; what is above nothing, or below all, does not look like it."""
    shown = f"{100 * share:.1f}"
    return "<0.1 %" if shown == "0.0" and share else ">99.9 %" if shown == "100.0" and share < 1 else f"{shown} %"


def label(text: str) -> str:
    """A choice on one line, cut off where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LABEL_CHARS else flat[: LABEL_CHARS - 1] + "…"
