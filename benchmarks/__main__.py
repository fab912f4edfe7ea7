"""Everything that the README tells figures of: `python -m benchmarks [--short]`.

The tables of cost and of loss first, then what a slow disk changes, and the waits. It takes an hour and a machine
that nobody else uses; with `--short` a quarter of that, and figures that jump.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

#: What is run, and what makes it shorter.
ALL: Sequence[tuple[Sequence[str], Sequence[str]]] = (
    (["cost"], ["--rounds", "2", "--calls", "1000"]),
    (["loss"], ["--calls", "1000"]),
    (["cost", "--fsync-us", "1000", "--variants", "bare", "results", "spool"], ["--rounds", "2", "--calls", "1000"]),
    (["lag"], ["--calls", "50"]),
    (["latency"], ["--calls", "30"]),
    (["rerun"], ["--turns", "3"]),
    (["owning"], ["--rounds", "2"]),
    (["owning", "--no-fsync"], ["--rounds", "2"]),
    (["owning", "--results", "each"], ["--rounds", "2"]),
    (["purge"], ["--rows", "200000"]),
)


def main() -> int:
    """Run one after the other; the exit status is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    is_short = parser.parse_args().short
    has_failed = False
    for (name, *arguments), shorter in ALL:
        command = [f"benchmarks.{name}", *arguments, *(shorter if is_short else [])]
        print(f"\n=== {' '.join(command)}", flush=True)
        has_failed |= subprocess.run([sys.executable, "-m", *command], check=False).returncode != 0
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
