"""No module of the plan is left out."""

import re
from pathlib import Path

from conformance.plan import PLAN

TESTS = sorted(Path(__file__).parent.glob("test_*.py"))


def test_every_module_of_the_plan_is_carried_out() -> None:
    carried_out = {
        name for path in TESTS for name in re.findall(r'@module\(\s*"([^"]+)"', path.read_text("utf-8"))
    }
    assert carried_out == PLAN
