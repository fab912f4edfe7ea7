from lrp_celery.core.patterns import matches, specificity


def test_a_pattern_fits_the_whole_name():
    assert matches("reports.build", ["reports.*"])
    assert not matches("old.reports.build", ["reports.*"])
    assert not matches("reports", [])


def test_a_name_is_more_specific_than_any_pattern_and_a_longer_pattern_than_a_shorter():
    assert specificity("a.b") > specificity("aaaaaaaa.*") > specificity("a.*") > specificity("*")
