"""The benchmark of training steps, at its smallest."""

import json

import pytest
from click.testing import CliRunner

from benchmarks.speed import speed


@pytest.mark.slow
def test_rows_are_written_as_they_come(tmp_path):
    results = tmp_path / "speed.jsonl"
    said = CliRunner().invoke(
        speed, ["--device", "cpu", "--model", "sd1", "--batch-size", "1", "--steps", "1", "--results", str(results)]
    )
    assert said.exit_code == 0, said.output
    rows = [row for line in results.read_text().splitlines() for row in json.loads(line)["rows"]]
    assert {"computed", "diffusers' Textual Inversion"} <= {row["way"] for row in rows}
    assert all(row["seconds"] > 0 and row["images_per_second"] > 0 for row in rows)
    assert "left out" in CliRunner().invoke(speed, ["--device", "cpu", "--budget", "0", "--model", "sd1"]).output
