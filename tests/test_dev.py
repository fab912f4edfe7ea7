"""dev.py: when it sets up, when it leaves alone, and what it says when it cannot."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent / "dev.py"


def load() -> Any:
    """A copy of dev.py of its own, which a test may bend."""
    spec = importlib.util.spec_from_file_location("dev_under_test", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dev(tmp_path, monkeypatch):
    """dev.py over an empty folder, with everything that costs time replaced by a note."""
    module = load()
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / ".venv").mkdir()
    module.ROOT = str(tmp_path)
    module.VENV = str(tmp_path / ".venv")
    module.PYTHON = str(tmp_path / ".venv/bin/python")
    module.STAMP = str(tmp_path / ".venv/installed-by-dev.json")
    module.LOCK = str(tmp_path / ".dev.lock")
    module.notes = []
    module.runs = lambda python: True
    module.make_venv = lambda: module.notes.append("venv")
    module.install = module.notes.append
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture
def execv(dev, monkeypatch):
    calls = []
    monkeypatch.setattr(dev.os, "execv", lambda path, arguments: calls.append((path, arguments)))
    return calls


# --- Setting up


def test_the_first_start_makes_and_installs_and_the_second_does_nothing(dev):
    dev.set_up("demo,test")
    assert dev.notes == ["venv", "demo,test"]
    dev.set_up("demo,test")
    assert dev.notes == ["venv", "demo,test"]


def test_who_has_the_tests_can_run_the_demo_but_not_the_other_way_round(dev):
    dev.set_up("demo")
    dev.set_up("demo,test")
    dev.set_up("demo")
    assert dev.notes == ["venv", "demo", "demo,test"]


def test_a_changed_pyproject_installs_again_into_the_same_venv(dev, tmp_path):
    dev.set_up("demo")
    (tmp_path / "pyproject.toml").write_text("[project] # changed")
    dev.set_up("demo")
    assert dev.notes == ["venv", "demo", "demo"]


@pytest.mark.parametrize("change", ["ROOT", "python", "broken"])
def test_a_moved_clone_another_python_or_a_broken_venv_starts_anew(dev, monkeypatch, tmp_path, change):
    dev.set_up("demo")
    if change == "ROOT":
        (tmp_path / "moved").mkdir()
        (tmp_path / "moved/pyproject.toml").write_text("[project]")
        dev.ROOT = str(tmp_path / "moved")
    elif change == "python":
        monkeypatch.setattr(dev, "sys", SimpleNamespace(version="another"))
    else:
        dev.runs = lambda python: False
    dev.set_up("demo")
    assert dev.notes == ["venv", "demo", "venv", "demo"]


def test_an_installation_that_failed_is_tried_again(dev):
    def fails(extras):
        raise dev.SetupError("offline")

    dev.install, works = fails, dev.install
    with pytest.raises(dev.SetupError):
        dev.set_up("demo")
    dev.install = works
    dev.set_up("demo")
    assert dev.notes == ["venv", "venv", "demo"]


# --- Handing over


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["demo", "--port", "1"], ["example_project/manage.py", "demo", "--port", "1"]),
        (["test"], ["-m", "pytest", *load().DIVIDED]),
        (["test", "-k", "x"], ["-m", "pytest", "-k", "x"]),
        (["matrix", "--list"], ["-m", "nox", "--list"]),
    ],
)
def test_a_verb_becomes_its_program_with_the_arguments(dev, execv, arguments, program):
    dev.main(arguments)
    assert execv == [(dev.PYTHON, [dev.PYTHON, *program])]


@pytest.mark.parametrize(("processors", "processes"), [(None, "2"), (1, "2"), (2, "3"), (16, "4")])
def test_the_whole_suite_is_divided_among_one_process_more_than_processors(monkeypatch, processors, processes):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    divided = load().DIVIDED
    assert divided == ["-n", processes, "--dist", "worksteal"]


@pytest.mark.parametrize("arguments", [[], ["unknown"]])
def test_without_a_known_verb_it_explains_itself(dev, execv, capsys, arguments):
    assert dev.main(arguments) == 2
    assert "python3 dev.py demo" in capsys.readouterr().out
    assert not execv


def test_lint_runs_every_check_and_fails_if_one_does(dev, monkeypatch, capsys):
    ran = []

    def run_check(arguments):
        ran.append(arguments)
        return int("ruff" in arguments)

    monkeypatch.setattr(dev, "run_check", run_check)
    assert dev.lint() == 1
    assert ran == dev.LINT
    assert "FAILED: -m ruff check ." in capsys.readouterr().out


# --- What it says when it cannot


def test_it_parses_on_an_old_python_and_needs_only_the_standard_library():
    tree = ast.parse(PATH.read_text(), feature_version=(3, 6))
    imports = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imports <= sys.stdlib_module_names


def test_an_old_python_is_refused_with_the_name_of_a_newer_one(dev):
    with pytest.raises(dev.SetupError, match=r"3\.11 or newer is needed, this is 3\.9.*try `python3\.13 dev\.py`"):
        dev.check_python((3, 9, 2))


def test_without_any_pip_it_names_the_package(dev, monkeypatch):
    monkeypatch.setattr(dev.subprocess, "call", lambda *arguments, **options: 1)
    with pytest.raises(dev.SetupError, match="apt-get install python3-pip"):
        dev.outside_pip()


def test_a_failing_pip_is_reported_with_a_hint(dev, execv, monkeypatch, capsys):
    original = load()
    original.SetupError = dev.SetupError
    dev.install = original.install
    answers = iter([0, 1])  # pip is there; installing fails
    monkeypatch.setattr(dev.subprocess, "call", lambda *arguments, **options: next(answers))
    assert dev.main(["demo"]) == 1
    assert "is this machine offline" in capsys.readouterr().err
    assert not execv


def test_a_second_start_waits_for_the_first(dev):
    import fcntl

    with Path(dev.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX)"
        waiting = subprocess.Popen([sys.executable, "-c", code, dev.LOCK])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert waiting.wait(10) == 0
