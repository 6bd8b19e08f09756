"""A process of real ComfyUI with the pack in it, which runs tests, and functions of `probes_*.py` for tests.

Run with ComfyUI's Python, in ComfyUI's folder:  python worker.py BASE_DIRECTORY [ComfyUI's options]
Reads one JSON object a line: {"module": name, "test": name, "arguments": {…}} or {"probe": name, "arguments": {…}}.
Answers {"result": …}, {"skipped": reason} or {"error": traceback}. Tests need IDEA_TEST_PYTEST, the folder of pytest.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what ComfyUI prints goes to the log
HERE = Path(__file__).parent
sys.path[:] = [str(Path.cwd()), *(path for path in sys.path if Path(path) != HERE)]
DEVICE = [] if os.environ.get("IDEA_TEST_DEVICE") == "gpu" else ["--cpu"]
BASE, sys.argv[1:] = sys.argv[1], [*DEVICE, "--base-directory", *sys.argv[1:]]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.utils  # noqa: E402

import nodes  # noqa: E402

comfy.utils.set_progress_bar_enabled(False)


REACHED: list[str] = []  # what was asked of the network or of another program
BEYOND = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
BEYOND += ("subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork")


def watch_the_borders() -> None:
    """Note from now on, after ComfyUI's own start, what reaches beyond this process."""
    sys.addaudithook(lambda event, arguments: REACHED.append(f"{event} {arguments}") if event in BEYOND else None)


def load_pack() -> None:
    """As ComfyUI's server does it."""
    asyncio.run(nodes.load_custom_node(os.path.join(BASE, "custom_nodes", "id-ea"), module_parent="custom_nodes"))


def _is_probe(value, module) -> bool:
    """Whether a value is a function of a module's own that tests may call."""
    return (
        callable(value) and getattr(value, "__module__", "") == module.__name__ and not value.__name__.startswith("_")
    )


def main() -> None:
    watch_the_borders()
    load_pack()
    sys.path += [str(HERE), str(HERE.parent)]
    from borrowed_pytest import Borrowed, answer_of, load_tests

    sys.meta_path.append(Borrowed(os.environ.get("IDEA_TEST_PYTEST", "")))
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("probes_*.py"))]
    probes = {name: value for module in modules for name, value in vars(module).items()}
    own = [name for module in modules for name, value in vars(module).items() if _is_probe(value, module)]
    if len(own) > len(set(own)):
        raise SystemExit(f"Two probes of one name: {sorted(name for name in set(own) if own.count(name) > 1)}")
    probes["reached"] = lambda: REACHED
    for line in sys.stdin:
        call = json.loads(line)
        try:
            if "test" in call:
                module = sys.modules.get(call["module"]) or load_tests(HERE / f"{call['module']}.py")
                answer = answer_of(getattr(module, call["test"]), call["arguments"])
            else:
                answer = {"result": probes[call["probe"]](**call["arguments"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
