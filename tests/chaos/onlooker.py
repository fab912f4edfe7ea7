"""How callers look at what has become of their calls, and call some of them off."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from lrp_celery import LrpError, ResultTimeout
from tests.chaos import ledger

#: How many of its last calls a caller remembers, to look at them and to abort them.
RECENT: Final = 12


def look_back(
    chance: random.Random, procedure: Any, call_id: str, get_call: Callable[[str], Any], *, is_stoppable: bool
) -> None:
    """Look at a call, perhaps after asking for its end or its result, and write down what is seen."""
    try:
        if is_stoppable and chance.random() < 0.8:
            ledger.write("asked", call_id)
            procedure.abort(call_id, "enough")
        if chance.random() < 0.3:
            ledger.write("got", call_id, value=procedure.get_result(call_id, wait=0.2))
        snapshot = get_call(call_id)
        if snapshot is not None:
            ledger.write("saw", call_id, status=snapshot.status.value)
    except ResultTimeout:
        pass
    except (LrpError, ValueError) as error:
        ledger.write("told", call_id, error=type(error).__name__)
