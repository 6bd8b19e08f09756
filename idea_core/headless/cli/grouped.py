"""Options made from settings, and groups of options that a command receives as one argument."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import click

from ...settings import Setting, Settings, settings_of, shown
from ...text.names import as_on_disk


class _PathOnDisk(click.Path):
    """A path, in the spelling of the file system if it exists."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return as_on_disk(Path(os.fsdecode(super().convert(value, param, ctx))))


class _Words(click.Choice):
    """Choices; the command spells their blanks as dashes."""

    def __init__(self, choices: Sequence[str]):
        super().__init__([choice.replace(" ", "-") for choice in choices])
        self._originals = dict(zip(self.choices, choices))

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self._originals[super().convert(value.replace(" ", "-"), param, ctx)]


_OTHERS = "Options"
_TITLES = {
    "model": "Base model",
    "faces": "Face models",
    "engine": "Machines",
    "watch": "Previews",
    "config": "Settings",
    "when": "Saves and validation",
}
"""Argument of a command → title of its options' section, where it is another word."""
_SECTIONS: WeakKeyDictionary[click.Parameter, str] = WeakKeyDictionary()
PATH = _PathOnDisk(path_type=Path)
Paths = tuple[Path, ...]


def options_of(
    kind: type[Settings], without: Sequence[str] = (), presets: Mapping[str, Settings] = MappingProxyType({})
) -> list[click.Option]:
    """An option for each setting of a class, named after its field.

    Args:
        without: settings without an option.
        presets: named settings that give the defaults; the help shows their values.
    """
    return [_option(one, presets) for name, one in settings_of(kind).items() if name not in without]


def _option(setting: Setting, presets: Mapping[str, Settings]) -> click.Option:
    flag = setting.option or "--" + setting.name.replace("_", "-")
    declared: dict[str, Any] = {"type": _Words(setting.choices) if setting.choices else setting.kind}
    if setting.kind is bool and not presets:
        declared = {"is_flag": True}
    text, default = setting.help + _preset_values(setting.name, presets), None if presets else setting.default
    return click.Option([flag, setting.name], help=text, default=default, **declared)


def _preset_values(name: str, presets: Mapping[str, Settings]) -> str:
    values = {preset: shown(getattr(config, name)) for preset, config in presets.items()}
    usual, count = Counter(values.values()).most_common(1)[0] if values else ("", 0)
    if count == len(values):
        return f" Default: {usual}." if usual else ""
    if usual and count > len(values) / 2:
        others = ", ".join(f"{preset} {value or 'unset'}" for preset, value in values.items() if value != usual)
        return f" Default: {usual}; {others}."
    listed = ", ".join(f"{preset} {value}" for preset, value in values.items() if value)
    return f" Default: the preset's ({listed})." if listed else ""


class Sectioned(click.Command):
    """A command whose help shows the options of each `grouped` argument in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {_OTHERS: []}
        for option in self.get_params(ctx):
            if record := option.get_help_record(ctx):
                sections.setdefault(_SECTIONS.get(option, _OTHERS), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def grouped(name: str, build: Callable[..., Any], *options: click.Option) -> Callable:
    """A decorator: the command's argument `name` is `build`, called with the values of these options."""

    for option in options:
        _SECTIONS[option] = _TITLES.get(name, name.capitalize())

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            own = {option.name: values.pop(option.name) for option in options}
            return command(**values, **{name: build(**own)})

        vars(run)["__click_params__"] = [*getattr(command, "__click_params__", []), *reversed(options)]
        return run

    return decorate
