"""Control of ComfyUI's front end in a headless chromium: by commands, clicks and settings, as a user does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PACK = "id-ea"
PASSING = StaleElementReferenceException, ElementClickInterceptedException  # errors while the page changes
CLASSIC, NODES_2 = "classic", "Nodes 2.0"
LOOKS = CLASSIC, NODES_2
READY = """
const app = window.app;
return !!(app && app.graph && app.extensionManager && window.LiteGraph.registered_node_types['IDEA_ApplyAdapter']);
"""
LISTEN = """
window.heard = [];
const live = ['b_preview', 'b_preview_with_metadata'];
for (const kind of [...live, 'progress', 'executed', 'execution_success', 'execution_error'])
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
BOXES = """
const bar = window.LiteGraph.NODE_TITLE_HEIGHT;
return window.app.graph.nodes.map(({ title, pos, size, flags, _collapsed_width }) => flags.collapsed
  ? [title, pos[0], pos[1] - bar, _collapsed_width ?? size[0], bar]
  : [title, pos[0], pos[1] - bar, size[0], size[1] + bar]);
"""
NODES_2_BOXES = """
const scale = window.app.canvas.ds.scale;
const seen = { opacityProperty: true, visibilityProperty: true };
return window.app.graph.nodes.map(node => {
  const element = document.querySelector(`[data-node-id="${node.id}"]`);
  const { x, y, width } = element.getBoundingClientRect();
  const parts = [element, ...element.querySelectorAll('*')].filter(part => part.checkVisibility(seen));
  const bottom = Math.max(...parts.map(part => part.getBoundingClientRect().bottom));  // a bar may stand below
  return [node.title, ...[x, y, width, bottom - y].map(length => length / scale)];
});
"""
PICTURES = """
return Object.fromEntries(window.app.graph.nodes.map(node =>
  [node.title, (node.imgs ?? []).map(image => [image.naturalWidth, image.naturalHeight])]));
"""
NODES_2_PICTURES = """
return Object.fromEntries(window.app.graph.nodes.map(node => {
  const element = document.querySelector(`[data-node-id="${node.id}"]`);
  const shown = [...element.querySelectorAll('img')].map(image => [image.naturalWidth, image.naturalHeight]);
  const dots = element.querySelectorAll('button[aria-label^="View image"]').length;  // older ones show one of several
  return [node.title, shown.length === 1 && dots ? Array(dots).fill(shown[0]) : shown];
}));
"""
_NOTE = """
const node = window.app.graph.nodes.find(node => node.type === 'MarkdownNote');
const parts = [%s];
const inner = parts.find(part => part && part.innerText.trim());
return [inner.innerText, parts.every(part => !part || part.scrollHeight <= part.clientHeight + 1)];
"""
NOTE = _NOTE % "node.widgets[0].element, node.widgets[0].element.querySelector('.tiptap')"
NODES_2_NOTE = _NOTE % "...document.querySelectorAll(`[data-node-id='${node.id}'] .comfy-markdown-content`)"
WIDGET_PLACE = """
const [type, name] = arguments;
const node = window.app.graph.nodes.find(node => node.type === type);
const widget = node.widgets.find(widget => widget.name === name);
const [x, y] = window.app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 8]);
const corner = window.app.canvas.canvas.getBoundingClientRect();
return [Math.round(x + corner.x), Math.round(y + corner.y)];
"""
NODE_ID = "return window.app.graph.nodes.find(node => node.type === arguments[0]).id"
UNFOLD = "[data-testid=advanced-inputs-button]"
DIALOGS = "[role=dialog], [role=alertdialog], .p-toast-message-error"


def open_browser(url: str, profile: Path | None = None, size: tuple[int, int] = (1800, 1000)) -> webdriver.Chrome:
    """A browser with ComfyUI, ready for use; `window.heard` collects its server's messages."""
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
        _wait_ready(browser)
        set_value(browser, "Comfy.TutorialCompleted", True)  # else the templates cover the page at the first start
        set_value(browser, "Comfy.Workflow.ShowMissingModelsWarning", False)  # else older front ends open a dialog
        reload(browser)
    except BaseException:
        browser.quit()
        raise
    return browser


def reload(browser: webdriver.Chrome) -> None:
    browser.refresh()
    _wait_ready(browser)
    browser.execute_script(LISTEN)


def set_value(browser: webdriver.Chrome, setting: str, value: Any) -> None:
    _raise_if_error(browser.execute_async_script(SET, setting, value))


def set_language(browser: webdriver.Chrome, locale: str) -> None:
    set_value(browser, "Comfy.Locale", locale)
    reload(browser)


def version(browser: webdriver.Chrome) -> tuple[int, ...]:
    """Major and minor version of the front end."""
    return tuple(map(int, browser.execute_script("return window.__COMFYUI_FRONTEND_VERSION__").split(".")[:2]))


def set_look(browser: webdriver.Chrome, look: str) -> None:
    """Set how nodes are drawn: one of `LOOKS`."""
    set_value(browser, "Comfy.VueNodes.Enabled", look == NODES_2)
    reload(browser)


def show_templates(browser: webdriver.Chrome) -> None:
    """Open the template browser at this pack's examples."""
    _raise_if_error(browser.execute_async_script(COMMAND, "Comfy.BrowseTemplates"))
    click(browser, CATEGORY, By.XPATH)
    _visible(browser, By.CSS_SELECTOR, "[data-testid^=template-workflow-]")


def open_example(browser: webdriver.Chrome, name: str, node: str) -> None:
    """Choose an example in the template browser, and wait for one of its nodes."""
    show_templates(browser)
    click(browser, f"[data-testid='template-workflow-{name}']")
    is_there = "return window.app.graph.nodes.some(node => node.type === arguments[0])"
    until(browser, lambda: browser.execute_script(is_there, node) and not _all_visible(browser, "[role=dialog]"))


def click(browser: webdriver.Chrome, selector: str, by: str = By.CSS_SELECTOR) -> None:
    """Click on an element as soon as nothing covers it."""
    until(browser, lambda: _visible(browser, by, selector).click() or True)


def fill(browser: webdriver.Chrome, graph: Mapping[str, Any]) -> None:
    """Set the widgets to the values of a graph in API format."""
    browser.execute_script(FILL, graph)


def run(browser: webdriver.Chrome, limit: float = 300) -> list[list]:
    """Click Run; all server messages until the run ends or fails: `[kind, detail]`."""
    browser.execute_script("window.heard.length = 0")
    click(browser, "[data-testid=queue-button] button, button[data-testid=queue-button]")
    ends = "return window.heard.some(([kind]) => kind.startsWith('execution_'))"
    until(browser, lambda: browser.execute_script(ends) or complaints(browser), limit)
    return browser.execute_script("return window.heard")


def complaints(browser: webdriver.Chrome) -> list[str]:
    """Texts of dialogs and error messages."""
    return [element.text for element in _all_visible(browser, DIALOGS)]


def page_text(browser: webdriver.Chrome) -> str:
    """All text of the page in one line, as nodes break it anywhere."""
    return " ".join(browser.find_element(By.TAG_NAME, "body").text.split())


def show_error(browser: webdriver.Chrome) -> str:
    """Text of the page with all errors opened; newer front ends fold them."""
    for button in _all_visible(browser, "[data-testid=error-overlay-see-errors]"):
        button.click()
    return browser.find_element(By.TAG_NAME, "body").text


def texts_show(browser: webdriver.Chrome) -> bool:
    """Whether the canvas is near enough for the front end to draw texts."""
    return not browser.execute_script("return window.app.canvas.low_quality")


def note(browser: webdriver.Chrome, look: str) -> tuple[str, bool]:
    """Text of the note beside the graph, as it is shown, and whether all of it fits into its box."""
    text, fits = browser.execute_script(NODES_2_NOTE if look == NODES_2 else NOTE)
    return text, fits


def boxes(browser: webdriver.Chrome, look: str) -> list[list]:
    """Box of each node in pixels of the graph: `[title, x, y, width, height]`."""
    return browser.execute_script(NODES_2_BOXES if look == NODES_2 else BOXES)


def pictures(browser: webdriver.Chrome, look: str) -> dict[str, list[list[int]]]:
    """Title of a node → width and height of each image on it."""
    return browser.execute_script(NODES_2_PICTURES if look == NODES_2 else PICTURES)


def fit(browser: webdriver.Chrome) -> None:
    """Bring the whole graph into view."""
    _raise_if_error(browser.execute_async_script(COMMAND, "Comfy.Canvas.FitView"))


def point_at(browser: webdriver.Chrome, look: str, kind: str, name: str) -> None:
    """Move the mouse over a widget."""
    actions = ActionChains(browser)
    if look == NODES_2:
        labels = [part for part in node_element(browser, kind).find_elements(By.CSS_SELECTOR, "*") if part.text == name]
        actions.move_to_element_with_offset(labels[-1], 0, -3).move_to_element(labels[-1])
    else:
        x, y = browser.execute_script(WIDGET_PLACE, kind, name)
        actions.w3c_actions.pointer_action.move_to_location(x - 3, y).move_to_location(x, y)
    actions.perform()


def node_element(browser: webdriver.Chrome, kind: str) -> WebElement:
    """Element of a node in Nodes 2.0."""
    return _visible(browser, By.CSS_SELECTOR, f"[data-node-id='{browser.execute_script(NODE_ID, kind)}']")


def unfold(browser: webdriver.Chrome, kind: str) -> None:
    """Click the button that shows a node's advanced inputs in Nodes 2.0."""
    node_element(browser, kind).find_element(By.CSS_SELECTOR, UNFOLD).click()


def open_help(browser: webdriver.Chrome, kind: str) -> None:
    """Open the help panel of a node, from the toolbox above it."""
    browser.execute_script(SELECT, kind)
    click(browser, "[data-testid=info-button]")


def help_text(browser: webdriver.Chrome) -> str:
    """Text of the help panel, once its page is loaded."""
    return _visible(browser, By.CSS_SELECTOR, ".node-help-content").text


def _wait_ready(browser: webdriver.Chrome) -> None:
    until(browser, lambda: browser.execute_script(READY), 90)


def _raise_if_error(error: str | None) -> None:
    if error:
        raise RuntimeError(error)


def _all_visible(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return [element for element in browser.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]


def _visible(browser: webdriver.Chrome, by: str, selector: str) -> WebElement:
    return until(browser, lambda: next((e for e in browser.find_elements(by, selector) if e.is_displayed()), None))


def until(browser: webdriver.Chrome, condition: Callable[[], Any], limit: float = 30) -> Any:
    """First true value of `condition`; TimeoutException after `limit` seconds."""
    return WebDriverWait(browser, limit, 0.2, PASSING).until(lambda _: condition())
