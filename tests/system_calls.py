"""What a process asks of the system: hosts that it reaches, files that it makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest

_CALLS = "%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SENT = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*\bAF_(?!UNIX|NETLINK)")
_MADE = re.compile(r"\b(?:creat|mkdir|mkdirat|rename\w*|link\w*|symlink\w*)\(|O_CREAT")


@dataclass(frozen=True)
class Trace:
    """What was seen of a process and of all that it started.

    Attributes:
        network: calls that reach other processes by a network, this machine's own too.
        made: files and folders that were made, or tried to.
        home: files under its home folder in the end.
        errors: what it printed to stderr.
    """

    network: list[str]
    made: set[Path]
    home: list[str]
    errors: str


def _works() -> bool:
    strace = shutil.which("strace")
    return (
        bool(strace) and not subprocess.run([strace, "-qq", "-o", os.devnull, "true"], capture_output=True).returncode
    )


needs_strace = pytest.mark.skipif(not _works(), reason="NO STRACE: what leaves this machine was NOT LOOKED AT")


def trace(command: list, folder: Path, **more: str) -> Trace:
    """Run a command in `folder`, with an empty home folder in it and the certificates with which libraries report.

    Raises:
        CalledProcessError: it failed.
    """
    home, log = folder / "home", folder / "calls.txt"
    home.mkdir()
    keep = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS") if key in os.environ}
    environment = {**keep, "HOME": str(home), "SSL_CERT_FILE": certifi.where(), "PYTHONDONTWRITEBYTECODE": "1", **more}
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "500", "-e", f"trace={_CALLS}", "-o", log]
    done = subprocess.run([*strace, *command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(done.stderr[-3000:])
    lines = log.read_text(errors="replace").splitlines()
    made = {folder / path for line in lines if _MADE.search(line) for path in _PATH.findall(line)}
    return Trace(
        network=[line for line in lines if _SENT.search(line)],
        made={path for path in made if not path.is_relative_to("/dev") and not path.is_relative_to("/proc")},
        home=[str(path.relative_to(home)) for path in home.rglob("*")],
        errors=done.stderr,
    )
