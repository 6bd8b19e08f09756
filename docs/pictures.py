"""Pictures of the nodes for their help pages, from ComfyUI's own front end:  python docs/pictures.py URL

URL is that of a ComfyUI with the pack, such as http://127.0.0.1:8188; chromium and chromedriver have to be there.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import time
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

HELP = Path(__file__).parents[1] / "web" / "docs"
MARGIN = 12  # pixels around a node
READY = """
const app = window.app;
return !!(app && app.graph && app.extensionManager && window.LiteGraph.registered_node_types['IDEA_ApplyAdapter']);
"""
NO_TUTORIAL = """
const done = arguments[0];
window.app.extensionManager.setting.set('Comfy.TutorialCompleted', true).then(() => done(), () => done());
"""
SHOW = """
const [type] = arguments;
const app = window.app;
app.graph.clear();
const node = window.LiteGraph.createNode(type);
app.graph.add(node);
node.pos = [0, 0];
const size = node.computeSize();
node.setSize([Math.max(size[0], 340), size[1]]);
app.canvas.deselectAll?.();
app.canvas.ds.scale = 1;
app.canvas.ds.offset[0] = 500;
app.canvas.ds.offset[1] = 120;
app.canvas.setDirty(true, true);
const corner = app.canvas.canvas.getBoundingClientRect();
const title = window.LiteGraph.NODE_TITLE_HEIGHT;
return [corner.x + 500, corner.y + 120 - title, node.size[0], node.size[1] + title];
"""


def open_browser(url: str, profile: Path | None = None, size: tuple[int, int] = (1800, 1000)) -> webdriver.Chrome:
    """A headless browser that shows ComfyUI, ready for use."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--window-size={size[0]},{size[1]}", *([f"--user-data-dir={profile}"] if profile else [])]
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_script_timeout(60)
    for _ in range(2):
        browser.get(url)
        wait = WebDriverWait(browser, 90)
        wait.until(lambda b: b.execute_script(READY))
        browser.execute_async_script(NO_TUTORIAL)  # else the templates open over everything, the first time
    return browser


def picture_of(browser: webdriver.Chrome, node_id: str) -> bytes:
    """A node alone on the canvas, as PNG."""
    x, y, width, height = browser.execute_script(SHOW, node_id)
    time.sleep(1)  # until it is drawn
    above = 2 * MARGIN  # the pack's badge stands there
    clip = {"x": x - MARGIN, "y": y - above, "width": width + 2 * MARGIN, "height": height + above + MARGIN, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
    return base64.b64decode(shot["data"])


def main(url: str) -> None:
    with urllib.request.urlopen(url.rstrip("/") + "/object_info", timeout=60) as answer:
        ours = [key for key in json.load(answer) if key.startswith("IDEA_")]
    browser = open_browser(url, size=(1800, 1400))
    try:
        for node_id in ours:
            (HELP / f"{node_id}.png").write_bytes(picture_of(browser, node_id))
            print(node_id)
    finally:
        browser.quit()


if __name__ == "__main__":
    main(sys.argv[1])
