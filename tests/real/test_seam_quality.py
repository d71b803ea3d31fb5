"""A space at the end of a raw prompt costs a pretrained model no right answer, since its seam is healed."""

from __future__ import annotations

import pytest
from seam_quality import TEMPLATES, count

import parrot_nb as P


def hold_to_it(folder, names) -> None:
    with P.Session(model=folder, device="cpu", dtype="float32", max_context=512):
        for name in names:
            template, questions = TEMPLATES[name]
            without, with_space = (count(template, questions, space=space, heal=True) for space in (False, True))
            assert with_space >= without, name
            assert count(template, questions, space=True, heal=False) < with_space, (
                f"{name}: the seam shows where it is not healed"
            )


def test_smollm2(smollm2_folder):
    hold_to_it(smollm2_folder, ["Country: X, Capital: (two examples)", "The opposite of X is"])


@pytest.mark.slow
def test_gemma(gemma_folder):
    hold_to_it(gemma_folder, list(TEMPLATES))
