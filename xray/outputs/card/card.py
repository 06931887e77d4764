"""The model card: what a model is for, what it learned from, what it is worth, and what nobody knows of it.

Headings are those of Mitchell et al. 2019 (Model Cards for Model Reporting, arXiv:1810.03993); what Hugging Face's
template and CHAI's applied model card ask beyond stands under them. Nothing is invented: what no file and no note says
is "not known".
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from xray import __version__
from xray.file_names import METRICS
from xray.files import complete
from xray.outputs.card.data import (
    NOT_KNOWN,
    columns,
    conversion_facts,
    counts_of,
    finding_rows,
    in_words,
    part_scored,
    parts_of,
)
from xray.outputs.card.facts import NOTES, Facts, Model, dict_in
from xray.outputs.card.limits import limits
from xray.outputs.card.metadata import metadata_of
from xray.outputs.card.numbers import result_sections, tiles
from xray.outputs.card.reference import FIT, NOTED, WEIGHTS, read_card
from xray.outputs.report import parts as parts
from xray.outputs.report.page import Page, render
from xray.outputs.report.parts import Section

INPUT = "Chest radiographs as DICOM (CR, DX, SC), PNG or JPEG, one at a time, scaled to {0} × {0} pixels of {1} bits"
OUTPUTS = {
    "detection": "boxes around findings, each with a confidence",
    "segmentation": "masks of findings",
    "classification": "for each finding, the probability that the radiograph shows it",
}
KEPT = ("data_path", "save_path", "chosen")
"""Settings of a training that the card shows elsewhere, or not at all: folders may be named after people."""


def card_page(facts: Facts) -> Page:
    """The content of a card."""
    sections = [
        _details(facts),
        _intended_use(facts),
        _factors(facts),
        _metrics(facts),
        *_evaluation_data(facts),
        *_training_data(facts),
        *result_sections(facts),
        _ethics(facts),
        _caveats(facts),
        *_procedure(facts),
        _versions(facts),
    ]
    subtitle = f"{facts.task} of {len(facts.categories)} finding{'s' if len(facts.categories) != 1 else ''}"
    return Page(
        f"Model card: {facts.name}",
        subtitle[:1].upper() + subtitle[1:],
        facts.warnings,
        tiles(facts),
        sections,
        numbers="",
        meta={
            WEIGHTS: " ".join(facts.hashes),
            FIT: _fit_of(facts),
            **({NOTED: json.dumps(dict(facts.notes))} if facts.notes else {}),
        },
    )


def card_texts(facts: Facts) -> tuple[str, str]:
    """The card as HTML and as Markdown, which begins with Hugging Face's metadata."""
    text, markdown = render(card_page(facts))
    return text, f"---\n{metadata_of(facts)}---\n\n{markdown}"


def write_card(facts: Facts, page: Path, markdown: Path) -> None:
    """Writes both files, each complete or not at all."""
    for path, text in zip((page, markdown), card_texts(facts), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def written_card(given: Path, facts: Facts) -> str | None:
    """The HTML of a card that `xray card` left with a run; None where there is none, or it is of other weights or
    thresholds.

    facts: of what there is now.
    """
    found = read_card(given)
    if found is None:
        return None
    text, meta = found
    is_of_these = meta.get(WEIGHTS, "").split() == facts.hashes and meta.get(FIT) == _fit_of(facts)
    return text if is_of_these else None


def _fit_of(facts: Facts) -> str:
    of_scores = facts.thresholds.digest if facts.thresholds else None
    of_masks = [dict_in(model.description, "thresholds") for model in facts.models]
    return hashlib.sha256(json.dumps([of_scores, of_masks], sort_keys=True).encode()).hexdigest()


def _details(facts: Facts) -> Section:
    found = {NOTES[key]: _note(facts, key) for key in ("developer", "contact", "version", "date", "licence")}
    found["Regulatory approval"] = facts.notes.get("regulatory", f"{NOT_KNOWN}; this is no medical device")
    several = len(facts.models) > 1
    for number, model in enumerate(facts.models, 1):
        found |= {f"{f'Model {number}: ' if several else ''}{name}": text for name, text in _model(model).items()}
    for key in ("funding", "citation", "maintenance"):
        found[NOTES[key]] = _note(facts, key)
    return Section("Model details", facts=found)


def _model(model: Model) -> dict[str, str]:
    size = model.description.get("canvas_size")
    return {
        "Name": model.name,
        "Type": model.task or NOT_KNOWN,
        "Architecture": _plain(model.description.get("architecture")),
        "Parameters": NOT_KNOWN if model.parameters is None else f"{model.parameters:,}",
        "Input": INPUT.format(size, model.description.get("bits", 8)) if size else NOT_KNOWN,
        "Output": " and ".join(words for task, words in OUTPUTS.items() if task in model.task) or NOT_KNOWN,
        "Findings": ", ".join(model.categories) or NOT_KNOWN,
        "Began from": _setting(model.config.get("weights")),
    }


def _intended_use(facts: Facts) -> Section:
    lines = {
        NOTES["intended_use"]: facts.notes.get("intended_use", f"{NOT_KNOWN} beyond research"),
        NOTES["users"]: _note(facts, "users"),
        NOTES["population"]: _note(facts, "population"),
        NOTES["out_of_scope"]: "; ".join(
            filter(
                None,
                [
                    facts.notes.get("out_of_scope"),
                    "diagnosis and treatment: it is not for clinical use and no medical device",
                    "anything but chest radiographs",
                    f"findings other than {', '.join(facts.categories)}",
                ],
            )
        ),
        "How to use": "xray infer --weights RUN --data-path FILES --save-path OUT; xray serve --weights RUN",
    }
    return Section("Intended use", warning="Not for clinical use. For research alone.", facts=lines)


def _factors(facts: Facts) -> Section:
    groups = dict_in(facts.metrics, "subgroups")
    scored = {attribute: ", ".join(dict_in(groups, attribute)) for attribute in groups}
    hint = "What radiographs are told apart by, where the data say it. Results by group are below."
    return Section("Factors", hint, facts=scored or {"Groups scored": NOT_KNOWN})


def _metrics(facts: Facts) -> Section:
    fitted = f"of each finding, at {facts.thresholds.at}" if facts.thresholds else "nothing was fitted"
    scored = dict_in(dict_in(facts.metrics, "fingerprint"), "scored")
    over = "radiographs, as their patients are not known" if scored.get("n_patients") is None else "patients"
    has_intervals = any("_ci95" in key for key in facts.metrics)
    how = f"95 % intervals of a bootstrap over {over}" if has_intervals else "no intervals"
    return Section("Metrics", facts={"Decision thresholds": fitted, "Uncertainty": how if facts.metrics else NOT_KNOWN})


def _evaluation_data(facts: Facts) -> list[Section]:
    prints = dict_in(facts.metrics, "fingerprint")
    scored, dataset = dict_in(prints, "scored"), dict_in(prints, "dataset")
    if not scored:
        return [
            Section(
                "Evaluation data",
                facts={"Scored": NOT_KNOWN, NOTES["evaluation_data"]: _note(facts, "evaluation_data")},
            )
        ]
    part = part_scored(facts.store, scored) if facts.store is not None else None
    name = facts.store.path.absolute().name if facts.store is not None and part else ""
    found = {
        "Scored": f"{scored.get('n_images', NOT_KNOWN)} radiographs of {dataset.get('n_images', NOT_KNOWN)}",
        "Part": f"{part[1]} of {name}" if part else NOT_KNOWN,
        "Patients": _plain(scored.get("n_patients")),
        "True boxes": _plain(scored.get("n_boxes")),
        "True masks": _plain(scored.get("n_masks")),
        NOTES["evaluation_data"]: _note(facts, "evaluation_data"),
        "Annotations of what was scored": f"SHA-256 {scored.get('annotations_sha256', NOT_KNOWN)}",
        "Splits and folds of what was scored": f"SHA-256 {scored.get('split_sha256', NOT_KNOWN)}",
    }
    groups = dict_in(facts.metrics, "subgroups")
    for attribute in (one for one in groups if one != "Box size"):
        numbers = {value: dict_in(dict_in(groups, attribute), value).get("n_images") for value in groups[attribute]}
        found[attribute] = in_words({value: n for value, n in numbers.items() if isinstance(n, int)})
    return [Section("Evaluation data", facts=found)]


def _training_data(facts: Facts) -> list[Section]:
    note = {NOTES["training_data"]: _note(facts, "training_data")}
    store = facts.store
    if store is None:
        names = [Path(str(model.config["data_path"])).name for model in facts.models if model.config.get("data_path")]
        known = {"Dataset": ", ".join(dict.fromkeys(names)) or NOT_KNOWN, "What it holds": NOT_KNOWN}
        return [Section("Training data", facts=known | note)]
    from xray.datasets.fingerprint import fingerprint

    split, chosen = parts_of(store, facts.held, facts.models[0].config), fingerprint(store)
    named = columns(store, split)
    patients = chosen["n_patients"]
    found = {
        "Dataset": store.path.absolute().name,
        **conversion_facts(store),
        **{title: f"{len(rows):,} radiographs" for title, rows in named.items()},
        "Patients": NOT_KNOWN
        if patients is None
        else f"{patients:,}, and {chosen['n_without_patient']:,} radiographs of unknown ones",
        **note,
        "Annotations of the whole dataset": f"SHA-256 {chosen['annotations_sha256']}",
        "Splits and folds of the whole dataset": f"SHA-256 {chosen['split_sha256']}",
    }
    has_masks, has_unknown = bool(store.masks), bool(store.unknown.any())
    head = ["!Finding", *(f"#{title}" for title in named), "#Boxes", "#Masks" if has_masks else None]
    head.append("#Not known" if has_unknown else None)
    groups = {title: counts_of(store, rows) for title, rows in named.items()}
    rows = [
        [name.capitalize(), *(in_words(counts[name]) for counts in groups.values())]
        for name in ("view", "sex", "age", "manufacturer")
    ]
    return [
        Section("Training data", facts=found),
        Section(
            "Training data by finding",
            "Radiographs that show each finding; boxes and masks are those of the whole dataset.",
            parts.table(head, finding_rows(store, split)),
        ),
        Section("Training data by group", "Numbers of radiographs.", parts.table(["!Group", *named], rows)),
    ]


def _ethics(facts: Facts) -> Section:
    found = {NOTES[key]: _note(facts, key) for key in ("ethics", "risks")}
    paragraphs = [
        "A finding that is missed, and one that is not there, both harm: who looks at findings has to look at the "
        "radiograph. A model may do worse for people of whom it has seen few; see the results by group, and what the "
        "data lack."
    ]
    return Section("Ethical considerations", facts=found, paragraphs=paragraphs)


def _caveats(facts: Facts) -> Section:
    found = limits(facts)
    note = _note(facts, "recommendations")
    hint = "What the numbers do not say, and what the data lack."
    rows = [[str(number), sentence] for number, sentence in enumerate(found, 1)]
    return Section(
        "Caveats and recommendations", hint, parts.table(["#No.", "Limit"], rows), {NOTES["recommendations"]: note}
    )


def _procedure(facts: Facts) -> list[Section]:
    sections = []
    for number, model in enumerate(facts.models, 1):
        title = "Training procedure" + (f" of model {number}" if len(facts.models) > 1 else "")
        settings = {str(name): _setting(value) for name, value in model.config.items() if name not in KEPT}
        epoch = model.description.get("epoch")
        if settings and epoch is not None:
            settings = {"weights of epoch": str(epoch + 1)} | settings
        sections.append(Section(title, facts=settings or {"Settings": NOT_KNOWN}))
    return sections


def _versions(facts: Facts) -> Section:
    found = {"This card": f"xray {__version__}"}
    several = len(facts.models) > 1
    for number, model in enumerate(facts.models, 1):
        before = f"Model {number}: " if several else ""
        versions = dict_in(model.description, "versions")
        found[f"{before}Trained with"] = ", ".join(f"{name} {value}" for name, value in versions.items()) or NOT_KNOWN
        found[f"{before}Weights"] = f"SHA-256 {model.weights}"
    if facts.ensemble:
        found["Ensemble"] = f"SHA-256 {facts.ensemble}"
    found["Thresholds"] = f"SHA-256 {facts.thresholds.digest}" if facts.thresholds else "none were fitted"
    found[METRICS] = f"SHA-256 {facts.metrics_sha256}" if facts.metrics else "none was given"
    return Section("Versions and hashes", facts=found)


def _note(facts: Facts, key: str) -> str:
    return facts.notes.get(key, NOT_KNOWN)


def _setting(value: object) -> str:
    """A setting of a training in words; of a path its last part alone: folders may be named after people."""
    if isinstance(value, list):
        return " ".join(_setting(part) for part in value) or "none"
    return _plain(value.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if isinstance(value, str) else value)


def _plain(value: object) -> str:
    """JSON in words: `{"backbone": "resnet50"}` → "backbone resnet50"."""
    if value is None or value in ("", [], {}):
        return NOT_KNOWN if value is None else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(f"({_plain(part)})" if isinstance(part, list | tuple) else _plain(part) for part in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
