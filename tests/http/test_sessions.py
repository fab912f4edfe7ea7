"""Users of Django's own: sessions, permissions, the token against forged requests, and HTTP_AUTHENTICATE."""

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from tests.http import shop
from tests.http.shop import JSON, REPORTS, of, report, send

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    user = User.objects.create_user("ada", password="x")
    user.user_permissions.add(Permission.objects.get(codename="start_call"))
    return user


@pytest.fixture
def browser(ada):
    """A client that is asked for the token against forged requests, as browsers are."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    return client


def token(client):
    client.get("/admin/login/")
    return client.cookies["csrftoken"].value


def test_a_session_reads_without_a_token_and_writes_with_one(browser):
    forged = send(browser, "POST", REPORTS, {"args": ["x"], "id": "forged"})
    assert (forged.status_code, forged.json()["type"]) == (403, "urn:lrp-celery:csrf")
    assert "X-CSRFToken" in forged.json()["detail"]
    assert shop.row("forged") is None
    made = send(browser, "POST", REPORTS, {"args": ["x"]}, {"X-CSRFToken": token(browser)})
    assert made.status_code == 202
    assert browser.get(made["Location"]).status_code == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_is_ended_by_a_forged_request(browser, method):
    call_id = (
        report.using(owner="ada").call("x") if method == "POST" else shop.ended(report.using(owner="ada").call("x"))
    )
    before = shop.row(call_id)
    path = of(call_id, "/abort") if method == "POST" else of(call_id)
    for headers in (None, {"X-CSRFToken": "x" * 32}):
        assert send(browser, method, path, None, headers).status_code == 403
    assert shop.row(call_id) == before
    assert send(browser, method, path, None, {"X-CSRFToken": token(browser)}).status_code in {202, 204}
    assert shop.row(call_id) != before


def test_a_form_cannot_bring_the_token(browser):
    form = {"csrfmiddlewaretoken": token(browser), "args": "x"}
    assert browser.post(REPORTS, form).status_code == 415


def test_what_a_token_tells_needs_no_other(ada):
    client = Client(enforce_csrf_checks=True)
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": lambda request: ada}):
        assert send(client, "POST", REPORTS, {"args": ["x"]}).status_code == 202


async def accept_token(request):
    return await User.objects.filter(username=request.headers.get("Authorization")).afirst()


def refuse(request):
    return None


def forbid(request):
    raise PermissionDenied("This key was withdrawn.")


def accept_nobody(request):
    return AnonymousUser()


def test_who_asks_may_be_told_by_a_coroutine_named_by_its_path(ada, client):
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": f"{__name__}.accept_token"}):
        assert send(client, "POST", REPORTS, {"args": ["x"]}, {"Authorization": "ada"}).status_code == 202
        assert send(client, "POST", REPORTS, {"args": ["x"]}, {"Authorization": "bob"}).status_code == 401


def test_where_no_token_tells_the_session_does_with_its_own_check(browser):
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": f"{__name__}.refuse"}):
        assert send(browser, "POST", REPORTS, {"args": ["x"]}).status_code == 403
        assert send(browser, "POST", REPORTS, {"args": ["x"]}, {"X-CSRFToken": token(browser)}).status_code == 202


def test_whoever_knows_tokens_may_refuse_one_in_words(client):
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": f"{__name__}.forbid"}):
        answer = client.get(of("x"))
    assert (answer.status_code, answer.json()["detail"]) == (403, "This key was withdrawn.")


def lose_the_database(request):
    raise OperationalError("away, at 10.0.0.7")


def test_a_database_of_users_that_is_away_is_told_with_when_to_ask_again(client, ada, monkeypatch):
    client.force_login(ada)
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": lose_the_database}):
        answers = [client.get(of("x"))]
    monkeypatch.setattr(User, "has_perm", lambda *_: lose_the_database(None))
    answers.append(send(client, "POST", REPORTS, {"args": ["x"], "id": "x"}))
    for answer in answers:
        assert (answer.status_code, answer["Retry-After"]) == (503, "1")
        assert answer.json()["type"] == "urn:lrp-celery:unavailable"
        assert "10.0.0.7" not in answer.content.decode()


def test_an_anonymous_user_is_nobody(client):
    with override_settings(LRP_CELERY={"HTTP_AUTHENTICATE": f"{__name__}.accept_nobody"}):
        assert client.get(of("x")).status_code == 401


def test_rights_are_djangos(client, ada):
    call_id = shop.ended(report.using(owner="bob").call("x"), result="done")
    client.force_login(ada)
    assert client.get(of(call_id)).status_code == 404
    ada.user_permissions.add(Permission.objects.get(codename="view_call"))
    assert client.get(of(call_id)).status_code == 200
    assert client.get(of(call_id, "/result")).status_code == 403
    ada.user_permissions.add(Permission.objects.get(codename="view_payload"))
    assert client.get(of(call_id, "/result")).json()["result"] == "done"
    ada.is_superuser = True
    ada.save()
    assert client.delete(of(call_id)).status_code == 204


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("GET", "/result?wait=1"), ("POST", "/abort"), ("DELETE", "")]
)
def test_the_database_is_asked_as_much_for_an_id_of_others_as_for_one_of_nobody(client, ada, method, rest):
    client.force_login(ada)
    asked = []
    for call_id in ("unknown", report.using(owner="bob").call("x")):
        with CaptureQueriesContext(connection) as queries:
            send(client, method, of(call_id, rest))
        asked.append(len(queries))
    assert asked[0] == asked[1]


def test_nobody_is_sent_to_a_page_to_log_in(client, settings):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    answer = client.get(of("x"))
    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")


def test_projects_without_sessions_can_have_it(client, ada, settings):
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    assert client.get(of("x")).status_code == 401
    settings.LRP_CELERY = {"HTTP_AUTHENTICATE": lambda request: ada}
    assert client.get(of("x")).status_code == 404


def test_atomic_requests_do_not_stand_in_its_way(client, ada, settings):
    from django.db import connections

    client.force_login(ada)
    database = connections["default"].settings_dict
    before = database["ATOMIC_REQUESTS"]
    database["ATOMIC_REQUESTS"] = True
    try:
        assert client.post(REPORTS, {"args": ["x"]}, content_type=JSON).status_code == 202
    finally:
        database["ATOMIC_REQUESTS"] = before
