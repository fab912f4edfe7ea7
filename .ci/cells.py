"""Say which cells of the matrix ran and which did not: a skipped cell looks green in nox.

    python3 cells.py REPORT   (written by nox --report)

Exits 1 if not a single cell passed.
"""

import json
import sys
from pathlib import Path


def main(report: str) -> int:
    """Print one line per cell."""
    sessions = json.loads(Path(report).read_text() or "{}").get("sessions", [])
    for session in sessions:
        ran = "NOT RUN (no such Python here)" if session["result"] == "skipped" else "ran"
        print(f"{session['signatures'][0]}: {ran}, {session['result']}")
    passed = sum(session["result"] == "success" for session in sessions)
    print(f"cells: {passed} of {len(sessions)} passed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
