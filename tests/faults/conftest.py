"""The fixtures of the Compose tests."""

from tests.compose.conftest import make_stack

__all__ = ["make_stack"]
