"""Texts from strangers: whatever stands in a prompt, a list of names or a record, what is promised of it holds."""

import pytest
from helpers import make_identity
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from idea_core import Identity
from idea_core.enhancers.config import DatasetConfig
from idea_core.errors import ConfigError, IdeaError
from idea_core.files.textfile import parse_json
from idea_core.identity.checks import require_name
from idea_core.method.anchor import celebrity_names, parse_names
from idea_core.text.captions import PLACEHOLDER, with_note
from idea_core.text.prompts import in_chunks, split_prompt, unknown_names, without_people
from idea_core.training.config import TrainConfig

settings.register_profile("same", derandomize=True, deadline=None, max_examples=200, database=None)
settings.load_profile("same")
names = st.from_regex(r"\w[\w-]{0,63}", fullmatch=True)
words = st.one_of(st.text(), st.text(alphabet="<>{}()ab:\\1. -", max_size=30))


@given(st.one_of(st.text(max_size=80), names))
@example("../alice")
@example("alice\n")
@example("con:")
def test_a_name_is_refused_or_safe_in_prompts_and_paths(text):
    try:
        require_name(text)
    except IdeaError:
        return
    assert 1 <= len(text) <= 64 and not set(text) & set('<>:"/\\|?*.{} \0\n\r\t')
    assert [number for number in split_prompt(f"a <{text}>", [text]) if number == 0] == [0]


@given(st.lists(words, min_size=1), names)
def test_a_split_prompt_holds_all_of_it(texts, name):
    texts = [text.replace(PLACEHOLDER, "") for text in texts]
    prompt = f"<{name}>".join(texts)
    parts = split_prompt(prompt, [name])
    joined = "".join(part if isinstance(part, str) else f"<{name}>" for part in parts)
    assert joined.lower() == prompt.replace(PLACEHOLDER, f"<{name}>").lower()
    assert sum(part == 0 for part in parts) >= len(texts) - 1
    assert f"<{name}>".lower() not in [stranger.lower() for stranger in unknown_names(prompt, [name])]


@given(words)
def test_what_is_left_without_people_names_nobody(prompt):
    left = without_people(prompt)
    assert not unknown_names(left, []) and PLACEHOLDER not in left


@given(st.text())
def test_a_list_of_names_has_no_blanks_and_is_never_empty(text):
    found = parse_names(text)
    assert found and all(name and name == name.strip() for name in found)
    assert parse_names("\n".join(found)) == found or found == celebrity_names()


@given(words)
def test_a_note_keeps_the_person_in_each_caption(note):
    captions = with_note(("a photo of {}", "{} at a party"), note)
    assert captions and all(PLACEHOLDER in caption for caption in captions)


@given(st.lists(st.lists(st.integers(), max_size=9), max_size=20), st.integers(9, 75))
def test_chunks_hold_all_tokens_in_order_and_break_no_group(groups, size):
    chunks = in_chunks(groups, size)
    assert [token for chunk in chunks for token in chunk] == [token for group in groups for token in group]
    assert all(len(chunk) <= size for chunk in chunks)


numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), values, max_size=6))
def test_any_record_of_a_training_comes_back_from_the_file(tmp_path, record):
    path = make_identity("sd1", training=record, kv={}).save(tmp_path / "a.safetensors")
    assert Identity.load(path).training == record


@pytest.mark.parametrize(
    ("kind", "field"), [(TrainConfig, "gate_init"), (DatasetConfig, "guidance"), (DatasetConfig, "min_similarity")]
)
def test_settings_that_are_no_numbers_are_refused(kind, field):
    with pytest.raises(ConfigError, match=f"Expected {field} a finite number, got nan. Change {field}."):
        kind(**{field: float("nan")})


def test_nesting_beyond_all_measure_is_a_value_error():
    with pytest.raises(ValueError):
        parse_json("[" * 100_000)
