"""One optimizer step: in parts it has the gradients of the whole batch; without memory it tries smaller parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from fcos_cli.config import with_values
from fcos_cli.data.samples import Dataset
from fcos_cli.data.training_set import Batch, EpochBatches
from fcos_cli.errors import FcosError
from fcos_cli.model.targets import Truth
from fcos_cli.train import step
from fcos_cli.train.batches import image_loader
from fcos_cli.train.run import Run, open_run
from fcos_cli.train.step import NonFiniteLoss, accumulate_gradients, optimizer_step, split_batch
from tests.train.runs import Recorder, config_of, splits


@pytest.fixture(scope="module")
def data(shapes: Path) -> tuple[Dataset, Dataset]:
    return splits(shapes)


@contextmanager
def opened(
    data: tuple[Dataset, Dataset], folder: Path, *, model: dict[str, Any] | None = None, **train: Any
) -> Iterator[tuple[Run, Batch]]:
    """A new run with batches of 5, and its first batch. model: changes of its settings."""
    config = config_of(batch=5, **train)
    if model is not None:
        config = with_values(config, {f"model.{key}": value for key, value in model.items()})
    with open_run(config, *data, folder, listener=Recorder()) as run:
        run.parts.model.train()
        keys = EpochBatches(len(data[0]), batch=5, seed=0, epoch=0).batches
        yield run, next(iter(image_loader(run, keys)))


def notes_of(run: Run) -> list[str]:
    assert isinstance(run.listener, Recorder)
    return list(run.listener.notes)


def gradients(run: Run, batch: Batch, parts: int) -> tuple[Tensor, dict[str, Tensor]]:
    run.accumulation.parts = parts
    total, _ = accumulate_gradients(run, batch)
    named = {name: p.grad.clone() for name, p in run.parts.model.named_parameters() if p.grad is not None}
    return total, named


@pytest.mark.parametrize("by_centerness", [False, True])
def test_gradients_of_parts_equal_those_of_the_whole_batch(
    data: tuple[Dataset, Dataset], tmp_path: Path, model_file: Path, by_centerness: bool
) -> None:
    teacher = str(model_file) if by_centerness else ""
    with opened(data, tmp_path, box_by_centerness=by_centerness, teacher=teacher) as (run, batch):
        # one image without objects: a part without positive points
        classes = batch.truth.classes.clone()
        classes[1] = -1
        batch = batch._replace(truth=Truth(batch.truth.boxes, classes, batch.truth.ignore))
        total, whole = gradients(run, batch, 1)
        for parts in (2, 3, 5):
            again, found = gradients(run, batch, parts)
            assert again.item() == pytest.approx(total.item(), rel=1e-6)
            for name, gradient in whole.items():
                assert (found[name] - gradient).norm() <= 1e-6 * max(1.0, float(gradient.norm())), name


NETWORKS: dict[str, dict[str, Any]] = {
    "dla34, three levels": {"backbone": "dla34", "strides": [8, 16, 32], "ranges": [16, 32]},
    "mobilenetv2_100": {"backbone": "mobilenetv2_100"},
    "a shared tower with a norm per level": {"norm": "batch-per-level", "convs": 0, "shared_convs": 1},
    "towers without norm": {"norm": "none", "top_from": "c5"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_other_networks_is_trained(name: str, data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    with opened(data, tmp_path, model={**NETWORKS[name], "backbone_norm": "trained"}) as (run, batch):
        total, found = gradients(run, batch, 1)
        assert total.isfinite()
        assert found.keys() == {key for key, value in run.parts.model.named_parameters() if value.requires_grad}
        assert all(bool(gradient.isfinite().all()) for gradient in found.values())
        head = [gradient for key, gradient in found.items() if "classification" in key or "shared" in key]
        assert all(float(gradient.abs().max()) > 0 for gradient in head)
        before = {key: value.clone() for key, value in run.parts.model.state_dict().items()}
        assert optimizer_step(run, batch) is not None
        after = run.parts.model.state_dict()
        moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert {key for key in after if key.startswith("head.classification_head.cls_logits")} <= moved
        assert {key for key in after if key.startswith("head.") and "running_mean" in key} <= moved
        assert any(key.startswith("backbone.body.") and key.endswith("running_mean") for key in moved)


def test_a_batch_is_split_into_nearly_equal_parts() -> None:
    batch = Batch(
        torch.arange(5.0).view(5, 1, 1, 1),
        Truth(torch.zeros(5, 1, 4), torch.arange(5).view(5, 1), torch.zeros(5, 1, dtype=torch.bool)),
        list("abcde"),
        [],
    )
    for parts, sizes in ((1, [5]), (2, [2, 3]), (4, [1, 1, 2, 1]), (8, [1] * 5)):
        chunks = split_batch(batch, parts)
        assert sorted(len(chunk.names) for chunk in chunks) == sorted(sizes)
        assert [name for chunk in chunks for name in chunk.names] == batch.names
        assert torch.equal(torch.cat([chunk.truth.classes for chunk in chunks]), batch.truth.classes)


ERRORS = [
    MemoryError("no"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory"),
]


def limit_images(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """Let memory run out for more than `most` images at a time."""
    true = step._forward

    def scarce(run: Run, batch: Batch) -> Any:
        if len(batch.names) > most:
            raise error
        return true(run, batch)

    monkeypatch.setattr(step, "_forward", scarce)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_without_memory_the_step_is_repeated_in_halves(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with opened(data, tmp_path / "a", optimizer="sgd") as (plain, batch):
        expected = optimizer_step(plain, batch)
        weights = {name: value.clone() for name, value in plain.parts.model.state_dict().items()}
    limit_images(monkeypatch, 2, error)
    with opened(data, tmp_path / "b", optimizer="sgd") as (run, batch):
        found = optimizer_step(run, batch)
        assert found == pytest.approx(expected, rel=1e-4)
        for name, value in run.parts.model.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)
        assert run.accumulation.parts == 4
        notes = notes_of(run)
        assert [note for note in notes if "computed in 4 parts; the result is the same" in note]
        optimizer_step(run, batch)
        assert notes_of(run) == notes


@pytest.mark.parametrize("model", [{"backbone_norm": "trained"}, {"norm": "batch"}], ids=str)
def test_parts_that_batch_norm_sees_apart_are_told(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]
) -> None:
    limit_images(monkeypatch, 3, MemoryError())
    with opened(data, tmp_path, model=model) as (run, batch):
        optimizer_step(run, batch)
        notes = notes_of(run)
        assert [note for note in notes if "in 2 parts; BatchNorm normalizes each part by itself" in note]


@pytest.mark.parametrize("error", [MemoryError("nothing left"), MemoryError()], ids=repr)
def test_without_memory_for_one_image_the_run_ends(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: MemoryError
) -> None:
    def none(*_: Any) -> None:
        raise error

    monkeypatch.setattr(step, "_forward", none)
    with opened(data, tmp_path) as (run, batch), pytest.raises(FcosError, match="out of memory") as caught:
        optimizer_step(run, batch)
    assert "--size" in str(caught.value.remedy)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(step, "_forward", wrong)
    with opened(data, tmp_path) as (run, batch), pytest.raises(RuntimeError, match="shapes"):
        optimizer_step(run, batch)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with opened(data, tmp_path) as (run, batch):
        before = {name: value.clone() for name, value in run.parts.model.state_dict().items()}
        if where == "loss":
            true = step.compute_losses
            monkeypatch.setattr(
                step, "compute_losses", lambda *a, **k: {**true(*a, **k), "box": torch.tensor(float("inf"))}
            )
        else:
            run.parts.model.head.classification_head.cls_logits.bias.register_hook(lambda g: g * float("nan"))  # type: ignore[union-attr]
        with pytest.raises(NonFiniteLoss, match="box inf" if where == "loss" else "gradient nan") as caught:
            optimizer_step(run, batch)
        assert caught.value.names == batch.names
        assert all(torch.equal(value, before[name]) for name, value in run.parts.model.state_dict().items())


def test_after_a_loss_that_is_not_finite_float16_goes_on(
    data: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(data, tmp_path) as (run, batch):
        run = replace(run, parts=replace(run.parts, scaler=GradScaler("cpu", init_scale=1024.0)))
        true = step.compute_losses
        with monkeypatch.context() as patch:
            patch.setattr(step, "compute_losses", lambda *a, **k: {**true(*a, **k), "box": torch.tensor(float("inf"))})
            with pytest.raises(NonFiniteLoss, match="box inf"):
                optimizer_step(run, batch)
        before = {name: value.clone() for name, value in run.parts.model.named_parameters()}
        assert optimizer_step(run, batch) is not None
        assert any(not torch.equal(value, before[name]) for name, value in run.parts.model.named_parameters())
