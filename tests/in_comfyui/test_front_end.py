"""The example workflows in ComfyUI's own front end, in a real browser."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator

import pytest
from comfyui_place import PACK

pytest.importorskip("selenium")
sys.path.append(str(PACK / "docs"))
from pictures import open_browser  # noqa: E402

TOOLS = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not all(TOOLS), reason="no chromium and chromedriver")

WORKFLOWS = PACK / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))

LOAD = """
const [workflow, done] = arguments;
(async () => {
  try {
    await window.app.loadGraphData(workflow);
    const nodes = window.app.graph.nodes ?? window.app.graph._nodes;
    const { output } = await window.app.graphToPrompt();
    done({ output, titles: nodes.map(n => n.title), red: nodes.filter(n => n.has_errors).map(n => n.type) });
  } catch (error) { done({ error: String(error) }); }
})();
"""
BYPASS = """
const done = arguments[0];
(async () => {
  const nodes = window.app.graph.nodes ?? window.app.graph._nodes;
  nodes.filter(n => n.type === 'IDEA_ApplyAdapter').forEach(n => { n.mode = 4; });
  const { output } = await window.app.graphToPrompt();
  done(output);
})();
"""


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory) -> Iterator:
    browser = open_browser(server.url, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


def inputs_of(graph: dict, known: dict) -> dict:
    """Node → class and inputs, without those that only the front end knows: it gives some nodes widgets of its own."""

    def named(kind: str) -> set[str]:
        return {name for group in known[kind]["input"].values() for name in group}

    return {
        key: (node["class_type"], {n: value for n, value in node["inputs"].items() if n in named(node["class_type"])})
        for key, node in graph.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_and_queues_what_its_api_twin_says(browser, server, name):
    browser.get_log("browser")
    result = browser.execute_async_script(LOAD, json.loads((WORKFLOWS / f"{name}.json").read_text()))
    assert "error" not in result
    assert not result["red"]
    twin = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    known = server.get("/object_info")
    assert inputs_of(result["output"], known) == inputs_of(twin, known)
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in severe if "404" not in message]  # pictures that a user has yet to choose


def test_bypassing_apply_leads_model_and_clip_past_it(browser):
    workflow = json.loads((WORKFLOWS / "generate_with_identity.json").read_text())
    browser.execute_async_script(LOAD, workflow)
    bypassed = browser.execute_async_script(BYPASS)
    kinds = {node["class_type"] for node in bypassed.values()}
    assert "IDEA_ApplyAdapter" not in kinds
    (loader,) = (key for key, node in bypassed.items() if node["class_type"] == "CheckpointLoaderSimple")
    sampler = next(node for node in bypassed.values() if node["class_type"] == "KSampler")
    prompts = [node for node in bypassed.values() if node["class_type"] == "CLIPTextEncode"]
    assert sampler["inputs"]["model"] == [loader, 0]
    assert [node["inputs"]["clip"] for node in prompts] == [[loader, 1]] * 2
