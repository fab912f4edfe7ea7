"""How long everything is kept, for whoever plays, purges and judges."""

from datetime import timedelta

#: Seconds after which calls of `tests.chaos.forgotten` may be purged.
FORGOTTEN_AFTER = 3.0
#: Seconds after which calls of `tests.chaos.brief` read as absent.
BRIEF = 1.0
#: Seconds after which tombstones go: no copy of a message is later than that.
TOMBSTONE = 20
#: Seconds after which a plain task's call that nobody speaks of is given up.
SILENT_AFTER = 15
RETENTION = {"*": timedelta(days=1), "tests.chaos.forgotten": timedelta(seconds=FORGOTTEN_AFTER)}
