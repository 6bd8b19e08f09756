"""Apply ID-Adapter inside real ComfyUI."""

import pytest

CHECKPOINTS = ["tiny_sd15", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sd21", "tiny_sdxl"))]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_prompts_without_the_name_are_bit_identical(probe, checkpoint):
    assert probe("plain_prompts", checkpoint=checkpoint) == {
        "positive": True,
        "negative": True,
        "entries": [],
        "picture": True,
    }


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_text_is_what_the_adapter_makes_of_it(probe, checkpoint):
    result = probe("adapted_text", checkpoint=checkpoint)
    assert result["error"] <= 1e-5 and result["of"] > 1e-3


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_each_part_has_its_effect_and_its_switch(probe, checkpoint):
    result = probe("effects", checkpoint=checkpoint)
    assert all(result[part] > 1e-3 for part in ("adapter", "kv", "negative strength", "first half"))
    assert result["first half against all"] > 1e-4
    assert result["zero is the input itself"]
    assert result["never"] == 0
    assert result["as another node would sample it"] == 0


def test_the_adapter_runs_once_per_prompt(probe):
    calls = probe("counts", checkpoint="tiny_sd15", steps=4)
    assert calls["adapter"] == 1
    assert calls["unet"] == [2] * 8  # cond and uncond in one batch, in each of the steps


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_schedule_equals_one_switched_by_hand(probe, checkpoint):
    errors = probe("schedule", checkpoint=checkpoint)
    assert errors.pop("halves differ") > 1e-3
    assert errors == {"end": 0, "start": 0}


def test_stock_conditioning_nodes_keep_working(probe):
    result = probe("composed", checkpoint="tiny_sd15")
    assert len(result["errors"]) == 9 and set(result["errors"].values()) == {0}
    assert len(result["said"]) == 1 and "Another node has mixed the prompt of <ann>." in result["said"][0]
    assert result["another strength after concat"] > 1e-3


def test_several_people_each_act_on_their_own_prompts(probe):
    assert probe("three_people", checkpoint="tiny_sd15") == {
        "both": 2,
        "all": 3,
        "finite": True,
        "alone": 1,
        "in any order": 0,
        "same as single": True,
        "picture": 0,
    }


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_keys_and_values_may_change_on_the_persons_prompts_alone(probe, checkpoint):
    result = probe("scoped_kv", checkpoint=checkpoint)
    assert result["as on the whole model"] <= 1e-4 and result["as without"] == 0 and result["clone"] == 0
    assert result["acts"] > 1e-3 and result["does not act on all"] > 1e-3
    assert result["without adapter"] == [False, True]
    assert result["leaves nothing"]


def test_outside_of_the_own_region_a_person_changes_nothing(probe):
    result = probe("regions", checkpoint="tiny_sd15")
    assert result["outside"] == 0
    assert result["inside"] > 1e-3 and result["outside, on the whole model"] > 1e-3


def test_the_adapter_may_act_on_all_prompts(probe):
    result = probe("all_prompts", checkpoint="tiny_sd15")
    assert result["text"] == 0 and result["difference"] > 1e-3 and result["picture"] > 1e-3


def test_no_node_calls_an_input_and_an_output_the_same(probe):
    assert probe("shared_ids") == {}


def test_an_unknown_name_is_said_once_with_those_who_are_known(probe):
    texts = ["<ann> and <Bob>", "<eve> with <ann>", "again <eve>", "<lora:x:1> and < y >", "<bob:1.2>"]
    assert probe("hints", checkpoint="tiny_sd15", texts=texts) == [
        "ID-EA: No person called <eve> is applied: it stays plain text. Applied: <ann>, <bob>.",
        "ID-EA: <bob:1.2> stays plain text. For the person write (<bob>:1.2).",
    ]


@pytest.mark.parametrize("name", ["José", "आरती", "Việt"])
def test_a_name_is_one_name_in_every_normal_form(probe, name):
    result = probe("spellings", checkpoint="tiny_sd15", name=name)
    assert "Value not in list" in result.pop("unknown") and not result.pop("plain text")
    assert result == dict.fromkeys(result, True)


@pytest.mark.parametrize(
    ("checkpoint", "own"), [("tiny_sd15", -1), pytest.param("tiny_sd21", -2, marks=pytest.mark.slow)]
)
def test_a_clip_layer_counts_by_what_it_does_where_the_prompt_is_encoded(probe, checkpoint, own):
    result = probe("clip_layers", checkpoint=checkpoint, own=own, other=own - 2)
    assert result["noted"] == {"own": None, "other": own - 2}
    assert result["said"]["own"] == [[], []]
    line = f"ID-EA: <ann> was trained on CLIP layer {own}, and this CLIP gives layer {own - 2}."
    assert [[said.startswith(line) for said in one] for one in result["said"]["other"]] == [[True], [True]]


def test_one_person_twice_adds_up(probe):
    result = probe("one_person_twice", checkpoint="tiny_sd15")
    assert result["error"] < 1e-3 * result["of"]


def test_clones_and_other_nodes_keep_what_was_applied(probe):
    result = probe("clones", checkpoint="tiny_sd15")
    assert result["clone"] and result["layer carries"] and result["base unchanged"]
    assert result["layer"] > 0 and result["model clone"] == 0


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_stock_embedding_and_lora_loader_read_the_same_file(probe, checkpoint, tmp_path):
    result = probe("stock_nodes", checkpoint=checkpoint, folder=tmp_path)
    assert result == {"tokens": True, "kv": 0}


START, END = 49406, 49407


def words(probe, text: str) -> list:
    """Ids of a text, by stock ComfyUI, without start, end and padding."""
    ids = [token for token, _ in probe("stock_tokens", checkpoint="tiny_sd15", text=text)[0]]
    return ids[1 : ids.index(END)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("photo of <ann> smiling", ["photo of", 1.0, "v0 v1", 1.0, "smiling", 1.0]),
        ("photo of <ANN>'s dog", ["photo of", 1.0, "v0 v1", 1.0, "'s dog", 1.0]),
        ("a,<ann>,b", ["a,", 1.0, "v0 v1", 1.0, ",b", 1.0]),
        ("(photo of <ann>:1.3) smiling", ["photo of", 1.3, "v0 v1", 1.3, "smiling", 1.0]),
        ("(<ann>:0.5), \\(old\\) zebra", ["v0 v1", 0.5, ", \\(old\\) zebra", 1.0]),
        ("((<ann>)) and <ann>", ["v0 v1", 1.1 * 1.1, "and", 1.0, "v0 v1", 1.0]),
        ("ann <anna> < ann>", ["ann <anna> < ann>", 1.0]),
        ("photo of embedding:ann, smiling", ["photo of", 1.0, "v0 v1", 1.0, ", smiling", 1.0]),
    ],
)
def test_the_name_in_prompts(probe, text, expected):
    wanted = []
    for part, weight in zip(expected[::2], expected[1::2]):
        entries = part.split() if part.startswith("v0") else words(probe, part)
        wanted += [[entry, weight] for entry in entries]
    (chunk,) = probe("tokens", checkpoint="tiny_sd15", texts=[text])[0]
    end = [token for token, _ in chunk].index(END)
    assert chunk[0] == [START, 1.0]
    assert chunk[1:end] == [[token, pytest.approx(weight)] for token, weight in wanted]


def test_a_name_is_never_cut_by_a_chunk_border(probe):
    texts = ["dog " * count + "<ann> runs" for count in range(72, 77)]
    for text, chunks in zip(texts, probe("tokens", checkpoint="tiny_sd15", texts=texts)):
        assert {len(chunk) for chunk in chunks} == {77}
        for chunk in chunks:
            people = [token for token, _ in chunk if isinstance(token, str)]
            assert people in ([], ["v0", "v1"]), text
        assert sum(token == "v0" for chunk in chunks for token, _ in chunk) == 1


@pytest.mark.parametrize(
    "case, message",
    [
        ("clip of another family", "Expected the CLIP of Stable Diffusion 2.x (clip_h of width 1024), got clip_l"),
        ("identity of another family", "Expected a MODEL and CLIP of Stable Diffusion 1.x, on which <ann> was trained"),
        (
            "refiner",
            "Stable Diffusion 2.x, Stable Diffusion XL, got SDXLRefiner with text width 1280",
        ),
        (
            "no unet",
            "Expected a MODEL of Stable Diffusion 1.x, Stable Diffusion 2.x, Stable Diffusion XL, got NoneType",
        ),
        ("no clip", "Expected the CLIP of Stable Diffusion 2.x (clip_h of width 1024), got no CLIP text encoder"),
        ("two of one name", "Expected people of different names in one CLIP, got two called <Ann>. Rename one with"),
        ("no vae", "Expected a VAE of 4 latent channels, got a checkpoint without one"),
        ("not an identity", "Expected IDENTITY from Load ID-EA Embedding, got a dict. Connect Load ID-EA Embedding."),
        ("kv of another checkpoint", "input_blocks.7.1.transformer_blocks.0.attn2.to_k of shape (320, 1024), got none"),
    ],
)
def test_what_does_not_fit_is_refused(probe, case, message):
    assert message in probe("refusal", checkpoint="tiny_sd21", case=case)
