"""A real, unmodified ComfyUI server as a subprocess, and a client for it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

START_LIMIT, RUN_LIMIT = 400, 900  # seconds


class PromptError(Exception):
    """The server refused a prompt, or a node in it failed; holds the server's own words."""


class Server:
    """ComfyUI on the CPU on a free port of this machine.

    Args:
        comfyui: ComfyUI's folder.
        python: ComfyUI's Python.
        base: base directory with models, input and custom_nodes.
        name: of its log and database there.
    """

    def __init__(self, comfyui: Path, python: Path, base: Path, *options: str, name: str = "server"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rsplit(":", 1)[1]
        self.base, self.log = base, base / f"{name}.log"
        command = [python, "main.py", "--cpu", "--port", port, "--base-directory", base, *options]
        command += ["--database-url", f"sqlite:///{base / f'{name}.db'}", "--disable-api-nodes"]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen([str(c) for c in command], cwd=comfyui, stdout=log, stderr=log)
        self._wait_until_up()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def picture(self, image: dict) -> bytes:
        with urllib.request.urlopen(f"{self.url}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
            return answer.read()

    def post(self, path: str, content: dict) -> bytes:
        data = json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise PromptError(error.read().decode()) from None

    def queue(self, prompt: dict) -> str:
        """Queue a graph in API format; its id. ComfyUI runs what is valid of a graph: here all of it has to be."""
        answer = json.loads(self.post("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex}))
        if answer["node_errors"]:
            raise PromptError(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float | None = None) -> dict:
        """The history entry of a prompt that ran to its end, well or not; TimeoutError after some seconds."""
        seconds = RUN_LIMIT if seconds is None else seconds
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"no end after {seconds} s; see {self.log}")

    def run(self, prompt: dict) -> dict:
        """Outputs by node id; PromptError with the server's words if a node failed."""
        return outputs(self.wait(self.queue(prompt)))

    def defaults(self, node: str) -> dict:
        """Required inputs of a node as the front end fills them in, where there is something to fill in."""
        spec = self.get(f"/object_info/{node}")[node]["input"]["required"]
        choices = {name: options.get("options", [None]) for name, (_, options) in spec.items()}
        return {name: options.get("default", choices[name][0]) for name, (_, options) in spec.items()}

    def _wait_until_up(self) -> None:
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit and self._process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        self._process.kill()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log.read_text(errors='replace')[-4000:]}")


def outputs(entry: dict) -> dict:
    """Outputs by node id, of a history entry."""
    if entry["status"]["status_str"] != "success":
        raise PromptError(json.dumps(entry["status"]["messages"]))
    return entry["outputs"]
