"""Training inside real ComfyUI."""

import pytest

CHECKPOINTS = ["tiny_sd15", "tiny_sd21", "tiny_sd21_v"]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_noise_and_target_follow_the_schedule(probe, checkpoint):
    result = probe("targets", checkpoint=checkpoint)
    assert result["prediction"] == ("v" if checkpoint.endswith("_v") else "eps")
    assert result["noisy"] < 1e-5 and result["target"] < 1e-4


@pytest.mark.parametrize("checkpoint", ["tiny_sd15", pytest.param("tiny_sd21", marks=pytest.mark.slow)])
def test_gradients_are_right(probe, checkpoint):
    result = probe("gradients", checkpoint=checkpoint)
    assert result["text"] <= 1e-6 * result["size"]
    assert result["forward"] == 0
    assert result["slope"] == pytest.approx(result["finite"], rel=2e-2)
    assert result["scarce"] == pytest.approx(result["slope"])


def test_weights_that_were_made_in_inference_mode_are_told_after_a_cast(probe):
    result = probe("loaded_in_inference_mode")
    assert result["forgotten"] and result["same"] and result["gradient"] < 1e-12


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_training_sees_what_sampling_gives(probe, checkpoint):
    result = probe("parity", checkpoint=checkpoint)
    assert result["context"] == 0
    assert result["latents"] <= 1e-6
    assert result["unet"] <= 1e-5
    assert result["kv"] > 1e-3  # the deltas act, and only while they are open
    assert result["plain"]


@pytest.mark.parametrize("checkpoint", [pytest.param("tiny_sd15", marks=pytest.mark.slow), "tiny_sd21"])
def test_training_sees_the_clip_layer_that_is_set_and_no_other(probe, checkpoint):
    assert probe("layers", checkpoint=checkpoint) == {"default": 0, "early": 0}


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "enough"), [("tiny_sd15", 0.0), ("tiny_sd21_v", 0.8)])
def test_the_loss_of_a_fixed_batch_falls_by_a_fifth_in_30_steps(probe, checkpoint, enough):
    result = probe("fixed_batch", checkpoint=checkpoint, steps=30, enough=enough)
    losses, moved = result["losses"], result["moved"]
    assert max(losses[-3:]) <= 0.8 * losses[0]
    assert moved.pop("anchor") == moved.pop("id_embeds") == 0
    assert min(moved.values()) > 0
    assert any("attn2.to_k.lora_up" in key for key in moved)


def test_training_changes_no_weight_and_works_again(probe):
    first = probe("train", checkpoint="tiny_sd15", name="first")
    again = probe("train", checkpoint="tiny_sd15", name="second", settings={"seed": 1})
    assert first["seen"] == again["seen"] == [1, 2]
    assert first["outcome"] != again["outcome"]
    assert first["before"] == first["after"] == again["after"]
    assert first["sample"] == again["sample"]


def test_cancel_keeps_what_was_learnt_and_the_next_run_goes_on_to_the_same_end(probe):
    untouched = probe("sample_plainly", checkpoint="tiny_sd15")
    whole = probe("train", checkpoint="tiny_sd15", name="cancelled", steps=4)
    assert whole["seen"] == [1, 2, 3, 4] and whole["kept"] == [[".safetensors", ""]]
    probe("forget", name="cancelled")
    broken = probe("train", checkpoint="tiny_sd15", name="cancelled", steps=4, interrupt_at=2)
    assert broken["outcome"] == "interrupted" and broken["seen"] == [1, 2]
    assert broken["before"] == broken["after"] and broken["sample"] == untouched
    assert broken["kept"] == [[".safetensors", "00002"], [".training", ""]]
    assert probe("learnt", name="cancelled") == {"losses": 2, "fingerprint": ""}
    resumed = probe("train", checkpoint="tiny_sd15", name="cancelled", steps=4)
    assert resumed["seen"] == [3, 4] and resumed["outcome"] == whole["outcome"]
    assert resumed["kept"] == [[".safetensors", "00002"], [".safetensors", ""]]


@pytest.mark.slow
def test_a_diverging_training_says_so_and_keeps_what_was_learnt(probe):
    said = probe("diverge", checkpoint="tiny_sd15", name="wild")
    assert "Expected a finite loss" in said and "Lower the learning rates" in said
    assert probe("learnt", name="wild")["losses"] == 10
    assert probe("train", checkpoint="tiny_sd15", name="tame")["seen"] == [1, 2]


def test_pictures_on_the_way_are_shown_and_change_nothing(probe):
    plain = probe("train", checkpoint="tiny_sd15", name="shown")
    probe("forget", name="shown")
    shown = probe("train", checkpoint="tiny_sd15", name="shown", looks=1)
    assert shown["outcome"] == plain["outcome"]
    assert shown["shown"] == [[step, "JPEG", 64, 128] for step in (1, 2)]  # before over after
    assert shown["before"] == shown["after"] and shown["sample"] == plain["sample"]


def test_other_precisions_and_checkpointing_give_the_same_gradients(probe):
    result = probe("other_ways", checkpoint="tiny_sd15")
    losses = result["losses"]
    assert losses["checkpointed"] == losses["fp32"] and result["checkpointed"] < 1e-6
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2) and result["bf16"] > 0.98
    assert result["computed twice"] > 1.5  # the second time it stops where nothing more is needed
    assert result["patched"] == 0 and result["plain"] == probe("sample_plainly", checkpoint="tiny_sd15")


def test_the_same_inputs_are_trained_once(probe, base):
    first = probe("train", checkpoint="tiny_sd15", name="once")
    again = probe("train", checkpoint="tiny_sd15", name="once")
    changed = probe("train", checkpoint="tiny_sd15", name="once", settings={"kv_lr": 1e-3})
    assert (first["seen"], again["seen"], changed["seen"]) == ([1, 2], [], [1, 2])
    assert first["outcome"] == again["outcome"] != changed["outcome"]
    files = [path.name for path in (base / "output" / "idea" / "autosave").iterdir() if path.name.startswith("once-")]
    assert len(files) == 2 and all(name.endswith(".safetensors") for name in files)


def test_a_training_is_found_again_by_every_one_of_its_inputs(probe):
    values = probe("fingerprints")
    assert values.pop("loaded anew") == values["first"]
    assert len(set(values.values())) == len(values)


@pytest.mark.parametrize("shape", [[1, 0, 10, 3], [0, 64, 64, 3]])
def test_photos_without_pixels_are_refused(probe, shape):
    said = probe("no_pixels", shape=shape)
    assert len(said) == 2
    assert "photo 0 with pixels" in said[0] or "at least one photo" in said[0]
    assert "Expected photos with pixels, got shape" in said[1]


def test_a_note_that_is_too_long_is_said_with_its_photo_before_anything_is_encoded(probe):
    """The person has two tokens, the comma one, and each word one."""
    assert "'NoneType' object has no attribute" in probe("long_note", words=72)
    said = "Expected captions of at most 75 tokens, got 76 for photo 1, its note included. Say it in fewer words."
    assert probe("long_note", words=73) == said


def test_half_weights_train_as_single_ones_and_leave_the_model_as_it_was(probe):
    result = probe("half_precision")
    assert result["dtype"] == "torch.float16"
    half, single = result["losses"]
    assert half == pytest.approx(single, rel=1e-2)
    assert result["unchanged"]
    assert result["patch"] == 0
    assert result["hooks"] == 0


def test_cancel_does_not_wait_for_the_checkpoints_hash(probe):
    assert probe("cancelled_while_hashing", seconds=3) < 2


def test_a_node_says_how_fast_it_is_and_what_is_left(probe):
    assert probe("paces") == [
        "2 of 8 pictures",  # they were there
        "4 of 8 pictures",
        "6 of 8 pictures, 15.0 s each, 30 s left",
        "7 of 8 pictures, 15.0 s each, 15 s left",
        "1 of 100 pictures",
        "11 of 100 pictures, 10.0 a second, 9 s left",
    ]


@pytest.mark.slow
def test_a_training_may_be_cancelled_at_any_moment(probe):
    result = probe("cancel_at_random", count=20)
    assert result["cancelled"] >= 5 and result["changed"] == result["other results"] == 0
