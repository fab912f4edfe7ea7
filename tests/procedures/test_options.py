"""What may be said of a procedure, and of a call; and what is said of everything else."""

import copy
import inspect
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery import Celery, Task, signature
from celery.app.amqp import AMQP

from lrp_celery.core.errors import ConfigurationError
from lrp_celery.procedures import options as module
from lrp_celery.procedures.options import UNSET, CallOptions, ProcedureOptions
from lrp_celery.tracking.owned import Terms

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
APP = Celery("shop", set_as_current=False)


# --- @procedure


def test_the_defaults_are_those_of_the_design():
    chosen = ProcedureOptions.of()
    assert chosen == ProcedureOptions()
    assert (chosen.timeout, chosen.time_to_live, chosen.grace) == (None, UNSET, UNSET)
    assert (chosen.idempotent, chosen.max_attempts, chosen.keep_result) == (False, 3, True)
    assert (chosen.sensitive, chosen.permission, chosen.store) == ((), None, None)


def test_durations_are_kept_in_seconds():
    chosen = ProcedureOptions.of(timeout=timedelta(minutes=30), time_to_live=timedelta(days=1), grace=5)
    assert (chosen.timeout, chosen.time_to_live, chosen.grace) == (1800, 86_400, 5)


def test_unset_and_none_are_told_apart_and_shown_so():
    assert ProcedureOptions.of(time_to_live=None).time_to_live is None
    assert ProcedureOptions.of(time_to_live=UNSET).time_to_live is UNSET
    assert "time_to_live=UNSET" in repr(ProcedureOptions.of())
    assert pickle.loads(pickle.dumps(UNSET)) is copy.deepcopy(UNSET) is UNSET


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"timout": 1}, "@procedure has no option 'timout'. Did you mean 'timeout'?"),
        ({"ttl": 1}, "@procedure has no option 'ttl'. It has timeout, time_to_live"),
        ({"timeout": 0}, "timeout is 0: pass a timedelta"),
        ({"timeout": "1"}, "timeout is '1': pass a timedelta"),
        ({"time_to_live": -1}, "time_to_live is -1: pass a timedelta"),
        ({"grace": 0}, "grace is 0: pass a timedelta"),
        ({"grace": None}, "grace is None: pass a timedelta"),
        ({"idempotent": 1}, "idempotent is 1: pass True or False"),
        ({"keep_result": None}, "keep_result is None: pass True or False"),
        ({"max_attempts": 0}, "max_attempts is 0: pass a whole number from 1"),
        ({"max_attempts": True}, "max_attempts is True: pass a whole number from 1"),
        ({"max_attempts": 2.0}, "max_attempts is 2.0: pass a whole number from 1"),
        ({"sensitive": "password"}, "sensitive is 'password': pass a list of parameter names"),
        ({"sensitive": [1]}, "sensitive holds something that is not a text"),
        ({"permission": 1}, "permission is 1: pass a text"),
        ({"permission": ""}, "permission is '': pass a text"),
    ],
)
def test_a_wrong_option_is_a_type_error_that_says_what_is_right(given, says):
    with pytest.raises(ConfigurationError) as caught:
        ProcedureOptions.of(**given)
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith(says)


def test_sensitive_names_parameters():
    assert ProcedureOptions.of(["user", "pin"], sensitive=["pin"]).sensitive == ("pin",)
    with pytest.raises(
        ConfigurationError, match=r"The function has no parameter 'pim', which sensitive names\. Did you mean 'pin'\?"
    ):
        ProcedureOptions.of(["user", "pin"], sensitive=["pim"])
    unchecked = ProcedureOptions.of(sensitive=["pim"])
    unchecked.check_sensitive(["user"], any_name=True)
    with pytest.raises(ConfigurationError, match="The function has no parameter"):
        unchecked.check_sensitive(["user"])


def test_they_are_frozen():
    with pytest.raises(AttributeError):
        ProcedureOptions().timeout = 1


def test_terms_are_the_procedures_and_the_calls_have_the_last_word():
    chosen = ProcedureOptions.of(timeout=60, idempotent=True, max_attempts=5, keep_result=False)
    expected = Terms(app="shop", timeout=60, grace=7, idempotent=True, max_attempts=5, keep_result=False)
    assert chosen.terms(APP, 7) == chosen.terms(APP, 7, CallOptions()) == expected
    assert ProcedureOptions.of(grace=3).terms(APP, 7).grace == 3
    assert chosen.terms(APP, 7, CallOptions().merged(timeout=None)).timeout is None
    assert chosen.terms(APP, 7, CallOptions().merged(timeout=5)).timeout == 5


@pytest.mark.parametrize(
    ("procedures", "calls", "expected"),
    [
        ({}, {}, (None, False)),
        ({"time_to_live": None}, {}, (None, True)),
        ({"time_to_live": 5}, {}, (5, False)),
        ({"time_to_live": 5}, {"time_to_live": None}, (None, True)),
        ({"time_to_live": None}, {"time_to_live": 5}, (5, False)),
        ({}, {"time_to_live": None}, (None, True)),
    ],
)
def test_none_keeps_until_removed_and_unset_leaves_it_to_retention(procedures, calls, expected):
    terms = ProcedureOptions.of(**procedures).terms(APP, 10, CallOptions().merged(**calls))
    assert (terms.time_to_live, terms.until_removed) == expected


# --- using(...)


def test_a_changed_copy_leaves_the_original_alone():
    base = CallOptions().merged(queue="slow", headers={"tenant": "a"})
    changed = base.merged(priority=3, owner="ada", call_id="report-7", timeout=60, detached=True)
    assert (base.celery, base.owner) == ({"queue": "slow", "headers": {"tenant": "a"}}, None)
    assert changed.celery == {"queue": "slow", "headers": {"tenant": "a"}, "priority": 3}
    assert (changed.owner, changed.call_id, changed.timeout, changed.detached) == ("ada", "report-7", 60, True)
    assert changed.time_to_live is UNSET
    assert copy.deepcopy(changed) == pickle.loads(pickle.dumps(changed)) == changed


def test_none_takes_back():
    base = CallOptions().merged(queue="slow", countdown=5, owner="ada", call_id="x")
    assert base.merged(queue=None, countdown=None, owner=None, call_id=None) == CallOptions()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"countdown": 10}, {"countdown": 10}),
        ({"countdown": 0}, {"countdown": 0}),
        ({"countdown": timedelta(minutes=1)}, {"countdown": 60}),
        ({"eta": NOON}, {"eta": NOON}),
        ({"eta": NOON.astimezone(timezone(timedelta(hours=5)))}, {"eta": NOON}),
        ({"expires": 60}, {"expires": 60}),
        ({"expires": timedelta(minutes=1)}, {"expires": 60}),
        ({"expires": NOON}, {"expires": NOON}),
        ({"priority": 0}, {"priority": 0}),
        ({"queue": "a", "exchange": "b", "routing_key": "c"}, {"queue": "a", "exchange": "b", "routing_key": "c"}),
        ({"delivery_mode": "transient"}, {"delivery_mode": "transient"}),
        ({"compression": "zlib"}, {"compression": "zlib"}),
        ({"serializer": "json"}, {}),
        ({"time_limit": 5, "soft_time_limit": 4.5}, {"time_limit": 5, "soft_time_limit": 4.5}),
        ({"link": signature("a")}, {"link": [signature("a")]}),
        ({"link_error": [signature("a"), signature("b")]}, {"link_error": [signature("a"), signature("b")]}),
        ({"shadow": "nightly"}, {"shadow": "nightly"}),
        ({"argsrepr": "..."}, {"argsrepr": "..."}),
    ],
)
def test_celerys_options_are_taken_in_celerys_words(given, kept):
    assert CallOptions().merged(**given).celery == kept


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"qeue": "slow"}, "using() has no option 'qeue'. Did you mean 'queue'?"),
        ({"time_to_life": 1}, "using() has no option 'time_to_life'. Did you mean 'time_to_live'?"),
        ({"task_id": "x"}, "using() does not take 'task_id': the id of a call is its call_id."),
        ({"producer": None}, "using() does not take 'producer': another process may send the message later"),
        ({"connection": None}, "using() does not take 'connection'"),
        ({"add_to_parent": True}, "using() does not take 'add_to_parent': call() returns an id"),
        ({"ignore_result": True}, "using() does not take 'ignore_result': the row keeps the result"),
        ({"retry": False}, "using() does not take 'retry': the message is sent until it is out"),
        ({"chain": []}, "using() does not take 'chain': Celery's canvas sets it"),
        ({"retries": 1}, "using() does not take 'retries'"),
        ({"countdown": 1, "eta": NOON}, "countdown and eta both say when"),
        ({"countdown": -1}, "countdown is -1"),
        ({"countdown": False}, "countdown is False"),
        ({"eta": NOON.replace(tzinfo=None)}, "eta is naive"),
        ({"eta": "2026-10-01"}, "eta is '2026-10-01': pass an aware datetime"),
        ({"expires": NOON.replace(tzinfo=None)}, "expires is naive"),
        ({"expires": 0}, "expires is 0"),
        ({"priority": 256}, "priority is 256: pass a whole number from 0 to 255"),
        ({"priority": True}, "priority is True"),
        ({"queue": 5}, "queue is 5: pass a text"),
        ({"serializer": "pickle"}, "serializer is 'pickle': the message of a procedure's call is JSON"),
        ({"delivery_mode": 3}, "delivery_mode is 3"),
        ({"headers": ["a"]}, "headers is ['a']: pass a dict"),
        ({"headers": {1: "a"}}, "headers is {1: 'a'}: pass a dict"),
        ({"headers": {"id": "a"}}, "headers holds 'id', which is not free"),
        ({"headers": {"lrp_owned": "a"}}, "headers holds 'lrp_owned', which is not free"),
        ({"link": "task"}, "link is 'task': pass a signature"),
        ({"argsrepr": 1}, "argsrepr is 1: pass a text"),
        ({"timeout": 0}, "timeout is 0"),
        ({"time_to_live": True}, "time_to_live is True"),
        ({"detached": 1}, "detached is 1: pass True or False"),
        ({"call_id": ""}, "call_id is '': pass a text of 1 to 200 characters"),
        ({"call_id": "x" * 201}, "call_id is 'xxx"),
        ({"call_id": "a\x00"}, "call_id is "),
        ({"call_id": 7}, "call_id is 7"),
        ({"owner": "x" * 256}, "owner is 'xxx"),
        ({"owner": ""}, "owner is ''"),
        ({"owner": 5}, "owner is 5"),
    ],
)
def test_a_wrong_call_option_says_what_is_right(given, says):
    with pytest.raises(ConfigurationError) as caught:
        CallOptions().merged(**given)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 600


def test_countdown_and_eta_exclude_each_other_across_changes():
    base = CallOptions().merged(countdown=5)
    with pytest.raises(ConfigurationError, match="keep one"):
        base.merged(eta=NOON)
    assert base.merged(eta=NOON, countdown=None).celery == {"eta": NOON}


def test_the_longest_id_and_owner_are_taken():
    chosen = CallOptions().merged(call_id="x" * 200, owner="x" * 255)
    assert (len(chosen.call_id or ""), len(chosen.owner or "")) == (200, 255)


def test_every_option_that_celery_documents_is_taken_or_refused_with_a_reason():
    known = {*module._CALL, *module._CELERY, *module._REFUSED}
    names = {
        name
        for function in (Task.apply_async, Celery.send_task)
        for name, each in inspect.signature(function).parameters.items()
        if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}
    }
    # What only names the task, or is Celery's own business.
    names -= {"self", "args", "kwargs", "name", "router", "route_name", "task_type"}
    assert names <= known
    assert set(Task()._get_exec_options()) - {"immediate", "mandatory"} <= known


def test_no_header_of_celerys_can_be_written_over():
    message = AMQP(Celery("headers", set_as_current=False)).as_task_v2("id", "task")
    assert set(message.headers) == module._CELERYS_HEADERS
