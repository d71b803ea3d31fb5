"""Steps of a loaded model: a ragged batch of contexts in, the chosen tokens out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows, HeadShape, PlanTooLargeError, TileLimits, backend, fits
from parrot_nb.engine.embedded.adjust import adjust
from parrot_nb.engine.embedded.blocks import BLOCK_ROWS, BlockRows, Blocks, depends_on_others
from parrot_nb.engine.embedded.cache import KVMemory, LayerShape
from parrot_nb.engine.embedded.fused import PARTS, FusedDecoder
from parrot_nb.engine.embedded.graphs import Capture, DecodeGraphs, cuda_capture, filled_in
from parrot_nb.engine.embedded.linear import PACKED_BYTES
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.scores import ScoredRows
from parrot_nb.engine.embedded.step import Chosen, Run, StepBatch, StepContext
from parrot_nb.engine.embedded.trial import Outcome, Trial, deviation, is_narrow
from parrot_nb.engine.memory import return_freed
from parrot_nb.engine.protocol import Verdict
from parrot_nb.errors import ModelLoadError


class Decoder(Protocol):
    """What computes logits on pages.

    Attributes:
        name: of transformers' class for such models.
        device: where its weights are.
        dtype: of its weights.
        shapes: of what each layer keeps, by the layer's index.
        parts: what runs in place of transformers' own.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    shapes: dict[int, LayerShape]
    parts: tuple[str, ...]

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T].

        KV of the tokens is written to where the run's plan says.
        """
        ...


class Replaceable(Decoder, Protocol):
    """A decoder that a fused one can replace."""

    def in_float32(self) -> AbstractContextManager[None]:
        """A context in which it computes in float32."""
        ...


class StepModel:
    """A loaded model that computes steps. Its methods run in the engine's worker thread.

    Args:
        decoder: the model.
        off: optimisations to do without: "two_phase" (attention reads shared tokens once for all), "graphs".
        fuse: makes a fused decoder of this one, which is a `Replaceable`, or raises LookupError. It is taken if it passes a trial.
        compile: have torch.compile compile the fused decoder's layers, on a CPU.
        give_back: is called when the decoder is needed no more: a fused one has its place, or the model is released.
        text: token ids of ordinary text, for trials.
        reproducible: compute in blocks of always as many rows, so that logits do not depend on what else is in a step.

    Attributes:
        verdicts: what was decided about parts that can run in place of the model's own, and why.
        on_verdict: is told of one that comes after loading, and of the parts that no longer run; in the thread that computes.
    """

    def __init__(
        self,
        decoder: Decoder,
        off: Collection[str] = (),
        fuse: Callable[[], FusedDecoder] | None = None,
        *,
        compile: bool = False,  # noqa: A002 - as torch calls it
        give_back: Callable[[], None] | None = None,
        text: Sequence[int] = (0,),
        reproducible: bool = False,
    ) -> None:
        self._give_back = give_back
        self._reproducible = reproducible
        self._blocks: Blocks | None = None
        self._text = text
        self.verdicts: tuple[Verdict, ...] = ()
        self.on_verdict: Callable[[Verdict, Collection[str]], None] | None = None
        self._decoder: Decoder | None = decoder
        self._fuse = fuse
        self._compile = compile
        self.device, self.dtype, self.shapes = decoder.device, decoder.dtype, decoder.shapes
        self._off = off
        shape = next(iter(self.shapes.values()))  # layers differ little; what pays for one pays for all
        self._heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.key_dim, shape.value_dim, self.dtype.itemsize)
        self._costs = None if "two_phase" in off else self._heads.costs(self.device)
        self._tiled: TileLimits | None = None
        self._graphs: DecodeGraphs | None = None
        self._chosen: Tensor | None = None  # by the step before
        self._memory: KVMemory | None = None
        self._page_size = 0

    def bytes_per_token(self) -> int:
        """KV memory that one token takes, over all layers."""
        return sum(shape.num_bytes(self.dtype.itemsize) for shape in self.shapes.values())

    def prepare(self, page_size: int) -> None:
        """Choose what computes. That lays weights out anew, so it comes before the cache, which gets a share of what is left."""
        self._page_size, given = page_size, self._decoder
        trial = Trial(self._text, page_size, self.shapes, self.device)
        if self._fuse is not None:
            self._try_fused(self._fuse, trial)
            self._fuse = None  # it knows the modules, whose weights would stay beside the packed ones
        if self._compile:
            self._try_compiled(trial)
        if self._give_back is not None and self._decoder is not given:
            self._give_back()
        if self._reproducible:
            self._check_reproducible()

    def _check_reproducible(self) -> None:
        """Refuse what cannot be computed reproducibly: before there is a cache."""
        if self.device.type != "cpu" or self._decoder is None or not set(PARTS) <= set(self._decoder.parts):
            why = next((f" ({verdict})" for verdict in self.verdicts if verdict.part == "fused decoder"), "")
            raise ModelLoadError(f"Only fused decoders on a CPU are reproducible{why}: load this model without --reproducible.")
        memory = KVMemory(self.shapes, (BLOCK_ROWS + 2) * self._page_size, self.dtype, self.device)
        with torch.inference_mode():
            if depends_on_others(self._decoder, memory, self._page_size, self._text):
                raise ModelLoadError(
                    f"Products in {str(self.dtype).removeprefix('torch.')} depend on their other rows on this machine, even where "
                    "these are always as many: load the model without --reproducible."
                )

    def allocate(self, num_pages: int) -> None:
        """Make the cache's memory, and choose how steps are computed on it."""
        # One page more than the pool has: rows that fill up a captured graph write there.
        self._memory = KVMemory(self.shapes, (num_pages + 1) * self._page_size, self.dtype, self.device)
        if self._reproducible:
            assert self._decoder is not None
            self._blocks = Blocks(self._decoder, self._memory, self._page_size, spare_page=num_pages)
        if self.device.type == "cuda" and self._tileable():
            self.use_tiles(2 * torch.cuda.get_device_properties(self.device).multi_processor_count, cuda_capture(), num_pages)

    def _tileable(self) -> bool:
        heads = {(shape.num_heads, shape.num_kv_heads) for shape in self.shapes.values()}
        return len(heads) == 1 and all(
            fits(s.num_heads, s.num_kv_heads, s.key_dim, s.value_dim) and self.dtype.itemsize <= 4 for s in self.shapes.values()
        )

    def use_tiles(self, target_programs: int, capture: Capture, num_pages: int) -> None:
        """Attend by the Triton kernel from now on, and run decode steps as graphs where the decoder is fused."""
        assert self._memory is not None
        self._tiled = TileLimits(target_programs)
        if isinstance(self._decoder, FusedDecoder) and "graphs" not in self._off:
            self._graphs = DecodeGraphs(
                self._decode,
                self._memory,
                num_pages=num_pages,
                page_size=self._page_size,
                shape=self._heads,
                costs=self._costs,
                target_programs=target_programs,
                device=self.device,
                capture=capture,
            )

    def _decide(self, part: str, outcome: Literal["taken", "refused", "unavailable", "failed"], reason: str) -> None:
        self.verdicts += (Verdict(part, outcome, reason),)

    def _try_fused(self, fuse: Callable[[], FusedDecoder], trial: Trial) -> None:
        """Take the fused decoder if there is one for this model and it passes the trial."""
        plain = cast("Replaceable", self._decoder)
        try:
            fused = fuse()
        except LookupError as error:
            return self._decide("fused decoder", "unavailable", f"{error}; the model's own modules run")
        own, found = trial.logits(plain, self.dtype), trial.logits(fused, self.dtype)
        if is_narrow(self.dtype):
            with plain.in_float32():
                truth = trial.logits(plain, torch.float32)
            apart = deviation(trial.logits(fused.widened(), torch.float32), truth, worst=True)
            outcome = Outcome(self.dtype, apart, deviation(found, truth), deviation(own, truth))
        else:
            outcome = Outcome(self.dtype, deviation(found, own, worst=True))
        if outcome.passed:
            self._decoder = fused
            return self._decide("fused decoder", "taken", str(outcome))
        return self._decide("fused decoder", "refused", f"{outcome}; the model's own modules run")

    def _try_compiled(self, trial: Trial) -> None:
        """Take the compiled decoder if there is one for this model and machine and it passes the trial."""
        from parrot_nb.engine.embedded.compiled import PART, CompiledDecoder, copied_bytes, may_compile

        plain = self._decoder
        if not isinstance(plain, FusedDecoder) or self.device.type != "cpu":
            return self._decide(PART, "unavailable", "there are none but for a fused decoder on a CPU")
        if (num_bytes := copied_bytes(plain)) > PACKED_BYTES:
            limit = f"{PACKED_BYTES / 2**30:g} GB"
            copied = f"torch.compile would copy {num_bytes / 2**30:.1f} GB of weights"
            return self._decide(PART, "unavailable", f"{copied}, which pays up to {limit}")
        if not may_compile():
            version = f"torch {torch.__version__} can compile for one engine of a process, and has"
            return self._decide(PART, "unavailable", f"{version}; restart the kernel, or install torch 2.13")
        own = trial.logits(plain, self.dtype)
        compiled = CompiledDecoder(plain)
        try:
            with compiled.compiling():
                found = trial.logits(compiled, self.dtype)
        except Exception as error:  # a compiler can fail in any way, such as by not being installed
            reason = (str(error).strip().splitlines() or [""])[0]
            return self._decide(PART, "failed", f"torch.compile raised {type(error).__name__} ({reason}); the model runs without")
        if is_narrow(self.dtype):
            truth = trial.logits(plain.widened(), torch.float32)
            outcome = Outcome(self.dtype, found=deviation(found, truth), own=deviation(own, truth))
        else:
            outcome = Outcome(self.dtype, deviation(found, own, worst=True))
        if outcome.passed:
            self._decoder = compiled
            return self._decide(PART, "taken", str(outcome))
        return self._decide(PART, "refused", f"{outcome}; the model runs without")

    @property
    def swapped(self) -> tuple[str, ...]:
        """What runs in place of transformers' own modules and functions."""
        attention = "attention row by row in fixed blocks" if self._reproducible else "attention over shared pages"
        parts = (attention,) + (() if self._decoder is None else self._decoder.parts)
        if self._tiled is not None:
            parts += ("Triton kernels",)
        return parts + (("decode steps as CUDA graphs",) if self._graphs is not None else ())

    def release(self) -> None:
        """Drop weights and cache, and give their memory back."""
        weights = None if self._decoder is None else weakref.ref(self._decoder)
        self._memory = self._blocks = None
        self._decoder = self._fuse = self._graphs = self._chosen = None
        self.on_verdict = None  # which knows the engine, whose model this is
        if self._give_back is not None:
            self._give_back()
        if weights is not None and weights() is not None:
            gc.collect()  # what a first import of model classes caught keeps the frames that imported them, in a cycle
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return_freed()

    def step(self, batch: StepBatch) -> Chosen:
        """Compute one ragged step, or have the device begin to."""
        try:
            chosen = self._attempt(batch)
        except BaseException:
            self._chosen = None  # a step that was planned ahead has nothing to go on with
            raise
        self._chosen = chosen.ids
        return chosen

    def _attempt(self, batch: StepBatch) -> Chosen:
        assert self._memory is not None, "allocate() comes first"
        with torch.inference_mode():
            self._memory.copy(batch.copies, self._page_size)
            if self._tiled is None and self.device.type == "cpu":
                return self._step(batch.contexts)
            try:
                return self._step(batch.contexts)
            except Exception as error:
                if not _is_from_triton(error):
                    raise
                before = self.swapped
                self._tiled = self._graphs = None
                backend.disable()
                reason = (str(error).strip().splitlines() or [""])[0]
                self._decide("Triton kernels", "failed", f"one raised {type(error).__name__} ({reason}); torch computes instead")
                if self.on_verdict is not None:
                    self.on_verdict(self.verdicts[-1], set(before) - set(self.swapped))
                return self._step(batch.contexts)  # what the failed attempt wrote is written again

    def _step(self, contexts: Sequence[StepContext]) -> Chosen:
        assert self._memory is not None
        if self._graphs is not None and self._graphs.serves(contexts):
            try:
                return Chosen(self._graphs.step(contexts, self._chosen))
            except PlanTooLargeError:
                pass  # computed without a graph
        sampling = self._sampling(contexts)
        if self._blocks is not None:
            logits = self._blocks.logits([BlockRows(c.token_ids, c.start, c.pages, c.num_samples) for c in contexts])
            return _chosen(logits, contexts, sampling)
        rows = [ContextRows(c.start, len(c.token_ids), c.pages) for c in contexts]
        plan = AttentionPlan.build(rows, self._page_size, self.device, shape=self._heads, costs=self._costs, tiled=self._tiled)
        run = Run(plan, self._memory)
        token_ids = filled_in([token for c in contexts for token in c.token_ids], contexts, self._chosen, self.device)
        positions = [c.start + i for c in contexts for i in range(len(c.token_ids))]
        sampled_rows: list[int] = []
        row = 0
        for context in contexts:
            row += len(context.token_ids)
            sampled_rows += range(row - context.num_samples, row)
        return _chosen(self._forward(token_ids, positions, run, sampled_rows), contexts, sampling)

    def _sampling(self, contexts: Sequence[StepContext]) -> SamplingRows | None:
        """How tokens are chosen after the rows that are sampled; None where none is."""
        samplings, seeds, positions = [], [], []
        for context in contexts:
            for i in range(context.num_samples):
                assert context.sampling is not None
                samplings.append(context.sampling)
                seeds.append(context.seed)
                positions.append(context.position + i)
        return SamplingRows.of(samplings, seeds, positions, self.device) if samplings else None

    def _decode(self, token_ids: Tensor, positions: Tensor, run: Run, rows: SamplingRows) -> Tensor:
        """A decode step on tensors alone: the chosen tokens, int64 [B]."""
        assert self._decoder is not None
        return rows.sample(self._decoder(token_ids, positions, run, None))

    def _forward(self, token_ids: Tensor | Sequence[int], positions: Sequence[int], run: Run, rows: Sequence[int]) -> Tensor:
        """Logits [len(rows), V] after the given rows."""
        assert self._decoder is not None
        keep = torch.tensor(rows or [0], device=self.device)  # an empty selection means "all" to some models
        with torch.inference_mode():
            ids, where = torch.as_tensor(token_ids, device=self.device), torch.tensor(positions, device=self.device)
            return self._decoder(ids, where, run, keep)


def _chosen(logits: Tensor, contexts: Sequence[StepContext], sampling: SamplingRows | None) -> Chosen:
    """What a step samples from logits [S, V], with scores where they are asked for."""
    if sampling is None:
        return Chosen(None)
    scored = ScoredRows.of(logits, contexts)  # before anything changes them
    chosen = sampling.sample(adjust(logits, contexts))
    return Chosen(chosen, None if scored is None else scored.chosen(chosen))


def _is_from_triton(error: BaseException) -> bool:
    """Whether a kernel could not be compiled or launched; memory that runs out is another matter."""
    return type(error).__module__.partition(".")[0] == "triton" and not isinstance(error, MemoryError)
