"""Take the README's screenshots of the pack in ComfyUI's own front end:  python tools/screenshots.py URL

URL is that of a ComfyUI with the pack, such as http://127.0.0.1:8188. chromium and chromedriver must be installed.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import front_end
from PIL import Image
from selenium import webdriver

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
DRAWN = 3  # seconds until the page is drawn


def save(browser: webdriver.Chrome, name: str) -> None:
    time.sleep(DRAWN)
    image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    image.save(IMAGES / f"{name}.jpg", quality=85)


def main(url: str) -> None:
    browser = front_end.open_browser(url, size=(1800, 1100))
    try:
        front_end.set_language(browser, "en")
        front_end.show_templates(browser)
        save(browser, "templates")
        front_end.reload(browser)
        front_end.open_example(browser, "02 Picture of a saved person", "IDEA_ApplyAdapter")
        front_end.open_help(browser, "IDEA_ApplyAdapter")
        save(browser, "generate")
    finally:
        browser.quit()


if __name__ == "__main__":
    main(sys.argv[1])
