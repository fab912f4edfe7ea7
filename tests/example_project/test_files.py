"""The broker and the result store of plain files never show a file that is still being written."""

import fcntl
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest
from kombu import Connection

files = pytest.importorskip("demo.files")

#: Large enough to be seen half-written, were it written in place.
BODY = "x" * 100_000
MESSAGES = 60


@pytest.fixture
def broker(tmp_path):
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    options = {
        "data_folder_in": str(tmp_path / "messages"),
        "data_folder_out": str(tmp_path / "messages"),
        "control_folder": str(tmp_path / "control"),
    }
    with Connection(transport=files.Transport, transport_options=options) as connection:
        yield connection


def test_a_message_is_read_whole_or_not_at_all(broker):
    reader, writer = broker.channel(), broker.channel()

    def read(number):
        got = []
        while len(got) < number:
            try:
                got.append(reader._get("atlas"))
            except Empty:
                continue
        return got

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, MESSAGES)
            for number in range(MESSAGES):
                writer._put("atlas", {"number": number, "body": BODY})
            got = reading.result(60)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(message["number"] for message in got) == list(range(MESSAGES))
    assert {message["body"] for message in got} == {BODY}


@pytest.mark.parametrize(
    "use",
    [lambda c: c._queue_bind("atlas", "", "", "queue"), lambda c: c.get_table("atlas")],
    ids=["bind", "look"],
)
def test_the_table_of_an_exchange_is_never_read_while_it_is_written(broker, tmp_path, use):
    channel = broker.channel()
    with ThreadPoolExecutor(1) as pool, (tmp_path / "control" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process does while it writes
        using = pool.submit(use, channel)
        with pytest.raises(TimeoutError):
            using.result(0.2)
        fcntl.flock(lock, fcntl.LOCK_UN)
        using.result(10)
    channel._queue_bind("atlas", "", "", "another queue")
    assert "another queue" in {entry.queue for entry in channel.get_table("atlas")}


def test_a_result_is_replaced_at_once(tmp_path):
    from celery import Celery

    app = Celery(set_as_current=False)
    store = files.ResultBackend(app=app, url=f"file://{tmp_path}")
    store.set(b"key", "first")
    opened = (tmp_path / "key").open()
    store.set(b"key", b"second")
    with opened:
        assert opened.read() == "first"
    assert store.get(b"key") == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
