"""Options that are made of settings, and groups of options that a command gets as one argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...settings import Setting, Settings, settings_of, shown
from ...text.names import as_on_disk


class _PathOnDisk(click.Path):
    """A path, spelled as the file system spells it where it is there."""

    def convert(self, value, param, ctx) -> Path:
        return as_on_disk(super().convert(value, param, ctx))


class _Words(click.Choice):
    """Choices of which some have blanks; the command spells them with dashes."""

    def __init__(self, choices: Sequence[str]):
        super().__init__([choice.replace(" ", "-") for choice in choices])
        self._originals = dict(zip(self.choices, choices))

    def convert(self, value, param, ctx) -> str:
        return self._originals[super().convert(value.replace(" ", "-"), param, ctx)]


PATH = _PathOnDisk(path_type=Path)


def options_of(
    kind: type[Settings],
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    presets: Mapping[str, Settings] | None = None,
) -> list[click.Option]:
    """An option for each setting of a class, called after its field.

    Args:
        without: settings that get none.
        defaults: where they are others than the class's.
        presets: named settings, which those left out are taken from; the help shows their values.
    """
    settings = [one for name, one in settings_of(kind).items() if name not in without]
    return [_option(one, {one.name: one.default, **(defaults or {})}[one.name], presets) for one in settings]


def _option(setting: Setting, default: Any, presets: Mapping[str, Settings] | None) -> click.Option:
    flag = setting.option or "--" + setting.name.replace("_", "-")
    given: dict[str, Any] = {"default": default, "type": _Words(setting.choices) if setting.choices else setting.kind}
    if presets:
        given["default"] = None
    elif setting.kind is bool:
        given = {"default": default, "is_flag": True}
    return click.Option([flag, setting.name], help=setting.help + (_preset_values(setting.name, presets)), **given)


def _preset_values(name: str, presets: Mapping[str, Settings] | None) -> str:
    values = {preset: shown(getattr(config, name)) for preset, config in (presets or {}).items()}
    if len(set(values.values())) == 1:
        value = next(iter(values.values()))
        return f" Default: {value}." if value else ""
    listed = ", ".join(f"{preset} {value}" for preset, value in values.items() if value)
    return f" Default: the preset's ({listed})." if listed else ""


def grouped(name: str, options: Sequence[click.Option], build: Callable[..., Any]) -> Callable:
    """A decorator: the command gets what `build` makes of these options' values as its argument `name`."""

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def run(**values):
            own = {option.name: values.pop(option.name) for option in options}
            return command(**values, **{name: build(**own)})

        run.__click_params__ = [*getattr(command, "__click_params__", []), *reversed(options)]
        return run

    return decorate


def settings_group(name: str, kind: type[Settings], options: Sequence[click.Option] | None = None) -> Callable:
    """A group of a class's own options."""
    return grouped(name, options_of(kind) if options is None else options, kind)
