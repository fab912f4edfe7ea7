"""The house itself: what may import what, and what is shipped."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lrp_celery", "django_app")

# Kombu imports a piece of Django where it finds one, so sys.modules proves nothing:
# Django is made impossible to import instead.
IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
sys.modules["django"] = sys.modules["django_app"] = None
import lrp_celery
for module in pkgutil.walk_packages(lrp_celery.__path__, "lrp_celery."):
    importlib.import_module(module.name)
print("imported", len([name for name in sys.modules if name.startswith("lrp_celery.")]))
"""


def run(*arguments, cwd=ROOT):
    # Celery imports Django by itself where it sees this variable.
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def files_of(package, root=ROOT):
    found = (path for path in (root / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix() for path in found}


# --- Who may import whom


def test_the_library_can_be_imported_whole_where_there_is_no_django():
    result = run("-c", IMPORT_EVERYTHING)
    assert result.returncode == 0, result.stderr
    modules = [name for name in files_of("lrp_celery") if name.endswith(".py") and name != "lrp_celery/__init__.py"]
    assert result.stdout.split() == ["imported", str(len(modules))]


LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"


def test_the_import_contracts_hold():
    pytest.importorskip("importlinter")
    result = run("-c", LINT_IMPORTS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("lrp_celery/tracking/stray.py", "import django", "The library knows no Django"),
        ("lrp_celery/core/stray.py", "import lrp_celery.tracking", "Arrows point inward"),
        ("django_app/stray.py", "import tests", "Nothing that is shipped knows the example or the tests"),
    ],
)
def test_a_stray_import_breaks_a_contract(tmp_path, module, line, broken):
    pytest.importorskip("importlinter")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).write_text(line + "\n")
    result = run("-c", LINT_IMPORTS, cwd=tmp_path)
    assert result.returncode != 0
    assert f"{broken} BROKEN" in result.stdout


# --- What is shipped


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    result = run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel):
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == files_of("lrp_celery") | files_of("django_app")


def test_the_wheel_holds_what_is_no_python(wheel):
    shipped = set(wheel.namelist())
    assert {"lrp_celery/py.typed", "django_app/py.typed", "django_app/migrations/0001_initial.py"} <= shipped
    for kind in ("templates", "static", "locale"):
        if (ROOT / "django_app" / kind).exists():
            assert any(name.startswith(f"django_app/{kind}/") for name in shipped), kind


def test_the_wheel_carries_its_licence_and_needs_no_django(wheel):
    (licence,) = (name for name in wheel.namelist() if name.endswith("LICENSE"))
    assert b"MIT License" in wheel.read(licence)
    (metadata,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    needs = [line for line in wheel.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]
    always = {line.split()[1].split(">")[0] for line in needs if "extra ==" not in line}
    assert always == {"celery", "kombu"}
