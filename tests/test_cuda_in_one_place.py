"""Rules of CUDA that hold in one place each, read from the source as in `test_architecture`."""

from __future__ import annotations

import ast

import pytest
from test_architecture import MODULES, imports_of


@pytest.mark.parametrize("module", [module for module in MODULES if module.floor == "engine"], ids=repr)
def test_one_module_of_the_engine_uses_cuda(module):
    """A stand-in can take the place of what goes through one module, and a rule of CUDA's be kept in it."""
    uses = [
        f"line {node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.cuda")
    ]
    uses += [f"line {found.line}" for found in imports_of(module.name) if "cuda" in (found.module, *found.names)]
    assert bool(uses) == (module.name == "parrot_nb.engine.embedded.device"), uses


@pytest.mark.parametrize("module", [module for module in MODULES if module.floor == "kernels"], ids=repr)
def test_every_launch_goes_to_the_device_of_its_tensors(module):
    """Triton launches on the current device, whatever the device of the arguments."""
    launches = {
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Subscript)
        and ast.unparse(node.func.value).endswith("_kernel")
    }
    guarded = {
        node.lineno
        for block in ast.walk(module.tree)
        if isinstance(block, ast.With) and ast.unparse(block.items[0].context_expr).startswith("launching(")
        for node in ast.walk(block)
        if isinstance(node, ast.Call)
    }
    assert launches <= guarded
    assert bool(launches) == ("@triton.jit" in module.path.read_text(encoding="utf-8"))
