"""People of a comparison: a folder with a sub-folder of photos for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError, IdeaError
from ...faces.photos import find_photos
from ...files.textfile import parse_json, read_text
from ...identity.checks import require_name
from ...settings import settings_of
from ...text.captions import parse_prompts, require_prompts
from ...text.names import one_form
from ...training.config import TrainConfig

REFERENCES, PROMPTS, SETTINGS = "references", "prompts.txt", "settings.json"
_TEXTS = PROMPTS, SETTINGS


@dataclass(frozen=True)
class Person:
    """A person to learn, and what images of them are compared with.

    Attributes:
        photos: files or folders to train on.
        references: other photos of the person, which no training sees; the photos themselves if there are none.
        prompts: with `{}` for the person; none: those of the comparison.
        settings: of the trainings of this person alone, such as a seed.
    """

    name: str
    photos: tuple[Path, ...]
    references: tuple[Path, ...] = ()
    prompts: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, folder: Path) -> Person:
        """The person of a folder: photos, and if wanted `references/`, `prompts.txt` and `settings.json`.

        Raises:
            IdeaError: a name that prompts cannot say, no photos, or a text that is not as expected.
        """
        photos, prompts, references = find_photos([folder], known=_TEXTS), folder / PROMPTS, folder / REFERENCES
        own = parse_prompts(read_text(prompts)) if prompts.is_file() else ()
        require_prompts(own, "person")
        return cls(
            name=require_name(one_form(folder.name)),
            photos=tuple(photos),
            references=tuple(find_photos([references])) if references.is_dir() else (),
            prompts=own,
            settings=_settings(folder / SETTINGS) if (folder / SETTINGS).is_file() else {},
        )


def find_people(folder: Path) -> tuple[list[Person], dict[str, str]]:
    """The people of a folder by name, and a message for each sub-folder that is none.

    Raises:
        ConfigError: no folder, or no sub-folder in it.
    """
    places = sorted(place for place in folder.iterdir() if place.is_dir() and place.name[0] not in "._")
    if not places:
        raise ConfigError(
            f"a folder for each person in {folder}", "none", "Put each person's photos into a folder of their name."
        )
    people, faults = [], {}
    for place in places:
        try:
            people.append(Person.of(place))
        except (IdeaError, OSError) as error:
            faults[place.name] = str(error)
    return people, faults


def _settings(file: Path) -> dict[str, Any]:
    try:
        values = parse_json(read_text(file))
    except ValueError as error:
        values = f"{error}"
    known = settings_of(TrainConfig)
    if not isinstance(values, dict) or values.keys() - known.keys():
        got = ", ".join(sorted(values.keys() - known.keys())) if isinstance(values, dict) else repr(values)[:80]
        raise ConfigError(f"an object of training settings in {file}", got, 'Write such as {"seed": 3}.')
    TrainConfig(**values)  # checks the values
    return values
