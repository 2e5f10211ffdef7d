"""Write explanations to files: a page and figures for each image, and a line on stderr that names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.console import print_error, say, warn
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.errors import DataError, ModelError, UsageError
from fcos_cli.extras import require_train
from fcos_cli.model.config import STRIDES
from fcos_cli.predict.outputs import OutputNames
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.predict.sources.output_folder import OutputFolder
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.headers import read_header
from fcos_cli.runtime.open import find_artifact

if TYPE_CHECKING:
    from fcos_cli.model.artifact import Artifact

MAX_SAMPLES = 8
"""Images of a data set that are explained if no images are given."""


@dataclass(frozen=True)
class Request:
    """What to explain: detections in `pictures` with the network of `weights`; targets of the samples of `truth`."""

    model: str
    pictures: list[Input]
    weights: Path | None
    truth: tuple[Dataset, list[Sample]] | None

    def write(self, out: Path, *, score: float | None, device: str, names: OutputNames, predicted: bool) -> int:
        """Write pages, figures and log lines; see `explain_detections` and `explain_ground_truth`.

        Images that cannot be read are left out. predicted: whether a prediction run has already reported them. Returns
        how many of those are in `truth`.
        """
        if self.weights is not None:
            explain_detections(
                self.weights,
                self.pictures,
                model=self.model,
                out=out,
                score=score,
                device=device,
                names=names.another(),
            )
        if self.truth is not None:
            return explain_ground_truth(self.model, *self.truth, out=out, names=names.another(), say_why=not predicted)
        return 0


def check_options(
    *, detections: bool, predicts: bool, tiled: bool, filtered: bool, needs_run: bool, precision: str | None
) -> None:
    """Raise UsageError for options of `fcos predict` that would have no effect on an explanation, or not the same one.

    detections: with --explain. predicts: whether there is a prediction run as well. needs_run: whether there is an
    option that only such a run uses.
    """
    if tiled:
        raise UsageError("--explain and --targets cannot be combined with --tile", remedy="omit --tile")
    if filtered:
        what = "--explain and --targets cannot be combined with --classes, --iou, --max-detections or --track"
        raise UsageError(what, remedy="omit them: the page filters by class and score itself")
    if detections and precision not in (None, "fp32"):
        raise UsageError(f"--explain computes in fp32, not in {precision}", remedy="omit --precision")
    if needs_run and not predicts:
        what = "--targets without SOURCE predicts nothing, so it takes --model and --out and no other option"
        raise UsageError(what, remedy="name images, or omit the other options")


def plan_explanation(
    model: str,
    sources: Sequence[str],
    *,
    detections: bool,
    targets: Path | None,
    backend: str | None,
    leave_out: OutputFolder | None = None,
) -> Request:
    """Validate the options before anything runs.

    sources, leave_out: as in `open_sources`; without sources, the first images of the data set `targets`. detections:
    explain the detections. Raises UsageError, DataError, ModelError, MissingExtra.
    """
    require_train("--explain" if detections else "--targets")
    weights = weights_to_explain(model, backend=backend) if detections else None
    pictures = list_images(open_sources(sources, leave_out=leave_out)) if sources or targets is None else None
    truth = None if targets is None else find_samples(targets, pictures)
    if pictures is None:
        pictures = [] if truth is None else [sample.image for sample in truth[1]]
    return Request(model, pictures, weights, truth)


def weights_to_explain(model: str, *, backend: str | None) -> Path:
    """Return the PyTorch weights of `model`. Raises UsageError if there are none, or for another backend."""
    if backend not in (None, "pytorch"):
        raise UsageError(f"--explain requires PyTorch, not {backend}", remedy="omit --backend")
    path = find_artifact(model, backend="pytorch")
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            "--explain requires a .safetensors file: an exported model returns only the final boxes",
            where=path,
            remedy="set --model to the weights or the run folder that it was exported from",
        )
    return path


def list_images(inputs: Iterable[Input]) -> list[Input]:
    """List the inputs, to iterate over them more than once. Raises UsageError for a video, a camera or an address."""
    images = []
    for item in inputs:
        if isinstance(item, Frame) and (item.moment is not None or isinstance(item.source, Address)):
            what = "--explain and --targets do not support videos, cameras or addresses"
            raise UsageError(what, where=item.source, remedy="use image files")
        images.append(item)
    return images


def explain_detections(
    weights: Path,
    inputs: Iterable[Input],
    *,
    model: str,
    out: Path,
    score: float | None,
    device: str,
    names: OutputNames,
) -> None:
    """Write `NAME.explain.html` and four figures for each image; unreadable images are skipped silently.

    weights: a `.safetensors` file. model: name to display. score: threshold of the figures and initial one of the
    pages; None = the model's own. Pages also have the detections below it, down to the candidate threshold. names: free
    names in `out`.
    """
    from fcos_cli.explain.figures import centerness_figure, classes_figure, detection_figure
    from fcos_cli.explain.model_figure import model_figure
    from fcos_cli.explain.page import detections_page
    from fcos_cli.explain.points import explain
    from fcos_cli.model.artifact import load
    from fcos_cli.runtime.pytorch import facts_of, pick_device

    artifact = with_lowest(load(weights), score)
    network, facts = artifact.build().to(pick_device(device)), facts_of(artifact)
    kinds = ("classes", "detection", "centerness", "model")
    endings = ["explain.html", *(f"{kind}.png" for kind in kinds)]
    for source, image in _open_readable(inputs):
        explained = explain(network, facts, image)
        stem = names.choose(source.stem, lambda stem: [out / f"{stem}.{ending}" for ending in endings])
        page, *files = (out / f"{stem}.{ending}" for ending in endings)
        with atomic_write(page) as stream:
            stream.write(detections_page(explained, title=source.name, model=model, score=score))
        figures = {
            "classes": classes_figure(explained, score=score),
            "detection": detection_figure(explained),
            "centerness": centerness_figure(explained),
            "model": model_figure(explained, score=score),
        }
        for kind, file in zip(kinds, files, strict=True):
            figures[kind].write(file)
        say(f"{source}: explained → {page} and {', '.join(file.name for file in files)}")


def with_lowest(artifact: Artifact, score: float | None) -> Artifact:
    """The artifact with a candidate threshold that is not above `score`, as `PyTorchDetector` has it."""
    config = artifact.config
    if score is None or score >= config.score_threshold or config.conventions.threshold_on != "score":
        return artifact
    return replace(artifact, config=config.model_copy(update={"score_threshold": score}))


def explain_ground_truth(
    model: str, dataset: Dataset, samples: Sequence[Sample], *, out: Path, names: OutputNames, say_why: bool
) -> int:
    """Write `NAME.targets.html` and `NAME.targets.png` per sample, at the input size and by the rules of `model`.

    Images that cannot be read are left out; say_why: print an error for each. Returns their number.
    """
    from fcos_cli.explain.targets import explain_targets
    from fcos_cli.explain.targets_figure import targets_figure
    from fcos_cli.explain.targets_page import targets_page

    facts = read_header(find_artifact(model)).facts
    endings, failed = ("targets.html", "targets.png"), 0
    for sample in samples:
        try:
            image = open_image(sample.image)
        except (DataError, OSError) as error:
            failed += 1
            if say_why:
                what = f"cannot read the image: {error}"
                print_error(error if isinstance(error, DataError) else DataError(what, where=sample.image))
            continue
        explained = explain_targets(
            sample,
            image,
            classes=dataset.classes,
            rule=facts.resize,
            strides=facts.model.get("strides", STRIDES),  # files written before this setting existed
            ranges=ranges_of(facts, model),
            conventions=facts.conventions,
        )
        stem = names.choose(sample.image.stem, lambda stem: [out / f"{stem}.{ending}" for ending in endings])
        page, figure = (out / f"{stem}.{ending}" for ending in endings)
        with atomic_write(page) as stream:
            stream.write(targets_page(explained, title=sample.image.name, model=model))
        targets_figure(explained).write(figure)
        orphans = [
            f"{number + 1} {dataset.classes.names[explained.boxes[number].index]}" for number in explained.orphans
        ]
        missed = f", no point for {', '.join(orphans)}" if orphans else ""
        counts = f"{len(explained.points)} positive points, {len(explained.contested)} contested"
        say(f"{sample.image}: {counts}{missed} → {page}")
    return failed


def ranges_of(facts: Facts, model: str) -> tuple[float, ...]:
    """Return the regression ranges of the levels. Raises ModelError if the file does not record them."""
    try:
        return tuple(float(end) for end in facts.model["ranges"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "the file does not record the regression ranges of its levels", where=model, remedy="export it again"
        ) from error


def find_samples(data: Path, inputs: Sequence[Input] | None) -> tuple[Dataset, list[Sample]]:
    """Return the samples of `data` for the images; without `inputs`, its first ones (the val split of a folder).

    Raises DataError if it has none of the images.
    """
    if inputs is None:
        dataset = read_dataset(data)
        if len(dataset) > MAX_SAMPLES:
            say(
                f"using the first {MAX_SAMPLES} of {len(dataset)} images ({dataset.origin}); pass images to select some"
            )
        return dataset, dataset.samples[:MAX_SAMPLES]
    dataset = read_dataset(data, split="all")
    known = {sample.image.resolve(): sample for sample in dataset.samples}
    samples = []
    for item in inputs:
        if isinstance(item, Failure):
            continue
        source = item if isinstance(item, Path) else item.source
        if (sample := known.get(Path(str(source)).resolve())) is None:
            warn(f"{source} is not in {data}")
        else:
            samples.append(sample)
    if not samples:
        raise DataError(
            "the data set has none of these images",
            where=data,
            remedy="pass images of the data set, or none to use its first ones",
        )
    return dataset, samples


def _open_readable(inputs: Iterable[Input]) -> Iterable[tuple[Path, npt.NDArray[np.uint8]]]:
    for item in inputs:
        with suppress(DataError, OSError):  # already reported by the prediction run
            if isinstance(item, Path):
                yield item, open_image(item)
            elif isinstance(item, Frame):
                yield Path(str(item.source)), item.data if isinstance(item.data, np.ndarray) else open_image(item.data)
