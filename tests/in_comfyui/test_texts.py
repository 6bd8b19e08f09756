"""What ComfyUI shows of the nodes in words: texts in four languages, and a help page for each node."""

from __future__ import annotations

import json
import sys
import urllib.request

import pytest
from comfyui_place import PACK

sys.path.append(str(PACK / "tools"))
from node_texts import texts_of

OTHERS = ("ko", "zh", "ja")
RESERVED = set("{}@|")  # the front end reads them as its own signs


@pytest.fixture(scope="module")
def english(server) -> dict:
    return texts_of(server.get("/object_info"))


def strings(texts: dict | str) -> list[str]:
    return [texts] if isinstance(texts, str) else [part for value in texts.values() for part in strings(value)]


def shape(texts: dict | str):
    """Keys alone, in their order."""
    return None if isinstance(texts, str) else [(key, shape(value)) for key, value in texts.items()]


def test_the_english_texts_are_the_nodes_own(english):
    written = json.loads((PACK / "locales" / "en" / "nodeDefs.json").read_text("utf-8"))
    assert written == english, "Write them anew: tools/node_texts.py"


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_there_in_every_language(server, english, language):
    translated = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    assert shape(translated) == shape(english)
    assert all(text.strip() and not RESERVED & set(text) for text in strings(translated))
    same = [text for text, other in zip(strings(translated), strings(english)) if text == other and " " in text]
    assert not same
    served = server.get("/i18n")[language]["nodeDefs"]
    assert {key: served[key] for key in english} == translated


@pytest.mark.parametrize("language", ["", *OTHERS])
def test_every_node_has_a_help_page_that_names_its_inputs(server, english, language):
    for node_id, texts in english.items():
        page = f"docs/{node_id}/{language}.md" if language else f"docs/{node_id}.md"
        with urllib.request.urlopen(f"{server.url}/extensions/id-ea/{page}", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        assert lines[0].startswith("# ") and any(f"({node_id}.png)" in line for line in lines), page
        assert not any(line.startswith("|") for line in lines), page  # tables are wider than ComfyUI's panel
        for name in texts["inputs"]:
            assert any(line.startswith(f"- `{name}`") for line in lines), (page, name)
        with urllib.request.urlopen(f"{server.url}/extensions/id-ea/docs/{node_id}.png", timeout=60) as answer:
            picture = answer.read()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        beside = PACK / "web" / "docs" / node_id / f"{node_id}.png"  # where the pages' picture is outside ComfyUI
        assert beside.read_bytes() == picture
