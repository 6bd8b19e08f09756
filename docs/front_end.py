"""ComfyUI's own front end in a headless chromium, used as its users do: by commands, clicks and settings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PACK = "id-ea"
READY = """
const app = window.app;
return !!(app && app.graph && app.extensionManager && window.LiteGraph.registered_node_types['IDEA_ApplyAdapter']);
"""
LISTEN = """
window.heard = [];
const live = ['b_preview', 'b_preview_with_metadata'];
for (const kind of [...live, 'progress', 'execution_success', 'execution_error'])
  window.app.api.addEventListener(kind, event => window.heard.push([kind, live.includes(kind) ? null : event.detail]));
"""
COMMAND = """
const [command, done] = arguments;
window.app.extensionManager.command.execute(command).then(() => done(), error => done(String(error)));
"""
SET = """
const [setting, value, done] = arguments;
window.app.extensionManager.setting.set(setting, value).then(() => done(), error => done(String(error)));
"""
FILL = """
for (const [id, { inputs }] of Object.entries(arguments[0]))
  for (const widget of window.app.graph.getNodeById(id).widgets ?? [])
    if (widget.name in inputs && !Array.isArray(inputs[widget.name])) widget.value = inputs[widget.name];
"""
SELECT = """
const node = window.app.graph.nodes.find(node => node.type === arguments[0]);
window.app.canvas.selectNode(node);
"""
TITLES = "return window.app.graph.nodes.map(node => node.title)"
CATEGORY = f"//*[@role='dialog']//*[contains(@class, 'cursor-pointer') or self::li][normalize-space()='{PACK}']"
DIALOGS = "[role=dialog], [role=alertdialog], .p-toast-message-error"


def open_browser(url: str, profile: Path | None = None, size: tuple[int, int] = (1800, 1000)) -> webdriver.Chrome:
    """A browser that shows ComfyUI, ready for use; `window.heard` has what its server says."""
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
    try:
        browser.get(url)
        _ready(browser)
        set_value(browser, "Comfy.TutorialCompleted", True)  # else the templates open over everything, the first time
        reload(browser)
    except BaseException:
        browser.quit()
        raise
    return browser


def reload(browser: webdriver.Chrome) -> None:
    browser.refresh()
    _ready(browser)
    browser.execute_script(LISTEN)


def set_value(browser: webdriver.Chrome, setting: str, value: Any) -> None:
    _done(browser.execute_async_script(SET, setting, value))


def set_language(browser: webdriver.Chrome, locale: str) -> None:
    set_value(browser, "Comfy.Locale", locale)
    reload(browser)


def show_templates(browser: webdriver.Chrome) -> None:
    """The template browser, at this pack's examples."""
    _done(browser.execute_async_script(COMMAND, "Comfy.BrowseTemplates"))
    _found(browser, By.XPATH, CATEGORY).click()
    _found(browser, By.CSS_SELECTOR, "[data-testid^=template-workflow-]")


def open_example(browser: webdriver.Chrome, name: str, node: str) -> None:
    """Choose an example in the template browser, and wait until one of its nodes is there."""
    show_templates(browser)
    _found(browser, By.CSS_SELECTOR, f"[data-testid=template-workflow-{name}]").click()
    found = "return window.app.graph.nodes.some(node => node.type === arguments[0])"
    until(browser, lambda: browser.execute_script(found, node) and not _shown(browser, "[role=dialog]"))


def fill(browser: webdriver.Chrome, graph: Mapping[str, Any]) -> None:
    """Widgets' values as a graph in API format has them."""
    browser.execute_script(FILL, graph)


def run(browser: webdriver.Chrome, limit: float = 300) -> list[list]:
    """Click Run; all that was heard until the end, well or not: `[kind, detail]`."""
    browser.execute_script("window.heard.length = 0")
    _found(browser, By.CSS_SELECTOR, "[data-testid=queue-button] button, button[data-testid=queue-button]").click()
    ends = "return window.heard.some(([kind]) => kind.startsWith('execution_'))"
    until(browser, lambda: browser.execute_script(ends) or complaints(browser), limit)
    return browser.execute_script("return window.heard")


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What dialogs and error messages say."""
    return [element.text for element in _shown(browser, DIALOGS)]


def help_of(browser: webdriver.Chrome, kind: str) -> str:
    """Text of the help panel of a node in the graph, opened from the toolbox over it."""
    browser.execute_script(SELECT, kind)
    _found(browser, By.CSS_SELECTOR, "[data-testid=info-button]").click()
    return _found(browser, By.CSS_SELECTOR, ".node-help-content").text


def _ready(browser: webdriver.Chrome) -> None:
    until(browser, lambda: browser.execute_script(READY), 90)


def _done(error: str | None) -> None:
    if error:
        raise RuntimeError(error)


def _shown(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return [element for element in browser.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]


def _found(browser: webdriver.Chrome, by: str, what: str) -> WebElement:
    return until(browser, lambda: next((e for e in browser.find_elements(by, what) if e.is_displayed()), None))


def until(browser: webdriver.Chrome, true: Callable[[], Any], limit: float = 30) -> Any:
    """What `true` gives as soon as it gives something; TimeoutException after `limit` seconds."""
    return WebDriverWait(browser, limit, 0.2, [StaleElementReferenceException]).until(lambda _: true())
