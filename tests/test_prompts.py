"""How prompts name people: what names somebody, and what only looks like it."""

import unicodedata

import pytest

from idea_core.prompts import near_misses

JOSE = "José"


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


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
