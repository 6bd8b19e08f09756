"""The training loop on real diffusers and transformers classes at tiny size."""

import hashlib

import pytest
import torch
from tiny_pipeline import tiny_pipeline

from idea_core import Identity, TrainConfig, Trainer, cross_initialise
from idea_core.diffusers_backbone import DiffusersBackbone
from idea_core.errors import ConfigError, IdentityFileError, ShapeError, TrainingError
from idea_core.kv import delta_of
from idea_core.training_state import restore_state, save_state

NAMES = ("bp", "es", "c")  # of two, two and one token to a tokenizer of letters
QUICK = TrainConfig(steps=3, batch_size=2)


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def face() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(1)), dim=0)


def trainer(backbone, config: TrainConfig = QUICK, **options) -> Trainer:
    return Trainer(backbone, photos(), face(), config, NAMES, **options)


def weights_hash(backbone: DiffusersBackbone) -> str:
    digest = hashlib.sha256()
    for module in (backbone._text._parts["clip_l"].model, backbone._unet, backbone._vae):
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_cross_initialisation_means_each_position_over_the_names_that_have_it(backbone):
    anchor = cross_initialise(backbone, NAMES, 2)["clip_l"]
    ids = [backbone.tokenize(name)["clip_l"] for name in NAMES]
    first = backbone.embed_tokens("clip_l", [i[0] for i in ids]).mean(0)
    second = backbone.embed_tokens("clip_l", [ids[0][1], ids[1][1]]).mean(0)
    expected = backbone.encode({"clip_l": [[first, second]]}).context[0, 1:3]
    assert torch.equal(anchor, expected)


def test_a_phrase_gives_the_hidden_states_at_its_own_tokens(backbone):
    anchor = cross_initialise(backbone, ["human face"], 2)["clip_l"]
    context = backbone.encode({"clip_l": [backbone.tokenize("human face")["clip_l"]]}).context
    assert torch.allclose(anchor, context[0, 1:3], atol=1e-6)


def test_too_short_names_are_refused(backbone):
    with pytest.raises(ConfigError, match="one name or phrase of 3 tokens or more, got 3 of at most 2"):
        cross_initialise(backbone, NAMES, 3)


def test_only_the_person_is_trained(backbone):
    before = weights_hash(backbone)
    run = trainer(backbone)
    start = {name: tensor.clone() for name, tensor in run.person.state_dict().items()}
    losses = run.run()
    after = run.person.state_dict()
    assert len(losses) == QUICK.steps
    assert weights_hash(backbone) == before
    moved = {name for name in start if not torch.equal(start[name], after[name])}
    assert {"tokens.clip_l", "adapter.gamma", "enhancer.expand.weight", "adapter.fuse.weight"} <= moved
    assert moved.isdisjoint({"anchor", "arcface"})
    assert all(weight.abs().max() > 0 for weight in run.person.kv.state_dict().values())


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_loss_of_a_fixed_batch_falls(prediction):
    backbone = DiffusersBackbone(tiny_pipeline(prediction=prediction))
    run = trainer(backbone, TrainConfig(batch_size=4))
    batch = run.sampler.draw()
    with run.kv_deltas():
        losses = [run.step(batch).item() for _ in range(30)]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_person(backbone):
    def train(seed: int) -> str:
        run = trainer(backbone, TrainConfig(steps=3, batch_size=2, seed=seed))
        run.run()
        return run.identity("alice").digest()

    assert train(1) == train(1) != train(2)


def test_training_leaves_the_global_random_state_alone(backbone):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer(backbone).run()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("rank, kind", [(4, ".lora_up.weight"), (0, ".diff")])
def test_kv_of_low_or_full_rank(backbone, rank, kind):
    run = trainer(backbone, TrainConfig(steps=2, batch_size=1, kv_rank=rank))
    run.run()
    kv = run.identity("alice").kv
    assert any(key.endswith(kind) for key in kv)
    assert {name: tuple(delta_of(kv, name).shape) for name in backbone.kv_shapes} == backbone.kv_shapes


def test_without_kv_rate_there_is_no_kv(backbone):
    run = trainer(backbone, TrainConfig(steps=1, batch_size=1, kv_rate=0))
    run.run()
    assert not run.identity("alice").kv


def test_the_identity_gives_the_trained_condition(backbone, tmp_path):
    run = trainer(backbone)
    run.run()
    saved = Identity.load(run.identity("alice").save(tmp_path / "a.safetensors", dtype=torch.float32))
    context = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(2))
    adapted = saved.build_adapter()(context, saved.fused.float())
    with torch.no_grad():
        assert torch.allclose(adapted, run.person.adapter(context, run.person.fused()), atol=2e-3)


def test_cancel_stops_at_once_and_leaves_the_backbone_clean(backbone):
    class Cancel(Exception):
        pass

    seen = []

    def on_step(step, losses):
        seen.append(step)
        raise Cancel

    before = weights_hash(backbone)
    with pytest.raises(Cancel):
        trainer(backbone).run(on_step)
    assert seen == [1] and weights_hash(backbone) == before


def test_progress_tells_every_step_and_the_losses_in_the_end(backbone):
    seen = []
    losses = trainer(backbone).run(lambda step, read: seen.append((step, len(read))))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert seen[-1] == (3, 3) and len(losses) == 3


def test_a_broken_training_goes_on_to_the_same_end(tmp_path):
    config = TrainConfig(steps=14, batch_size=1, kv_rate=0.1)

    def stop(step, _losses):
        if step == 11:
            save_state(broken, tmp_path / "a.training", "same inputs")
            raise KeyboardInterrupt

    whole, broken, resumed = (trainer(DiffusersBackbone(tiny_pipeline()), config) for _ in range(3))
    losses = whole.run()
    with pytest.raises(KeyboardInterrupt):
        broken.run(stop)
    assert restore_state(resumed, tmp_path / "a.training", "other inputs") == 0
    assert restore_state(resumed, tmp_path / "a.training", "same inputs") == 11
    assert resumed.run() == losses
    assert resumed.identity("alice").digest() == whole.identity("alice").digest()


def test_a_file_that_is_no_state_is_refused(backbone, tmp_path):
    run = trainer(backbone)
    run.identity("alice").save(tmp_path / "a.safetensors")
    with pytest.raises(IdentityFileError, match="a training's state of format id-ea-training 1, got id-ea 1"):
        restore_state(run, tmp_path / "a.safetensors", "")


def test_a_diverging_loss_is_said(backbone):
    run = trainer(backbone, TrainConfig(steps=12, batch_size=1, kv_rate=1e30, kv_rank=0))
    with pytest.raises(TrainingError, match="a finite loss, got .* at step .* Lower the learning rates"):
        run.run()


def test_weights_too_large_for_the_file_are_said(backbone):
    run = trainer(backbone, TrainConfig(steps=1, batch_size=1, token_rate=1e6))
    run.run()
    with pytest.raises(TrainingError, match=r"finite weights, got NaN or infinity after training\. Lower the learning"):
        run.identity("alice")


def test_captions_have_a_place_for_the_person(backbone):
    with pytest.raises(TrainingError, match="captions with {} where the person stands, got 'a photo'"):
        trainer(backbone, captions=["a photo"])


def test_images_have_a_shape(backbone):
    with pytest.raises(ShapeError, match="images of shape"):
        Trainer(backbone, torch.zeros(64, 64, 3), face(), QUICK, NAMES)


@pytest.mark.parametrize(
    "field, value", [("steps", 0), ("batch_size", 0), ("kv_rank", -1), ("token_rate", -1.0), ("flip", 2.0)]
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"Expected {field} .*, got {value}. Change {field}."):
        TrainConfig(**{field: value})
