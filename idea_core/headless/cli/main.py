"""The `idea` command and its sub-commands."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.metadata import entry_points

import click

from ...version import __version__
from .batch import batch
from .compare import compare
from .encode import encode
from .enhancer import enhancer
from .evaluate import evaluate
from .generate import generate
from .identity import blend, convert, edit, info
from .train import train

# Set before the libraries are imported: no network, and errors only in their logs.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}


class _Stderr(logging.Handler):
    """Prints this package's log, info lines included. Of other packages Python prints only warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100})
@click.version_option(__version__, prog_name="idea")
def idea() -> None:
    """ID-EA: a person in any prompt, from a few photos.

    Train a person once, then generate images with the person's name in angle brackets in a prompt. A trained person is
    one .safetensors file, the same for these commands and for ComfyUI. Nothing is downloaded and nothing is sent.

    \b
    idea train --model sd21.safetensors --photos photos/alice --name alice -o alice.safetensors
    idea generate --model sd21.safetensors --identity alice.safetensors --prompt "photo of <alice> as an astronaut"

    Results go to stdout, as JSON with --json; progress and warnings go to stderr. Exit codes: 0 done, 1 an error that
    the message explains, 2 a wrong option, 130 stopped.
    """
    os.environ.update(_ENVIRONMENT)
    log = logging.getLogger("idea_core")
    log.setLevel(logging.INFO)
    log.handlers = log.handlers or [_Stderr()]
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)


for command in (encode, train, generate, evaluate, info, convert, blend, edit, batch, compare, enhancer):
    idea.add_command(command)
for addition in entry_points(group="idea.commands"):  # from other packages, such as `idea demo`
    idea.add_command(addition.load(), addition.name)
