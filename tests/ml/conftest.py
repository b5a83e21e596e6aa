"""Failed assertions in the checks of the conformance suite show their values too."""

import pytest

pytest.register_assert_rewrite("conformance")
