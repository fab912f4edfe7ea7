"""Processes whose clocks are wrong, while that of the database is right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.services import ServiceMissing

#: Set where the clock is wrong: by how many seconds.
OFF = "CLOCK_OFF"
#: How wrong those of the workers are.
HOUR_OFF = (3600, -3600)
SOURCE = Path(__file__).with_name("wrong_clock.c")


def wrong_clocks(folder: Path) -> list[dict[str, str]]:
    """Return the environments of processes that live an hour ahead, and an hour behind."""
    if shutil.which("gcc") is None:
        raise ServiceMissing("gcc", "it makes clocks wrong, and was not found", "apt-get install gcc libc6-dev")
    library = folder / "wrong_clock.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True)
    return [{"LD_PRELOAD": str(library), OFF: str(seconds)} for seconds in HOUR_OFF]
