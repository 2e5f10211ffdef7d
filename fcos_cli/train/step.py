"""One optimizer step: forward, targets, losses, backward, clipping, update; in parts if memory is short."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fcos_cli.data.training_set import Batch
from fcos_cli.distributed.group import any_process
from fcos_cli.errors import FcosError, first_line
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.losses import compute_losses, mean_over_processes, normalizers
from fcos_cli.model.points import Points
from fcos_cli.model.targets import Targets, Truth, assign_targets, to_box_ends
from fcos_cli.train.checkpoint import start_anew
from fcos_cli.train.distillation import Lesson, Teacher, distillation_loss

if TYPE_CHECKING:
    from fcos_cli.train.run import Run

Terms = dict[str, Tensor]


class NonFiniteLoss(Exception):
    """A loss or gradient is infinite or not a number. names: the images of the batch."""

    def __init__(self, terms: dict[str, float], names: list[str]) -> None:
        super().__init__(", ".join(f"{name} {value:.3g}" for name, value in terms.items()))
        self.names = names


def optimizer_step(run: Run, batch: Batch) -> dict[str, float] | None:
    """Run one step on a batch. Return the loss terms, or None if no image of the batch could be read.

    Raises NonFiniteLoss before anything but the scale of float16 is changed. If memory runs out, the step is repeated
    in halves, and all later steps are computed like that. Raises FcosError if memory runs out for a single image.
    """
    if any_process(not batch.names):
        return None
    while True:
        try:
            total, terms = accumulate_gradients(run, batch)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _use_more_parts(run, batch, error)
    parts = run.parts
    parts.scaler.unscale_(parts.optimizer)
    norm = nn.utils.clip_grad_norm_(parts.model.parameters(), run.config.train.clip)
    broken = not bool(torch.isfinite(total)) or (not parts.scaler.is_enabled() and not bool(torch.isfinite(norm)))
    if any_process(broken):
        parts.scaler.update()  # or it would refuse the next step
        raise NonFiniteLoss({name: value.item() for name, value in {**terms, "gradient": norm}.items()}, batch.names)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    if parts.average is not None:
        parts.average.update_parameters(parts.model)
    named = {"loss": total, **terms, "grad_norm": norm}
    means = mean_over_processes(torch.stack([value.detach().float() for value in named.values()]))
    return dict(zip(named, means.tolist(), strict=True))


def accumulate_gradients(run: Run, batch: Batch) -> tuple[Tensor, Terms]:
    """Compute the gradients of a batch, in `run.accumulation.parts` parts. Return the loss and its terms.

    Every part's sums are divided by the number of positive points of the whole batch, so that the gradients do not
    depend on the number of parts.
    """
    config = run.config.train
    chunks = split_batch(batch, run.accumulation.parts)
    size = (batch.images.shape[-2], batch.images.shape[-1])
    with _synchronizing(run, last=len(chunks) == 1):
        raw = _forward(run, chunks[0])
    points = run.parts.model.points(raw, input_size=size)
    targets = [_targets(run, points, chunk) for chunk in chunks]
    shared = normalizers(targets, box_by_centerness=config.box_by_centerness)
    run.parts.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, (chunk, target) in enumerate(zip(chunks, targets, strict=True)):
        with _synchronizing(run, last=number == len(chunks) - 1):
            outputs = raw if number == 0 else _forward(run, chunk)
            terms = compute_losses(
                outputs,
                target,
                points,
                class_loss=config.class_loss,
                box_loss=config.box_loss,
                box_by_centerness=config.box_by_centerness,
                quality=run.config.model.conventions.quality,
                divide_by=shared,
            )
            total = terms["cls"] + config.box_weight * terms["box"] + config.centerness_weight * terms["centerness"]
            if run.teacher is not None:
                lesson = _lesson(run, run.teacher, chunk)
                terms["teacher"] = distillation_loss(outputs, lesson, points, divide_by=shared.points)
                total = total + config.teacher_weight * terms["teacher"]
            run.parts.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        for name, value in {"total": total, **terms}.items():
            sums[name] = sums.get(name, 0) + value.detach()
        raw = outputs = None  # type: ignore[assignment]  # free its memory before the next part
    return sums.pop("total"), sums


def _synchronizing(run: Run, *, last: bool) -> AbstractContextManager[None]:
    """With several processes, average gradients in the backward pass of the last part only."""
    if isinstance(run.network, DistributedDataParallel) and not last:
        return run.network.no_sync()
    return nullcontext()


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into at most `parts` parts of nearly equal size."""
    edges = [round(index * len(batch.names) / parts) for index in range(parts + 1)]
    return [
        Batch(batch.images[a:b], Truth(*(tensor[a:b] for tensor in batch.truth)), batch.names[a:b], [])
        for a, b in pairwise(edges)
        if b > a
    ]


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch or Python ran out of memory, on a GPU or on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _use_more_parts(run: Run, batch: Batch, error: Exception) -> None:
    """Halve the parts of a step. Raises FcosError if they are single images, or if there are several processes."""
    run.parts.optimizer.zero_grad(set_to_none=True)
    if run.accumulation.parts >= len(batch.names) or run.world.size > 1:
        remedy = f"one image at a time is too much: {start_anew(run.folder)} and a smaller --size"
        if run.world.size > 1:
            remedy = f"raise train.accumulate in {run.folder / 'config.toml'} and continue with --resume"
        raise FcosError(f"out of memory ({first_line(error)})", remedy=remedy) from error
    run.accumulation.parts *= 2
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    norms = {run.config.model.backbone_norm, run.config.model.norm}
    same = norms.isdisjoint({"trained", "batch", "batch-per-level"})
    effect = "the result is the same" if same else "BatchNorm normalizes each part by itself"
    run.listener.note(f"out of memory: from now on each batch is computed in {run.accumulation.parts} parts; {effect}")


def _forward(run: Run, batch: Batch) -> RawOutputs:
    with _autocast(run):
        raw: RawOutputs = run.network(batch.images.to(run.device, non_blocking=True))
    return raw


def _lesson(run: Run, teacher: Teacher, batch: Batch) -> Lesson:
    with _autocast(run):
        return teacher(batch.images.to(run.device, non_blocking=True))


def _autocast(run: Run) -> AbstractContextManager[None]:
    dtype = run.precision.dtype
    return torch.autocast(run.device.type, dtype=dtype, enabled=dtype is not None)


def _targets(run: Run, points: Points, batch: Batch) -> Targets:
    model = run.config.model
    truth = Truth(*(tensor.to(run.device, non_blocking=True) for tensor in batch.truth))
    return assign_targets(
        points, to_box_ends(truth, model.conventions), ranges=model.ranges, conventions=model.conventions
    )
