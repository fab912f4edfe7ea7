"""Statements that are worked out once, and filled with other values each time."""

from django_app.stores.patterns import Gap, Pattern, Remembered


def test_a_pattern_is_filled_anew_each_time():
    pattern = Pattern("UPDATE t SET a = %s, b = %s WHERE c = %s AND d = %s", [Gap("a"), 7, Gap("c"), Gap("a")])
    assert pattern.filled({"a": 1, "c": "x", "unused": None}) == [1, 7, "x", 1]
    assert pattern.filled({"a": 2, "c": "y"}) == [2, 7, "y", 2]


def test_what_follows_from_a_key_is_worked_out_once_and_does_not_pile_up():
    remembered, made = Remembered(), []

    def make(key):
        return lambda: made.append(key) or f"made of {key}"

    assert [remembered.of(key, make(key)) for key in (1, 2, 1)] == ["made of 1", "made of 2", "made of 1"]
    assert made == [1, 2]
    for key in range(10_000):
        remembered.of(key, make(key))
    assert len(remembered._known) <= 200
