"""Printing that survives a terminal which is no longer there."""

import os
import sys


def say(text: str = "") -> None:
    """Print a line at once; once the terminal is gone, print nothing, ever."""
    try:
        print(text, flush=True)
    except OSError:
        _forget_the_terminal()


def _forget_the_terminal() -> None:
    # What is left in the buffer would be flushed at exit, and fail there.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
