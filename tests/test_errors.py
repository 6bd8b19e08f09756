"""The pack's exceptions: how they are called, and that they travel between processes."""

import pickle
import subprocess
import sys

import pytest
from helpers import ROOT

from idea_core.errors import DivergedError, IdeaError


def kinds(base: type = IdeaError) -> list[type]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_is_called_by_the_packs_name_and_its_pickle_is_the_same_error(kind):
    error = kind("a face", "none", "Take another photo.")
    assert f"{kind.__module__}.{kind.__qualname__}" == f"id_ea.{kind.__name__}"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) == "Expected a face, got none. Take another photo."
    assert (again.expected, again.got, again.remedy) == (error.expected, error.got, error.remedy)


def test_another_process_reads_it():
    read = "import pickle, sys; error = pickle.load(sys.stdin.buffer); print(type(error).__mro__[1].__name__, error)"
    sent = pickle.dumps(DivergedError("finite losses", "nan", "Lower the rate."))
    said = subprocess.run([sys.executable, "-c", read], input=sent, capture_output=True, cwd=ROOT, check=True).stdout
    assert said.decode().strip() == "TrainingError Expected finite losses, got nan. Lower the rate."
