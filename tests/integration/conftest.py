"""What tests of the whole borrow from those of the parts."""

from tests.web.conftest import make_world

__all__ = ["make_world"]
