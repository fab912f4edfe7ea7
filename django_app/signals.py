"""What a project may listen to."""

from __future__ import annotations

import logging
from typing import Any, Final

from django.dispatch import Signal

logger = logging.getLogger("lrp_celery.telling")


class _Ended(Signal):
    """Logs what a receiver raises, whatever the receiver is: Django's own way wants it to have a name."""

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        logger.error("The receiver %r of call_ended failed.", receiver, exc_info=err)


#: Sent when a call has ended, and that is committed: `sender` is the model `Call`, `snapshot` the `CallSnapshot`.
#:
#: For every tracked call, procedure or not, whatever its outcome; at least once: twice if whoever sent it died
#: before he could note that, or receivers took longer than a minute. Usually within a second of the end, in the side
#: process of a worker, which is no task's process; of a call that runs eagerly, by its caller, after his commit. Connect
#: receivers in `AppConfig.ready`, so that every process knows them. What a receiver raises is logged, and it is not called
#: for it again. Not promised: an order among calls; that a call is told of whose row was purged, or given to a new call,
#: before anybody could; that what was removed meanwhile is still in the snapshot.
call_ended: Final[Signal] = _Ended()
