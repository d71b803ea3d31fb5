"""Small tokenizers in the shape of each family that models use, trained on a few lines, with added tokens of every kind."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "The quick brown fox jumps over the lazy dog, and it's the end of the story.",
    "def add(x, y):\n    return x + y  # the sum of the two\n\nfor i in range(10):\n\tprint(add(i, 2))",
    "Who has to call the baker? Anna has to call the baker tomorrow, said the other one.",
    "<table><tr><td>the cell</td></tr></table> [INST] naïve café 你好 [/INST]",
]
SPECIAL = [
    AddedToken("<s>", special=True, normalized=False),
    AddedToken("</s>", special=True, normalized=False),
    AddedToken("<|im_start|>", special=True, normalized=False),
    AddedToken("<|user|>", special=True, normalized=False, rstrip=True),
    AddedToken("<mask>", special=True, normalized=False, lstrip=True),
    AddedToken("<old>", special=True, normalized=True),
]
MARKS = [
    AddedToken("<tool_call>", special=False, normalized=False),
    AddedToken("<think>", special=False, normalized=True),
    AddedToken("TOOL", special=False, normalized=False, single_word=True),
]
ORDINARY = [
    AddedToken("\n", special=False, normalized=False),
    AddedToken("\n\n", special=False, normalized=False),
    AddedToken("    ", special=False, normalized=False),
    AddedToken("\t", special=False, normalized=False),
    AddedToken("<table>", special=False, normalized=False),
    AddedToken("<tr>", special=False, normalized=True),
    AddedToken("<left>", special=False, normalized=False, lstrip=True),
    AddedToken("<right>", special=False, normalized=False, rstrip=True),
    AddedToken("word", special=False, normalized=False, single_word=True),
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '</s>\n' }}{% endfor %}"
    "{% if tools %}<tool_call>TOOL{% endif %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(*, prefix: bool = False) -> Tokenizer:
    """GPT-2's, SmolLM2's, Llama 3's, Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    return tokenizer


def split_bytes() -> Tokenizer:
    """Those of Llama 3 and Qwen 2.5: a pattern of their own before the bytes, and NFC."""
    tokenizer = byte_level()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def _sentence_pieces(vocab_size: int = 480) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<unk>", *BYTES], show_progress=False)
    tokenizer.train_from_iterator([line.replace("\n", " ") for line in LINES], trainer)
    state = tokenizer.model
    fresh = Tokenizer(state)
    fresh.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fresh.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)])
    return fresh


def llama_legacy() -> Tokenizer:
    """Llama 2's and Mistral's of old: a space before every section between added tokens."""
    tokenizer = _sentence_pieces()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def llama_metaspace() -> Tokenizer:
    """The same as written today: a space before the whole text."""
    tokenizer = _sentence_pieces()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def gemma() -> Tokenizer:
    """Gemma's: no space before anything."""
    tokenizer = _sentence_pieces()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def unigram() -> Tokenizer:
    """T5's and XGLM's: pieces by their score, a space before every section, and no bytes for what is unknown."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "<tool_call>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)])
    return tokenizer


FAMILIES = {
    "byte-level": byte_level,
    "byte-level-prefix": lambda: byte_level(prefix=True),
    "split-bytes": split_bytes,
    "llama-legacy": llama_legacy,
    "llama-metaspace": llama_metaspace,
    "gemma": gemma,
    "unigram": unigram,
}
# Families that normalise nothing away, so that bytes and texts survive.
EXACT = ("byte-level", "byte-level-prefix", "llama-legacy", "llama-metaspace", "gemma")


@cache
def built(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family, with all added tokens."""
    tokenizer = FAMILIES[family]()
    for token in (*SPECIAL, *ORDINARY, *MARKS):
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    unknown = "<unk>" if tokenizer.token_to_id("<unk>") is not None else None
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=unknown)
    fast.chat_template = TEMPLATE
    return fast
