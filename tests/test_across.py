"""Enhancers that have seen people, on real diffusers and transformers classes at tiny size."""

import dataclasses

import pytest
import torch
from helpers import (
    MANY_NAMES,
    NAMES,
    QUICK_ENHANCER,
    across,
    face,
    losses_of_one_batch,
    many_faces,
    photos,
    pictures,
    require_same,
    require_same_end,
    rewrite,
    trained,
    weights_hash,
)
from tiny_pipeline import tiny_pipeline

from idea_core import Identity, TrainConfig, Trainer, cross_initialise
from idea_core.enhancers.config import EnhancerTrainConfig
from idea_core.enhancers.dataset import PeoplePictures
from idea_core.enhancers.model import EnhancerModel
from idea_core.enhancers.objectives import DenoisingObjective
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.trainer import EnhancerTrainer
from idea_core.errors import ConfigError, DivergedError, IdentityFileError, TrainingError
from idea_core.headless.diffusers import DiffusersBackbone, GenerateConfig, People, generate
from idea_core.method.anchor import mean_name, names_basis
from idea_core.training.run import TrainingRun

QUICK_PERSON = TrainConfig(steps=1, batch_size=1)


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def test_before_training_every_face_is_the_mean_name(backbone):
    start, scale = mean_name(backbone, NAMES, 2)
    model = EnhancerModel(cross_initialise(backbone, NAMES, 2), start, scale)
    tokens = model.tokens(many_faces(3))["clip_l"]
    ids = [backbone.tokenize(name)["clip_l"] for name in NAMES]
    for position in range(2):
        named = backbone.embed_tokens("clip_l", [name[position] for name in ids if len(name) > position])
        assert torch.allclose(tokens[:, position], named.mean(0).expand(3, -1))
        assert torch.allclose(scale["clip_l"][position], named.square().mean().sqrt())
    context = torch.randn(3, 77, 768)
    assert torch.equal(model.adapter(context, model.fused(many_faces(3))), context)
    assert model.fused(many_faces(3)).unique(dim=0).shape[0] == 3


@pytest.mark.parametrize("text_steps", [0, 1000])
def test_only_the_face_model_is_trained_and_the_loss_of_a_fixed_batch_falls(backbone, text_steps):
    before = weights_hash(backbone)
    run = across(backbone, EnhancerTrainConfig(steps=1000, text_steps=text_steps, batch_size=2))
    first, last, moved = losses_of_one_batch(run)
    assert last < first and weights_hash(backbone) == before
    assert moved == set(run.model.state_dict()) - {"anchor", "start", "scale"}


def test_the_lesson_by_text_is_over_when_the_name_has_been_found(backbone):
    run = across(backbone, people=(0, 0))
    with torch.no_grad():
        run.model.start.zero_()
        (objective,) = run.objectives
        batch = objective.draw()
        assert objective.loss(batch) > 1e-6
        run.model.start.copy_(backbone.embed_tokens("clip_l", backbone.tokenize(NAMES[0])["clip_l"]))
        assert objective.loss(batch) == 0


def test_text_comes_before_pictures(backbone):
    run = across(backbone, EnhancerTrainConfig(steps=5, text_steps=3, batch_size=2))
    calls, forward = [], backbone.predict
    backbone.predict = lambda *inputs: calls.append(run.steps_done) or forward(*inputs)
    run.run()
    assert calls == [3, 3, 4, 4]  # for the name and for the face


def test_each_lesson_warms_up_and_slows_down_with_an_optimizer_of_its_own(backbone):
    run = across(backbone, EnhancerTrainConfig(steps=300, text_steps=200, batch_size=1))
    rates = []
    for step in range(300):
        run.losses = [0.0] * step
        objective, done = run._now()
        rates.append(objective.lr_after(done))
    assert rates[:5] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3]) and rates[99:101] == [1e-3, 1e-3]
    assert rates[199] == pytest.approx(1e-3 * (0.01 * 0.95 + 0.05))
    assert rates[200:203] == pytest.approx([5e-5, 1e-4, 1e-4]) and rates[299] == pytest.approx(1e-4 * 0.069)
    run.losses = [0.0] * 198
    for counted in (1, 2, 1, 2):
        run.run_step()
        assert {int(state["step"]) for state in run.optimizer.state.values()} == {counted}


@pytest.mark.parametrize("by_text", [True, False])
def test_who_gives_what_the_name_gives_has_nothing_to_learn(backbone, by_text):
    run = across(backbone, EnhancerTrainConfig(batch_size=3, text_steps=int(by_text)))
    objective = run.objectives[0]
    batch = objective.draw()
    assert objective.loss(batch) > 1e-5
    ids = [backbone.tokenize(run.pictures.names[person])["clip_l"] for person in run.pictures.people[batch.pictures]]
    embedded = torch.stack([backbone.embed_tokens("clip_l", name) for name in ids])
    run.model.tokens = lambda _faces, _dropout: {"clip_l": embedded}
    assert objective.loss(batch) < 1e-10


def test_dropout_takes_a_share_of_each_samples_hidden_values_and_none_of_a_person(backbone):
    run = across(backbone, EnhancerTrainConfig(steps=4, batch_size=4, dropout=0.25))
    run.run()
    factors = run.data.dropout(200)
    assert factors.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (factors == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    whole = run.model.tokens(many_faces(2))["clip_l"]
    assert torch.equal(run.model.tokens(many_faces(2), torch.ones_like(factors[:2]))["clip_l"], whole)
    some = run.model.tokens(many_faces(2), torch.stack([torch.ones_like(factors[0]), factors[1]]))["clip_l"]
    assert torch.equal(some[0], whole[0]) and not torch.equal(some[1], whole[1])
    assert across(backbone, EnhancerTrainConfig(dropout=0)).data.dropout(3).unique().tolist() == [1]
    with pytest.raises(ConfigError, match="dropout below 1, got 1"):
        EnhancerTrainConfig(dropout=1)


def test_names_of_another_length_give_no_lesson_by_text(backbone):
    run = across(backbone, people=(0, 0, 1, 1, 2, 2))
    assert run.objectives[0]._nameable.tolist() == [0, 1, 2, 3]
    who = torch.zeros(2, dtype=torch.long)
    three_tokens = PeoplePictures(torch.zeros(2, 4, 2, 2), many_faces(2), who, ["{}"] * 2, ["abc"])
    anchor = cross_initialise(backbone, NAMES, 2)
    with pytest.raises(TrainingError, match="names are of 2 tokens, to learn by text, got none"):
        EnhancerTrainer(backbone, anchor, three_tokens, EnhancerTrainConfig(text_steps=1))
    EnhancerTrainer(backbone, anchor, three_tokens, EnhancerTrainConfig(text_steps=0))


def test_a_face_never_comes_from_the_picture_itself(backbone):
    run = across(backbone, EnhancerTrainConfig(views=1))
    for chosen in torch.arange(5).split(1):
        seen = torch.cat([run.data.other_faces(chosen) for _ in range(40)])
        mine = run.pictures.people == run.pictures.people[chosen]
        mine[chosen] = False
        likeness = seen @ run.pictures.faces.T
        assert set(likeness.argmax(1).tolist()) == set(mine.nonzero()[:, 0].tolist())


def test_the_same_seed_gives_the_same_enhancer(backbone):
    first, second = trained(backbone), trained(backbone)
    require_same(first.weights, second.weights)


def test_a_broken_training_across_people_goes_on_to_the_same_end(tmp_path):
    config = EnhancerTrainConfig(steps=6, text_steps=2, batch_size=2)
    whole, broken, resumed = (across(DiffusersBackbone(tiny_pipeline()), config) for _ in range(3))
    losses = whole.run()
    objective, calls = broken.objectives[1], []
    loss = objective.loss

    def interrupted(batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss(batch)

    objective.loss = interrupted
    with pytest.raises(KeyboardInterrupt), TrainingRun(broken, tmp_path / "a.training", "same") as run:
        run.run()
    run = TrainingRun(resumed, tmp_path / "a.training", "same")
    assert run.resume() == 3
    run.run()
    assert tuple(resumed.losses) == losses and run.report()["steps_done"] == 6
    require_same(resumed.weights(), whole.weights())


def test_an_enhancer_that_diverges_says_so_and_keeps_its_weights(backbone):
    run = across(backbone, EnhancerTrainConfig(steps=6, batch_size=3))
    run.run(lambda step, _: run.stop() if step == 2 else None)
    before = {key: weight.clone() for key, weight in run.weights().items()}
    loss = run.objectives[0].loss
    run._stopped, run.objectives[0].loss = False, lambda batch: float("nan") * loss(batch)
    with pytest.raises(DivergedError, match="a finite loss, got nan at step 3. Lower text_lr"):
        run.run()
    require_same(run.weights(), before)


def test_a_training_goes_on_from_an_enhancer(backbone):
    start = trained(backbone)
    given, config = (
        pictures(backbone),
        dataclasses.replace(QUICK_ENHANCER, heads=4).continued(start.base_ref.heads, start.base_ref.beta),
    )
    run = EnhancerTrainer(backbone, start, given, config)
    assert [type(objective) for objective in run.objectives] == [DenoisingObjective] and config.heads == 8
    assert all(torch.equal(weight.half(), start.weights[key]) for key, weight in run.weights().items())
    run.run()
    assert not torch.equal(run.model.predictor.out.bias.half(), start.weights["predictor.out.bias"])
    other_base = DiffusersBackbone(tiny_pipeline("sd2"))
    with pytest.raises(ConfigError, match="an ID-Enhancer for Stable Diffusion 2.x, got one for Stable Diffusion 1.x"):
        EnhancerTrainer(other_base, start, given, config)


def test_the_mean_is_of_trainings_that_have_one_start(backbone):
    start = trained(backbone)
    moved = {key: tensor + 0.5 for key, tensor in start.weights.items()}
    first = dataclasses.replace(start, training={"start": start.digest(), "seed": 1})
    second = dataclasses.replace(start, weights=moved, training={"start": start.digest(), "seed": 2})
    mean = PretrainedEnhancer.mean_of([first, second])
    assert all(torch.allclose(tensor, start.weights[key] + 0.25, atol=2e-3) for key, tensor in mean.weights.items())
    assert mean.training["seed"] == [1, 2] and mean.base_checkpoint == "tiny"
    assert second.digest() != start.digest() == trained(backbone).digest()
    elsewhere = dataclasses.replace(second, training={"start": second.digest()})
    wrong = {"1 of 1 starts": [second], "2 of 2 starts": [first, elsewhere], "without a start": [start, second]}
    for got, others in {**wrong, "1 of 1": [second, second]}.items():
        with pytest.raises(ConfigError, match=f"two different trainings or more that went on .*, got .*{got}"):
            PretrainedEnhancer.mean_of(others)


def test_an_enhancer_gives_an_ordinary_identity(backbone, tmp_path):
    enhancer = PretrainedEnhancer.load(trained(backbone).save(tmp_path / "people.safetensors"))
    identity = Identity.load(enhancer.identity("alice", face()).save(tmp_path / "alice.safetensors"))
    model = enhancer.build()
    assert torch.allclose(identity.tokens["clip_l"].float(), model.tokens(face()[None])["clip_l"][0], atol=2e-2)
    assert identity.has_adapter and identity.base_checkpoint == "tiny"
    pipeline = tiny_pipeline()
    people = People(pipeline, [identity])
    ((_, picture),) = generate(pipeline, people, "<alice>", 1, GenerateConfig(steps=2, width=16, height=16))
    assert picture.size == (16, 16)
    with torch.no_grad():
        plain = people.text.encode({"clip_l": [[*identity.tokens["clip_l"].float()]]}).context
        expected = model.adapter(plain, model.fused(face()[None]))
    assert torch.allclose(people.encode("<alice>").context, expected, atol=1e-2)


def test_a_training_starts_where_the_enhancer_stands(backbone):
    enhancer = trained(backbone)
    config = enhancer.configure(TrainConfig(steps=2, batch_size=1))
    run = Trainer.of(backbone, photos(), face(), config, NAMES, start=enhancer)
    instant = enhancer.identity("alice", face())
    started = run.identity("alice")
    assert torch.equal(started.tokens["clip_l"], instant.tokens["clip_l"])
    assert torch.allclose(started.grounding.float(), instant.grounding.float(), atol=2e-3)
    assert torch.equal(started.adapter["gamma"], instant.adapter["gamma"])
    assert run.person.regularizer() < 1e-3
    run.run()
    assert not torch.equal(run.identity("alice").tokens["clip_l"], instant.tokens["clip_l"])


def test_a_training_that_starts_at_an_enhancer_moves_along_the_axes_of_names(backbone):
    enhancer = trained(backbone)
    run = Trainer.of(backbone, photos(), face(), QUICK_PERSON, MANY_NAMES, start=enhancer)
    start = run.person.tokens["clip_l"].detach()
    assert torch.allclose(start, enhancer.build().tokens(face()[None])["clip_l"][0], atol=1e-6)
    run.run()
    moved = run.person.tokens["clip_l"].detach() - start
    axes = names_basis(backbone, MANY_NAMES, 2, 512).axes["clip_l"]
    coefficients = run.person.pseudo_tokens.coefficients[
        "clip_l"
    ].detach()  # in a tenth of the names' spread along each axis
    assert torch.allclose(moved, torch.einsum("nk,nkd->nd", coefficients, 0.1 * axes), atol=1e-5)
    assert moved.norm(dim=-1).min() > 1e-3


def test_a_broken_training_that_starts_at_an_enhancer_goes_on_to_the_same_end(backbone, tmp_path):
    enhancer, config = trained(backbone), TrainConfig(steps=4, batch_size=1)
    require_same_end(
        lambda: Trainer.of(backbone, photos(), face(), config, MANY_NAMES, start=enhancer),
        tmp_path / "a.training",
    )


def test_an_enhancer_for_another_base_is_refused(backbone):
    enhancer = trained(backbone)
    other_base = DiffusersBackbone(tiny_pipeline("sd2"))
    with pytest.raises(ConfigError, match="an ID-Enhancer for Stable Diffusion 2.x, got one for Stable Diffusion 1.x"):
        Trainer.of(other_base, photos(), face(), QUICK_PERSON, NAMES, start=enhancer)
    other = dataclasses.replace(QUICK_PERSON, num_tokens=3)
    with pytest.raises(ConfigError, match="num_tokens 2, heads 8, beta 0.4, got num_tokens 3"):
        enhancer.build_person(backbone, face(), other, ["one two three"])


def test_a_person_with_one_picture_is_refused(backbone):
    with pytest.raises(TrainingError, match="two images of each person or more, got one of person 1"):
        pictures(backbone, people=(0, 0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("adapter.gamma"), "adapter.gamma of shape .1,., got none"),
        (lambda w: w.update(strange=torch.zeros(1)), "strange of shape none"),
        (lambda w: w.update(anchor=torch.zeros(2, 5)), "an anchor of shape .n, 768., got .2, 5."),
        (lambda w: w["adapter.gamma"].fill_(float("nan")), "finite"),
    ],
)
def test_a_damaged_enhancer_is_refused(backbone, tmp_path, change, message):
    enhancer = trained(backbone)
    weights = {key: tensor.clone() for key, tensor in enhancer.weights.items()}
    change(weights)
    broken = object.__new__(PretrainedEnhancer)
    for key, value in {**vars(enhancer), "weights": weights}.items():
        object.__setattr__(broken, key, value)
    broken.save(tmp_path / "broken.safetensors")
    with pytest.raises(IdentityFileError, match=message):
        PretrainedEnhancer.load(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"heads": "0"}, "heads to divide the width 768, got 0"),
        ({"beta": "nan"}, "beta to be finite"),
        ({"prediction": "x0"}, "prediction to be one of eps, v, got 'x0'"),
        ({"training": "[]"}, "training to be a JSON object"),
        ({"training": "[" * 50_000}, "metadata values of the right kind"),
    ],
)
def test_an_enhancer_that_says_nonsense_of_itself_is_refused(backbone, tmp_path, said, message):
    path = trained(backbone).save(tmp_path / "broken.safetensors")
    rewrite(path, lambda tensors, metadata: metadata.update(said))
    with pytest.raises(IdentityFileError, match=message):
        PretrainedEnhancer.load(path)


def test_an_identity_is_no_enhancer(backbone, tmp_path):
    identity = trained(backbone).identity("alice", face()).save(tmp_path / "alice.safetensors")
    with pytest.raises(IdentityFileError, match="a file of format id-ea-enhancer, got format id-ea in alice"):
        PretrainedEnhancer.load(identity)
