"""Edits of a config file: comments stay, and a wrong value changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.edit import set_setting, unset_setting
from daemon.config.loader import load_config, write_default_config
from daemon.home.layout import CONFIG_FILE
from protocol.errors import UserError


def test_set_setting_keeps_comments_and_other_settings(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    before = (tmp_path / CONFIG_FILE).read_text(encoding="utf-8")
    set_setting(tmp_path, None, "network.listen_port", "4001")
    set_setting(tmp_path, None, "worker.data_folders", "/a, /b")
    set_setting(tmp_path, None, "network.listen_port", "4002")
    after = (tmp_path / CONFIG_FILE).read_text(encoding="utf-8")
    config, _ = load_config(tmp_path, None, {}, {})
    assert (config.network.listen_port, config.worker.data_folders) == (4002, ("/a", "/b"))
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        line for line in before.splitlines() if line.startswith("#")
    ]
    unset_setting(tmp_path, None, "network.listen_port")
    config, origins = load_config(tmp_path, None, {}, {})
    assert (config.network.listen_port, origins["network.listen_port"]) == (0, "default")


def test_set_setting_makes_a_missing_file_and_follows_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.toml", tmp_path / "link.toml"
    set_setting(tmp_path, None, "node.name", "x")
    (tmp_path / CONFIG_FILE).rename(target)
    link.symlink_to(target)
    set_setting(tmp_path, link, "node.name", 'J "y"')
    assert link.is_symlink()
    assert load_config(tmp_path, target, {}, {})[0].node.name == 'J "y"'


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("network.listen_prot", "1", "network.listen_port"),
        ("network", "1", "Unknown setting"),
        ("network.listen_port", "70000", "from 0 to 65535"),
        ("network.join", "nowhere", "not a multiaddr"),
        ("worker.allow_custom_task", "maybe", "true or false"),
    ],
)
def test_set_setting_that_does_not_fit_changes_nothing(
    tmp_path: Path, setting: str, value: str, said: str
) -> None:
    set_setting(tmp_path, None, "node.name", "before")
    before = (tmp_path / CONFIG_FILE).read_bytes()
    with pytest.raises(UserError) as refused:
        set_setting(tmp_path, None, setting, value)
    assert said in str(refused.value)
    assert (tmp_path / CONFIG_FILE).read_bytes() == before


def test_set_setting_in_a_file_with_mistakes_names_them(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("[node]\nnmae = 'x'\n", encoding="utf-8")
    with pytest.raises(UserError, match="nmae"):
        set_setting(tmp_path, None, "node.name", "y")
