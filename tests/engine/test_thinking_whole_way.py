"""Thinking through the public surface on the embedded engine, against what transformers generates in two stretches."""

from __future__ import annotations

import asyncio
import time
from html import escape
from pathlib import Path

import pytest
import torch
import transformers as hf
from checkpoints import SHAPE
from test_frames import CHATML
from thinking_models import THINKERS

import parrot_nb as P
from parrot_nb.engine.embedded.thinking import QWEN_SENTENCE
from parrot_nb.notebook.values import variables_bundle
from parrot_nb.notebook.widget.details import details
from parrot_nb.record.codec import from_json, to_json
from parrot_nb.runtime import events

WAIT_S = 60
ENDS = {"gpt-oss": "<|end|>"}
OPENS = {"deepseek-v3.1": "<think>", "gpt-oss": "<|channel|>analysis<|message|>"}
CLOSES = {"smollm3": "</think>\n", "deepseek-v3.1": "</think>", "gpt-oss": "<|end|><|start|>assistant<|channel|>final<|message|>"}
QUESTION = "Why is it so?"


class Model:
    """A random checkpoint with a reasoning model's tokenizer."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        self.tokenizer = THINKERS[name]()
        shape = {**SHAPE, "vocab_size": len(self.tokenizer), "bos_token_id": None, "eos_token_id": self.tokenizer.eos_token_id}
        torch.manual_seed(3)
        self.model = hf.LlamaForCausalLM(hf.LlamaConfig(**shape | {"max_position_embeddings": 400})).eval()
        self.end_id = self.tokenizer.convert_tokens_to_ids(ENDS.get(name, "</think>"))
        self.opens, self.closes = OPENS.get(name, "<think>\n"), CLOSES.get(name, "</think>\n\n")
        with torch.no_grad():  # never likeliest: special tokens are left out of texts, so that the context would be another
            self.model.lm_head.weight[list(self.tokenizer.added_tokens_decoder)] = 0.0
        if name != "qwen3-text":
            self._ends_its_thoughts()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _ends_its_thoughts(self) -> None:
        """Have the mark that ends thoughts be likelier than one of the tokens that it would write, behind a whole character."""
        head = self.model.lm_head.weight
        with torch.no_grad():
            written = self.generated(self.asked(QUESTION) + self.ids(self.opens), 40)
            for scale, token in ((scale, token) for token in written[8:] for scale in (1.02, 1.3)):
                head[self.end_id] = scale * head[token]
                thoughts = self.expected(self.asked(QUESTION), 60, 1)[0]
                if self.num_thought < 60 and thoughts and not thoughts.endswith("\ufffd"):
                    return
            raise AssertionError("no token will do")

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def asked(self, *contents: str, thinking: bool = True) -> list[int]:
        roles = ["user", "assistant"]
        messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking, thinking=thinking
        )
        return self.ids(text.removesuffix(self.opens) if thinking else text)

    def generated(self, ids: list[int], num_tokens: int) -> list[int]:
        config = hf.GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
        prompt = torch.tensor([ids])
        out = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        return out[0, len(ids) :].tolist()

    def expected(self, ids: list[int], budget: int, num_tokens: int) -> tuple[str, str, int]:
        """(thoughts, answer, tokens sampled of the former)."""
        ids = ids + self.ids(self.opens)
        thoughts = self.generated(ids, budget)
        closes, num_thought = self.closes, len(thoughts)
        if self.end_id in thoughts:
            num_thought = thoughts.index(self.end_id) + 1
            thoughts = thoughts[: num_thought - 1]
        elif self.name.startswith("qwen3"):
            closes = f"\n\n{QWEN_SENTENCE}\n{closes}"
        elif self.opens.endswith("\n"):
            closes = f"\n{closes}"
        self.num_thought = num_thought
        answer = self.generated(ids + thoughts + self.ids(closes), num_tokens)
        return self.text(thoughts), self.text(answer), num_thought

    def text(self, ids: list[int]) -> str:
        special = {token_id for token_id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return self.tokenizer.decode([token for token in ids if token not in special], skip_special_tokens=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in made:
            made[name] = Model(tmp_path_factory.mktemp(name.replace(".", "-")), name)
        return made[name]

    return get


def session(model: Model, **options) -> P.Session:
    return P.Session(model=model.folder, device="cpu", dtype="float32", max_tokens=12, ignore_eos=True, **options)


def f(template: str = "{{input:x}}{{output:y}}", **options) -> P.SemanticFunction:
    return P.SemanticFunction(template, name="f", options=P.language.Options.checked(**options))


NAMES = [name for name in THINKERS if name != "qwen3-text"]


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_to_their_mark_and_then_the_answer(models, name):
    model = models(name)
    thoughts, answer, num_thought = model.expected(model.asked(QUESTION), 60, 12)
    assert num_thought < 60
    with session(model):
        value = f(thinking=True)(QUESTION)
        assert value.get(timeout=WAIT_S) == answer
        assert value.thinking == thoughts
        assert value.usage.thinking_tokens == num_thought
        assert value.usage.decoded_tokens == num_thought + 12
        assert repr(value) == f"<variable y: {answer!r}>" or thoughts not in repr(value)


def test_a_type_is_of_the_answer_and_not_of_the_thoughts(models):
    model = models(NAMES[0])
    thoughts, _, num_thought = model.expected(model.asked(QUESTION), 60, 12)
    with P.Session(model=model.folder, device="cpu", dtype="float32", max_tokens=12):
        value = f("{{input:x}}{{output:y: 'yes' | 'no'}}", thinking=True)(QUESTION)
        assert value.get(timeout=WAIT_S) in ("yes", "no")
        assert value.thinking == thoughts
        assert value.usage.thinking_tokens == num_thought
        scored = f("{{input:x}}{{output:y: 'yes' | 'no'}}", thinking=True, score=True)(QUESTION)
        assert scored.get(timeout=WAIT_S) == max(scored.scores, key=scored.scores.get)
        assert scored.thinking == thoughts
        for feedback in (False, True):
            asked = f("{{input:x}}{{output:y: 'yes' | 'no'}}", thinking=True, retries=1, feedback=feedback)
            refused = asked.options(check=lambda y: y == "maybe")(QUESTION)
            with pytest.raises(P.CheckError, match="refused 2 times"):
                refused.get(timeout=WAIT_S)
            assert refused.thinking == thoughts


@pytest.mark.parametrize("name", THINKERS)
@pytest.mark.parametrize("budget", [1, 5])
def test_a_budget_ends_them(models, name, budget):
    model = models(name)
    thoughts, answer, _ = model.expected(model.asked(QUESTION), budget, 12)
    with session(model):
        value = f(thinking=budget)(QUESTION)
        assert (value.get(timeout=WAIT_S), value.thinking) == (answer, thoughts)
        assert value.usage.thinking_tokens == budget


@pytest.mark.parametrize("name", THINKERS)
def test_off(models, name):
    model = models(name)
    always = name in ("deepseek-r1", "gpt-oss")
    empty = {"deepseek-r1": "<think>\n\n</think>\n\n", "gpt-oss": "<|channel|>final<|message|>"}.get(name, "")
    ids = model.asked(QUESTION, thinking=always) + model.ids(empty)
    with session(model):
        value = f(thinking=False)(QUESTION)
        assert value.get(timeout=WAIT_S) == model.text(model.generated(ids, 12))
        assert value.thinking is None
        assert value.usage.thinking_tokens == 0
        unsaid = f()(QUESTION)
        unsaid.get(timeout=WAIT_S)
        assert (unsaid.thinking is not None) == always


def test_without_a_budget_they_leave_room_for_the_answer(models):
    model = models("qwen3-text")  # it never writes the mark
    with session(model):
        value = f(thinking=True)(QUESTION)
        assert len(model.ids(value.get(timeout=WAIT_S))) > 0
        assert value.finish == "length"
        usage = value.usage
        assert usage.decoded_tokens - usage.thinking_tokens == 12
        assert usage.prefilled_tokens + usage.reused_tokens + usage.decoded_tokens in range(
            399, 402
        )  # the last thought is computed with the marks


def test_several_outputs_forget_earlier_thoughts(models):
    for name in ("qwen3", "deepseek-r1", "gpt-oss"):
        model = models(name)
        first_thoughts, first, _ = model.expected(model.asked("One?"), 6, 12)
        again = {"gpt-oss": model.ids("<|channel|>final<|message|>")}.get(name, [])
        turns = {
            "qwen3": "<|im_end|>\n<|im_start|>user\nAnd two?<|im_end|>\n<|im_start|>assistant\n",
            "deepseek-r1": "<｜end▁of▁sentence｜><｜User｜>And two?<｜Assistant｜>",
            "gpt-oss": "<|end|><|start|>user<|message|>And two?<|end|><|start|>assistant",
        }[name]
        with session(model):
            one, two = f("One?{{output:one}}And two?{{output:two}}", thinking=6)()
            assert (one.get(timeout=WAIT_S), one.thinking) == (first, first_thoughts)
            (span,) = one.node.spans
            ids = [*model.asked("One?"), *again, *span.token_ids, *model.ids(turns)]
            second_thoughts, second, _ = model.expected(ids, 6, 12)
            assert (two.get(timeout=WAIT_S), two.thinking) == (second, second_thoughts)


def test_begin_belongs_to_the_answer(models):
    model = models("qwen3")
    with session(model):
        value = f(thinking=4, begin="So ", heal=False)(QUESTION)
        text = value.get(timeout=WAIT_S)
        assert text.startswith("So ")
        assert not value.thinking.startswith("So ")
        assert value.thinking == model.expected(model.asked(QUESTION), 4, 1)[0]


def test_what_came_out_is_not_thought_twice(models):
    with session(models("qwen3")):
        values = [f(thinking=True)(QUESTION) for _ in range(2)]
        texts = [value.get(timeout=WAIT_S) for value in values]
        again = f(thinking=True)(QUESTION)
        assert again.get(timeout=WAIT_S) == texts[0] == texts[1]
        assert again.thinking == values[0].thinking
        assert again.usage.from_memo
        assert again.usage.thinking_tokens == 0
        other = f(thinking=3)(QUESTION)
        other.get(timeout=WAIT_S)
        assert not other.usage.from_memo


def test_a_seed_makes_both_reproducible(models):
    def written(seed: int, together: int) -> list[tuple[str, str | None]]:
        with session(models("qwen3"), temperature=1.0, fresh=True):
            values = [f(thinking=8, seed=seed + i)(QUESTION) for i in range(together)]
            return [(value.get(timeout=WAIT_S), value.thinking) for value in values]

    alone = written(5, 1)[0]
    together = written(5, 4)
    assert together[0] == alone
    assert len({thinking for _, thinking in together}) > 1


def test_text_so_far_while_it_thinks_and_cancelling(models):
    model = models("qwen3-text")
    with session(model) as s:
        value = f(thinking=True)(QUESTION)
        value.submit()
        s.flush()

        waiting = time.monotonic() + WAIT_S
        while not value.thinking and time.monotonic() < waiting:
            time.sleep(0.001)
        assert value.thinking
        seen = value.node.pieces[:]
        value.cancel()
        with pytest.raises(P.ParrotError):
            value.get(timeout=WAIT_S)
        assert value.state == "cancelled"
        waiting = time.monotonic() + WAIT_S
        while any(load.owned_pages for load in s.loads().values()) and time.monotonic() < waiting:
            time.sleep(0.01)
        assert [load.owned_pages for load in s.loads().values()] == [0]
        assert seen == []
        whole = f(thinking=5)(QUESTION)
        assert "".join(asyncio.run(_all(whole))) == whole.get(timeout=WAIT_S)


async def _all(value) -> list[str]:
    return [piece async for piece in value.stream()]


def test_models_that_cannot_say_so(models):
    with P.Session(max_tokens=4, chat=False), pytest.raises(P.OptionError, match="without chat template"):
        f(thinking=True)("a").get(timeout=WAIT_S)
    with session(models("qwen3"), chat=False):
        for asked in (True, 9):
            with pytest.raises(P.OptionError, match="without chat template"):
                f(thinking=asked)("a").get(timeout=WAIT_S)
        assert f(thinking=False)("a").get(timeout=WAIT_S)


def test_a_chat_template_without_marks(models, tmp_path):
    model = models("qwen3")
    model.model.save_pretrained(tmp_path)
    plain = THINKERS["qwen3"]()
    plain.chat_template = CHATML
    plain.save_pretrained(tmp_path)
    with P.Session(model=tmp_path, device="cpu", dtype="float32", max_tokens=4) as s:
        with pytest.raises(P.OptionError, match="'f' asks for thinking, but the model's chat template has no marks for it"):
            f(thinking=True)(QUESTION).get(timeout=WAIT_S)
        for options in ({}, {"thinking": False}):
            value = f(**options)(QUESTION)
            value.get(timeout=WAIT_S)
            assert value.thinking is None
        assert s.options.thinking is None


def test_the_log_tells_thoughts_and_text_apart(models):
    with session(models("qwen3")) as s:
        value = f(thinking=6)(QUESTION)
        text = value.get(timeout=WAIT_S)
        log = s.events.since(0)
        thoughts = [e for e in log if isinstance(e, events.ThinkingAppended)]
        texts = [e for e in log if isinstance(e, events.TextAppended)]
        assert "".join(e.text for e in thoughts) == value.thinking
        assert "".join(e.text for e in texts) == text
        assert (sum(e.num_tokens for e in thoughts), sum(e.num_tokens for e in texts)) == (6, 12)
        (end,) = [e for e in log if isinstance(e, events.VariableChanged) and e.state == "done" and e.usage is not None]
        assert (end.decoded_tokens, end.usage.thinking_tokens) == (12, 6)
        assert [from_json(to_json(e)) for e in [*thoughts, end]] == [*thoughts, end]


def test_views_fold_thoughts_away(models):
    with session(models("qwen3")) as s:
        value, plain = f(thinking=6)(QUESTION), f()(QUESTION)
        P.gather(value, plain).get(timeout=WAIT_S)
        bundle = variables_bundle([value.node], {})
        head, _, body = bundle["text/html"].partition("</details>")
        assert "<summary>thought for 6 tokens</summary>" in head
        assert escape(value.thinking) in head
        assert escape(value.thinking) not in body
        assert "thought for 6 tokens" in bundle["text/plain"]
        assert value.thinking not in bundle["text/plain"]
        assert "details" not in variables_bundle([plain.node], {})["text/html"]
        (shown,) = details(value.producer, s.calls(), None, 0.0)["outputs"]
        assert shown["thinking"] == {"text": value.thinking, "cut": 0, "said": "thought for 6 tokens"}
        assert shown["text"] == value.get()
        (shown,) = details(plain.producer, s.calls(), None, 0.0)["outputs"]
        assert shown["thinking"] is None


def test_nothing_of_them_reaches_a_reader(models):
    model = models("qwen3")
    with session(model):
        first = f("{{input:x}}{{output:y}}", thinking=6)(QUESTION)
        second = f("Read {{input:x}}.{{output:y}}", thinking=False)(first)
        text = second.get(timeout=WAIT_S)
        (span,) = first.node.spans
        whole = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Read \x00."}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        start, end = whole.split("\x00")
        assert text == model.text(model.generated([*model.ids(start), *span.token_ids, *model.ids(end)], 12))


def test_render_shows_the_marks(models):
    model = models("qwen3")
    with session(model):
        segments = f(thinking=True).render(x=QUESTION)
        ids = [token for segment in segments for token in segment.token_ids]
        assert ids == model.asked(QUESTION) + model.ids("<think>\n") + model.ids("</think>\n\n")
        kinds = [segment.kind for segment in segments]
        assert kinds == ["frame", "input", "frame", "thinking", "frame", "output"]
        assert segments[2].text.endswith("<think>\n")
        assert segments[4].text == "</think>\n\n"


def test_thoughts_and_answer_come_back_from_a_store(models, tmp_path):
    model = models(NAMES[0])
    ask = {
        "open": f(thinking=True),
        "bounded": f(thinking=5),
        "none": f(thinking=False),
        "typed": f("{{input:x}}{{output:y: 'yes' | 'no'}}", thinking=True),
    }

    def known(value: P.SemanticVariable) -> tuple[object, ...]:
        return value.get(timeout=WAIT_S), value.thinking, value.text, value.finish

    with session(model, store=tmp_path / "results.db"):
        made = {name: known(each(QUESTION)) for name, each in ask.items()}
    thoughts, answer, _ = model.expected(model.asked(QUESTION), 60, 12)
    assert made["open"][:2] == (answer, thoughts)
    with session(model, store=tmp_path / "results.db"):
        again = {name: each(QUESTION) for name, each in ask.items()}
        assert {name: known(value) for name, value in again.items()} == made
        assert [name for name, value in again.items() if value.usage.decoded_tokens or not value.usage.from_memo] == []
        other = f(thinking=6)(QUESTION)
        assert known(other)[1] != made["bounded"][1]
        assert other.usage.decoded_tokens > 0, "another bound is another text"
