"""How calls are shown whose publisher says how, and those that pass on the arguments of another task."""

from typing import NamedTuple

import pytest
from celery import Celery, chain
from celery.signals import after_task_publish
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st

from lrp_celery.core.redaction import REDACTED, Redactor
from lrp_celery.tracking import MemoryTrackingStore, displays, messages
from lrp_celery.tracking.displays import Arguments
from lrp_celery.tracking.recorder import SyncRecorder
from lrp_celery.tracking.signals import connect
from lrp_celery.tracking.tracking import Tracking, install, uninstall


class Pair(NamedTuple):
    """Python and Celery show it differently."""

    first: int
    second: str


class Known:
    """An app and the store in which its calls are tracked."""

    def __init__(self):
        self.app = Celery("displays", broker="memory://", set_as_current=False)
        self.store = MemoryTrackingStore()
        tracking = Tracking(store=self.store, recorder=SyncRecorder(self.store))
        install(lambda: tracking, self.app)
        connect()

    def shown(self, call_id):
        return self.store.get_status(call_id).target_summary


@pytest.fixture
def known():
    known = Known()

    @known.app.task(name="displays.login", shared=False)
    def login(user, password):
        """Have a parameter that is hidden by its name."""

    @known.app.task(name="displays.keep", shared=False)
    def keep(*values, **named):
        """Have none."""

    @known.app.task(name="displays.enter", shared=False)
    def enter(password):
        """Have but that one."""

    known.login, known.keep, known.enter = login, keep, enter
    known.app.finalize()
    yield known
    uninstall(known.app)
    known.app.close()


def in_message(call, **headers):
    """What a worker shows of a call."""
    redactor = Redactor()
    return displays.summary(redactor, call, displays.given_in_message(redactor, call, headers.get))


# --- argsrepr and kwargsrepr


def test_the_texts_of_the_publisher_are_shown_instead_of_ours(known):
    call = known.keep.apply_async(("4111",), {"a": 1, "b": 2}, argsrepr="(<card>,)", kwargsrepr="{'a': 1, ...}")
    assert known.shown(call.id) == "(<card>,), {'a': 1, ...}"


def test_each_of_them_counts_for_itself(known):
    one = known.keep.apply_async(("4111",), {"b": 2}, argsrepr="(<card>,)")
    other = known.keep.apply_async((1,), {"card": "4111"}, kwargsrepr="<named>")
    assert (known.shown(one.id), known.shown(other.id)) == ("(<card>,), b=2", "1, <named>")


def test_an_empty_text_shows_nothing_and_a_text_that_is_none_is_shown_as_one(known):
    assert known.shown(known.keep.apply_async(("4111",), argsrepr="").id) == ""
    assert known.shown(known.keep.apply_async(("4111",), argsrepr=["<card>"]).id) == "['<card>']"


def test_texts_that_celery_made_itself_are_not_the_publishers(known):
    long = ["x" * 300] * 10
    for args, kwargs in [((), {}), ((1, "a"), {"b": [1]}), ((long,), {"deep": {"a": {"b": {"c": {"d": 1}}}}})]:
        call = known.keep.apply_async(args, kwargs)
        assert known.shown(call.id) == Redactor().arguments(args, kwargs)


@pytest.mark.parametrize(
    "value",
    [
        *((), {}, (1,), (1, -2.5, None, True), (10**400,), (float("inf"), 1e300), ("it's", 'a"b'), ([1],) * 11),
        *({"a": 1}, {"a": "b", "c": None}, {"a": "it's"}, {"a": {"b": "c"}}, {"a": "x" * 2000}, ("x" * 400,) * 3),
        *(("x" * 1020,), ("x" * 1019,), ("x" * 1021, 1), {"a": "x" * 1015}, {"a": "x" * 1016, "b": 1}),
        *(("back\\slash", "new\nline", "tab\t", "\x00", "é", "\u2028", "\ud800"), {"é": "ß"}, Pair(1, "b")),
        *({str(n): n for n in range(number)} for number in (9, 10, 11)),
    ],
)
def test_what_we_say_that_celery_would_say_is_that(known, value):
    assert displays.celerys_own(known.app, "args", value) == saferepr(value, 1024, maxlevels=3)


_APP = Celery("displays", set_as_current=False)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=1100)


@given(
    st.lists(_PLAIN, max_size=11)
    | st.lists(_PLAIN, max_size=11).map(tuple)
    | st.dictionaries(st.text(max_size=20), _PLAIN, max_size=11)
)
def test_what_we_say_of_plain_arguments_is_what_celery_says(value):
    assert displays.celerys_own(_APP, "kwargs", value) == saferepr(value, 1024, maxlevels=3)


def test_a_text_of_the_publisher_is_bounded_cleaned_and_redacted(known):
    call = known.login.apply_async(("ada", "hunter22"), argsrepr="\x00hunter22 token=abcdef " + "x" * 5000)
    assert known.shown(call.id).startswith(f"{REDACTED} token={REDACTED} x")
    assert len(known.shown(call.id)) == 1000


def test_a_task_that_only_its_worker_knows_is_shown_by_the_publishers_text_alone(known):
    given = known.app.send_task("displays.unknown", ("4111",), argsrepr="(<card>,)")
    named_only = known.app.send_task("displays.unknown", ("4111",), kwargsrepr="<named>")
    assert (known.shown(given.id), known.shown(named_only.id)) == ("(<card>,)", None)


def message_of(known, task, *args, **options):
    """The headers with which a call goes out."""
    sent = {}

    def note(headers, **_):
        sent.update(headers)

    after_task_publish.connect(note)
    task.apply_async(args, **options)
    after_task_publish.disconnect(note)
    return sent


def test_a_worker_that_makes_the_row_shows_the_publishers_text_too(known):
    headers = message_of(known, known.keep, "4111", argsrepr="(<card>,)")
    assert in_message(Arguments(known.app, "displays.keep", ["4111"], {}), **headers) == "(<card>,)"


def test_a_worker_that_makes_the_row_copies_what_the_publisher_showed(known):
    headers = message_of(known, known.login, "ada", "hunter22")
    assert headers["lrp"]["summary"] == f"'ada', {REDACTED}"
    headers["lrp"]["summary"] = "told\x00 " + "x" * 5000
    assert messages.summary_in(headers.get).startswith("told xxx")
    assert len(messages.summary_in(headers.get)) == 1000


def test_a_publisher_that_does_not_know_the_task_tells_its_worker_nothing_of_the_arguments(known):
    sent = {}
    after_task_publish.connect(note := lambda headers, **_: sent.update(headers))
    known.app.send_task("displays.unknown", ("hunter22",))
    after_task_publish.disconnect(note)
    assert messages.summary_in(sent.get) is None


def test_a_retry_with_other_arguments_tells_of_those(known):
    first = message_of(known, known.login, "ada", "hunter22")
    retry = message_of(known, known.login, "bob", "hunter22", retries=1, headers={"lrp": first["lrp"]})
    assert retry["lrp"]["summary"] == f"'bob', {REDACTED}"
    assert {**retry["lrp"], "summary": None} == {**first["lrp"], "summary": None}


def test_a_retry_for_which_celery_makes_its_own_text_still_shows_the_publishers(known):
    first = message_of(known, known.keep, "4111", argsrepr="(<card>,)")
    retry = message_of(known, known.keep, "4111", retries=1, headers={"lrp": first["lrp"]})
    assert retry["argsrepr"] == "('4111',)"
    assert in_message(Arguments(known.app, "displays.keep", ["4111"], {}), **retry) == "(<card>,)"


def test_a_worker_does_not_take_celerys_text_for_the_publishers(known):
    for args in (["ada", "pin1"], ["ada", ["a", "b"]]):
        headers = message_of(known, known.login, *map(tuple, args))
        call = Arguments(known.app, "displays.login", args, {})
        assert in_message(call, **headers) == f"'ada', {REDACTED}"


# --- The same from a publisher that does not track


def test_a_strangers_text_is_shown_where_it_is_not_celerys(known):
    call = Arguments(known.app, "displays.keep", ["4111"], {"a": 1})
    assert in_message(call, argsrepr="(<card>,)", kwargsrepr="{'a': 1}") == "(<card>,), a=1"


@pytest.mark.parametrize("argsrepr", ["('ada', 'pin1')", "['ada', 'pin1']", "('ada', <secret>)", "('ada', 'p', ...)"])
def test_a_strangers_text_never_shows_what_we_hide(known, argsrepr):
    call = Arguments(known.app, "displays.login", ["ada", "pin1"], {})
    shown = in_message(call, argsrepr=argsrepr, kwargsrepr="{}")
    assert shown in {f"'ada', {REDACTED}", REDACTED}


def test_a_message_whose_arguments_could_not_be_read_shows_none(known):
    assert in_message(Arguments(known.app, "displays.login", None, None), argsrepr="('ada', 'pin1')") == ""


# --- map, starmap and chunks


def test_a_map_over_a_known_task_is_redacted_by_its_parameters(known):
    call = known.enter.map(["pin1", "pin2"]).apply_async()
    assert known.shown(call.id) == f"displays.enter, 2 items: ({REDACTED}), ({REDACTED})"


def test_a_starmap_over_a_known_task_is_redacted_by_its_parameters(known):
    call = known.login.starmap([("ada", "pin1")]).apply_async()
    assert known.shown(call.id) == f"displays.login, 1 item: ('ada', {REDACTED})"


def test_chunks_go_out_as_starmaps(known):
    parts = known.login.chunks([("ada", "pin1"), ("bob", "pin2"), ("eve", "pin3")], 2).apply_async()
    shown = {known.shown(part.id) for part in parts}
    assert shown == {
        f"displays.login, 2 items: ('ada', {REDACTED}), ('bob', {REDACTED})",
        f"displays.login, 1 item: ('eve', {REDACTED})",
    }


@pytest.mark.parametrize("task", ["celery.map", "celery.starmap", "celery.chunks"])
def test_items_for_a_task_that_is_not_known_here_are_only_counted(known, task):
    items = [("ada", "pin1")] * 12
    call = known.app.send_task(task, (), {"task": {"task": "displays.elsewhere"}, "it": items, "n": 3})
    assert known.shown(call.id) == "displays.elsewhere, 12 items"


def test_many_items_are_not_all_shown(known):
    call = known.keep.map(list(range(100))).apply_async()
    assert known.shown(call.id).startswith("displays.keep, 100 items: (0), (1), ")
    assert known.shown(call.id).endswith("(19), ...")


def test_no_items_are_no_trouble(known):
    assert known.shown(known.login.map([]).apply_async().id) == "0 items"
    assert known.shown(known.app.send_task("celery.map", (1,), {"it": "no list"}).id) == "0 items"


def test_a_publishers_text_for_a_map_goes_before_ours(known):
    call = known.login.starmap([("ada", "pin1")]).apply_async(kwargsrepr="<one login>")
    assert known.shown(call.id) == "<one login>"


def test_a_worker_shows_a_strangers_map_by_its_count(known):
    message = {"task": dict(known.login.s()), "it": [["ada", "pin1"]]}
    call = Arguments(known.app, "celery.starmap", [], message)
    assert in_message(call, argsrepr="()", kwargsrepr="{'it': [('ada', 'pin1')]}") == "displays.login, 1 item"
    assert in_message(call, lrp={}) == f"displays.login, 1 item: ('ada', {REDACTED})"


def test_what_an_item_hides_is_blotted_out_of_errors(known):
    call = Arguments(known.app, "celery.starmap", [], {"task": {"task": "displays.login"}, "it": [["a", "hunter22"]]})
    assert displays.secrets(Redactor(), call) == {"hunter22"}


def test_a_map_in_a_chain_is_shown_alike(known):
    first = chain(known.login.starmap([("ada", "pin1")]), known.keep.si()).apply_async()
    assert known.shown(first.parent.id) == f"displays.login, 1 item: ('ada', {REDACTED})"
