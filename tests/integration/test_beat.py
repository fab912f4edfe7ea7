"""Calls that a schedule makes, in a real beat."""

from tests.integration.cells import BASE, MATRIX, RABBITMQ, on
from tests.integration.harness import HOST, eventually

NAME = "every second"


@on(BASE, RABBITMQ, MATRIX)
def test_calls_that_beat_makes_name_their_schedule(cell):
    entry = {"task": "tests.add", "schedule": 1.0, "args": (40, 2)}
    beat = cell.beat(beat_schedule={NAME: entry}, beat_max_loop_interval=1)
    node = f"gen{beat.pid}@{HOST}"
    (first, *_) = eventually("beat has made a call", lambda: cell.found(source_node=node), tell=beat.log_end)
    cell.expect(first.call_id, "succeeded", schedule=NAME, summary="40, 2", source=(HOST, NAME, node))
    # Whatever beat is doing at this moment is lost, and not looked at.
    beat.stop()
