"""A model that no test of these changes."""

import pytest


@pytest.fixture(scope="module")
def plain_model(make_model):
    return make_model()
