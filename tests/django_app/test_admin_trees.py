from datetime import timedelta

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_app.admin.trees import MOST_IN_TREE, bar_of, tree_of
from django_app.models import Call
from tests.django_app.test_admin_detail import LIST, text_of


def address(call_id):
    return f"{LIST}{quote(call_id)}/tree/"


def page(client, call):
    response = client.get(address(call.pk))
    assert response.status_code == 200
    return response.content.decode()


def test_the_page_of_any_call_of_a_tree_shows_the_whole_of_it(admin_client, told):
    atlas = told.calls["atlas"]
    child = Call.objects.filter(parent_id=atlas.pk).first()
    of_root, of_child = (tree_of(call, told.now, Call.objects.all()) for call in (atlas, child))
    assert [row.call.pk for row in of_root.rows] == [row.call.pk for row in of_child.rows]
    assert [row.depth for row in of_root.rows] == [0] + [1] * 6
    assert [row.call.pk for row in of_child.rows if row.is_chosen] == [child.pk]
    markup = page(admin_client, child)
    assert all(f"{LIST}{quote(row.call.pk)}/change/" in markup for row in of_root.rows)
    assert "7 succeeded" in text_of(markup)
    assert "<script" not in markup.replace("<script src=", "")
    assert "style=" not in markup


def test_a_page_takes_a_fixed_number_of_bounded_queries(admin_client, told):
    with CaptureQueriesContext(connection) as captured:
        page(admin_client, told.calls["atlas"])
    seen = [made["sql"] for made in captured if "lrp_celery" in made["sql"]]
    assert len(seen) == 3
    assert all("LIMIT" in sql for sql in seen)


def test_running_calls_take_no_query_each(admin_client, story):
    root = story.call("watch_inbox", "started", age=500)
    for number in range(5):
        story.call("draw_chart", "started", age=400 - number, root_id=root.pk, parent_id=root.pk)
    with CaptureQueriesContext(connection) as captured:
        page(admin_client, root)
    assert len([made for made in captured if "lrp_celery" in made["sql"]]) == 3


def test_a_tree_whose_root_is_gone_is_shown_as_far_as_it_is_there(admin_client, story):
    calls = [story.call("draw_chart", "failed", age=50 - n, root_id="gone", parent_id="gone") for n in range(3)]
    tree = tree_of(calls[1], story.now, Call.objects.all())
    assert [row.call.pk for row in tree.rows] == [call.pk for call in calls]
    assert "Root gone" in text_of(page(admin_client, calls[0]))


def test_a_huge_tree_is_cut_and_says_so(admin_client, story):
    root = story.call("watch_inbox", "succeeded", age=500)
    row = {"task": "<t>", "status": "submitted", "enqueued_at": story.now, "updated_at": story.now}
    Call.objects.bulk_create(
        Call(call_id=f"child-{number}", root_id=root.pk, parent_id=root.pk, **row) for number in range(10_000)
    )
    markup = page(admin_client, root)
    assert f"The tree is larger: {MOST_IN_TREE + 1} calls of it are shown." in text_of(markup)
    assert f"?root={root.pk}" in markup
    assert "<t>" not in markup


def test_whoever_may_not_view_calls_sees_no_tree_and_nobody_posts_to_it(client, admin_client, told):
    call = told.calls["atlas"]
    client.force_login(get_user_model().objects.create_user("vera", is_staff=True))
    assert client.get(address(call.pk)).status_code == 403
    assert client.get(address("unknown")).status_code == 403
    assert admin_client.post(address(call.pk)).status_code == 403
    person = get_user_model().objects.create_user("vic", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_call"))
    client.force_login(person)
    assert client.get(address(call.pk)).status_code == 200


@pytest.mark.parametrize("call_id", ["unknown", "a/b", "\x00", "tree", "x" * 300])
def test_the_tree_of_a_call_that_is_not_there_leads_back_to_the_list(admin_client, story, call_id):
    answer = admin_client.get(address(call_id), follow=True)
    assert answer.redirect_chain == [(LIST, 302)]


def test_a_bar_lies_where_its_call_waited_and_ran():
    first = timezone.now()

    def at(seconds):
        return first + timedelta(seconds=seconds)

    bar = bar_of(at(10), at(30), at(80), first, at(100))
    assert (bar.wait_x, bar.wait_width, bar.run_x, bar.run_width) == ("10.00%", "20.00%", "30.00%", "50.00%")
    assert bar.title == "waited 20.0 s, ran 50.0 s"
    waits = bar_of(at(10), None, at(100), first, at(100))
    assert (waits.wait_width, waits.run_width) == ("90.00%", "0.00%")
    for bar in (bar_of(at(100), at(100), at(100), first, at(100)), bar_of(first, first, first, first, first)):
        assert bar.run_width == "0.40%", "what is short can be seen"
        assert float(bar.run_x[:-1]) + 0.4 <= 100
