"""How commands speak: results on stdout, as text or JSON; progress and warnings on stderr; errors as exit codes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from ...errors import IdeaError


class Result(NamedTuple):
    """What a command found or made."""

    data: dict[str, Any]
    """For scripts."""
    text: str
    """For people."""
    failed: bool = False
    """Whether a part of it went wrong; the exit code is 1 then."""


def reports(command: Callable[..., Result]) -> Callable[..., None]:
    """A command that prints its `Result`, with `--json`; what a user can mend becomes a message and exit code 1."""

    @functools.wraps(command)
    def run(*args, as_json: bool, **kwargs) -> None:
        try:
            result = command(*args, **kwargs)
        except (IdeaError, OSError) as error:
            if as_json:
                click.echo(json.dumps({"error": _describe(error)}, ensure_ascii=False))
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(130)
        click.echo(json.dumps(result.data, ensure_ascii=False, indent=2) if as_json else result.text)
        if result.failed:
            sys.exit(1)

    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
    run.__click_params__ = [as_json, *getattr(command, "__click_params__", [])]  # the last one in the help
    return run


def warn(message: str) -> None:
    click.echo(f"Warning: {message}", err=True)


def progress(total: int, what: str, unit: str):
    """A progress bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, disable=None, file=sys.stderr)


def _describe(error: Exception) -> dict[str, str]:
    if isinstance(error, IdeaError):
        return {"message": str(error), "expected": error.expected, "got": error.got, "remedy": error.remedy}
    return {"message": str(error)}
