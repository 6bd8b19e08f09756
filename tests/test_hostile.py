"""Files from strangers end in a value or in the package's own error."""

import mmap
import pickle
import random
import sys
import time
from collections import Counter

import pytest
import torch

pytest.importorskip("resource")  # Windows has none
from benchmarks.fuzz import FINE, Kind, fuzzed, kinds, mutated, outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


def test_good_files_are_read(tmp_path):
    for name, kind in kinds(tmp_path).items():
        (tmp_path / name).write_bytes(kind.good)
        assert outcome(kind, tmp_path / name) == "read"


def test_mutated_files_are_read_or_refused(tmp_path):
    found = Counter(result for *_, result, _ in fuzzed(800, 3, tmp_path))
    assert set(found) == set(FINE) and min(found.values()) > 20


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path: pickle.loads(path.read_bytes()), "Error"),
        (lambda path: mmap.mmap(-1, 600_000_000), "Cannot allocate memory"),
        (lambda path: {"tokens": torch.tensor([torch.nan])}, "NaN"),
        (lambda path: busy(2.1), "took 2."),
    ],
)
def test_the_fuzzer_sees_what_is_wrong(tmp_path, read, said):
    (tmp_path / "file").write_bytes(b"no pickle")
    assert said in outcome(Kind(b"", read), tmp_path / "file")


def test_hostile_pickles_are_among_the_inputs(tmp_path):
    chance = random.Random(0)
    good = kinds(tmp_path)["published .bin"].good
    assert sum(b"mkdir" in mutated(good, chance, tmp_path) for _ in range(400)) > 2
