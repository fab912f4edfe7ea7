"""What tests of pages that refresh themselves share."""

from concurrent.futures import ThreadPoolExecutor

from django.db import connections


def with_a_clock(page):
    """Load the page once more, with a clock that is turned by hand; return how, and what the page asks for."""
    page.clock.install()
    page.reload()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    return page.clock.run_for, asked


def mark(page):
    page.evaluate("for (const part of document.querySelectorAll('[data-lrp-refresh]')) part.dataset.old = 'yes'")


def meanwhile(change):
    """Let `change` happen in the database while a page is open: its thread belongs to the browser."""

    def run():
        try:
            return change()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as somebody:
        return somebody.submit(run).result()
