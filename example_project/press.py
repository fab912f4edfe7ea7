"""The press office of the atlas: another service, with neither Django nor a broker, that orders reports over HTTP.

    python example_project/press.py http://127.0.0.1:8000/lrp TOKEN --import 1

Ctrl-C calls the report off. The demo prints this command with a token that fits.
"""

from __future__ import annotations

import argparse
import signal
import sys

from lrp_celery import AbortController, CallAborted, Caller, HttpProcedure, LrpError


def main() -> int:
    """Order one report, wait for it, and say what became of it; the result is the exit status."""
    options = _options()
    office = AbortController()
    signal.signal(signal.SIGINT, lambda *_: office.abort("the press office closes"))
    headers = {"Authorization": f"Bearer {options.token}"}
    with HttpProcedure(options.atlas, "places.tasks.build_report", headers, returns=int) as build_report:
        try:
            number = Caller(build_report, signal=office.signal).call(options.source, pause=options.pause)
        except CallAborted as aborted:
            print(f"Called off: {aborted.message or 'nobody says why'}.")
            return 1
        except LrpError as error:
            print(f"There is no report: {error}")
            return 1
    print(f"The atlas has written report {number}.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Orders a report from the atlas, and waits for it.")
    parser.add_argument("atlas", help="where the atlas offers its procedures, such as http://127.0.0.1:8000/lrp")
    parser.add_argument("token", help="made by: manage.py make_token press")
    parser.add_argument("--import", dest="source", type=int, default=1, help="the import to report on")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds to rest after each continent")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
