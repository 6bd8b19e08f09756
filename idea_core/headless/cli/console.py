"""Output of commands: results on stdout as text or JSON, progress and warnings on stderr, errors as exit codes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ...errors import IdeaError

if TYPE_CHECKING:
    import numpy as np


class Result(NamedTuple):
    """The result of a command.

    Attributes:
        data: the result for scripts, JSON values.
        text: the result for people.
        failed: whether a part failed; the exit code is then 1.
    """

    data: dict[str, Any]
    text: str
    failed: bool = False


def reports(command: Callable[..., Result]) -> Callable[..., None]:
    """A command with `--json` that prints its `Result`. The user's errors become a message and exit code 1."""

    @functools.wraps(command)
    def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
        try:
            result = command(*args, **kwargs)
        except (IdeaError, OSError) as error:
            if as_json:
                parts = {name: getattr(error, name) for name in ("expected", "got", "remedy") if hasattr(error, name)}
                click.echo(json.dumps({"error": {"message": str(error), **parts}}, ensure_ascii=False))
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(130)
        click.echo(json.dumps(result.data, ensure_ascii=False, indent=2) if as_json else result.text)
        if result.failed:
            sys.exit(1)

    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
    vars(run)["__click_params__"] = [as_json, *getattr(command, "__click_params__", [])]  # the last one in the help
    return run


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"Warning: {message}", err=True)


def save_images(images: Mapping[str, np.ndarray], folder: Path) -> None:
    """Save images (H, W, 3), uint8, as PNG files of these names."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Any]:
    """A tqdm progress bar on stderr, if that is a terminal. What libraries print meanwhile (Ray) goes there too."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, disable=None, file=sys.stderr) as bar, redirect_stdout(sys.stderr):
        yield bar
