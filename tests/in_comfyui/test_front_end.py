"""The examples, help and languages in ComfyUI's own front end, in a real browser, by clicks."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from comfyui_place import PACK
from graphs import TEMPLATES, generation, skip_where_nodes_lack, workflow
from selenium.common.exceptions import TimeoutException

pytest.importorskip("selenium")
sys.path.append(str(PACK / "tools"))
import front_end

TOOLS = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not all(TOOLS), reason="no chromium and chromedriver")

SCREENSHOTS = PACK / "build" / "screenshots"
WORKFLOWS = PACK / "workflows"
NAMES = sorted(TEMPLATES)
TRANSFORMERS = re.compile("Z-Image|FLUX")  # they run in `test_newer_examples.py`
FIRST, SAVED, COMPARE, ACROSS, REFINED = (
    next(name for name, api in TEMPLATES.items() if api == one)
    for one in ("photos_to_picture", "generate_with_identity", "encode_and_compare", "train_enhancer", "refined_person")
)
OPENED = (FIRST, SAVED)  # in every run
SCREEN = (1600, 1000)
FINISHED = (1, 33)  # the front end from which on Nodes 2.0 are more than a trial
FOLDING = (1, 40)  # and advanced inputs are folded
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
ADVANCED = """
for (const node of window.app.graph.nodes) if (node.widgets?.some(widget => widget.options?.advanced)) {
  node.showAdvanced = true;
}
"""
TOOLTIPS = """
const tooltips = [...document.querySelectorAll('.p-tooltip, .node-tooltip, [role=tooltip]')];
return tooltips.map(tooltip => tooltip.textContent.trim());
"""
HELP_PICTURES = "return [...document.querySelectorAll('.node-help-content img')].map(image => image.naturalWidth)"
BOTH_LOOKS = pytest.mark.parametrize("look", front_end.LOOKS, indirect=True)
NODES_2_NOW_AND_THEN = pytest.mark.parametrize(
    "look", [front_end.CLASSIC, pytest.param(front_end.NODES_2, marks=pytest.mark.slow)], indirect=True
)
LANGUAGES = ["ko", "zh", "ja", "en"]


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory) -> Iterator:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser = front_end.open_browser(server.url, tmp_path_factory.mktemp("chromium"), SCREEN)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def look(request, browser) -> Iterator[str]:
    """How the front end draws nodes."""
    if request.param == front_end.NODES_2 and front_end.version(browser) < FINISHED:
        pytest.skip(f"Nodes 2.0 are unfinished in front end {front_end.version(browser)}")
    front_end.set_look(browser, request.param)
    yield request.param
    front_end.set_look(browser, front_end.CLASSIC)


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
    # The front end asks how large a checkpoint on the network is, which a server without api nodes forbids.
    expected = ("status of 404", "Content Security Policy")
    return [message for message in entries if not any(part in message for part in expected)]


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


def missing(graph: dict, known: dict) -> set[str]:
    """Classes of nodes that name a file that is not there."""
    found = set()
    for node in graph.values():
        for group in known[node["class_type"]]["input"].values():
            for name, (kind, *options) in group.items():
                choices = kind if isinstance(kind, list) else options[0].get("options") if kind == "COMBO" else None
                if choices is not None and name in node["inputs"] and node["inputs"][name] not in choices:
                    found.add(node["class_type"])
    return found


@NODES_2_NOW_AND_THEN
@pytest.mark.parametrize(
    "name", [name if name in OPENED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_an_example_opens_and_queues_what_its_api_twin_says(browser, server, look, name):
    twin = json.loads((WORKFLOWS / "api" / f"{TEMPLATES[name]}.json").read_text())
    known = server.get("/object_info")
    skip_where_nodes_lack(twin, known)
    open_example(browser, name)
    result = browser.execute_async_script(GRAPH)
    assert set(result["red"]) <= missing(twin, known) and not front_end.complaints(browser)
    assert inputs_of(result["output"], known) == inputs_of(twin, known)
    assert "DEPRECATED" not in "".join(browser.execute_script(front_end.TITLES))
    front_end.fit(browser)
    front_end.until(browser, lambda: front_end.texts_show(browser))
    front_end.until(browser, lambda: not overlapping(browser, look))
    said, fits = front_end.note(browser, look)
    written = twin["1"]["_meta"]["note"].replace("**", "").replace("\\", "")
    assert fits and all(part in said for part in re.split(r"\n+(?:\d\. )?|^\d\. ", written))
    assert "`" not in written  # code is blue on blue in Nodes 2.0
    if look == front_end.NODES_2:
        browser.execute_script(ADVANCED)
        settle(browser, look)
        assert not overlapping(browser, look)
    assert not severe(browser)


def open_example(browser, name: str) -> None:
    graph = json.loads((WORKFLOWS / "api" / f"{TEMPLATES[name]}.json").read_text())
    ours = next(node["class_type"] for node in graph.values() if node["class_type"].startswith("IDEA_"))
    front_end.open_example(browser, name, ours)


def settle(browser, look: str) -> None:
    """Wait until five looks, in a second, see the same nodes at the same places with the same pictures."""
    seen = [None] * 5

    def still() -> bool:
        seen.append((front_end.boxes(browser, look), front_end.pictures(browser, look)))
        return all(one == seen[-1] for one in seen[-5:])

    front_end.until(browser, still)


def overlapping(browser, look: str) -> list[tuple[str, str]]:
    boxes = front_end.boxes(browser, look)
    return [(one[0], other[0]) for one, other in itertools.combinations(boxes, 2) if overlap(one, other)]


def overlap(one: list, other: list) -> bool:
    """Whether two boxes `[title, x, y, width, height]` share a place."""
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (1, 2))


@pytest.mark.slow
@BOTH_LOOKS
def test_clicks_train_a_person_and_draw_it(browser, untouched, look):
    open_example(browser, FIRST)
    name = f"clicked_{front_end.LOOKS.index(look)}"
    settings = {"name": name, "steps": 4, "resolution": 64, "preview_every": 2}
    checkpoint = {"ckpt_name": "tiny_sd15.safetensors"}
    graph = workflow("photos_to_picture", CheckpointLoaderSimple=checkpoint, IDEA_EnhancerTrain=settings)
    front_end.fill(browser, graph)
    heard = front_end.run(browser)
    assert not front_end.complaints(browser)
    assert heard[-1][0] == "execution_success"
    (train,) = (key for key, node in graph.items() if node["class_type"] == "IDEA_EnhancerTrain")
    steps = [said["value"] for kind, said in heard if kind == "progress" and said["node"] == train]
    assert steps == sorted(steps) and steps[-1] == 4
    shown = [said["output"]["images"] for kind, said in heard if kind == "executed" and said["node"] == train]
    # Before, two previews, and the result; between them the loss alone where steps are slow.
    assert len(shown) >= 4 and all(len(images) == 1 for images in shown)
    front_end.until(browser, lambda: all_shown(front_end.pictures(browser, look)))
    settle(browser, look)  # until a picture too many would be there
    assert all_shown(front_end.pictures(browser, look))
    assert overlapping(browser, look) == []

    open_example(browser, SAVED)
    front_end.fill(browser, generation("tiny_sd15", name))
    front_end.run(browser)
    front_end.until(browser, lambda: front_end.pictures(browser, look)["Your picture"] == [[64, 64]])
    assert not front_end.complaints(browser) and not severe(browser)


def all_shown(pictures: dict[str, list]) -> bool:
    """Whether nodes show the faces found, the picture, and the person before over after beside the loss."""
    counts = {"Train the person": 1, "ID Encode": 2, "Your picture": 1}
    return {title: len(pictures[title]) for title in counts} == counts and pictures["Train the person"] == [[1024, 568]]


@pytest.mark.slow
@BOTH_LOOKS
@pytest.mark.parametrize("name", [name for name in NAMES if not TRANSFORMERS.search(name)])
def test_an_example_runs_and_nothing_covers_anything(browser, examples_files, look, name):
    open_example(browser, name)
    family = "tiny_sdxl" if "SDXL" in name else "tiny_sd15"
    small = {
        "IDEA_RefinedIdentity": {"rounds": 1, "num_images": 2, "sampling_steps": 2, "resolution": 64},
        "IDEA_EnhancerTrainAcross": {"max_people": 3, "images_per_person": 3, "sampling_steps": 1, "resolution": 64},
    }
    checkpoint = {"ckpt_name": f"{family}.safetensors"}
    front_end.fill(browser, workflow(TEMPLATES[name], CheckpointLoaderSimple=checkpoint, **small))
    (*_, (ended, detail)) = front_end.run(browser)
    if name in (ACROSS, REFINED):  # random weights draw nobody
        said = {ACROSS: "Expected people with 3 images that agree", REFINED: "Expected a face in 2 images"}[name]
        assert ended == "execution_error" and said in detail["exception_message"]
    elif family == "tiny_sdxl":  # of which there is no person
        assert ended == "execution_error" and "Train the person with ID-Enhancer Train" in detail["exception_message"]
    else:
        assert ended == "execution_success" and not front_end.complaints(browser)
    settle(browser, look)
    assert not overlapping(browser, look) and front_end.texts_show(browser)


@NODES_2_NOW_AND_THEN
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("photo of <alise>", "No person called <alise> is applied: it stays plain text. Applied: <alice>."),
        ("photo of alice", "alice stays plain text. For the person write <alice>."),
    ],
)
def test_a_wrong_name_in_a_prompt_is_said_on_a_node(browser, examples_files, look, prompt, said):
    open_example(browser, SAVED)
    front_end.fill(browser, generation("tiny_sd15", "alice", prompt))
    front_end.run(browser)
    front_end.until(browser, lambda: said in front_end.page_text(browser))
    settle(browser, look)
    assert not overlapping(browser, look)


@NODES_2_NOW_AND_THEN
def test_a_click_sorts_pictures_by_likeness(browser, look):
    open_example(browser, COMPARE)
    front_end.fill(browser, workflow("encode_and_compare"))
    front_end.run(browser)
    front_end.until(browser, lambda: len(front_end.pictures(browser, look)["Most similar first"]) == 3)
    assert not front_end.complaints(browser) and not overlapping(browser, look)


@BOTH_LOOKS
def test_a_click_on_what_cannot_run_says_what_to_do(browser, look):
    open_example(browser, COMPARE)
    front_end.run(browser)
    said = "Expected a face model pack 'antelopev2'"
    front_end.until(browser, lambda: said in front_end.show_error(browser))
    assert "id-ea.idea_core" not in front_end.show_error(browser)  # the class is called id_ea.FaceError
    assert not overlapping(browser, look)


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there_is_offered(browser):
    front_end.set_value(browser, "Comfy.Workflow.ShowMissingModelsWarning", True)
    front_end.show_templates(browser)
    front_end.click(browser, f"[data-testid='template-workflow-{SAVED}']")
    try:
        front_end.until(browser, lambda: offered(front_end.show_error(browser)))
    finally:
        front_end.set_value(browser, "Comfy.Workflow.ShowMissingModelsWarning", False)


def offered(said: str) -> bool:
    """Whether there is a button to download the checkpoint."""
    return "v1-5-pruned-emaonly-fp16.safetensors" in said and "Download" in said.partition("v1-5-pruned")[2]


@NODES_2_NOW_AND_THEN
def test_an_input_under_the_mouse_has_its_tooltip(browser, look):
    texts = json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    open_example(browser, SAVED)
    settle(browser, look)
    tooltip = texts["IDEA_ApplyAdapter"]["inputs"]["strength"]["tooltip"]

    def shown() -> bool:
        """Whether the mouse brings the tooltip; the canvas may have moved away from under it meanwhile."""
        front_end.point_at(browser, look, "IDEA_ApplyAdapter", "strength")
        with suppress(TimeoutException):
            return front_end.until(browser, lambda: tooltip in " ".join(browser.execute_script(TOOLTIPS)), limit=3)
        return False

    front_end.until(browser, shown)


@pytest.mark.parametrize("look", [front_end.NODES_2], indirect=True)
def test_advanced_inputs_are_folded_until_they_are_asked_for(browser, look):
    if front_end.version(browser) < FOLDING:
        pytest.skip(f"front end {front_end.version(browser)} folds nothing")
    open_example(browser, SAVED)
    node = front_end.node_element(browser, "IDEA_ApplyAdapter")
    assert "kv_strength" in node.text and "kv_scope" not in node.text
    front_end.unfold(browser, "IDEA_ApplyAdapter")
    front_end.until(browser, lambda: {"branch", "kv_scope"} <= set(node.text.splitlines()))


@NODES_2_NOW_AND_THEN
def test_bypassing_apply_leads_model_and_clip_past_it(browser, look):
    open_example(browser, SAVED)
    browser.execute_script(BYPASS, "IDEA_ApplyAdapter")
    bypassed = browser.execute_async_script(GRAPH)["output"]
    kinds = {node["class_type"] for node in bypassed.values()}
    assert "IDEA_ApplyAdapter" not in kinds
    (loader,) = (key for key, node in bypassed.items() if node["class_type"] == "CheckpointLoaderSimple")
    sampler = next(node for node in bypassed.values() if node["class_type"] == "KSampler")
    prompts = [node for node in bypassed.values() if node["class_type"] == "CLIPTextEncode"]
    assert sampler["inputs"]["model"] == [loader, 0]
    assert [node["inputs"]["clip"] for node in prompts] == [[loader, 1]] * 2


@NODES_2_NOW_AND_THEN
@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_and_help_speak_the_users_language(browser, look, language):
    front_end.set_language(browser, language)
    open_example(browser, SAVED)
    texts = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert texts["IDEA_ApplyAdapter"]["display_name"] in browser.execute_script(front_end.TITLES)
    front_end.open_help(browser, "IDEA_ApplyAdapter")
    own = PACK / "web" / "docs" / "IDEA_ApplyAdapter" / f"{language}.md"
    page = (own if own.exists() else own.parent.with_suffix(".md")).read_text("utf-8")
    headings = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    assert len(headings) > 3
    front_end.until(browser, lambda: all(heading in front_end.help_text(browser) for heading in headings))
    front_end.until(browser, lambda: all(browser.execute_script(HELP_PICTURES)))
    front_end.set_value(browser, "Comfy.Locale", "en")
