"""One command for everything: starts the processes of the demo, watches them, and ends them.

Started in this order: broker, migrations, worker, beat, web, story. Stopped in the other one, so
that nobody loses the broker while still at work. Whatever happens, nothing is left running.
"""

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from places.tokens import make_token

from .broker import Broker, choose_broker
from .children import Child, spawn
from .console import say
from .errors import DemoError, StopRequested
from .folders import RunFolder, run_folder
from .signals import StopRequest

#: The only address that the demo listens on.
HOST = "127.0.0.1"

#: The port that people expect; another is taken when it is in use.
USUAL_PORT = 8000

#: Seconds that the web server is given to answer.
WEB_START = 60.0

#: Seconds between two looks at the children and at what is waited for.
GLANCE = 0.05

#: How often another port is tried when somebody else was faster.
PORT_ATTEMPTS = 3

#: Lines of a child's log that are shown when it ends unasked.
LOG_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person who starts the demo may choose."""

    port: int = USUAL_PORT
    once: bool = False
    sends_calls: bool = True
    verbose: bool = False


def run_demo(options: Options) -> int:
    """Play the demo until it is asked to stop, and return the exit code of the command."""
    stop = StopRequest()
    stop.listen()
    with run_folder() as run:
        supervisor = Supervisor(run, options, stop)
        try:
            supervisor.play()
        except StopRequested:
            return supervisor.farewell()
        except DemoError as error:
            say(f"\nThe demo failed: {error}")
            return 1
        finally:
            supervisor.stop()
            stop.ignore()
    return 0


class Supervisor:
    """The processes of one demo, in the order in which they were started."""

    def __init__(self, run: RunFolder, options: Options, stop: StopRequest) -> None:
        self._run = run
        self._options = options
        self._stop = stop
        self._children: list[Child] = []
        self._env = _environment(run)
        self._started_at = time.monotonic()
        self._is_ready = False

    def play(self) -> None:
        """Start everything, tell the story, say READY and keep watching.

        Returns only with `once`; otherwise it ends by StopRequested or DemoError.
        """
        broker = choose_broker(self._run, self._spawn, self._stop.check)
        say(f"broker  {broker.why}")
        self._env |= _broker_environment(broker, self._run)
        self._finish("migrate", [sys.executable, "manage.py", "migrate", "--no-input"])
        self._start_celery()
        port = self._start_web()
        say(f"logs    {self._run.path}")
        story = [] if self._options.sends_calls else ["--no-calls"]
        self._finish("story", [sys.executable, "-m", "demo", *story], is_shown=True)
        self._announce(port)
        if not self._options.once:
            self._wait_for(lambda: False)

    def farewell(self) -> int:
        """Say that the demo stops because it was asked to, and return the exit code for that."""
        say("\nStopping ...")
        return 0 if self._is_ready else 128 + (self._stop.signum or 0)

    def stop(self) -> None:
        """Stop the children, the last one first; the next only when the one before is gone."""
        while self._children:
            self._children[-1].stop()
            self._children.pop()

    def _start_celery(self) -> None:
        celery = [sys.executable, "-m", "celery", "-A", "config"]
        node = self._env["DEMO_NODE"]
        quick = ["--without-gossip", "--without-mingle"]  # there is no other worker to meet
        worker = ["worker", "-P", "prefork", "-c", "2", "-n", node, "-l", "INFO", *quick]
        self._spawn("worker", [*celery, *worker])
        pid, schedule = self._run.path / "beat.pid", self._run.path / "beat-schedule"
        for left_behind in (pid, *self._run.path.glob("beat-schedule*")):  # by a killed demo
            left_behind.unlink(missing_ok=True)
        beat = ["beat", f"--pidfile={pid}", f"--schedule={schedule}", "-l", "INFO"]
        self._spawn("beat", [*celery, *beat])

    def _start_web(self) -> int:
        for _ in range(PORT_ATTEMPTS):
            port = _free_port(self._options.port)
            self._env["DEMO_PORT"] = str(port)
            command = [sys.executable, "manage.py", "runserver", "--noreload", f"{HOST}:{port}"]
            web = self._spawn("web", command)
            if self._web_answers(web, port):
                return port
            web.stop()
        raise DemoError(f"the web server did not start.\n{self._tail('web')}")

    def _web_answers(self, web: Child, port: int) -> bool:
        """Wait for the web server; False if it ended, as when its port was taken meanwhile."""
        deadline = time.monotonic() + WEB_START
        while web.exit_code() is None:
            self._look(except_for=web)
            if _serves(port, str(self._run.path)):
                return True
            if time.monotonic() > deadline:
                raise DemoError(f"the web server does not answer.\n{self._tail('web')}")
            time.sleep(GLANCE)
        return False

    def _announce(self, port: int) -> None:
        self._is_ready = True
        say(f"\nREADY   after {time.monotonic() - self._started_at:.1f} s")
        say(f"admin   http://{HOST}:{port}/admin/")
        say("login   admin, password admin (for this demo only)")
        say(f"try     put a CSV file of places into {self._run.var / 'inbox'}")
        say("http    another service orders a report, from the root of the repository:")
        say(f"        {sys.executable} example_project/press.py http://{HOST}:{port}/lrp {make_token('admin')}")
        say("stop    the demo stops by itself" if self._options.once else "stop    Ctrl-C")

    def _finish(self, name: str, command: list[str], *, is_shown: bool = False) -> None:
        """Run a command that ends by itself, and raise DemoError if it does not end well."""
        child = self._spawn(name, command, is_shown=is_shown)
        self._wait_for(lambda: child.exit_code() is not None, except_for=child)
        child.stop()
        if child.exit_code():
            raise DemoError("see above." if is_shown else f"{name}:\n{self._tail(name)}")

    def _wait_for(self, is_done: Callable[[], bool], *, except_for: Child | None = None) -> None:
        while not is_done():
            self._look(except_for=except_for)
            time.sleep(GLANCE)

    def _look(self, *, except_for: Child | None = None) -> None:
        """Raise if the demo should stop, or a child ended that should be running."""
        self._stop.check()
        for child in self._children:
            code = child.exit_code()
            if code is not None and not child.is_stopped and child is not except_for:
                raise DemoError(f"{child.name} ended with {code}.\n{self._tail(child.name)}")

    def _spawn(self, name: str, command: list[str], *, is_shown: bool = False) -> Child:
        log = None if is_shown or self._options.verbose else self._run.log(name)
        child = spawn(name, command, env=self._env, log=log, lock=self._run.lock)
        self._children.append(child)
        return child

    def _tail(self, name: str) -> str:
        log = self._run.log(name)
        with suppress(OSError):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            return "\n".join([*(f"  | {line}" for line in lines), f"All of it is in {log}."])
        return "Its output is above."


def _environment(run: RunFolder) -> dict[str, str]:
    return {
        **os.environ,
        "ATLAS_VAR": str(run.var),
        "DEMO_RUN": str(run.path),
        "DJANGO_SETTINGS_MODULE": "demo.settings",
        "PYTHONUNBUFFERED": "1",
    }


def _broker_environment(broker: Broker, run: RunFolder) -> dict[str, str]:
    given = {"CELERY_BROKER_URL": broker.url, "CELERY_RESULT_BACKEND": broker.result_backend}
    if broker.is_private:
        return {**given, "DEMO_NODE": f"atlas@demo-{run.number}"}
    place = f"{socket.gethostname()}:{run.path}"
    queue = f"atlas-demo-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return {**given, "DEMO_NODE": f"atlas@{queue}", "DEMO_QUEUE": queue}


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            taken: int = probe.getsockname()[1]
            return taken
    raise DemoError(f"no port is free on {HOST}")


def _serves(port: int, run: str) -> bool:
    """Tell whether the web server of this very demo answers on the port."""
    connection = HTTPConnection(HOST, port, timeout=2)
    with suppress(OSError, HTTPException):
        connection.request("GET", "/mirror/whose")
        return connection.getresponse().read() == run.encode()
    return False
