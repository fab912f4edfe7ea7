"""What a process writes to its spool, and what is left of it when it is killed."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrp_celery.core.locks import is_held
from lrp_celery.tracking.recorder import losses
from lrp_celery.tracking.reports import Ended, Outcome, Report, RunFacts, Started
from lrp_celery.tracking.spool import spool as spools
from lrp_celery.tracking.spool.bell import Bell, Ear
from lrp_celery.tracking.spool.files import Entry, Name, Source
from lrp_celery.tracking.spool.frames import LONGEST
from lrp_celery.tracking.spool.places import SpoolTerms, folder_of
from lrp_celery.tracking.spool.spool import Spool
from lrp_celery.tracking.status import CallStatus
from tests.tracking.histories import FACTS

DONE = Outcome(status=CallStatus.SUCCEEDED)
ROOT = Path(__file__).resolve().parents[2]


def started(name: str) -> Started:
    return Started(call_id=name, facts=FACTS, run=RunFacts(token=f"run of {name}", pid=os.getpid()))


def ended(name: str) -> Ended:
    return Ended(call_id=name, facts=FACTS, run=RunFacts(token=f"run of {name}"), outcome=DONE)


def open_in(folder: Path, limit: int = 10**9) -> Spool:
    return Spool(folder, place="here", boot="b00", worker="w1", limit=limit, bell=Bell())


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = open_in(tmp_path)
    yield made
    made.close()


def sources(folder: Path) -> list[Source]:
    names = sorted(name for path in folder.iterdir() if (name := Name.of(path.name)) is not None)
    return [Source(folder / str(name), name) for name in names]


def reports_in(folder: Path) -> list[Report]:
    found: list[Report] = []
    for source in sources(folder):
        for entry in source.read(10**6):
            assert isinstance(entry, Entry)
            found.append(entry.report)
        source.close()
    return found


def test_what_was_written_is_read_in_its_order(spool: Spool, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert spool.append(started(name))
    assert spool.append(ended("a"))
    first, second, third = reports_in(tmp_path)
    assert (first, second) == (started("a"), started("b"))
    # What the process has said of the call at the start of its run is not repeated.
    assert third == replace(ended("a"), facts=None)


def test_the_end_of_a_run_that_began_elsewhere_says_all(spool: Spool, tmp_path: Path) -> None:
    spool.append(ended("a"))
    assert reports_in(tmp_path) == [ended("a")]


def test_only_its_owner_may_read_a_spool(spool: Spool, tmp_path: Path) -> None:
    spool.append(started("a"))
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_begins_with_what_is_under_way(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 1500)
    spool.append(started("long"))
    for number in range(5):
        spool.append(started(str(number)))
        spool.append(ended(str(number)))
    *old, newest = sources(tmp_path)
    assert old
    assert not any(source.is_written_to for source in old)
    assert newest.is_written_to
    begins = newest.read(1)[0]
    assert isinstance(begins, Entry)
    assert begins.report == started("long")


def test_a_full_spool_drops_what_is_new_counts_it_and_takes_more_when_it_was_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 1000)
    monkeypatch.setattr(spools, "PAUSE", 0.0)
    spool, lost = open_in(tmp_path, limit=3000), losses.counts().get("report, for its spool is full", 0)
    for number in range(50):
        assert spool.append(started(str(number)))
    there = sources(tmp_path)
    dropped = max(source.dropped for source in there)
    assert dropped == losses.counts()["report, for its spool is full"] - lost
    # New files begin with what is under way, which is there twice then.
    assert 50 - dropped == len({report.call_id for report in reports_in(tmp_path)}) > 3
    assert sum(source.size for source in there) < 3000 + 1000
    for source in there[:-1]:
        source.path.unlink()
    spool.append(started("after"))
    assert started("after") in reports_in(tmp_path)
    spool.close()


def test_a_disk_that_takes_nothing_is_told_to_the_recorder_and_said_once(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool.append(started("before"))

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert [spool.append(started("during")) for _ in range(3)] == [False] * 3
    assert len([record for record in caplog.records if "takes nothing" in record.message]) == 1
    monkeypatch.setattr(spool, "_unusable_until", 0.0)
    assert spool.append(started("after"))
    assert started("before") in reports_in(tmp_path)
    assert started("after") in reports_in(tmp_path)


def test_after_half_a_record_nothing_more_is_written_to_that_file(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append(started("before"))
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
        assert not spool.append(started("half"))
    monkeypatch.setattr(spool, "_unusable_until", 0.0)
    assert spool.append(started("after"))
    assert next(report.call_id for report in reports_in(tmp_path)) == "before"
    assert "after" in {report.call_id for report in reports_in(tmp_path)}


WRITER = """
import sys
from pathlib import Path
from tests.tracking.test_spool_files import open_in, started
spool = open_in(Path(sys.argv[1]))
for number in range(10**9):
    spool.append(started(str(number)))
    print(number, flush=True)
"""


def killed_after(lines: int, folder: Path) -> list[str]:
    """Let a process write, kill it, and return what it said that it had written."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    return [line.strip() for line in said if line.endswith("\n")]


def test_what_was_written_survives_a_kill_and_its_lock_does_not(tmp_path: Path) -> None:
    said = killed_after(200, tmp_path)
    found = [report.call_id for report in reports_in(tmp_path)]
    assert found[: len(said)] == said
    assert len(found) <= len(said) + 1
    assert not any(source.is_written_to for source in sources(tmp_path))


FORKER = """
import os, subprocess, sys, time
from pathlib import Path
from tests.tracking.test_spool_files import open_in, started
spool = open_in(Path(sys.argv[1]))
spool.append(started("parent"))
if os.fork() == 0:
    if len(sys.argv) > 2:
        spool.append(started("child"))
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(60)
os.write(1, b"parent\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("writes", [False, True])
def test_a_forked_child_has_files_of_its_own_and_does_not_keep_its_parents_lock(tmp_path: Path, writes: bool) -> None:
    arguments = [sys.executable, "-c", FORKER, str(tmp_path), *(["writes"] if writes else [])]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = next(int(line) for line in (parent.stdout.readline(), parent.stdout.readline()) if line != "parent\n")
        parent.kill()
        parent.wait()
        try:
            held = {source.name.pid for source in sources(tmp_path) if source.is_written_to}
            assert held == ({child} if writes else set())
        finally:
            os.kill(child, signal.SIGKILL)
    names = [report.call_id for report in reports_in(tmp_path)]
    assert sorted(names) == (["child", "parent"] if writes else ["parent"])


def test_a_bell_wakes_whoever_sleeps_also_when_it_rang_on_his_way_to_bed() -> None:
    bell = Bell()
    ear = Ear(bell.ear, bell.flag)
    began = time.monotonic()

    def rings() -> bool:
        bell.ring()
        return False

    ear.sleep(30, unless=rings)
    ear.sleep(30, unless=lambda: True)
    assert time.monotonic() - began < 10


def test_nobody_rings_for_who_is_awake() -> None:
    bell = Bell()
    ear = Ear(bell.ear, bell.flag)
    for _ in range(10):
        bell.ring()
    began = time.monotonic()
    ear.sleep(0.1, unless=lambda: False)
    assert time.monotonic() - began >= 0.1


def test_each_store_has_a_folder_of_its_own_that_is_only_ours(tmp_path: Path) -> None:
    terms = SpoolTerms(folder=str(tmp_path / "spools"))
    one, other = folder_of("one", terms), folder_of("postgresql://secret@host", terms)
    assert one != other
    assert one == folder_of("one", terms)
    assert "secret" not in str(other)
    assert stat.S_IMODE(one.stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    terms = SpoolTerms(folder=str(tmp_path))
    folder_of("here", terms).chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        folder_of("here", terms)


def test_a_link_that_somebody_has_laid_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / f"lrp-celery-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        folder_of("here", SpoolTerms())


def test_a_file_is_known_by_its_name_only_if_it_is_a_spools() -> None:
    assert Name.of(str(Name("abc", 12, 3))) == Name("abc", 12, 3)
    others: list[Any] = ["abc.worker", "abc.12.3.spool.99.new", "x.spool", ""]
    assert [Name.of(other) for other in others] == [None] * len(others)


def test_a_lock_is_held_only_while_its_process_lives(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "nothing")
    spool = open_in(tmp_path)
    spool.append(started("a"))
    (path,) = tmp_path.iterdir()
    assert is_held(path)
    spool.close()
    assert not is_held(path)


def test_a_report_that_nobody_would_read_is_left_to_the_recorder(spool: Spool, tmp_path: Path) -> None:
    spool.append(started("before"))
    assert not spool.append(started("x" * (LONGEST + 1)))
    assert spool.append(started("after"))
    assert [report.call_id for report in reports_in(tmp_path)] == ["before", "after"]


def test_files_that_are_links_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    path = tmp_path / str(Name("abc", 1, 1))
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic|levels"):
        Source(path, Name("abc", 1, 1))
