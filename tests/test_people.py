"""People whom a base model draws by name."""

import json
import shutil

import pytest
import torch

from idea_core.enhancers.config import DatasetConfig, recombined
from idea_core.enhancers.dataset import MANIFEST, PeopleDataset
from idea_core.enhancers.drawing import HOPELESS, UsablePeople, blocks, draw_people
from idea_core.errors import ConfigError, TrainingError
from idea_core.headless.diffusers import DiffusersBackbone, load_pipeline
from miniature.people import named_people
from miniature.world import BASE, face_engine


def config(**changes) -> DatasetConfig:
    names = tuple(named_people().names()[:5])
    settings = {"names": names, "num_synthetic": 3, "prompts": ("a photo of {}", "{}, smiling"), "images_per_person": 3}
    return DatasetConfig(
        **{**settings, "resolution": 64, "sampling_steps": 2, "guidance": 3.0, "sampling_batch_size": 6, **changes}
    )


def people_in(folder, settings: DatasetConfig | None = None) -> PeopleDataset:
    return PeopleDataset(folder, settings or config(), "made up")


def draw(people: PeopleDataset, backbone, *shard) -> dict[int, bool]:
    """Who was drawn."""
    return {number: images is not None for number, images in draw_people(people, backbone, face_engine(), *shard)}


@pytest.fixture(scope="module")
def base() -> DiffusersBackbone:
    return DiffusersBackbone(load_pipeline(BASE))


@pytest.fixture(scope="module")
def drawn(base, tmp_path_factory) -> PeopleDataset:
    people = people_in(tmp_path_factory.mktemp("people"))
    assert draw(people, base) == dict.fromkeys(range(8), True)
    return people


def test_a_folder_says_whose_pictures_it_holds_and_how_they_were_made(drawn):
    said = json.loads((drawn.folder / MANIFEST).read_text("utf-8"))
    assert said["fingerprint"] == "made up" and said["names"] == list(config().names) and said["sampling_steps"] == 2
    tensors, prompts = drawn.stored(6)
    assert tensors["latents"].shape == (3, 4, 16, 16) and tensors["faces"].shape == (3, 512)
    assert set(prompts) == set(config().prompts)


def test_drawing_ends_where_nobody_is_usable(tmp_path):
    names = tuple(f"person {number}" for number in range(HOPELESS + 5))
    people = people_in(tmp_path, config(names=names, num_synthetic=0))
    nobody, agreeing = torch.zeros(3, 512), torch.nn.functional.normalize(torch.ones(3, 512), dim=1)
    for number in range(len(names)):
        people.write(number, torch.zeros(3, 4, 8, 8), agreeing if number >= HOPELESS else nobody, ["{}"] * 3)
    usable = UsablePeople(people)
    for number in range(HOPELESS - 1):
        usable.add(number)
    with pytest.raises(TrainingError, match="people with .* got none among the first 20. Use names that this base"):
        usable.add(HOPELESS - 1)
    usable = UsablePeople(people)
    for number in reversed(range(len(names))):
        usable.add(number)
    assert (usable.drawn, usable.count) == (HOPELESS + 5, 5)


def test_pictures_of_other_settings_are_not_overwritten(drawn, base):
    with pytest.raises(ConfigError, match="images of this base model, these face models and these settings"):
        draw(PeopleDataset(drawn.folder, config(), "another"), base)


def test_what_is_missing_is_drawn_again_to_the_same_bytes(drawn, base, tmp_path):
    again = people_in(shutil.copytree(drawn.folder, tmp_path / "again"))
    lost = [1, 2, 6]
    for number in lost:
        again.file_of(number).unlink()
    assert draw(again, base) == {number: number in lost for number in range(8)}
    assert all(again.file_of(number).read_bytes() == drawn.file_of(number).read_bytes() for number in range(8))


def test_shards_draw_everybody_once_and_the_same(drawn, base, tmp_path):
    assert blocks(config()) == [range(2), range(2, 4), range(4, 6), range(6, 8)]
    assert blocks(config(), (1, 3)) == [range(2, 4)] and blocks(config(), (0, 3)) == [range(2), range(6, 8)]
    assert blocks(config(sampling_batch_size=1), at_once=9) == [range(3), range(3, 6), range(6, 8)]
    assert blocks(config(sampling_batch_size=1)) == [range(number, number + 1) for number in range(8)]
    assert (
        blocks(config(sampling_batch_size=100)) == [range(8)] and blocks(config(sampling_batch_size=100), (1, 2)) == []
    )
    part = people_in(tmp_path / "part")
    assert draw(part, base, (1, 2)) == dict.fromkeys((2, 3, 6, 7), True)
    assert all(part.file_of(number).read_bytes() == drawn.file_of(number).read_bytes() for number in (2, 3, 6, 7))


def test_invented_people_have_new_names_of_known_parts_and_none_of_those_held_out():
    names = ("Ana Bell", "Bob Cole", "Cat Dunn", "Dan East", "Eve Fox de Lis")
    config = DatasetConfig(names=names, num_synthetic=6, val_fraction=0.2)
    synthetic = config.all_names[len(names) :]
    assert config.all_names[: len(names)] == names and config.ids_of("val") == [4]
    assert config.ids_of("train") == [0, 1, 2, 3, *range(5, 11)]
    assert len(set(synthetic) - set(names)) == 6
    assert {name.split()[0] for name in synthetic} <= {"Ana", "Bob", "Cat", "Dan"}
    assert {name.split()[1] for name in synthetic} <= {"Bell", "Cole", "Dunn", "East"}
    assert synthetic == DatasetConfig(names=names, num_synthetic=6, val_fraction=0.2).all_names[len(names) :]
    assert (
        "Tom Hanks"
        not in DatasetConfig(
            names=("Tom Cruise", "Colin Hanks", "Ann Lee", "Tom Hanks"), num_synthetic=4, val_fraction=0.25
        ).all_names[4:]
    )
    with pytest.raises(ConfigError, match="names that give 13 new ones"):
        recombined(names[:4], 13)


def test_images_of_another_sampler_are_others():
    orders = {order: config(order=order).fingerprint("model", "faces") for order in (1, 2)}
    assert orders[1] != orders[2]
