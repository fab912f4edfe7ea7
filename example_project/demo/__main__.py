"""The part of the demo that needs Django: `python -m demo`, in the environment of a demo."""

import sys

import django

django.setup()

from .story import tell  # noqa: E402 - models can be imported only now

sys.exit(tell(sends_calls="--no-calls" not in sys.argv))
