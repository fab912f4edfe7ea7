"""How soon a long poll is answered while many others wait, under uvicorn in one process, beside a local waiter.

    python -m benchmarks.polls [--waiting 500] [--calls 100] [--seconds 0.2]

So many requests wait, each for a call of its own that never ends, and are asked again when the server lets
them go. Meanwhile calls are made and awaited one by one: by `get_result` on PostgreSQL, and by an
`HttpProcedure`. The task returns the moment at which it ended; measured is from there to the waiter having the
value, all on this machine. The memory is that of the server's process: before anybody waits, with all of
them waiting, and at the end. The bar: at most 3 times the local waiter, and no memory that grows.
"""

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machinery import ROOT, Bench, Failed
from benchmarks.servers import grounds

BAR = 3.0
#: Seconds after which all are believed to wait.
SETTLE = 3.0
LOCAL = """
import json, time
from benchmarks.shop import wait_a_little
lags = []
for n in range({calls} + 5):
    ended = wait_a_little.get_result(wait_a_little.call({seconds}), wait=30)
    lags.append(time.time() - ended)
print(json.dumps(lags[5:]))
"""
REMOTE = """
import json, time
from lrp_celery import HttpProcedure
lags = []
with HttpProcedure({url!r}, "wait_a_little", {{"Authorization": "Bearer for-measurements-only"}}) as wait_a_little:
    for n in range({calls} + 5):
        ended = wait_a_little.get_result(wait_a_little.call({seconds}), wait=30)
        lags.append(time.time() - ended)
print(json.dumps(lags[5:]))
"""
#: Nobody takes from that queue, so that these calls stay as they are.
OPEN = """
import json
from benchmarks.shop import nothing
print(json.dumps([nothing.using(queue="nobodys", owner="bench").call(n) for n in range({waiting})]))
"""
WAITERS = """
import asyncio, json, sys
import httpx

async def wait(client, call_id):
    while True:
        answer = await client.get(f"{url}/calls/{{call_id}}/result?wait=30")
        assert answer.status_code == 202, (answer.status_code, answer.text)

async def main():
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {{"Authorization": "Bearer for-measurements-only"}}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=90) as client:
        await asyncio.gather(*[wait(client, call_id) for call_id in json.loads(sys.stdin.readline())])

asyncio.run(main())
"""


def main() -> None:
    """Measure, and print medians, how they compare, and the server's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waiting", type=int, default=500, help="at least 1")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, grounds():
        bench = Bench("procedures", Path(folder))
        bench.migrate()
        with bench.worker(), _server(bench, Path(folder) / "uvicorn.log") as (server, url):
            _measure(bench, server, url, chosen)


def _measure(bench: Bench, server: subprocess.Popen[bytes], url: str, chosen: argparse.Namespace) -> None:
    terms = {"url": url, "calls": chosen.calls // chosen.rounds, "seconds": chosen.seconds}
    lags: dict[str, list[float]] = {"local": [], "http": []}
    bench.run(REMOTE.format(**{**terms, "calls": 1}))
    memory = [_resident(server.pid)]
    ids = bench.run(OPEN.format(waiting=chosen.waiting))[0]
    with _waiters(bench, url, ids) as waiters:
        for number in range(1, chosen.rounds + 1):
            for kind, code in (("local", LOCAL), ("http", REMOTE)):
                found = json.loads(bench.run(code.format(**terms))[0])
                lags[kind] += found
                print(f"round {number}: {kind} {statistics.median(found) * 1e3:.2f} ms", flush=True)
            memory.append(_resident(server.pid))
        if waiters.poll() is not None:
            raise Failed("those who wait have ended: see above")
    print(_verdict(chosen.waiting, lags, memory))


def _verdict(waiting: int, lags: dict[str, list[float]], memory: Sequence[float]) -> str:
    local, http = (statistics.median(lags[kind]) for kind in ("local", "http"))
    ratio = http / local
    return (
        f"With {waiting} waiting: {http * 1e3:.2f} ms from end to answer, {ratio:.2f} times a local waiter's "
        f"{local * 1e3:.2f} ms (bar: {BAR:g}, {'kept' if ratio <= BAR else 'NOT KEPT'}).\n"
        f"The server's memory: {', '.join(f'{each:.1f}' for each in memory)} MB, "
        "before anybody waited, and after each round."
    )


@contextlib.contextmanager
def _server(bench: Bench, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "benchmarks.polled:application"], cwd=ROOT, env=bench.environment, stdout=written, stderr=written
        )
    try:
        bench.wait_until(lambda: _answers(port), 30, lambda: log.read_text()[-2000:] or "uvicorn did not answer", 0.1)
        yield process, f"http://127.0.0.1:{port}/lrp"
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _waiters(bench: Bench, url: str, ids: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITERS.format(url=url)],
        cwd=ROOT,
        env=bench.environment,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdin.write(ids)
        process.stdin.flush()
        time.sleep(SETTLE)
        yield process
    finally:
        process.kill()
        process.communicate()


def _resident(pid: int) -> float:
    """Return the memory of a process, in MB."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _answers(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


if __name__ == "__main__":
    main()
