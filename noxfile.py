"""The matrix: a few cells that together meet every version of everything.

Each cell runs the unit tests, the conformance suites on memory and SQLite, and the worker
scenarios marked `matrix`. Everything else runs once, in `python3 dev.py test`.
"""

import nox

nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
# A cell whose Python is absent is skipped, and .ci/run says so; nothing is downloaded.
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

#: (Python, Django, Celery). The main run is one more: 3.11, Django 5.2, Celery 5.7.
CELLS = [
    ("3.11", "5.2", "5.6"),
    ("3.12", "6.0", "5.6"),
    ("3.13", "6.1", "5.7"),
]

#: What a cell runs: servers, browsers and long scenarios are for the main run.
SELECTION = "matrix or not (services or integration or browser or chaos or slow)"

#: Histories and races are looked for at length in the main run: here only versions differ.
BRIEFLY = {"LRP_HYPOTHESIS": "quick", "LRP_RACE_ROUNDS": "20"}


@nox.session
@nox.parametrize(
    ("python", "django", "celery"),
    CELLS,
    ids=[f"python{python}-django{django}-celery{celery}" for python, django, celery in CELLS],
)
def cell(session: nox.Session, django: str, celery: str) -> None:
    """Run the quick part of the suite on one combination of versions."""
    session.install("-e", ".[cell]", f"Django~={django}.0", f"celery~={celery}.0")
    divided = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    session.run("pytest", *divided, "-m", SELECTION, *session.posargs, env=BRIEFLY)
