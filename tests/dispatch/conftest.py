import pytest

from resnet_fused import dispatch
from resnet_fused.dispatch.tuned import TunedTable


@pytest.fixture
def table(monkeypatch, tmp_path):
    """An empty tuning cache in place of the user's, and no choices remembered."""
    table = TunedTable(tmp_path / "cache" / "tuned.json")
    monkeypatch.setattr(dispatch, "_table", table)
    monkeypatch.setattr(dispatch, "_choices", {})
    return table
