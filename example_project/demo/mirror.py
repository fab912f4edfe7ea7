"""A server of country names that is busy at times: what the internet is for other projects.

`/mirror/<visitor>/<refusals>/countries.csv` refuses each visitor that many times, then answers.
"""

import os
from collections import Counter
from pathlib import Path
from threading import Lock

from django.http import HttpRequest, HttpResponse
from places import readers

DATA = Path(readers.__file__).parent / "data"

_visits: Counter[str] = Counter()
_lock = Lock()


def countries(request: HttpRequest, visitor: str, refusals: int) -> HttpResponse:
    """Answer with the names of countries, or 503 while this visitor is refused."""
    with _lock:
        _visits[visitor] += 1
        is_refused = _visits[visitor] <= refusals
    if is_refused:
        return HttpResponse("busy, come again later\n", status=503, content_type="text/plain")
    return HttpResponse((DATA / "countries.csv").read_bytes(), content_type="text/csv")


def whose(request: HttpRequest) -> HttpResponse:
    """Tell which demo this server belongs to."""
    return HttpResponse(os.environ["DEMO_RUN"], content_type="text/plain")
