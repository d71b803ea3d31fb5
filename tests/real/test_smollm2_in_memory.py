"""Memory that SmolLM2 takes once it is loaded: one copy of its weights, and little else."""

from __future__ import annotations

import sys

import pytest
from in_memory import check_one_copy

from parrot_nb.engine.embedded.linear import has_packed_products

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]


def test_one_copy_of_the_weights_and_a_hundred_megabytes(smollm2_folder):
    import torch

    if not has_packed_products(torch.bfloat16):
        pytest.skip("oneDNN has no bfloat16 products on this CPU")
    check_one_copy(smollm2_folder)
