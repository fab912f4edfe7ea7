"""The list of mutants is up to date: each would really change the product. CI runs them (tests/mutants.py)."""

import pytest

from tests.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_changes_is_there_once_and_its_test_exists(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.before) == 1
    assert mutant.before != mutant.after
    assert (ROOT / mutant.test.partition(" ")[0]).exists()
