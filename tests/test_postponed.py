"""What is postponed runs at its first use, whole, and never where it is not installed."""

import sys

import pytest

from flowsep.postponed import postpone


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module that tells when it runs."""
    (tmp_path / "waiting").mkdir()
    (tmp_path / "waiting" / "__init__.py").write_text("ran = []\n")
    (tmp_path / "waiting" / "late.py").write_text("import waiting\nwaiting.ran.append(__name__)\nanswer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("waiting", "waiting.late"):
        sys.modules.pop(name, None)


def test_a_postponed_module_runs_once_when_something_of_it_is_asked_for(package):
    postpone("waiting.late")
    import waiting.late

    assert waiting.ran == []
    assert sys.modules["waiting.late"].answer == 42 and waiting.ran == ["waiting.late"]
    from waiting.late import answer

    postpone("waiting.late")
    assert answer == sys.modules["waiting.late"].answer and waiting.ran == ["waiting.late"]


def test_what_is_not_there_is_left_alone(package):
    for name in ("nowhere", "nowhere.stats", "waiting.nowhere"):
        postpone(name)
        assert name not in sys.modules
