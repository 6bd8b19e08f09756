"""The names' axes: computed once for a model and a list of names, and read from disk from then on."""

import os

import pytest
import torch
from helpers import MANY_NAMES, face, photos, require_same, rewrite
from tiny_pipeline import tiny_pipeline

from idea_core import TrainConfig
from idea_core.faces import IdEmbeds
from idea_core.headless.diffusers import DiffusersBackbone
from idea_core.method.anchor import names_basis
from idea_core.method.axes import AXES_FOLDER, KEPT, axes_kept_in, principal_axes
from idea_core.training.batches import Photos
from idea_core.training.job import PersonSpec, train_person
from idea_core.training.output import Output


def points(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def decompositions(monkeypatch) -> list:
    """The arguments of each SVD."""
    svd, seen = torch.linalg.svd, []
    monkeypatch.setattr(torch.linalg, "svd", lambda matrix, **options: (seen.append(matrix), svd(matrix, **options))[1])
    return seen


def test_axes_are_those_of_the_covariance():
    mean, axes = principal_axes(points(), 5)
    centred = points() - points().mean(1, keepdim=True)
    variances = torch.linalg.eigvalsh(centred.mT @ centred / 40).flip(-1)
    assert torch.allclose(mean, points().mean(1))
    assert axes.shape == (2, 5, 12) and torch.allclose(axes.square().sum(-1), variances[:, :5], rtol=1e-4)


def test_kept_axes_are_equal_to_the_bit_and_need_no_decomposition(tmp_path, decompositions):
    computed = principal_axes(points(), 5)
    with axes_kept_in(tmp_path):
        first, again = principal_axes(points(), 5), principal_axes(points(), 5)
    assert len(decompositions) == 2 and len(list(tmp_path.iterdir())) == 1
    for axes in (first, again):
        assert torch.equal(axes.mean, computed.mean) and torch.equal(axes.axes, computed.axes)


def test_other_points_and_another_count_have_axes_of_their_own(tmp_path, decompositions):
    moved = points()
    moved[1, 7, 3] += 1e-4
    with axes_kept_in(tmp_path):
        found = [principal_axes(*inputs).axes for inputs in ((points(), 5), (moved, 5), (points(), 4))]
    assert len(decompositions) == 3
    assert torch.equal(found[2], found[0][:, :4]) and not torch.equal(found[1], found[0])


def shorten(path):
    path.write_bytes(path.read_bytes()[:-40])


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def make_older(path):
    rewrite(path, lambda _tensors, metadata: metadata.update(format_version="0"))


@pytest.mark.parametrize("harm", [shorten, turn_a_bit, make_older])
def test_a_damaged_or_old_file_is_computed_again_with_one_line(tmp_path, decompositions, caplog, harm):
    with axes_kept_in(tmp_path):
        first = principal_axes(points(), 5)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        harm(path)
        again = principal_axes(points(), 5)
    assert torch.equal(again.axes, first.axes) and len(decompositions) == 2
    assert len(caplog.messages) == 1 and "axes are computed again" in caplog.messages[0]
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, decompositions, caplog):
    (tmp_path / "file").touch()
    with axes_kept_in(tmp_path / "file" / "folder"):
        axes = principal_axes(points(), 5)
    assert axes.axes.shape == (2, 5, 12) and len(decompositions) == 1
    assert len(caplog.messages) == 1 and "not kept" in caplog.messages[0]


def test_the_oldest_files_go(tmp_path):
    with axes_kept_in(tmp_path):
        for seed in range(KEPT + 2):
            principal_axes(points(seed), 5)
            for number, path in enumerate(sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)):
                os.utime(path, ns=(number, number))  # clocks of file systems may stand still
    assert len(list(tmp_path.iterdir())) == KEPT


def test_another_text_encoder_has_other_axes(tmp_path, decompositions):
    backbone = DiffusersBackbone(tiny_pipeline())
    with axes_kept_in(tmp_path):
        names_basis(backbone, MANY_NAMES, 2, 8)
        names_basis(backbone, MANY_NAMES, 2, 8)
        assert len(decompositions) == 1
        with torch.no_grad():
            backbone._text.models[0].get_input_embeddings().weight.mul_(1.5)
        names_basis(backbone, MANY_NAMES, 2, 8)
    assert len(decompositions) == 2


def test_a_second_training_reads_the_axes_and_is_the_same(tmp_path, decompositions):
    config = TrainConfig(steps=2, batch_size=1)
    spec = PersonSpec("alice", [Photos(photos())], IdEmbeds(face()[None], torch.ones(1)), config, names=MANY_NAMES)
    people = []
    for name in ("a", "b"):
        output = Output(tmp_path / f"{name}.safetensors", "")
        people.append(train_person(DiffusersBackbone(tiny_pipeline()), spec, output))
    assert len([matrix for matrix in decompositions if matrix.ndim == 3]) == 1  # the regulariser has others
    assert [path.suffix for path in (tmp_path / AXES_FOLDER).iterdir()] == [".axes"]
    require_same(people[0].tokens, people[1].tokens)
