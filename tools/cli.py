"""Make the page docs/cli.md from the help of the commands:  python tools/cli.py > docs/cli.md"""

from __future__ import annotations

import click

from idea_core.headless.cli import idea

INTRODUCTION = """\
# The `idea` command

Each command's own `--help`. Install: see "Without ComfyUI" in the [README](../README.md). The published commands'
options and what became of them: [published-commands.md](published-commands.md).
"""
WIDTH = 100


def render() -> str:
    return "\n".join([INTRODUCTION, *_pages(idea, "idea")])


def _pages(command: click.Command, name: str) -> list[str]:
    """The command's help, then its sub-commands'."""
    commands = sorted(getattr(command, "commands", {}).items())
    return [_help(command, name), *(page for key, sub in commands for page in _pages(sub, f"{name} {key}"))]


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    context.show_default = True
    context.help_option_names = ["-h", "--help"]
    return f"## `{name}`\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    print(render(), end="")
