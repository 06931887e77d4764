"""ensemble.yaml: which models are fused, with which settings for each category. `xray tune` writes it, anybody may.

    version: 1
    models:                          # in the order of the weights; paths are relative to this file
    - runs: [runs/a]                 # run directories; several, such as one a fold, count as one model
      predictions: [runs/a/validation/predictions.json]
    - runs: [runs/b0, runs/b1]
    classifiers:
    - runs: [runs/findings]
    default: {method: wbf, score: sum, iou: 0.4}
    categories:                      # what differs from the default
      Nodule/Mass: {weights: [1, 0.5], iou: 0.3, exponents: [1, 1]}

Settings are those of `xray.inference.ensemble.Settings`. Further entries, numbers and the fingerprint of the data, are
for the reader.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from xray.errors import FlagError, InputError, spelled
from xray.files import complete, read_yaml_text
from xray.inference.ensemble import ByCategory, Settings
from xray.structures.values import finite_number

VERSION = 1
MAX_CHARACTERS = 1_000_000
SUFFIXES = (".yaml", ".yml")

HEADER = """\
# Which models are fused, and how; paths are relative to this file. Written by xray tune; for
# xray infer --weights FILE and xray fuse --ensemble FILE --predictions ...
"""


@dataclasses.dataclass(frozen=True)
class Member:
    """A model, or classifier. runs: its run directories. predictions: files that it was tuned on."""

    runs: tuple[Path, ...]
    predictions: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The content of an ensemble.yaml. categories: name → settings, of those that differ from the default."""

    models: tuple[Member, ...]
    classifiers: tuple[Member, ...] = ()
    default: Settings = dataclasses.field(default_factory=Settings)
    categories: Mapping[str, Settings] = dataclasses.field(default_factory=dict)

    def by_category(self, categories: Mapping[int, str]) -> ByCategory:
        """The settings by category id. categories: id → name. Raises InputError for a name that is not there."""
        numbers = {name: number for number, name in categories.items()}
        if unknown := sorted(set(self.categories) - set(numbers)):
            raise InputError(
                f"the ensemble has settings of {', '.join(unknown)}, which are no categories here: these are "
                f"{', '.join(numbers)}"
            )
        return ByCategory(self.default, {numbers[name]: settings for name, settings in self.categories.items()})

    @property
    def needs_classifier(self) -> bool:
        """Whether a score depends on a classifier."""
        settings = (self.default, *self.categories.values())
        return bool(self.classifiers) and any(each.exponents[1] > 0 for each in settings)


def is_ensemble(path: Path) -> bool:
    """Whether a path among run directories is an ensemble.yaml, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read_ensemble(path: Path) -> Ensemble:
    """Reads an ensemble.yaml; its paths become those of this machine. Raises InputError if it is none."""
    content = read_yaml_text(path, "ensemble", f"{spelled('tune')} writes one", MAX_CHARACTERS)
    try:
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ValueError(f"it has no version: {VERSION}")
        models = _members(content.get("models"), path.parent, "models")
        if not models:
            raise ValueError("it names no models")
        default = _settings(content.get("default"), "default", Settings(), len(models))
        by_category = _mapping(content.get("categories"), "categories")
        return Ensemble(
            models,
            _members(content.get("classifiers"), path.parent, "classifiers"),
            default,
            {str(name): _settings(given, str(name), default, len(models)) for name, given in by_category.items()},
        )
    except (ValueError, FlagError) as error:
        raise InputError(f"{path} is no ensemble that can be used: {error}") from None


def write_ensemble(path: Path, ensemble: Ensemble, notes: Mapping[str, Any]) -> None:
    """Writes an ensemble.yaml, complete or not at all. notes: its further entries, plain YAML."""
    default = dataclasses.asdict(ensemble.default)
    content = {
        "version": VERSION,
        "models": [_described(member, path.parent) for member in ensemble.models],
        "classifiers": [_described(member, path.parent) for member in ensemble.classifiers],
        "default": _plain(default),
        "categories": {
            name: _plain({key: value for key, value in dataclasses.asdict(settings).items() if value != default[key]})
            for name, settings in ensemble.categories.items()
            if settings != ensemble.default
        },
        **notes,
    }
    with complete(path) as temporary:
        temporary.write_text(
            HEADER + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
        )


def expanded(paths: Sequence[Path]) -> tuple[Ensemble | None, list[tuple[Path, int]]]:
    """The ensemble among the paths of --weights, if any, and all run directories, those that it names included.

    Also for each run the number of its model in the ensemble: -1 for a classifier, and for a run beside the ensemble.
    Raises InputError for two ensembles, and where one has no run directory of a model.
    """
    files = [path for path in paths if is_ensemble(path)]
    runs = [(path, -1) for path in paths if path not in files]
    if len(files) > 1:
        raise InputError(f"{files[0]} and {files[1]}: give one ensemble")
    if not files:
        return None, runs
    ensemble = read_ensemble(files[0])
    members = [*enumerate(ensemble.models), *((-1, classifier) for classifier in ensemble.classifiers)]
    for number, member in members:
        if not member.runs:
            of = ", ".join(map(str, member.predictions)) or "one of its models"
            raise InputError(
                f"{files[0]} names no run directory of {of}: put it under runs, or tune with --runs (fuse needs none)"
            )
        runs += [(run, number) for run in member.runs]
    return ensemble, runs


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The paths of --weights: run directories, after the ensemble.yaml if there is one."""
    return [*(path for path in paths if is_ensemble(path)), *(run for run, _ in expanded(paths)[1])]


def _settings(given: Any, where: str, base: Settings, n_models: int) -> Settings:
    kinds = {field.name: type(getattr(base, field.name)) for field in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in _mapping(given, where).items():
        if key not in kinds:
            raise ValueError(f"{where} has {key}, and settings are {', '.join(kinds)}")
        if kinds[key] is tuple:
            if not isinstance(value, list):
                raise ValueError(f"{where}: {key} must be a list of numbers")
            values[key] = tuple(_number(one, f"{where}: {key}") for one in value)
        else:
            values[key] = _number(value, f"{where}: {key}") if kinds[key] is float else str(value)
    if len(values.get("exponents", "ab")) != 2:
        raise ValueError(f"{where}: exponents must be two numbers")
    settings = dataclasses.replace(base, **values)
    try:
        settings.check(n_models)
    except FlagError as error:
        raise ValueError(f"{where}: {error}") from None
    return settings


def _number(value: Any, where: str) -> float:
    number = finite_number(value)
    if number is None:
        raise ValueError(f"{where} is empty")
    return number


def _members(given: Any, folder: Path, where: str) -> tuple[Member, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ValueError(f"{where} is no list")
    members = []
    for one in given:
        columns = []
        for key in ("runs", "predictions"):
            paths = _mapping(one, where).get(key) or []
            if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
                raise ValueError(f"{key} of {where} is no list of paths")
            columns.append(tuple(Path(os.path.normpath(folder / path)) for path in paths))
        members.append(Member(*columns))
    return tuple(members)


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{where} has {given!r:.60} where it needs names and values")
    return given


def _described(member: Member, folder: Path) -> dict[str, list[str]]:
    return {
        name: [Path(os.path.relpath(path, folder)).as_posix() for path in getattr(member, name)]
        for name in ("runs", "predictions")
    }


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
