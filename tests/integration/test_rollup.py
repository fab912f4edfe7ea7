"""Real workers count what has ended, without anybody asking them to."""

import pytest
from django.db.models import Sum

from django_app.models import Call, HourlyRollup
from django_app.rollup import roll_up
from tests.integration.harness import eventually

pytestmark = [pytest.mark.integration, pytest.mark.services, pytest.mark.slow]

#: Seconds: two rounds of counting, and what a busy machine adds.
WITHIN = 90


@pytest.mark.parametrize("recorder", ["spool", "sync"])
def test_two_workers_count_each_call_once(make_room, recorder):
    room = make_room()
    # What others have left in this database is not for these workers to count.
    roll_up(using=room.alias)
    before = counted(room)
    for name in ("one", "two"):
        room.worker(name=name, concurrency=1, tracking={"RECORDER": recorder})
    calls = [room.tasks.add.delay(number, 1).id for number in range(30)]
    for call_id in calls:
        room.wait_for(call_id)
    mine = Call.objects.using(room.alias).filter(pk__in=calls)
    eventually("all of them are counted", lambda: not mine.filter(counted_at=None).exists(), WITHIN)
    assert counted(room) - before == len(calls)


def counted(room):
    return HourlyRollup.objects.using(room.alias).aggregate(Sum("calls"))["calls__sum"] or 0
