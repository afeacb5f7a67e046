from __future__ import annotations

import platform

import pytest

from tuner.training.engine_choices import CHOICES, no_effect


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_keeping_freed_memory_has_an_effect_with_glibc() -> None:
    effects = {choice.name: no_effect(choice) for choice in CHOICES["cpu"]}
    assert effects["keep_freed_memory"] == ""


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_keeping_freed_memory_has_none_on_other_systems(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", system)
    effects = {choice.name: no_effect(choice) for choice in CHOICES["cpu"]}
    assert effects["keep_freed_memory"] == "has no effect: the C library is not glibc"
    assert effects["channels_last"] == ""
