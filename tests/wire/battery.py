"""Which scenarios are played, with which client, on which back ends: short in CI, full by `make wire`."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = Path(__file__).parent / "scenarios"
BACKENDS = ("sqlite", "postgres")

# What differs between the back ends is SQL; the short battery plays the rest on SQLite alone.
STORED = (
    "experiments", "runs", "metrics", "search", "datasets", "logged_models", "registry", "refusals", "crowd",
)  # fmt: skip
BESIDES = (
    "artifacts",
    "prompts",
    "server",
    "background",
    "snippet",
    "models_sklearn",
    "models_lightgbm",
    "application",
)
HEAVY = ("models_xgboost", "models_torch", "models_onnx")


@dataclass(frozen=True)
class Check:
    """One check: the back end and client it is played with, its scenario, its name in there."""

    backend: str
    client: str
    scenario: str
    name: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.client}-{self.scenario}-{self.name.removeprefix('check_')}"


def is_full() -> bool:
    """ANDON_WIRE=full asks for every scenario, every client, on every back end."""
    return os.environ.get("ANDON_WIRE", "short") == "full"


def foreign() -> str | None:
    """The address of a server that is not ours, to try the scenarios themselves: ANDON_WIRE_URI."""
    return os.environ.get("ANDON_WIRE_URI")


def battery() -> list[Check]:
    """All checks of this session."""
    backends = ("foreign",) if foreign() else BACKENDS
    return [
        Check(backend, client, scenario, name)
        for backend in backends
        for client, scenario in _played(backend)
        for name in names(scenario)
    ]


def names(scenario: str) -> list[str]:
    """The checks of a scenario in their order, read from its source: its imports are the client's."""
    tree = ast.parse((SCENARIOS / f"{scenario}.py").read_text())
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("check_")]


def _played(backend: str) -> list[tuple[str, str]]:
    if is_full():
        return [("full", s) for s in (*STORED, *BESIDES, *HEAVY)] + [("old", "snippet"), ("old", "old_calls")]
    besides = (
        []
        if backend == "postgres"
        else [*(("short", s) for s in BESIDES), ("old", "snippet"), ("old", "old_calls")]
    )
    return [*(("short", s) for s in STORED), *besides]
