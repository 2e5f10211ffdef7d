"""Settings that are wrong on purpose: files, environment, `--set` and flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fcos_cli.config import resolve
from fcos_cli.errors import UsageError
from tests.cli_runner import Fcos
from tests.hostile.contract import contents, outcome


class Setting(NamedTuple):
    """One way to set something wrong. given: arguments of `resolve`; file: text of the TOML file; expect: the error."""

    name: str
    given: dict[str, Any]
    expect: str
    file: str | bytes | Callable[[], str] | None = None


def assign(*texts: str) -> dict[str, Any]:
    return {"assignments": list(texts)}


def environ(**values: str) -> dict[str, Any]:
    return {"environ": values}


def many_keys() -> str:
    return "[train]\n" + "\n".join(f"key{n} = {n}" for n in range(20_000))


SETTINGS = [
    Setting("set-text-for-number", assign("train.lr=fast"), "valid number"),
    Setting("convention-below-0", assign("model.conventions.radius=-1"), "not a number from 0"),
    Setting("convention-too-large", assign("model.conventions.radius=2000000"), "not a number from 0"),
    Setting("set-list-for-number", assign("train.lr=[1]"), "valid number"),
    Setting("set-fraction-for-count", assign("train.epochs=1.5"), "valid integer"),
    Setting("set-nan", assign("train.lr=nan"), "finite|greater than 0"),
    Setting("set-infinity", assign("train.lr=inf"), "finite"),
    Setting("set-nan-weight", assign("train.box_weight=nan"), "finite|greater"),
    Setting("set-nan-in-list", assign("augment.scale=[nan, 1]"), "finite|greater"),
    Setting("set-infinite-time", assign("train.time=inf"), "finite"),
    Setting("set-infinite-range", assign("model.ranges=[1, 2, 3, inf]"), "finite"),
    Setting("set-nan-mean", assign("model.mean=[nan, 0, 0]"), "finite"),
    Setting("set-std-0", assign("model.std=[0, 0, 0]"), "greater than 0"),
    Setting("set-negative", assign("train.batch=-1"), "greater than or equal to 1"),
    Setting("set-zero", assign("train.epochs=0"), "greater than or equal to 1"),
    Setting("set-above-one", assign("augment.flip=1.01"), "less than or equal to 1"),
    Setting(
        "set-number-of-400-digits",
        assign("train.epochs=" + "9" * 400),
        "(?i)less than or equal to 1000000|unable to parse",
    ),
    Setting("set-number-of-5000-digits", assign("train.epochs=" + "9" * 5000), "(?i)valid integer|unable to parse"),
    Setting("set-size-of-400-digits", assign(f"data.size=[{'9' * 400}, 320]"), "less than"),
    Setting("set-size-a-million", assign("data.size=[1000000, 1000000]"), "less than"),
    Setting("set-channels-huge", assign("model.channels=1000000000"), "less than"),
    Setting("set-convs-huge", assign("model.convs=1000000000"), "less than"),
    Setting("set-batch-huge", assign("train.batch=10000000000"), "less than"),
    Setting("set-workers-huge", assign("train.workers=1000000"), "less than"),
    Setting("set-seed-beyond-64-bits", assign(f"train.seed={2**70}"), "less than"),
    Setting("set-split-seed-negative", assign("data.split_seed=-1"), "greater than or equal to 0"),
    Setting("set-size-of-one", assign("data.size=[320]"), "required|at least|missing"),
    Setting("set-size-of-three", assign("data.size=[1, 2, 3]"), "at most 2"),
    Setting("set-choice-unknown", assign("train.optimizer=sgdd"), "'adamw' or 'sgd'"),
    Setting("set-boolean-text", assign("data.cache=perhaps"), "valid boolean"),
    Setting("set-no-equals", assign("train.lr"), "not KEY=VALUE"),
    Setting("set-no-key", assign("=3"), "not KEY=VALUE"),
    Setting("set-empty", assign(""), "not KEY=VALUE"),
    Setting("set-unknown-key", assign("train.lrr=1"), "unknown setting"),
    Setting("set-section", assign("train=1"), "unknown setting"),
    Setting("set-table", assign("train.lr={a=1}"), "valid number"),
    Setting("set-dunder", assign("train.__class__=1"), "unknown setting"),
    Setting("set-key-of-100000-letters", assign("a" * 100_000 + "=1"), "unknown setting"),
    Setting("set-value-of-a-million-letters", assign("train.lr=" + "x" * 1_000_000), "valid number"),
    Setting("set-10000-levels", assign("train.lr=" + "[" * 10_000), "valid number"),
    Setting("set-new-line", assign("train.lr=1\nbatch = 3"), "valid number"),
    Setting("set-shortest-backwards", assign("data.resize=shortest", "data.size=[800, 400]"), "must be"),
    Setting("set-channels-and-groups", assign("model.channels=100", "model.groups=32"), "multiple of groups"),
    Setting("set-ranges-descending", assign("model.ranges=[4, 3, 2, 1]"), "ascending"),
    Setting("environment-nan", environ(FCOS_TRAIN__LR="nan"), "finite|greater than 0"),
    Setting("environment-text", environ(FCOS_TRAIN__EPOCHS="many"), "valid integer"),
    Setting("environment-unknown", environ(FCOS_TRAIN__PAYLOAD="1"), "unknown setting"),
    Setting("environment-not-utf-8", environ(FCOS_TRAIN__AMP="\udcff"), "valid string"),
    Setting("toml-missing", {"file": Path("nowhere.toml")}, "cannot be read"),
    Setting("toml-not-toml", {}, "not valid TOML", "train: {lr: 1}"),
    Setting("toml-zero-bytes", {}, "not valid TOML", bytes(100)),
    Setting("toml-not-utf-8", {}, "not valid TOML", b"[train]\nlr = \xff"),
    Setting("toml-key-twice", {}, "not valid TOML", "[train]\nlr = 1\nlr = 2"),
    Setting("toml-unknown-section", {}, "unknown setting", "[payload]\nlr = 1"),
    Setting("toml-value-for-section", {}, "unknown setting", "train = 1"),
    Setting("toml-section-for-value", {}, "unknown setting", "[train.lr]\na = 1"),
    Setting("toml-nan", {}, "finite|greater than 0", "[train]\nlr = nan"),
    Setting("toml-date", {}, "valid number", "[train]\nlr = 2026-01-01"),
    Setting("toml-10000-levels", {}, "not valid TOML", lambda: "a = " + "[" * 10_000),
    Setting("toml-20000-keys", {}, "unknown setting", many_keys),
]


@pytest.mark.parametrize("case", SETTINGS, ids=[case.name for case in SETTINGS])
def test_settings(tmp_path: Path, case: Setting) -> None:
    given = {"environ": {}, **case.given}
    if case.file is not None:
        content = case.file() if callable(case.file) else case.file
        given["file"] = tmp_path / "x.toml"
        given["file"].write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome(lambda: resolve(**given), kind=UsageError, expect=case.expect, folder=tmp_path)


FLAGS = [
    "predict {photo} --score nan",
    "predict {photo} --score inf",
    "predict {photo} --batch 99999999999999999999",
    "predict {photo} --tile 32 --overlap nan",
    "predict {photo} --tile 32 --overlap 32",
    "predict {photo} --device klingon",
    "predict {photo} --backend klingon",
    "predict {photo} --precision fp999",
    "predict {photo} --save x.exe",
    "predict {photo} --json --jsonl",
    "eval default {data} --score nan",
    "eval default {data} --evaluator klingon",
    "train {data} --size 0",
    "train {data} --size 1000000",
    "train {data} --size 99999999999999999999x1",
    "train {data} --time -5m",
    "train {data} --time nanh",
    "train {data} --lr nan",
    "train {data} --batch none",
    "train {data} --model ../../etc/passwd",
    "export default --size 320x",
    "export default --batch -1",
    "export default --score nan",
    "export default --format klingon",
]


@pytest.mark.parametrize("line", FLAGS)
def test_flags(tmp_path: Path, shapes: Path, fcos: Fcos, line: str) -> None:
    from fcos_cli.resources import demo_photos

    result = fcos(*line.format(photo=demo_photos()[0], data=shapes).split())
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert contents(tmp_path / "here") == {}
