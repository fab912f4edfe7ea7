"""How soon an abort ends a call that runs: one that heeds its signal, and one that is deaf and has to be interrupted.

    python -m benchmarks.aborting [--calls 30]

From the moment at which the end was asked for to the moment at which the call had ended, both as
its row says.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.machinery import Bench
from benchmarks.servers import grounds
from benchmarks.variants import GRACE

CODE = """
import json, time
from benchmarks.shop import {name}
from lrp_celery import CallStatus, calls

def wait_until(call_id, is_there):
    end = time.monotonic() + 30
    while not is_there(calls.get(call_id)):
        assert time.monotonic() < end, "nothing happened within 30 s"
        time.sleep(0.01)

lags = []
for n in range({calls}):
    call_id = {name}.call()
    wait_until(call_id, lambda call: call.status is CallStatus.STARTED)
    {name}.abort(call_id)
    wait_until(call_id, lambda call: call.status.is_terminal)
    call = calls.get(call_id)
    assert call.status is CallStatus.ABORTED, call
    lags.append((call.terminal_at - call.abort_requested_at).total_seconds())
print(json.dumps(lags))
"""


def main() -> None:
    """Measure, and print median and worst of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, grounds():
        bench = Bench("procedures", Path(folder))
        bench.migrate()
        with bench.worker():
            for name, what in (("polite", "heeds its signal"), ("deaf", f"is deaf, after a grace of {GRACE:g} s")):
                code = CODE.format(name=name, calls=chosen.calls)
                lags = json.loads(bench.run(code)[0])
                print(f"{what}: median {statistics.median(lags):.2f} s, at most {max(lags):.2f} s", flush=True)


if __name__ == "__main__":
    main()
