"""The pins are the same for pip and conda."""

from __future__ import annotations

import re

import yaml
from conftest import REPOSITORY


def test_conda_and_pip_name_the_same_pins() -> None:
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert environment["dependencies"][-1]["pip"] == pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_modal_is_tested_as_it_is_pinned() -> None:
    pin = (REPOSITORY / "requirements-modal.txt").read_text().splitlines()[-1]
    assert pin.startswith("modal==") and pin in (REPOSITORY / "requirements-dev.txt").read_text().splitlines()
