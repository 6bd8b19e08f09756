"""The training loop on real diffusers and transformers classes at tiny size."""

import random

import pytest
import torch
from helpers import MANY_NAMES, NAMES, QUICK, face, photos, require_same, require_same_end, trainer, weights_hash
from tiny_pipeline import tiny_pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from idea_core import BASE_MODELS, Identity, TrainConfig, Trainer, cross_initialise
from idea_core.diffusion.schedule import DiscreteSchedule
from idea_core.errors import ConfigError, DivergedError, IdentityFileError, ShapeError, TrainingError
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.method.anchor import spread_of_names
from idea_core.method.kv import KVDeltas, delta_of, kv_added
from idea_core.method.losses import mahalanobis_to, squared_to
from idea_core.text.captions import with_note
from idea_core.training.batches import Photos
from idea_core.training.loop import READ_EVERY, copied, explosion, not_finite
from idea_core.training.state import restore_state, save_state


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def test_cross_initialisation_means_each_position_over_the_names_that_have_it(backbone):
    anchor = cross_initialise(backbone, NAMES, 2)["clip_l"]
    ids = [backbone.tokenize(name)["clip_l"] for name in NAMES]
    first = backbone.embed_tokens("clip_l", [i[0] for i in ids]).mean(0)
    second = backbone.embed_tokens("clip_l", [ids[0][1], ids[1][1]]).mean(0)
    expected = backbone.encode([backbone.read("{}")], {"clip_l": [torch.stack([first, second])]}).context[0, 1:3]
    assert torch.equal(anchor, expected)


def test_a_phrase_gives_the_hidden_states_at_its_own_tokens(backbone):
    anchor = cross_initialise(backbone, ["human face"], 2)["clip_l"]
    context = backbone.encode([backbone.read("human face")]).context
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
    assert {"pseudo_tokens.vectors.clip_l", "adapter.gamma", "enhancer.expand.weight", "adapter.fuse.weight"} <= moved
    assert moved.isdisjoint({"anchor", "id_embeds"})
    assert all(weight.abs().max() > 0 for weight in run.person.kv.state_dict().values())


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_loss_of_a_fixed_batch_falls(prediction):
    backbone = DiffusersBackbone(tiny_pipeline(prediction=prediction))
    run = trainer(backbone, TrainConfig(batch_size=4))
    batch = run.sampler.draw()
    with run.active():
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


@pytest.mark.parametrize(("rank", "kind"), [(4, ".lora_up.weight"), (0, ".diff")])
def test_kv_of_low_or_full_rank(backbone, rank, kind):
    run = trainer(backbone, TrainConfig(steps=2, batch_size=1, kv_rank=rank))
    run.run()
    kv = run.identity("alice").kv
    assert any(key.endswith(kind) for key in kv)
    assert {name: tuple(delta_of(kv, name).shape) for name in backbone.kv_shapes} == backbone.kv_shapes


def test_deltas_act_as_a_changed_weight_of_either_kind_and_so_do_their_gradients():
    """The product of the factors is never made."""
    generator = torch.Generator().manual_seed(0)
    layer, x = torch.nn.Linear(12, 10, bias=False), torch.randn(2, 5, 12, generator=generator, requires_grad=True)
    wanted = torch.randn(2, 5, 10, generator=generator)
    for rank in (3, 0):
        deltas = KVDeltas({"a": (10, 12)}, rank, generator, torch.device("cpu"))
        for weight in deltas.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
        inputs = [x, *deltas.parameters()]
        with kv_added({"a": layer}, deltas.weights):
            loss = (layer(x) * wanted).sum()
        usual = (torch.nn.functional.linear(x, layer.weight + delta_of(deltas.weights, "a")) * wanted).sum()
        assert loss.item() == pytest.approx(usual.item(), rel=1e-6)
        for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(usual, inputs)):
            assert (mine - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_an_enhancer_without_a_rate_costs_no_gradients_and_stays(backbone):
    config = TrainConfig(steps=3, batch_size=1, enhancer_lr=0.0)
    run = trainer(backbone, config)
    before = copied(run.person.enhancer.state_dict())
    run.run()
    require_same(before, run.person.enhancer.state_dict())
    assert all(part.grad is None for part in run.person.enhancer.parameters())
    assert all(part.grad is not None for part in run.person.adapter.parameters())
    frozen = [part for part in run.person.enhancer.parameters() if part in run.optimizer.state]
    assert not frozen


def test_photos_of_one_caption_encode_it_once(backbone, monkeypatch):
    """Each photo has its own captions, of the same words."""
    run = trainer(backbone, TrainConfig(batch_size=8), pictures=photos(8), captions=["a {}", "the {}"])
    batch = run.sampler.draw()
    assert len(batch.captions.unique()) > 2
    encoded, rows = [], run._denoising._encode.rows
    monkeypatch.setattr(run._denoising._encode, "rows", lambda numbers: encoded.append(len(numbers)) or rows(numbers))
    inputs = run._denoising.inputs(batch)
    whole = run._denoising(batch.bucket, inputs)
    texts = [id(run.dataset.captions[number]) for number in batch.captions.tolist()]
    assert encoded == [len(set(texts))] == [2]
    assert [id(run.dataset.captions[number]) for number in inputs.captions[inputs.position].tolist()] == texts
    each = inputs._replace(captions=batch.captions, position=torch.arange(8))
    assert run._denoising(batch.bucket, each).item() == pytest.approx(whole.item(), rel=1e-6)


def test_the_base_model_has_a_rank_of_its_own(backbone):
    run = trainer(backbone)
    assert run.config.kv_rank == BASE_MODELS[backbone.base_model].kv_rank == 8
    assert run.identity("alice").kv[f"{next(iter(backbone.kv_shapes))}.lora_up.weight"].shape[1] == 8


def test_without_kv_rate_there_is_no_kv(backbone):
    run = trainer(backbone, TrainConfig(steps=1, batch_size=1, kv_lr=0))
    run.run()
    assert not run.identity("alice").kv


def test_the_identity_gives_the_trained_condition(backbone, tmp_path):
    run = trainer(backbone)
    run.run()
    saved = Identity.load(run.identity("alice").save(tmp_path / "a.safetensors", dtype=torch.float32))
    context = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(2))
    adapted = context + saved.build_adapter().difference(context, saved.grounding.float())
    with torch.no_grad():
        assert torch.allclose(adapted, run.person.adapter(context, run.person.fused()), atol=2e-3)


def test_cancel_stops_at_once_and_leaves_the_backbone_clean(backbone):
    class CancelledError(Exception):
        pass

    seen = []

    def on_step(step, losses):
        seen.append(step)
        raise CancelledError

    before = weights_hash(backbone)
    with pytest.raises(CancelledError):
        trainer(backbone).run(on_step)
    assert seen == [1] and weights_hash(backbone) == before


def test_progress_tells_every_step_and_the_losses_in_the_end(backbone):
    seen = []
    losses = trainer(backbone).run(lambda step, read: seen.append((step, len(read))))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert seen[-1] == (3, 3) and len(losses) == 3


def test_a_training_broken_within_a_step_goes_on_to_the_same_end(monkeypatch):
    config = TrainConfig(steps=5, batch_size=1)
    whole, broken = (trainer(DiffusersBackbone(tiny_pipeline()), config) for _ in range(2))
    losses = whole.run()
    predict, calls = broken.backbone.predict, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(broken.backbone, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    assert len(broken.read_losses()) == 2
    assert broken.run() == losses


def test_a_broken_training_goes_on_to_the_same_end(tmp_path):
    config = TrainConfig(steps=14, batch_size=1, kv_lr=0.1)

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
    with pytest.raises(IdentityFileError, match="a file of format id-ea-training, got format id-ea in"):
        restore_state(run, tmp_path / "a.safetensors", "")


def test_a_diverging_training_is_said_and_what_was_learnt_before_is_kept(backbone):
    run = trainer(backbone, TrainConfig(steps=40, batch_size=1, kv_lr=1e-6, kv_rank=0))

    def spoil(step, _losses):
        if step == 10:
            run.optimizer.param_groups[1]["lr"] = 1e30
            seen.update({key: tensor.clone() for key, tensor in run.weights().items()})

    seen = {}
    said = "a finite loss of at most 2, got .* at step 1.* Lower the learning rates.* learnt in 10 steps is kept"
    with pytest.raises(TrainingError, match=said):
        run.run(spoil)
    require_same({key: seen[key] for key in run.weights()}, run.weights())
    assert len(run.losses) == 10 and run.identity("alice").kv


def test_what_was_taken_up_is_kept_when_it_diverges_at_once(backbone, tmp_path):
    config = TrainConfig(steps=40, batch_size=1)
    first, resumed = trainer(backbone, config), trainer(backbone, config)
    first.run(lambda step, _: first.stop() if step == 3 else None)
    restore_state(resumed, save_state(first, tmp_path / "a.training", "same"), "same")
    for group in resumed.optimizer.param_groups:
        group["lr"] = 1e30
    with pytest.raises(DivergedError, match="learnt in 3 steps is kept"):
        resumed.run()
    assert resumed.identity("alice").digest() == first.identity("alice").digest()


def test_what_counts_as_diverging():
    calm = [0.3] * READ_EVERY
    assert not explosion([*calm, 0.1, 0.9], READ_EVERY)
    assert not explosion([1.4] * 10 + [4.0] * 10, 10)  # a random network is bad from the start
    assert explosion([*calm, 2.0, 4.0], READ_EVERY) == "3.0 on average of the steps up to 12, 0.30 at first"
    weights = {"a": torch.ones(2)}
    assert not not_finite([*calm, 0.1], READ_EVERY, weights)
    assert not_finite([*calm, 0.1, float("nan")], READ_EVERY, weights) == "nan at step 12"
    assert "not finite after step 10" in not_finite(calm, 0, {"a": torch.tensor([1.0, float("inf")])})


def test_weights_too_large_for_the_file_are_said(backbone):
    run = trainer(backbone, TrainConfig(steps=1, batch_size=1, token_lr=1e6))
    run.run()
    with pytest.raises(TrainingError, match=r"finite weights, got NaN or infinity after training\. Lower the learning"):
        run.identity("alice")


def test_between_names_the_tokens_move_along_their_axes(backbone):
    config = TrainConfig(steps=3, batch_size=2, axes=3)
    run = Trainer.of(backbone, photos(), face(), config, MANY_NAMES)
    ids = [backbone.tokenize(name)["clip_l"] for name in MANY_NAMES]
    first = backbone.embed_tokens("clip_l", [name[0] for name in ids])
    assert torch.allclose(run.person.tokens["clip_l"][0], first.mean(0), atol=1e-6)
    axes = run.person.pseudo_tokens.axes_clip_l
    assert axes.shape == (2, 3, 768)
    along = (first - first.mean(0)) @ torch.nn.functional.normalize(axes[0], dim=1).T
    assert torch.allclose(along.std(0, unbiased=False), axes[0].norm(dim=1), rtol=1e-3)  # longest first
    assert (axes[0].norm(dim=1).diff() <= 1e-6).all()
    run.run()
    moved = run.identity("alice").tokens["clip_l"][0].float() - first.mean(0)
    outside = moved - moved @ torch.linalg.pinv(axes[0]) @ axes[0]
    assert moved.norm() > 1e-3 and outside.norm() < 2e-2 * moved.norm()
    assert {
        "pseudo_tokens.coefficients.clip_l",
        "anchor",
    } <= run.weights().keys() and "pseudo_tokens.axes_clip_l" not in run.weights()
    assert torch.equal(run.person.anchor, cross_initialise(backbone, MANY_NAMES, 2)["clip_l"])


@pytest.mark.parametrize(("names", "start"), [(NAMES, "names"), (MANY_NAMES, "cross")])
def test_with_few_names_or_on_request_the_tokens_start_at_the_cross_initialisation(backbone, names, start):
    run = Trainer.of(backbone, photos(), face(), TrainConfig(start=start), names)
    assert torch.equal(run.person.tokens["clip_l"], run.person.anchor)


def test_a_person_may_be_the_mean_of_the_last_steps(backbone):
    steps: list[dict[str, torch.Tensor]] = []
    run = Trainer.of(backbone, photos(), face(), TrainConfig(steps=5, batch_size=1, swa_fraction=0.5), MANY_NAMES)
    step = run.step

    def remembered(batch):
        loss = step(batch)
        steps.append({key: weight.clone() for key, weight in run.weights().items()})
        return loss

    run.step = remembered
    run.run()
    for key, weight in run.weights().items():
        assert torch.allclose(weight, (steps[3][key] + steps[4][key]) / 2, atol=1e-7)
    assert any(not torch.equal(weight, steps[4][key]) for key, weight in run.weights().items())


def test_a_broken_training_between_names_goes_on_to_the_same_end(tmp_path):
    config = TrainConfig(steps=4, batch_size=1)
    require_same_end(
        lambda: Trainer.of(DiffusersBackbone(tiny_pipeline()), photos(), face(), config, MANY_NAMES),
        tmp_path / "a.training",
    )


def test_captions_have_a_place_for_the_person(backbone):
    with pytest.raises(TrainingError, match="captions with one {} where the person stands, got 'a photo'"):
        trainer(backbone, captions=["a photo"])


def test_images_have_a_shape(backbone):
    with pytest.raises(ShapeError, match="images of shape"):
        Trainer.of(backbone, torch.zeros(64, 64, 3), face(), QUICK, NAMES)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", -1), ("batch_size", 0), ("kv_rank", -1), ("token_lr", -1.0), ("flip_p", 2.0)]
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"Expected {field} .*, got {value}. Change {field}."):
        TrainConfig(**{field: value})


def test_without_an_adapter_rate_the_person_is_a_textual_inversion(backbone, tmp_path):
    run = trainer(backbone, TrainConfig(steps=2, batch_size=1, adapter_lr=0, kv_lr=0))
    run.run()
    identity = Identity.load(run.identity("alice").save(tmp_path / "alice.safetensors"))
    assert not identity.has_adapter and not identity.kv
    assert not torch.equal(identity.tokens["clip_l"].float(), identity.anchor.float())
    state = save_state(run, tmp_path / "state", "same")
    assert restore_state(trainer(backbone, run.config), state, "same") == 2


def test_a_gate_that_stands_open_changes_nothing_at_first_and_lets_the_enhancer_learn_at_once(backbone):
    def train(gate: float) -> Trainer:
        run = trainer(backbone, TrainConfig(steps=2, batch_size=1, gate_init=gate))
        before = backbone.encode([backbone.read("ab")])
        assert torch.equal(run.person.adapt(before).context, before.context)
        run.run()
        return run

    shut, opened = train(0), train(1.0)
    start = trainer(backbone, TrainConfig(gate_init=1.0)).person
    moved = (opened.person.adapter.attention.out_proj.weight - start.adapter.attention.out_proj.weight).abs().max()
    assert moved > 0 and opened.person.adapter.gamma.item() == pytest.approx(1, abs=0.01)
    assert abs(shut.person.adapter.gamma.item()) < 0.01


def test_a_note_stands_in_its_own_photos_captions_alone(backbone):
    assert with_note(["a {}", "the {}"], "in rain") == ("a {}, in rain", "the {}, in rain")
    assert with_note(["a {}", "the {}"], "rain on {}") == ("rain on {}",)
    noted = [Photos(photos(), ["in rain", "sun on {}"])]
    run = trainer(backbone, TrainConfig(batch_size=64), noted, captions=["a {}", "the {}"])
    seen = {(photo % 2, caption) for batch in [run.sampler.draw()] for photo, caption in zip(*drawn(batch))}
    assert seen == {(0, 0), (0, 1), (1, 2)}
    tokens = [after["clip_l"] for _, after in run.dataset.captions]
    assert tokens[0] == tokens[1] == backbone.tokenize(", in rain")["clip_l"] and tokens[2] == []


@pytest.mark.parametrize(("names", "called"), [((), "1"), (("a.jpg", "b.jpg"), "b.jpg")])
def test_a_caption_that_is_too_long_names_its_photo_before_anything_is_encoded(backbone, names, called):
    """75 tokens fit: a token a letter here, two of the person, and the comma."""
    trainer(backbone, pictures=[Photos(photos(), ["", "x" * 72], names=names)], captions=["{}"]).run()
    odd = torch.rand(2, 15, 15, 3)  # the VAE refuses them
    wanted = f"captions of at most 75 tokens, got 76 for photo {called}, its note included[.] Say it in fewer words"
    with pytest.raises(ConfigError, match=wanted):
        trainer(backbone, pictures=[Photos(odd, ["", "x" * 73], names=names)], captions=["{}"])
    with pytest.raises(ConfigError, match="got 77 for photo b.jpg[.]"):
        trainer(backbone, pictures=[Photos(odd[:1], names=["b.jpg"]), Photos(odd)], captions=["x" * 75 + "{}"])
    with pytest.raises(ConfigError, match="got 82 for photo 2, its note included"):
        trainer(backbone, pictures=[Photos(odd), Photos(odd, ["x" * 80 + "{}", ""])])
    with pytest.raises(ShapeError, match="2 names, one for each photo, got 1"):
        Photos(photos(), names=["a.jpg"])


def drawn(batch) -> tuple[list[int], list[int]]:
    return batch.photos.tolist(), batch.captions.tolist()


def test_names_spread_around_their_mean(backbone):
    spread = spread_of_names(backbone, [*NAMES, "hello"], 2)
    assert spread.shape == (6, 768)  # three names of two tokens or more
    assert spread.unflatten(0, (3, 2)).mean(0).abs().max() < 1e-5


def test_distances_by_other_spreads():
    generator = torch.Generator().manual_seed(0)
    samples, anchor = torch.randn(50, 6, generator=generator) * 3, torch.randn(2, 6, generator=generator)
    tokens = anchor + torch.randn(2, 6, generator=generator)
    inverse = torch.linalg.inv(torch.cov(samples.T) + 0.1 * torch.eye(6))
    expected = torch.stack([(row @ inverse @ row).sqrt() for row in tokens - anchor]).mean()
    assert torch.allclose(mahalanobis_to(anchor, 0.1, samples)(tokens), expected, rtol=1e-4)
    assert torch.allclose(squared_to(anchor)(tokens), ((tokens - anchor) ** 2).sum() / 2)


@pytest.mark.parametrize("regularizer", ["l2", "names"])
def test_a_heavy_regularizer_of_any_kind_holds_the_tokens(backbone, regularizer):
    def moved(weight: float) -> float:
        config = TrainConfig(steps=8, batch_size=1, regularizer=regularizer, regularizer_weight=weight, zeta=1e-2)
        run = trainer(backbone, config)
        run.run()
        return (run.person.tokens["clip_l"] - run.person.anchor).norm().item()

    assert moved(1e3) < 0.7 * moved(0)


def test_an_unknown_regularizer_is_refused():
    with pytest.raises(ConfigError, match="regularizer one of mahalanobis, names, l2, got l1"):
        TrainConfig(regularizer="l1")


def test_a_batch_in_parts_gives_the_same_gradients(backbone):
    def gradients(micro_batch: int) -> list[torch.Tensor]:
        run = trainer(backbone, TrainConfig(batch_size=5))
        run.micro_batch = micro_batch
        with run.active():
            run.step(run.sampler.draw())
        return [parameter.grad for group in run.optimizer.param_groups for parameter in group["params"]]

    whole, halves = gradients(5), gradients(2)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, halves) if a is not None)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (7 GB of 9 GB).")]
)
def test_out_of_memory_is_met_step_by_step_and_changes_nothing_else(backbone, monkeypatch, caplog, error):
    def train() -> Trainer:
        run = trainer(backbone, TrainConfig(steps=2, batch_size=4))
        run.run()
        return run

    expected = train().person.state_dict()
    predict = backbone.predict

    def small(noisy, *others):
        if len(noisy) > 1:
            raise error
        return predict(noisy, *others)

    monkeypatch.setattr(backbone, "predict", small)
    run = train()
    assert run.micro_batch == 1 and backbone.gradient_checkpointing
    said = ("with gradient checkpointing", "with 2 photos at a time", "with 1 photos at a time")
    assert [part in line for part, line in zip(said, caplog.messages)] == [True] * 3 == [True] * len(caplog.messages)
    assert all(torch.allclose(tensor, expected[key], atol=1e-4) for key, tensor in run.person.state_dict().items())

    def nothing(*_):
        raise error

    monkeypatch.setattr(backbone, "predict", nothing)
    with pytest.raises(type(error), match="out of memory"):
        train()


class OutOfMemoryAt(TorchDispatchMode):
    """No memory at the operation of a number, once; counts all of them."""

    def __init__(self, number: int = 0):
        super().__init__()
        self.number, self.done = number, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.done += 1
        if self.done == self.number:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return function(*args, **(kwargs or {}))


def test_out_of_memory_at_any_operation_is_met_or_said_and_leaves_nothing_behind(backbone):
    def train(mode: OutOfMemoryAt) -> Trainer:
        run = trainer(backbone, TrainConfig(steps=2, batch_size=2))
        with mode:
            run.run()
        backbone.gradient_checkpointing = False
        return run

    counting, before = OutOfMemoryAt(), weights_hash(backbone)
    expected = train(counting)
    met = 0
    for number in random.Random(0).sample(range(1, counting.done), 15):
        try:
            result = train(OutOfMemoryAt(number)).person.state_dict()
        except torch.OutOfMemoryError:
            continue
        met += 1
        assert all(torch.allclose(one, result[key], atol=1e-4) for key, one in expected.person.state_dict().items())
    assert 5 < met < 15  # where nothing but the optimiser's own step is left, it is said
    assert weights_hash(backbone) == before
    backbone.gradient_checkpointing = False
    assert train(OutOfMemoryAt()).identity("alice").digest() == expected.identity("alice").digest()


def test_masks_say_what_counts(backbone):
    masks = torch.zeros(2, 16, 16)
    masks[:, :, :8] = 1  # the left half
    run = trainer(backbone, TrainConfig(batch_size=4, flip_p=0), [Photos(photos(), masks=masks)])
    batch = run.sampler.draw()
    predict, seen = backbone.predict, []

    def record(noisy, steps, condition):
        seen.append((noisy, steps, predict(noisy, steps, condition)))
        return seen[-1][2]

    backbone.predict = record
    loss = run.loss(batch)
    bucket = run.dataset.buckets[0]
    latents = bucket.latents.mean[batch.photos]
    error = (seen[0][2] - backbone.schedule.target(latents, batch.noise, batch.levels)).square()
    assert torch.allclose(loss, error[..., :4].mean(), rtol=1e-4)
    assert torch.equal(bucket.loss_weight[2:], bucket.loss_weight[:2].flip(3))
    with pytest.raises(TrainingError, match="masks with something in them"):
        trainer(backbone, pictures=[Photos(photos(), masks=torch.zeros(2, 16, 16))])
    with pytest.raises(ShapeError, match="masks of shape"):
        Photos(photos(), masks=torch.zeros(2, 16, 8))
    with pytest.raises(ShapeError, match="2 notes, one for each photo, got 1"):
        Photos(photos(), ["in rain"])


def test_photos_of_several_sizes_are_never_in_one_batch_and_are_seen_alike(backbone):
    wide = torch.rand(6, 16, 24, 3, generator=torch.Generator().manual_seed(4))
    run = trainer(backbone, TrainConfig(steps=3, batch_size=2), [Photos(photos()), Photos(wide, ["wide"] * 6)])
    drawn_from = torch.zeros(2)
    for _ in range(300):
        batch = run.sampler.draw()
        drawn_from[batch.bucket] += 1
        assert batch.noise.shape[2:] == run.dataset.buckets[batch.bucket].latents.mean.shape[2:]
        first = run.dataset.buckets[1].first[0]
        assert (batch.captions >= first).all() if batch.bucket else (batch.captions < first).all()
    assert drawn_from[1] / drawn_from.sum() == pytest.approx(0.75, abs=0.06)
    assert len(run.run()) == 3


def test_latents_are_drawn_from_the_posterior_where_asked_for(backbone, monkeypatch):
    run = trainer(backbone, TrainConfig(batch_size=2, sample_latents=True))
    batch, bucket = run.sampler.draw(), run.dataset.buckets[0]
    pixels = torch.cat([photos(), photos().flip(2)]).movedim(-1, 1) * 2 - 1
    posterior = backbone._vae.encode(pixels).latent_dist
    scale = backbone._vae.config.scaling_factor
    assert torch.allclose(bucket.latents.std, posterior.std * scale, rtol=1e-4)
    seen, add_noise = [], DiscreteSchedule.add_noise

    def record(schedule, latents, noise, timesteps):
        seen.append(latents)
        return add_noise(schedule, latents, noise, timesteps)

    monkeypatch.setattr(DiscreteSchedule, "add_noise", record)
    run.loss(batch)
    expected = (posterior.mean[batch.photos] + posterior.std[batch.photos] * batch.posterior_noise) * scale
    assert torch.allclose(seen[0], expected, atol=1e-5)
    halves = batch.parts(1)
    assert torch.equal(torch.cat([part.posterior_noise for part in halves]), batch.posterior_noise)
    assert trainer(backbone).sampler.draw().posterior_noise is None
