"""How prompts name people: what names somebody, and what only looks like it."""

import unicodedata

import pytest

from idea_core.errors import IdeaError
from idea_core.identity.checks import require_name
from idea_core.text.names import as_on_disk
from idea_core.text.prompts import near_misses, split_prompt, texts_around, unknown_names, with_name, without_people

JOSE = "José"
NAMES = ["alice", "bob-2", "o'brien", "आरती", JOSE, "王小明", "عائشة", "Нина", "สมชาย", "علی\u200cرضا", "Ng\u0303uyên"]
REFUSED = [
    "",
    "-a",
    "'a",
    "a b",
    "a/b",
    "a\\b",
    "<a>",
    "a.b",
    "a\n",
    "a\0",
    "\u0301a",
    "a\u200d",
    "a\u202eb",
    "a" * 65,
    "😀",
]


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("prompt", "names", "expected"),
    [
        ("photo of <person>, (<Person>:1.2)", ["alice"], "photo of <alice>, (<alice>:1.2)"),
        ("<person> and <alice>", ["Alice", "alice"], "<alice> and <alice>"),
        ("<person> and <bob-2>", ["alice", "bob-2"], "<person> and <bob-2>"),  # which one?
        ("<person>", ["person"], "<person>"),
        ("a person, embedding:person", ["alice"], "a person, embedding:person"),
        ("<person>", [], "<person>"),
    ],
)
def test_person_in_brackets_is_the_only_one_there_is(prompt, names, expected):
    assert with_name(prompt, names) == expected


def test_person_in_brackets_is_known_everywhere():
    assert split_prompt("photo of <person>", ["alice"]) == ["photo of ", 0]
    assert unknown_names("<person> and <carol>", ["alice"]) == ["<carol>"]
    assert unknown_names("<person>", ["alice", "bob"]) == ["<person>"]
    assert near_misses("<person>, alice in wonderland", ["alice"]) == []


@pytest.mark.parametrize(
    ("text", "found", "right"),
    [
        ("a <alice:1.2> here", "<alice:1.2>", "(<alice>:1.2)"),
        ("<alice:1>", "<alice:1>", "<alice>"),
        ("<lora:alice:1>", "<lora:alice:1>", "<alice>"),
        ("<lora:Alice:0.8:0.5>", "<lora:Alice:0.8:0.5>", "(<alice>:0.8)"),
        ("<embedding:alice>", "<embedding:alice>", "<alice>"),
        ("&lt;alice&gt; smiling", "&lt;alice&gt;", "<alice>"),
        ("＜alice＞", "＜alice＞", "<alice>"),
        ("<ａｌｉｃｅ>", "<ａｌｉｃｅ>", "<alice>"),
        ("«alice»", "«alice»", "<alice>"),
        ("<Alice >", "<Alice >", "<alice>"),
        (r"\<alice\>", r"<alice\>", "<alice>"),
        ("photo of alice", "alice", "<alice>"),
        ("Alice's dog", "alice", "<alice>"),
        ("(alice:1.3), smiling", "alice", "<alice>"),
        ("photo of <alice", "alice", "<alice>"),
    ],
)
def test_what_is_nearly_a_name_is_told_how_to_be_one(text, found, right):
    assert near_misses(text, ["alice", "bob"]) == [f"{found} stays plain text. For the person write {right}."]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "photo of <alice>, <ALICE> and (<alice>:1.5)",
        "<alice> in alice's wonderland",
        "alicent and malice, alice-blue, alice_2",
        "embedding:alice",
        "<carol>, <carol:1.2> and <lora:detail:1>",
        "a < b > c, {}",
    ],
)
def test_what_names_somebody_or_nobody_is_left_alone(text):
    assert near_misses(text, ["alice"]) == []


def test_near_misses_of_several_people_are_said_in_order_and_once():
    said = near_misses("<bob:1.1> and <bob:1.1> with alice", ["alice", "bob"])
    assert [sentence.split(" stays")[0] for sentence in said] == ["<bob:1.1>", "alice"]
    assert near_misses("<bob> with <alice:2>", ["alice", "bob"]) != []
    assert near_misses("anything", []) == []


def test_near_misses_in_any_script():
    assert near_misses(f"photo of {decomposed(JOSE)}", [JOSE])
    assert not near_misses(f"photo of <{decomposed(JOSE)}>", [JOSE])
    assert near_misses("王小明在海滩", ["王小明"]) and near_misses("＜王小明＞在海滩", ["王小明"])
    assert near_misses("<o’brien>", ["o'brien"]) and not near_misses("Jose\u0301", ["Jose"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_any_script_are_names_in_each_normal_form(name, form):
    composed = unicodedata.normalize("NFC", name)
    spelled = unicodedata.normalize(form, name)
    assert require_name(spelled) == composed
    for prompt in (f"a <{spelled}>, smiling", f"a <{spelled.upper()}>, smiling", f"a embedding:{spelled}, smiling"):
        assert split_prompt(prompt, [composed]) == ["a ", 0, ", smiling"]
        assert split_prompt(prompt, [decomposed(name)]) == ["a ", 0, ", smiling"]
        assert texts_around(prompt, composed) == ["a ", ", smiling"]
        assert without_people(prompt) == "a , smiling"
        assert unknown_names(prompt, [composed]) == []
    assert unknown_names(f"<{spelled}>", ["eve"]) == [f"<{spelled}>"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(IdeaError, match="Expected a name of 1 to 64 letters, digits, _, - or '"):
        require_name(name)


def test_a_name_is_not_found_in_a_longer_one():
    assert split_prompt("<José>, embedding:José, embedding:Jose.safetensors", ["Jose"]) == [
        "<José>, embedding:José, embedding:Jose.safetensors"
    ]
    assert split_prompt(decomposed("embedding:José"), ["Jose"]) == [decomposed("embedding:José")]
    assert split_prompt("embedding:bob,<alice>'s", ["alice"]) == ["embedding:bob,", 0, "'s"]
    assert split_prompt("<STRASSE> embedding:alice's", ["straße", "alice"]) == [0, " ", 1, "'s"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("given", ["NFC", "NFD"])
def test_files_are_found_however_the_disk_spells_them(tmp_path, form, given):
    there = tmp_path / unicodedata.normalize(form, "Zoë") / unicodedata.normalize(form, f"{JOSE}.txt")
    there.parent.mkdir()
    there.write_text("")
    assert as_on_disk(tmp_path / unicodedata.normalize(given, f"Zoë/{JOSE}.txt")) == there
    assert as_on_disk(tmp_path / unicodedata.normalize(given, "Zoë/é.png")) == there.parent / "é.png"
