"""Which tokens end a text: those that any file of the model names, the chat template's own, and special ones asked for."""

from __future__ import annotations

import json

import pytest
from checkpoints import PRIORITY, SHAPE, VOCAB, change_config, random_checkpoint, run, write
from transformers import LlamaConfig

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling

BOS, EOS = VOCAB - 2, VOCAB - 1
TEMPLATE = "{% for m in messages %}{{ m.role + m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    return random_checkpoint(tmp_path / "model", LlamaConfig(**SHAPE))


@pytest.mark.parametrize("by_modules", [False, True])
def test_any_file_may_name_an_end(folder, by_modules):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    change_config(folder, eos_token_id=5, **({"unheard_of": 1} if by_modules else {}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    engine = load_engine(folder)
    assert engine._starter.eos_ids == {3, 4, 5, EOS}
    run(engine, _nothing)
    settings = {key: value for key, value in settings.items() if key != "eos_token"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    engine = load_engine(folder)
    assert engine._starter.eos_ids == {3, 4, 5}
    run(engine, _nothing)
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    engine = load_engine(folder)
    assert engine._starter.eos_ids == {3, 4, 5, EOS}, "the template writes it after an answer"
    run(engine, _nothing)


async def _nothing(_engine):
    pass


@pytest.mark.parametrize("name", ["<eos>", "<bos>"])
def test_special_tokens_as_stop_strings(folder, name):
    token = {"<eos>": EOS, "<bos>": BOS}[name]

    async def sampled(engine):
        found = []
        for seed in range(8):
            texts = []
            for stop in ((), (name,)):
                context = engine.open(PRIORITY)
                engine.fill(context, [1, 2, 3])
                sampling = Sampling(200, temperature=50.0, seed=seed, ignore_eos=True, stop=stop)
                text, end = await write(engine, context, sampling)
                texts.append((text, end, engine._contexts[context].tokens[3:]))
                engine.free(context)
            found.append(texts)
        return found

    num_stopped = 0
    for (whole, long, _), (text, end, tokens) in run(load_engine(folder), sampled):
        assert long.finish == "length"
        if end.finish == "length":
            assert text == whole
            continue
        num_stopped += 1
        assert end.decoded_tokens <= 200
        assert token not in tokens
        assert whole.startswith(text.rstrip("\ufffd"))
        assert end.decoded_tokens < long.decoded_tokens
    assert num_stopped
