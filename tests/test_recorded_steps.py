"""Steps whose shapes are fixed: what they compute, what they wait for, and when they are recorded."""

from dataclasses import replace

import pytest
import torch
from by_computing import ByComputing
from helpers import MANY_NAMES, face, photos, trainer
from tiny_pipeline import tiny_pipeline
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from idea_core import TrainConfig, Trainer
from idea_core.diffusion.backbone import Latents
from idea_core.diffusion.schedule import DiscreteSchedule
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.training.batches import Photos
from idea_core.training.config import PRESETS
from idea_core.training.denoising import DenoisingLoss
from idea_core.training.faster import TRIAL, FasterSteps, obstacle
from idea_core.training.loop import adamw, parameters_of
from idea_core.training.run import TrainingRun
from idea_core.training.state import restore_state, save_state
from idea_core.training.stopping import EarlyStopping, Preview

STEPS = TrainConfig(steps=13, batch_size=2)


@pytest.fixture
def backbone() -> DiffusersBackbone:
    return DiffusersBackbone(tiny_pipeline())


def recorded(backbone, config=STEPS, recorder=None, **options) -> Trainer:
    run = trainer(backbone, config, **options)
    run.faster = FasterSteps(run, recorder or ByComputing())
    return run


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        ("sd1", "fast"),
        ("sd1", "paper"),
        ("sd2", "fast"),
        *(
            pytest.param(family, preset, marks=pytest.mark.slow)
            for family, preset in [
                ("sd2", "paper"),
                ("sdxl", "fast"),
                ("sdxl", "paper"),
                ("sd1", "standard"),
                ("sd1", "thorough"),
            ]
        ),
    ],
)
def test_a_step_of_fixed_shape_is_the_same_step(family, preset):
    config = replace(PRESETS[preset], steps=5, batch_size=4)
    usual, fixed = (
        Trainer.of(DiffusersBackbone(tiny_pipeline(family)), photos(), face(), config, MANY_NAMES) for _ in range(2)
    )
    with usual.active(), fixed.active():
        for number in range(config.steps):
            batch = usual.sampler.draw()
            inputs = fixed._denoising.fixed_inputs(batch)
            losses = usual.step(batch), fixed._whole_step(batch.bucket, inputs)
            assert losses[1] == pytest.approx(losses[0].item(), abs=1e-6)
            if not number:
                require_close_gradients(usual, fixed)


def require_close_gradients(one: Trainer, other: Trainer) -> None:
    """To 1e-6 of the largest in each tensor; where that is tiny, to 1e-9."""
    pairs = zip(*(parameters_of(run.optimizer) for run in (one, other)))
    gradients = [(mine.grad, theirs.grad) for (_, mine), (_, theirs) in pairs if mine.grad is not None]
    assert len(gradients) > 3
    for mine, theirs in gradients:
        assert (mine - theirs).abs().max() <= 1e-6 * max(mine.abs().max(), 1e-3)


class Audit(TorchDispatchMode):
    """On the device "meta" reading a value raises; this counts copies from the host to it."""

    def __init__(self):
        super().__init__()
        self.copies, self.done = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        given, made = (
            {part.device.type for part in _pytree.tree_leaves(tree) if isinstance(part, torch.Tensor)}
            for tree in ((args, kwargs), output)
        )
        name = function._schema.name
        self.done += 1
        if "meta" in made and ("cpu" in given or "lift_fresh" in name):
            self.copies.append(name)
        return output


def move_to_meta(run: Trainer) -> None:
    """What a GPU would hold, without values."""
    backbone = run.backbone
    for module in (backbone._unet, *backbone._text.models, run.person):
        module.to("meta")
    backbone.schedule = DiscreteSchedule(backbone.schedule.alphas_cumprod.to("meta"), backbone.schedule.prediction)
    for name, weight in run.person.kv._weights.items():
        run.person.kv._weights[name] = weight.detach().to("meta").requires_grad_()
    buckets = [
        replace(part, latents=Latents(*(latent.to("meta") for latent in part.latents))) for part in run.dataset.buckets
    ]
    run.dataset = replace(run.dataset, buckets=buckets)
    run._denoising = DenoisingLoss(backbone, run.person, run.dataset)
    run.optimizer = torch.optim.SGD(run.person.parameter_groups(run.config))


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        ("sd1", "fast"),
        ("sd2", "paper"),
        ("sdxl", "fast"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in [("sd1", "paper"), ("sd2", "fast"), ("sdxl", "paper")]),
    ],
)
def test_a_step_waits_for_nothing_and_copies_nothing_from_the_host(family, preset):
    config = replace(PRESETS[preset], regularizer_weight=0)  # its distance keeps where the tokens started
    run = Trainer.of(DiffusersBackbone(tiny_pipeline(family)), photos(), face(), config, MANY_NAMES)
    batches = [run.sampler.draw() for _ in range(2)]
    move_to_meta(run)
    with run.active():
        for batch in batches:
            inputs, audit = run._denoising.fixed_inputs(batch), Audit()
            assert {part.device.type for part in inputs if part is not None} == {"meta"}
            with audit:
                loss = run._whole_step(batch.bucket, inputs)
    assert loss.device.type == "meta" and run.person.adapter.gamma.grad is not None
    assert audit.done > 500 and audit.copies == []


def test_three_steps_of_one_kernel_are_those_of_many():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 8, generator=generator)
    one, many = (weights.clone().requires_grad_() for _ in range(2))
    optimizers = adamw([one], torch.device("cpu"), 1e-2), torch.optim.AdamW([many], 1e-2)
    for _ in range(3):
        gradient = torch.randn(weights.shape, generator=generator)
        for parameter, optimizer in zip((one, many), optimizers):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert (one - many).abs().max() <= 1e-6 < (one - weights).abs().max()


def test_one_caption_is_encoded_once_for_all_photos(backbone):
    run = trainer(backbone, TrainConfig(batch_size=4), captions=["a {}"])
    inputs = run._denoising.fixed_inputs(run.sampler.draw())
    assert inputs.captions.tolist() == [0] and inputs.position.tolist() == [0] * 4
    many = trainer(backbone, TrainConfig(batch_size=4))
    inputs = many._denoising.fixed_inputs(many.sampler.draw())
    assert (
        len(inputs.captions) == 4
        and inputs.position is None
        and inputs.captions.max() < len(many.dataset.captions) // 2
    )


def test_recorded_steps_train_the_same_person_once_they_gave_the_same_losses(backbone):
    usual, run = trainer(backbone, STEPS), recorded(backbone)
    losses = usual.run()
    assert run.run() == pytest.approx(losses, abs=1e-5)
    assert run.faster.repeated == STEPS.steps - TRIAL and run.faster.reason == ""


def require_close(run: Trainer, usual: Trainer) -> None:
    """A run like the usual one: its first steps are computed in the shapes of recorded ones."""
    assert run.run() == pytest.approx(usual.run(), abs=1e-5)
    for key, weight in usual.weights().items():
        assert torch.allclose(run.weights()[key], weight, atol=1e-3)
    assert run.faster.repeated == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda loss: loss * 1.01, "losses of .* in place of"),
        pytest.param(lambda loss: loss / 0, "losses of", marks=pytest.mark.slow),
    ],
)
def test_a_recording_with_other_losses_is_not_used(backbone, caplog, change, said):
    caplog.set_level("INFO")
    usual, run = trainer(backbone, STEPS), recorded(backbone, recorder=ByComputing(change))
    require_close(run, usual)
    (line,) = [message for message in caplog.messages if "CUDA graph" in message]
    assert line.startswith("ID-EA: steps are computed one by one") and said.split()[0] in line


def test_a_recording_that_trains_otherwise_is_not_used(backbone):
    usual, run = trainer(backbone, STEPS), recorded(backbone)
    whole = run._whole_step

    def forgetful(bucket, inputs):
        before = [parameter.detach().clone() for parameter in run.person.parameters()]
        loss = whole(bucket, inputs)
        with torch.no_grad():
            for parameter, value in zip(run.person.parameters(), before):
                parameter.copy_(value)
        return loss

    run._whole_step = forgetful
    require_close(run, usual)
    assert run.faster.reason.startswith("losses of")


@pytest.mark.slow
def test_a_recording_whose_last_change_is_another_is_not_used(backbone):
    usual, run = trainer(backbone, STEPS), recorded(backbone)
    whole, calls = run._whole_step, []

    def forgetful(bucket, inputs):
        before = run.person.adapter.gamma.detach().clone()
        loss = whole(bucket, inputs)
        calls.append(loss)
        if len(calls) == TRIAL:  # which no loss of the trial shows
            with torch.no_grad():
                run.person.adapter.gamma.copy_(-before)
        return loss

    run._whole_step = forgetful
    require_close(run, usual)
    assert run.faster.reason.startswith("a change of ") and "gamma with a cosine of" in run.faster.reason


def test_work_that_cannot_be_recorded_is_computed(backbone):
    class Refuses(ByComputing):
        def record(self, compute):
            compute()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    usual, run = trainer(backbone, STEPS), recorded(backbone, recorder=Refuses())
    require_close(run, usual)
    assert run.faster.reason == "operation not permitted when stream is capturing"


def test_a_cancel_while_steps_are_repeated_loses_nothing(backbone):
    class Cancels(ByComputing):
        def record(self, compute):
            def cancel():
                compute()
                raise KeyboardInterrupt

            return cancel

    usual, run = trainer(backbone, STEPS), recorded(backbone, recorder=Cancels())
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert len(run.read_losses()) == TRIAL
    require_close(run, usual)


def test_weights_that_moved_are_recorded_again_but_not_for_ever(backbone):
    recorder = ByComputing()
    run = recorded(backbone, TrainConfig(steps=20, batch_size=1), recorder)
    weight = next(backbone._unet.parameters())

    def move(step, _losses):
        if step % 5 == 0:
            weight.data = weight.data.clone()

    usual = trainer(backbone, run.config).run()
    assert run.run(move) == pytest.approx(usual, abs=1e-5)
    assert recorder.recorded == 3 and run.faster.reason == "weights of the base model move"
    assert run.faster.repeated == 2 + 2 + 2


def test_each_size_of_photos_has_a_recording(backbone):
    wide, recorder = torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(4)), ByComputing()
    config = TrainConfig(steps=20, batch_size=1)
    sizes = [Photos(photos()), Photos(wide)]
    usual, run = trainer(backbone, config, sizes), recorded(backbone, config, recorder, pictures=sizes)
    assert run.run() == pytest.approx(usual.run(), abs=1e-5)
    assert recorder.recorded == 2 and run.faster.repeated >= 10


def test_a_size_that_comes_later_loses_no_step_of_the_others(backbone):
    """Its first steps are tried while steps of a size that is recorded come between."""
    wide, recorder = torch.rand(1, 16, 24, 3, generator=torch.Generator().manual_seed(4)), ByComputing()
    config = TrainConfig(steps=20, batch_size=1)
    sizes = [Photos(photos()), Photos(wide)]
    usual, run = trainer(backbone, config, sizes), recorded(backbone, config, recorder, pictures=sizes)
    for training in (usual, run):
        batches = [training.sampler.draw() for _ in range(60)]
        first, other = ([batch for batch in batches if batch.bucket == bucket] for bucket in (0, 1))
        order = iter([*first[:4], other[0], *first[4:6], other[1], *first[6:9], *other[2:4], *first[9:20]])
        training.sampler.draw = lambda order=order: next(order)
    assert run.run() == pytest.approx(usual.run(), abs=1e-5)
    assert recorder.recorded == 2 and run.faster.reason == ""
    assert run.faster.repeated == config.steps - 2 * TRIAL
    for key, weight in usual.weights().items():
        assert torch.allclose(run.weights()[key], weight, atol=1e-3)


def test_where_memory_runs_out_for_an_image_recordings_give_way(backbone, tmp_path):
    class Draws:
        calls = 0

        def is_due(self, step):
            return step == 6

        def draw(self):
            self.calls += 1
            if run.faster._recordings:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Preview(images=torch.zeros(1, 2, 2, 3))

        stopping = EarlyStopping()

    usual, run, watch = trainer(backbone, STEPS), recorded(backbone), Draws()
    whole = TrainingRun(run, tmp_path / "a.training", "same", watch=watch)
    whole.run()
    assert watch.calls == 2 and run.faster.repeated == 6 - TRIAL and run.faster.reason == ""
    assert run.losses == pytest.approx(usual.run(), abs=1e-5)
    assert not run.faster._recordings and whole.report()["graph_bytes"] == 1


@pytest.mark.slow
def test_where_memory_runs_out_beside_recordings_they_give_way_before_checkpointing(backbone):
    """For the first step of another size."""
    wide, config = (
        torch.rand(1, 16, 24, 3, generator=torch.Generator().manual_seed(4)),
        TrainConfig(steps=20, batch_size=1),
    )
    sizes = [Photos(photos()), Photos(wide)]
    usual, run = trainer(backbone, config, sizes), recorded(backbone, config, pictures=sizes)
    for training in (usual, run):
        batches = [training.sampler.draw() for _ in range(60)]
        first, other = ([batch for batch in batches if batch.bucket == bucket] for bucket in (0, 1))
        order = iter([*first[:5], *other[:4], *first[5:16]])
        training.sampler.draw = lambda order=order: next(order)
    gradients = run._gradients

    def short_of_memory(batch, fixed):
        if batch.bucket and run.faster._recordings:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradients(batch, fixed)

    run._gradients = short_of_memory
    assert run.run() == pytest.approx(usual.run(), abs=1e-5)
    assert not backbone.gradient_checkpointing and run.micro_batch == 1 and run.faster.repeated > 5


def test_a_repeated_step_looks_for_the_device_once(backbone, monkeypatch):
    """diffusers looks at all modules for it, which takes a millisecond of a large network."""
    asked, kind = [], type(backbone._unet)
    device = kind.device
    run = recorded(backbone, TrainConfig(steps=20, batch_size=1))

    def ask(step, _losses):
        asked.append(0)

    def counted(network):
        if asked:
            asked[-1] += 1
        return device.fget(network)

    monkeypatch.setattr(kind, "device", property(counted))
    run.run(ask)
    assert run.faster.repeated == 20 - TRIAL and 0 < asked[-2] <= 8


def test_a_short_rest_is_not_worth_a_recording(backbone):
    run = recorded(backbone, replace(STEPS, steps=9))
    run.run()
    assert run.faster.repeated == 0 and run.faster.reason == ""


def test_what_cannot_be_recorded_is_named(backbone):
    run = trainer(backbone, STEPS)
    assert obstacle(run, run.resting() is not None) == ""
    run.config = replace(STEPS, likeness_weight=0.1)
    assert obstacle(run, run.resting() is not None) == "the likeness loss finds faces on the host"
    run.config, run.micro_batch = STEPS, 1
    assert obstacle(run, run.resting() is not None) == "memory ran out"
    run.micro_batch, backbone.gradient_checkpointing = 2, True
    assert obstacle(run, run.resting() is not None) == "gradients are checkpointed"
    backbone.gradient_checkpointing = False
    backbone._text.models[0].to("meta")
    assert obstacle(run, run.resting() is not None) == "weights of the base model move"
    half = trainer(DiffusersBackbone(tiny_pipeline().to(torch.float16)), STEPS)
    assert obstacle(half, True) == "half precision scales the loss"


def test_weights_that_accelerate_moves_do_not_rest(backbone):
    hooks = pytest.importorskip("accelerate.hooks")
    assert backbone.resting_weights()
    hooks.add_hook_to_module(backbone._unet.conv_in, hooks.ModelHook())
    assert backbone.resting_weights() is None


@pytest.mark.slow
def test_a_broken_training_with_recorded_steps_goes_on_to_the_same_losses(backbone, tmp_path):
    whole, broken, resumed = (recorded(backbone) for _ in range(3))
    losses = whole.run()
    broken.run(lambda step, _: broken.stop() if step == 5 else None)
    save_state(broken, tmp_path / "a.training", "same")
    assert restore_state(resumed, tmp_path / "a.training", "same") == 5
    assert resumed.run() == pytest.approx(losses, abs=1e-5)
    assert resumed.faster.repeated == 0  # eight steps are left


def test_the_optimiser_is_one_kernel_where_there_is_one(backbone, monkeypatch):
    run = trainer(backbone)
    assert run.faster is None and run.optimizer.defaults["fused"] and not run.optimizer.defaults["capturable"]
    parameters = [torch.zeros(1, requires_grad=True)]
    assert adamw(parameters, torch.device("mps")).defaults["fused"] is None
    usual = torch.optim.AdamW

    def older(groups, *arguments, fused=None, **settings):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices: ['cuda']")
        return usual(groups, *arguments, fused=fused, **settings)

    monkeypatch.setattr(torch.optim, "AdamW", older)
    assert adamw(iter(parameters), torch.device("cpu")).param_groups[0]["params"] == parameters
    with pytest.raises((RuntimeError, AssertionError)):  # torch itself says that there is no such device here
        adamw([torch.zeros(1, device="cuda", requires_grad=True)], torch.device("cuda"))
