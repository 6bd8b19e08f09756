"""What Apply ID-Adapter adds to CLIP: people's names in prompts, and the adapter's change to their text conditions.

The person's pseudo-tokens replace `<name>` in a prompt, and its text condition is adapted at Apply's strength. The
conditioning also carries its parts (`AdaptedText`). So a MODEL with another strength or schedule can compute it again,
without encoding anything.

Other packs look into CLIP: at the parts of its tokenizer and text encoder, and at their classes. Both are therefore
shallow copies of the originals, of a derived class, and share all parts with them.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...idea_core.errors import ConfigError
from ...idea_core.identity.identity import Identity
from ...idea_core.text.names import alike
from .models import current_layer
from .names import AppliedPerson, PeopleTokenizer
from .stand_ins import places, stands_for

ADAPTED = "idea_people"
"""Entry of a conditioning: its `AdaptedText`."""


@dataclass(frozen=True, eq=False)
class AdaptedText:
    """An adapted text condition, and its parts.

    Attributes:
        plain: the text encoder's output (1, L, d).
        adapted: the text condition in the conditioning (1, L, d).
        differences: key of a person → the adapter's difference (1, L, d).
        strengths: key → factor of the difference in `adapted`.
        places: key → (1, L, 1), 1 at each token of the person; only for transformers.
    """

    plain: Tensor
    adapted: Tensor
    differences: Mapping[str, Tensor]
    strengths: Mapping[str, float]
    places: Mapping[str, Tensor] = field(default_factory=dict)

    def at(self, strengths: Mapping[str, float], text: Tensor) -> Tensor | None:
        """The text condition at other strengths; people who are not in `strengths` keep theirs.

        Args:
            text: the conditioning's present text: `adapted`, or what other nodes made of it.

        Returns:
            None if other nodes have mixed it, so that its share of each difference is unknown.
        """
        wanted = {**self.strengths, **{key: value for key, value in strengths.items() if key in self.strengths}}
        if wanted == self.strengths or not text.any():  # zeroed out
            return text
        length = self.adapted.shape[1]
        if text is not self.adapted and not torch.equal(text[:, :length], self.adapted.to(text)):
            return None
        anew = combine(self.plain, self.differences, wanted).to(text)
        return anew if text.shape[1] == length else torch.cat([anew, text[:, length:]], dim=1)


def combine(text: Tensor, differences: Mapping[str, Tensor], strengths: Mapping[str, float]) -> Tensor:
    """``text + Σ strength · difference``, in the same order whoever was applied first."""
    for key in sorted(differences):
        if strengths[key] != 0:
            text = text + strengths[key] * differences[key].to(text)
    return text


class PeopleTextEncoder:
    """A CLIP's text encoder that adapts the text of people's prompts. It is mixed into the encoder's own class."""

    idea_people: tuple[AppliedPerson, ...]

    def encode_token_weights(self, tokens: Mapping[str, list]) -> tuple:
        context, pooled, *extra = super().encode_token_weights(tokens)
        extra = dict(*extra)
        differences: dict[str, Tensor] = {}
        strengths: dict[str, float] = defaultdict(float)
        everywhere = {person.key for person in self.idea_people if person.everywhere}
        marks = _marks(self.idea_people, tokens, context.shape[1])
        context = _with_rows(self.idea_people, marks, context)
        _tell_of_weights(self.idea_people, tokens)
        for person in self.idea_people:
            held = [[person.holds(encoder, chunk) for chunk in chunks] for encoder, chunks in tokens.items()]
            here = [any(chunk) for chunk in itertools.zip_longest(*held, fillvalue=False)]
            if any(here):
                person.seen.encoded = True
                _require_layer(self, person)
            if person.key in everywhere:
                here = [True] * len(here)
            if any(here):
                if person.key not in differences:
                    there = _acts_at(person.key, marks)
                    differences[person.key] = _difference(person.identity, context, here, there)
                strengths[person.key] += person.strength
        if differences:
            adapted = combine(context, differences, strengths)
            extra[ADAPTED] = AdaptedText(context, adapted, differences, dict(strengths), marks)
            context = adapted
        return (context, pooled, extra) if extra else (context, pooled)


def patch_clip(clip, person: AppliedPerson):
    """A clone of CLIP with one more person.

    Raises:
        ConfigError: the CLIP has another person of that name.
    """
    known = getattr(clip.tokenizer, "idea_people", ())
    if any(alike(one.trigger) == alike(person.trigger) and one.key != person.key for one in known):
        raise ConfigError(
            "people of different names in one CLIP",
            f"two called {person.trigger}",
            "Rename one with Edit Identity, or give each Apply ID-Adapter the CLIP of the checkpoint itself.",
        )
    clip = clip.clone()
    clip.tokenizer = _mixed(PeopleTokenizer, clip.tokenizer, person)
    clip.cond_stage_model = _mixed(PeopleTextEncoder, clip.cond_stage_model, person)
    return clip


def _mixed(mixin: type, part, person: AppliedPerson):
    """A shallow copy of a tokenizer or text encoder with one more person; `mixin` stands before its own class."""
    mixed = copy.copy(part)
    kind = type(part)
    if not issubclass(kind, mixin):
        mixed.__class__ = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
    mixed.__dict__["idea_people"] = (*getattr(part, "idea_people", ()), person)
    return mixed


def _require_layer(encoder, person: AppliedPerson) -> None:
    """Tell the user if the CLIP gives another layer than in the person's training."""
    base = person.identity.base
    trained, layers = person.identity.text_layer, {current_layer(encoder, key) for key in base.encoders} - {None}
    if layers and layers != {trained}:
        person.seen.tell(
            f"{person.trigger} was trained on CLIP layer {trained}, and this CLIP gives layer {layers.pop()}. "
            "Use CLIP Set Last Layer as in the training."
        )


def _marks(people: Sequence[AppliedPerson], tokens: Mapping[str, list], length: int) -> dict[str, Tensor]:
    """Key of each person in a transformer's prompt → (1, L, 1), 1 at the person's tokens."""
    base = people[0].identity.base
    encoder = next(iter(base.encoders))
    found: dict[str, Tensor] = {}
    for person in people if base.transformer is not None else ():
        rows = places(tokens[encoder], person.vectors(encoder), length, person.key)
        if rows:
            found[person.key] = torch.zeros(1, length, 1)
            found[person.key][:, rows] = 1
    return found


def _with_rows(people: Sequence[AppliedPerson], marks: Mapping[str, Tensor], context: Tensor) -> Tensor:
    """The text condition with people's own rows where they stand."""
    for person in people:
        rows = person.identity.rows
        if rows is not None and person.key in marks:
            where = marks[person.key][0, :, 0].nonzero()[:, 0].to(context.device)
            context = context.index_copy(1, where, rows.to(context).repeat(len(where) // len(rows), 1)[None])
    return context


def _tell_of_weights(people: Sequence[AppliedPerson], tokens: Mapping[str, list]) -> None:
    """Tell the user where a weight has no effect: it scales what the text encoder gives, and own rows replace that."""
    for person in people:
        for encoder in person.identity.base.encoders if person.identity.rows is not None else ():
            vectors, entries = person.vectors(encoder), (entry for chunk in tokens[encoder] for entry in chunk)
            if any(weight != 1 and stands_for(token, vectors, person.key) for token, weight, *_ in entries):
                person.seen.tell(
                    f"A weight on {person.trigger} in a prompt does nothing: this person stands in the text encoder's "
                    "output. Change the strength of Apply ID-Adapter."
                )


def _acts_at(key: str, marks: Mapping[str, Tensor]) -> Tensor | None:
    """Where a person's adapter acts in a transformer's prompt (1, L, 1); None: at all tokens.

    Beside other people it acts at its person's own tokens alone: in the words between them, people mix. The adapter of
    somebody who is not named acts at nobody's tokens.
    """
    if key in marks:
        return marks[key] if len(marks) > 1 else None
    return 1 - torch.stack(list(marks.values())).sum(0) if marks else None


def _difference(identity: Identity, context: Tensor, chunks_with_person: list[bool], there: Tensor | None) -> Tensor:
    """The adapter's difference (1, L, d) to the chunks that hold the person; zero elsewhere.

    CLIP's adapter sees the 77 tokens of a chunk, as in training, whatever the prompt's length.

    Args:
        there: (1, L, 1), 1 where it acts; None: everywhere.
    """
    if not identity.has_adapter or identity.grounding is None:  # the chunks are marked all the same
        return torch.zeros_like(context, dtype=torch.float32)
    adapter = identity.build_adapter(context.device)
    grounding = identity.grounding.to(context.device, torch.float32)
    size = identity.base.context_length if identity.base.transformer is None else context.shape[1]
    chunks = context.split(size, dim=1)
    here = chunks_with_person[: len(chunks)] + [False] * (len(chunks) - len(chunks_with_person))
    parts = [
        adapter.difference(chunk.float(), grounding) if held else torch.zeros_like(chunk, dtype=torch.float32)
        for chunk, held in zip(chunks, here)
    ]
    whole = torch.cat(parts, dim=1)
    return whole if there is None else whole * there.to(whole)
