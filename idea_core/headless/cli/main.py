"""The `idea` command and its sub-commands."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, NamedTuple

import click

from ...version import __version__

# Set before the libraries are imported: no network, and errors only in their logs.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}


class _Listed(NamedTuple):
    """A command as the list of commands shows it; its module is imported when the command is used."""

    module: str
    summary: str


SECTIONS: Mapping[str, Mapping[str, _Listed]] = {
    "People": {
        "train": _Listed("train", "Train a person from a few photos."),
        "generate": _Listed("generate", "Generate images of one or several people."),
        "batch": _Listed("batch", "Train many people, here or on a Ray cluster."),
        "enhancer": _Listed("enhancer", "Train an ID-Enhancer once; then a photo is enough."),
    },
    "Measures": {
        "encode": _Listed("encode", "Find a face in photos, and save its embedding."),
        "evaluate": _Listed("evaluate", "Measure face similarity, detection and prompt similarity of images."),
        "compare": _Listed("compare", "Compare methods on many people: the paper's table on your checkpoint."),
    },
    "Files": {
        "info": _Listed("identity", "Show the contents of a file."),
        "convert": _Listed("identity", "Convert a person's file from or to another format."),
        "edit": _Listed("identity", "Rename a person, leave parts out, make the file smaller."),
        "blend": _Listed("identity", "Mix several people into a new one."),
    },
}
MORE = "More"


class _Lazily(MutableMapping[str, click.Command]):
    """Commands by name, each imported when it is used: some need torch, which takes seconds."""

    def __init__(self) -> None:
        self._known: dict[str, click.Command] = {}
        self._modules = {name: one.module for section in SECTIONS.values() for name, one in section.items()}
        # Such as `idea demo`, whose package the archive of ComfyUI's registry leaves out.
        found = entry_points(group="idea.commands")
        self._additions = {one.name: one for one in found if find_spec(one.module.partition(".")[0])}

    @property
    def additions(self) -> list[str]:
        """Names of other packages' commands."""
        return sorted(self._additions)

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._known and name in self._modules:
            self._known[name] = getattr(import_module(f".{self._modules[name]}", __package__), name)
        elif name not in self._known and name in self._additions:
            self._known[name] = self._additions[name].load()
        return self._known[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._known[name] = command

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._additions, *self._known]))

    def __len__(self) -> int:
        return len(list(iter(self)))


class Commands(click.Group):
    """The commands in sections."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.commands = self._lazily = _Lazily()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, one.summary) for name, one in commands.items()])
        added = [(name, self._lazily[name].get_short_help_str(120)) for name in self._lazily.additions]
        if added:
            with formatter.section(MORE):
                formatter.write_dl(added)


class _Stderr(logging.Handler):
    """Prints this package's log, info lines included. Of other packages Python prints only warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
)
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
