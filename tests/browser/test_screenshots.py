"""The pictures of the README are of what there is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import MISSING, find_chromium

ROOT = Path(__file__).parents[2]
PAGES = ("list", "detail", "dashboard")


@pytest.mark.browser
def test_the_main_pages_have_their_pictures_taken_light_and_dark(tmp_path):
    if find_chromium() is None:
        pytest.skip(MISSING)
    subprocess.run([sys.executable, "-m", "tests.browser.make_screenshots", str(tmp_path)], cwd=ROOT, check=True)
    taken = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for page in PAGES:
        light, dark = taken[f"admin-{page}.png"], taken[f"admin-{page}-dark.png"]
        assert min(len(light), len(dark)) > 10_000
        assert light != dark


def test_the_readme_shows_the_main_pages_light_and_dark():
    text = (ROOT / "README.md").read_text()
    for page in PAGES:
        for name in (f"docs/images/admin-{page}.png", f"docs/images/admin-{page}-dark.png"):
            assert name in text
            assert (ROOT / name).read_bytes().startswith(b"\x89PNG")
