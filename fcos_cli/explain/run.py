"""Explanations to files: for each picture a page and figures, and a line that says where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.console import say, warn
from fcos_cli.data.formats import read_dataset
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.errors import DataError, ModelError, UsageError
from fcos_cli.predict.frames import Frame
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.sources import open_sources
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import find_artifact

FIRST = 8
"""Pictures of a data set that are explained where none is named."""


@dataclass(frozen=True)
class Request:
    """What is to be explained: `pictures` with the network of `weights`, the targets of the samples of `truth`."""

    model: str
    pictures: list[Input]
    weights: Path | None
    truth: tuple[Dataset, list[Sample]] | None

    def write(self, out: Path, *, score: float | None, device: str) -> None:
        """Pages, figures and lines for people; see `explain_found` and `explain_truth`."""
        if self.weights is not None:
            explain_found(self.weights, self.pictures, model=self.model, out=out, score=score, device=device)
        if self.truth is not None:
            explain_truth(self.model, *self.truth, out=out)


def plan_explanation(
    model: str, sources: Sequence[str], *, detections: bool, targets: Path | None, backend: str | None
) -> Request:
    """Checks what the user asked for before anything runs.

    sources: as `open_sources` takes them; without any, the first pictures of the data set `targets`. detections:
    explain what is found. Raises UsageError, DataError, ModelError.
    """
    weights = weights_to_explain(model, backend=backend) if detections else None
    pictures = still_pictures(open_sources(sources)) if sources or targets is None else None
    truth = None if targets is None else truth_of(targets, pictures)
    if pictures is None:
        pictures = [] if truth is None else [sample.image for sample in truth[1]]
    return Request(model, pictures, weights, truth)


def weights_to_explain(model: str, *, backend: str | None) -> Path:
    """The PyTorch weights behind `model`. Raises UsageError where there are none, or another backend was asked for."""
    if backend not in (None, "pytorch"):
        raise UsageError(f"--explain looks into the network in PyTorch, not {backend}", remedy="leave --backend out")
    path = find_artifact(model, backend="pytorch")
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            "explaining needs the .safetensors: an exported model answers with final boxes only",
            where=path,
            remedy="--model with the weights or the run folder that it was exported from",
        )
    return path


def still_pictures(inputs: Iterable[Input]) -> list[Input]:
    """All of them, to be gone through more than once. Raises UsageError at a frame of a video or a camera."""
    listed = []
    for one in inputs:
        if isinstance(one, Frame) and one.moment is not None:
            raise UsageError("--explain and --targets take pictures, not videos", where=one.source)
        listed.append(one)
    return listed


def explain_found(
    weights: Path, inputs: Iterable[Input], *, model: str, out: Path, score: float | None, device: str
) -> None:
    """Write `NAME.explain.html` and four figures for each picture; unreadable ones are passed over in silence.

    weights: a `.safetensors`. model: what to call it. score: where the pages' threshold begins; None = the model's own.
    """
    from fcos_cli.explain.figures import centerness_figure, classes_figure, detection_figure
    from fcos_cli.explain.model_figure import model_figure
    from fcos_cli.explain.page import found_page
    from fcos_cli.explain.points import explain
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.pytorch import facts_of, pick_device

    artifact = load(weights)
    network, facts = artifact.build().to(pick_device(device)), facts_of(artifact)
    names = _Names(out)
    for source, image in _opened(inputs):
        explained = explain(network, facts, image)
        page = names.of(source, "explain.html")
        with atomic_write(page) as stream:
            stream.write(found_page(explained, title=source.name, model=model, score=score))
        figures = {
            "classes": classes_figure(explained),
            "detection": detection_figure(explained),
            "centerness": centerness_figure(explained),
            "model": model_figure(explained),
        }
        for kind, figure in figures.items():
            figure.write(names.beside(page, f"{kind}.png"))
        say(f"{source}: explained → {page}, and figures {', '.join(f'{kind}.png' for kind in figures)}")


def explain_truth(model: str, dataset: Dataset, samples: Sequence[Sample], *, out: Path) -> None:
    """Write `NAME.targets.html` and `NAME.targets.png` for each sample, at the input and by the rules of `model`."""
    from fcos_cli.explain.targets import explain_targets
    from fcos_cli.explain.targets_figure import targets_figure
    from fcos_cli.explain.targets_page import truth_page

    facts = read_header(find_artifact(model)).facts
    names = _Names(out)
    for sample in samples:
        explained = explain_targets(
            sample,
            open_image(sample.image),
            classes=dataset.classes,
            rule=facts.resize,
            ranges=ranges_of(facts, model),
            conventions=facts.conventions,
        )
        page = names.of(sample.image, "targets.html")
        with atomic_write(page) as stream:
            stream.write(truth_page(explained, title=sample.image.name, model=model))
        targets_figure(explained).write(names.beside(page, "targets.png"))
        orphans = [
            f"{number + 1} {dataset.classes.names[explained.boxes[number].index]}" for number in explained.orphans
        ]
        lost = f", no point for {', '.join(orphans)}" if orphans else ""
        counts = f"{len(explained.points)} positive points, {len(explained.contested)} contested"
        say(f"{sample.image}: {counts}{lost} → {page}")


def ranges_of(facts: Facts, model: str) -> tuple[float, ...]:
    """The levels' ranges of the network. Raises ModelError where the file does not say them."""
    try:
        return tuple(float(end) for end in facts.model["ranges"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "the file does not say which sizes its levels are for", where=model, remedy="export it again"
        ) from error


def truth_of(data: Path, inputs: Sequence[Input] | None) -> tuple[Dataset, list[Sample]]:
    """What DATA knows of the pictures; without `inputs`, of its first pictures (the val split's, of a folder).

    Raises DataError where it knows none of them.
    """
    if inputs is None:
        dataset = read_dataset(data)
        if len(dataset) > FIRST:
            say(f"the first {FIRST} of {len(dataset)} pictures ({dataset.origin}); name pictures to choose others")
        return dataset, dataset.samples[:FIRST]
    dataset = read_dataset(data, split="all")
    known = {sample.image.resolve(): sample for sample in dataset.samples}
    samples = []
    for one in inputs:
        if isinstance(one, Failure):
            continue
        source = one if isinstance(one, Path) else one.source
        if (sample := known.get(source.resolve())) is None:
            warn(f"{source} is not in {data}")
        else:
            samples.append(sample)
    if not samples:
        raise DataError(
            "the data set holds none of these pictures",
            where=data,
            remedy="name pictures of the data set, or none for its first ones",
        )
    return dataset, samples


def _opened(inputs: Iterable[Input]) -> Iterable[tuple[Path, npt.NDArray[np.uint8]]]:
    for one in inputs:
        with suppress(DataError, OSError):  # whoever predicts on the same pictures has told
            if isinstance(one, Path):
                yield one, open_image(one)
            elif isinstance(one, Frame):
                yield one.source, one.data if isinstance(one.data, np.ndarray) else open_image(one.data)


class _Names:
    """Files named after their pictures, numbered where two pictures share a name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._used = folder, set[str]()

    def of(self, source: Path, kind: str) -> Path:
        name, number = source.stem, 1
        while name in self._used:
            number += 1
            name = f"{source.stem}-{number}"
        self._used.add(name)
        return self.folder / f"{name}.{kind}"

    def beside(self, page: Path, kind: str) -> Path:
        """`NAME.explain.html` → `NAME.kind`."""
        return self.folder / f"{page.name.rsplit('.', 2)[0]}.{kind}"
