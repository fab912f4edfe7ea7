"""A process that is dead may have left word of how its call ended."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from celery import Celery

from lrp_celery import LrpCelery
from lrp_celery.core.clock import ManualClock
from lrp_celery.core.locks import make_held
from lrp_celery.procedures import caretaker, rounds, steadiness
from lrp_celery.procedures.caretaker import Caretaker
from lrp_celery.procedures.runtime import runtime_of
from lrp_celery.tracking import MemoryTrackingStore
from lrp_celery.tracking.callstore import WorkerFacts
from lrp_celery.tracking.owned import Delivery, Order, Settled, Settlement, Terms
from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import CallFacts, Outcome, RunFacts
from lrp_celery.tracking.spool.bell import Bell
from lrp_celery.tracking.spool.drainer import Drainer
from lrp_celery.tracking.spool.files import has_left
from lrp_celery.tracking.spool.spool import Spool
from lrp_celery.tracking.status import CallStatus
from tests.tracking.test_merge import NOON

OURS = "aaaaaaaaaaaa"
PID = 7
FACTS = CallFacts(task="t")
TERMS = Terms(app="left")

app = Celery("left", broker="memory://", set_as_current=False)


class Dead:
    """Processes that are all gone for sure."""

    def runs(self):
        return []

    def tell(self, call_id, run, reason, cause, *, force=False):
        return False

    def is_dead(self, pid):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock(NOON)
    time = SimpleNamespace(monotonic=lambda: clock.now().timestamp())
    for module in (caretaker, rounds, steadiness):
        monkeypatch.setattr(module, "time", time)
    return clock


def test_a_run_whose_outcome_waits_in_a_spool_is_not_lost_with_its_process(tmp_path, clock, monkeypatch):
    store = MemoryTrackingStore(clock)
    lrp = LrpCelery(app, store=store)
    run = RunFacts(token=f"{1:014x}-{OURS}-1-1", worker="w", pid=PID)
    store.insert(Order(call_id="x", facts=FACTS, terms=TERMS, message="{}"))
    store.claim(Delivery(call_id="x", turn=Turn(), generation=0, facts=FACTS, terms=TERMS, run=run))
    # The store was away when it ended: it left word, and was replaced by another process.
    alive = make_held(tmp_path / f"{OURS}.worker")
    spool = Spool(tmp_path, place="p", boot=OURS, worker="w", limit=10**6, bell=Bell())
    settlement = Settlement(outcome=Outcome(status=CallStatus.SUCCEEDED), result="7")
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: PID)
        spool.append(Settled(call_id="x", turn=Turn(), run=run, settlement=settlement))
    spool.close()
    clock.advance(timedelta(seconds=15))  # a lease and a half
    facts = WorkerFacts(boot_id=OURS, name="w", host="h", pid=1, pool="prefork")
    caring = Caretaker(app, runtime_of(app), facts, Dead(), has_left=lambda pid: has_left(tmp_path, OURS, pid))
    caring.round()
    assert store.get_status("x").status is CallStatus.STARTED
    drainer = Drainer(store, tmp_path, OURS)
    drainer.round()
    assert store.get_status("x").status is CallStatus.SUCCEEDED
    # What was told is removed: of who has left nothing, all is known.
    drainer.round()
    assert not has_left(tmp_path, OURS, PID)
    alive.let_go()
    lrp.close()
