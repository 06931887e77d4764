"""What is known of a trained model, read from its files: nothing here is guessed, what is not there stays None."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xray.datasets.store import Store
from xray.errors import InputError, spelled
from xray.file_names import CONFIG_FILE, METRICS, WEIGHTS_FILE
from xray.files import read_yaml_text
from xray.inference.ensemble_file import files_of, is_ensemble
from xray.inference.openvino_files import sha256_of
from xray.inference.thresholds import thresholds_file, thresholds_of
from xray.models.weights import n_parameters, read_description
from xray.outputs.card.reference import WEIGHTS, noted, read_card
from xray.structures.thresholds import ABNORMAL, Thresholds
from xray.training.recipes import MAX_CHARACTERS

REPORTS = ("report", "evaluation")
"""Folders in a run directory where its report is looked for."""
NOTES = {
    "developer": "Developer",
    "contact": "Contact",
    "version": "Version",
    "date": "Release date",
    "licence": "Licence",
    "regulatory": "Regulatory approval",
    "funding": "Funding",
    "citation": "Citation",
    "maintenance": "Maintenance",
    "intended_use": "Intended use and workflow",
    "users": "Intended users",
    "population": "Patients it is meant for",
    "out_of_scope": "Out of scope",
    "training_data": "How the training data came about",
    "evaluation_data": "How the evaluation data came about",
    "ethics": "Ethical considerations",
    "risks": "Known risks",
    "recommendations": "Recommendations",
}
"""Key of a file of notes → what it is called on the card. Only people can know these."""


@dataclasses.dataclass(frozen=True)
class Model:
    """One trained model.

    name: of its run directory. description: model.json. config: config.yaml, empty where there is none. weights:
    SHA-256 of the weights, in hex. parameters: how many numbers they are, None for an exported file.
    """

    name: str
    description: Mapping[str, Any]
    config: Mapping[str, Any]
    weights: str
    parameters: int | None

    @property
    def task(self) -> str:
        """Such as "detection"."""
        return str(self.description.get("task", ""))

    @property
    def categories(self) -> list[str]:
        """Names of what it finds; of a classifier of any finding, ABNORMAL."""
        labels = self.description.get("labels")
        if self.task == "classification" and isinstance(labels, list):
            return [str(name) for name in labels]
        return [str(name) for name in dict_in(self.description, "categories").values()]


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that a card is made of.

    name: of the run or the ensemble. models: at least one. ensemble: SHA-256 of the ensemble.yaml, empty where there is
    none. metrics: metrics.json of an evaluation, empty where there is none; metrics_sha256 of that file. thresholds:
    what was fitted, None where nothing was; fit: the content of their file. store: the dataset that the model learned
    from, None where it is not at hand; held: the fold of it that was held back, or "val", None where that is not known.
    notes: what people wrote, keys of NOTES. warnings: what was not used, and why.
    """

    name: str
    models: Sequence[Model]
    ensemble: str = ""
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics_sha256: str = ""
    thresholds: Thresholds | None = None
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    store: Store | None = None
    held: int | str | None = None
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def hashes(self) -> list[str]:
        """SHA-256, in hex, of what makes the findings: the ensemble.yaml, if it is one, and all weights."""
        return [*filter(None, [self.ensemble]), *(model.weights for model in self.models)]

    @property
    def categories(self) -> list[str]:
        """Names of what is found, each once."""
        return list(dict.fromkeys(name for model in self.models for name in model.categories))

    @property
    def task(self) -> str:
        """Of all models, such as "detection and segmentation"."""
        return " and ".join(dict.fromkeys(model.task.replace("_", " ") or "not known" for model in self.models))

    @property
    def validation(self) -> Mapping[str, Any]:
        """What a single model's own training measured, where no evaluation was given."""
        return dict_in(self.models[0].description, "metrics") if len(self.models) == 1 and not self.metrics else {}


def read_facts(
    given: Sequence[Path], report: Path | None = None, data: Path | None = None, notes: Path | None = None
) -> Facts:
    """Reads all that there is of what is given as --weights.

    report: metrics.json of `xray evaluate`, or its folder; looked for in REPORTS of the run where it is not given.
    data: the dataset that the model learned from. notes: YAML with keys of NOTES; without it those of the cards beside
    what is given count.
    Raises InputError where something cannot be read, and where the metrics are of findings that the model has not, or
    of boxes or masks that it does not find.
    """
    from xray.training.pseudo import held_back

    warnings: list[str] = []
    facts = read_models(given, warn=warnings.append)
    metrics, digest = _metrics(report, given)
    _check_report(metrics, facts, given[0])
    store, held = None, None
    if data is not None:
        from xray.datasets.store import open_store

        store = open_store(data, pixels=False)
        run = given[0]
        if run.is_dir():
            held, why = held_back(run, store)
            if held is None and "was trained on every fold" not in why:
                name, given_path = store.path.absolute().name, str(facts.models[0].config.get("data_path"))
                # Folders may be named after people.
                why = why.replace(str(store.path), name).replace(given_path, Path(given_path).name)
                warnings.append(f"which radiographs of {name} the model held back is not known: {why}")
    return dataclasses.replace(
        facts,
        metrics=metrics,
        metrics_sha256=digest,
        store=store,
        held=held,
        notes=read_notes(notes) if notes else _notes_beside(given, facts),
        warnings=warnings,
    )


def read_models(given: Sequence[Path], warn: Callable[[str], object]) -> Facts:
    """The models and their thresholds alone; see `read_facts`. warn: is told what is not used, and why."""
    files = files_of(given)
    ensembles = [path for path in files if is_ensemble(path)]
    thresholds = thresholds_of(given, warn=lambda line: warn(_without_folders(line, given)))
    return Facts(
        name=given[0].resolve().name if len(given) == 1 else f"{len(given)} models",
        models=[model for path in files if not is_ensemble(path) for model in _models(path)],
        ensemble=sha256_of(ensembles[0]) if ensembles else "",
        thresholds=thresholds,
        fit=_json(thresholds_file(given[0])) if thresholds is not None else {},
    )


def _check_report(metrics: Mapping[str, Any], facts: Facts, given: Path) -> None:
    """Raises InputError for metrics of what these models do not find, or not in this way."""
    strange = sorted({name.removesuffix(CLASSIFIER) for name in per_finding(metrics)} - {*facts.categories, ABNORMAL})
    if strange:
        raise InputError(
            f"the report scores {', '.join(strange[:5])}, which {given} does not find: give its own report"
        )
    tasks = {model.task for model in facts.models}
    for kind, (names, makers) in SCORED.items():
        if tasks and tasks <= TASKS - makers and any(name in metrics for name in names):
            raise InputError(
                f"the report scores {kind}, which a model of {facts.task} does not find: give its own report"
            )


def _notes_beside(given: Sequence[Path], facts: Facts) -> dict[str, str]:
    """What people wrote on the card of an ensemble or a run, by the card that lies beside it; of several runs each on
    its own card, with the name of the run where they do not say the same. One of other weights says nothing.
    """
    if len(given) == 1:
        found = read_card(given[0])
        if found is not None and found[1].get(WEIGHTS, "").split() == facts.hashes:
            return {key: text for key, text in noted(found[1]).items() if key in NOTES}
    runs = [path for path in files_of(given) if not is_ensemble(path)]
    if len(runs) == 1:
        return {}
    of_runs = [(run.resolve().name, _notes_beside([run], read_models([run], lambda line: None))) for run in runs]
    notes = {}
    for key in NOTES:
        texts = {text for _, of_run in of_runs if (text := of_run.get(key))}
        if len(texts) == 1 and all(key in of_run for _, of_run in of_runs):
            notes[key] = texts.pop()
        elif texts:
            notes[key] = "; ".join(f"{name}: {of_run.get(key, 'not known')}" for name, of_run in of_runs)
    return notes


def _without_folders(line: str, given: Sequence[Path]) -> str:
    """A warning of the files of what was given, without the folders that these lie in."""
    for path in given:
        line = line.replace(f"{path.parent}/", "")
    return line.removeprefix("warning: ")


def _models(path: Path) -> list[Model]:
    """Of a run directory, or of an exported file that stands in one; two where two heads share a trunk."""
    run = path.parent if path.is_file() else path
    description = read_description(run)
    weights = path if path.is_file() else run / WEIGHTS_FILE
    config: Any = {}
    if (run / CONFIG_FILE).is_file():
        config = read_yaml_text(run / CONFIG_FILE, "config", "train again", MAX_CHARACTERS)
    parameters = n_parameters(weights) if weights.suffix == ".safetensors" else None
    name = f"{run.resolve().name}/{path.name}" if path.is_file() else run.resolve().name
    config, digest = config if isinstance(config, dict) else {}, sha256_of(weights)
    heads = [task for task in str(description["task"]).split("+") if isinstance(description.get(task), dict)]
    if not heads:
        return [Model(name, description, config, digest, parameters)]
    return [Model(f"{name}, {task}", description[task], config, digest, parameters) for task in heads]


def _metrics(report: Path | None, given: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """The content of a metrics.json and its SHA-256."""
    if report is None:
        places = [given[0] / folder / METRICS for folder in REPORTS] if len(given) == 1 and given[0].is_dir() else []
        report = next((place for place in places if place.is_file()), None)
        if report is None:
            return {}, ""
    file = report / METRICS if report.is_dir() else report
    content = _json(file)
    if not isinstance(content.get("n_images"), int) or "fingerprint" not in content:
        what = "compares two models" if "names" in content else f"is none of {spelled('evaluate')}"
        raise InputError(f"{file} {what}: give --report the folder that {spelled('evaluate')} --predictions wrote")
    return content, hashlib.sha256(file.read_bytes()).hexdigest()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"there is no {file} ({error.strerror}): {spelled('evaluate')} writes {METRICS}, give its folder"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is damaged ({type(error).__name__}): write it again by {spelled('evaluate')}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is no object of JSON: write it again by {spelled('evaluate')}")
    return content


def read_notes(path: Path) -> dict[str, str]:
    """What people know of a model: a YAML file of texts. Raises InputError for another key than those of NOTES."""
    content = read_yaml_text(path, "file of notes", f"it may have {', '.join(NOTES)}", MAX_CHARACTERS)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} is no list of keys and texts: it may have {', '.join(NOTES)}")
    if unknown := [str(key) for key in content if key not in NOTES]:
        raise InputError(f"{path} has {unknown[0]!r:.40}: it may have {', '.join(NOTES)}")
    return {key: " ".join(str(value).split()) for key, value in content.items() if value not in (None, "", [], {})}


def dict_in(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of JSON that should be an object; empty where it is not."""
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def value_in(content: Mapping[str, Any], name: str) -> float:
    """A number of JSON, NaN where there is none."""
    value = content.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def interval_in(content: Mapping[str, Any], name: str) -> list[float] | None:
    """Both ends of a number's 95 % interval, None where there are none."""
    ends = content.get(f"{name}_ci95")
    is_pair = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
    return [float(end) for end in ends] if is_pair and ends is not None else None


CLASSIFIER = " (classifier)"
"""What stands behind the name of a label that a classifier beside detectors scored."""
TASKS = frozenset({"detection", "segmentation", "classification"})
SCORED = {
    "boxes": (("map40", "coco_ap"), frozenset({"detection", "segmentation"})),
    "masks": (("dice", "dice_positive"), frozenset({"segmentation"})),
}
"""What a metrics.json may score → names that it then has, and the tasks whose models find that."""
PER_FINDING = ("ap40", "auroc", "average_precision", "dice_by_category")
"""Parts of metrics.json that have a number for each finding."""


def per_finding(metrics: Mapping[str, Any]) -> list[str]:
    """Names of the findings of which a metrics.json has a number, in its order."""

    def names() -> Iterator[str]:
        for part in PER_FINDING:
            yield from dict_in(metrics, part)

    return list(dict.fromkeys(names()))
