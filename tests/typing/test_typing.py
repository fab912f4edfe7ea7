"""What type checkers know of procedures, as mypy sees it: `snippets.py` says what that must be."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = ROOT / "tests" / "typing" / "snippets.py"
CONFIG = f"""
[mypy]
strict = true
python_version = 3.11
explicit_package_bases = true
mypy_path = {ROOT}
"""

#: A snippet and what becomes of it; were the first line no error, the snippets could not fail either.
WRONG = {
    "assert_type(plain.get_result(call_id), Report)": "assert_type(plain.get_result(call_id), str)",
    'plain.call("2026-10", pages=2)': 'plain.call("2026-10", page=2)',
    'with_signal.call("2026-10", 2)  # type': 'with_signal.call("2026-10", pages=2)  # type',
}


@pytest.fixture(scope="module")
def mypy(request, tmp_path_factory):
    """Return what mypy says of a file; it has a cache of its own, for its options are not those of the house."""
    config = tmp_path_factory.mktemp("typing") / "mypy.ini"
    config.write_text(CONFIG)
    cache = request.config.cache.mkdir("mypy")

    def check(path):
        command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, "--no-color-output"]
        done = subprocess.run([*map(str, command), path], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        return [line for line in done.stdout.splitlines() if ": error:" in line]

    return check


def test_arguments_and_results_of_procedures_are_checked(mypy):
    assert mypy(SNIPPETS) == []


def test_the_snippets_can_fail(mypy, tmp_path):
    text = SNIPPETS.read_text()
    for right, wrong in WRONG.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    broken = tmp_path / "broken_snippets.py"
    broken.write_text(text)
    assert len(mypy(broken)) == len(WRONG)
