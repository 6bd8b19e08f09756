"""Draw images of the nodes for their help pages, in ComfyUI's own front end:  python tools/pictures.py URL

URL is that of a ComfyUI with the pack, such as http://127.0.0.1:8188. chromium and chromedriver must be installed.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.request
from pathlib import Path

from front_end import open_browser
from selenium import webdriver

HELP = Path(__file__).parents[1] / "web" / "docs"
MARGIN = 12  # pixels around a node
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


def picture_of(browser: webdriver.Chrome, node_id: str) -> bytes:
    """PNG of a node alone on the canvas."""
    x, y, width, height = browser.execute_script(SHOW, node_id)
    time.sleep(1)  # until the node is drawn
    above = 2 * MARGIN  # for the pack's badge
    clip = {"x": x - MARGIN, "y": y - above, "width": width + 2 * MARGIN, "height": height + above + MARGIN, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
    return base64.b64decode(shot["data"])


def main(url: str) -> None:
    with urllib.request.urlopen(url.rstrip("/") + "/object_info", timeout=60) as answer:
        ours = [key for key in json.load(answer) if key.startswith("IDEA_")]
    browser = open_browser(url, size=(1800, 1400))
    try:
        for node_id in ours:
            picture = picture_of(browser, node_id)
            for folder in (HELP, HELP / node_id):  # ComfyUI looks in the first from every page, GitHub beside the page
                (folder / f"{node_id}.png").write_bytes(picture)
            print(node_id)
    finally:
        browser.quit()


if __name__ == "__main__":
    main(sys.argv[1])
