"""The document, tried out by schemathesis: whatever it makes up, a real server answers as the document says."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.http.servers import Server, served
from tests.integration.harness import ROOT, Workshop

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Names that are made up are all unknown.
CONFIG = """
[parameters]
"path.procedure" = "http.anything"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    pytest.importorskip("schemathesis")
    with (
        contextlib.closing(Workshop(folder=tmp_path_factory.mktemp("rooms"), blocker=django_db_blocker)) as workshop,
        contextlib.ExitStack() as stack,
    ):
        room = workshop.room("redis", "sqlite", stack)
        room.worker(concurrency=1, options=["--include", "tests.http.anything"])
        yield served("uvicorn", room, {"MAX_WAIT": 0.2})


def test_every_answer_is_described(server: Server, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    shutil.copy(ROOT / "docs" / "openapi.json", tmp_path)
    tried = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", "openapi.json", "--url", server.base_url, "--header", "Authorization: Bearer ada"),
            # What JSON bears, a message may not: a number beyond all doubles, an id that holds half a character.
            # A wrong cookie beside a right token is no reason to refuse: who may what, test_rights has enumerated.
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance,ignored_auth"),
            *("--max-examples", "25", "--seed", "7", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    print(tried.stdout)
    assert tried.returncode == 0, tried.stdout[-10_000:] + tried.stderr
    assert "Traceback" not in server.log()
