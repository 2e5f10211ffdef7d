"""What an interrupted run has done: its rows in FILE.jsonl.part, from which `fcos predict --resume` goes on.

The first line holds the settings of the run, the others are those of the finished file. Each row is handed to the
system before the next image, so a killed process loses none; an incomplete last row is dropped, and its image done
again. A finished run copies the rows to FILE.jsonl and removes the part.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from fcos_cli.atomic import FULL, atomic_write, check_writable, lock
from fcos_cli.console import say
from fcos_cli.errors import FcosError, UsageError
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.sources.frames import Clip, Frame
from fcos_cli.predict.writers import check_replaceable
from fcos_cli.runtime.detector import Adjustable, Detector

MARK = b'{"settings": {"model": '
"""How every part begins."""
NEW = 10
"""Number of first inputs that are checked: one of them must have a row; others may be new files in a folder."""


@dataclass
class Done:
    """The rows of earlier runs, all in the order of the inputs.

    rows: how many there are. failed: how many of them are errors. sound: how many there are up to the last that is not
    an error. items: rows without a frame number by source: images, and what could not be read. clips: video → number of
    its last frame, for each time that it was named.
    """

    rows: int = 0
    failed: int = 0
    sound: int = 0
    items: Counter[str] = field(default_factory=Counter)
    clips: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: dict[str, Any]) -> None:
        """Count a row. Raises KeyError or TypeError if it is not one."""
        source, frame = row["source"], row.get("frame")
        if frame is None:
            self.items[source] += 1
        elif self.clips[source] and frame > self.clips[source][-1]:
            self.clips[source][-1] = frame
        else:
            self.clips[source].append(frame)
        self.rows += 1
        if "error" in row:
            self.failed += 1
        else:
            self.sound = self.rows

    def remaining(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield the inputs that have no row yet. A video is read from its start, and its finished frames are skipped.

        Reports how many sources of rows are not among the inputs. Raises UsageError as `_checked` does.
        """
        items, clips = self.items.copy(), {source: list(ends) for source, ends in self.clips.items()}
        clip: Clip | None = None
        end = -1
        for item in self._checked(iter(inputs)):
            if isinstance(item, Frame) and item.moment is not None:
                if item.moment.clip is not clip:
                    clip = item.moment.clip
                    ends = clips.get(str(item.source))
                    end = ends.pop(0) if ends else -1
                if item.moment.number > end:
                    yield item
                continue
            source = _source(item)
            if items[source]:
                items[source] -= 1
            else:
                yield item
        gone = [*(+items), *(source for source, ends in clips.items() if ends)]
        if gone:
            those = f"{gone[0]}, which is" if len(gone) == 1 else f"{len(gone):,} files, such as {gone[0]}, that are"
            say(f"results are kept for {those} no longer among the sources")

    def _checked(self, inputs: Iterator[Input]) -> Iterator[Input]:
        """The inputs. Raises UsageError if none of the first has a row: the file would mix two sets of sources."""
        first: list[Input] = []
        for item in islice(inputs, NEW) if self.rows else ():
            first.append(item)
            if _source(item) in self.items or _source(item) in self.clips:
                break
        else:
            if first:
                what = f"the interrupted run had different sources, such as {next(chain(self.items, self.clips))}"
                remedy = "name them as before, from the same folder, or omit --resume to start over"
                raise UsageError(what, where=_source(first[0]), remedy=remedy)
        yield from chain(first, inputs)


def _source(item: Input) -> str:
    return str(item.source if isinstance(item, Frame | Failure) else item)


@contextmanager
def open_targets(
    save: Sequence[Path], settings: dict[str, Any], *, batch: int, resumable: bool, resume: bool
) -> Iterator[tuple[Sequence[Path | TextIO], Done]]:
    """What the writers of `save` write to, and what is done already: the files, or a part if the run can be resumed.

    resumable: see `is_resumable`; the rest as in `open_part`.
    """
    if resumable:
        with open_part(save[0], settings, batch=batch, resume=resume) as (stream, done):
            yield [stream], done
    else:
        yield save, Done()


@contextmanager
def open_part(path: Path, settings: dict[str, Any], *, batch: int, resume: bool) -> Iterator[tuple[TextIO, Done]]:
    """Open the part of `path`, which becomes `path` if the block succeeds and is kept if it fails.

    Yields the stream to which the next rows are written, and the rows that are there. settings: what must be the same
    in a resumed run, as JSON values. batch: inputs per network call; those after the last whole batch are done again,
    since the batch decides how far its images are padded, and so are errors at the end: a disk may have been missing.
    resume: keep the rows that are there. Raises UsageError if the file cannot be written, if another run is writing it,
    or if the rows there come from other settings; FcosError if the disk is full.
    """
    part = part_of(path)
    check_writable(path)
    check_replaceable(path, "jsonl")
    head, finished = json.dumps({"settings": settings}).encode() + b"\n", False
    raw, done = _open(part, head, batch=batch, resume=resume)
    if done.rows:
        errors = f", {done.failed:,} of them {'an error' if done.failed == 1 else 'errors'}" if done.failed else ""
        say(f"{path}: {done.rows:,} results of an earlier run are kept{errors}")
    try:
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="\n", write_through=True)
        yield stream, done
        stream.flush()
        raw.seek(len(head))
        with atomic_write(path, binary=True) as out:
            shutil.copyfileobj(raw, out)
        finished = True
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = f"writing failed ({error.strerror})"
        raise FcosError(what, where=path, remedy="free some space, and continue with --resume") from error
    finally:
        with suppress(OSError):  # what could not be written was reported
            raw.flush()
        if finished or part.stat().st_size <= len(head):  # no row
            part.unlink()  # while it is locked: the next run must not begin with a file that is about to be removed
        else:
            say(f"{part} keeps what was done: to continue, repeat the command with --resume")
        with suppress(OSError):
            raw.close()


def part_of(path: Path) -> Path:
    """`found.jsonl` → `found.jsonl.part`."""
    return path.with_name(f"{path.name}.part")


def is_resumable(save: Sequence[Path], *others: object, live: bool) -> bool:
    """Whether a run can go on after an interruption: its sources end, and it writes one .jsonl file and nothing else.

    others: its other outputs; those that are not written are None or False. live: whether a source has no end.
    """
    regular = len(save) == 1 and save[0].suffix.lower() == ".jsonl" and (save[0].is_file() or not save[0].exists())
    return regular and not live and not any(others)


def check_resume(save: Sequence[Path], *, resumable: bool) -> bool:
    """Whether --resume has anything to continue; if the file is finished, this is reported on stderr.

    resumable: see `is_resumable`. An empty file counts as missing. Raises UsageError if such a run cannot be resumed or
    the file is damaged, FcosError if an earlier run is finished and had images that could not be read.
    """
    if not resumable:
        what = "--resume needs --save FILE.jsonl as the only output, and sources that have an end"
        raise UsageError(what, remedy="omit --resume and run again, or see docs/prediction.md")
    (path,) = save
    if part_of(path).exists() or not path.exists() or not path.stat().st_size:
        return True
    with path.open("rb") as stream:
        done, end = _read_rows(stream)
        whole = end == stream.seek(0, io.SEEK_END)
    if not whole:
        what = f"this file is incomplete or damaged after row {done.rows:,}, without a .part file to continue from"
        raise UsageError(what, where=path, remedy="omit --resume to run again")
    if done.failed:
        what = f"the run is finished, and {done.failed:,} of its {done.rows:,} rows are errors"
        raise FcosError(what, where=path, remedy="omit --resume to run again")
    rows = "1 row" if done.rows == 1 else f"{done.rows:,} rows"
    say(f"{path} is finished, with {rows}: nothing left to do; omit --resume to run again")
    return False


def settings_of(detector: Detector, **options: Any) -> dict[str, Any]:
    """The settings of a run: a digest of the facts in the model's file, which identify its weights; what runs it; and
    options as JSON values.
    """
    facts = detector.facts.to_metadata()
    if isinstance(detector, Adjustable):  # its limits may be those of options; the file's are among `model`
        del facts["limits"]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return {"model": digest, "backend": detector.backend, "precision": detector.precision, **options}


def _open(part: Path, head: bytes, *, batch: int, resume: bool) -> tuple[BinaryIO, Done]:
    """Open or create the part, and position it after its last row. Raises UsageError."""
    check_writable(part)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        raw = part.open("r+b" if part.exists() else "w+b")
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror})", where=part, remedy="choose another path") from error
    try:
        what = "another run of fcos predict is writing this file"
        lock(raw.fileno(), UsageError(what, where=part, remedy="wait for it, or choose another name"))
        start = raw.read(len(MARK))
        raw.seek(0)
        if not MARK.startswith(start):
            what = "this file exists and is not the unfinished result of fcos predict, so it is not replaced"
            raise UsageError(what, where=part, remedy="move it away, or choose another name for --save")
        if resume:
            return raw, _take_up(raw, head, part, batch=batch)
        if (dropped := sum(1 for _ in raw) - 1) > 0:
            say(f"{part}: {dropped:,} results of an earlier run are dropped; --resume would have kept them")
        return raw, _begin(raw, head)
    except BaseException:
        raw.close()
        raise


def _begin(raw: BinaryIO, head: bytes) -> Done:
    raw.seek(0)
    raw.truncate()
    raw.write(head)
    return Done()


def _take_up(raw: BinaryIO, head: bytes, part: Path, *, batch: int) -> Done:
    """Read the rows that are there; drop errors at the end and what follows the last whole batch. Raises UsageError."""
    first = raw.readline()
    if not first.endswith(b"\n"):  # new, or killed within its first line
        return _begin(raw, head)
    if first != head:
        before, now = (_settings(line) for line in (first, head))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        what = f"the interrupted run had a different model or options: {', '.join(changed)}"
        raise UsageError(what, where=part, remedy="repeat its command line, or omit --resume to start over")
    done, end = _read_rows(raw)
    whole = done.sound - done.sound % batch
    if done.rows != whole:
        raw.seek(len(head))
        done, end = _read_rows(raw, most=whole)
    raw.seek(end)
    raw.truncate()
    return done


def _settings(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line)["settings"])
    except (ValueError, KeyError, TypeError):
        return {}


def _read_rows(stream: BinaryIO, *, most: int | None = None) -> tuple[Done, int]:
    """Count the rows up to the first that is incomplete, `most` at most, and also return where they end."""
    done, end = Done(), stream.tell()
    while done.rows != most and (line := stream.readline()).endswith(b"\n"):
        try:
            done.add(json.loads(line))
        except (ValueError, KeyError, TypeError):
            break
        end = stream.tell()
    return done, end
