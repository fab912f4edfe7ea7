"""What a drainer makes of what waits in the spools."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lrp_celery.core.errors import ConfigurationError, StoreError, StoreUnavailable
from lrp_celery.core.locks import HeldFile, make_held
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.record import AttemptOutcome
from lrp_celery.tracking.reports import Ended, Outcome, Report, RunFacts, Started, Stopping, Told, Unwound
from lrp_celery.tracking.spool import drainer as drainers
from lrp_celery.tracking.spool import spool as spools
from lrp_celery.tracking.spool.bell import Bell
from lrp_celery.tracking.spool.drainer import PARENTS_WORD, Drainer
from lrp_celery.tracking.spool.files import Name
from lrp_celery.tracking.spool.frames import framed
from lrp_celery.tracking.spool.spool import Spool
from lrp_celery.tracking.status import CallStatus, Reason
from tests.tracking.histories import FACTS

OWN, OTHER = "aaa", "bbb"


def started(name: str, **run: Any) -> Started:
    return Started(call_id=name, facts=FACTS, run=RunFacts(token=f"run of {name}", pid=1, **run))


def ended(name: str, status: CallStatus = CallStatus.SUCCEEDED) -> Ended:
    return Ended(call_id=name, facts=FACTS, run=RunFacts(token=f"run of {name}"), outcome=Outcome(status=status))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Moody:
    """A store that can be away, refuse some calls, and hold others."""

    def __init__(self) -> None:
        self.memory = MemoryTrackingStore()
        self.is_away = False
        self.refused: set[str] = set()
        self.refusal: Exception = StoreError("no")
        self.held: set[str] = set()
        self.batches: list[int] = []

    def report_many(self, told: Sequence[Told]) -> Sequence[Told]:
        self.batches.append(len(told))
        if self.is_away:
            raise StoreUnavailable("gone")
        if any(each.report.call_id in self.refused for each in told):
            raise self.refusal
        left = [each for each in told if each.report.call_id in self.held]
        self.memory.report_many([each for each in told if each not in left])
        return left

    def status(self, call_id: str) -> CallStatus | None:
        call = self.memory.get_status(call_id)
        return None if call is None else call.status


class Scene:
    """Workers that write, and a drainer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Moody()
        self.clock = Clock()
        self.drainer = Drainer(self.store, folder, OWN, clock=self.clock)
        self.alive: dict[str, HeldFile] = {}
        self.spools: list[Spool] = []

    def worker(self, boot: str = OWN) -> None:
        self.alive[boot] = make_held(self.folder / f"{boot}.worker")

    def dies(self, boot: str) -> None:
        self.alive[boot].let_go()

    def process(self, pid: int, monkeypatch: pytest.MonkeyPatch, boot: str = OWN) -> "Process":
        spool = Spool(self.folder, place="p", boot=boot, worker="w1", limit=10**9, bell=Bell())
        self.spools.append(spool)
        return Process(spool, pid, monkeypatch)

    def rounds(self, number: int = 3, seconds: float = 5.0) -> None:
        for _ in range(number):
            self.drainer.round()
            self.clock.now += seconds

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Process:
    """A process of a worker, as its spool shows it."""

    def __init__(self, spool: Spool, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spool = spool
        self._pid = pid
        self._monkeypatch = monkeypatch

    def says(self, *reports: Report) -> None:
        with self._monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: self._pid)
            for report in reports:
                assert self.spool.append(report)

    def dies(self) -> None:
        self.spool.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.worker()
    yield made
    for spool in made.spools:
        spool.close()


@pytest.fixture
def child(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Process:
    return scene.process(11, monkeypatch)


def test_what_processes_write_reaches_the_store_also_what_they_write_later(scene: Scene, child: Process) -> None:
    child.says(started("a"))
    assert scene.drainer.has_news()
    assert scene.drainer.round() == 1
    assert scene.store.status("a") is CallStatus.STARTED
    assert not scene.drainer.has_news()
    child.says(ended("a"))
    assert scene.drainer.has_news()
    scene.drainer.round()
    assert scene.store.status("a") is CallStatus.SUCCEEDED
    assert scene.drainer.round() == 0


def test_what_waits_is_told_together(scene: Scene, child: Process) -> None:
    for number in range(200):
        child.says(started(str(number)), ended(str(number)))
    assert scene.drainer.round() == 400
    assert scene.store.batches == [400]


def test_a_store_that_is_away_loses_nothing(scene: Scene, child: Process) -> None:
    child.says(started("a"), ended("a"))
    scene.store.is_away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            scene.drainer.round()
    child.says(started("b"))
    scene.store.is_away = False
    scene.drainer.round()
    assert [scene.store.status(name) for name in "ab"] == [CallStatus.SUCCEEDED, CallStatus.STARTED]


def test_what_the_store_refuses_is_set_aside_and_keeps_nobody_waiting(scene: Scene, child: Process) -> None:
    scene.store.refused = {"7"}
    for number in range(20):
        child.says(started(str(number)), ended(str(number)))
    scene.drainer.round()
    done = {str(number) for number in range(20) if scene.store.status(str(number)) is CallStatus.SUCCEEDED}
    assert done == {str(number) for number in range(20)} - {"7"}
    assert b"call_id='7'" in (scene.folder / f"{OWN}.aside").read_bytes()


def test_what_others_hold_is_told_later_and_its_file_is_kept(scene: Scene, child: Process) -> None:
    scene.store.held = {"a"}
    child.says(started("a"), ended("a"), started("b"), ended("b"))
    child.dies()
    scene.rounds()
    assert [scene.store.status(name) for name in "ab"] == [None, CallStatus.SUCCEEDED]
    assert str(Name(OWN, 11, 1)) in scene.files()
    scene.store.held = set()
    scene.rounds()
    assert scene.store.status("a") is CallStatus.SUCCEEDED
    assert str(Name(OWN, 11, 1)) not in scene.files()


def test_what_was_told_long_ago_brings_no_call_back_and_its_runs_are_still_known(scene: Scene, child: Process) -> None:
    child.says(started("done"), ended("done"), started("long"))
    scene.rounds(1)
    scene.store.memory.purge_terminal(datetime.now(UTC) + timedelta(days=1))
    # Its side process is started again.
    scene.drainer = Drainer(scene.store, scene.folder, OWN, clock=scene.clock)
    assert scene.drainer.round() == 0
    assert scene.store.status("done") is None
    child.says(started("new"))
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    assert [scene.store.status(name) for name in ("done", "long", "new")] == [
        None,
        CallStatus.FAILED,
        CallStatus.FAILED,
    ]


def test_what_others_held_is_told_by_the_next_drainer_too(scene: Scene, child: Process) -> None:
    scene.store.held = {"a"}
    child.says(started("a"), ended("a"), started("b"))
    scene.rounds(1)
    scene.store.held = set()
    scene.drainer = Drainer(scene.store, scene.folder, OWN, clock=scene.clock)
    scene.drainer.round()
    assert scene.store.status("a") is CallStatus.SUCCEEDED


def test_files_are_removed_when_they_were_told_and_nobody_writes_to_them(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 1000)
    for number in range(10):
        child.says(started(str(number)), ended(str(number)))
    assert len(scene.files()) > 3
    scene.rounds()
    assert len(scene.files()) == 2  # the worker's own, and the one that is written to
    child.dies()
    scene.rounds()
    assert scene.files() == [f"{OWN}.worker"]


def test_a_process_with_the_number_of_a_dead_one_spares_what_that_has_left(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.store.is_away = True
    child.says(started("a"), ended("a"))
    child.dies()
    with pytest.raises(StoreUnavailable):
        scene.drainer.round()
    scene.process(11, monkeypatch).says(started("b"), ended("b"))
    scene.store.is_away = False
    scene.rounds()
    assert [scene.store.status(name) for name in "ab"] == [CallStatus.SUCCEEDED, CallStatus.SUCCEEDED]


def test_who_tidies_away_the_folder_of_a_worker_that_lives_condemns_none_of_its_runs(
    scene: Scene, child: Process
) -> None:
    child.says(started("a"))
    scene.drainer.round()
    shutil.rmtree(scene.folder)
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("a") is CallStatus.STARTED
    child.says(ended("a"))
    scene.rounds()
    assert scene.store.status("a") is CallStatus.SUCCEEDED


@pytest.mark.parametrize("error", [ConfigurationError("bad id"), TypeError("no order"), OverflowError("too large")])
def test_what_the_store_makes_no_sense_of_is_set_aside_and_keeps_nobody_waiting(
    scene: Scene, child: Process, error: Exception
) -> None:
    scene.store.refused, scene.store.refusal = {"7"}, error
    for number in range(10):
        child.says(started(str(number)), ended(str(number)))
    scene.drainer.round()
    done = {str(number) for number in range(10) if scene.store.status(str(number)) is CallStatus.SUCCEEDED}
    assert done == {str(number) for number in range(10)} - {"7"}


def test_what_was_put_off_survives_any_error(scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.store.held = {"a"}
    child.says(started("a"), ended("a"))
    scene.drainer.round()

    def broken(told: Sequence[Told]) -> Sequence[Told]:
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(scene.store, "report_many", broken)
        with pytest.raises(RuntimeError):
            scene.drainer.round()
    scene.store.held = set()
    scene.rounds()
    assert scene.store.status("a") is CallStatus.SUCCEEDED


def test_what_cannot_be_read_is_set_aside_once_however_often_the_store_is_away(scene: Scene, child: Process) -> None:
    child.says(started("a"))
    with (scene.folder / str(Name(OWN, 11, 1))).open("ab") as file:
        file.write(framed(b'"no report"'))
    scene.store.is_away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            scene.drainer.round()
    scene.store.is_away = False
    scene.drainer.round()
    assert (scene.folder / f"{OWN}.aside").read_bytes() == b'"no report"\n'


# --- deaths


def test_a_process_whose_disk_takes_nothing_is_not_taken_for_dead(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.says(started("long"))

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert not child.spool.append(started("other"))
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("long") is CallStatus.STARTED


def test_a_child_that_dies_in_a_run_is_judged_when_its_parent_has_not_spoken(scene: Scene, child: Process) -> None:
    child.says(started("a"))
    child.dies()
    scene.rounds(2, seconds=PARENTS_WORD / 2 - 1)
    assert scene.store.status("a") is CallStatus.STARTED
    scene.rounds(2, seconds=PARENTS_WORD)
    call = scene.store.memory.get_status("a")
    assert call is not None
    assert (call.status, call.reason) == (CallStatus.FAILED, Reason.WORKER_LOST)
    assert "gone" in (call.last_error or "")


def test_what_the_parent_says_of_a_dead_child_stands(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = scene.process(10, monkeypatch)
    child.says(started("a"), Unwound(call_id="a", facts=FACTS, run=RunFacts(token="run of a", pid=1)))
    parent.says(Stopping(call_id="a", run=RunFacts(token="run of a"), reason=Reason.REVOKED))
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    call = scene.store.memory.get_status("a")
    assert call is not None
    assert (call.status, call.reason, call.last_error) == (CallStatus.DISCARDED, Reason.REVOKED, None)


def test_a_run_that_was_to_stop_and_whose_process_died_before_it_could_say_so_has_stopped(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = scene.process(10, monkeypatch)
    child.says(started("a"))
    parent.says(Stopping(call_id="a", run=RunFacts(token="run of a"), reason=Reason.REVOKED))
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    call = scene.store.memory.get_status("a")
    assert call is not None
    assert (call.status, call.reason) == (CallStatus.DISCARDED, Reason.REVOKED)


def test_a_delivery_that_a_second_process_runs_is_not_judged_by_the_death_of_the_first(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.says(started("a"))
    child.dies()
    scene.rounds(2, seconds=1.0)
    second = scene.process(12, monkeypatch)
    second.says(started("a"))
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("a") is CallStatus.STARTED
    second.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("a") is CallStatus.FAILED


@pytest.mark.parametrize(
    ("acks_late", "reject", "status"),
    [
        (False, False, CallStatus.FAILED),
        (True, False, CallStatus.FAILED),  # its parent lives, and acknowledges
        (True, True, CallStatus.RETRYING),
    ],
)
def test_a_parent_that_lives_decides_whether_the_message_comes_again(
    scene: Scene, child: Process, acks_late: bool, reject: bool, status: CallStatus
) -> None:
    child.says(started("a", acks_late=acks_late, reject_on_worker_lost=reject))
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("a") is status


@pytest.mark.parametrize(("acks_late", "status"), [(False, CallStatus.FAILED), (True, CallStatus.RETRYING)])
def test_a_dead_workers_spools_are_taken_over_and_its_runs_judged_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, acks_late: bool, status: CallStatus
) -> None:
    scene.worker(OTHER)
    other = scene.process(22, monkeypatch, OTHER)
    other.says(started("done"), ended("done"), started("cut", acks_late=acks_late))
    scene.rounds()
    assert scene.store.status("cut") is None  # somebody else's, as long as he lives
    scene.dies(OTHER)
    other.dies()
    scene.rounds(2, seconds=drainers.LOOK)
    assert scene.store.status("done") is CallStatus.SUCCEEDED
    assert scene.store.status("cut") is status
    scene.rounds()
    assert scene.files() == [f"{OWN}.worker"]


def test_of_dead_workers_that_had_nothing_to_say_nothing_is_kept(scene: Scene) -> None:
    scene.worker(OTHER)
    scene.rounds()
    assert scene.files() == [f"{OWN}.worker", f"{OTHER}.worker"]
    scene.dies(OTHER)
    scene.rounds()
    assert scene.files() == [f"{OWN}.worker"]
    scene.dies(OWN)
    assert scene.drainer.finish(5)
    assert scene.files() == []


def test_a_run_whose_message_comes_again_leaves_an_attempt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.worker(OTHER)
    other = scene.process(22, monkeypatch, OTHER)
    other.says(started("cut", acks_late=True))
    scene.dies(OTHER)
    other.dies()
    scene.rounds()
    (attempt,) = scene.store.memory.attempts("cut")
    assert attempt.outcome is AttemptOutcome.INTERRUPTED


def test_a_run_that_goes_on_over_two_files_is_judged_once_and_only_when_its_process_is_dead(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 1000)
    child.says(started("long"))
    for number in range(10):
        child.says(started(str(number)), ended(str(number)))
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("long") is CallStatus.STARTED
    # Another drainer, that has never seen the first file.
    scene.drainer = Drainer(scene.store, scene.folder, OWN, clock=scene.clock)
    scene.rounds()
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    assert scene.store.status("long") is CallStatus.FAILED


def test_where_reports_were_dropped_it_is_said_that_nobody_knows_the_end(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.says(started("a"))
    monkeypatch.setattr(child.spool, "_limit", 1)
    child.says(ended("a"))
    assert scene.drainer.round() == 1
    assert scene.drainer.backlog().dropped == 1
    child.dies()
    scene.rounds(4, seconds=PARENTS_WORD)
    call = scene.store.memory.get_status("a")
    assert call is not None
    assert (call.status, call.reason) == (CallStatus.DISCARDED, Reason.LOST)
    assert "not known" in (call.last_error or "")
    assert scene.drainer.backlog().dropped == 1


def test_a_verdict_that_the_store_does_not_hear_is_said_again(scene: Scene, child: Process) -> None:
    child.says(started("a"))
    child.dies()
    scene.rounds(1)
    scene.clock.now += PARENTS_WORD
    scene.store.is_away = True
    with pytest.raises(StoreUnavailable):
        scene.drainer.round()
    scene.store.is_away = False
    scene.rounds()
    assert scene.store.status("a") is CallStatus.FAILED


def test_what_a_dead_process_has_torn_off_is_left_out(scene: Scene, child: Process) -> None:
    child.says(started("a"), ended("a"))
    path = scene.folder / str(Name(OWN, 11, 1))
    whole = path.read_bytes()
    child.dies()
    path.write_bytes(whole + framed(b"a report that was cut short")[:-7])
    scene.rounds()
    assert scene.store.status("a") is CallStatus.SUCCEEDED
    assert scene.files() == [f"{OWN}.worker"]


def test_half_a_record_is_read_when_the_other_half_has_come(scene: Scene, child: Process) -> None:
    child.says(started("a"), ended("a"))
    path = scene.folder / str(Name(OWN, 11, 1))
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(whole) - 10)
        scene.drainer.round()
        assert scene.store.status("a") is CallStatus.STARTED
        file.seek(0, os.SEEK_END)
        file.write(whole[-10:])
    assert scene.drainer.has_news()
    scene.drainer.round()
    assert scene.store.status("a") is CallStatus.SUCCEEDED


def test_what_another_version_has_written_is_kept_complained_of_once_and_waited_for_by_nobody(
    scene: Scene, child: Process, caplog: pytest.LogCaptureFixture
) -> None:
    child.says(started("a"), ended("a"))
    path = scene.folder / str(Name(OWN, 11, 1))
    child.dies()
    path.write_bytes(path.read_bytes() + bytes([99]) + b"from the future")
    scene.rounds()
    assert scene.store.status("a") is CallStatus.SUCCEEDED
    assert path.name in scene.files()
    assert len([record for record in caplog.records if "another version" in record.message]) == 1
    assert scene.drainer.finish(0)


def test_two_drainers_that_take_over_the_same_leave_it_as_one_would(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.worker(OTHER)
    other = scene.process(22, monkeypatch, OTHER)
    other.says(started("done"), ended("done"), started("cut"))
    scene.dies(OTHER)
    other.dies()
    second = Drainer(scene.store, scene.folder, "ccc", clock=scene.clock)
    for _ in range(4):
        scene.drainer.round()
        second.round()
        scene.clock.now += drainers.LOOK
    assert [scene.store.status(name) for name in ("done", "cut")] == [CallStatus.SUCCEEDED, CallStatus.FAILED]
    record = scene.store.memory._find("cut", None).record
    assert record is not None
    assert (record.runs, record.late_runs) == (1, 0)
    assert scene.files() == [f"{OWN}.worker"]


def test_at_its_end_a_drainer_tells_all_that_is_left(scene: Scene, child: Process) -> None:
    child.says(started("a"), ended("a"), started("b"))
    child.dies()
    scene.dies(OWN)
    assert scene.drainer.finish(5)
    assert [scene.store.status(name) for name in "ab"] == [CallStatus.SUCCEEDED, CallStatus.FAILED]
    assert scene.files() == []


def test_whoever_has_no_worker_takes_over_what_dead_ones_have_left(
    scene: Scene, child: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.worker(OTHER)
    other = scene.process(22, monkeypatch, OTHER)
    other.says(started("dead"), ended("dead"))
    child.says(started("alive"))
    scene.dies(OTHER)
    other.dies()
    assert Drainer(scene.store, scene.folder).finish(5)
    assert [scene.store.status(name) for name in ("dead", "alive")] == [CallStatus.SUCCEEDED, None]
