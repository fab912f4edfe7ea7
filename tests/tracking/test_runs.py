"""What a process remembers of its runs."""

from lrp_celery.tracking.record import Turn
from lrp_celery.tracking.reports import RunFacts
from lrp_celery.tracking.runs import Running, Runs, new_token


def running(call_id):
    run = RunFacts(token=new_token())
    return Running(call_id=call_id, turn=Turn(), run=run, facts=None, secrets=frozenset(), inline=True)


def test_a_run_inside_a_run_of_the_same_call_ends_alone():
    runs, outer, inner = Runs(), running("a"), running("a")
    runs.begin(outer)
    runs.begin(inner)
    assert runs.find("a") is inner
    runs.end("a")
    assert runs.find("a") is outer
    runs.end("a")
    assert runs.find("a") is outer, "for the signals that come after the end"
    assert runs.find("b") is None


def test_tokens_differ_and_sort_by_time():
    tokens = [new_token() for _ in range(100)]
    assert len(set(tokens)) == 100
    assert tokens[0] < tokens[-1]
