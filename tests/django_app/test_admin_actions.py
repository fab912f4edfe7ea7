"""Acting on calls in the admin: what is asked, done, said and kept, and who may."""

import json
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import django
import pytest
from celery import _state
from django.contrib import admin
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone, translation

from django_app.admin import acting as doing
from django_app.admin.calls import CallAdmin
from django_app.admin.offers import OFFERS
from django_app.models import ActionLog, Call
from lrp_celery import calls
from lrp_celery.core.ids import new_id
from lrp_celery.procedures import deeds
from tests.django_app import acting

LIST = "/admin/lrp_celery/call/"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _scene(monkeypatch):
    before = _state.get_current_app()
    acting.app.set_current()
    acting.sent()
    yield
    before.set_current()


@pytest.fixture(autouse=True)
def revoked(monkeypatch):
    from lrp_celery.procedures import stopping

    found = []
    monkeypatch.setattr(stopping, "revoke", lambda app, runtime, call_id, **kwargs: found.append((call_id, kwargs)))
    return found


def person(*rights, name="vera"):
    made = get_user_model().objects.create_user(name, is_staff=True)
    made.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return made


def signed_in(*rights, name="vera", **options):
    client = Client(**options)
    client.force_login(person(*rights, name=name))
    return client


@pytest.fixture
def ada():
    """Somebody who may do everything to calls, but is no superuser."""
    return signed_in("view_call", *(offer.permission for offer in OFFERS.values()), name="ada")


def ask(client, action, *call_ids, path=LIST, **more):
    return client.post(path, {"action": action, "_selected_action": call_ids, "index": "0", **more})


def do(client, action, *call_ids, path=LIST, said=None, **more):
    """Ask, confirm, and return what the next page says."""
    fields = acting.confirmation(ask(client, action, *call_ids, path=path, **more))
    assert fields is not None
    answer = client.post(path, {**fields, **(said or {})}, follow=True)
    return [f"{message.level_tag}: {message.message}" for message in answer.context["messages"]]


def audit():
    return list(ActionLog.objects.order_by("id").values_list("deed", "call_id", "by", "reason", "outcome"))


def entries():
    return sorted(LogEntry.objects.values_list("object_id", "action_flag", "change_message", "user__username"))


# --- What is done


def test_abort_tells_what_is_certain_from_what_was_only_asked_for(ada, revoked):
    waits, runs, plain, over = acting.waiting(), acting.running(), acting.observed("plain-1"), acting.ended()
    page = ask(ada, "abort_calls", waits, runs, plain, over).content.decode()
    for words in ("ends at once", "told to end", "workers are told to drop it", "skipped: it has ended"):
        assert words in page, words
    told = do(ada, "abort_calls", waits, runs, plain, over, said={"reason": "wrong month"})
    assert told == [
        "success: Abort, 1 call: ended.",
        "info: Abort, 2 calls: asked to end; whether it does shows on its page.",
        "warning: Abort, 1 call: it has ended.",
    ]
    assert calls.get(waits).status == "aborted"
    assert calls.get(runs).abort_requested_at is not None
    assert revoked == [(plain, {"kill": False})]
    assert sorted(audit()) == sorted(
        [
            ("abort", waits, "ada", "wrong month", "aborted"),
            ("abort", runs, "ada", "wrong month", "asked to end"),
            ("abort", plain, "ada", "wrong month", "asked to end"),
        ]
    )
    assert entries() == sorted(
        [
            (waits, CHANGE, "Abort: aborted.", "ada"),
            (runs, CHANGE, "Abort: asked to end.", "ada"),
            (plain, CHANGE, "Abort: asked to end.", "ada"),
        ]
    )


def test_a_forced_abort_kills(ada, revoked):
    acting.observed("plain-1")
    do(ada, "abort_calls", "plain-1", said={"force": "yes"})
    assert revoked == [("plain-1", {"kill": True})]


def test_abort_with_descendants_reaches_those_that_were_not_selected(ada, revoked):
    root, child, over = acting.ended(), acting.observed("child"), acting.observed("over", "succeeded")
    Call.objects.filter(pk__in=[child, over]).update(root_id=root, parent_id=root)
    assert "with the open calls that came of it" in ask(ada, "abort_trees", root).content.decode()
    assert "1 descendant was asked to end." in " ".join(do(ada, "abort_trees", root))
    assert revoked == [(child, {"kill": False})]
    assert entries() == [(child, CHANGE, f"Abort, with {root}: asked to end.", "ada")]
    assert [(line[0], line[1], line[4]) for line in audit()] == [
        ("abort", root, "had ended"),
        ("abort", child, "asked to end"),
    ]
    assert acting.confirmation(ask(ada, "abort_trees", acting.ended())) is None


def family_of_one_root(*others):
    root = acting.waiting()
    Call.objects.filter(pk__in=others).update(root_id=root, parent_id=root)
    return root


def test_abort_with_descendants_does_not_reach_those_that_one_may_not_see(ada, revoked, monkeypatch):
    seen = CallAdmin.get_queryset
    monkeypatch.setattr(CallAdmin, "get_queryset", lambda self, request: seen(self, request).exclude(pk="hidden"))
    root = family_of_one_root(acting.observed("hidden"), acting.observed("shown"))
    assert "info: 1 descendant was asked to end." in do(ada, "abort_trees", root)
    assert revoked == [("shown", {"kill": False})]
    assert {line[1] for line in audit()} == {entry[0] for entry in entries()} == {root, "shown"}


def test_a_tree_that_cannot_be_killed_as_a_whole_is_left_alone(ada, revoked):
    """Else what was done to some of its calls before one is refused would miss in Django's record."""
    root = family_of_one_root(acting.running(), acting.observed("plain-1"))
    assert do(ada, "abort_trees", root, said={"force": "yes"})[0].endswith("abort it without force.")
    assert (calls.get(root).status, revoked, audit(), entries()) == ("submitted", [], [], [])


def test_a_call_below_others_is_not_said_to_have_descendants_that_are_theirs(ada):
    leaf, over, other = acting.waiting(), acting.ended(), acting.observed("plain-1")
    family_of_one_root(leaf)
    assert "ends at once" in ask(ada, "abort_trees", leaf).content.decode()
    family_of_one_root(over, other)
    page = ask(ada, "abort_trees", over).content.decode()
    assert "with what came of it, if it is open" in page
    assert "with the open calls that came of it" not in page
    assert do(ada, "abort_trees", over) == ["warning: Abort with descendants, 1 call: it had ended."]


def test_descendants_that_had_ended_are_not_on_record(ada):
    root = family_of_one_root(acting.observed("over", "succeeded"))
    do(ada, "abort_trees", root)
    assert [line[1] for line in audit()] == [root]


@override_settings(LRP_CELERY={"PAYLOAD": ["acting.*"]})
def test_what_was_only_watched_runs_again_if_its_arguments_were_kept(ada):
    failed, plain = acting.mailed(), acting.observed("plain-1", "failed")
    acting.sent()
    page = ask(ada, "rerun_calls", failed, plain).content.decode()
    assert "skipped: it was only observed, and its arguments were not kept" in page
    assert do(ada, "rerun_calls", failed, plain)[0].startswith("success: Run again, 1 call")
    again = Call.objects.get(rerun_of=failed)
    assert acting.sent() == [again.pk]
    assert acting.arguments_of(again.pk) == ["ada@example.com", acting.SECRET]
    assert (again.owned, again.task, acting.SECRET in again.target_summary) == (False, "acting.mail", False)
    assert audit() == [("rerun", failed, "ada", None, f"runs again as {again.pk}")]
    assert Call.objects.get(pk=failed).handled_by == "ada"
    markup = signed_in("view_call", "view_payload").get(f"{LIST}{failed}/change/").content.decode()
    assert "Arguments in full" in markup
    assert acting.SECRET not in markup


@override_settings(LRP_CELERY={"PAYLOAD": ["acting.*"]})
def test_what_was_only_watched_and_the_broker_does_not_take_is_told(ada, monkeypatch):
    from lrp_celery.procedures import rerunning

    def away(*_):
        raise rerunning.BrokerAway

    monkeypatch.setattr(rerunning, "ask_broker", away)
    failed, other = acting.mailed(), acting.mailed("other")
    assert do(ada, "rerun_calls", failed, other) == [
        "error: Run again, 2 calls: the broker did not say that it took the new call; whether it runs shows on its page."
    ]
    assert [line[4] for line in audit()] == ["refused: PublishFailed"] * 2
    assert entries() == []
    assert Call.objects.get(pk=failed).handled_at is None


def test_rerun_makes_new_calls_after_the_commit_and_marks_the_old_ones_handled(ada):
    failed, plain = acting.ended(month="2026-09"), acting.observed("plain-1", "failed")
    acting.sent()
    page = ask(ada, "rerun_calls", failed, plain).content.decode()
    assert "runs again, as a new call" in page
    assert "skipped: it was only observed, and its arguments were not kept" in page
    assert acting.sent() == []
    told = do(ada, "rerun_calls", failed, plain)
    again = Call.objects.get(rerun_of=failed)
    assert told[0] == "success: Run again, 1 call: called again."
    assert f"/{quote(again.pk)}/change/" in told[-1]
    assert acting.sent() == [again.pk]
    assert acting.arguments_of(again.pk) == ["2026-09"]
    old = Call.objects.get(pk=failed)
    assert (old.status, old.handled_by) == ("failed", "ada")
    assert audit() == [("rerun", failed, "ada", None, f"runs again as {again.pk}")]
    assert entries() == [(failed, CHANGE, f"Run again as {again.pk}.", "ada")]


@override_settings(LRP_CELERY={"PAYLOAD": ["acting.*"]})
@pytest.mark.parametrize("make", [acting.ended, acting.mailed])
def test_a_confirmation_that_is_sent_twice_makes_one_call_and_is_once_on_record(ada, make):
    failed = make()
    fields = acting.confirmation(ask(ada, "rerun_calls", failed))
    assert ada.post(LIST, fields).status_code == 302
    answer = ada.post(LIST, fields, follow=True)
    again = Call.objects.get(rerun_of=failed)
    assert [str(message) for message in answer.context["messages"]][-2] == (
        "Run again, 1 call: it was called again before."
    )
    assert audit() == [("rerun", failed, "ada", None, f"runs again as {again.pk}")]
    assert entries() == [(failed, CHANGE, f"Run again as {again.pk}.", "ada")]


def test_nothing_goes_out_before_the_request_is_committed(ada, monkeypatch):
    failed = acting.ended()
    acting.sent()
    fields = acting.confirmation(ask(ada, "rerun_calls", failed))
    seen = []

    def tell(self, *args, **kwargs):
        seen.append(acting.sent())
        raise RuntimeError

    monkeypatch.setattr(CallAdmin, "_tell", tell)
    with pytest.raises(RuntimeError), transaction.atomic():
        ada.post(LIST, fields)
    assert (seen, acting.sent()) == ([[]], [])
    assert not Call.objects.filter(rerun_of=failed).exists()
    assert Call.objects.get(pk=failed).handled_at is None


def test_send_again_sends_what_nobody_has_claimed(ada):
    waits, runs, plain = acting.waiting(), acting.running(), acting.observed("plain-1")
    acting.sent()
    page = ask(ada, "resend_calls", waits, runs, plain).content.decode()
    assert "skipped: a worker runs it" in page
    assert "skipped: it is no procedure&#x27;s, and its message was not kept" in page
    told = do(ada, "resend_calls", waits, runs, plain)
    assert told[0] == "info: Send again, 1 call: sent again; whether a worker takes it shows on its page."
    assert acting.sent() == [waits]
    assert audit() == [("resend", waits, "ada", None, "sent again")]


def test_a_handled_failure_needs_no_attention_any_more(ada):
    failed, fine = acting.ended(), acting.ended("succeeded")
    told = do(ada, "handle_calls", failed, fine, said={"reason": "the mirror was down"})
    assert told == [
        "success: Mark as handled, 1 call: marked as handled.",
        "warning: Mark as handled, 1 call: it has not failed.",
    ]
    assert audit() == [("handle", failed, "ada", "the mirror was down", "handled")]
    assert entries() == [(failed, CHANGE, "Failure handled.", "ada")]
    assert "skipped: it is handled already" in ask(ada, "handle_calls", failed).content.decode()
    shown = ada.get(LIST, {"attention": "failed"}).context["cl"].result_list
    assert [call.pk for call in shown] == []


def test_remove_forgets_ended_calls_only(ada):
    failed, waits = acting.ended(), acting.waiting()
    told = do(ada, "remove_calls", failed, waits)
    assert told == ["success: Remove, 1 call: removed.", "warning: Remove, 1 call: it is open."]
    assert (calls.get(failed), calls.get(waits) is not None) == (None, True)
    assert audit() == [("remove", failed, "ada", None, "removed")]
    assert [entry[:2] for entry in entries()] == [(failed, DELETION)]


# --- On what


def test_nothing_ticked_means_all_that_match_and_the_page_says_so(ada):
    failed = [acting.ended() for _ in range(3)]
    fine = acting.ended("succeeded")
    page = ask(ada, "rerun_calls", path=f"{LIST}?status=failed")
    assert "all that match" in page.content.decode()
    assert sorted(json.loads(acting.confirmation(page)["calls"])) == sorted(failed)
    assert do(ada, "rerun_calls", path=f"{LIST}?status=failed")[0].startswith("success: Run again, 3 calls")
    assert not Call.objects.filter(rerun_of=fine).exists()


def test_nothing_ticked_in_the_whole_list_does_nothing(ada):
    acting.ended()
    answer = ada.post(LIST, {"action": "remove_calls", "index": "0"}, follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["Tick calls, or filter the list first."]


def test_more_than_the_limit_is_cut_and_the_limit_is_printed(ada, monkeypatch):
    monkeypatch.setattr(CallAdmin, "action_limit", 2)
    failed = [acting.ended() for _ in range(3)]
    page = ask(ada, "handle_calls", path=f"{LIST}?status=failed")
    assert "acts on the newest 2 of them" in page.content.decode()
    assert json.loads(acting.confirmation(page)["calls"]) == failed[:0:-1]


def test_what_was_confirmed_is_judged_as_it_stands_when_it_is_done(ada):
    waits, gone = acting.waiting(), acting.ended()
    fields = acting.confirmation(ask(ada, "abort_calls", waits))
    fields["calls"] = json.dumps([waits, gone, "never-there"])
    calls.abort(waits)
    answer = ada.post(LIST, fields, follow=True)
    assert [str(message) for message in answer.context["messages"]] == [
        "Abort, 2 calls: it has ended.",
        "Abort, 1 call: it is gone.",
    ]


def test_what_does_not_get_done_in_time_is_said(ada, monkeypatch):
    failed = acting.ended()
    monkeypatch.setattr(doing.act, "__defaults__", (timedelta(0),))
    assert do(ada, "handle_calls", failed) == [
        "warning: Mark as handled, 1 call: time was up: do it once more for the rest."
    ]
    assert audit() == []


def test_a_large_tree_is_aborted_as_far_as_time_allows(ada, revoked, monkeypatch):
    """Else the request would go on for minutes, and what kills it would keep it from Django's record."""
    root = family_of_one_root(acting.observed("child-1"), acting.observed("child-2"))
    monkeypatch.setattr(doing.act, "__defaults__", (timedelta(seconds=60),))
    # Begins, looks before the root, asks it and one child to end; then time is up.
    clock = iter([0, 0, 0, 59])
    for module in (doing, deeds):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock, 60)))
    told = do(ada, "abort_trees", root)
    assert told[0].endswith("time was up before all that came of it was asked to end: do it once more for the rest.")
    assert told[1] == "info: 1 descendant was asked to end."
    assert len(revoked) == 1
    assert {line[1] for line in audit()} == {entry[0] for entry in entries()} == {root, revoked[0][0]}


def test_a_failure_of_one_call_does_not_keep_the_others_from_theirs(ada, monkeypatch):
    first, second = acting.ended(), acting.ended()
    from lrp_celery.core.errors import StoreError
    from lrp_celery.procedures.deeds import Deeds

    handle = Deeds.handle

    def fail(self, call_id, **more):
        if call_id == first:
            raise StoreError("the table is away")
        return handle(self, call_id, **more)

    monkeypatch.setattr(Deeds, "handle", fail)
    assert do(ada, "handle_calls", first, second) == [
        "success: Mark as handled, 1 call: marked as handled.",
        "error: Mark as handled, 1 call: the table is away.",
    ]


@override_settings(LRP_CELERY={"PAYLOAD": ["acting.*"]})
def test_a_message_that_cannot_be_read_does_not_keep_the_others_from_theirs(ada):
    odd, even = acting.mailed(to={"__type__": "?", "__value__": 1}), acting.mailed("even")
    told = do(ada, "rerun_calls", even, odd)
    assert told[0] == "success: Run again, 1 call: called again."
    assert told[1].endswith("its message cannot be read.")


def test_a_thousand_failures_are_not_a_thousand_messages(ada, monkeypatch):
    from lrp_celery.core.errors import StoreError
    from lrp_celery.procedures.deeds import Deeds

    def fail(self, call_id, **more):
        raise StoreError(f"{call_id} is locked")

    monkeypatch.setattr(Deeds, "handle", fail)
    told = do(ada, "handle_calls", *(acting.observed(f"plain-{number}", "failed") for number in range(40)))
    assert len(told) == 13
    assert told[-1] == "error: Mark as handled, 28 calls: not done either, for reasons like these."


def test_a_call_whose_arguments_do_not_fit_any_more_does_not_keep_the_others_from_theirs(ada, monkeypatch):
    first, second = acting.ended(month="2026-09"), acting.ended(month="2026-10")
    monkeypatch.setattr(acting.report.task, "__header__", only_october)
    told = do(ada, "rerun_calls", first, second)
    assert told[0] == "success: Run again, 1 call: called again."
    assert told[1].startswith("error: Run again, 1 call: ")
    assert "its arguments do not fit any more: not then" in told[1]
    assert [entry[0] for entry in entries()] == [second]
    assert Call.objects.get(pk=first).handled_at is None


def only_october(month, password=""):
    if month != "2026-10":
        raise TypeError("not then")


def test_actions_speak_german_and_the_record_does_not(ada, settings):
    settings.LANGUAGE_CODE = "de"
    failed = acting.ended()
    with translation.override("de"):
        page = ask(ada, "handle_calls", failed).content.decode()
        assert "Das Scheitern dieser Aufrufe als erledigt vermerken?" in page
        assert "gilt von jetzt an als erledigt" in page
        assert do(ada, "handle_calls", failed) == ["success: Als erledigt vermerken, 1 Aufruf: als erledigt vermerkt."]
    assert [entry[2] for entry in entries()] == ["Failure handled."]


def test_what_is_told_waits_for_somebody_who_reads_it(ada):
    """Else the script that refreshes another page would have taken it away."""
    failed, waits = acting.ended(), acting.waiting()
    ada.post(LIST, acting.confirmation(ask(ada, "handle_calls", failed)))
    for path in (LIST, f"{LIST}{quote(waits)}/change/", "/admin/lrp_celery/hourlyrollup/"):
        assert "marked as handled" not in ada.get(path, headers={"X-LRP-Refresh": "1"}).content.decode()
    assert ada.get(f"{LIST}gone/change/", headers={"X-LRP-Refresh": "1"}).status_code == 404
    answer = ada.get(LIST)
    assert "marked as handled" in answer.content.decode()
    assert "There is no call" not in answer.content.decode()


# --- The page of a call


def test_the_page_has_a_button_for_each_action_and_says_why_one_is_out_of_reach(ada):
    failed = acting.ended()
    text = ada.get(f"{LIST}{quote(failed)}/change/").content.decode()
    for name in ("rerun_calls", "handle_calls", "remove_calls"):
        assert f'name="action" value="{name}"' in text, name
    for name in ("abort_calls", "abort_trees", "resend_calls"):
        assert f'name="action" value="{name}"' not in text, name
    assert "This call: it has ended." in text
    viewer = signed_in("view_call")
    text = viewer.get(f"{LIST}{quote(failed)}/change/").content.decode()
    assert 'name="action"' not in text
    assert text.count('aria-disabled="true"') == len(OFFERS)


def test_from_its_page_one_comes_back_to_it(ada):
    failed = acting.ended()
    page = ask(ada, "handle_calls", failed, from_page="1")
    back = f"{LIST}{quote(failed)}/change/"
    assert f'href="{back}"' in page.content.decode()
    assert ada.post(LIST, acting.confirmation(page)).headers["Location"] == back
    page = ask(ada, "remove_calls", failed, from_page="1")
    assert ada.post(LIST, acting.confirmation(page)).headers["Location"] == LIST


def test_hostile_ids_and_texts_do_not_break_out(ada):
    evil = '"><script>alert(1)</script>/?&#'
    acting.observed(evil)
    Call.objects.filter(pk=evil).update(task=evil)
    page = ask(ada, "abort_calls", evil)
    assert "<script>alert" not in page.content.decode()
    path = f"{LIST}{quote(evil)}/change/"
    assert "<script>alert" not in ada.get(path).content.decode()
    assert do(ada, "abort_calls", evil, said={"reason": evil + "\x00\ud800".encode("utf-8", "replace").decode()})
    assert "<script>alert" not in ada.get("/admin/lrp_celery/actionlog/").content.decode()


@pytest.mark.parametrize(
    "change",
    [
        {"calls": "nothing"},
        {"calls": "{}"},
        {"calls": "[1]"},
        {"calls": '[""]'},
        {"calls": json.dumps(["x" * 201])},
        {"calls": json.dumps([str(n) for n in range(1001)])},
        {"calls": "[" * 100_000},
        {"key": "x"},
        {"key": ""},
    ],
)
def test_a_broken_form_is_refused_in_words(ada, change):
    failed = acting.ended()
    fields = acting.confirmation(ask(ada, "remove_calls", failed))
    assert ada.post(LIST, {**fields, **change}).status_code == 400
    assert calls.get(failed) is not None
    for unheard_of in ("\x00", "\ud800"):
        assert ada.post(LIST, {**fields, "calls": json.dumps([unheard_of])}).status_code == 302


def test_an_id_that_cannot_be_ticked_does_not_mean_all_that_match(ada):
    failed = acting.ended()
    answer = ada.post(f"{LIST}?status=failed", {"action": "remove_calls", "_selected_action": "\x00"}, follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["No call fits any more."]
    assert calls.get(failed) is not None


# --- Who may: every way that there is to see or to act


def pages(call_id):
    """Every address of this app in the admin."""
    found = []
    for model in ("call", "actionlog"):
        base = f"/admin/lrp_celery/{model}/"
        found += [base, f"{base}add/", f"{base}autocomplete/"]
        found += [f"{base}{quote(call_id)}/{page}/" for page in ("change", "delete", "history", "tree")]
        found += [f"{base}{quote(call_id)}/"]
    return [*found, "/admin/lrp_celery/hourlyrollup/", "/admin/lrp_celery/", "/admin/r/1/1/"]


def test_every_address_of_this_app_is_in_the_list():
    """A page that is added later, and not to `pages`, would escape the tests below."""
    from django.contrib import admin

    names = {
        url.name
        for model in admin.site._registry
        if model._meta.app_label == "lrp_celery"
        for url in admin.site._registry[model].urls
        if url.name
    }
    known = {f"lrp_celery_{m}_{page}" for m in ("call", "actionlog") for page in PAGES}
    assert names == {*known, "lrp_celery_call_tree", "lrp_celery_hourlyrollup_changelist"}


PAGES = ("add", "change", "changelist", "delete", "history")


def forms(call_id):
    """Every form for every action, asked and confirmed, and what Django itself would take."""
    for name in (*OFFERS, "delete_selected"):
        yield {"action": name, "_selected_action": call_id, "index": "0"}
        yield {"action": name, "_selected_action": call_id}
        yield {"action": ["", name], "_selected_action": call_id, "index": "1"}
        yield {"action": name, "select_across": "1", "_selected_action": "x", "index": "0"}
        yield {"action": name, "calls": json.dumps([call_id]), "key": new_id(), "force": "yes", "post": "yes"}
        yield {"action": name, "_selected_action": call_id, "post": "yes"}


def state():
    rows = list(Call.objects.order_by("pk").values())
    return rows, list(ActionLog.objects.values()), list(LogEntry.objects.values()), acting.sent()


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "patch", "delete", "options"])
def test_whoever_may_only_view_sees_no_payload_and_changes_nothing_by_any_way(method, revoked):
    failed, waits = acting.ended(), acting.waiting()
    viewer = signed_in("view_call", "view_actionlog")
    acting.sent()
    before = state()
    for call_id in (failed, waits):
        for path in pages(call_id):
            for form in forms(call_id) if method == "post" else [{}]:
                answer = getattr(viewer, method)(path, form)
                assert acting.SECRET not in answer.content.decode(), (method, path, form)
                assert answer.status_code < 500, (method, path, form)
    assert (state(), revoked) == (before, [])


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("rights", [(), ("view_payload",), ("abort_call", "rerun_call", "remove_call")])
def test_whoever_may_not_even_view_gets_nothing(method, rights):
    failed = acting.ended()
    stranger = signed_in(*rights)
    acting.sent()
    before = state()
    for path in pages(failed):
        for form in forms(failed) if method == "post" else [{}]:
            answer = getattr(stranger, method)(path, form)
            assert answer.status_code in {403, 404, 405, 302}, (path, form)
            assert failed not in answer.content.decode(), (path, form)
            assert acting.SECRET not in answer.content.decode()
    assert state() == before


def test_whoever_is_not_logged_in_is_asked_to_be(client):
    failed = acting.ended()
    acting.sent()
    before = state()
    for path in pages(failed):
        for form in forms(failed):
            assert client.post(path, form).headers["Location"].startswith("/admin/login/")
        assert client.get(path).headers["Location"].startswith("/admin/login/")
    assert state() == before


#: A call to which an action does something, what of its row shows that, and the record's word for it.
DOES = {
    "abort_calls": (acting.waiting, "abort_requested_at", "abort"),
    "abort_trees": (acting.waiting, "abort_requested_at", "abort"),
    "rerun_calls": (acting.ended, "handled_at", "rerun"),
    "resend_calls": (acting.waiting, "sends", "resend"),
    "handle_calls": (acting.ended, "handled_at", "handle"),
    "remove_calls": (acting.ended, "removed_at", "remove"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_each_right_allows_its_own_action_and_no_other_and_each_action_is_on_record(name):
    make, shows, deed = DOES[name]
    holder = signed_in("view_call", OFFERS[name].permission, name="holder")
    for other in (*OFFERS, "delete_selected"):
        call_id = DOES[other][0]() if other in DOES else acting.ended()
        if other != name:
            acting.sent()
            before = state()
            for form in (form for form in forms(call_id) if form["action"] in (other, ["", other])):
                holder.post(LIST, form)
            assert state() == before, (name, other)
    call_id = make()
    shown = holder.get(LIST).content.decode()
    assert re.findall(r'<button type="submit" class="button" name="action" value="(\w+)"', shown) == [name]
    do(holder, name, call_id)
    assert getattr(Call.objects.get(pk=call_id), shows)
    line = ActionLog.objects.get(call_id=call_id)
    assert (line.deed, line.by) == (deed, "holder")
    entry = LogEntry.objects.get(object_id=call_id)
    assert (entry.user.username, entry.content_type.model) == ("holder", "call")


def test_each_action_needs_the_token_of_the_form(monkeypatch):
    failed = acting.ended()
    client = signed_in("view_call", "remove_call", enforce_csrf_checks=True)
    for form in forms(failed):
        assert client.post(LIST, form).status_code == 403
    assert calls.get(failed) is not None


def test_a_payload_needs_its_own_right():
    failed, fine = acting.ended(), acting.ended("succeeded")
    viewer = signed_in("view_call", *(offer.permission for offer in OFFERS.values()))
    reader = signed_in("view_call", "view_payload", name="reader")
    for call_id in (failed, fine):
        path = f"{LIST}{quote(call_id)}/change/"
        assert acting.SECRET not in viewer.get(path).content.decode()
        assert acting.SECRET in reader.get(path).content.decode()


def test_the_record_is_shown_to_those_who_may_see_it_and_cannot_be_changed(ada):
    failed = acting.ended()
    do(ada, "handle_calls", failed, said={"reason": "the mirror was down"})
    assert ada.get("/admin/lrp_celery/actionlog/").status_code == 403
    auditor = signed_in("view_actionlog", name="auditor")
    text = auditor.get("/admin/lrp_celery/actionlog/").content.decode()
    for words in ("ada", "mark handled", "the mirror was down", quote(failed)):
        assert words in text, words
    for term, found in ((failed[:20], 1), ("nobody", 0), ("\x00", 1)):
        listed = auditor.get("/admin/lrp_celery/actionlog/", {"q": term}).context["cl"]
        assert listed.result_count == found, term
    line = ActionLog.objects.get()
    for page in ("change", "delete"):
        path = f"/admin/lrp_celery/actionlog/{line.pk}/{page}/"
        assert auditor.post(path, {"by": "eve", "post": "yes"}).status_code == 403
    assert ActionLog.objects.get().by == "ada"


def test_the_record_is_narrowed_by_its_filter_and_by_nothing_else():
    auditor = signed_in("view_actionlog", name="auditor")
    assert auditor.get("/admin/lrp_celery/actionlog/", {"deed__exact": "abort"}).status_code == 200
    for query in ({"reason__regex": "(a+)+$"}, {"at__year": "9" * 11}, {"outcome__contains": "a"}):
        assert auditor.get("/admin/lrp_celery/actionlog/", query).status_code == 400, query


def test_time_is_told_to_whoever_acts_on_what_is_not_due(ada):
    waits = acting.waiting()
    Call.objects.filter(pk=waits).update(due_at=timezone.now() + timedelta(hours=1))
    assert "skipped: it is not due yet" in ask(ada, "resend_calls", waits).content.decode()


# --- Django's own change-form actions


@pytest.fixture
def with_more(monkeypatch):
    """Actions for pages of calls alone, for lists alone, and one of ours that is now for lists alone."""
    location: Any = getattr(admin.options, "ActionLocation", None)
    action: Any = admin.action

    @action(description="Praise this %(verbose_name)s", location=location.CHANGE_FORM)
    def praise(self, request, queryset):
        self.message_user(request, f"praised: {', '.join(call.pk for call in queryset)}")

    @action(description="Shuffle", location=location.CHANGE_LIST)
    def shuffle(self, request, queryset): ...

    @action(permissions=["handle"], description="Mark", location=location.CHANGE_LIST)
    def handle_calls(self, request, queryset): ...

    for each in (praise, shuffle, handle_calls):
        monkeypatch.setattr(CallAdmin, each.__name__, each, raising=False)
    monkeypatch.setattr(CallAdmin, "actions", (*CallAdmin.actions, "praise", "shuffle"))


@pytest.mark.skipif(django.VERSION < (6, 1), reason="Django has no actions for single pages before 6.1")
def test_actions_that_django_offers_on_single_pages_are_offered_on_the_page_of_a_call(ada, with_more):
    call = acting.ended()
    page = ada.get(f"{LIST}{call}/change/").content.decode()
    assert 'value="praise">Praise this call</button>' in page
    assert "Run again" in page
    assert "shuffle" not in page
    assert 'value="handle_calls"' not in page
    listed = ada.get(LIST).content.decode()
    assert "praise" not in listed
    assert 'value="shuffle"' in listed
    answer = ada.post(LIST, {"action": "praise", "_selected_action": call, "from_page": "1"}, follow=True)
    assert answer.redirect_chain[0][0] == f"{LIST}{call}/change/"
    assert [str(said) for said in answer.context["messages"]] == [f"praised: {call}"]
    assert ada.post(LIST, {"action": "shuffle", "_selected_action": call, "from_page": "1"}).status_code == 403
    assert ada.post(LIST, {"action": "praise", "from_page": "1"}).status_code == 400


def test_an_action_that_nobody_offers_is_refused_on_the_page_of_a_call(ada):
    call = acting.ended()
    for name in ("unheard_of", "delete_selected"):
        assert ada.post(LIST, {"action": name, "_selected_action": call, "from_page": "1"}).status_code == 403
