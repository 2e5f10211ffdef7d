"""What every command does before its own work: refuse names that no file can have, and offer --debug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Debug = Annotated[bool, typer.Option("--debug", expose_value=False, help="Show a traceback for errors.")]
"""Read by `cli.main`, which also looks for it before the command."""

NAMES = {"model", "models", "paths", "sources", "images", "classes", "init", "name"}
"""Parameters of type str that can name a file or a folder. Those of type Path always do."""


class Command(TyperCommand):
    """A command whose arguments are checked first. A name that is too long would otherwise fail halfway through."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises UsageError for an empty value: as a path, it would be the current folder."""
        for text, following in zip(args, [*args[1:], None], strict=False):
            option, equals, value = text.partition("=")
            if option.startswith("--") and (following == "" if not equals else not value):
                from fcos_cli.errors import UsageError

                remedy = "give a value, or omit the option; a shell variable may be unset"
                raise UsageError("an option has an empty value", where=option, remedy=remedy)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises UsageError, naming the argument, for a name that no file can have."""
        from fcos_cli.atomic import check_length

        for parameter in self.params:
            label = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or "argument"
            for value in _names(parameter.name or "", ctx.params.get(parameter.name or "")):
                check_length(value, label=label)
        return super().invoke(ctx)


def _names(parameter: str, value: Any) -> Iterator[Path]:
    """The values of a parameter that name files."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str) and "://" in item:  # an address, which may be long and must not be shown
            continue
        if isinstance(item, Path) or (isinstance(item, str) and parameter in NAMES):
            yield Path(item)
