"""`fcos predict --engine ray`: the flags that go with it, and the job that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fcos_cli.data.tiling import Tiling

ENGINES = ("local", "ray")
ONLY_RAY = ("address", "column")
ONLY_LOCAL = (
    *("viz", "crops", "explain", "targets", "track", "as_json", "jsonl", "save", "label", "label_score", "merge"),
    *("link", "frames", "every"),
)
"""Parameters of `fcos predict` that make no sense with the other engine."""


def run_on_cluster(
    context: typer.Context, *, engine: str | None, address: str | None, column: str | None, tiling: Tiling | None
) -> bool:
    """Run the job if the engine is Ray, and return whether it is. Exit code 1 if there were unreadable pictures.

    context: of `fcos predict`. Raises UsageError for options that are not for the engine.
    """
    if not is_ray(context, engine or ENGINES[0]):
        return False
    params = context.params
    from fcos_cli.predict.cluster.model import ModelOptions
    from fcos_cli.predict.cluster.places import as_typed
    from fcos_cli.predict.cluster.run import Request, run_job

    names = ("score", "iou", "max_detections", "device", "backend", "precision", "batch")
    options = ModelOptions(**{name: params[name] for name in names}, tiling=tiling)
    request = Request(
        model=params["model"],
        sources=params["sources"] or [],
        out=as_typed(params["out"]),
        address=address,
        column=column,
        classes=params["classes"] or [],
        options=options,
        resume=params["resume"],
    )
    if run_job(request):
        raise typer.Exit(1)
    return True


def is_ray(context: typer.Context, engine: str) -> bool:
    """Whether the engine is Ray. Raises UsageError for an unknown engine, and for options that are not for it."""
    from fcos_cli.errors import UsageError, unknown_name

    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES, where="--engine")
    wrong = [
        f"--{name.removeprefix('as_').replace('_', '-')}"
        for name in (ONLY_LOCAL if engine == "ray" else ONLY_RAY)
        if (source := context.get_parameter_source(name)) is not None and source.name != "DEFAULT"
    ]
    them = "it" if len(wrong) == 1 else "them"
    if wrong and engine == "ray":
        what = f"--engine ray writes Parquet files and nothing else, so it cannot be combined with {', '.join(wrong)}"
        raise UsageError(what, remedy=f"omit {them}, or --engine ray")
    if wrong:
        what = f"{', '.join(wrong)} {'needs' if len(wrong) == 1 else 'need'} --engine ray"
        raise UsageError(what, remedy=f"add --engine ray, or omit {them}")
    return engine == "ray"
