import os
import signal
import tempfile
import zlib
from collections import defaultdict

# Tests interrupt themselves, and what they start, as Ctrl-C does; started in a shell's background all would ignore it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the user measured on this machine is not what is tested; processes that tests start inherit it.
_cache = tempfile.TemporaryDirectory()
os.environ["RESNET_FUSED_CACHE"] = _cache.name

import pytest  # noqa: E402
import torch  # noqa: E402

# The problems are small: a second thread costs more than it brings. backends/test_cpu_threads.py uses several.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the exhaustive tests marked slow")
    parser.addoption("--sample", type=int, metavar="N", help="of each test run at most N cases, always the same")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: exhaustive; runs with --slow")


def pytest_report_header():
    from resnet_fused import _ext

    if facts := _ext.cpu_facts():
        tested, lacking = facts["isas_supported"], set(facts["isas"]) - set(facts["isas_supported"])
        only = f"; compiled only, since this processor lacks them: {', '.join(sorted(lacking))}" if lacking else ""
        return f"instruction sets of the CPU engine: {', '.join(tested)}{only}"


def _hash(name):
    return zlib.crc32(name.encode())


def pytest_collection_modifyitems(config, items):
    left = []
    if not (config.getoption("--slow") or "slow" in (config.option.markexpr or "")):
        left += [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    most = config.getoption("--sample")
    if most is not None:
        cases = defaultdict(list)
        for item in items:
            cases[item.nodeid.partition("[")[0]].append(item.nodeid)
        # By a hash of the name: every parameter has its turn, and a new case leaves the choice of the others alone.
        sample = {name for names in cases.values() for name in sorted(names, key=_hash)[:most]}
        left += [item for item in items if item.nodeid not in sample]
        items[:] = [item for item in items if item.nodeid in sample]
    config.hook.pytest_deselected(items=left)


@pytest.fixture
def table(monkeypatch, tmp_path):
    """An empty tuning cache in place of the process's, and no choices remembered: none is left for other tests."""
    from resnet_fused import dispatch
    from resnet_fused.dispatch.tuned import TunedTable

    table = TunedTable(tmp_path / "cache" / "tuned.json")
    monkeypatch.setattr(dispatch, "_table", table)
    monkeypatch.setattr(dispatch, "_choices", {})
    return table


@pytest.fixture
def poison():
    """Deterministic algorithms, and NaN in whatever an operator allocates and does not write."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill
