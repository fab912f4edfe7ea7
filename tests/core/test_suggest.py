from lrp_celery.core.suggest import suggestion

KNOWN = ("timeout", "time_to_live", "grace")


def test_the_nearest_name_is_suggested():
    assert suggestion("timout", KNOWN) == "Did you mean 'timeout'?"


def test_case_does_not_count_and_the_right_one_is_shown():
    assert suggestion("GRACE", KNOWN) == "Did you mean 'grace'?"
    assert suggestion("retenton", ("RETENTION", "TRACK")) == "Did you mean 'RETENTION'?"


def test_where_nothing_is_near_all_are_named():
    assert suggestion("xyz", KNOWN) == "It has timeout, time_to_live, grace."
    assert suggestion("xyz", ()) == "It has none."
