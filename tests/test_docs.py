"""What the documentation says of the commands is what they are."""

import re
import sys

from error_messages import messages
from helpers import ROOT

from idea_core.headless.cli import idea

sys.path.append(str(ROOT / "tools"))

import cli


def options_of(command: str) -> set[str]:
    return {flag for parameter in idea.commands[command].params for flag in parameter.opts + parameter.secondary_opts}


def test_the_reference_is_the_commands_own_help():
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert page == cli.render(), "Write it anew: python tools/cli.py > docs/cli.md"


def test_the_table_of_published_options_names_real_ones():
    page = (ROOT / "docs" / "published-commands.md").read_text("utf-8")
    rows = re.findall(r"^\| (`--.*?) \| (.*?) \| ", page, re.MULTILINE)
    assert len(rows) > 35
    for published, ours in rows:
        command = re.match(r"`idea (\w+) ", ours)
        assert command or ours == "–", published
        if command:
            assert set(re.findall(r"--[\w-]+", ours)) <= options_of(command[1]), published


def test_commands_in_the_documentation_parse():
    pages = [ROOT / "README.md", ROOT / "docs" / "published-commands.md"]
    lines = [line for page in pages for line in re.findall(r"^idea .*$", page.read_text("utf-8"), re.MULTILINE)]
    assert len(lines) >= 4
    for line in lines:
        name = line.split()[1]
        assert set(re.findall(r" (--[\w-]+)", line)) <= options_of(name), line


def test_troubleshooting_quotes_every_error_message_as_it_is():
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = {message for *_, message in messages(ROOT)}
    quoted = set(re.findall(r"`(Expected [^`]*)`", page)) | set(re.findall(r"``(Expected .*?)``", page))
    assert len(said) > 140
    assert not said - quoted, "These are not in docs/troubleshooting.md."
    assert not quoted - said, "Nothing says these."
