"""Ids that Celery makes: they sort by time, whoever asks, and nobody's own is touched."""

import time
from uuid import UUID, uuid4

import pytest
from celery import Celery, canvas, chain, chord, group
from celery.app import base

from lrp_celery import LrpCelery
from lrp_celery.tracking import MemoryTrackingStore, ids
from lrp_celery.tracking.ids import sort_ids


@pytest.fixture
def known():
    app = Celery("ids", broker="memory://", backend="cache+memory://", set_as_current=False)
    tracked = LrpCelery(app, MemoryTrackingStore())

    @app.task(name="ids.add", shared=False)
    def add(*values):
        """Be called."""

    app.finalize()
    add.rows = lambda: tracked.store._records
    yield add
    tracked.close()
    app.close()


def version(call_id):
    return UUID(call_id).version


def test_a_call_that_nobody_named_has_an_id_that_sorts_by_time(known):
    made = []
    for publish in (
        known.delay,
        lambda: known.apply_async((1,)),
        lambda: known.app.send_task("ids.add"),
        known.s().delay,
    ):
        made.append(publish())
        time.sleep(0.002)
    assert [version(result.id) for result in made] == [7] * 4
    assert [result.id for result in made] == sorted(result.id for result in made)
    assert list(known.rows()) == [result.id for result in made]


def test_an_id_that_somebody_chose_holds(known):
    chosen = str(uuid4())
    assert known.apply_async(task_id=chosen).id == chosen
    signature = known.s().set(task_id="mine")
    assert (signature.freeze().id, signature.apply_async().id) == ("mine", "mine")


def test_members_of_canvas_have_such_ids_and_their_results_find_them(known):
    made = chain(known.si(1), group(known.si(2), known.si(3)), known.si(4)).apply_async()
    results = [made, *made.parent.results, made.parent.parent] if made.parent.parent else [made, made.parent]
    assert {version(result.id) for result in results} == {7}
    pair = group(known.si(1), known.si(2)).apply_async()
    assert [version(each.id) for each in pair.results] == [7, 7]
    assert all(each.id in known.rows() for each in pair.results)
    joined = chord([known.si(1), known.si(2)], known.s()).apply_async()
    assert version(joined.id) == 7
    assert version(joined.parent.id) == 7


def test_a_frozen_signature_keeps_its_id(known):
    signature = known.s(1)
    frozen = signature.freeze()
    assert version(frozen.id) == 7
    assert signature.apply_async().id == frozen.id


def test_what_runs_at_once_keeps_celerys_own(known):
    assert version(known.apply().id) == 4
    known.app.conf.task_always_eager = True
    assert version(known.delay().id) == 4


def test_a_function_that_somebody_else_put_there_stays(known, monkeypatch):
    monkeypatch.setattr(base, "uuid", lambda: "theirs")
    sort_ids()
    assert known.delay().id == "theirs"
    assert canvas.uuid is ids.uuid
    sort_ids()
    assert ids.uuid(uuid4).count("-") == 4
    assert version(ids.uuid(uuid4)) == 4
