"""Methods compared on many people: the tables, what is skipped, what a kill costs, and the study's own figures."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from face_models import write_face_pack
from idea_command import base, faces, run
from scipy import stats

from benchmarks.study import Cell, Laboratory
from idea_core.errors import ConfigError
from idea_core.evaluation import PROTOCOL_PROMPTS
from idea_core.evaluation.comparison import ComparisonTables
from idea_core.evaluation.paired import difference, estimate
from idea_core.headless.jobs.people import Person, find_people
from idea_core.text.captions import require_prompts
from idea_core.training.config import PRESETS
from idea_core.training.methods import METHODS, parse_methods, steps_of
from miniature.methods import REFINING
from miniature.trial import PER_PROMPT, Stranger
from miniature.world import BASE, ENHANCER, FACES, GUIDANCE, SAMPLING_STEPS, all_names

FOUR = range(4)  # of the people of the study
SHORT = [  # methods of the command, what the study calls them, and rates
    ("ti", "ti", {"token_lr": 0.01}),
    ("ci", "ci", {"token_lr": 0.03}),
    ("celeb", "celeb", {"axes_lr": 0.3}),
    ("id-ea", "whole", {"axes_lr": 0.3, "kv_lr": 0.002}),
]
QUICK = ["--steps", "1", "--resolution", "16", "--sampling-steps", "1", "--count", "1"]


@pytest.fixture
def people(studio, tmp_path) -> Path:
    """Folders of two people, one of somebody without a photo, and one with a name that no prompt can say."""
    folder = tmp_path / "people"
    for name in ("alice", "bob"):
        shutil.copytree(studio / "photos" / name, folder / name)
    for name in ("nobody", "a<b"):
        (folder / name).mkdir()
    (folder / "alice" / "prompts.txt").write_text("{} at sea\n")
    (folder / "bob" / "references").mkdir()
    (folder / "bob" / "2.png").rename(folder / "bob" / "references" / "2.png")
    return folder


def command(studio: Path, people: Path, output: Path, *more) -> list:
    (people.parent / "names.txt").write_text("ab")
    (people.parent / "prompts.txt").write_text("a photo of {}\n{} in a hat\n")
    texts = ["--names", people.parent / "names.txt", "--prompts", people.parent / "prompts.txt"]
    return ["compare", *base(studio), *faces(studio), "--people", people, *texts, *QUICK, "-o", output, *more]


def test_intervals_are_students():
    values = {"a": 0.3, "b": 0.5, "c": 0.4, "d": 0.9}
    found, array = estimate(list(values.values())), np.array(list(values.values()))
    low, high = stats.t.interval(0.95, 3, array.mean(), stats.sem(array))
    assert found.people == 4 and np.allclose([found.mean - found.half, found.mean + found.half], [low, high])
    against = {"b": 0.4, "c": 0.1, "d": 0.7, "e": 0.0}
    paired = difference(values, against)
    assert paired.people == 3 and np.isclose(paired.mean, 0.2)
    assert np.isclose(paired.p, stats.ttest_rel([0.5, 0.4, 0.9], [0.4, 0.1, 0.7]).pvalue)
    assert difference({"a": 1.0}, {"b": 1.0}) is None and estimate([0.5]) == (0.5, None, None, 1)


def test_tables_count_people_not_repetitions():
    def result(person, method, identity, repetition=0):
        known = dict.fromkeys(("mean_similarity_detected", "witness_similarity_strict", "prompt_similarity"))
        costs = {"seconds": 2.0, "peak_memory_bytes": 2**31, "bytes": 2048}
        who = {"person": person, "method": method, "repetition": repetition}
        return {**who, "mean_similarity_strict": identity, "detection_rate": 1.0, **known, **costs, "scores": []}

    results = [result("ann", "x", 0.2), result("ann", "x", 0.4, 1), result("ben", "x", 0.5)]
    results += [result("ann", "y", 0.1), {"person": "ben", "method": "y", "repetition": 0, "error": "no face"}]
    tables = ComparisonTables({"x": "X", "y": "Y"}, results, "x")
    first, second = tables.rows()
    assert first["people"] == "2" and first["identity"].startswith("0.400 ± ")
    assert second == {"method": "Y", "people": "1", "identity": "0.100", "detection": "1.000"} | {
        "seconds": "2",
        "GiB": "2",
        "KiB": "2",
    }
    (minus,) = tables.differences()
    assert minus["minus"] == "Y" and minus["identity"] == "+0.200" and minus["p (identity)"] == "–"
    assert "ben, y: no face" in tables.text


def test_the_methods():
    assert list(METHODS) == ["ti", "ci", "celeb", "published", "id-ea", "instant", "refined", "enhancer"]
    assert METHODS["published"].config() == PRESETS["paper"] and METHODS["id-ea"].config() == PRESETS["fast"]
    assert steps_of(METHODS["ti"], 7).config().steps == 7 and steps_of(METHODS["instant"], 7).config().steps == 0
    found = parse_methods('{"method": "ti", "name": "ti-80", "steps": 80, "token_lr": 0.03}\n\n{"method": "id-ea"}')
    assert list(found) == ["ti-80", "id-ea"]
    assert (found["ti-80"].config().steps, found["ti-80"].config().token_lr) == (80, 0.03)
    assert found["ti-80"].title == 'Textual Inversion ("steps": 80, "token_lr": 0.03)'
    for line in ('{"method": "tj"}', '{"method": "ti", "stepz": 1}', "[]", "{", '{"method": "ti", "steps": -1}'):
        with pytest.raises(ConfigError):
            parse_methods(line)
    with pytest.raises(ConfigError, match="two of ti"):
        parse_methods('{"method": "ti"}\n{"method": "ti"}')


def test_the_protocols_prompts():
    require_prompts(PROTOCOL_PROMPTS, "person")
    assert len(set(PROTOCOL_PROMPTS)) == 20


def test_people_of_a_folder(people):
    found, faults = find_people(people)
    assert [person.name for person in found] == ["alice", "bob"] and set(faults) == {"nobody", "a<b"}
    assert found[0].prompts == ("{} at sea",) and [path.name for path in found[1].references] == ["2.png"]
    assert [path.name for path in found[1].photos] == ["0.png", "1.png"]
    (people / "bob" / "settings.json").write_text('{"seed": 3}')
    assert Person.of(people / "bob").settings == {"seed": 3}
    for wrong in ("[1]", "{", '{"sead": 3}', '{"seed": -1}'):
        (people / "bob" / "settings.json").write_text(wrong)
        with pytest.raises(ConfigError):
            Person.of(people / "bob")


def test_a_comparison(studio, people, tmp_path):
    output = tmp_path / "out"
    said = run(*command(studio, people, output, "--clip", studio / "clip", "--methods", "ti,id-ea"), code=1)
    assert "nobody is left out. Expected at least one photo" in said.output and "(no image)" not in said.output
    assert "1 of 4 trials: alice, ti: identity " in said.output and "4 of 4 trials: bob, id-ea: " in said.output
    data = json.loads((output / "comparison.json").read_text())
    assert [(one["person"], one["method"]) for one in data["trials"]] == [
        ("alice", "ti"),
        ("alice", "id-ea"),
        ("bob", "ti"),
        ("bob", "id-ea"),
    ]
    assert data["against"] == "id-ea" and data["methods"]["ti"]["prompt_similarity"]["people"] == 2
    assert len(list((output / "images" / "alice" / "ti").iterdir())) == 1
    assert len(list((output / "images" / "bob" / "ti").iterdir())) == 2
    with open(output / "images.csv") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 6 and {row["prompt"] for row in rows if row["person"] == "alice"} == {"{} at sea"}
    page = (output / "report.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 6 and "a&lt;b" in page and "<main>" in page
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".json", ".png")}
    shutil.rmtree(people / "nobody")
    shutil.rmtree(people / "a<b")
    shutil.copytree(studio / "photos" / "carol", people / "carol")
    run(*command(studio, people, output, "--clip", studio / "clip", "--methods", "ti,id-ea"))
    kept = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == len(times) - 1  # all but comparison.json, although carol came in
    assert len(list((output / "trials").rglob("*.json"))) == 6
    run(*command(studio, people, output, "--methods", "ti", "--guidance", "2"))
    again = json.loads((output / "comparison.json").read_text())["trials"]
    assert len(again) == 3 and all(trial["prompt_similarity"] is None for trial in again)
    assert (output / "people" / "alice" / "ti.safetensors").stat().st_mtime_ns < min(
        path.stat().st_mtime_ns for path in (output / "images" / "alice" / "ti").iterdir()
    )  # only drawn anew


def test_a_person_whose_photos_show_no_face_stops_nothing(studio, people, tmp_path):
    (people / "nobody" / "0.png").write_bytes((studio / "nobody.png").read_bytes())
    (people / "a<b").rmdir()
    said = run(*command(studio, people, tmp_path / "out", "--methods", "ti"), code=1)
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    errors = {trial["person"]: trial.get("error") for trial in data["trials"]}
    assert errors["alice"] is errors["bob"] is None and "face" in errors["nobody"]
    assert "nobody, ti: Expected" in said.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "tj"], "no tj"),
        (["--methods", "instant"], "instant needs --enhancer"),
        (["--against", "tj"], "choose among"),
    ],
)
def test_wrong_uses(studio, people, tmp_path, more, message):
    assert message in run(*command(studio, people, tmp_path / "out", *more), code=2).output


def test_a_witness(studio, people, tmp_path):
    packs = tmp_path / "insightface" / "models"
    for name in ("first", "second"):
        write_face_pack(packs / name)
    shutil.copytree(people / "alice", packs / "second" / "not a model")
    options = ["--face-models", packs.parent, "--face-pack", "first", "--methods", "ti"]
    line = command(studio, people, tmp_path / "out", *options)
    assert "Name another pack" in run(*line, "--witness-pack", "first", code=1).output
    run(*line, "--witness-pack", "second", code=1)
    trial = json.loads((tmp_path / "out" / "trials" / "bob" / "ti.json").read_text())
    assert "witness_similarity_strict" in trial and "witness_similarity" in trial["scores"][0]


SCRIPT = "from idea_core.headless.cli import idea; idea()"


@pytest.mark.slow
def test_kills_cost_at_most_the_trial_at_hand(studio, people, tmp_path):
    shutil.rmtree(people / "nobody")
    shutil.rmtree(people / "a<b")
    output, chance, twice = tmp_path / "out", random.Random(0), ("--repeats", "2")
    line = [sys.executable, "-c", SCRIPT, *map(str, command(studio, people, output, *twice))]
    kills, times = 0, {}
    while True:
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        done = len(list(output.glob("trials/*/*.json")))
        limit, start = chance.uniform(0.1, 2.0), time.monotonic()
        while process.poll() is None and kills < 10:
            if len(list(output.glob("trials/*/*.json"))) > done:  # it works: kill it somewhere in the next trial
                time.sleep(limit)
                process.kill()
                kills += 1
            assert time.monotonic() - start < 120
            time.sleep(0.02)
        assert process.wait() in (0, -9)
        found = {path: path.stat().st_mtime_ns for path in output.glob("trials/*/*.json")}
        assert all(found[path] == time for path, time in times.items())  # nothing is done twice
        times = found
        for path in found:
            json.loads(path.read_text())
        if process.returncode == 0:
            break
    assert kills == 10 and len(times) == 20
    run(*command(studio, people, tmp_path / "unbroken", *twice))

    def figures(folder: Path) -> list[dict]:
        trials = json.loads((folder / "comparison.json").read_text())["trials"]
        timed = ("seconds", "bytes")  # a person's file holds seconds too
        return [{key: value for key, value in trial.items() if key not in timed} for trial in trials]

    assert figures(output) == figures(tmp_path / "unbroken")


@pytest.mark.slow
def test_the_command_gives_the_studys_figures(tmp_path):
    """The drawn world's people as folders, by the command, and by the study's own code."""
    for number in FOUR:
        Stranger(number, 2).person(tmp_path / "people" / f"p{number}")
    (tmp_path / "names.txt").write_text("\n".join(all_names()))
    lines = [{"method": method, "steps": 4, **rates} for method, _, rates in SHORT]
    lines += [{"method": "instant"}, {"method": "refined"}]
    (tmp_path / "methods.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "looks.txt").write_text("\n".join(REFINING.prompts))
    model = ["--model", BASE, "--device", "cpu", "--draw-dtype", "bf16", "--face-models", FACES, "--provider", "cpu"]
    drawing = ["--sampling-steps", SAMPLING_STEPS, "--guidance", GUIDANCE, "--batch-size", "24", "--count", PER_PROMPT]
    data = ["--people", tmp_path / "people", "--names", tmp_path / "names.txt", "--crop", "center"]
    chosen = ["--methods", tmp_path / "methods.jsonl", "--enhancer", ENHANCER, "-o", tmp_path / "out", "--json"]
    chosen += ["--refine-prompts", tmp_path / "looks.txt"]
    said = run("compare", *model, *drawing, *data, *chosen)
    by_command = {(one["person"], one["method"]): one for one in said["trials"]}
    laboratory = Laboratory("cpu")
    for number in FOUR:
        for method, arm, rates in SHORT:
            line = laboratory.trial(Cell(arm, number, 4, 2, rates))
            one = by_command[f"p{number}", method]
            assert line["identity"] == pytest.approx(one["mean_similarity_strict"], abs=1e-4)
            assert line["detected"] == pytest.approx(one["detection_rate"], abs=1e-4)
        instant = laboratory.trial(Cell("seen", number, 0, 2))
        assert instant["identity"] == pytest.approx(
            by_command[f"p{number}", "instant"]["mean_similarity_strict"], abs=0.01
        )  # which keeps the ID-Enhancer's answer in half precision
        assert instant["identity"] > 0.3
    instant, refined = (
        sum(by_command[f"p{number}", method]["mean_similarity_strict"] for number in FOUR)
        for method in ("instant", "refined")
    )
    assert refined > instant
