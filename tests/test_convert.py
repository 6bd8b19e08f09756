"""A person's file in and out of the formats of others."""

import argparse
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import K, RunsCode, V, make_identity, published, require_same
from tiny_pipeline import tiny_pipeline

from idea_core.errors import ConfigError, IdentityFileError
from idea_core.files.weights import read_weights, tensors_in
from idea_core.identity.convert import FORMATS, left_out, read_kv, read_person, write_kv, write_person


@pytest.mark.parametrize(("name", "trigger"), [("<00011>", "00011"), ("alice", "alice"), ("<a b>", "a-b")])
def test_a_published_file_becomes_a_person(tmp_path, name, trigger):
    content = published(tmp_path / "learned_embeds.bin", name)
    person = read_person(tmp_path / "learned_embeds.bin")
    assert (person.name, person.base_model, person.num_tokens, person.has_adapter) == (trigger, "sd2", 2, False)
    assert torch.equal(person.tokens["clip_h"], torch.stack(list(content.values())))


@pytest.mark.parametrize(("to", "ending"), [(to, ending) for to, (endings, _) in FORMATS.items() for ending in endings])
def test_a_published_file_goes_round_through_every_format(tmp_path, to, ending):
    source = published(tmp_path / "learned_embeds.bin")
    between = write_person(read_person(tmp_path / "learned_embeds.bin"), tmp_path / f"00011{ending}", to)
    person = read_person(between)
    write_person(person, tmp_path / "back.bin", "published")
    back = torch.load(tmp_path / "back.bin", weights_only=True)
    assert list(back) == list(source)
    assert all(torch.equal(back[key], source[key]) and back[key].dtype == torch.float32 for key in source)


@pytest.mark.parametrize("to", ["diffusers", "a1111", "id-ea"])
def test_sdxl_has_a_part_for_each_encoder(tmp_path, to):
    identity = make_identity("sdxl", kv={})
    path = write_person(identity, tmp_path / "alice.safetensors", to)
    tokens = safetensors.torch.load_file(path)
    back = read_person(path)
    require_same({key: tokens[key] for key in identity.tokens}, identity.tokens)
    assert back.base_model == "sdxl" and all(torch.equal(back.tokens[key], identity.tokens[key]) for key in back.tokens)


@pytest.mark.parametrize("ending", [".pt", ".bin"])
def test_sdxl_does_not_fit_formats_of_one_encoder(tmp_path, ending):
    with pytest.raises(ConfigError, match="a person of one text encoder"):
        write_person(make_identity("sdxl"), tmp_path / f"a{ending}", "published" if ending == ".bin" else "a1111")


def test_diffusers_loads_what_is_written_for_it(tmp_path):
    identity = make_identity()
    path = write_person(identity, tmp_path / "alice.safetensors", "diffusers")
    pipeline = tiny_pipeline()
    pipeline.load_textual_inversion(str(path))
    table = pipeline.text_encoder.get_input_embeddings().weight
    ids = pipeline.tokenizer.convert_tokens_to_ids(["<alice>", "<alice>_1"])
    assert torch.equal(table[ids], identity.tokens["clip_l"])


def test_a_whole_person_says_what_a_format_leaves_out(tmp_path):
    identity = make_identity()
    assert left_out(identity, "a1111") == ["Adapter", "K/V deltas"]
    assert left_out(identity, "id-ea") == []
    assert read_person(identity.save(tmp_path / "a.safetensors", dtype=None)).digest() == identity.digest()
    assert read_person(tmp_path / "a.safetensors", name="eve").trigger == "<eve>"


@pytest.mark.parametrize("base_model", ["sd1", "sd2", "sdxl"])
def test_keys_and_values_go_round_through_kohyas_format(tmp_path, base_model):
    identity = make_identity(base_model)
    path = write_kv(identity, tmp_path / "kv.safetensors")
    keys = safetensors.torch.load_file(path)
    name = "input_blocks_1_1" if base_model == "sdxl" else "down_blocks_0_attentions_0"
    assert float(keys[f"lora_unet_{name}_transformer_blocks_0_attn2_to_k.alpha"]) == 8
    kv, others = read_kv(path)
    assert others == 0
    require_same(kv, identity.kv)


def test_all_places_of_the_unet_go_round(tmp_path):
    places = ["input_blocks.8.1", "middle_block.1", "output_blocks.3.1", "output_blocks.11.1"]
    kv = {f"diffusion_model.{p}.transformer_blocks.1.attn2.to_v.diff": torch.rand(3, 768) for p in places}
    for base_model in ("sd1", "sdxl"):
        d = 2048 if base_model == "sdxl" else 768
        fitting = {key: torch.rand(3, d) for key in kv}
        back, _ = read_kv(write_kv(make_identity(base_model, kv=fitting), tmp_path / "kv.safetensors"))
        assert back.keys() == kv.keys() and all(torch.equal(back[key], fitting[key]) for key in kv)


def test_alpha_goes_into_the_weights_and_other_layers_are_counted(tmp_path):
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    other = key.replace("attn2", "attn1")
    up, down = torch.rand(320, 4), torch.rand(4, 768)
    weights = {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down, f"{key}.alpha": torch.tensor(1.0)}
    weights |= {f"{other}.lora_up.weight": up.clone(), f"{other}.lora_down.weight": down.clone()}
    safetensors.torch.save_file(weights, tmp_path / "lora.safetensors")
    kv, others = read_kv(tmp_path / "lora.safetensors")
    assert others == 1 and torch.equal(kv[f"{K}.lora_up.weight"], up / 4)
    assert V + ".diff" not in kv


def test_a_pickle_that_runs_code_does_not_run(tmp_path):
    witness = tmp_path / "ran"
    for path in (tmp_path / "a.bin", tmp_path / "a.ckpt", tmp_path / "a.safetensors"):
        torch.save({"<a>_v0": RunsCode(witness)}, path)
        wanted = r"^Expected only weights in a\.\w+, got \w+\.mkdir in it, which could run code\. Use a \.safetensors"
        with pytest.raises(IdentityFileError, match=wanted):
            read_person(path)
    torch.save({"<a>": RunsCode(witness), "notes": argparse.Namespace()}, path, pickle_protocol=4)
    with pytest.raises(IdentityFileError, match=r"got \w+\.mkdir in it"):
        read_person(path)
    assert not witness.exists()


TOKENS = torch.randn(2, 768, generator=torch.Generator().manual_seed(3))
PARAMETER = torch.nn.Parameter(TOKENS)


def noted(monkeypatch, name: str, base: type = object) -> type:
    """A class of a package that is not installed, as a file names it."""
    package, *parts, kind = name.split(".")
    for end in range(len(parts) + 1):
        module = ".".join([package, *parts[:end]])
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    found = type(kind, (base,), {"__module__": module})
    setattr(sys.modules[module], kind, found)
    return found


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (TOKENS, "anna"),
        (PARAMETER, "anna"),
        ({"<eve>": PARAMETER}, "eve"),
        (torch.nn.ParameterDict({"<eve>": PARAMETER}), "eve"),
        ({"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict({"*": PARAMETER})}, "anna"),
        ({"string_to_param": {"*": TOKENS}, "name": "eve"}, "eve"),
        ({"string_to_param": {"*": TOKENS}, "name": "*"}, "anna"),
        ({"*": TOKENS}, "anna"),
        ({"<*>": TOKENS}, "anna"),
        ({"clip_l": TOKENS}, "anna"),
        ({"emb_params": TOKENS}, "anna"),
        ({"state_dict": {"embedding_manager.string_to_param_dict.*": TOKENS, "unet": torch.zeros(2)}}, "anna"),
        ({"state_dict": {"embedding.weight": TOKENS}, "epoch": 3}, "anna"),
        ({"state_dict": {"<eve>": TOKENS}, "epoch": 3}, "eve"),
    ],
)
def test_embeddings_as_others_keep_them(tmp_path, content, name):
    """The person has the file's name where the file itself says none."""
    torch.save(content, tmp_path / "anna.pt")
    person = read_person(tmp_path / "anna.pt")
    assert (person.name, person.base_model) == (name, "sd1")
    assert torch.equal(person.tokens["clip_l"], TOKENS) and not person.tokens["clip_l"].requires_grad


@pytest.mark.parametrize(
    ("key", "width", "family"), [("clip_l", 768, "sd1"), ("clip_h", 1024, "sd2"), ("x", 768, "sd1")]
)
def test_an_embedding_of_one_encoder_in_safetensors(tmp_path, key, width, family):
    tokens = torch.randn(2, width)
    safetensors.torch.save_file({key: tokens}, tmp_path / "my anna.safetensors")
    person = read_person(tmp_path / "my anna.safetensors")
    assert (person.name, person.base_model) == ("x" if key == "x" else "my-anna", family)
    assert torch.equal(next(iter(person.tokens.values())), tokens)


def test_an_sdxl_embedding_has_its_files_name(tmp_path):
    safetensors.torch.save_file(
        {"clip_l": torch.rand(2, 768), "clip_g": torch.rand(2, 1280)}, tmp_path / "anna.safetensors"
    )
    assert read_person(tmp_path / "anna.safetensors").trigger == "<anna>"


def test_what_trainers_note_beside_weights_is_left_out(tmp_path, monkeypatch):
    checkpoint = noted(monkeypatch, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    settings = noted(monkeypatch, "pytorch_lightning.utilities.parsing.AttributeDict", dict)
    content = {
        "state_dict": {"embedding_manager.string_to_param_dict.<eve>": TOKENS},
        "callbacks": {checkpoint: {"best_model_score": np.float64(0.5)}},
        "hyper_parameters": settings(rate=0.1, more=argparse.Namespace(folder=Path("x"))),
    }
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.undo()
    assert read_person(tmp_path / "last.ckpt").trigger == "<eve>"
    assert not [name for name in sys.modules if name.startswith("pytorch_lightning")]
    assert list(tensors_in(read_weights(tmp_path / "last.ckpt"))) == list(content["state_dict"])


class Foreign:
    pass


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"<a>": TOKENS, "b": Foreign()}, {}, "test_convert.Foreign in it, which could run code"),
        ({"<a>": TOKENS, "b": Foreign()}, {"pickle_protocol": 4}, "test_convert.Foreign in it, which"),
        ({"<a>": Foreign()}, {"_use_new_zipfile_serialization": False}, "test_convert.Foreign in it, which"),
        (torch.nn.Linear(2, 2), {}, "torch.nn.modules.linear.Linear in it, which"),
        ({"<a>": np.zeros((2, 768))}, {}, "numpy.ndarray in it, which"),
        ({"<a>": TOKENS}, {"pickle_protocol": 4}, "a pickle of protocol 4, of which torch reads no weights"),
        (
            torch.nn.ParameterDict({"*": TOKENS}),
            {"_use_new_zipfile_serialization": False},
            "source code of classes in it, which",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of source code
def test_what_is_no_weights_is_named(tmp_path, content, options, said):
    torch.save(content, tmp_path / "anna.pt", **options)
    with pytest.raises(IdentityFileError) as refused:
        read_person(tmp_path / "anna.pt")
    assert str(refused.value).startswith("Expected only weights in anna.pt, got ") and said in refused.value.got
    assert "weights_only" not in str(refused.value) and "\x1b" not in str(refused.value)
    whole = (tmp_path / "anna.pt").read_bytes()
    (tmp_path / "anna.pt").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(IdentityFileError, match="only weights in anna.pt, got"):
        read_person(tmp_path / "anna.pt")


def _save(content):
    return lambda path: torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "only weights in a.bin"),
        (lambda path: path.write_bytes(b"hello"), "weights in a.bin, as .safetensors"),
        (_save([torch.zeros(2)]), "a dictionary in a.bin, got list"),
        (_save({}), "a Textual Inversion file in a.bin, got entries"),
        (_save({"a_v0": torch.zeros(768), "b_v0": torch.zeros(768)}), "got entries a_v0, b_v0"),
        (_save({"a_v0": torch.zeros(768), "a_v2": torch.zeros(768)}), "got entries a_v0, a_v2"),
        (_save({"<a>": torch.zeros(2, 640)}), "tokens of a known width in a.bin, got 640"),
        (_save({"<a>": torch.zeros(2, 768, dtype=torch.int64)}), r"got \(2, 768\) of torch.int64"),
        (_save({"<a>": "text"}), "of shape (n, d) in a.bin, got str"),
        (_save({"<a>": torch.full((2, 768), torch.nan)}), "clip_l to be finite"),
        (_save({"string_to_param": {}}), "got NoneType"),
    ],
)
def test_other_files_are_refused(tmp_path, write, message):
    path = tmp_path / "a.bin"
    write(path)
    with pytest.raises(IdentityFileError) as refused:
        read_person(path)
    assert re.search(message, str(refused.value)) or message in str(refused.value)


def test_a_lora_without_keys_and_values_is_refused(tmp_path):
    safetensors.torch.save_file({"lora_unet_x.lora_up.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(IdentityFileError, match="a LoRA with layers lora_unet_…_attn2_to_k in a.safetensors"):
        read_kv(tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="a person with K/V deltas, got none in alice"):
        write_kv(make_identity(kv={}), tmp_path / "b.safetensors")
    with pytest.raises(ConfigError, match="to end in .bin, got b.pt"):
        write_person(make_identity(), tmp_path / "b.pt", "published")


def test_old_checkpoints_keep_their_weights_under_state_dict(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.ckpt")
    assert list(tensors_in(read_weights(tmp_path / "a.ckpt"))) == ["a"]


@pytest.mark.parametrize(
    ("up", "down", "alpha"), [((320, 0), (0, 768), ()), ((320,), (), ()), ((320, 2), (2, 768), (3,))]
)
def test_a_lora_of_other_shapes_is_refused(tmp_path, up, down, alpha):
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {"lora_up.weight": up, "lora_down.weight": down, "alpha": alpha}
    weights = {f"{key}.{part}": torch.ones(shape) for part, shape in shapes.items()}
    safetensors.torch.save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(IdentityFileError, match="lora_up.weight and .*to_k in lora.safetensors, got .* of shape"):
        read_kv(tmp_path / "lora.safetensors")


def test_a_lora_with_numbers_that_are_none_is_refused(tmp_path):
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    weights = {f"{key}.lora_up.weight": torch.full((320, 2), torch.nan), f"{key}.lora_down.weight": torch.ones(2, 768)}
    safetensors.torch.save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(IdentityFileError, match="finite numbers in lora.safetensors, got others in .*to_k"):
        read_kv(tmp_path / "lora.safetensors")
