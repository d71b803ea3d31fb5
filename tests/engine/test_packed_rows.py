"""Rows read from a matrix that is laid out for oneDNN are the matrix's rows; a layout that is not understood is not read."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from checkpoints import CONFIGS, SHAPE, random_checkpoint, run
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import linear, load_engine
from parrot_nb.engine.embedded.linear import Linear, has_packed_products
from parrot_nb.engine.embedded.packed_rows import packed_rows

pytestmark = pytest.mark.cpu_kinds
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16, torch.float16) if has_packed_products(dtype)]
needs_onednn = pytest.mark.skipif(not DTYPES, reason="there is no oneDNN here")


@needs_onednn
@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(1, 300), width=st.integers(1, 100), dtype=st.sampled_from(DTYPES or [None]), seed=st.integers(0, 2**31)
)
def test_rows_are_the_matrixs_own_or_not_read(num_rows, width, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    plain = torch.randn(num_rows, width, generator=generator).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(plain)
    rows = torch.randint(num_rows, (7,), generator=generator)
    reader = packed_rows(packed, plain)
    if reader is not None:
        assert torch.equal(reader(rows), plain[rows])
        assert torch.equal(reader(torch.arange(num_rows)), plain)
        assert reader(rows[:0]).shape == (0, width)
    assert packed_rows(packed, plain + 1) is None, "a layout is compared with the matrix before it is believed"


@needs_onednn
def test_rows_outlive_the_layer_that_they_are_read_of(monkeypatch):
    monkeypatch.setattr(linear, "LARGE_BYTES", 0)
    plain = torch.randn(200, 50)
    layer = Linear(plain, pack=True)
    layer._plain = None
    reader = layer.row_reader(plain)
    del layer
    gc.collect()
    assert reader is None or torch.equal(reader(torch.arange(200)), plain)


async def nothing(_engine) -> None:
    pass


@needs_onednn
def test_a_tied_embedding_is_held_once(tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "SMALL_BYTES", 0)  # else a small weight is kept plain too
    monkeypatch.setattr(linear, "LARGE_BYTES", 0)
    kept: list[weakref.ref] = []
    read = Linear.row_reader

    def spy(self, plain):
        reader = read(self, plain)
        kept.append(weakref.ref(plain.untyped_storage()) if reader is not None else lambda: None)
        return reader

    monkeypatch.setattr(Linear, "row_reader", spy)
    config = type(CONFIGS["gemma3"]())(**SHAPE, head_dim=8, sliding_window=8)
    engine = load_engine(random_checkpoint(tmp_path, config), dtype="float32")
    gc.collect()
    assert len(kept) == 1
    assert kept[0]() is None, "the plain table is gone where its rows can be read from the packed one"
    run(engine, nothing)
