"""No text becomes a control token, whatever the tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.tokenizer import known_tokenizer
from parrot_nb.errors import EngineError
from parrot_nb.tiny import default_model

SPECIAL = ["<s>", "</s>", "<|im_start|>"]
ADDED = "<tool_call>"


def byte_bpe(*, ignore_merges: bool):
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in (*SPECIAL, ADDED):
        vocab[word] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram():
    pieces = [("<unk>", 0.0), *((s, 0.0) for s in SPECIAL), (ADDED, 0.0), ("▁", -2.0)]
    pieces += [(chr(c), -3.0) for c in range(33, 127)] + [("é", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def metaspace():
    tokenizer = unigram()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


def fast(tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.add_tokens([AddedToken(ADDED, special=False)])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


CODECS = {
    "bytes": TokenizerCodec(fast(byte_bpe(ignore_merges=False))),
    "bytes-ignore-merges": TokenizerCodec(fast(byte_bpe(ignore_merges=True))),
    "unigram-prepend": TokenizerCodec(fast(unigram())),
    "unigram-metaspace": TokenizerCodec(fast(metaspace())),
    "tiny": TokenizerCodec(AutoTokenizer.from_pretrained(default_model())),
    "tiny-known": TokenizerCodec(known_tokenizer(default_model())),
}
hostile = st.lists(
    st.one_of(st.text(max_size=5), st.sampled_from([*SPECIAL, ADDED, " ", "<|turn_end|>", "<|endoftext|>"])), max_size=8
).map("".join)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=80, deadline=None)
@given(text=hostile, first=st.booleans())
def test_no_text_becomes_a_control_token(name, text, first):
    codec = CODECS[name]
    assert codec._control.isdisjoint(codec.encode(text, first=first))


@pytest.mark.parametrize("name", ["bytes", "bytes-ignore-merges", "tiny", "tiny-known"])
@settings(max_examples=80, deadline=None)
@given(text=hostile)
def test_text_survives(name, text):
    codec = CODECS[name]
    assert codec.decode(codec.encode(text)) == text


def test_only_the_beginning_of_a_prompt_gets_a_prefix_space():
    for name in ("unigram-prepend", "unigram-metaspace"):
        codec = CODECS[name]
        space = codec._tokenizer.convert_tokens_to_ids("▁")
        assert codec.encode("ab", first=True)[0] == space
        assert space not in codec.encode("ab")


def test_openings():
    assert CODECS["bytes"].opening_ids == (CODECS["bytes"]._tokenizer.bos_token_id,)
    assert CODECS["tiny"].opening_ids == CODECS["tiny-known"].opening_ids == ()


def test_generated_control_tokens_are_not_carried_over():
    codec = CODECS["bytes"]
    special, added = codec._tokenizer.convert_tokens_to_ids(["</s>", ADDED])
    ids = codec.encode("a")
    assert codec.carried_over([*ids, special, *ids]) == [*ids, *ids]
    assert codec.carried_over([added]) == codec.encode(ADDED)


@pytest.mark.parametrize("system", [None, "Be brief. <|turn_end|>"])
def test_the_chat_frame_writes_what_the_template_does(system):
    codec = CODECS["tiny"]
    texts = ["Hello", "Hi!", "And now?"]
    frame = codec.chat_frame(2, system)
    ids = [*frame[0], *codec.encode(texts[0]), *frame[1], *codec.encode(texts[1]), *frame[2], *codec.encode(texts[2]), *frame[3]]
    messages = [
        {"role": "user", "content": texts[0]},
        {"role": "assistant", "content": texts[1]},
        {"role": "user", "content": texts[2]},
    ]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    assert codec.decode(ids) == codec._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if system is not None:
        end = codec._tokenizer.convert_tokens_to_ids("<|turn_end|>")
        assert ids.count(end) == 4, "three turns and the system's own; the text's is spelled out"
    assert CODECS["tiny-known"].chat_frame(2, system) == frame


def test_a_template_that_loses_a_turn_is_refused():
    tokenizer = fast(byte_bpe(ignore_merges=False))
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(EngineError, match="--raw"):
        TokenizerCodec(tokenizer).chat_frame(2, None)
    tokenizer.chat_template = "{{ nonsense.attribute.lost }}"
    with pytest.raises(EngineError, match="--raw"):
        TokenizerCodec(tokenizer).chat_frame(1, None)
