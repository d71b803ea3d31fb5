"""Every Triton kernel compiles for a GPU of the Hopper generation, down to machine code, on a machine that has none, and keeps
all it needs in registers and in shared memory that there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = """
import re, subprocess, sys, tempfile, torch, triton
from pathlib import Path
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from parrot_kernels import activation, bitmask, kv_write, norm, penalties, rope, sample_triton, tiled

class Stop(Exception): pass
compiled = []
SHARED_BYTES = 227 * 1024  # of a program
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64"}

class Recorder:
    '''Stands in for a kernel: a launch becomes a compilation with the launch's own arguments.'''
    def __init__(self, kernel): self.kernel = kernel
    def __getitem__(self, grid):
        def launch(*args, num_warps=4, num_stages=3, enable_fp_fusion=True, **constants):
            names = self.kernel.arg_names
            signature, values, aligned = {}, {}, {}  # as a launch's own: memory that CUDA gives, and the plan's parts, begin at 16 bytes
            for name, value in {**dict(zip(names, args)), **constants}.items():
                i = names.index(name)
                if self.kernel.params[i].is_constexpr:
                    signature[name], values[(i,)] = "constexpr", value
                    continue
                if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
                    aligned[(i,)] = [["tt.divisibility", 16]]
                if isinstance(value, torch.Tensor): signature[name] = TYPES[value.dtype]
                else: signature[name] = "fp32" if isinstance(value, float) else "i32"
            ordered = {name: signature[name] for name in names}
            source = ASTSource(self.kernel, ordered, values, aligned)
            done = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps, "num_stages": num_stages})
            name = self.kernel.__name__ if hasattr(self.kernel, "__name__") else str(self.kernel)
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(done.asm["cubin"]), file.flush()
                told = subprocess.run([TOOL, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
            (stack,) = re.findall(r"STACK:(\\d+)", told)
            assert stack == "0", f"{name} spills {stack} bytes of each thread: {values}"
            assert done.metadata.shared <= SHARED_BYTES, (name, values)
            compiled.append(name)
        return launch

for module in (activation, bitmask, kv_write, norm, penalties, rope, sample_triton, tiled):
    for name, value in list(vars(module).items()):
        if isinstance(value, triton.JITFunction) and name.endswith("_kernel"):
            setattr(module, name, Recorder(value))

from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, attention
from parrot_kernels.tiles import TileLimits
for dtype in (torch.bfloat16, torch.float32):
    rand = lambda *shape: torch.zeros(*shape, dtype=dtype)
    x = rand(4, 128)
    norm.rms_norm_triton(x, rand(128), 1e-6, rand(4, 128))
    activation.gated_triton(rand(4, 256), "silu"); activation.gated_triton(rand(4, 256), "gelu_tanh")
    kv_write.write_kv_triton(rand(4, 2, 64), rand(4, 2, 64), rand(64, 2, 64), rand(64, 2, 64), torch.arange(4))
    rope.rope_and_write_triton(rand(4, 8, 64), rand(4, 2, 64), rand(4, 2, 64), rand(4, 64), rand(4, 64), rand(64, 2, 64), rand(64, 2, 64),
                               torch.arange(4), q_weight=rand(64), k_weight=rand(64), eps=1e-6)
    i, f = torch.zeros(4, dtype=torch.int64), torch.zeros(4)
    bitmask.mask_logits_triton(rand(4, 5000), torch.zeros(4, 157, dtype=torch.int32), i.int())
    for vocabulary in (5000, 151936):
        sample_triton.sample_tokens_triton(rand(4, vocabulary), f, i.int(), f, f, i, i)
    penalties.penalise_triton(rand(4, 5000).float(), i.int(), i.int(), i.int(), f, f, f)
    for heads, kv_heads, dim in ((8, 4, 64), (8, 2, 128), (4, 4, 256), (32, 2, 80)):
        contexts = [ContextRows(40, 1, [0, 1, 2, 3]), ContextRows(40, 1, [0, 1, 2, 4]), ContextRows(40, 100, [0, 1, *range(5, 15)])]
        plan = AttentionPlan.build(contexts, 16, shape=HeadShape(heads, kv_heads, dim, dim, dtype.itemsize), costs=Costs(10**9, 0, 0), tiled=TileLimits(8))
        assert plan.tiles.small.shape[0] and plan.tiles.large.shape[0]
        for options in ({}, {"window": 9, "softcap": 3.0, "sinks": rand(heads)}):
            attention(rand(102, heads, dim), rand(256, kv_heads, dim), rand(256, kv_heads, dim), plan, scale=1.0, **options)
sys.stdout.write(" ".join(sorted(set(compiled))))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_all_kernels_compile():
    done = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=ROOT, env={**__import__("os").environ, "PYTHONPATH": "kernels"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) >= 12, done.stdout
    assert "_mask_kernel" in done.stdout
