"""What the benchmarks' harness makes of numbers; the numbers themselves are no test's matter."""

import importlib
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("report", "graph", "run")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def _row(module, value, goal, kind="count"):
    return module("report").Row("question", "what", value, "x", kind, goal)


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [(1.0, "<= 1", True), (1.01, "<= 1", False), (0.97, ">= 0.97", True), (0.96, ">= 0.97", False), (9.0, "", True)],
)
def test_a_goal_is_met_or_missed(module, value, goal, met):
    row = _row(module, value, goal)
    assert row.met is met
    assert ("missed" in str(row)) is not met


def test_only_a_missed_count_is_a_failure(module):
    complaint = module("run").complaint
    assert complaint([]) == 0
    assert "question" in complaint([_row(module, 2.0, "<= 1")])


def test_rows_are_handed_to_whoever_collects_them(module, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_ROWS", str(tmp_path / "rows"))
    module("report").row("question", "what", 1.23456, goal="<= 2")
    assert json.loads((tmp_path / "rows").read_text())["value"] == 1.2346


def test_a_missing_benchmark_ends_the_run(module, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere\.py failed"):
        module("run").measure(("nowhere.py",), quick=True)


def test_what_is_measured_again_replaces_its_questions_and_says_when(module):
    run = module("run")
    versions = {"versions": {"Python": "3"}}
    before = {"at": "monday", **versions, "rows": [_result("boot", 2.0), _result("boot", 3.0), _result("loading", 1.0)]}
    after = {"at": "tuesday", **versions, "rows": [_result("new", 5.0), _result("boot", 1.5)]}
    found = run.renewed(before, after)
    assert [(row["question"], row["value"], row.get("at")) for row in found["rows"]] == [
        ("boot", 1.5, "tuesday"),
        ("loading", 1.0, None),
        ("new", 5.0, "tuesday"),
    ]
    machine = {"processors": 2, "system": "s", "machine": "m"}
    page = run._tables({**found, "machine": machine})
    assert "Measured monday (boot, new: tuesday) on 2 processors, s m: Python 3.\n" in page
    assert "| boot | what | 1.5 x |  |  |" in page
    with pytest.raises(SystemExit, match="other versions"):
        run.renewed(before, {**after, "versions": {"Python": "4"}})


def _result(question, value):
    row = {"question": question, "what": "what", "value": value, "unit": "x", "kind": "time", "goal": ""}
    return {**row, "met": True}


def test_the_graph_has_a_line_for_each_system(module):
    values = {"plain": (1.0, 1.0), "tenant_router": (0.9, 0.9), "aliases": (1.1, 114.2)}
    rows = [
        {"question": f"request, {count} tenants", "what": f"{name}: processor time", "value": value}
        for name, found in values.items()
        for count, value in zip(("10", "1,000"), found, strict=True)
    ]
    rows += [{"question": "boot", "what": "another", "value": 5.0}]
    image = ElementTree.fromstring(module("graph").request_cost(rows))
    space = "{http://www.w3.org/2000/svg}"
    assert len(image.findall(f"{space}polyline")) == 3
    words = [text.text for text in image.findall(f"{space}text")]
    assert {"tenant_router 0.9", "plain Django 1", "Django, all in DATABASES 114", "1,000"} <= set(words)
    assert all(0 <= float(text.get("y")) <= 400 for text in image.findall(f"{space}text"))
