"""Output for people goes to stderr (messages, tables, progress, errors); data goes to stdout (`emit_json`).

Rich is imported only when something is printed. Text is never parsed as markup, so names with [brackets] stay intact.
Colours follow the terminal, NO_COLOR and FORCE_COLOR, as in rich.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fcos_cli.errors import FcosError

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Print no messages, tables or progress inside the block, in this thread; errors are raised as usual."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def err() -> Console:
    """Return a console on stderr. Outside a terminal it is wide, so that tables in log files are not cut."""
    from rich.console import Console

    width = None if sys.stderr.isatty() else 160
    return Console(stderr=True, width=width, markup=False, highlight=False, emoji=False)


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks that change the direction of text, and lone surrogates."""


def visible(text: str) -> str:
    r"""The text with everything escaped that a terminal, a page or a picture would obey instead of showing: `\x1b`.

    Names of classes and files come from strangers. They could colour or erase what is printed, or add lines.
    """
    return _UNSEEN.sub(lambda match: repr(match[0])[1:-1], text)


def say(text: str, *, style: str | None = None) -> None:
    """Print a message. Long lines are wrapped by the terminal only, so that paths can be copied."""
    if _QUIET.get():
        return
    text = visible(text)
    if style is None:  # a line without colour does not need rich, which is slow to import
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    else:
        err().print(text, style=style, soft_wrap=True)


def warn(text: str) -> None:
    """Print a message marked as a warning."""
    say(f"warning: {text}", style="yellow")


def print_error(error: FcosError) -> None:
    """Print what happened, where, and what to do: three lines, plus the details and code that some errors have."""
    from rich.text import Text

    console = err()
    parts = [
        ("error: ", [error.what], "bold red"),
        ("  where: ", [error.where or "", *(f"    {line}" for line in error.details)], "dim"),
        ("  do:    ", (error.remedy or "").split("\n"), "green"),  # may be a few lines of code
    ]
    for label, lines, style in parts:
        if any(lines):
            console.print(Text.assemble((label, style), "\n".join(map(visible, lines))), soft_wrap=True)


def emit_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout, `schema_version` first. NaN and infinity become null."""
    sys.stdout.write(json_text(document))
    sys.stdout.flush()


def json_text(document: Mapping[str, Any]) -> str:
    """The text that `emit_json` prints, for a file."""
    return json.dumps(plain({"schema_version": SCHEMA_VERSION, **document}), indent=2) + "\n"


def plain(value: Any) -> Any:
    """Convert `value` to JSON types: tuples to lists, numpy scalars to numbers, NaN and inf to None, others to text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar, without importing numpy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table: first column left-aligned, others right-aligned, floats with three decimals, None and COCO's -1.0
    as a dash.
    """
    if _QUIET.get():
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, box=box.SIMPLE, title_justify="left")
    for index, column in enumerate(columns):
        grid.add_column(Text(visible(column)), justify="right" if index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(_cell(value)) for value in row))
    err().print(grid)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and (value == -1 or math.isnan(value))):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))


@contextmanager
def progress(task: str, *, total: int | None = None, every: int | None = None) -> Iterator[Callable[..., None]]:
    """Report the progress of `task`: a bar on a terminal, otherwise one line per `every` steps (default: about ten
    lines).

    Yields `update(done, total=None, note="")`; `note` is shown after the count, for example a loss.
    """
    if _QUIET.get():
        yield lambda *_, **__: None
        return
    console = err()
    with (
        _bar(console, task, total)
        if console.is_terminal and not console.is_dumb_terminal
        else _lines(console, task, total, every) as update
    ):
        yield update


@contextmanager
def _bar(console: Console, task: str, total: int | None) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
    ) as bar:
        row = bar.add_task(visible(task), total=total, note="")

        def update(done: int, total: int | None = None, note: str = "") -> None:
            bar.update(row, completed=done, total=total, note=visible(note))

        yield update


@contextmanager
def _lines(console: Console, task: str, total: int | None, every: int | None) -> Iterator[Callable[..., None]]:
    started, last_done = time.monotonic(), 0
    known_total = total

    def update(done: int, total: int | None = None, note: str = "") -> None:
        nonlocal known_total, last_done
        known_total = total or known_total
        step = every or (math.ceil(known_total / 10) if known_total else 100)
        if done // step == last_done // step and (done != known_total or done == last_done):
            return
        last_done = done
        rate = done / max(time.monotonic() - started, 1e-9)
        count = f"{done}/{known_total}" if known_total else f"{done}"
        console.print(visible(f"{task} {count} ({rate:.1f}/s) {note}").rstrip(), soft_wrap=True)

    yield update
