"""Tokenizers that are all in their tokenizer.json, without transformers, whose import takes longer than loading a model.

The choice is careful, as for weights (`checkpoint`): transformers must take the file as it is, every key of
tokenizer_config.json must be known here, and the chat template may do no more than go through the messages and write
them. It calls nothing, filters nothing and names nothing but what is listed here, so there is nothing in it that a
sandbox would have to keep from it; it is rendered in one nevertheless. Other tokenizers are transformers' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.checkpoint import OtherwiseError, require
from parrot_nb.engine.embedded.vocabulary import parts_of

TOKENIZER_FILE, SETTINGS_FILE, CONFIG_FILE, TEMPLATE_FILE = (
    "tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja",
)  # fmt: skip
FILES = {TOKENIZER_FILE, SETTINGS_FILE, TEMPLATE_FILE}
# Other files in which transformers may look for something about a tokenizer.
MORE_FILES = re.compile(
    r"token|vocab|merges|tekken|chat_template|processor|sentencepiece|spiece|\.(model|spm|tiktoken|py|jinja)$", re.IGNORECASE
)
CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the ones without a way of their own
GEMMA_CLASS, GEMMA_TYPES = "GemmaTokenizer", ("gemma", "gemma2", "gemma3_text")
# What that class makes of any file; where the file says the same, the file can be taken as it is.
GEMMA_PARTS = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]},
}  # fmt: skip
GEMMA_MODEL = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "dropout": None}
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
# Keys about what is never done here: cutting, or decoding by transformers; and about how the folder was read when it was saved.
WITHOUT_EFFECT = {"model_max_length", "clean_up_tokenization_spaces", "backend", "is_local", "local_files_only"}
MAX_VOCAB = 100_000  # above, transformers corrects a known mistake of the tokenizers of some model types
CORRECTED_TYPES = {"mistral", "mistral3", "voxtral", "ministral", "pixtral", None}
MAX_TEMPLATE_CHARS = 10_000  # so simple a template is short
TEMPLATE_NODES = {
    "Output", "TemplateData", "For", "If", "Name", "Const", "Getattr", "Getitem", "Compare", "Operand", "And", "Or", "Not", "Add",
}  # fmt: skip
TEMPLATE_NAMES = {"messages", "loop", "add_generation_prompt", "bos_token", "eos_token"}
TEMPLATE_FIELDS = {"role", "content"}
LOOP_FIELDS = {"first", "last", "index", "index0"}


class KnownTokenizer:
    """The interface of a fast tokenizer of transformers that `TokenizerCodec` uses, under the same names.

    Args:
        backend: the tokenizer.
        special: the named special tokens.
        more_special: those without a name.
        chat_template: its text.
    """

    def __init__(self, backend: Any, special: dict[str, str], more_special: list[str], chat_template: str | None) -> None:
        self.backend_tokenizer = backend
        self.chat_template = chat_template
        self._special = special
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

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The named special tokens, for the chat template."""
        return self._special


def known_tokenizer(folder: str | Path) -> KnownTokenizer | None:
    """Read the tokenizer of a folder; None where anything about it is not known here."""
    folder = Path(folder)
    try:
        require(not any(MORE_FILES.search(path.name) for path in folder.iterdir() if path.name not in FILES))
        return _read(folder)
    except (OtherwiseError, OSError, ValueError, RecursionError):
        return None


def _read(folder: Path) -> KnownTokenizer:
    from tokenizers import Tokenizer, processors

    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    require(isinstance(settings, dict) and isinstance(config, dict))
    require(settings.keys() <= {"tokenizer_class", "chat_template", *SPECIAL, *MORE_SPECIAL, *WITHOUT_EFFECT})
    tokenizer_class, model_type = settings.get("tokenizer_class"), config.get("model_type")
    is_gemma = tokenizer_class == GEMMA_CLASS and model_type in GEMMA_TYPES
    require((tokenizer_class in CLASSES or is_gemma) and settings.get("backend", "tokenizers") == "tokenizers")
    special = {name: settings[name] for name in SPECIAL if settings.get(name) is not None}
    more_special = [token for name in MORE_SPECIAL for token in _texts(settings.get(name, []))]
    chat_template = settings.get("chat_template")
    if (folder / TEMPLATE_FILE).exists():
        require(chat_template is None)
        chat_template = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    _check_template(chat_template)
    try:
        backend = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except BaseException as error:  # Exception is the only type that the package raises, but for panics of its Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise OtherwiseError from error
    require(backend.truncation is None and backend.padding is None)
    require(backend.get_vocab_size() <= MAX_VOCAB or model_type not in CORRECTED_TYPES)
    there = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    require(there.issuperset(_texts([*special.values(), *more_special])))  # else transformers would add them
    if is_gemma:
        require(parts_of(backend) == GEMMA_PARTS and backend.post_processor is not None)
        require(all(getattr(backend.model, name, "") == value for name, value in GEMMA_MODEL.items()))
        require(special.keys() >= {"unk_token", "bos_token", "eos_token", "pad_token", "mask_token"})
        require(special["unk_token"] == GEMMA_MODEL["unk_token"])
    if backend.post_processor is None:  # the same as none; transformers' way to write it, so that a tokenizer has one key
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return KnownTokenizer(backend, special, more_special, chat_template)


def _texts(values: Any) -> list[str]:
    require(isinstance(values, list) and all(isinstance(value, str) for value in values))
    return list(values)


def _check_template(chat_template: Any) -> None:
    """Require a template to be as simple as has to be, if there is one."""
    if chat_template is None:
        return
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
            require(_field(node) in _fields_of(node.node, turns))
    try:
        environment.compile(tree)
    except (TemplateError, SyntaxError, RecursionError) as error:  # loops too deep within one another
        raise OtherwiseError from error


def _field(node: Any) -> Any:
    """Return the field that a node reads of another, a name or a number; None if the field is computed."""
    return getattr(node, "attr", None) or getattr(getattr(node, "arg", None), "value", None)


def _fields_of(owner: Any, turns: set[str]) -> Collection[str | int]:
    """The fields of a node that a template may take."""
    from jinja2 import nodes

    if isinstance(owner, nodes.Getitem):  # of a message by its number, which is itself looked at like any other node
        is_message = isinstance(owner.node, nodes.Name) and owner.node.name == "messages" and type(_field(owner)) is int
        return TEMPLATE_FIELDS if is_message else ()
    if not isinstance(owner, nodes.Name):
        return ()
    return (
        LOOP_FIELDS
        if owner.name == "loop"
        else TEMPLATE_FIELDS
        if owner.name in turns
        else range(3)
        if owner.name == "messages"
        else ()
    )
