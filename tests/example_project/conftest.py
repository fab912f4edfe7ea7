"""Demos that end with their test."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.example_project.running import EXAMPLE, Demo

# As manage.py would: `demo` is a package of the example, not of this repository.
sys.path.insert(0, str(EXAMPLE))

StartDemo = Callable[..., Demo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Start demos that keep their files in the folder of the test."""
    started: list[Demo] = []

    def start(*options: str, kind: type[Demo] = Demo, **environment: str) -> Demo:
        demo = kind(tmp_path / "demo", *options, **environment)
        started.append(demo)
        return demo

    yield start
    for demo in started:
        demo.end()
