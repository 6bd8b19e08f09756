"""Settings that are declared once: a dataclass field holds default, bounds and help.

`Settings` checks its values by these fields. `settings_of` makes command options, node widgets and tables of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from math import isfinite
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from .errors import ConfigError

MAX_SEED = 2**64 - 1
_Some = TypeVar("_Some", bound="Settings")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Setting:
    """A field's declaration.

    Attributes:
        help: what it is: the tooltip, the command's help, and the table's text. ComfyUI gives { } @ | another meaning.
        min, max: bounds that the value may have.
        above, below: bounds that the value may not have.
        soft_max: upper end of a widget; commands and scripts may go beyond.
        multiple_of: a divisor of the value; 0: none.
        choices: all values that are allowed; () for any.
        step: of a widget's arrows.
        advanced: whether a node may fold it away.
        option: the command's option where its name differs, such as "--reg-weight".
        name, kind, optional, default: the field's own; `settings_of` fills them in.
    """

    help: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    soft_max: float | None = None
    multiple_of: int = 0
    choices: tuple[str, ...] = ()
    step: float | None = None
    advanced: bool = False
    option: str = ""
    name: str = ""
    kind: type = float
    optional: bool = False
    default: Any = None

    def wanted(self, value: Any) -> str:
        """What a bad value should be, such as "at least 0"; "" for a good one."""
        if value is None and self.optional:
            return ""
        if self.choices:
            return "" if value in self.choices else f"one of {', '.join(self.choices)}"
        if not self._is_kind(value):
            return _KINDS[self.kind]
        if self.kind not in (int, float):
            return ""
        checks = {
            "a finite number": isfinite(value),
            f"at least {self.min}": self.min is None or value >= self.min,
            f"above {self.above}": self.above is None or value > self.above,
            f"at most {self.max}": self.max is None or value <= self.max,
            f"below {self.below}": self.below is None or value < self.below,
            f"a number that {self.multiple_of} divides": not self.multiple_of or value % self.multiple_of == 0,
        }
        return next((wanted for wanted, holds in checks.items() if not holds), "")

    def bounds(self) -> str:
        """The values that are allowed, for a table: "≥ 0, ≤ 1", "names, cross"."""
        if self.choices or self.kind is bool:
            return ", ".join(self.choices) or "true, false"
        ends = {"≥": self.min, ">": self.above, "≤": self.max, "<": self.below}
        return ", ".join(f"{sign} {shown(end)}" for sign, end in ends.items() if end is not None)

    def _is_kind(self, value: Any) -> bool:
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, (int, float) if self.kind is float else self.kind)


def setting(default: Any, help: str, **declared: Any) -> Any:
    """A dataclass field of `Settings`; `declared` are further attributes of its `Setting`."""
    return field(default=default, metadata={"setting": Setting(help, **declared)})


class Settings:
    """Base of frozen dataclasses of settings: ConfigError for a value outside its bounds.

    Fields without `setting` are left to `_check`.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __post_init__(self) -> None:
        for name, declared in settings_of(type(self)).items():
            wanted = declared.wanted(getattr(self, name))
            self._require(name, not wanted, wanted)
        self._check()

    def _check(self) -> None:
        """Raise `ConfigError` where values do not fit each other."""

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} {wanted}", str(getattr(self, name)), f"Change {name}.")

    def as_dict(self) -> dict[str, Any]:
        """All values by name, as JSON has them."""
        return asdict(self)

    @classmethod
    def from_values(cls: type[_Some], values: Mapping[str, Any], **others: Any) -> _Some:
        """The settings among `values`, without their other entries; `others` are for fields that are no settings."""
        return cls(**{name: values[name] for name in settings_of(cls) if name in values}, **others)


def settings_of(kind: type[Settings]) -> Mapping[str, Setting]:
    """The declared settings of a class by name, in their order."""
    hints, settings = get_type_hints(kind), {}
    for one in fields(kind):
        if "setting" in one.metadata:
            parts = get_args(hints[one.name]) or (hints[one.name],)
            own = {"name": one.name, "kind": parts[0], "optional": type(None) in parts, "default": one.default}
            settings[one.name] = replace(one.metadata["setting"], **own)
    return settings


def shown(value: Any) -> str:
    """A value in a text: "0.0003", "true", "names"; "" for None."""
    if value is None or isinstance(value, (bool, str)):
        return "" if value is None else str(value).lower() if isinstance(value, bool) else value
    return str(value) if isinstance(value, int) else f"{value:g}"
