"""The `idea` command, run in the tests' own process, on the studio of tiny models."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from idea_core.headless.cli import idea

QUICK = ["--steps", "2", "--batch-size", "1", "--resolution", "16", "--phrase", "ab"]


def run(*arguments, code: int = 0):
    """The command's result; with --json, parsed."""
    result = CliRunner().invoke(idea, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments and code == 0 else result


def base(studio: Path) -> list:
    return ["--model", studio / "model", "--device", "cpu"]


def faces(studio: Path) -> list:
    return ["--face-models", studio / "faces", "--provider", "cpu"]


def train(studio: Path, output: Path, *more, name: str = "alice", code: int = 0):
    photos = ["--photos", studio / "photos" / name]
    return run("train", *base(studio), *faces(studio), *photos, "--name", name, "-o", output, *QUICK, *more, code=code)
