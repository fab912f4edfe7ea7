"""The press office: a second service, which orders a report of the demo over HTTP."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.example_project.running import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
]


def order(command, *options):
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_that_the_demo_prints_orders_a_report(start_demo):
    demo = start_demo()
    demo.wait_for("READY")
    demo.wait_for("stop ")
    command = shlex.split(re.search(r"\S+ example_project/press\.py .*", demo.output).group())
    ordered = order(command, "--pause", "0")
    assert (ordered.returncode, ordered.stderr) == (0, "")
    assert re.fullmatch(r"The atlas has written report \d+\.\n", ordered.stdout)
    refused = order([*command[:-1], "admin:forged:token"])
    assert refused.returncode == 1
    assert "There is no report: Log in" in refused.stdout
    unknown = order(command, "--import", "4711")
    assert unknown.returncode == 1
    assert "DoesNotExist" in unknown.stdout
