"""Make the pictures of the README: python -m tests.browser.make_screenshots [folder]

Needs Chromium; pngquant, where it is found, makes the files smaller.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parents[2] / "docs" / "images"
WIDE = {"width": 1280, "height": 900}
#: Only to be looked at.
NARROW = "-narrow"

#: The picture's name, the page's address, the browser's options, and whether the whole page is shown.
Picture = tuple[str, str, dict[str, Any], bool]


def main(folder: Path) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from django.db import connection

    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        take_pictures(folder)
    finally:
        connection.creation.destroy_test_db(":memory:", verbosity=0)


def in_each_look(name: str, url: str, whole: bool) -> list[Picture]:
    """Return the pictures of one page: light, dark and on a narrow screen."""
    return [
        (f"admin-{name}", url, {"viewport": WIDE}, whole),
        (f"admin-{name}-dark", url, {"viewport": WIDE, "color_scheme": "dark"}, whole),
        (f"admin-{name}{NARROW}", url, {"viewport": {**WIDE, "width": 420}}, whole),
    ]


def take_pictures(folder: Path) -> None:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.test import Client
    from django.test.testcases import LiveServerThread
    from django.utils import timezone

    from tests.browser.chromium import MISSING, chromium, find_chromium
    from tests.browser.story import Story

    path = find_chromium()
    if path is None:
        raise SystemExit(MISSING)
    story = Story(timezone.now()).tell(hours=47)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    server = LiveServerThread("127.0.0.1", StaticFilesHandler)
    server.daemon = True
    server.start()
    server.is_ready.wait()
    app = f"http://127.0.0.1:{server.port}/admin/lrp_celery"
    calls, board = f"{app}/call", f"{app}/hourlyrollup"
    parked = story.calls["parked"].pk
    pages = [("list", f"{calls}/", False), ("detail", f"{calls}/{parked}/change/", True)]
    pictures = [picture for page in pages for picture in in_each_look(*page)]
    boards = in_each_look("dashboard", f"{board}/", whole=True)
    folder.mkdir(parents=True, exist_ok=True)
    with chromium(path) as browse:
        for name, url, options, whole in [*pictures, *boards]:
            if name == boards[0][0]:
                # Only now: the list shows a quieter day.
                story.dashboard()
            if folder == PICTURES and name.endswith(NARROW):
                continue
            target = folder / f"{name}.png"

            def picture(context, url=url, target=target, whole=whole):
                context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
                page = context.new_page()
                page.goto(url)
                if page.locator(".lrp-more summary").count():
                    page.locator(".lrp-more summary").first.click()
                page.screenshot(path=target, full_page=whole)

            browse(picture, **options)
            squeeze(target)
            print(f"{target} {target.stat().st_size // 1024} kB")
    server.terminate()


def squeeze(picture: Path) -> None:
    if pngquant := shutil.which("pngquant"):
        subprocess.run([pngquant, "--force", "--skip-if-larger", "--output", str(picture), str(picture)], check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
