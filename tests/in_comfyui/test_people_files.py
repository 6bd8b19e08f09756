"""Files of people through their nodes, inside real ComfyUI: nothing is lost, and what happens is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from inside import INSIDE, in_comfyui

if INSIDE:
    import folder_paths
    import torch
    from probes import error, face, make_identity, pack
    from test_enhancer_nodes import random_enhancer

    import nodes


def node(name: str):
    return nodes.NODE_CLASS_MAPPINGS[f"IDEA_{name}"]


def said_by(output) -> str:
    (text,) = output.ui["text"]
    return text


def listed() -> list[str]:
    folder_paths.filename_list_cache.clear()
    return pack("nodes.comfy.paths").identity_files()


@in_comfyui
def test_a_person_is_saved_under_its_name_and_never_over_another():
    folder = pack("nodes.comfy.paths").output_folder()
    ann = replace(make_identity("tiny_sd15", name="saved_ann"), id_embeds=face().half())
    bob = replace(ann, name="saved_bob")
    save = node("SaveIdentity").execute
    assert said_by(save(ann, "")) == "<saved_ann> is saved: output/idea/saved_ann.safetensors"
    before = (folder / "saved_ann.safetensors").read_bytes()
    assert said_by(save(bob, "saved_ann")) == (
        "<saved_bob> is saved: output/idea/saved_ann_2.safetensors. "
        "saved_ann.safetensors holds another person, so it was kept"
    )
    assert (folder / "saved_ann.safetensors").read_bytes() == before
    assert pack("idea_core").Identity.load(folder / "saved_ann_2.safetensors").name == "saved_bob"
    assert "saved_ann.safetensors" in said_by(save(ann, " "))
    namesake = replace(ann, id_embeds=-ann.id_embeds)
    assert "saved_ann_3.safetensors" in said_by(save(namesake, ""))


@in_comfyui
def test_an_enhancer_of_another_checkpoint_stays():
    save = node("SaveEnhancer").execute
    one, other = random_enhancer("tiny_sd15"), random_enhancer("tiny_sd21")
    assert said_by(save(one, "kept")) == "ID-Enhancer is saved: output/idea/enhancers/kept.safetensors"
    assert "kept_2.safetensors. kept.safetensors holds the ID-Enhancer of another" in said_by(save(other, "kept"))
    assert said_by(save(one, "kept")).endswith("/kept.safetensors")


@in_comfyui
def test_a_loaded_person_brings_its_face_along():
    embedding = face().half()
    node("SaveIdentity").execute(replace(make_identity("tiny_sd15"), name="faced", id_embeds=embedding), "")
    person, embeds = node("LoadIdentity").execute("faced.safetensors").args
    assert person.name == "faced" and error(embeds.mean, embedding.float()) < 1e-3
    blended = node("BlendIDEmbeds").execute(embeds, embeds, 0.5).args[0]
    assert error(blended.mean, embeds.mean) < 1e-5

    node("SaveIdentity").execute(replace(person, name="hidden"), "", keep_face=False)
    person, embeds = node("LoadIdentity").execute("hidden.safetensors").args
    assert person.name == "hidden" and embeds is None
    with pytest.raises(pack("idea_core.errors").SocketError, match="a person's file without it. Connect ID Encode"):
        node("BlendIDEmbeds").execute(embeds, embeds, 0.5)


@in_comfyui
def test_the_picture_in_a_file_is_shown_where_it_is_loaded():
    plain = replace(make_identity("tiny_sd15"), name="unseen")
    node("SaveIdentity").execute(plain, "")
    assert node("LoadIdentity").execute("unseen.safetensors").ui is None
    node("SaveIdentity").execute(replace(plain, name="seen"), "", torch.rand(1, 32, 48, 3))
    assert len(node("LoadIdentity").execute("seen.safetensors").ui.as_dict()["images"]) == 1


@pytest.mark.parametrize(
    ("kind", "trains"), [("LoadIdentity", "ID-Enhancer Train and"), ("LoadEnhancer", "Train Across People and save")]
)
@in_comfyui
def test_a_file_that_is_not_there_says_what_to_train_and_where(kind, trains):
    load = node(kind)
    assert load.validate_inputs("nobody.safetensors") is True
    assert load.fingerprint_inputs("nobody.safetensors") == ""
    with pytest.raises(pack("idea_core.errors").IdentityFileError) as said:
        load.execute("nobody.safetensors")
    assert all(part in str(said.value) for part in ("'nobody.safetensors' in ", trains, "idea", "refresh the list (R)"))


@in_comfyui
def test_what_a_training_saved_by_itself_is_listed_last():
    folder = pack("nodes.comfy.paths").output_folder()
    person = make_identity("tiny_sd15")
    for name in ("autosave/aaa", "zzz"):
        person.save(folder / f"{name}.safetensors")
    names = listed()
    assert names.index("zzz.safetensors") < names.index("autosave/aaa.safetensors")
    assert [name.startswith("autosave") for name in names] == sorted(name.startswith("autosave") for name in names)
