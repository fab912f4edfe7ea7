"""Children, signals and folders of the demo, each for itself."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo import children, supervisor
from demo.broker import Broker
from demo.children import spawn
from demo.errors import DemoError, StopRequested
from demo.folders import run_folder
from demo.signals import StopRequest

from tests.example_project.running import EXAMPLE, descendants, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
    # Children are started before any thread of the suite could hold a lock that they need.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_HOME", str(tmp_path))
    with run_folder() as folder:
        yield folder


@pytest.fixture
def relatives():
    """Ask for the processes that descend from this one and have begun with the test: the suite has others."""
    before = {process.pid for process in descendants(os.getpid())}
    return lambda: [process for process in descendants(os.getpid()) if process.pid not in before]


@pytest.fixture
def start(run, relatives):
    """Start shell scripts as children; each says that it is ready, and ends with the test."""
    started = []

    def go(script, name="child"):
        ready = run.path / f"{name}.ready"
        command = ["sh", "-c", script.replace("READY", f"touch {ready}")]
        child = spawn(name, command, env=os.environ, log=run.log(name), lock=run.lock)
        started.append(child)
        wait_until(lambda: ready.exists() or child.exit_code() is not None, f"{name} is ready")
        return child

    yield go
    for child in started:
        child.stop()


def alive(processes):
    return [process for process in processes if process.lives]


# --- Children


def test_a_child_that_does_not_listen_is_killed_with_all_its_session(start, relatives, monkeypatch):
    monkeypatch.setattr(children, "PATIENCE", 0.1)
    child = start("trap '' TERM; sleep 1000 & READY; while :; do wait; done")
    family = relatives()
    assert len(family) >= 2
    child.stop()
    wait_until(lambda: not alive(family), "the end of the family", 5)
    assert child.exit_code() == -signal.SIGKILL


def test_a_child_is_asked_before_it_is_killed(start, run):
    child = start("trap 'echo asked; exit 3' TERM; READY; while :; do sleep 0.01; done")
    child.stop()
    assert child.exit_code() == 3
    assert run.log("child").read_text() == "asked\n"


def test_what_a_dead_child_leaves_behind_goes_with_it(start, relatives):
    child = start("sleep 1000 & READY; while :; do sleep 0.01; done")
    family = relatives()
    os.kill(next(process.pid for process in family if "READY" not in process.command and " -c " in process.command), 9)
    wait_until(lambda: child.exit_code() is not None, "the death of the child")
    wait_until(lambda: not alive(family), "the end of the family", 5)


def test_the_terminal_does_not_reach_a_child(start, relatives):
    child = start("READY; while :; do sleep 0.01; done")
    (shell, *_) = (process for process in relatives() if " -c " in process.command)
    assert os.getsid(shell.pid) == shell.pid != os.getsid(0)
    child.stop()


SPAWN_AND_WAIT = """
import os, sys, time
from demo.broker import Broker
from demo.children import spawn
lock = os.open(os.devnull, os.O_RDONLY)
spawn("child", ["sleep", "1000"], env=os.environ, log=None, lock=lock)
print("spawned", flush=True)
time.sleep(1000)
"""


def test_children_of_a_killed_demo_are_killed_by_the_kernel():
    parent = subprocess.Popen([sys.executable, "-c", SPAWN_AND_WAIT], cwd=EXAMPLE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "spawned\n"
    family = descendants(parent.pid)
    assert any("sleep" in process.command for process in family)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not alive(family), "the end of the family", 5)


# --- The supervisor


@pytest.fixture
def demo(run):
    """A supervisor that has not started anything yet; what a test starts ends with it."""
    supervised = supervisor.Supervisor(run, supervisor.Options(), StopRequest())
    yield supervised
    supervised.stop()


def seconds(number):
    """Return what becomes true after so many seconds, for what should be interrupted before."""
    end = time.monotonic() + number
    return lambda: time.monotonic() > end


FAITHFUL = "trap 'echo {name} >> {order}; exit' TERM; touch {name}; while :; do sleep 0.01; done"


def test_the_last_to_start_is_the_first_to_stop(demo, run, tmp_path):
    names, order = ("broker", "worker", "beat", "web"), tmp_path / "order"
    for name in names:
        script = FAITHFUL.format(name=tmp_path / name, order=order)
        demo._spawn(name, ["sh", "-c", script])
        wait_until((tmp_path / name).exists, f"{name} is ready")
    demo.stop()
    assert [Path(line).name for line in order.read_text().split()] == list(reversed(names))


@pytest.mark.parametrize("name", ["broker", "worker", "beat", "web"])
def test_the_death_of_any_child_is_noticed_and_explained(demo, run, name):
    demo._spawn("other", ["sleep", "1000"])
    demo._spawn(name, ["sh", "-c", "echo out of ink; exit 7"])
    with pytest.raises(DemoError, match=rf"{name} ended with 7\.\n  \| out of ink\nAll of it is in {run.log(name)}"):
        demo._wait_for(seconds(10))


def test_a_command_that_fails_is_explained(demo):
    with pytest.raises(DemoError, match=r"migrate:\n  \| no such table"):
        demo._finish("migrate", ["sh", "-c", "echo no such table; exit 1"])


def test_a_signal_ends_any_waiting(demo):
    demo._stop._note(signal.SIGTERM, None)
    with pytest.raises(StopRequested):
        demo._wait_for(seconds(10))


def test_another_port_is_taken_when_the_usual_one_is_in_use():
    free = supervisor._free_port(0)
    with socket.socket() as taken:
        taken.bind((supervisor.HOST, free))
        taken.listen()
        assert supervisor._free_port(free) not in (0, free)


def test_a_web_server_of_somebody_else_is_not_taken_for_ours(demo):
    with socket.socket() as silent:
        silent.bind((supervisor.HOST, 0))
        assert not supervisor._serves(silent.getsockname()[1], "our folder")


def test_a_broker_of_somebody_gets_a_queue_of_this_demo_alone(run):
    given = Broker(url="amqp://host//", result_backend="file:///x", why="", is_private=False)
    mine = supervisor._broker_environment(given, run)
    assert mine["DEMO_QUEUE"].startswith("atlas-demo-")
    assert mine["DEMO_NODE"] == f"atlas@{mine['DEMO_QUEUE']}"
    assert mine == supervisor._broker_environment(given, run)


# --- Folders and the terminal


def test_demos_take_the_first_free_number(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_HOME", str(tmp_path))
    with run_folder() as first:
        with run_folder() as second:
            assert (first.number, second.number) == (1, 2)
            assert first.var != second.var
        with run_folder() as again:
            assert again.number == 2


def test_a_number_is_taken_while_a_child_of_its_demo_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_HOME", str(tmp_path))
    with run_folder() as first:
        child = spawn("child", ["sleep", "1000"], env=os.environ, log=first.log("child"), lock=first.lock)
    with run_folder() as second:
        assert second.number == 2
    child.stop()
    with run_folder() as again:
        assert again.number == 1


def test_in_the_clone_the_first_demo_has_the_plain_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("DEMO_HOME", raising=False)
    monkeypatch.setattr("demo.folders.EXAMPLE", tmp_path / "example_project")
    with run_folder() as first, run_folder() as second:
        assert first.path == tmp_path / ".demo" / "1"
        assert first.var == tmp_path / "example_project" / "var"
        assert second.var == tmp_path / "example_project" / "var" / "2"


def test_a_terminal_that_is_gone_is_no_reason_to_stop():
    script = "from demo.console import say\nfor _ in range(3): say('anybody?')\nimport sys; sys.exit(5)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=EXAMPLE, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (5, b"")
