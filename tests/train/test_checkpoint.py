"""Training state: everything is restored, and unusable files raise clear errors."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from fcos_cli.config import TrainConfig
from fcos_cli.errors import DataError
from fcos_cli.train.checkpoint import (
    PREVIOUS,
    STATE,
    STATE_VERSION,
    Parts,
    Progress,
    has_state,
    read_progress,
    read_state,
    restore_state,
    save_state,
)
from fcos_cli.train.optim import build_average, build_optimizer
from fcos_cli.train.schedule import Schedule
from tests.tiny import tiny_model
from tests.train.runs import same

PROGRESS = Progress(step=7, epoch=1, step_in_epoch=2, best=0.25, best_epoch=0, pending_validation=True)


def parts_of(*, seed: int, ema: float = 0.9, **shape: object) -> Parts:
    model = tiny_model(seed=seed, **shape).train()
    config = TrainConfig(ema=ema)
    optimizer = build_optimizer(model, config, pictures=4)
    scaler = GradScaler("cpu", enabled=False)
    return Parts(model, build_average(model, config), optimizer, Schedule(optimizer, warmup=5), scaler)


def worked(parts: Parts, steps: int = 3) -> Parts:
    for _ in range(steps):
        parts.optimizer.zero_grad()
        sum(level.sum() for level in parts.model(torch.rand(1, 3, 64, 64) * 255).cls).backward()  # type: ignore[union-attr]
        parts.optimizer.step()
        parts.schedule.advance(remaining=40)
        if parts.average is not None:
            parts.average.update_parameters(parts.model)
    return parts


def facts(parts: Parts) -> dict[str, object]:
    return {
        name: None if part is None else part.state_dict()  # type: ignore[attr-defined]
        for name, part in vars(parts).items()
    }


def save(folder: Path, parts: Parts, progress: Progress = PROGRESS) -> None:
    save_state(folder, parts, progress, data_hash="abc", tuning={"plans": {}})


def load(folder: Path, parts: Parts) -> Progress:
    return restore_state(read_state(folder, data_hash="abc"), parts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path, worked(parts_of(seed=0)))
    return tmp_path / STATE


@pytest.mark.parametrize("scaled", [False, True])
def test_a_state_is_restored_with_or_without_float16(tmp_path: Path, *, scaled: bool) -> None:
    saved, other = (
        replace(parts_of(seed=0), scaler=GradScaler("cpu", enabled=enabled)) for enabled in (not scaled, scaled)
    )
    before = other.scaler.state_dict()
    save(tmp_path, saved)
    assert load(tmp_path, other) == PROGRESS
    assert other.scaler.state_dict() == before


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_save_and_load_restore_everything(tmp_path: Path, ema: float) -> None:
    saved = worked(parts_of(seed=0, ema=ema))
    torch.manual_seed(5)
    save(tmp_path, saved)
    expected = torch.rand(3)
    other = parts_of(seed=1, ema=ema)
    torch.manual_seed(6)
    assert load(tmp_path, other) == PROGRESS
    assert same(facts(other), facts(saved))
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(1)
    on = worked(saved)
    torch.manual_seed(1)
    assert same(facts(worked(other)), facts(on))  # and both go on alike


def test_loading_never_runs_code(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (path.parent / "owned",))  # type: ignore[return-value]

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError):
        load(path.parent, parts_of(seed=0))
    assert not (path.parent / "owned").exists()


@pytest.mark.parametrize("kept", [0, 10, 2000, -1], ids=str)
def test_truncated_file_is_an_error_with_a_remedy(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="cannot be read") as caught:
        load(path.parent, parts_of(seed=0))
    assert caught.value.where == str(path)
    assert caught.value.remedy == "start a new run"  # there are no weights to start from
    (path.parent / "last.safetensors").touch()
    with pytest.raises(DataError) as caught:
        load(path.parent, parts_of(seed=0))
    assert caught.value.remedy == f"start a new run with --init {path.parent / 'last.safetensors'}"


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, [1, 2], torch.zeros(2)], ids=["empty", "other", "list", "tensor"]
)
def test_foreign_file_is_an_error(path: Path, content: object) -> None:
    torch.save(content, path)
    with pytest.raises(DataError) as caught:
        load(path.parent, parts_of(seed=0))
    assert caught.value.where == str(path)


def test_other_state_version_is_an_error(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, "version": STATE_VERSION + 1}, path)
    with pytest.raises(DataError, match="another version"):
        load(path.parent, parts_of(seed=0))


def test_other_data_is_refused_before_anything_changes(path: Path) -> None:
    parts = parts_of(seed=1)
    before = {key: value.clone() for key, value in parts.model.state_dict().items()}
    with pytest.raises(DataError, match="not what this run started with"):
        restore_state(read_state(path.parent, data_hash="xyz"), parts)
    assert same(parts.model.state_dict(), before)


def test_state_of_another_network_is_an_error(path: Path) -> None:
    for parts in (parts_of(seed=0, channels=32), parts_of(seed=0, convs=2)):
        with pytest.raises(DataError, match="does not fit") as caught:
            load(path.parent, parts)
        assert caught.value.where == str(path)


def test_failed_save_keeps_the_previous_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def half(content: object, file: io.BufferedWriter) -> None:
        file.write(b"half a file")
        raise RuntimeError("killed")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RuntimeError, match="killed"):
        save(path.parent, parts_of(seed=3))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_the_previous_state_stays_beside_the_new_one(path: Path) -> None:
    save(path.parent, worked(parts_of(seed=0)), Progress(step=8))
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([STATE, PREVIOUS])
    assert load(path.parent, parts_of(seed=0)).step == 8
    assert read_state(path.parent, data_hash="abc").problem is None


@pytest.mark.parametrize("kept", [0, 1000, None], ids=str)
def test_a_damaged_state_falls_back_to_the_previous_one(path: Path, kept: int | None) -> None:
    save(path.parent, worked(parts_of(seed=0)), Progress(step=8))
    path.unlink() if kept is None else path.write_bytes(path.read_bytes()[:kept])
    assert has_state(path.parent)
    saved = read_state(path.parent, data_hash="abc")
    assert restore_state(saved, parts_of(seed=0)) == read_progress(path.parent) == PROGRESS
    assert saved.path.name == PREVIOUS
    assert "state.pt cannot be read" in str(saved.problem)


def test_a_folder_without_any_state_is_not_a_run(tmp_path: Path) -> None:
    assert not has_state(tmp_path)
