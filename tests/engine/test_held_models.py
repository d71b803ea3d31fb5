"""A model that the user holds: served as it is, and the same afterwards."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from checkpoints import SHAPE, byte_tokenizer
from torch import nn

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.modules import ATTENTION_NAME
from parrot_nb.errors import ModelLoadError, SessionError, UnsupportedModelError

KINDS = {
    "fused": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE)),
    "by modules": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.35, bos_token_id=256, eos_token_id=257)
    ),
}  # fmt: skip
TEXT = "a text that the model was tuned on"


def tuned(kind: str) -> hf.PreTrainedModel:
    """A random model after a step of training, in training mode."""
    torch.manual_seed(1)
    model = KINDS[kind]().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.tensor([list(TEXT.encode())])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return model


def generated(model: hf.PreTrainedModel, prompt: str, num_tokens: int = 16) -> str:
    ids = torch.tensor([byte_tokenizer()(prompt, add_special_tokens=False)["input_ids"]])
    was_training = model.training
    model.eval()
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    model.train(was_training)
    return byte_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@P.semantic_function(chat=False, max_tokens=16, ignore_eos=True)
def go_on(prompt):
    """{{input:prompt}}{{output:rest}}"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_tuned_model_is_served_and_given_back(kind):
    model = tuned(kind)
    model.config._attn_implementation = "sdpa"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    expected = generated(model, "Once")
    with P.Session(model=model, tokenizer=byte_tokenizer(), kv_memory="4MB") as session:
        assert go_on("Once").get() == expected
        info = session.models()[0]
        assert info.id == info.architecture == type(model).__name__
        assert info.dtype == "float32"
        assert ("QKV projection" in info.swapped) == (kind == "fused")
    assert model.config._attn_implementation == "sdpa"
    assert all(part.training for part in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == places, "the weights lie where they lay"
    assert generated(model, "Once") == expected
    ids = torch.tensor([list(TEXT.encode())])
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_model_whose_place_is_taken_by_a_fused_decoder_stays_usable_meanwhile():
    model = tuned("fused").eval()
    expected = generated(model, "Once")
    with P.Session(model=model, tokenizer=byte_tokenizer(), kv_memory="4MB"):
        go_on("Once").get()
        assert generated(model, "Once") == expected
    assert not model.training


def test_a_model_that_is_in_use_says_so():
    model = tuned("by modules")
    with P.Session(model=model, tokenizer=byte_tokenizer(), kv_memory="4MB"):
        go_on("Once").get()
        with pytest.raises(UnsupportedModelError, match="served by a session now"):
            model(input_ids=torch.tensor([[1, 2]]))


def test_two_sessions_share_a_model_and_the_last_gives_it_back():
    model = tuned("by modules")
    expected = generated(model, "Once")
    first, second = (P.Session(model=model, tokenizer=byte_tokenizer(), kv_memory="4MB") for _ in range(2))
    for session in (first, second):
        with session:
            assert go_on("Once").get() == expected
            if session is first:
                second.load_model(model, tokenizer=byte_tokenizer())
        assert (model.config._attn_implementation == ATTENTION_NAME) == (session is first)
    assert model.training


def test_a_session_can_change_to_a_model_that_the_user_holds_and_back():
    model = tuned("fused")
    expected = generated(model, "Once")
    with P.Session(kv_memory="4MB") as session:
        assert session.load_model(model, tokenizer=byte_tokenizer()).id == "LlamaForCausalLM"
        assert go_on("Once").get() == expected
        assert session.load_model("parrot-tiny").id == "parrot-tiny"
        assert model.training


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_layers_that_are_more_than_they_seem_are_not_replaced():
    """Too little for logits of a trial to show: what counts is the class, and what hangs on it."""
    odd, hooked = tuned("fused"), tuned("fused")
    plain = odd.model.layers[0].self_attn.q_proj
    odd.model.layers[0].self_attn.q_proj = replacement = Doubled(plain.in_features, plain.out_features, bias=False)
    replacement.weight = nn.Parameter(plain.weight / 2)
    handle = hooked.model.layers[0].mlp.up_proj.register_forward_hook(lambda module, args, out: out)
    for model in (odd, hooked):
        with P.Session(model=model, tokenizer=byte_tokenizer(), kv_memory="4MB") as session:
            assert go_on("Once").get() == generated_alone(model)
            assert "QKV projection" not in session.models()[0].swapped
    handle.remove()


def generated_alone(model):
    with P.Session(model=model, tokenizer=byte_tokenizer(), off=("fused",), kv_memory="4MB"):
        return go_on("Once").get()


def test_what_cannot_be_served_is_refused_in_a_sentence():
    model, tokenizer = tuned("fused"), byte_tokenizer()

    def refused(kind, match, *args, **settings):
        with pytest.raises(kind, match=match) as caught:
            P.Session(*args, **settings)
        assert "\n" not in str(caught.value)

    refused(ModelLoadError, r"PreTrainedModel\), not Linear", nn.Linear(2, 2), tokenizer=tokenizer)
    refused(ModelLoadError, "needs its tokenizer", model)
    refused(ModelLoadError, "fast tokenizer", model, tokenizer="mine")
    refused(SessionError, "brings its own", "parrot-tiny", tokenizer=tokenizer)
    with torch.device("meta"):
        empty = hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE))
    refused(ModelLoadError, "meta device", empty, tokenizer=tokenizer)
    t5 = hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=258, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
    refused(UnsupportedModelError, "does not write text as a decoder", t5, tokenizer=tokenizer)
    quantised = tuned("fused")
    quantised.is_quantized = True
    refused(UnsupportedModelError, "quantised weights", quantised, tokenizer=tokenizer)
    with pytest.raises(ModelLoadError, match="not in bfloat16"):
        load_engine(model, tokenizer=tokenizer, dtype="bfloat16")
    with pytest.raises(ModelLoadError, match="not on cuda"):
        load_engine(model, tokenizer=tokenizer, device="cuda")


def test_a_model_that_the_engine_cannot_run_is_given_back():
    model = hf.MambaForCausalLM(hf.MambaConfig(vocab_size=258, hidden_size=16, state_size=4, num_hidden_layers=2)).train()
    attention = model.config._attn_implementation
    with pytest.raises(UnsupportedModelError):
        load_engine(model, tokenizer=byte_tokenizer())
    assert model.training
    assert model.config._attn_implementation == attention
