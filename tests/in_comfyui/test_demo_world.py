"""The demo's world in ComfyUI: every example, as the demo writes it, draws the person, by clicks in a real browser."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from comfyui_place import PACK
from comfyui_server import Server
from idea_command import run as idea
from PIL import Image

pytest.importorskip("selenium")
sys.path.append(str(PACK / "tools"))
import front_end
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from idea_core.faces.score import similarities
from world3d.examples import LEFT_OUT, NAME
from world3d.somebody import PEOPLE
from world3d.world import World, read

TOOLS = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not all(TOOLS), reason="no chromium and chromedriver")]

# Steps, sizes and counts by their place in a node: hours of a processor become minutes.
SHORT = {
    "EmptyLatentImage": {2: 1},
    "KSampler": {2: 8},
    "IDEA_RefinedIdentity": {1: 1, 2: 3, 6: 4},
    "IDEA_EnhancerTrainAcross": {1: 4, 3: 3, 5: 3, 10: 2, 11: 1},
}
LEAST = 0.2  # identity; strangers have .0, and people whom the ID-Enhancer makes at once .36, with a spread of .1
SHOWN = {  # example → whose likeness its images have
    "01 From photos to a picture": ["alice"],
    "02 Picture of a saved person": ["alice"],
    "04 Strength and timing": ["alice"],
    "05 Best of a batch": ["alice"],
    "07 Two people in one picture": ["alice"],  # in a half of it; bob's face is drawn turned away there
    "12 Person from one photo": ["alice"],
    "13 Corrected person from one photo": ["alice"],
}
EXAMPLES = [
    path.stem
    for path in sorted((PACK / "workflows").glob("[0-9]*.json"))
    if not any(word in path.stem for word in LEFT_OUT)
]
LOAD = "const [graph, done] = arguments; window.app.loadGraphData(graph).then(() => done(null), e => done(String(e)));"
MOST_CLICKS = 8
LIMIT = 1800  # seconds of a run


@pytest.fixture(scope="module")
def place(base, tmp_path_factory):
    """A ComfyUI's folders that hold the demo's world and nothing else."""
    place = tmp_path_factory.mktemp("world")
    (place / "models").mkdir()
    (place / "custom_nodes").symlink_to(base / "custom_nodes")
    idea("demo", "--comfyui", place, "-o", place / "demo")
    yield place
    shutil.rmtree(place / "models")


@pytest.fixture(scope="module")
def demo(comfyui, python, place) -> Iterator[Server]:
    with Server(comfyui, python, place) as server:
        yield server


@pytest.fixture(scope="module")
def browser(demo, tmp_path_factory) -> Iterator:
    browser = front_end.open_browser(demo.url, tmp_path_factory.mktemp("chromium"), (1600, 1000))
    front_end.set_look(browser, front_end.CLASSIC)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def world(place) -> World:
    return World(place / "demo" / "models")


def likeness(world: World, image: np.ndarray, name: str) -> float:
    """Mean similarity of an image's face to other true images of a person; 0 without a face.

    The world's detector knows one face an image, so a wide image is looked at by halves.
    """
    references = sorted((PEOPLE / name / "references").iterdir())
    mine, _, _ = world.embed(list(map(read, references)))
    height, width, _ = image.shape
    parts = [image] if width == height else [image[:, : width // 2], image[:, width // 2 :]]
    return max(float(similarities(world.embed([part])[0][0], mine).mean()) for part in parts)


def saved(demo: Server, heard: list) -> list[np.ndarray]:
    """The images of a run that its Save Image nodes wrote."""
    written = [said["output"] for kind, said in heard if kind == "executed" and "images" in (said["output"] or {})]
    files = [image for output in written for image in output["images"] if image["type"] == "output"]
    return [np.asarray(Image.open(io.BytesIO(demo.picture(image))).convert("RGB")) for image in files]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_it_stands_and_draws_the_person(browser, demo, place, world, name):
    graph = json.loads((place / "user" / "default" / "workflows" / NAME / f"{name}.json").read_text("utf-8"))
    for node in graph["nodes"]:
        for index, value in SHORT.get(node["type"], {}).items():
            node["widgets_values"][index] = value
    front_end.reload(browser)
    assert browser.execute_async_script(LOAD, graph) is None
    heard = front_end.run(browser, LIMIT)
    ended, detail = heard[-1]
    assert ended == "execution_success", detail
    assert not front_end.complaints(browser)
    images = saved(demo, heard)
    for person in SHOWN.get(name, ()):
        found = [likeness(world, image, person) for image in images]
        print(name, person, [round(value, 3) for value in found])
        assert found and max(found) > LEAST


def test_a_new_person_by_a_few_clicks_and_one_typed_name(browser, demo, world):
    front_end.reload(browser)
    clicks = 0

    def click(selector: str, by: str = By.CSS_SELECTOR) -> None:
        nonlocal clicks
        front_end.click(browser, selector, by)
        clicks += 1

    click("button[class*=workflows-tab], button[aria-label^=Workflows]")
    click(f"//*[normalize-space()='{NAME}']", By.XPATH)
    click("//*[normalize-space()='01 From photos to a picture']", By.XPATH)
    front_end.until(browser, lambda: "Train the person" in browser.execute_script(front_end.TITLES))
    front_end.until(browser, lambda: front_end.texts_show(browser))
    x, y = browser.execute_script(front_end.WIDGET_PLACE, "IDEA_EnhancerTrain", "name")
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(x, y).click()
    actions.perform()
    clicks += 1
    box = front_end.until(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".graphdialog .value"))
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.NULL, "erin", Keys.ENTER)
    heard = front_end.run(browser, LIMIT)
    clicks += 1
    assert heard[-1][0] == "execution_success" and clicks <= MOST_CLICKS
    (image,) = saved(demo, heard)
    assert likeness(world, image, "alice") > LEAST
    assert (demo.base / "output" / "idea" / "erin.safetensors").is_file()
