"""Settings that are declared once: default, bounds and help stand in a dataclass field.

`Settings` checks its values by these fields. Command options, node widgets and the tables of the documentation are made
from them too (`settings_of`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import cache
from math import isfinite
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from .errors import ConfigError

MAX_SEED = 2**64 - 1
_Some = TypeVar("_Some", bound="Settings")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Setting:
    """What a field declares of its values.

    Attributes:
        help: what it is: the tooltip, the command's help, and the table's text. ComfyUI gives { } @ | another meaning.
        min, max: bounds that the value may have.
        above, below: bounds that the value may not have.
        soft_max: upper end of a widget; commands and scripts may go beyond.
        multiple_of: what divides the value; 0: nothing has to.
        choices: all values there are; () if there are others.
        step: of a widget's arrows.
        advanced: whether a node may fold it away.
        option: the command's option, where it is called otherwise, such as "--reg-weight".
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
        """What a value should be and is not, such as "at least 0"; "" for a good one."""
        if value is None and self.optional:
            return ""
        if self.choices:
            return "" if value in self.choices else f"one of {', '.join(self.choices)}"
        if not isinstance(value, (int, float) if self.kind is float else self.kind) or (
            isinstance(value, bool) and self.kind is not bool
        ):
            return _KINDS[self.kind]
        return self._outside(value) if self.kind in (int, float) else ""

    def bounds(self) -> str:
        """The values it may have, for a table: "0 … 1", "names, cross"."""
        if self.choices or self.kind is bool:
            return ", ".join(self.choices) or "true, false"
        ends = {"≥": self.min, ">": self.above, "≤": self.max, "<": self.below}
        return ", ".join(f"{sign} {shown(end)}" for sign, end in ends.items() if end is not None)

    def _outside(self, value: float) -> str:
        checks = {
            "a finite number": isfinite(value),
            f"at least {self.min}": self.min is None or value >= self.min,
            f"above {self.above}": self.above is None or value > self.above,
            f"at most {self.max}": self.max is None or value <= self.max,
            f"below {self.below}": self.below is None or value < self.below,
        }
        return next(
            (wanted for wanted, holds in checks.items() if not holds),
            f"a number that {self.multiple_of} divides" if self.multiple_of and value % self.multiple_of else "",
        )


def setting(default: Any, help: str, **declared: Any) -> Any:
    """A dataclass field of `Settings`.

    Args:
        declared: further attributes of `Setting`.
    """
    return field(default=default, metadata={"setting": Setting(help, **declared)})


class Settings:
    """What frozen dataclasses of settings share. Fields without `setting` are theirs to check.

    Raises:
        ConfigError: a value outside its bounds.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __post_init__(self):
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
        """The settings among `values`, whose other entries are passed over; `others` are for fields that are none."""
        return cls(**{name: values[name] for name in settings_of(cls) if name in values}, **others)


@cache
def settings_of(kind: type[Settings]) -> Mapping[str, Setting]:
    """The declared settings of a class by name, in their order."""
    hints, found = get_type_hints(kind), {}
    for one in fields(kind):
        if "setting" in one.metadata:
            parts = get_args(hints[one.name]) or (hints[one.name],)
            own = {"name": one.name, "kind": parts[0], "optional": type(None) in parts, "default": one.default}
            found[one.name] = replace(one.metadata["setting"], **own)
    return found


def shown(value: Any) -> str:
    """A value in a text: "0.0003", "true", "names"; "" for None."""
    if value is None or isinstance(value, (bool, str)):
        return "" if value is None else str(value).lower() if isinstance(value, bool) else value
    return str(value) if isinstance(value, int) else f"{value:g}"
