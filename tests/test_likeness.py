"""Likeness as a loss: the recogniser in torch, pictures that leave gradients, and a person trained by them."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from face_models import photo, write_face_pack
from helpers import NAMES, face, photos, require_same, require_same_end, weights_hash
from onnx import TensorProto, helper, numpy_helper
from tiny_pipeline import tiny_pipeline

from idea_core import TrainConfig, Trainer, cross_initialise
from idea_core.enhancers.config import EnhancerTrainConfig
from idea_core.enhancers.dataset import PeoplePictures
from idea_core.enhancers.pretrained import PretrainedEnhancer
from idea_core.enhancers.trainer import EnhancerTrainer
from idea_core.errors import ConfigError, FaceError
from idea_core.faces import FacePack, InsightFaceEngine, OnnxEngine
from idea_core.faces.face import RecogniserFile
from idea_core.faces.torch_recogniser import TorchRecogniser, crop_faces
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from idea_core.images import to_pixels
from idea_core.training.likeness_loss import LikenessLoss
from idea_core.training.run import TrainingRun
from miniature.methods import SEEN
from miniature.trial import Stranger
from miniature.world import BASE, ENHANCER, GUIDANCE, all_names, embed, face_engine, largest_faces


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> FacePack:
    folder = tmp_path_factory.mktemp("pack")
    write_face_pack(folder)
    return FacePack("test", folder)


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


@pytest.mark.parametrize("kind", [OnnxEngine, InsightFaceEngine])
def test_torch_sees_in_a_face_what_the_engine_sees(pack, kind):
    engine, picture = kind(pack, "cpu"), photo(faces=[(160, 120, 100, 12.0)])
    (found,) = engine.detect(picture)
    images, keypoints = torch.from_numpy(picture)[None] / 255, torch.from_numpy(found.keypoints)[None].float()
    recogniser = TorchRecogniser(engine.recogniser_file)
    embedded = recogniser.embed(images, keypoints)[0].numpy()
    wanted = engine.embed(picture, found)
    assert embedded @ wanted / np.linalg.norm(wanted) > 0.999
    crop = crop_faces(images, keypoints, 112)[0].movedim(0, -1)
    assert np.abs(to_pixels(crop).astype(int) - engine.align(picture, found)).mean() < 1


def test_torch_computes_the_layers_of_arcface_networks_as_onnxruntime_does(tmp_path):
    """Those of ResNets from PyTorch and MXNet, with a batch of more than the file's one."""
    import onnxruntime

    random, weights = np.random.default_rng(0), {}

    def weight(name: str, *shape: int, positive: bool = False) -> str:
        values = random.normal(0, 0.3, shape).astype(np.float32)
        weights[name] = np.abs(values) + 0.5 if positive else values
        return name

    def norm(name: str, width: int) -> list[str]:
        parts = [weight(f"{name}_{part}", width) for part in ("scale", "shift", "mean")]
        return [*parts, weight(f"{name}_var", width, positive=True)]

    weights["shape"] = np.array([1, -1], np.int64)
    nodes = [
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
        helper.make_node("Sub", ["input", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "half"], ["scaled"]),
        helper.make_node("Conv", ["scaled", weight("w1", 8, 3, 3, 3)], ["a"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *norm("n1", 8)], ["b"], epsilon=2e-5),
        helper.make_node("PRelu", ["b", weight("slope", 8, 1, 1)], ["c"]),
        helper.make_node("Conv", ["c", weight("w2", 8, 4, 3, 3), weight("b2", 8)], ["d"], group=2, pads=[0, 1, 2, 1]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Dropout", ["e"], ["f"]),
        helper.make_node("AveragePool", ["f"], ["g"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["i"]),
        helper.make_node("Gemm", ["i", weight("w3", 512, 392), weight("b3", 512)], ["j"], transB=1),
        helper.make_node("BatchNormalization", ["j", *norm("n2", 512)], ["k"]),
        helper.make_node("Identity", ["k"], ["embedding"]),
    ]
    shapes = ("input", [1, 3, 112, 112]), ("embedding", [1, 512])
    given, wanted = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "net", [given], [wanted], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    crops = random.random((3, 3, 112, 112), np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"input": (crop[None] * 255 - 127.5) / 127.5})[0] for crop in crops]
    torch_net = TorchRecogniser(RecogniserFile(path, 112, 127.5, 1 / 127.5))
    assert np.allclose(torch_net(torch.from_numpy(crops)), np.concatenate(rows), atol=1e-4)


def test_a_network_of_other_operations_is_refused(tmp_path, pack):
    path = tmp_path / "other.onnx"
    model = onnx.load(next(pack.folder.glob("rec*")))
    model.graph.node[0].op_type = "Einsum"
    onnx.save(model, path)
    with pytest.raises(FaceError, match="got Einsum in other.onnx"):
        TorchRecogniser(RecogniserFile(path, 112, 127.5, 1 / 127.5))


def test_pictures_with_gradients_are_the_pictures(backbone):
    for other in (backbone, DiffusersBackbone(tiny_pipeline().to(torch.bfloat16))):
        latents = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
        images = other.decode_with_gradients(latents)
        with torch.no_grad():
            assert torch.allclose(images, other.decode_images(latents), atol=1e-5)
        images.mean().backward()
        assert latents.grad.abs().min() > 0
        found, latents.grad, other.gradient_checkpointing = latents.grad, None, True
        other.decode_with_gradients(latents).mean().backward()
        assert torch.allclose(latents.grad, found, rtol=1e-4)


def test_pictures_without_a_face_count_as_unlike_and_move_nothing(backbone, pack):
    loss = LikenessLoss(backbone, OnnxEngine(pack, "cpu"), 2, 3.0)
    ids = backbone.tokenize("a dog")
    vectors = backbone.embed_tokens("clip_l", ids["clip_l"]).requires_grad_()
    condition = backbone.encode([backbone.read("{}")] * 2, {"clip_l": [vectors] * 2})
    value = loss(condition, torch.randn(2, 4, 2, 2), face())
    value.backward()
    assert value.item() == 1 and not vectors.grad.any()


def seen_person(settings: TrainConfig) -> tuple[Trainer, LikenessLoss, torch.Tensor]:
    """A stranger in the miniature world, as an Enhancer has them, before a training for likeness."""
    base, person = DiffusersBackbone(load_pipeline(BASE)), Stranger(43, 2)
    target = torch.nn.functional.normalize(person.references[0].mean(0), dim=0)
    pictures, start = person.photos.movedim(1, -1), SEEN.start
    trainer = Trainer.of(base, pictures, target, settings, all_names(), start=start, engine=face_engine())
    return trainer, trainer.likeness, target


def likeness_settings(**changes) -> TrainConfig:
    return SEEN.config(likeness_weight=1.0, likeness_guidance=GUIDANCE, kv_lr=0.0, **changes)


def test_a_person_becomes_more_like_the_face():
    trainer, loss, target = seen_person(likeness_settings(steps=6, likeness_images=4))
    captions = trainer.dataset.captions[:8]
    noise = torch.randn(len(captions), 4, 16, 16, generator=torch.Generator().manual_seed(5))

    def likeness() -> float:
        with torch.no_grad():
            return 1 - loss(trainer.condition(captions), noise, target).item()

    before, weights = likeness(), weights_hash(trainer.backbone)
    trainer.run()
    assert likeness() > before + 0.02
    assert weights_hash(trainer.backbone) == weights


def test_a_broken_training_for_likeness_goes_on_to_the_same_end(tmp_path):
    settings = likeness_settings(steps=4, likeness_images=2, likeness_sampling_steps=2, swa_fraction=0.8)
    require_same_end(lambda: seen_person(settings)[0], tmp_path / "a.training")


def test_parts_of_a_batch_of_drawn_pictures_give_the_gradients_of_the_whole():
    trainer, _, _ = seen_person(likeness_settings(steps=1, likeness_images=3, likeness_sampling_steps=2))
    batch, found = trainer.sampler.draw(), []
    for trainer.micro_batch in (3, 2):
        trainer._gradients(batch)
        found.append(trainer.person.pseudo_tokens.coefficients["clip_mini"].grad.clone())
    whole, parts = found
    assert (parts - whole).norm() < 1e-2 * whole.norm() and whole.norm() > 1e-3  # a pixel may round otherwise


def test_likeness_needs_a_loss(backbone):
    with pytest.raises(ConfigError, match="a LikenessLoss, got none"):
        Trainer.of(backbone, photos(), face(), TrainConfig(likeness_weight=1.0), NAMES)


def across_people(
    config: EnhancerTrainConfig, start: PretrainedEnhancer | None = None
) -> tuple[EnhancerTrainer, LikenessLoss]:
    """An Enhancer in the miniature world, about to learn by likeness from true pictures of three strangers."""
    base, people = DiffusersBackbone(load_pipeline(BASE)), [Stranger(number, 3) for number in (44, 45, 46)]
    photos = torch.cat([person.photos for person in people])
    latents, faces = base.encode_images(photos.movedim(1, -1)).mean, embed(photos, largest_faces(photos))
    prompts = [part.caption(number, "{}") for part in (person.scenes for person in people) for number in range(3)]
    pictures = PeoplePictures(latents, faces, torch.arange(9) // 3, prompts, all_names()[:3])
    loss = LikenessLoss(base, face_engine(), config.likeness_sampling_steps, config.likeness_guidance)
    start = start or cross_initialise(base, all_names(), 2)
    return EnhancerTrainer(base, start, pictures, config, loss), loss


BY_LIKENESS = EnhancerTrainConfig(
    steps=8, text_steps=0, likeness_steps=8, batch_size=6, likeness_sampling_steps=3, likeness_guidance=GUIDANCE
)


def test_people_become_more_like_their_faces():
    run, loss = across_people(dataclasses.replace(BY_LIKENESS, likeness_weight=1.0))
    chosen = torch.arange(9)
    noise = torch.randn(len(chosen), 4, 16, 16, generator=torch.Generator().manual_seed(5))
    faces = run.data.mean_faces()[run.pictures.people[chosen]]
    three = [torch.nn.functional.normalize(run.pictures.faces[begin : begin + 3].mean(0), dim=0) for begin in (0, 3, 6)]
    assert torch.allclose(faces[::3], torch.stack(three), atol=1e-6)

    def likeness() -> float:
        with torch.no_grad():
            return 1 - loss(run.data.condition(chosen, faces, None), noise, faces).item()

    before, weights = likeness(), weights_hash(run.backbone)
    run.run()
    assert likeness() > before + 0.1
    assert weights_hash(run.backbone) == weights


def test_each_picture_is_compared_with_its_own_face():
    run, loss = across_people(BY_LIKENESS, PretrainedEnhancer.load(ENHANCER))
    chosen, noise = torch.tensor([0, 3, 6]), torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    faces = run.data.mean_faces()
    with torch.no_grad():
        condition = run.data.condition(chosen, faces, None)
        own, turned, again = (loss(condition, noise, faces.roll(places, 0)) for places in range(3))
        each = [loss(condition, noise, face) for face in faces]  # all pictures with one
    assert own < turned - 0.2
    assert torch.stack(each).mean() == pytest.approx((own + turned + again) / 3)


def test_the_lesson_by_likeness_comes_last_and_learns_by_pictures_too():
    config = dataclasses.replace(BY_LIKENESS, steps=4, text_steps=1, likeness_steps=1)
    run, _ = across_people(config, PretrainedEnhancer.load(ENHANCER))
    assert [type(objective).__name__ for objective in run.objectives] == [
        "TextObjective",
        "DenoisingObjective",
        "LikenessObjective",
    ]
    assert [objective.steps for objective in run.objectives] == [1, 2, 1]
    by_picture, by_likeness = run.objectives[1:]
    batch = by_likeness.draw()
    with torch.no_grad():
        unlike = by_likeness.loss(batch) - by_picture.loss(batch)
    assert 0.1 < unlike / run.config.likeness_weight < 1


def test_a_broken_lesson_by_likeness_goes_on_to_the_same_end(tmp_path):
    config = dataclasses.replace(BY_LIKENESS, steps=3, likeness_steps=2, batch_size=2)
    whole, broken, resumed = (across_people(config)[0] for _ in range(3))
    losses = whole.run()
    with pytest.raises(KeyboardInterrupt), TrainingRun(broken, tmp_path / "a.training", "same") as run:
        run.run(lambda done: _interrupt() if done.step == 2 else None)
    run = TrainingRun(resumed, tmp_path / "a.training", "same")
    assert run.resume() == 2
    run.run()
    assert tuple(resumed.losses) == losses
    require_same(resumed.weights(), whole.weights())


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_likeness_across_people_needs_a_loss(backbone):
    config = EnhancerTrainConfig(likeness_steps=1)
    with pytest.raises(ConfigError, match="a LikenessLoss, got none"):
        EnhancerTrainer(backbone, {}, None, config)
    with pytest.raises(ConfigError, match="likeness_steps from 0 to all steps, got 6"):
        EnhancerTrainConfig(steps=5, likeness_steps=6)
