"""Tokenizers that are all in their tokenizer.json, without transformers, whose import takes longer than loading a model.

The choice is careful, as for weights (`checkpoint`): transformers must take the file as it is, every key of
tokenizer_config.json must be known here, and the chat template may do no more than go through the messages and write
them. It calls nothing, filters nothing and names nothing but what is listed here, so there is nothing in it that a
sandbox would have to keep from it; it is rendered in one nevertheless. Other tokenizers are transformers' business.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.checkpoint import OtherwiseError, require

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
# Files that a folder may hold besides weights; any other may say more of the tokenizer.
FILES = {
    TOKENIZER_FILE, SETTINGS_FILE, "config.json", "generation_config.json", "model.safetensors.index.json", "README.md", "LICENSE",
    ".gitattributes",
}  # fmt: skip
CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the ones without a way of their own
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
# Keys about what is never done here: cutting, or decoding by transformers.
WITHOUT_EFFECT = {"model_max_length", "clean_up_tokenization_spaces", "backend"}
MAX_VOCAB = 100_000  # above, transformers looks for a known mistake of some tokenizers, and corrects it
MAX_TEMPLATE_CHARS = 10_000  # so simple a template is short
TEMPLATE_NODES = {
    "Output", "TemplateData", "For", "If", "Name", "Const", "Getattr", "Getitem", "Compare", "Operand", "And", "Or", "Not",
}  # fmt: skip
TEMPLATE_NAMES = {"messages", "loop", "add_generation_prompt", "bos_token", "eos_token"}
TEMPLATE_FIELDS = {"role", "content"}
LOOP_FIELDS = {"first", "last", "index", "index0"}


class KnownTokenizer:
    """What `TokenizerCodec` uses of a fast tokenizer of transformers, under the same names.

    Args:
        backend: the tokenizer.
        special: the named special tokens.
        more_special: those without a name.
        chat_template: its text.
        template: the same, compiled.
    """

    def __init__(
        self, backend: Any, special: dict[str, str], more_special: list[str], chat_template: str | None, template: Any
    ) -> None:
        self.backend_tokenizer = backend
        self.chat_template = chat_template
        self._special = special
        self._template = template
        self.all_special_ids = sorted({backend.token_to_id(token) for token in (*special.values(), *more_special)})

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        token = self._special.get("eos_token")
        return None if token is None else int(self.backend_tokenizer.token_to_id(token))

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """The ids of a text."""
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def convert_ids_to_tokens(self, token_id: int) -> str:
        """A token's text in the vocabulary."""
        return str(self.backend_tokenizer.id_to_token(token_id))

    def apply_chat_template(self, messages: list[dict[str, str]], *, tokenize: bool, **settings: Any) -> str:
        """The text that the chat template makes of messages, each with a role and a content; never tokenized."""
        assert not tokenize
        return str(self._template.render(messages=messages, **self._special, **settings))


def known_tokenizer(folder: str | Path) -> KnownTokenizer | None:
    """Read the tokenizer of a folder; None where anything about it is not known here."""
    folder = Path(folder)
    try:
        require(all(path.name in FILES or path.suffix == ".safetensors" for path in folder.iterdir()))
        return _read(folder)
    except (OtherwiseError, OSError, ValueError, RecursionError):
        return None


def _read(folder: Path) -> KnownTokenizer:
    from tokenizers import Tokenizer, processors

    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    text = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
    state = json.loads(text)
    require(isinstance(settings, dict) and isinstance(state, dict))
    require(settings.keys() <= {"tokenizer_class", "chat_template", *SPECIAL, *MORE_SPECIAL, *WITHOUT_EFFECT})
    require(settings.get("tokenizer_class") in CLASSES and settings.get("backend", "tokenizers") == "tokenizers")
    special = {name: settings[name] for name in SPECIAL if settings.get(name) is not None}
    more_special = [token for name in MORE_SPECIAL for token in _texts(settings.get(name, []))]
    require(state.get("truncation") is None and state.get("padding") is None)
    try:
        backend = Tokenizer.from_str(text)
    except Exception as error:  # the only type that the package raises
        raise OtherwiseError from error
    require(backend.get_vocab_size() <= MAX_VOCAB)
    there = {token["content"] for token in state["added_tokens"] if token["special"]}
    require(there.issuperset(_texts([*special.values(), *more_special])))  # else transformers would add them
    if backend.post_processor is None:  # the same as none; transformers' way to write it, so that a tokenizer has one key
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    chat_template = settings.get("chat_template")
    return KnownTokenizer(backend, special, more_special, chat_template, _compiled(chat_template))


def _texts(values: Any) -> list[str]:
    require(isinstance(values, list) and all(isinstance(value, str) for value in values))
    return list(values)


def _compiled(chat_template: Any) -> Any:
    """The template, if it is as simple as has to be; None without one."""
    if chat_template is None:
        return None
    require(isinstance(chat_template, str) and len(chat_template) <= MAX_TEMPLATE_CHARS)
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # as transformers sets it
    try:
        tree = environment.parse(chat_template)
    except (TemplateError, RecursionError) as error:
        raise OtherwiseError from error
    found = list(tree.find_all(nodes.Node))
    require({type(node).__name__ for node in found} <= TEMPLATE_NODES)
    loops = [node for node in found if isinstance(node, nodes.For)]
    require(all(isinstance(loop.iter, nodes.Name) and loop.iter.name == "messages" for loop in loops))
    turns = {loop.target.name for loop in loops if isinstance(loop.target, nodes.Name)}
    require(turns.isdisjoint(TEMPLATE_NAMES))
    require({node.name for node in found if isinstance(node, nodes.Name)} <= TEMPLATE_NAMES | turns)
    for node in found:
        if isinstance(node, (nodes.Getattr, nodes.Getitem)):
            owner = node.node
            require(isinstance(owner, nodes.Name))
            field = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            name = owner.name if isinstance(owner, nodes.Name) else ""
            require(field in (LOOP_FIELDS if name == "loop" else TEMPLATE_FIELDS if name in turns else ()))
    try:
        return environment.from_string(chat_template)  # only now: compiling computes what is constant, however large
    except (TemplateError, SyntaxError, RecursionError) as error:  # loops too deep within one another
        raise OtherwiseError from error
