#!/usr/bin/env python3
"""Set up and hand over: one file, standard library only.

    python3 dev.py demo [options]      run the example project
    python3 dev.py test [pytest args]  run the test suite
    python3 dev.py lint                ruff, mypy, import contracts, migrations
    python3 dev.py matrix [nox args]   the suite on other Pythons, Djangos and Celerys

The first start makes .venv and installs the project into it; later starts skip
that while pyproject.toml, the Python version and this folder stay the same.
"""

# This file must at least parse on an old Python, to say that it is too old.
import hashlib
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed-by-dev.json")
LOCK = os.path.join(ROOT, ".dev.lock")
MINIMUM = (3, 11)

#: What each verb installs. Whoever has the tests can also run the demo.
EXTRAS = {"demo": "demo", "test": "demo,test", "lint": "demo,test", "matrix": "demo,test"}

#: The verbs that become one other program.
PROGRAMS = {
    "demo": ["example_project/manage.py", "demo"],
    "test": ["-m", "pytest"],
    "matrix": ["-m", "nox"],
}

#: The whole suite is divided among one process more than there are processors, for many tests wait; among four at most.
DIVIDED = ["-n", str(min((os.cpu_count() or 1) + 1, 4)), "--dist", "worksteal"]

#: The checks of `lint`; all run, even if one fails.
LINT = [
    ["-m", "ruff", "check", "."],
    ["-m", "ruff", "format", "--check", "."],
    ["-m", "mypy"],
    ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
    ["-m", "django", "makemigrations", "--check", "--dry-run", "--settings=tests.settings"],
]


#: For commands that are only asked whether they work.
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class SetupError(Exception):
    """The machine lacks something; the message says what to type."""


def main(argv):
    """Set up what the verb needs and run it; the result is the exit status."""
    if not argv or argv[0] not in EXTRAS:
        print(__doc__.strip())
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    verb, arguments = argv[0], argv[1:]
    try:
        check_python(sys.version_info)
        set_up(EXTRAS[verb])
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    os.chdir(ROOT)
    if verb == "lint":
        return lint()
    if verb == "test" and not arguments:
        # Whoever asks for certain tests wants them one by one.
        arguments = DIVIDED
    return hand_over([PYTHON, *PROGRAMS[verb], *arguments])


def check_python(version):
    """Refuse a Python that cannot run the project."""
    if tuple(version[:2]) >= MINIMUM:
        return
    better = [name for name in ("python3.13", "python3.12", "python3.11") if runs(name)]
    hint = "This machine has %s: try `%s dev.py`." % (better[0], better[0]) if better else ""
    raise SetupError("Python %d.%d or newer is needed, this is %d.%d. %s" % (*MINIMUM, *version[:2], hint))


def set_up(extras):
    """Make .venv match pyproject.toml, unless it already does. Safe to run twice at once."""
    with open(LOCK, "w") as lock:
        wait_for(lock)
        identity, requirements = fingerprints()
        stamp = read_stamp()
        if stamp.get("identity") != identity or not runs(PYTHON):
            make_venv()
            stamp = {}
        done = stamp.get("requirements") == requirements and extras in stamp.get("extras", [])
        if not done:
            install(extras)
            write_stamp(identity, requirements, extras)


def wait_for(lock):
    """Wait until no other dev.py sets up this folder; the lock ends with the file."""
    try:
        import fcntl
    except ImportError:
        raise SetupError("this system is not supported; use Linux, macOS or WSL.") from None
    fcntl.flock(lock, fcntl.LOCK_EX)


def fingerprints():
    """Return (what the environment is bound to, what is installed in it) as two hashes."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        requirements = hashlib.sha256(file.read()).hexdigest()
    # Scripts in .venv hold its path, so a moved clone needs a new one.
    identity = hashlib.sha256((ROOT + "\n" + sys.version).encode()).hexdigest()
    return identity, requirements


def read_stamp():
    """Return what the last successful set-up wrote, or nothing."""
    try:
        with open(STAMP) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_stamp(identity, requirements, extras):
    """Remember a successful set-up; the larger set of extras covers the smaller."""
    covered = [name for name in set(EXTRAS.values()) if set(name.split(",")) <= set(extras.split(","))]
    with open(STAMP, "w") as file:
        json.dump({"identity": identity, "requirements": requirements, "extras": covered}, file)


def runs(python):
    """Tell whether this interpreter exists and starts."""
    try:
        return subprocess.call([python, "-c", ""], **SILENT) == 0
    except OSError:
        return False


def make_venv():
    """Make .venv anew, with its own pip where this Python can, without where it cannot."""
    say("making .venv with Python %d.%d" % sys.version_info[:2])
    # Debian ships `venv` without `ensurepip` until python3-venv is installed.
    if can_import("ensurepip", "version") and venv() == 0:
        return
    if not can_import("venv", "create"):
        raise SetupError("this Python has no venv module: apt-get install python3-venv")
    outside_pip()  # fails early, before a .venv without any pip is left behind
    if venv("--without-pip") != 0:
        raise SetupError("could not make %s; see above." % VENV)


def venv(*options):
    """Run `python -m venv` over .venv and return its exit status."""
    return subprocess.call([sys.executable, "-m", "venv", "--clear", *options, VENV])


def can_import(module, name):
    """Tell whether this Python has the module, with its contents: an empty folder can be imported, too."""
    # In a child: a broken module must not break this program.
    return subprocess.call([sys.executable, "-c", "from %s import %s" % (module, name)], **SILENT) == 0


def outside_pip():
    """Return the command of a pip that lives outside .venv and can install into it."""
    for command in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        try:
            # The option, not the version, is what is needed: pip has it since 22.3.
            check = [*command, "--python", sys.executable, "--version"]
            if subprocess.call(check, **SILENT) == 0:
                return [*command, "--python", PYTHON]
        except OSError:
            continue
    raise SetupError("no pip (22.3 or newer) was found: apt-get install python3-venv, or apt-get install python3-pip")


def install(extras):
    """Install this folder and its extras into .venv, editable."""
    say("installing lrp_celery[%s] and what it needs; the first time takes about a minute" % extras)
    inside = [PYTHON, "-m", "pip"]
    pip = inside if subprocess.call([*inside, "--version"], **SILENT) == 0 else outside_pip()
    command = [*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--editable", "%s[%s]" % (ROOT, extras)]
    if subprocess.call(command) != 0:
        raise SetupError(
            "pip could not install the project; its own words are above. The first start needs "
            "a package index: is this machine offline, or is a proxy or PIP_INDEX_URL missing?"
        )


def lint():
    """Run every check; 1 if any of them complained."""
    failed = [command for command in LINT if run_check(command) != 0]
    for command in failed:
        print("FAILED: %s" % " ".join(command), flush=True)
    print("lint: %d of %d checks passed" % (len(LINT) - len(failed), len(LINT)), flush=True)
    return 1 if failed else 0


def run_check(arguments):
    """Run one check with .venv's Python and return its exit status."""
    say(" ".join(arguments))
    return subprocess.call([PYTHON, *arguments])


def hand_over(command):
    """Become the other program, so that signals reach it and nobody else."""
    sys.stdout.flush()
    os.execv(command[0], command)


def say(text):
    """Print one line of progress at once, on stderr: stdout belongs to the program run."""
    print("dev.py: %s" % text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
