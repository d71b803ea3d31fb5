r"""Formulas in Markdown: which of them a page's MathJax may typeset.

TeX is a language with commands that act: `\href` makes a link to anything, `\style` and `\class` dress up as the page,
`\def` changes what every later formula on the page says. JupyterLab's MathJax knows them all. So a formula is typeset only
if every command in it is in a list of those that draw; any other one is shown as it was written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from parrot_nb.language.escaping import UNTYPESET, escape

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline

TYPESET = "mathjax_process tex2jax_process"  # the classes by which MathJax works inside an `UNTYPESET` element
MAX_CHARS = 2000  # of a formula: longer ones cost a page seconds

SYMBOLS = r"\,;:!>{}|%&_# "  # what may stand behind a backslash, beside letters


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENVIRONMENTS = _words("""
    align align* aligned alignedat array Bmatrix bmatrix cases equation* gather* gathered matrix pmatrix rcases smallmatrix split
    Vmatrix vmatrix
""")
COMMANDS = _words("""
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi varpi rho varrho sigma varsigma
    tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    aleph beth hbar hslash imath jmath ell wp Re Im partial nabla infty emptyset varnothing complement degree prime angle triangle
    square blacksquare Box Diamond top bot forall exists nexists neg lnot flat natural sharp surd dagger ddagger checkmark
    sum prod coprod int iint iiint oint bigcup bigcap bigsqcup bigvee bigwedge bigoplus bigotimes bigodot lim limsup liminf
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth exp ln log lg max min sup inf arg argmax argmin det dim gcd hom
    ker deg Pr bmod pmod mod operatorname limits nolimits
    frac dfrac tfrac cfrac binom dbinom tbinom sqrt stackrel overset underset substack over choose
    times div cdot ast star circ bullet pm mp oplus ominus otimes oslash odot cap cup uplus sqcap sqcup vee wedge land lor setminus
    wr amalg diamond bigtriangleup bigtriangledown triangleleft triangleright
    le leq leqslant ge geq geqslant ne neq lt gt ll gg equiv sim simeq approx cong propto prec succ preceq succeq subset supset
    subseteq supseteq subsetneq supsetneq sqsubseteq sqsupseteq in ni notin not mid nmid parallel perp vdash dashv models asymp doteq
    triangleq coloneqq smile frown bowtie
    leftarrow rightarrow leftrightarrow Leftarrow Rightarrow Leftrightarrow longleftarrow longrightarrow longleftrightarrow
    Longleftarrow Longrightarrow Longleftrightarrow uparrow downarrow updownarrow Uparrow Downarrow mapsto longmapsto to gets
    hookleftarrow hookrightarrow nearrow searrow swarrow nwarrow rightharpoonup rightharpoondown leftharpoonup leftharpoondown
    rightleftharpoons leadsto implies impliedby iff xleftarrow xrightarrow
    left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr lbrace rbrace lbrack rbrack langle rangle lvert
    rvert lVert rVert vert Vert lfloor rfloor lceil rceil backslash
    hat widehat tilde widetilde bar overline underline vec overrightarrow overleftarrow dot ddot dddot acute grave check breve
    mathring overbrace underbrace boxed cancel
    mathrm mathbf mathit mathsf mathtt mathcal mathscr mathfrak mathbb boldsymbol bm text textrm textbf textit textsf texttt rm bf it
    displaystyle textstyle scriptstyle scriptscriptstyle quad qquad dots ldots cdots vdots ddots dotsb dotsc colon
    begin end
""")
_BACKSLASH = re.compile(r"\\(?:([A-Za-z]+)|(.?))", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*(?:\{([^{}]*)\})?")
_INLINE = re.compile(
    r"\$\$(?P<a>[^$]+?)\$\$|\$(?P<b>[^\s$](?:[^$]*[^\s$\\])?)\$(?!\d)|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]", re.DOTALL
)
_BLOCK = {"$$": "$$", "\\[": "\\]"}  # what opens a formula on lines of its own, and what closes it


def draws_only(source: str) -> bool:
    """True if a formula holds nothing but commands that draw: none that links, styles, defines or loads."""
    if len(source) > MAX_CHARS or "$" in source:
        return False
    if any(
        letters not in COMMANDS if letters else not sign or sign not in SYMBOLS for letters, sign in _BACKSLASH.findall(source)
    ):
        return False
    return all(name in ENVIRONMENTS for name in _ENVIRONMENT.findall(source))


def formula_html(source: str, *, display: bool) -> str:
    """A formula for MathJax where it only draws, else its source."""
    begin, end = ("\\[", "\\]") if display else ("\\(", "\\)")
    shown = escape(f"{begin}{source.strip()}{end}")
    return f'<span class="{TYPESET}">{shown}</span>' if draws_only(source) else f"<code>{shown}</code>"


def latex_html(latex: str) -> str:
    """Return HTML for an object's `_repr_latex_`: one formula between dollars, or other TeX, which is shown as it was written."""
    text = latex.strip()
    for sign in ("$$", "$"):
        if len(text) > 2 * len(sign) and text.startswith(sign) and text.endswith(sign):
            return f'<div class="{UNTYPESET}">{formula_html(text[len(sign) : -len(sign)], display=True)}</div>'
    return f'<pre class="{UNTYPESET}">{escape(latex)}</pre>'


def formulas_plugin(parser: MarkdownIt) -> None:
    r"""Let a parser know `$...$`, `\(...\)`, `$$...$$` and `\[...\]`, before Markdown reads their underscores and backslashes."""
    parser.inline.ruler.before("escape", "formula", _inline)
    parser.block.ruler.before("fence", "formula_block", _block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.add_render_rule("formula", _render)


def _render(_renderer: Any, tokens: Any, index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    shown = formula_html(token.content, display=token.info == "display")
    return f"<p>{shown}</p>\n" if token.block else shown


def _inline(state: StateInline, silent: bool) -> bool:
    found = (
        _INLINE.match(state.src, state.pos, min(state.posMax, state.pos + MAX_CHARS + 4))
        if state.src[state.pos] in "$\\"
        else None
    )
    if found is None or not found[found.lastgroup or 0].strip() or "\n\n" in found[0]:
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.info = found[found.lastgroup or 0], "display" if found.lastgroup in ("a", "d") else "inline"
    state.pos = found.end()
    return True


def _block(state: StateBlock, begin: int, end: int, silent: bool) -> bool:
    r"""A line that begins with `$$` or `\[`, up to the line that ends with its closing mark."""
    lines = [state.src[state.bMarks[i] + state.tShift[i] : state.eMarks[i]] for i in range(begin, min(end, begin + 60))]
    close = _BLOCK.get(lines[0][:2]) if not state.is_code_block(begin) else None
    if close is None:
        return False
    lines[0] = lines[0][2:]
    last = next((i for i, line in enumerate(lines) if line.rstrip().endswith(close)), None)
    if last is None:
        return False
    lines[last] = lines[last].rstrip()[: -len(close)]
    source = "\n".join(lines[: last + 1])
    if not source.strip() or close in source:
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.block, token.content, token.info = True, source, "display"
        token.map = [begin, begin + last + 1]
        state.line = begin + last + 1
    return True
