"""Breaks the product on purpose, one way at a time, and expects a named test to turn red.

    python tests/mutants.py            every mutant
    python tests/mutants.py guard      those whose name contains "guard"

Each mutant is applied to a copy of the tree, in which only its own test runs. A mutant whose
text is no longer found, or whose test stays green, is a failure: then the test does not test
what it says, or this list is out of date.
"""

from __future__ import annotations

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
WIRING = "tests/django_app/test_wiring.py"

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
        "django_app/stores/tracking.py",
        "Call.objects.filter(pk=record.call_id, version=replaces.version)",
        "Call.objects.filter(pk=record.call_id)",
        f"{SQLITE} (test_trk_24 or test_trk_15 or test_trk_14) and not postgres and not mysql and not mariadb",
    ),
    Mutant(
        "purge: memory deletes what ended at the threshold",
        "lrp_celery/tracking/memory.py",
        "record.terminal_at < threshold",
        "record.terminal_at <= threshold",
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
        "redaction: keys are not hidden",
        "lrp_celery/core/redaction.py",
        "return isinstance(key, str) and self._patterns.match(_bare(key[:_LONGEST_KEY])) is not None",
        "return False",
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
        "django_app/wiring.py",
        'return any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)',
        "return False",
        f"{WIRING} test_a_users_testcase",
    ),
    Mutant(
        "harm: a receiver raises",
        "lrp_celery/tracking/recorder.py",
        "        except Exception as error:  # noqa: BLE001 - watching must never harm the watched\n"
        "            losses.add(what, error)\n",
        "        except ZeroDivisionError as error:\n",
        f"{WIRING} test_a_poisoned_transaction",
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
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    elif source.exists():
        shutil.copy2(source, target)


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    file, _, keyword = test.partition(" ")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", file]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "REQUIRE_SERVICES": "", "PYTHONPATH": str(tree)}
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
