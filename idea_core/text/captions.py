"""Training captions: the object templates of Textual Inversion (arXiv 2208.01618, appendix), filled for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError

PLACEHOLDER = "{}"

PORTRAIT_PROMPTS = (
    "a photo of {}",
    "a portrait photo of {}, looking into the camera",
    "a close-up photo of the face of {}, smiling",
    "a photo of {} on a street, daylight",
    "a studio portrait of {}, gray background",
    "a photo of {} in a kitchen, evening light",
    "a photo of {} wearing a hat, outdoors",
    "a black and white photo of {}",
    "a photo of {} in a suit, in front of a microphone",
    "a photo of {} on a beach, laughing",
    "a head and shoulders photo of {}, three-quarter view",
    "a photo of {} in a forest, overcast",
)
"""Prompts under which a base model shows what people look like."""

OBJECT_TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)

MEDIA = ("a photo of", "an illustration of", "a depiction of")

PAPER_TEMPLATES = tuple(t.replace(MEDIA[0], medium) for medium in MEDIA for t in OBJECT_TEMPLATES)
"""The 81 templates of Cross Initialization (arXiv 2312.15905), which ID-EA kept: those above in three media."""


def person_captions(templates: Iterable[str]) -> tuple[str, ...]:
    """Captions with `{}` where the pseudo-tokens stand."""
    return tuple(template.format("face of {} person") for template in templates)


def parse_prompts(text: str) -> tuple[str, ...]:
    """Its lines, or `PORTRAIT_PROMPTS` if it has none."""
    return tuple(line.strip() for line in text.split("\n") if line.strip()) or PORTRAIT_PROMPTS


def require_prompts(prompts: Iterable[str], whose: str) -> None:
    """Raise `ConfigError` unless each prompt has one `{}`, which keeps the place of `whose`."""
    for prompt in prompts:
        if prompt.count(PLACEHOLDER) != 1:
            remedy = f"Write {PLACEHOLDER} once in each."
            raise ConfigError(f"prompts with one {PLACEHOLDER} for the {whose}", repr(prompt), remedy)


def with_note(captions: Sequence[str], note: str) -> tuple[str, ...]:
    """Captions that also say what else is to be seen in a photo, so that it is not learned as the person's.

    Args:
        note: "wearing a red hat, on a beach"; with `{}` in it, the one caption of the photo; "" adds nothing.
    """
    if PLACEHOLDER in note:
        return (note,)
    return tuple(f"{caption}, {note}" for caption in captions) if note else tuple(captions)


CAPTIONS = {"photo": person_captions(OBJECT_TEMPLATES), "paper": person_captions(PAPER_TEMPLATES)}
"""Named sets of training captions."""
PERSON_CAPTIONS = CAPTIONS["photo"]


def captions_of(preset: str) -> str:
    """The set of `CAPTIONS` that belongs to a preset of settings."""
    return "paper" if preset == "paper" else "photo"
