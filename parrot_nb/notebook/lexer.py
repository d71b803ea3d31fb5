"""A Pygments lexer of prompts, by entry point: nbconvert, Sphinx and Quarto find it under the name `semantic`.

It reads a template, with or without the line `%%semantic ...` before it. Words of a prompt stay plain text; what is coloured are
placeholders and that line.
"""

from __future__ import annotations

import re
from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, default, include, using
from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Escape, Keyword, Name, Number, Operator, Punctuation, String, Text, Whitespace

STRING = r"""'(?:[^'\\\r\n]|\\[^\r\n])*'|"(?:[^"\\\r\n]|\\[^\r\n])*\""""


class SemanticLexer(RegexLexer):
    """Prompts with semantic variables, as `%%semantic` cells and `P.SemanticFunction` have them."""

    name = "Parrot prompt"
    aliases: ClassVar[list[str]] = ["semantic", "parrot"]
    filenames: ClassVar[list[str]] = []
    flags = re.MULTILINE

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"\A([ \t]*)(%%semantic)\b", bygroups(Whitespace, Keyword.Namespace), "line"),
            default("prompt"),
        ],
        "line": [
            (r"\n", Whitespace, ("#pop", "prompt")),
            (r"[ \t]+", Whitespace),
            (r"#.*", Comment.Single),
            (r"(--[\w-]+)", Name.Attribute),
            (r"->", Operator),
            (STRING, String),
            (r"-?\d+(?:\.\d+)?", Number),
            (r"([^\W\d]\w*)(?=\()", Name.Function),
            (r"[^\W\d]\w*", Name.Variable),
            (r"[(),:|\[\].=]", Punctuation),
            (r".", Text),
        ],
        "prompt": [
            (r"\\\{\{", Escape),
            (
                r"(\{\{)(\s*)(/?)(\s*)(retry|attempt|error)(\s*)(\}\})",
                bygroups(Punctuation, Whitespace, Operator, Whitespace, Keyword, Whitespace, Punctuation),
            ),
            (r"\{\{(?!\{)", Punctuation, "placeholder"),
            (r"[^\\{]+", Text),
            (r"[\\{]", Text),
        ],
        "placeholder": [
            (r"\s*\}\}", Punctuation, "#pop"),
            (r"(\s*)(input|output)(\s*)(:)", bygroups(Whitespace, Keyword, Whitespace, Punctuation), "name"),
            default("name"),
        ],
        "name": [
            (r"(\s*)([^\W\d]\w*)(\s*)(:)", bygroups(Whitespace, Name.Variable, Whitespace, Punctuation), ("#pop", "type")),
            (r"(\s*)([^\W\d]\w*)", bygroups(Whitespace, Name.Variable), ("#pop", "options")),
            default(("#pop", "options")),
        ],
        "type": [
            (r"(?=,\s*[^\W\d]\w*\s*=|\}\})", Text, ("#pop", "options")),
            include("value"),
        ],
        "options": [
            (r"(?=\s*\}\})", Text, "#pop"),
            (r"([^\W\d]\w*)(\s*)(=)", bygroups(Name.Attribute, Whitespace, Operator)),
            include("value"),
        ],
        "value": [
            (r"\s+", Whitespace),
            (STRING, String),
            (r"/(?:[^/\\\r\n]|\\[^\r\n])+/", String.Regex),
            (r"-?\d+(?:\.\d+)?", Number),
            (r"\.\.", Operator),
            (r"\|", Operator),
            (r"[^\W\d]\w*", using(PythonLexer)),
            (r"[\[\](),:=.{-]", Punctuation),
            (r"\}(?!\})", Punctuation),
            (r"(?=\}\})", Text, "#pop"),
            (r".", Text),
        ],
    }
