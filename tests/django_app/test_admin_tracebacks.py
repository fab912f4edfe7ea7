from django_app.admin.tracebacks import of_application
from tests.browser.story import SMUDGED


def test_stretches_of_library_code_become_one_line_each():
    assert of_application(SMUDGED).splitlines() == [
        "Traceback (most recent call last):",
        "  … 2 frames of libraries",
        '  File "/srv/atlas/places/tasks.py", line 28, in import_places',
        "    places = read_places(source)",
        "             ^^^^^^^^^^^^^^^^^^^",
        '  File "/srv/atlas/places/readers.py", line 58, in _degrees',
        """    raise MalformedFile(f"{where}: {column} {text!r} is not a number") from None""",
        "places.readers.MalformedFile: smudged.csv, line 14: latitude '48?12' is not a number",
    ]


def test_a_chain_of_errors_keeps_what_stands_between_them():
    inner = (
        'Traceback (most recent call last):\n  File "/usr/lib/python3.11/json/decoder.py", line 5, in decode\n    x()\n'
    )
    outer = (
        'Traceback (most recent call last):\n  File "C:\\shop\\tasks.py", line 7, in sell\n    y()\nValueError: no\n'
    )
    between = "\nDuring handling of the above exception, another exception occurred:\n\n"
    folded = of_application(f"{inner}KeyError: 'a'\n{between}{outer}")
    assert folded.splitlines() == [
        "Traceback (most recent call last):",
        "  … 1 frame of libraries",
        "KeyError: 'a'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "C:\\shop\\tasks.py", line 7, in sell',
        "    y()",
        "ValueError: no",
    ]


def test_what_has_only_frames_of_one_sort_or_none_is_left_alone():
    of_libraries = (
        'Traceback (most recent call last):\n  File "/x/site-packages/celery/app.py", line 5, in run\nE: no\n'
    )
    of_the_application = 'Traceback (most recent call last):\n  File "/srv/app.py", line 5, in run\nE: no\n'
    for text in (of_libraries, of_the_application, "", "Segmentation fault", "\n" * 5, '  File "'):
        assert of_application(text) is None


def test_installed_places_count_as_libraries_on_every_system():
    template = (
        'Traceback (most recent call last):\n  File "{}", line 5, in run\n  File "/srv/app.py", line 1, in f\nE\n'
    )
    for path in (
        "/venv/lib/python3.13/site-packages/a.py",
        "/usr/lib/python3/dist-packages/a.py",
        "/usr/local/lib/python3.12/asyncio/base.py",
        "C:\\venv\\Lib\\site-packages\\a.py",
        "C:\\Python311\\Lib\\asyncio\\base.py",
        "<frozen importlib._bootstrap>",
    ):
        assert "1 frame of libraries" in of_application(template.format(path)), path
