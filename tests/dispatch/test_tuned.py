"""The tuning cache: what is written is read back, whole or not at all, and nothing foreign is believed or destroyed."""

import json
import multiprocessing
import os
import stat
import warnings
from pathlib import Path

import pytest

from resnet_fused.dispatch.tuned import SCHEMA, TunedTable, default_path

TIMES = {"cpu": 1.5, "eager": 2.25}


def test_read_by_another_process(tmp_path):
    path = tmp_path / "new" / "tuned.json"
    table = TunedTable(path)
    assert not table and table.times("m", "p") is None
    table.record("m", "p", TIMES)
    table.record("m", "q", {"eager": 1.0})
    assert table.times("m", "p") == TIMES
    again = TunedTable(path)
    assert again and again.times("m", "p") == TIMES and again.times("m", "q") == {"eager": 1.0}
    assert again.times("other", "p") is None
    assert json.loads(path.read_text())["schema"] == SCHEMA


def test_what_others_wrote_in_the_meantime_stays(tmp_path):
    path = tmp_path / "tuned.json"
    first, second = TunedTable(path), TunedTable(path)
    assert not first and not second  # both have read
    first.record("m", "p", TIMES)
    second.record("m", "q", TIMES)
    assert TunedTable(path).machines == {"m": {"p": TIMES, "q": TIMES}}


def _write(path, name):
    table = TunedTable(path)
    for i in range(20):
        table.record("m", f"{name}{i}", TIMES)


def test_many_processes_at_once(tmp_path):
    path = tmp_path / "tuned.json"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(TunedTable(path).machines["m"]) == 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuned.json", "tuned.json.lock"]  # nothing left over


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1]", f"not a tuning cache of schema {SCHEMA}"),
        ('{"schema": 2, "machines": {}}', f"not a tuning cache of schema {SCHEMA}"),
        ('{"schema": 1}', "something other than times"),
        ('{"schema": 1, "machines": {"m": 3}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {}}}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {"cpu": "fast"}}}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {"cpu": true}}}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {"cpu": NaN}}}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {"cpu": -1}}}}', "something other than times"),
        ('{"schema": 1, "machines": {"m": {"p": {"cpu": 1%s}}}}' % (310 * "0"), "something other than times"),
        (b"\xff\xfe\x00", "can't decode"),
    ],
)
def test_foreign_files_are_ignored_with_one_warning_and_left_alone(content, words, tmp_path):
    path = tmp_path / "tuned.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    table = TunedTable(path)
    with pytest.warns(UserWarning, match="is ignored") as caught:
        assert not table and table.times("m", "p") is None
    assert len(caught) == 1 and words in str(caught[0].message)
    with pytest.warns(UserWarning, match="is not written"):
        table.record("m", "p", TIMES)
    assert table.times("m", "p") == TIMES  # in this process
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    table = TunedTable(tmp_path / "file" / "tuned.json")  # its parent is no folder
    with pytest.warns(UserWarning, match="tuned.json is"):
        table.record("m", "p", TIMES)
    assert table.times("m", "p") == TIMES


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tuned.json"
    TunedTable(path).record("m", "p", TIMES)
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        TunedTable(path).record("m", "q", TIMES)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuned.json", "tuned.json.lock"]


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("RESNET_FUSED_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_path() == tmp_path / "xdg" / "resnet_fused" / "tuned.json"
    monkeypatch.setenv("RESNET_FUSED_CACHE", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine" / "tuned.json"
    monkeypatch.delenv("RESNET_FUSED_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_path().parts[-3:] == (".cache", "resnet_fused", "tuned.json")


def test_without_a_home(monkeypatch):
    """As for a user whom the system does not know: times hold for the process, and that is said."""

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    for name in ("RESNET_FUSED_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    table = TunedTable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not table
    with pytest.warns(UserWarning, match="is not written"):
        table.record("m", "q", TIMES)
    assert table.times("m", "q") == TIMES


def test_reading_writes_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not TunedTable(tmp_path / "none" / "tuned.json")
    assert not any(tmp_path.iterdir())


def test_only_the_user_may_read_it(tmp_path):
    path = tmp_path / "tuned.json"
    TunedTable(path).record("m", "p", TIMES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
