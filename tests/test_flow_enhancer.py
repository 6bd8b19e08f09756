"""ID-Enhancers across people for language models: a face gives the rows of the text condition that a name gives."""

import pytest
import torch
from helpers import NAMES, across, losses_of_one_batch, many_faces, trained
from tiny_flow import SIDE, tiny_flow

from idea_core import TrainConfig, Trainer
from idea_core.enhancers.config import DatasetConfig, EnhancerTrainConfig
from idea_core.enhancers.drawing import ImageSampler
from idea_core.enhancers.model import face_condition
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.run import require_trainable
from idea_core.errors import ConfigError, IdentityFileError
from idea_core.files.digest import Digest
from idea_core.headless.diffusers import FlowBackbone, people_of
from idea_core.method.anchor import ROWS, mean_rows


@pytest.fixture(scope="module")
def pipeline():
    return tiny_flow("zimage")


@pytest.fixture
def backbone(pipeline) -> FlowBackbone:
    return FlowBackbone(pipeline)


def weights_hash(pipeline) -> str:
    digest = Digest()
    for part in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
        digest.add_tensors(part.state_dict())
    return digest.hex()


def last_rows(backbone, name: str) -> torch.Tensor:
    """The text condition's rows at the last two tokens of a name."""
    vectors = {key: [backbone.embed_tokens(key, ids)] for key, ids in backbone.tokenize(name).items()}
    condition = backbone.encode([backbone.read("{}")], vectors)
    return condition.context[0, condition.places[0, -2:]].float()


def test_before_training_every_face_is_the_names_mean_row(backbone):
    run = across(backbone)
    (mean, spread), model, names = mean_rows(backbone, run.pictures.names, 2), run.model, run.pictures.names
    rows = torch.stack([last_rows(backbone, name) for name in names])
    assert torch.allclose(mean[ROWS], rows.mean(0), atol=1e-4)
    assert torch.allclose(spread[ROWS], rows.std(0).clamp(min=0.1 * rows.std(0).mean().item()), atol=1e-4)
    faces = many_faces(3)
    assert torch.equal(model.tokens(faces)[ROWS], mean[ROWS].expand(3, -1, -1))
    captions = [backbone.read("a photo of {}")] * 3
    adapted = face_condition(backbone, model, captions, faces)
    plain = backbone.encode(captions, {key: [part] * 3 for key, part in model.read.items()})
    assert torch.equal(adapted.context, plain.with_rows(mean[ROWS]).context)


def test_all_steps_train_by_text_the_base_stays_and_the_loss_of_a_fixed_batch_falls(backbone, pipeline):
    before = weights_hash(pipeline)
    run = across(backbone, EnhancerTrainConfig(steps=1000, text_steps=10, batch_size=2))
    backbone.predict = None  # the network takes no part
    first, last, moved = losses_of_one_batch(run)
    assert last < 0.9 * first and weights_hash(pipeline) == before
    assert moved == set(run.model.state_dict()) - {"anchor", "start", "scale", "read_qwen3_4b"}


def test_who_gives_what_the_name_gives_has_nothing_to_learn(backbone):
    run = across(backbone, people=(0, 0, 1, 1))
    (objective,) = run.objectives
    objective._nameable = torch.tensor([0, 1])
    batch = objective.draw()
    far = objective.loss(batch)
    named = run.data.named_condition(batch.pictures[:1])
    rows = named.context[0, named.places[0, -2:]]
    run.model.tokens = lambda faces, _dropout: {ROWS: rows.expand(len(faces), -1, -1)}
    assert objective.loss(batch) < far  # words that follow still see the mean name
    objective._by_name = lambda _person, _caption: rows
    assert objective.loss(batch) == 0


def test_rows_before_the_name_are_to_stay(backbone):
    run = across(backbone)
    (objective,) = run.objectives
    batch = objective.draw()
    before = objective.loss(batch).item()
    first = objective._plain(0)[1]
    assert first > 0
    whole = run.model.adapter.forward

    def disturbed(context: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
        return whole(context, fused) + 5 * (torch.arange(context.shape[1])[:, None] < first)

    run.model.adapter.forward = disturbed
    assert objective.loss(batch).item() > before + 1


def test_a_file_holds_it_and_a_person_from_it_stands_in_prompts(backbone, pipeline, tmp_path):
    enhancer = trained(backbone)
    again = PretrainedEnhancer.load(enhancer.save(tmp_path / "e.safetensors"))
    assert again.metadata() == enhancer.metadata() and again.digest() == enhancer.digest()
    first, second = (again.identity(name, face) for name, face in zip(("ann", "ben"), many_faces(2)))
    model = again.build()
    assert torch.equal(first.rows, model.tokens(many_faces(1))[ROWS][0].half())
    assert torch.equal(first.tokens["qwen3_4b"], model.read["qwen3_4b"].half())
    assert not torch.equal(first.rows, second.rows)
    people = people_of(pipeline, [first, second])
    contexts = [people.encode(f"a photo of <{name}>").context for name in ("ann", "ben")]
    assert not torch.equal(*contexts)
    assert torch.equal(people.encode("a dog").context, people_of(pipeline, []).encode("a dog").context)
    foreign = dict(again.weights) | {"anchor": torch.zeros(2, 7)}
    with pytest.raises(IdentityFileError, match="an anchor of shape \\(n, 2560\\)"):
        PretrainedEnhancer(again.base_ref, foreign)


def test_a_training_starts_at_its_answer(backbone):
    enhancer, face = trained(backbone), many_faces(1)[0]
    config = enhancer.configure(TrainConfig(steps=1, batch_size=1))
    assert config.space == "output"
    photos = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    run = Trainer.of(backbone, photos, face, config, NAMES, ["a photo of {}"], start=enhancer)
    model = enhancer.build()
    assert torch.allclose(run.person.rows, model.tokens(face[None])[ROWS][0])
    fused = model.adapter.grounding(model.fused(face[None])[0])
    assert torch.allclose(run.person.grounding(), fused, atol=1e-5)
    run.run()
    assert not torch.equal(run.person.rows, model.tokens(face[None])[ROWS][0])


def test_prompts_of_several_lengths_are_drawn_each_for_itself(backbone):
    config = DatasetConfig(resolution=SIDE, sampling_steps=2, sampling_batch_size=4)
    prompts, seeds = ["a", "a red dog", "b", "a big hat"], [3, 4, 5, 6]
    latents, images = ImageSampler(backbone, config).draw(prompts, seeds)
    assert images.shape == (4, SIDE, SIDE, 3)
    for number, (prompt, seed) in enumerate(zip(prompts, seeds)):
        alone, _ = ImageSampler(backbone, config).draw([prompt], [seed])
        assert torch.allclose(latents[number].float(), alone[0].float(), atol=2e-2)
    told: list[int] = []
    captions = [backbone.read(f"{prompt} {{}}") for prompt in prompts]
    drawn = ImageSampler(backbone, config).draw_faces(
        trained(backbone).build(), captions, many_faces(4), seeds, told.append
    )
    assert drawn.shape == images.shape and told == [2, 4]  # two of one letter, and two of nine


def test_it_does_not_learn_by_likeness(backbone):
    class Engine:
        def require_detector(self) -> None: ...

    with pytest.raises(ConfigError, match="likeness_steps 0 on Z-Image, got 2"):
        require_trainable(backbone, Engine(), EnhancerTrainConfig(likeness_steps=2), None)


def test_a_prompt_that_is_the_name_alone_has_no_other_rows(backbone, monkeypatch):
    """As on models whose prompts have no template: nothing is left to stay as it is."""
    run = across(backbone, EnhancerTrainConfig(steps=2, batch_size=2))
    (objective,) = run.objectives
    whole = objective._encode_mean_name(0)[0]
    monkeypatch.setattr(objective, "_plain", lambda _caption: (whole, 0))
    monkeypatch.setattr(objective, "_by_name", lambda _person, _caption: whole.context[0].float())
    assert objective.loss(objective.draw()).isfinite()
