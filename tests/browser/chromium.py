"""A Chromium that lives in a thread of its own.

Playwright leaves an event loop running in its thread, where Django's ORM then refuses to
work; so it has a thread to itself, and tests hand it functions.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "No Chromium found: apt-get install -y chromium"

Browse = Callable[..., Any]


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def chromium(path: str) -> Iterator[Browse]:
    """Yield `browse(fn, **options)`, which returns `fn(context)` with a fresh browser context."""
    from playwright.sync_api import sync_playwright

    with ThreadPoolExecutor(1, thread_name_prefix="playwright") as thread:
        playwright = thread.submit(lambda: sync_playwright().start()).result()
        browser = thread.submit(
            playwright.chromium.launch, executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        ).result()

        def browse(use, **options):
            def run():
                context = browser.new_context(**options)
                context.set_default_timeout(10_000)
                try:
                    return use(context)
                finally:
                    context.close()

            return thread.submit(run).result()

        try:
            yield browse
        finally:
            thread.submit(browser.close).result()
            thread.submit(playwright.stop).result()
