"""The miniature world: its people, pictures, words, and its face networks as insightface runs them."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from idea_core.faces import Face, InsightFaceEngine
from idea_core.faces.packs import FacePack
from idea_core.text.captions import PERSON_CAPTIONS
from miniature import face_nets, people
from miniature.align import CROP, TEMPLATE, align
from miniature.models import LATENT_SIZE, build_text_encoder, build_tokenizer
from miniature.onnx_export import run_folded, save_detector, save_recogniser
from miniature.render import SIZE, render, render_with_keypoints
from miniature.scenes import BACKGROUNDS, HATS, draw_scenes, plain_scenes
from miniature.teach_text import teach_text
from miniature.train_base import _mouths, caption
from miniature.words import LENGTH, words
from miniature.world import draw_photos, embed, embed_second, face_engine, judge, largest_faces, notes_of


def pictures(count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return render_with_keypoints(people.held_out_people(count), draw_scenes(count, generator), generator)


def uint8(picture: torch.Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def test_the_named_people():
    known = people.named_people()
    names = known.names()
    assert len(names) == len(set(names)) == people.NAMED_PEOPLE >= 700
    assert known.faces.std() == pytest.approx(1, abs=0.05)
    words_of = [name.split() for name in names]
    assert all(len(parts) == 2 for parts in words_of)
    same_first = known.faces[known.first == known.first[0]]
    assert (same_first - same_first[0]).norm(dim=1).mean() < (known.faces - known.faces[0]).norm(dim=1).mean()


def test_nobody_held_out_is_known():
    held_out, known = people.held_out_people(64), people.named_people().faces
    assert torch.cdist(held_out, known).min() > 1
    assert torch.cdist(held_out, people.other_people(2400)).min() > 0.5
    assert torch.equal(held_out[:8], people.held_out_people(8))


def test_pictures_depend_on_person_and_scene_alone():
    first, second = pictures(8)[0], pictures(8)[0]
    assert torch.equal(first, second) and first.shape == (8, 3, SIZE, SIZE)
    assert first.min() >= 0 and first.max() <= 1
    one = people.held_out_people(1)
    plain = [render(one, plain_scenes(1, hat=hat)) for hat in range(len(HATS))]
    assert all((picture - plain[0]).abs().mean() > 0.02 for picture in plain[1:])
    for number in range(len(BACKGROUNDS)):
        corner = render(one, plain_scenes(1, background=number))[0, :, 0, 0]
        assert (
            corner - render(people.held_out_people(2)[1:], plain_scenes(1, background=number))[0, :, 0, 0]
        ).norm() < 1e-5


def test_keypoints_stand_on_what_they_name():
    drawn, points = render_with_keypoints(people.held_out_people(32), plain_scenes(32))
    assert points.shape == (32, 5, 2) and (points > 0).all() and (points < SIZE).all()
    left, right, nose, mouth_left, mouth_right = points.unbind(1)
    assert (left[:, 0] < right[:, 0]).all() and (mouth_left[:, 0] < mouth_right[:, 0]).all()
    assert (left[:, 1] < nose[:, 1]).all() and (nose[:, 1] < mouth_left[:, 1]).all()
    columns, rows = left.round().long().unbind(-1)
    at_eye = drawn[torch.arange(32), :, rows, columns]
    assert (at_eye - drawn[:, :, 0, 0]).norm(dim=1).min() > 0.1


def test_every_word_is_one_token(tmp_path):
    tokenizer = build_tokenizer(tmp_path)
    assert all(len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for word in words())
    name = people.named_people().names()[0]
    assert len(tokenizer(name, add_special_tokens=False).input_ids) == 2
    whole = {tokenizer(word, add_special_tokens=False).input_ids[0] for word in words()}
    for template in PERSON_CAPTIONS:
        ids = tokenizer(template.format(name), add_special_tokens=False).input_ids
        assert len(ids) <= LENGTH - 2 and set(ids) <= whole


def test_captions_say_what_is_there():
    scenes = draw_scenes(64, torch.Generator().manual_seed(0))
    assert scenes.caption(0, "Bala", background=False).startswith(("a photo of Bala", "a sketch of", "a painting of"))
    choices = random.Random(0)
    said = [caption(scenes, number % 64, "Bala", choices) for number in range(2000)]
    assert 0.07 < said.count("") / 2000 < 0.13
    for number, text in enumerate(said):
        hat = HATS[int(scenes.hat[number % 64])]
        assert "hat" not in text or f"wearing a {hat} hat" in text


def test_notes_say_all_but_the_person():
    assert notes_of(plain_scenes(1, background=2, hat=1, expression=1)) == [
        "smiling, wearing a red hat, on a blue background"
    ]


def test_alignment_is_insightfaces():
    from insightface.utils.face_align import norm_crop

    drawn, points = pictures(4)
    ours = align(drawn, points)
    for picture, keypoints, crop in zip(drawn, points, ours):
        theirs = norm_crop(uint8(picture), keypoints.numpy(), CROP)
        assert np.abs(theirs.astype(int) - uint8(crop)).mean() < 1.5
    assert torch.allclose(align(drawn, TEMPLATE.expand(4, 5, 2))[:, :, :40, :40], drawn[:, :, :40, :40], atol=1e-4)


def random_norms(net: nn.Sequential) -> nn.Sequential:
    """Batch norms as after a training."""
    torch.manual_seed(0)
    for layer in net:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return net.eval()


def test_face_networks_run_in_insightface(tmp_path):
    rec, det = random_norms(face_nets.recogniser()), random_norms(face_nets.detector())
    with torch.no_grad():
        det[-1].bias[0] = 5  # a face, whatever it sees
        det[-1].bias[1:] = torch.tensor([-0.5, -0.4, 0.5, 0.6, -0.2, -0.1, 0.2, -0.1, 0.0, 0.1, -0.2, 0.3, 0.2, 0.3])
    save_recogniser(rec, tmp_path / "rec.onnx")
    save_detector(det, tmp_path / "det.onnx")
    engine = InsightFaceEngine(FacePack("miniature", tmp_path), "cpu")
    drawn, points = pictures(1)
    photo = uint8(drawn[0])
    (face,) = engine.detect(photo)
    seen = nn.functional.interpolate(drawn, scale_factor=10, mode="bilinear")
    said = run_folded(det, (nn.functional.avg_pool2d(seen, 10) * 255 - 127.5) / 128)[0]
    assert face.score == pytest.approx(torch.sigmoid(said[0]).item(), abs=0.02)
    assert np.abs((face.box / SIZE * 2 - 1) - said[1:5].numpy()).max() < 0.03
    assert np.abs((face.keypoints / SIZE * 2 - 1).flatten() - said[5:].numpy()).max() < 0.03
    truth = Face(face.box, points[0].numpy(), 1.0)
    crop = nn.functional.avg_pool2d(align(drawn, points) * 2 - 1, 2)
    ours, theirs = run_folded(rec, crop)[0], torch.from_numpy(engine.embed(photo, truth))
    assert nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_the_face_models_tell_unseen_people_apart():
    """At most one in a thousand pairs of strangers as alike as 98 % of pairs of one person; faces are found."""
    people_count, each = 40, 3
    generator = torch.Generator().manual_seed(3)
    faces = people.held_out_people(people_count).repeat_interleave(each, 0)
    scenes = draw_scenes(len(faces), generator)
    drawn, points = render_with_keypoints(faces, scenes, generator)
    engine = face_engine()
    found = [engine.detect(uint8(picture)) for picture in drawn]
    assert all(len(faces_found) == 1 for faces_found in found)
    errors = [np.abs(one[0].keypoints - truth.numpy()).mean() for one, truth in zip(found, points)]
    assert np.mean(errors) < 0.6  # of 64 pixels
    embeddings = embed(drawn, largest_faces(drawn))
    who = torch.arange(people_count).repeat_interleave(each)
    cosines, same = embeddings @ embeddings.T, who[:, None] == who
    strangers = cosines[~same]
    threshold = strangers.sort().values[int(0.999 * len(strangers))]
    pairs = cosines[same & ~torch.eye(len(who), dtype=torch.bool)]
    assert (pairs > threshold).float().mean() >= 0.98
    assert not any(engine.detect(uint8(noise)) for noise in torch.rand(8, 3, SIZE, SIZE, generator=generator))
    photos = scenes.style == 0
    said = judge()(drawn[photos])
    for key in ("background", "hat", "expression"):
        assert (said[key].argmax(1) == getattr(scenes, key)[photos]).float().mean() >= 0.97


@pytest.mark.slow
def test_the_text_encoder_learns_faces_and_scenes_from_captions(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tmp_path)
    encoder = build_text_encoder(tokenizer)
    assert teach_text(encoder, tokenizer, 80, torch.Generator().manual_seed(0)) < 0.9  # 1 is what a guess has


def test_the_mouths_cells_hold_the_mouth():
    _drawn, points = render_with_keypoints(people.held_out_people(16), plain_scenes(16))
    mouths = _mouths(points)
    assert mouths.shape == (16, LATENT_SIZE, LATENT_SIZE) and 2 <= mouths.sum((1, 2)).float().mean() < 40
    cells = (points[:, 3:].mean(1) / (SIZE / LATENT_SIZE)).long()
    assert mouths[torch.arange(16), cells[:, 1], cells[:, 0]].all()


def test_the_second_recogniser_tells_strangers_apart():
    generator = torch.Generator().manual_seed(9)
    faces = people.held_out_people(24).repeat_interleave(2, 0)
    drawn = render(faces, draw_photos(len(faces), generator), generator)
    embeddings = embed_second(drawn, largest_faces(drawn))
    cosines = embeddings[::2] @ embeddings[1::2].T
    same, strangers = cosines.diagonal(), cosines[~torch.eye(24, dtype=torch.bool)]
    assert same.mean() > 0.5 and strangers.mean().abs() < 0.1
    assert (cosines.argmax(1) == torch.arange(24)).float().mean() > 0.9
    assert embed_second(drawn[:1], [None]).abs().max() == 0
