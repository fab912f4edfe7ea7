"""Breaks the product on purpose, one way at a time, and expects a named test to turn red.

    python tests/mutants.py            every mutant
    python tests/mutants.py guard      those whose name contains "guard"

Each mutant is applied to a copy of the tree, in which only its own test runs. A mutant whose
text is no longer found, or whose test stays green, is a failure: then the test does not test
what it says, or this list is out of date.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("lrp_celery", "django_app", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@dataclass(frozen=True)
class Mutant:
    """`before` in `file` becomes `after`; then `test` (a file, and after a blank what -k takes) must fail."""

    name: str
    file: str
    before: str
    after: str
    test: str


MERGE = "lrp_celery/tracking/merge.py"
STEPS = "lrp_celery/tracking/steps.py"
MEMORY = "tests/conformance/test_tracking_memory.py"
SQLITE = "tests/conformance/test_tracking_django.py"

PROPERTIES = "tests/tracking/test_merge_properties.py"
OWNED = "lrp_celery/tracking/owned.py"
RULES = "tests/tracking/test_owned.py"
LIVES = "tests/tracking/test_owned_properties.py"
CALLS = "tests/conformance/test_calls_memory.py"
WIRING = "tests/django_app/test_wiring.py"
DRAINER = "tests/tracking/test_spool_drainer.py"
HTTP_RIGHTS = "tests/http/test_rights.py"
AT_ONCE = "django_app/stores/at_once.py"
AT_ONCE_TESTS = "tests/django_app/test_at_once.py"
ENDED_TESTS = "tests/django_app/test_call_ended.py"

MUTANTS = [
    Mutant(
        "guard: a second end replaces the first",
        MERGE,
        "    if known.record.status.is_terminal:\n        return None\n    return Merged(settle(known.record,",
        "    return Merged(settle(known.record,",
        f"{MEMORY} test_trk_14_the_first_end_stands",
    ),
    Mutant(
        "guard: an attempt reopens what has ended",
        MERGE,
        "    if record.status.is_terminal:\n        return None\n    if (retries, report.status.rank)",
        "    if (retries, report.status.rank)",
        f"{MEMORY} test_trk_09",
    ),
    Mutant(
        "guard: a run that begins late reopens what has ended",
        STEPS,
        "    if record.terminal_at is not None:\n        return _after_the_end(",
        "    if record.terminal_at is None and False:\n        return _after_the_end(",
        f"{MEMORY} test_trk_04",
    ),
    Mutant(
        "guard: the end of a run that was overtaken replaces the first",
        MERGE,
        "    if record.status.is_terminal:\n        return _refused(record, ended)\n",
        "",
        "tests/tracking/test_merge.py",
    ),
    Mutant(
        "rank: the count of retries goes back",
        MERGE,
        "(retries, report.status.rank) < (record.retries, record.status.rank)",
        "report.status.rank < record.status.rank",
        f"{MEMORY} test_trk_11_the_count_never_goes_back",
    ),
    Mutant(
        "turn: the start of an earlier turn overtakes a later one",
        STEPS,
        "        return attempt.turn < record.turn\n",
        "        return False\n",
        f"{PROPERTIES} test_any_subset",
    ),
    Mutant(
        "turn: a message of an old turn sends the call back",
        MERGE,
        "    if turn <= record.turn:\n        return None\n",
        "    if turn == record.turn:\n        return None\n",
        f"{PROPERTIES} test_any_subset",
    ),
    Mutant(
        "stop: a signal that was sent counts as an end",
        MERGE,
        "record.run_outcome is AttemptOutcome.INTERRUPTED or (report.certain and record.is_running)",
        "record.is_running",
        PROPERTIES,
    ),
    Mutant(
        "late: an extra run after the end is not counted",
        STEPS,
        "replace(record, late_runs=record.late_runs + 1), (replace(attempt, late=True),)",
        "record, (attempt,)",
        "tests/tracking/test_merge.py",
    ),
    Mutant(
        "swap: memory writes over what others wrote meanwhile",
        "lrp_celery/tracking/memory.py",
        "if _version(self._records.get(call_id)) != _version(replaces):",
        "if replaces is None and call_id in self._records:",
        "tests/tracking/test_memory.py",
    ),
    Mutant(
        "swap: Django writes over what others wrote meanwhile",
        AT_ONCE,
        'unchanged = {"call_id": record.call_id, "version": replaces.version}',
        'unchanged = {"call_id": record.call_id}',
        f"{SQLITE} (test_trk_24 or test_trk_15 or test_trk_14) and not postgres and not mysql and not mariadb",
    ),
    Mutant(
        "purge: memory deletes what ended at the threshold",
        OWNED,
        "return record.terminal_at < older_than",
        "return record.terminal_at <= older_than",
        f"{MEMORY} test_trk_19_purge_deletes_what_ended_strictly_before",
    ),
    Mutant(
        "purge: Django deletes what ended at the threshold",
        "django_app/purge.py",
        "filter(status=status, terminal_at__lt=threshold)",
        "filter(status=status, terminal_at__lte=threshold)",
        "tests/django_app/test_purge.py test_trk_19",
    ),
    Mutant(
        "purge: parked calls are not kept",
        "lrp_celery/tracking/retention.py",
        '    "*:parked": None,\n',
        "",
        "tests/tracking/test_retention.py test_trk_21",
    ),
    Mutant(
        "status: a terminal one passes as an attempt",
        "lrp_celery/tracking/status.py",
        "    if found is None or found not in allowed:\n",
        "    if found is None:\n",
        f"{MEMORY} test_trk_12",
    ),
    Mutant(
        "clock: a naive threshold is taken",
        "lrp_celery/core/clock.py",
        "    if instant.tzinfo is None or instant.utcoffset() is None:\n",
        "    if False:\n",
        f"{MEMORY} test_trk_23_a_naive",
    ),
    Mutant(
        "id: any length is taken",
        "lrp_celery/tracking/store.py",
        "not 1 <= len(call_id) <= MAX_ID",
        "not call_id",
        f"{MEMORY} test_trk_01",
    ),
    Mutant(
        "fence: a run that has lost its call settles it all the same",
        OWNED,
        "    if record is None or record.run != run:\n        return NOTHING\n    outcome = settlement.outcome\n",
        "    if record is None:\n        return NOTHING\n    outcome = settlement.outcome\n",
        f"{CALLS} test_settle_by_a_run_that_does_not_hold_it_is_refused",
    ),
    Mutant(
        "fence: the word of any parent ends a run",
        OWNED,
        "outcome=Outcome() as outcome) if token == record.run:",
        "outcome=Outcome() as outcome) if token:",
        LIVES,
    ),
    Mutant(
        "lease: a claim takes a call from a run that lives",
        OWNED,
        "    elif not is_lapsed(record, now, timing):\n        return None, Claim(Verdict.HELD, record)\n",
        "",
        LIVES,
    ),
    Mutant(
        "lease: what must not run twice is given up after one",
        OWNED,
        "patience = timedelta(0) if record.idempotent else timedelta(seconds=2 * timing.lease)",
        "patience = timedelta(0)",
        LIVES,
    ),
    Mutant(
        "lease: the proof of one run's death condemns the next",
        OWNED,
        "is_dead = is_dead and run in {None, record.run}",
        "is_dead = is_dead and run != ''",
        LIVES,
    ),
    Mutant(
        "losses: what must not run twice is run again",
        OWNED,
        "if not record.idempotent or losses >= record.max_attempts:",
        "if losses >= record.max_attempts:",
        LIVES,
    ),
    Mutant(
        "losses: one more than max_attempts",
        OWNED,
        "losses >= record.max_attempts:",
        "losses > record.max_attempts:",
        LIVES,
    ),
    Mutant(
        "generation: a message of the call before claims the new one",
        OWNED,
        "if record.is_absent(now) or (delivery.generation or 0) < record.generation:",
        "if record.is_absent(now):",
        LIVES,
    ),
    Mutant(
        "generation: a new call with an old id begins again at none",
        OWNED,
        "generation = 0 if record is None else record.generation + 1",
        "generation = 0",
        f"{CALLS} test_insert_gives",
    ),
    Mutant(
        "turn: a copy of an earlier turn claims a later one",
        OWNED,
        "return Verdict.STALE if has_ended or delivery.turn < record.turn else None",
        "return Verdict.STALE if has_ended else None",
        LIVES,
    ),
    Mutant(
        "abort: a call that waits for a worker is only asked",
        OWNED,
        "    if not record.owned or is_held(record):\n        return Changed(Merged(asked), applied=True)\n",
        "    if asked:\n        return Changed(Merged(asked), applied=True)\n",
        f"{RULES} test_a_call_that_no_run_holds_is_aborted_at_once",
    ),
    Mutant(
        "abort: it is not looked at before a call is claimed",
        OWNED,
        "    if record.abort_requested_at is not None:\n        return _Ending(",
        "    if record.abort_requested_at is not None and False:\n        return _Ending(",
        f"{RULES} test_a_plain_publish_that_expired_or_was_aborted",
    ),
    Mutant(
        "abort: a lost run is run again although its end was asked for",
        OWNED,
        "    if record.abort_requested_at is not None:\n"
        "        return _end_of_run(replace(record, losses=losses), _asked_to_end(record), now)\n",
        "",
        f"{RULES} test_rule_25_one_that_is_lost",
    ),
    Mutant(
        "attend: nobody is called for a lease that lapses",
        OWNED,
        "    if record.lease_until is not None:\n        yield record.lease_until\n",
        "",
        LIVES,
    ),
    Mutant(
        "attend: everybody is called in vain for what has begun and cannot expire",
        OWNED,
        "expires_at = None if record.runs else record.expires_at",
        "expires_at = record.expires_at",
        LIVES,
    ),
    Mutant(
        "attend: what came too early is dropped and forgotten",
        OWNED,
        "published_at=None, send_at=due_at)",
        "published_at=None)",
        f"{RULES} early",
    ),
    Mutant(
        "remove: the outcome is kept beside a tombstone",
        OWNED,
        "    if ended.record.removed_at is not None:\n        return Changed(ended, applied=True)\n    if not is_asked",
        "    if not is_asked",
        f"{RULES} test_rule_36",
    ),
    Mutant(
        "remove: a new call inherits the runs of the one before",
        OWNED,
        "forgets_runs=record is not None",
        "forgets_runs=False",
        LIVES,
    ),
    Mutant(
        "purge: memory takes what is kept until it is removed",
        OWNED,
        "    if record.terminal_at is None or record.purge_at is not None or record.until_removed:\n",
        "    if record.terminal_at is None or record.purge_at is not None:\n",
        f"{CALLS} test_the_purge_keeps",
    ),
    Mutant(
        "purge: Django takes what is kept until it is removed",
        "django_app/purge.py",
        "purge_at__isnull=True, until_removed=False)",
        "purge_at__isnull=True)",
        "tests/django_app/test_purge.py kept_until_it_is_removed",
    ),
    Mutant(
        "purge: an emptied row keeps its version, so that a new call is written over it unseen",
        "django_app/purge.py",
        ', version=F("version") + 1, **blank)',
        ", **blank)",
        "tests/django_app/test_purge.py placed_over_its_tombstone",
    ),
    Mutant(
        "admin: removed calls are listed",
        "django_app/querysets.py",
        "return self.filter(lives, removed_at__isnull=True)",
        "return self.filter(lives)",
        "tests/django_app/test_admin_list.py outlived_its_time",
    ),
    Mutant(
        "removal: whoever means an earlier call of the id reaches the next",
        "lrp_celery/tracking/owned.py",
        "    return generation is not None and generation != record.generation\n",
        "    return False\n",
        "tests/http/test_rights.py meanwhile",
    ),
    Mutant(
        "redaction: keys are not hidden",
        "lrp_celery/core/redaction.py",
        "        decided = self._decided.get(key)\n",
        "        decided = False\n",
        "tests/core/test_redaction.py",
    ),
    Mutant(
        "redaction: secrets stay in errors",
        "lrp_celery/core/redaction.py",
        "            text = text.replace(secret, REDACTED)\n",
        "            pass\n",
        "tests/core/test_redaction.py test_a_hidden_value",
    ),
    Mutant(
        "redaction: the publisher's own texts are not asked for",
        "lrp_celery/tracking/displays.py",
        "    given = given or {}\n",
        "    given = {}\n",
        "tests/tracking/test_displays.py",
    ),
    Mutant(
        "redaction: items for a task that is not known are shown",
        "lrp_celery/tracking/displays.py",
        "    if names is None:\n        return clean(_counted(items), MAX_SUMMARY)\n",
        "    names = names or ()\n",
        "tests/tracking/test_displays.py",
    ),
    Mutant(
        "redaction: a key of other letters is overlooked",
        "lrp_celery/core/redaction.py",
        "        if self._words is None or not text.isascii():\n",
        "        if self._words is None:\n",
        "tests/core/test_redaction.py",
    ),
    Mutant(
        "publish: what the call before followed from is not asked again",
        "lrp_celery/tracking/stencils.py",
        "self.options == options and self.origin == _origin(self.task)",
        "self.options == options",
        "tests/procedures/test_stencils.py",
    ),
    Mutant(
        "publish: a call inside of a task is made like one outside",
        "lrp_celery/tracking/stencils.py",
        "task.app.current_worker_task is None and _is_plain(task)",
        "_is_plain(task)",
        "tests/procedures/test_stencils.py",
    ),
    Mutant(
        "publish: one that succeeds after a failure is not told of",
        "lrp_celery/tracking/observer.py",
        "        if isinstance(call_id, str) and unpublished.remove(call_id):\n",
        "        if False:\n",
        "tests/tracking/test_publishing.py",
    ),
    Mutant(
        "outcome: exhausted retries are a plain failure",
        "lrp_celery/tracking/outcomes.py",
        "return isinstance(exception, MaxRetriesExceededError) or _passed_retry(exception.__traceback__)",
        "return False",
        f"{WIRING} test_eager_calls_tell",
    ),
    Mutant(
        "selection: excluded tasks get rows",
        "lrp_celery/tracking/selection.py",
        " and not matches(task, self.exclude)",
        "",
        f"{WIRING} test_track_and_exclude",
    ),
    Mutant(
        "wiring: a TestCase is not recognised",
        "django_app/surroundings.py",
        'return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)',
        "return False",
        f"{WIRING} test_a_users_testcase",
    ),
    Mutant(
        "harm: a receiver raises",
        "lrp_celery/tracking/recorder.py",
        "        except Exception as error:  # noqa: BLE001 - watching must never harm the watched\n"
        "            losses.add(what, error, count=count)\n",
        "        except ZeroDivisionError as error:\n",
        f"{WIRING} test_a_poisoned_transaction",
    ),
    Mutant(
        "at once: a call begins whatever has happened to it",
        AT_ONCE,
        '    "version": 0,\n',
        "",
        f"{AT_ONCE_TESTS} has_its_say",
    ),
    Mutant(
        "at once: a call begins after its time",
        AT_ONCE,
        '_IN_TIME: Final = "(deadline_at IS NULL OR deadline_at > CLOCK_TIMESTAMP())"',
        '_IN_TIME: Final = "TRUE"',
        f"{AT_ONCE_TESTS} whose_time_is_over",
    ),
    Mutant(
        "at once: a call begins before it is due",
        AT_ONCE,
        '    "due_at": None,\n',
        "",
        f"{AT_ONCE_TESTS} that_is_not_due",
    ),
    Mutant(
        "at once: nobody looks after a call at its deadline",
        AT_ONCE,
        'f"LEAST(deadline_at, {moment})"',
        "moment",
        f"{AT_ONCE_TESTS} as_it_was_made",
    ),
    Mutant(
        "at once: its row says that nothing has happened",
        AT_ONCE,
        "    before = NOW - timedelta(days=1)",
        "    before = NOW",
        f"{AT_ONCE_TESTS} as_it_was_made",
    ),
    Mutant(
        "at once: a new call is made as one of which less was said",
        AT_ONCE,
        "key = order.terms, timing, unsaid, is_new",
        "key = order.terms, timing, is_new",
        f"{AT_ONCE_TESTS} says_nothing_of_them",
    ),
    Mutant(
        "at once: a run begins as an earlier one of another process",
        AT_ONCE,
        "run.worker, run.pid, run.redelivered",
        "run.worker",
        f"{AT_ONCE_TESTS} told_apart",
    ),
    Mutant(
        "envelope: a broker that has lost its queues is not told of them again",
        "lrp_celery/procedures/envelope.py",
        "for queue in super().__iter__() if hash(queue) not in declared)",
        "for queue in super().__iter__() if not declared)",
        "tests/procedures/test_envelope.py",
    ),
    Mutant(
        "ended: whoever is killed while he tells of a call was the last to do so",
        "django_app/stores/telling.py",
        '{"tell_at": until})',
        '{"tell_at": None})',
        f"{ENDED_TESTS} once_more",
    ),
    Mutant(
        "ended: others need not leave a call to whoever tells of it",
        "django_app/stores/telling.py",
        "    until = now + min(max(now - record.terminal_at, _LEAST), _MOST)\n",
        "    until = now\n",
        f"{ENDED_TESTS} once_more",
    ),
    Mutant(
        "ended: a new end is taken for the one that was told of",
        "django_app/stores/telling.py",
        'ended_so = {"call_id": record.call_id, "terminal_at": record.terminal_at}',
        'ended_so = {"call_id": record.call_id}',
        f"{ENDED_TESTS} told_of_too",
    ),
    Mutant(
        "ended: a row that somebody holds is waited for",
        "django_app/stores/telling.py",
        "{_FIRST}{locking.lock(connection, skip=True)}",
        "{_FIRST}{locking.lock(connection)}",
        f"{ENDED_TESTS} keeps_nobody_from_hearing_of_the_others",
    ),
    Mutant(
        "ended: whoever commits an end leaves it to others if the database's clock is behind",
        "django_app/stores/telling.py",
        "now + _AHEAD)",
        "now)",
        f"{ENDED_TESTS} dated_a_little_ahead",
    ),
    Mutant(
        "ended: many ends together are told to nobody",
        "django_app/stores/plainly.py",
        '("terminal_at", "tell_at") if is_heard',
        '("terminal_at",) if is_heard',
        f"{ENDED_TESTS} reported_or_many",
    ),
    Mutant(
        "ended: it is told before it is committed",
        "django_app/stores/tracking.py",
        "            self._session.after_commit(lambda: self._tell_at_once(merged.record.call_id))",
        "            self._tell_at_once(merged.record.call_id)",
        f"{ENDED_TESTS} after_the_commit",
    ),
    Mutant(
        "late copy: a call that was removed has returned None",
        "lrp_celery/procedures/shell.py",
        "        is_settled = claim.verdict is Verdict.SETTLED",
        "        is_settled = True",
        "tests/procedures/test_late_copies.py removed",
    ),
    Mutant(
        "watching: a message of a procedure makes a row of what is excluded",
        "lrp_celery/tracking/observer.py",
        "(_facts_of_known(task.name, get) if owned else None)",
        "_facts_of_known(task.name, get)",
        f"{WIRING} knows_no_procedure",
    ),
    Mutant(
        "at once: who waits is not told of the end",
        AT_ONCE,
        "told = [_TELLING] if",
        "told = [] if",
        "tests/conformance/test_calls_django.py who_waits_is_told",
    ),
    Mutant(
        "at once: what a migration has outdated stays outdated",
        "django_app/stores/tracking.py",
        "self._session.failed() or rows.is_outdated(error)",
        "self._session.failed()",
        f"{AT_ONCE_TESTS} outdated",
    ),
    Mutant(
        "statements: what was not answered is said again",
        "django_app/stores/tracking.py",
        "if rows.is_silence(error) or not is_worth_it:",
        "if not is_worth_it:",
        "tests/django_app/test_statements.py not_said_again",
    ),
    Mutant(
        "at once: a call that is to go when it ends begins by the short way",
        AT_ONCE,
        '    "remove_when_settled": False,\n',
        "",
        f"{AT_ONCE_TESTS} is_gone_then",
    ),
    Mutant(
        "spool: where reports were dropped runs count as cut off all the same",
        "lrp_celery/tracking/spool/drainer.py",
        "may_have_ended = any(each.dropped for each in _by_process(worker)[pid])",
        "may_have_ended = False",
        f"{DRAINER} nobody_knows_the_end",
    ),
    Mutant(
        "spool: a dead process's parent is not heard",
        "lrp_celery/tracking/spool/drainer.py",
        "if parent_lives and self._clock() - since < PARENTS_WORD:",
        "if parent_lives and self._clock() < since:",
        f"{DRAINER} when_its_parent_has_not_spoken",
    ),
    Mutant(
        "spool: a new file does not say what is under way",
        "lrp_celery/tracking/spool/spool.py",
        "for started in self._under_way.values():",
        "for started in ():",
        f"{DRAINER} goes_on_over_two_files",
    ),
    Mutant(
        "spool: reports count from when they are told",
        "lrp_celery/tracking/folding.py",
        "at = now - each.age",
        "at = now",
        f"{MEMORY} counts_from_when_it_was_true",
    ),
    Mutant(
        "plainly: what ends many calls marks them as counted, and does not count them",
        "django_app/stores/plainly.py",
        "    counting.enter(connection, sums)\n",
        "",
        "tests/django_app/test_rollup.py counted_by_the_statement",
    ),
    Mutant(
        "plainly: the planner believes that the conditions hold for no row",
        "django_app/stores/plainly.py",
        "CASE WHEN {story.only_if} THEN TRUE ELSE FALSE END",
        "{story.only_if}",
        "tests/django_app/test_plainly.py nobody_has_analysed",
    ),
    Mutant(
        "relay: a message that was taken just now counts as lost",
        "lrp_celery/procedures/relay.py",
        "            self._pause(_TAKEN)\n",
        "            pass\n",
        "tests/procedures/test_relay.py just_after",
    ),
    Mutant(
        "admin: an abort with descendants reaches what one may not see",
        "lrp_celery/procedures/deeds.py",
        "descendants = self._seen(stopping.descendants(call_id)) if tree else []",
        "descendants = list(stopping.descendants(call_id)) if tree else []",
        "tests/django_app/test_admin_actions.py may_not_see",
    ),
    Mutant(
        "statements: a server that falls silent is waited for for ever",
        "django_app/stores/statements.py",
        "if not poll.poll(self._within * 1000):",
        "if not poll.poll():",
        "tests/django_app/test_statements.py falls_silent",
    ),
    Mutant(
        "pooler: nobody looks for one",
        "django_app/stores/sessions.py",
        "cursor.fetchone()[0] == wrapper.connection.info.backend_pid",
        "cursor.fetchone()[0]",
        "tests/django_app/test_pooler.py share_a_session",
    ),
    Mutant(
        "http: whoever knows an id sees the call",
        "django_app/api/handlers.py",
        "if record is None or not asked.visitor.sees(record):",
        "if record is None:",
        f"{HTTP_RIGHTS} sees_and_changes",
    ),
    Mutant(
        "http: whoever sees a call may end it",
        "django_app/api/handlers.py",
        "asked.visitor.owns(record) or asked.visitor.may(right)",
        "asked.visitor.sees(record)",
        f"{HTTP_RIGHTS} sees_and_changes",
    ),
    Mutant(
        "http: a forbidden id is told apart from an unknown one",
        "django_app/api/handlers.py",
        '    if asked.visitor.sees(record):\n        raise lacking(f"lrp_celery.{right}")\n    return None',
        '    raise lacking(f"lrp_celery.{right}")',
        f"{HTTP_RIGHTS} sees_and_changes",
    ),
    Mutant(
        "http: results are told to whoever sees the call",
        "django_app/api/handlers.py",
        "represent(record, payload), status=status",
        "represent(record, payload or runtime_of(get_current_app()).callers.payload(record.call_id)), status=status",
        f"{HTTP_RIGHTS} sees_and_changes",
    ),
    Mutant(
        "http: an inactive user is let in",
        "django_app/api/visitors.py",
        " or not visitor.user.is_active:",
        ":",
        f"{HTTP_RIGHTS} who_is_not_known",
    ),
    Mutant(
        "http: a session needs no token against forged requests",
        "django_app/api/views.py",
        "if endpoint.is_unsafe and visitor.is_by_session:",
        "if False:",
        "tests/http/test_sessions.py forged",
    ),
    Mutant(
        "http: a procedure's own permission is not asked for",
        "django_app/api/starting.py",
        "if permission is not None and not",
        "if False and not",
        "tests/http/test_starting.py lacks_a_right",
    ),
    Mutant(
        "http: a body that does not say its size may have any",
        "django_app/api/bodies.py",
        "if is_announced or len(text) > limit:",
        "if is_announced:",
        "tests/http/test_starting.py bounded_that",
    ),
    Mutant(
        "http: the same id again is told as new",
        "lrp_celery/procedures/calling.py",
        "        self.is_new = False\n",
        "",
        "tests/http/test_starting.py same_id_again",
    ),
    Mutant(
        "http: whoever waits gets what another owner has called by the same id",
        "django_app/api/views.py",
        "if news is None or news[0].generation != later.record.generation:",
        "if news is None:",
        "tests/http/test_waiting.py another_owner",
    ),
    Mutant(
        "http: a waiting request keeps its thread",
        "django_app/api/waits.py",
        "executor = executors.pop(context, None)",
        "executor = None",
        "tests/http/test_waiting.py neither_threads",
    ),
    Mutant(
        "http: nobody looks out for all who wait",
        "django_app/api/waits.py",
        "lookout(own, os.getpid()).ensure()",
        "pass",
        "tests/http/test_waiting.py asks_for_all",
    ),
    Mutant(
        "http: requests come all at once",
        "django_app/api/views.py",
        "asyncio.Semaphore(AT_ONCE)",
        "asyncio.Semaphore(10**6)",
        "tests/http/test_waiting.py few_threads",
    ),
    Mutant(
        "http: a repeated request makes another call",
        "lrp_celery/procedures/http/wire.py",
        "        answer = yield request\n",
        "        answer = yield request\n        if request.method == 'POST':\n            request.body['id'] += '+'\n",
        "tests/http/test_client.py repeated_with_the_same_id",
    ),
    Mutant(
        "http: an abort does not release who waits",
        "lrp_celery/procedures/http/procedure.py",
        "            reading.release(call)\n",
        "",
        "tests/http/test_client.py releases_at_once",
    ),
]


def survives(mutant: Mutant) -> str | None:
    """Return what is wrong with a mutant, None if its test turned red as it should."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in COPIED:
            copy(ROOT / name, tree / name)
        broken = tree / mutant.file
        text = broken.read_text()
        if text.count(mutant.before) != 1:
            return f"its text is found {text.count(mutant.before)} times in {mutant.file}"
        broken.write_text(text.replace(mutant.before, mutant.after))
        return judge(run(tree, mutant.test))


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        # With what was compiled: it fits as long as the source is as old, and as long.
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    file, _, keyword = test.partition(" ")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", file]
    environment = {
        **os.environ,
        "REQUIRE_SERVICES": "",
        "PYTHONPATH": str(tree),
        # That it fails is all that is asked, not how simply.
        "LRP_HYPOTHESIS": "quick",
    }
    return subprocess.run(
        [*command, *(["-k", keyword] if keyword else [])],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def judge(result: subprocess.CompletedProcess[str]) -> str | None:
    failed = result.returncode == 1 and " failed" in result.stdout
    return None if failed else f"its test did not fail (exit {result.returncode}):\n{result.stdout[-1500:]}"


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    for name in COPIED:
        compileall.compile_dir(ROOT / name, quiet=2)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        verdicts = list(pool.map(survives, chosen))
    alive = 0
    for mutant, problem in zip(chosen, verdicts, strict=True):
        print(f"{'survived' if problem else 'killed':9} {mutant.name}")
        if problem:
            alive += 1
            print(f"    {problem}")
    print(f"mutants: {len(chosen) - alive} killed, {alive} survived")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
