"""A network's two passes, recorded and repeated: what they give, and when they are computed instead."""

import pytest
import torch
from by_computing import ByComputing

from idea_core.training.recorded import LOST
from idea_core.training.repeated import TRIAL, RepeatedPasses


class Learner:
    """Weights that are trained through a network, beside a frozen one and an input that is none's output."""

    def __init__(self, passes: RepeatedPasses | None):
        generator = torch.Generator().manual_seed(0)
        self.frozen = torch.randn(4, 4, generator=generator)
        self.trained = torch.zeros(4, 4, requires_grad=True)
        self.text = torch.randn(4, generator=generator).requires_grad_()
        self.passes, self.optimizer = passes, torch.optim.SGD([self.trained, self.text], 0.1)

    def network(self, noisy, text):
        return torch.tanh((noisy + text) @ (self.frozen + self.trained)) @ self.frozen

    def predict(self, noisy):
        text = 2 * self.text.expand_as(noisy)  # an adapter before the network
        if self.passes is None:
            return self.network(noisy, text)
        return self.passes(self.network, (noisy, text), [self.trained], lambda: [self.frozen])

    def step(self, number: int, rows: int = 3) -> float:
        noisy = torch.randn(rows, 4, generator=torch.Generator().manual_seed(number))
        self.optimizer.zero_grad()
        loss = (self.predict(noisy) - 1).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def both(recorder=None) -> tuple[Learner, Learner]:
    return Learner(None), Learner(RepeatedPasses(recorder or ByComputing()))


def test_repeated_passes_train_the_same():
    usual, repeated = both()
    assert [repeated.step(n) for n in range(10)] == pytest.approx([usual.step(n) for n in range(10)], abs=1e-6)
    assert repeated.passes.repeated == 10 - TRIAL and repeated.passes.reason == "" and repeated.passes.bytes == 2
    assert torch.allclose(repeated.trained, usual.trained, atol=1e-6) and usual.trained.abs().max() > 0.01
    assert torch.allclose(repeated.text, usual.text, atol=1e-6)


def test_inputs_of_another_shape_have_a_recording_of_their_own():
    usual, repeated = both()
    sizes = [(n, 3 if n % 2 else 5) for n in range(12)]
    assert [repeated.step(*one) for one in sizes] == pytest.approx([usual.step(*one) for one in sizes], abs=1e-6)
    assert repeated.passes.repeated == 12 - 2 * TRIAL and repeated.passes._recorder.recorded == 4


def test_a_pass_inside_another_is_computed():
    """As a likeness loss samples: several forward passes before the first backward pass."""
    usual, repeated = both()
    for learner in (usual, repeated):
        for number in range(TRIAL):
            learner.step(number)
    for learner in (usual, repeated):
        learner.optimizer.zero_grad()
        first = learner.predict(torch.ones(3, 4))
        learner.predict(first.detach() + 0.5 * first).square().mean().backward()
    assert torch.allclose(repeated.trained.grad, usual.trained.grad, atol=1e-6)
    assert torch.allclose(repeated.text.grad, usual.text.grad, atol=1e-6) and usual.text.grad.abs().max() > 1e-3
    assert repeated.passes.repeated == 1
    repeated.predict(torch.ones(3, 4))  # whose gradients nobody wants
    repeated.step(9)
    assert repeated.passes.repeated == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda output: 1.1 * output, "an output that differs by 0.1 of its size"),
        (lambda output: output / 0, "an output that differs by"),
    ],
)
def test_a_recording_with_another_output_is_not_used(caplog, change, said):
    caplog.set_level("INFO")
    usual, repeated = both(ByComputing(change))
    assert [repeated.step(n) for n in range(6)] == pytest.approx([usual.step(n) for n in range(6)], abs=1e-7)
    assert repeated.passes.repeated == 0 and repeated.passes.reason.startswith(said)
    assert [line for line in caplog.messages if "CUDA graphs" in line] == [
        f"ID-EA: the network is computed at each step, not repeated as CUDA graphs: {repeated.passes.reason}."
    ]


def test_a_recording_with_other_gradients_is_not_used(monkeypatch):
    usual, repeated = both()
    gradients = torch.autograd.grad

    def others(outputs, inputs, *given, **how):
        found = gradients(outputs, inputs, *given, **how)
        stale = inputs[0] is not None and repeated.passes._recorder.recorded == 2 and next(turn)
        return [one.flip(0) for one in found] if stale else found

    turn = iter([True])  # the repeated pass; the computed one comes before the recording
    monkeypatch.setattr(torch.autograd, "grad", others)
    assert [repeated.step(n) for n in range(6)] == pytest.approx([usual.step(n) for n in range(6)], abs=1e-7)
    assert repeated.passes.reason.startswith("a gradient with a cosine of")


def test_a_network_that_cannot_be_recorded_is_computed():
    class Refuses(ByComputing):
        def record(self, compute):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    usual, repeated = both(Refuses())
    assert [repeated.step(n) for n in range(6)] == [usual.step(n) for n in range(6)]
    assert repeated.passes.reason == "operation not permitted when stream is capturing"


def test_weights_that_moved_are_recorded_again_but_not_for_ever():
    usual, repeated = both()
    losses: list[list[float]] = [[], []]
    for number in range(30):
        if number % 6 == 5:
            repeated.frozen = repeated.frozen.clone()
        for learner, own in zip((usual, repeated), losses):
            own.append(learner.step(number))
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert repeated.passes.reason == "weights of the base model move" and repeated.passes._recorder.recorded == 2 * LOST


def test_memory_is_given_back():
    _, repeated = both()
    assert not repeated.passes.release()
    for number in range(TRIAL + 1):
        repeated.step(number)
    assert repeated.passes.release("memory runs out") and not repeated.passes.release()
    assert repeated.passes._recorder.bytes == 0 and repeated.passes.bytes == 2 and repeated.passes.reason == ""
