"""`calls.enqueue_many` with real brokers, databases and workers."""

import json
import os
import subprocess

import pytest
from django.db import transaction
from kombu import Queue

from django_app.models import Call
from lrp_celery import CallStatus, PublishFailed, calls
from tests.integration import hostile, tasks
from tests.integration.cells import BASE, MARIADB, RABBITMQ, SQLITE, on
from tests.integration.crashes import QUICK
from tests.integration.harness import eventually

MANY = 300


@on(RABBITMQ)
def test_what_rabbitmq_refuses_is_named(cell):
    # Nobody consumes it, and it takes three.
    small = Queue(f"small-{os.getpid()}", queue_arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    ids = [f"small-{os.getpid()}-{n}" for n in range(6)]
    with pytest.raises(PublishFailed, match="nack") as failed:
        calls.enqueue_many(tasks.add.s(n).set(task_id=each, queue=small) for n, each in enumerate(ids))
    assert failed.value.published == tuple(ids[:3])
    assert failed.value.uncertain == tuple(ids[3:])
    rows = Call.objects.using(cell.alias).filter(pk__in=ids)
    assert set(rows.filter(published_at=None).values_list("pk", flat=True)) == set(ids[3:])
    with cell.app.connection_for_write() as connection:
        assert small(connection.default_channel).delete() == 3
    rows.delete()


class Regret(Exception):
    """Rolls a transaction back."""


def until_all(cell, ids, status="succeeded"):
    def look():
        return Call.objects.using(cell.alias).filter(pk__in=ids, status=status).count() == len(ids)

    eventually(f"{len(ids)} calls are {status}", look, within=60)


@on(BASE, RABBITMQ, MARIADB, SQLITE)
def test_many_calls_of_procedures_and_other_tasks_run_once_each(cell):
    signatures = [tasks.add.s(n, y=1) if n % 2 else hostile.once.s(n) for n in range(MANY)]
    made = calls.enqueue_many(signatures, chunk=100)
    until_all(cell, made)
    assert hostile.once.get_result(made[0]) == 0
    assert cell.runs(made[0]) == 1
    rows = Call.objects.using(cell.alias).filter(pk__in=made)
    assert set(rows.values_list("owned", "runs", "late_runs")) == {(True, 1, 0), (False, 1, 0)}
    row = rows.get(pk=made[1])
    assert row.target_summary == "1, y=1"
    assert row.source_script.endswith(":test_many_calls_of_procedures_and_other_tasks_run_once_each")
    assert row.enqueued_at <= row.started_at


@on(BASE, RABBITMQ)
def test_options_reach_the_worker(cell):
    made = calls.enqueue_many(
        [
            tasks.add.s(1).set(task_id=f"chosen-{os.getpid()}", priority=5, headers={"tenant": "a"}),
            tasks.add.s(2).set(countdown=0.2),
            tasks.add.s(3).set(expires=60, link=tasks.add.s(1)),
        ]
    )
    until_all(cell, made)
    assert made[0] == f"chosen-{os.getpid()}"
    linked = Call.objects.using(cell.alias).filter(parent_id=made[2])
    eventually("the link runs, too", lambda: linked.filter(status="succeeded").exists())


@on(BASE, RABBITMQ)
def test_a_transaction_takes_back_procedures_and_sends_them_after_its_commit(cell):
    with transaction.atomic(using=cell.alias):
        with pytest.raises(Regret), transaction.atomic(using=cell.alias):
            lost = calls.enqueue_many(hostile.once.s(n) for n in range(3))
            raise Regret
        kept = calls.enqueue_many(hostile.once.s(n) for n in range(3))
        assert cell.truth(kept[0]) == []
    until_all(cell, kept)
    assert all(map(cell.has_no_row, lost))
    assert not any(call_id in cell.processes[0].log() for call_id in lost)


DYING = """
import os, django
django.setup()
from tests.integration.app import app
app.finalize()
from lrp_celery import calls
from lrp_celery.procedures import enqueuing, publishing
from tests.integration import hostile, tasks

enqueuing.send_all = publishing.send_all = lambda *_, **__: os._exit(9)
calls.enqueue_many([hostile.once.s(1).set(task_id="owned"), tasks.add.s(1).set(task_id="plain")])
"""


@pytest.mark.integration
@pytest.mark.services
def test_a_publisher_that_dies_between_rows_and_messages_has_left_rows(quick_room):
    room = quick_room()
    with pytest.raises(subprocess.CalledProcessError, match="status 9"):
        # Which of the two messages it dies at makes no difference: neither is out.
        room.run_script(DYING, LRP_TEST_TRACKING=json.dumps(QUICK))
    plain = Call.objects.using(room.alias).get(pk="plain")
    assert (plain.status, plain.runs) == (CallStatus.SUBMITTED, 0), "its row was there before any message"
    room.worker(tracking=QUICK)
    until_all(room, ["owned"])


@pytest.mark.integration
@pytest.mark.services
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_broker_that_is_down_leaves_procedures_to_the_relay_and_names_other_tasks(quick_room, request, broker):
    server = request.getfixturevalue(f"private_{broker}")
    options = {"confirm_publish": True} if broker == "rabbitmq" else {}
    policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1}
    room = quick_room(broker, broker_url=server.url, broker_transport_options=options, task_publish_retry_policy=policy)
    before = calls.enqueue_many(tasks.add.s(n) for n in range(3))
    server.kill()
    owned = calls.enqueue_many(hostile.once.s(n) for n in range(20))
    assert not Call.objects.using(room.alias).filter(pk__in=owned).exclude(published_at=None).exists()
    with pytest.raises(PublishFailed) as failed:
        calls.enqueue_many(tasks.add.s(n).set(task_id=f"down-{n}") for n in range(3))
    error = failed.value
    assert error.published == ()
    assert {*error.uncertain, *error.unpublished} == {"down-0", "down-1", "down-2"}
    marked = Call.objects.using(room.alias).filter(pk__startswith="down-", published_at=None)
    assert marked.exclude(last_error=None).count() == 3
    server.launch()
    room.worker()
    until_all(room, owned)
    if broker == "rabbitmq":
        until_all(room, before)
    # The connection that broke is not the one that is used now.
    until_all(room, calls.enqueue_many(tasks.add.s(n) for n in range(3)))
    Call.objects.using(room.alias).filter(pk__in=["down-0", "down-1", "down-2", *before]).delete()
