"""One training in several processes."""

import subprocess
import sys

import pytest
from helpers import ROOT

EACH = """
import torch
from miniature import processes
processes.join()
torch.manual_seed(0)
model, rows = torch.nn.Linear(5, 3), torch.randn(8, 5)
wanted = torch.autograd.grad(model(rows).square().mean(), list(model.parameters()))
(mine,) = processes.part(rows)
model(mine).square().mean().backward()
processes.average_gradients(list(model.parameters()))
for parameter, gradient in zip(model.parameters(), wanted):
    assert torch.allclose(parameter.grad, gradient, atol=1e-6)
print("process", processes.number(), "computed", len(mine), flush=True)
"""


@pytest.mark.slow
def test_two_processes_compute_half_of_a_batch_each_and_the_gradients_of_all_of_it(tmp_path):
    file = tmp_path / "each.py"
    file.write_text(EACH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
    run = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert {f"process {number} computed 4" for number in range(2)} <= set(run.stdout.splitlines())
