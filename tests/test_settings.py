"""Settings that are declared once, and what is made of them."""

from dataclasses import dataclass, field

import pytest

from idea_core.enhancers.config import DatasetConfig, EnhancerRunConfig, EnhancerTrainConfig, RefineConfig
from idea_core.errors import ConfigError
from idea_core.faces import FaceSettings
from idea_core.headless.cli.grouped import options_of
from idea_core.headless.config import GenerateConfig
from idea_core.headless.jobs import PhotoSource
from idea_core.settings import Settings, setting, settings_of, shown
from idea_core.training.config import TrainConfig
from idea_core.training.preview import PreviewConfig, WatchConfig

ALL = [DatasetConfig, EnhancerRunConfig, EnhancerTrainConfig, FaceSettings, GenerateConfig, PhotoSource, PreviewConfig]
ALL += [RefineConfig, TrainConfig, WatchConfig]


@dataclass(frozen=True)
class Example(Settings):
    count: int = setting(3, "Count.", min=1, max=9)
    share: float = setting(0.5, "Share.", above=0, below=1)
    side: int | None = setting(None, "Side.", min=8, multiple_of=8)
    kind: str = setting("largest", "Kind.", choices=("largest", "most certain", "left-most"))
    on: bool = setting(False, "On.", option="--switched-on")
    text: str = setting("", "Text.")
    others: tuple[int, ...] = field(default=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count at least 1, got 0. Change count."),
        ({"count": 10}, "count at most 9, got 10"),
        ({"count": 2.0}, "count a whole number, got 2.0"),
        ({"count": True}, "count a whole number, got True"),
        ({"count": None}, "count a whole number, got None"),
        ({"share": 0}, "share above 0, got 0"),
        ({"share": 1.0}, "share below 1, got 1.0"),
        ({"share": float("nan")}, "share a finite number, got nan"),
        ({"share": float("inf")}, "share a finite number, got inf"),
        ({"share": "0.5"}, "share a number, got 0.5"),
        ({"side": 12}, "side a number that 8 divides, got 12"),
        ({"kind": "smallest"}, "kind one of largest, most certain, left-most, got smallest"),
        ({"on": 1}, "on true or false, got 1"),
        ({"text": 1}, "text a text, got 1"),
    ],
)
def test_values_outside_their_bounds_are_refused(changes, message):
    with pytest.raises(ConfigError, match=f"Expected {message}"):
        Example(**changes)


def test_values_inside_their_bounds_are_taken():
    values = {"count": 9, "share": 0.25, "side": 16, "kind": "most certain", "on": True, "text": "a", "others": (1,)}
    assert Example(**values).as_dict() == values
    assert Example(share=1e-9, side=None).count == 3
    assert Example.from_values({"count": 5, "unknown": 1}, others=(2,)) == Example(count=5, others=(2,))


def test_what_a_field_declares_is_found_by_its_name():
    found = settings_of(Example)
    assert list(found) == ["count", "share", "side", "kind", "on", "text"]
    assert [one.bounds() for one in found.values()][:4] == [
        "≥ 1, ≤ 9",
        "> 0, < 1",
        "≥ 8",
        "largest, most certain, left-most",
    ]
    assert (found["side"].kind, found["side"].optional, found["side"].default) == (int, True, None)
    assert [shown(value) for value in (None, True, 5, 0.0003, "names")] == ["", "true", "5", "0.0003", "names"]


def test_options_are_made_of_settings():
    options = {option.name: option for option in options_of(Example, without=["text"])}
    assert list(options) == ["count", "share", "side", "kind", "on"]
    assert options["count"].default == 3 and options["count"].help == "Count."
    assert options["on"].is_flag and options["on"].opts == ["--switched-on"]
    kinds = options["kind"].type
    assert list(kinds.choices) == ["largest", "most-certain", "left-most"]
    assert [kinds.convert(text, None, None) for text in (*kinds.choices, "most certain")] == [
        "largest",
        "most certain",
        "left-most",
        "most certain",
    ]


def test_options_of_presets_have_no_defaults_and_show_the_presets_values():
    presets = {"a": Example(), "b": Example(side=8)}
    options = {option.name: option for option in options_of(Example, presets=presets)}
    assert all(option.default is None for option in options.values())
    assert options["count"].help == "Count. Default: 3." and options["on"].help == "On. Default: false."
    assert options["side"].help == "Side. Default: the preset's (b 8)."


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_setting_says_what_it_is_in_signs_that_every_front_end_shows(kind):
    assert settings_of(kind)
    for one in settings_of(kind).values():
        assert one.help[0].isupper() and one.help.endswith(".") and not set(one.help) & set("{}@|<>"), one.name
        assert max(len(sentence.split()) for sentence in one.help.split(". ")) <= 25, one.name
        assert not one.wanted(one.default), one.name
        if one.kind in (int, float) and not one.choices and one.soft_max is not None:
            assert one.soft_max <= (one.max or one.soft_max)
