"""What the database takes back because somebody else was faster is done again."""

import pytest
from django.db import OperationalError, connection, transaction

from django_app.stores import rows


class Refusing:
    """Work that is refused so often before it is done."""

    def __init__(self, times, code=1213):
        self.done = 0
        self._times = times
        self._code = code

    def __call__(self, _, what):
        self.done += 1
        if self.done <= self._times:
            raise OperationalError from OSError(self._code, "try again")
        return what


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_deadlock_is_nothing_to_whoever_asked(times):
    work = Refusing(times)
    assert rows.insist(connection, work, "written") == "written"
    assert work.done == times + 1


@pytest.mark.django_db(transaction=True)
def test_who_is_always_slower_is_told_so_in_the_end():
    work = Refusing(1000)
    with pytest.raises(OperationalError):
        rows.insist(connection, work, "written")
    assert 3 < work.done < 20


@pytest.mark.django_db(transaction=True)
def test_what_failed_for_another_reason_is_not_done_again():
    work = Refusing(1, code=1205)
    with pytest.raises(OperationalError):
        rows.insist(connection, work, "written")
    assert work.done == 1


@pytest.mark.django_db(transaction=True)
def test_inside_of_a_transaction_it_is_the_transactions_to_do_again():
    work = Refusing(1)
    with pytest.raises(OperationalError), transaction.atomic():
        rows.insist(connection, work, "written")
    assert work.done == 1
