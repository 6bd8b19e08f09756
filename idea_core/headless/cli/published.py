"""Option names of the published commands (arXiv 2507.11990, authors' code), accepted as aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from .grouped import Sectioned

PUBLISHED = {
    "train": {
        "pretrained_model_name_or_path": "model",
        "train_data_dir": "photos",
        "placeholder_token": "name",
        "n_persudo_tokens": "num-tokens",
        "celeb_path": "names",
        "initialize_tokens": "phrase",
        "max_train_step": "steps",
        "max_train_steps": "steps",
        "train_batch_size": "batch-size",
        "mixed_precision": "dtype",
        "adam_weight_decay": "weight-decay",
        "learnable_property": "captions",
        "save_steps": "save-every",
        "checkpointing_steps": "save-every",
        "validation_prompt": "preview-prompt",
        "validation_steps": "preview-every",
        "num_validation_images": "preview-count",
    },
    "generate": {
        "pretrained_model_name_or_path": "model",
        "learned_embedding_path": "identity",
        "num_inference_steps": "steps",
    },
}
"""Command → published name → our name, where they differ by more than dashes."""
VALUES = {"learnable_property": {"face": "paper", "object": "paper"}, "mixed_precision": {"no": "fp32"}}
"""Published values → our values."""
_NAME = re.compile(r"--([a-z][a-z0-9_-]*)(=.*)?", re.DOTALL)


class PublishedNames(Sectioned):
    """A command that accepts the published names of its options, with underscores or dashes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(translated(args, self.name or "")))


def translated(arguments: Iterable[str], command: str) -> Iterator[str]:
    """The arguments with published names and values replaced by ours."""
    value_of: dict[str, str] = {}
    ended = False
    for argument in arguments:
        ended = ended or argument == "--"
        name = None if ended else _NAME.fullmatch(argument)
        if name is None:
            yield value_of.get(argument, argument)
            value_of = {}
            continue
        published, value = name[1].replace("-", "_"), name[2] or ""
        value_of = VALUES.get(published, {})
        ours = PUBLISHED.get(command, {}).get(published, published.replace("_", "-"))
        yield f"--{ours}" + (f"={value_of.get(value[1:], value[1:])}" if value else "")
