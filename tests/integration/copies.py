"""Copies of a call's message: sending them, and knowing when they are over and that they have changed nothing."""

from django_app.models import Call, Payload
from lrp_celery.procedures.envelope import Envelope
from tests.integration.harness import eventually

#: What a worker's renewals and its watch change of a call that only runs, and its count of one that has ended.
RENEWED = {"lease_until", "attend_at", "updated_at", "version", "counted_at"}


def envelope_of(room, call_id):
    """Return the message of the present turn, as the relay would send it."""
    row = room.find(call_id)
    stored = Payload.objects.using(room.alias).get(pk=call_id)
    return Envelope.from_json(stored.message).of_generation(row.generation)


def publish(room, envelope, times=1):
    for _ in range(times):
        envelope.publish(room.app)


def ended(room, call_id):
    """Return how many deliveries of a call the room's workers have dealt with."""
    log = "".join(process.log() for process in room.processes)
    lines = [line for line in log.splitlines() if f"[{call_id}] " in line]
    return sum(
        any(word in line for word in ("] ignored", "] succeeded", "] raised", "] retry: ", "] reject "))
        for line in lines
    )


def until_ended(room, call_id, times):
    eventually(
        f"{times} deliveries of {call_id} are over",
        lambda: ended(room, call_id) >= times,
        tell=lambda: f"{ended(room, call_id)}\n{room.processes[0].log_end()}",
    )


def facts(room, call_id):
    """Return all that the database holds of a call, but for what its worker's side process changes."""
    row = Call.objects.using(room.alias).filter(pk=call_id).values().first()
    kept = {} if row is None else {name: value for name, value in row.items() if name not in RENEWED}
    return kept, [attempt.pk for attempt in room.attempts(call_id)]
