"""Training captions: the object templates of Textual Inversion (arXiv 2208.01618, appendix), filled for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError
from ..files.textfile import shipped_lines

PLACEHOLDER = "{}"
PORTRAIT_PROMPTS = shipped_lines(__file__, "portrait_prompts.txt")
"""Prompts under which a base model shows people."""
OBJECT_TEMPLATES = shipped_lines(__file__, "object_templates.txt")
PERSON_CAPTIONS = tuple(template.format("face of {} person") for template in OBJECT_TEMPLATES)
"""Training captions with `{}` where the pseudo-tokens stand."""
_MEDIA = ("a photo of", "an illustration of", "a depiction of")
CAPTIONS = {
    "photo": PERSON_CAPTIONS,
    # The 81 templates of Cross Initialization (arXiv 2312.15905), which ID-EA kept: those above in three media.
    "paper": tuple(caption.replace(_MEDIA[0], medium) for medium in _MEDIA for caption in PERSON_CAPTIONS),
}
"""Named sets of training captions."""


def captions_of(preset: str) -> str:
    """The set of `CAPTIONS` that belongs to a preset of settings."""
    return "paper" if preset == "paper" else "photo"


def parse_prompts(text: str) -> tuple[str, ...]:
    """The text's lines, or `PORTRAIT_PROMPTS` if it has none."""
    return tuple(line.strip() for line in text.split("\n") if line.strip()) or PORTRAIT_PROMPTS


def require_prompts(prompts: Iterable[str], subject: str) -> None:
    """Raise `ConfigError` unless each prompt has one `{}`, where `subject` is put."""
    for prompt in prompts:
        if prompt.count(PLACEHOLDER) != 1:
            remedy = f"Write {PLACEHOLDER} once in each."
            raise ConfigError(f"prompts with one {PLACEHOLDER} for the {subject}", repr(prompt), remedy)


def with_note(captions: Sequence[str], note: str) -> tuple[str, ...]:
    """Captions that also say what else a photo shows, so that it is not learned as part of the person.

    Args:
        note: "wearing a red hat, on a beach"; with `{}` in it, the one caption of the photo; "" adds nothing.
    """
    if PLACEHOLDER in note:
        return (note,)
    return tuple(f"{caption}, {note}" for caption in captions) if note else tuple(captions)
