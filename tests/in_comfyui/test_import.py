"""The pack without its optional packages."""

import os
import subprocess

import pytest
from comfyui_place import PACK

OPTIONAL = ("insightface", "onnxruntime", "diffusers")

SCRIPT = """
import asyncio, os, sys
sys.path.insert(0, os.getcwd())
base, blocked = sys.argv[1], set(sys.argv[2].split(","))
sys.argv[1:] = ["--cpu", "--base-directory", base]

from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *place: None if name.split(".")[0] in blocked else find_spec(name, *place)
import comfy.options
comfy.options.enable_args_parsing()
import nodes
loaded = asyncio.run(nodes.load_custom_node(os.path.join(base, "custom_nodes", "id-ea"), module_parent="custom_nodes"))
ours = sorted(key for key in nodes.NODE_CLASS_MAPPINGS if key.startswith("IDEA_"))
print("NODES", loaded, *ours)
print("IMPORTED", *sorted(blocked & {name.split(".")[0] for name in sys.modules}))
try:
    nodes.NODE_CLASS_MAPPINGS["IDEA_LoadFaceModel"].execute("testpack", "auto")
except Exception as error:
    print("ERROR", type(error).__name__, error)
"""


@pytest.mark.parametrize(
    "missing",
    ["insightface", ",".join(OPTIONAL), *(pytest.param(one, marks=pytest.mark.slow) for one in OPTIONAL[1:])],
)
def test_every_node_is_there_without_optional_packages(comfyui, python, base, missing):
    command = [python, "-c", SCRIPT, base, missing]
    output = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, check=True).stdout
    lines = {line.split(" ")[0]: line.partition(" ")[2] for line in output.splitlines()}
    loaded, *nodes = lines["NODES"].split()
    assert loaded == "True" and {"IDEA_ApplyAdapter", "IDEA_EnhancerTrain", "IDEA_IDEncode"} < set(nodes)
    assert len(nodes) >= 10
    assert not lines["IMPORTED"]
    if "onnxruntime" not in missing:
        assert "ERROR" not in lines
    else:
        assert "MissingPackageError Expected onnxruntime to be installed, got no onnxruntime." in lines["ERROR"]
        assert 'pip install ".[face-cpu]"' in lines["ERROR"]


FIRST = """
import sys
print("FIRST", not any(name.endswith("idea_core.quiet") for name in sys.modules))
import onnxruntime
NODE_CLASS_MAPPINGS = {}
"""


def test_onnxruntime_reports_nothing_though_another_pack_imports_it_first(comfyui, python, tmp_path):
    packs, home = tmp_path / "custom_nodes", tmp_path / "home"
    packs.mkdir()
    home.mkdir()
    for number in range(20):  # of which one comes before id-ea in the folder's own order, in which ComfyUI loads them
        (packs / f"faces_{number}.py").write_text(FIRST)
    (packs / "id-ea").symlink_to(PACK)
    assert os.listdir(packs)[0] != "id-ea"
    options = ["--cpu", "--quick-test-for-ci", "--disable-api-nodes", "--base-directory", tmp_path]
    options += ["--database-url", f"sqlite:///{tmp_path / 'comfyui.db'}"]
    environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [python, "main.py", *options]
    done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert "FIRST True" in said and "/id-ea" in said and "IMPORT FAILED" not in said
    assert not list(home.rglob("*onnxruntime*"))
