"""The examples, help and languages in ComfyUI's own front end, in a real browser, by clicks."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator

import pytest
from comfyui_place import PACK
from graphs import generation, workflow

pytest.importorskip("selenium")
sys.path.append(str(PACK / "docs"))
import front_end  # noqa: E402

TOOLS = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not all(TOOLS), reason="no chromium and chromedriver")

SCREENSHOTS = PACK / "build" / "screenshots"
WORKFLOWS = PACK / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
OPENED = ("train_identity", "generate_with_identity", "refined_person", "two_people")  # in every run
GRAPH = """
const done = arguments[0];
window.app.graphToPrompt().then(({ output }) => done({
  output,
  red: window.app.graph.nodes.filter(node => node.has_errors).map(node => node.type),
}));
"""
BYPASS = "window.app.graph.nodes.filter(node => node.type === arguments[0]).forEach(node => { node.mode = 4; });"
THUMBNAILS = """
window.seen ??= {};  // pictures are loaded when they come into view, and may go again
const cards = [...document.querySelectorAll('[data-testid^=template-workflow-]')];
const name = card => card.dataset.testid.replace('template-workflow-', '');
for (const card of cards) window.seen[name(card)] ||= card.querySelector('img')?.naturalWidth ?? 0;
cards.find(card => !window.seen[name(card)])?.scrollIntoView();
return Object.keys(window.seen).filter(name => window.seen[name]);
"""
IN_NODES = """
return Object.fromEntries(window.app.graph.nodes.map(node =>
  [node.title, (node.imgs ?? []).map(image => [image.naturalWidth, image.naturalHeight])]));
"""
BOXES = """
const bar = window.LiteGraph.NODE_TITLE_HEIGHT;
return window.app.graph.nodes.map(({ title, pos, size }) => [title, pos[0], pos[1] - bar, size[0], size[1] + bar]);
"""
LANGUAGES = ["ko", "zh", "ja", "en"]


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory) -> Iterator:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser = front_end.open_browser(server.url, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def screenshot(request, browser) -> Iterator:
    """A page without dialogs; what each test saw last is kept, to be looked at."""
    front_end.reload(browser)
    browser.get_log("browser")
    yield
    browser.save_screenshot(SCREENSHOTS / f"{request.node.name}.png")


def severe(browser) -> list[str]:
    """Errors in the browser's console, but for files that a user has yet to choose or make."""
    entries = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [message for message in entries if "status of 404" not in message]


def inputs_of(graph: dict, known: dict) -> dict:
    """Node → class and inputs, without those that only the front end knows: it gives some nodes widgets of its own."""

    def named(kind: str) -> set[str]:
        return {name for group in known[kind]["input"].values() for name in group}

    return {
        key: (node["class_type"], {n: value for n, value in node["inputs"].items() if n in named(node["class_type"])})
        for key, node in graph.items()
    }


def test_every_example_has_its_picture_in_the_template_browser(browser):
    front_end.show_templates(browser)
    front_end.until(browser, lambda: sorted(browser.execute_script(THUMBNAILS)) == NAMES, 60)


@pytest.mark.parametrize(
    "name", [name if name in OPENED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_an_example_opens_and_queues_what_its_api_twin_says(browser, server, name):
    twin = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    (ours, *_) = (node["class_type"] for node in twin.values() if node["class_type"].startswith("IDEA_"))
    front_end.open_example(browser, name, ours)
    result = browser.execute_async_script(GRAPH)
    assert not result["red"] and not front_end.complaints(browser)
    boxes = browser.execute_script(BOXES)
    assert [(a[0], b[0]) for a, b in itertools.combinations(boxes, 2) if overlap(a, b)] == []
    known = server.get("/object_info")
    assert inputs_of(result["output"], known) == inputs_of(twin, known)
    assert not severe(browser)


def overlap(one: list, other: list) -> bool:
    """Whether two boxes `[title, x, y, width, height]` share a place."""
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (1, 2))


def test_clicks_train_a_person_and_draw_it(browser, untouched):
    front_end.open_example(browser, "train_identity", "IDEA_EnhancerTrain")
    settings = {"name": "clicked", "steps": 4, "resolution": 64, "preview_every": 2}
    graph = workflow(
        "train_identity",
        CheckpointLoaderSimple={"ckpt_name": "tiny_sd15.safetensors"},
        IDEA_EnhancerTrain=settings,
        IDEA_SaveIdentity={"filename": "clicked"},
    )
    front_end.fill(browser, graph)
    heard = front_end.run(browser)
    assert not front_end.complaints(browser)
    assert heard[-1][0] == "execution_success"
    (train,) = (key for key, node in graph.items() if node["class_type"] == "IDEA_EnhancerTrain")
    steps = [said["value"] for kind, said in heard if kind == "progress" and said["node"] == train]
    assert steps == sorted(steps) and steps[-1] == 4
    assert any(kind.startswith("b_preview") for kind, _ in heard)
    front_end.until(browser, lambda: all_shown(browser.execute_script(IN_NODES)))

    front_end.open_example(browser, "generate_with_identity", "IDEA_ApplyAdapter")
    front_end.fill(browser, generation("tiny_sd15", "clicked"))
    front_end.run(browser)
    front_end.until(browser, lambda: browser.execute_script(IN_NODES)["Save Image"] == [[64, 64]])
    assert not front_end.complaints(browser) and not severe(browser)


def all_shown(pictures: dict[str, list]) -> bool:
    """Whether nodes show the loss, the faces found, and two pictures before the training over two after it."""
    sheet = pictures["ID-Enhancer Train"]
    square = len(sheet) == 1 and sheet[0][0] == sheet[0][1] > 0
    return square and len(pictures["Faces found"]) == 2 and len(pictures["Loss curve"]) == 1


def test_a_click_sorts_pictures_by_likeness(browser):
    front_end.open_example(browser, "encode_and_compare", "IDEA_IDEncode")
    front_end.fill(browser, workflow("encode_and_compare"))
    front_end.run(browser)
    front_end.until(browser, lambda: len(browser.execute_script(IN_NODES)["Best first"]) == 3)
    assert not front_end.complaints(browser)


def test_a_click_on_what_cannot_run_says_what_to_do(browser):
    front_end.open_example(browser, "encode_and_compare", "IDEA_IDEncode")
    front_end.run(browser)
    said = front_end.until(browser, lambda: front_end.complaints(browser))
    assert any("Expected a face model pack 'antelopev2'" in one for one in said)


def test_bypassing_apply_leads_model_and_clip_past_it(browser):
    front_end.open_example(browser, "generate_with_identity", "IDEA_ApplyAdapter")
    browser.execute_script(BYPASS, "IDEA_ApplyAdapter")
    bypassed = browser.execute_async_script(GRAPH)["output"]
    kinds = {node["class_type"] for node in bypassed.values()}
    assert "IDEA_ApplyAdapter" not in kinds
    (loader,) = (key for key, node in bypassed.items() if node["class_type"] == "CheckpointLoaderSimple")
    sampler = next(node for node in bypassed.values() if node["class_type"] == "KSampler")
    prompts = [node for node in bypassed.values() if node["class_type"] == "CLIPTextEncode"]
    assert sampler["inputs"]["model"] == [loader, 0]
    assert [node["inputs"]["clip"] for node in prompts] == [[loader, 1]] * 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_and_help_speak_the_users_language(browser, language):
    front_end.set_language(browser, language)
    front_end.open_example(browser, "generate_with_identity", "IDEA_ApplyAdapter")
    texts = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert texts["IDEA_ApplyAdapter"]["display_name"] in browser.execute_script(front_end.TITLES)
    said = front_end.help_of(browser, "IDEA_ApplyAdapter")
    own = PACK / "web" / "docs" / "IDEA_ApplyAdapter" / f"{language}.md"
    page = (own if own.exists() else own.parent.with_suffix(".md")).read_text("utf-8")
    front_end.set_value(browser, "Comfy.Locale", "en")
    headings = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    assert headings and all(heading in said for heading in headings)
