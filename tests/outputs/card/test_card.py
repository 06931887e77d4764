"""The model card: every number is one of its files, what they do not say is "not known", and the hub can read it."""

import html
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray.commands.card import Config, main
from xray.datasets.fingerprint import fingerprint
from xray.datasets.store import open_store
from xray.errors import InputError
from xray.inference.thresholds import write_thresholds
from xray.models.weights import load_deployed, n_parameters, read_description, save_deployed
from xray.outputs.card.card import card_page, card_texts, written_card
from xray.outputs.card.data import BANDS, FEW, in_words, lacks, part_scored, parts_of
from xray.outputs.card.facts import NOTES, read_facts
from xray.outputs.card.limits import limits
from xray.outputs.card.reference import WEIGHTS, card_files, card_setting
from xray.radiographs.attributes import ATTRIBUTES
from xray.serving.operations import card_of
from xray.structures.thresholds import Point, Thresholds

FINDINGS = {"1": "Nodule", "2": "Mass (large)"}
DESCRIPTION = {
    "task": "detection",
    "architecture": {"backbone": "tiny", "sides": [[1, 2], [3]]},
    "categories": FINDINGS,
    "canvas_size": 64,
    "thresholds": {"detection": 0.05},
    "metrics": {"n_images": 7, "map40": 0.4321, "ap40": {"Nodule": 0.4321}},
    "epoch": 3,
}
IMAGES = [("r0", "train", 0, "p0"), ("r1", "train", 0, "p1"), ("r2", "train", 1, "p2"), ("r3", "train", 1, "p3")]
IMAGES += [("r4", "test", -1, "p4")]
BOXES = [(0, 1, (1, 1, 9, 9)), (2, 1, (2, 2, 9, 9)), (4, 2, (3, 3, 9, 9))]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory of 12 + 3 numbers that held fold 1 back."""
    folder = tmp_path / "fold1"
    folder.mkdir()
    state = {"a": torch.zeros(3, 4), "b": torch.ones(3)}
    save_deployed(folder, state, DESCRIPTION)
    (folder / "config.yaml").write_text("task: detection\nfold: 1\ndata_path: /home/anna/data\nlr: 0.25\n")
    return folder


@pytest.fixture
def data(run: Path, tmp_path: Path, write_table_store: Any) -> Path:
    """Five radiographs of ages in the forties, men and women in turn, on which the run was trained."""
    categories = [{"id": int(number), "name": name} for number, name in FINDINGS.items()]
    folder: Path = write_table_store(tmp_path / "hospital", IMAGES, BOXES, categories)
    content = json.loads((folder / "annotations.json").read_text())
    for row, record in enumerate(content["images"]):
        record |= {"sex": "F" if row % 2 else "M", "age": "40-49", "view": "PA"}
    (folder / "annotations.json").write_text(json.dumps(content))
    (run / "config.yaml").write_text(f"task: detection\nfold: 1\ndata_path: {folder}\n")
    return folder


def report_of(folder: Path, **more: Any) -> Path:
    """metrics.json as xray evaluate writes it, in a folder of its own."""
    metrics = {
        "n_images": 2,
        "map40": 0.625,
        "map40_ci95": [0.5, 0.75],
        "ap40": {"Nodule": 0.625, "Mass (large)": None},
        "ap40_ci95": {"Nodule": [0.5, 0.75]},
        "n_truth": {"Nodule": 41, "Mass (large)": 3},
        "fingerprint": {"dataset": {"n_images": 5}, "scored": {"n_images": 2, "n_patients": 2}},
        "subgroups": {"Sex": {"F": {"n_images": 1, "n_patients": 1, "map40": 0.125, "map40_ci95": [0.1, 0.2]}}},
        "calibration": {"boxes": {"Nodule": {"n": 80, "share_right": 0.5, "brier": 0.2, "ece": 0.0625}}},
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics | more))
    return folder


def test_numbers_and_intervals_are_those_of_the_report(run: Path, tmp_path: Path) -> None:
    facts = read_facts([run], report_of(tmp_path / "report"))
    page, markdown = card_texts(facts)
    assert "| mAP@0.4 | 0.625 | 0.500–0.750 |" in markdown
    assert "| Nodule | 41 | 0.625 | 0.500–0.750 |" in markdown
    assert "| Mass (large) | 3 | – | – |" in markdown
    assert "| Sex | F | 1 | 1 | – | 0.125 | 0.100–0.200 |" in markdown
    assert "| Boxes | Nodule | 80 | 50.0 % | 0.2000 | – | 0.0625 | – | – |" in markdown
    # The training's own number is another, and is not shown beside an evaluation.
    assert "0.432" not in page
    assert "Mass (large) (3)" in " ".join(limits(facts))
    assert "on fewer than 30 true boxes each, and their numbers say little: Mass (large) (3)." in " ".join(
        limits(facts)
    )
    for heading in (
        *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"),
        *("Quantitative analyses", "Ethical considerations", "Caveats and recommendations"),
    ):
        assert f"## {heading}\n" in markdown
        assert f"<h2>{heading}</h2>" in page
    assert "anna" not in page + markdown


def test_without_a_report_it_has_the_trainings_numbers_and_says_so(run: Path) -> None:
    facts = read_facts([run])
    _, markdown = card_texts(facts)
    assert "| mAP@0.4 | 0.432 | – |" in markdown
    assert "the numbers are flattered, and have no intervals" in markdown
    # From 1, as the training counted on the screen; model.json counts from 0.
    assert "on what it held back, epoch 4, by which" in markdown
    assert "- **weights of epoch**: 4\n" in markdown
    assert "- **Dataset**: data\n- **What it holds**: not known" in markdown
    assert "- **Parameters**: 15\n" in markdown
    assert "- **Architecture**: backbone tiny, sides (1 2) (3)\n" in markdown
    assert markdown.count("not known") > 20
    assert any("never met is not known" in line for line in limits(facts))
    assert any("What the training data lack is not known" in line for line in limits(facts))


def test_a_run_that_says_nothing_of_itself(tmp_path: Path) -> None:
    save_deployed(tmp_path, {"a": torch.zeros(1)}, {"task": "classification", "categories": {}})
    _, markdown = card_texts(read_facts([tmp_path]))
    assert "Not known: there is no evaluation." in markdown
    assert "- **Trained with**: not known\n" in markdown
    assert "- **Settings**: not known\n" in markdown


def test_the_data_are_counted_by_part(run: Path, data: Path, tmp_path: Path) -> None:
    scored = fingerprint(open_store(data, pixels=False), np.array([4]))
    prints = {"dataset": {"n_images": 5}, "scored": scored}
    facts = read_facts([run], report_of(tmp_path / "report", fingerprint=prints, n_images=1), data)
    assert facts.held == 1
    _, markdown = card_texts(facts)
    assert (
        "- **Trained on**: 2 radiographs\n- **Held back**: 2 radiographs\n- **Test split**: 1 radiographs" in markdown
    )
    assert "| Finding | Trained on | Held back | Test split | Boxes |" in markdown
    assert "| Nodule | 1 | 1 | 0 | 2 |\n| Mass (large) | 0 | 0 | 1 | 1 |" in markdown
    assert "| Sex | F: 1, M: 1 | F: 1, M: 1 | M: 1 |" in markdown
    assert "- **Part**: the test split of hospital\n" in markdown
    # Which hash is of what: no two facts of the data have one name.
    assert f"- **Annotations of what was scored**: SHA-256 {scored['annotations_sha256']}\n" in markdown
    whole = fingerprint(open_store(data, pixels=False))["annotations_sha256"]
    assert f"- **Annotations of the whole dataset**: SHA-256 {whole}\n" in markdown
    text = " ".join(limits(facts))
    assert "It learned these findings from fewer than 30 radiographs each: Nodule (1), Mass (large) (0)." in text
    assert "There is no lateral radiograph." in text
    assert "There is no radiograph with view AP." in text
    assert "by which its weights were chosen" not in text
    assert "no external test" in text


def test_which_part_was_scored_is_known_by_its_hashes(data: Path) -> None:
    store = open_store(data, pixels=False)
    for rows, words in (
        ([4], "the test split"),
        ([0, 1], "fold 0"),
        ([2, 3], "fold 1"),
        (range(5), "the whole dataset"),
    ):
        rows = np.array(rows)
        found = part_scored(store, fingerprint(store, rows))
        assert found is not None
        np.testing.assert_array_equal(found[0], rows)
        assert found[1] == words
    assert part_scored(store, fingerprint(store, np.array([1, 2]))) is None
    assert part_scored(store, {}) is None
    np.testing.assert_array_equal(parts_of(store, None, {}).trained, range(4))
    assert parts_of(store, None, {"fold": "all"}).is_known
    assert not parts_of(store, None, {}).is_known


def test_scored_on_what_it_learned_from_or_was_chosen_by(run: Path, data: Path, tmp_path: Path) -> None:
    store = open_store(data, pixels=False)
    for rows, words in (([0, 1], "and learned from 2 of these 2."), ([2, 3], "by which its weights were chosen")):
        prints = {"dataset": {}, "scored": fingerprint(store, np.array(rows))}
        report = report_of(tmp_path / f"report{rows[0]}", fingerprint=prints)
        assert words in " ".join(limits(read_facts([run], report, data)))


def test_no_folder_is_named_after_its_whole_path(run: Path, data: Path) -> None:
    settings = "task: detection\nfold: 1\ndata_path: /home/anna maria/set\nweights: s3://anna/first.pth\n"
    (run / "config.yaml").write_text(settings + 'pseudo: ["C:\\\\anna\\\\labels", /home/anna/]\n')
    facts = read_facts([run], None, data)
    assert facts.warnings == [
        "which radiographs of hospital the model held back is not known: it was trained on set",
    ]
    texts = card_texts(facts)
    assert not [text for text in texts if str(data.parent) in text]
    assert "- **Began from**: first.pth\n" in texts[1]
    # A folder that was given as it is, is itself the name.
    assert "- **pseudo**: labels anna\n" in texts[1]
    assert [text.count("anna") for text in texts] == [1, 1]


def test_metrics_of_something_else_are_refused(run: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path / "other", ap40={"Fracture": 0.5})
    with pytest.raises(InputError, match=r"the report scores Fracture, which .* does not find"):
        read_facts([run], report)
    for content, message in (
        ('{"names": ["a", "b"]}', "compares two models"),
        ("{}", "is none of python tools/evaluate.py"),
        ("[1]", "is no object of JSON"),
        ("{", "is damaged"),
    ):
        (report / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_facts([run], report)
    with pytest.raises(InputError, match=r"there is no .*metrics\.json"):
        read_facts([run], tmp_path / "nowhere.json" / "metrics.json")


@pytest.mark.parametrize(
    ("task", "scored", "message"),
    [
        ("classification", {"map40": 0.5, "ap40": {"Nodule": 0.5}}, "scores boxes, which a model of classification"),
        ("classification", {"coco_ap": 0.5}, "scores boxes"),
        ("classification", {"dice": 0.5}, "scores masks, which a model of classification"),
        ("detection", {"map40": 0.5, "dice": 0.5}, "scores masks, which a model of detection"),
        ("classification", {"auroc": {"Nodule": 0.5}, "calibration": {"labels": {}}}, ""),
        ("detection", {"map40": 0.5, "auroc": {"Nodule": 0.5}}, ""),
        ("detection", {"auroc": {"Nodule": 0.5}}, ""),
        ("segmentation", {"map40": 0.5, "dice": 0.5}, ""),
    ],
)
def test_metrics_of_another_task_are_refused(tmp_path: Path, task: str, scored: dict[str, Any], message: str) -> None:
    labels = {"labels": ["Nodule"]} if task == "classification" else {}
    save_deployed(tmp_path, {"a": torch.zeros(1)}, DESCRIPTION | {"task": task} | labels)
    report = tmp_path / "metrics.json"
    report.write_text(json.dumps({"n_images": 3, "fingerprint": {}} | scored))
    if message:
        with pytest.raises(InputError, match=f"{message}.*: give its own report"):
            read_facts([tmp_path], report)
    else:
        assert read_facts([tmp_path], report).metrics["n_images"] == 3


def test_malformed_parts_of_a_report_become_not_known(run: Path, tmp_path: Path) -> None:
    odd = {"ap40": 3, "subgroups": {"Sex": []}, "calibration": [1], "n_truth": {"Nodule": "x"}, "map40_ci95": [None, 1]}
    _, markdown = card_texts(read_facts([run], report_of(tmp_path / "report", **odd)))
    assert "| mAP@0.4 | 0.625 | – |" in markdown
    assert "Not known: the evaluation says nothing of groups." in markdown


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(
            ["map40", "ap40", "n_truth", "subgroups", "calibration", "operating_points", "auroc_ci95", "fingerprint"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["Nodule", "dataset", "scored", "Sex", "boxes", "n_images"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_whatever_a_report_holds_a_card_comes_of_it(run: Path, content: dict[str, Any]) -> None:
    report = run / "odd.json"
    report.write_text(json.dumps({"fingerprint": {}, "n_images": 3} | content))
    try:
        page, markdown = card_texts(read_facts([run], report))
    except InputError:
        return
    assert "Model card: fold1" in page
    assert markdown.startswith("---\n")


def test_notes_fill_what_only_people_know(run: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.yaml"
    notes.write_text("developer: Ward 3 <b>\nlicence: CC BY 4.0\nusers: radiologists\nethics:\n")
    page, markdown = card_texts(read_facts([run], notes=notes))
    assert "<dd>Ward 3 &lt;b&gt;</dd>" in page
    assert "- **Intended users**: radiologists\n" in markdown
    assert "- **Ethical considerations**: not known\n" in markdown
    assert ModelCard(markdown).data.license_name == "CC BY 4.0"
    notes.write_text("develloper: x\n")
    with pytest.raises(InputError, match="has 'develloper': it may have developer, contact"):
        read_facts([run], notes=notes)
    assert all(title in page for title in NOTES.values())


def test_the_hub_reads_its_metadata(run: Path, tmp_path: Path) -> None:
    _, markdown = card_texts(read_facts([run], report_of(tmp_path / "report")))
    data = ModelCard(markdown).data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("xray", "object-detection", "fold1")
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("map40", 0.625)]
    assert data.license is None
    assert "not-for-clinical-use" in data.tags


def test_it_loads_nothing_and_says_which_weights_it_is_of(run: Path) -> None:
    facts = read_facts([run])
    page, _ = card_texts(facts)
    for reference in ("<script", "<link", "src=", "http:", "https:", "@import", "url("):
        assert reference not in page
    assert f'<meta name="{WEIGHTS}" content="{facts.models[0].weights}">' in page
    main(Config(weights=run))
    assert written_card(run, facts) is not None
    save_deployed(run, {"a": torch.zeros(2)}, DESCRIPTION)
    assert written_card(run, read_facts([run])) is None


def test_a_card_from_before_a_fit_is_no_card_of_the_run(run: Path) -> None:
    main(Config(weights=run))
    kept = {path.name: path.read_bytes() for path in run.iterdir()}
    write_thresholds(run, Thresholds("boxes", {"Nodule": Point(1.5, 0.25)}, "sensitivity=0.9"), {})
    assert written_card(run, read_facts([run])) is None
    assert "sensitivity=0.9" in card_of([run])()
    main(Config(weights=run, overwrite=True))
    assert written_card(run, read_facts([run])) is not None
    # The fit is removed, and later one of masks is there.
    (run / "thresholds.json").unlink()
    assert written_card(run, read_facts([run])) is None
    (run / "card.html").write_bytes(kept["card.html"])
    assert written_card(run, read_facts([run])) is not None
    content = json.loads(kept["model.json"]) | {"thresholds": {"top": 0.75}}
    (run / "model.json").write_text(json.dumps(content))
    assert written_card(run, read_facts([run])) is None


def test_the_command_keeps_what_is_there(run: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    main(Config(weights=run, data_path=data, save_path=tmp_path / "out"))
    assert capsys.readouterr().out == f"card: {tmp_path}/out/card.html and card.md\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["card.html", "card.md"]
    with pytest.raises(InputError, match=r"card\.html exists: give --overwrite"):
        main(Config(weights=run, save_path=tmp_path / "out"))
    main(Config(weights=run, save_path=tmp_path / "out", overwrite=True))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: give --save-path a folder"):
        main(Config(weights=run, save_path=tmp_path / "file"))
    with pytest.raises(InputError, match="no run directory at"):
        main(Config(weights=tmp_path / "nowhere", save_path=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_objects_name_a_card_that_is_of_these_weights_and_thresholds(run: Path, tmp_path: Path) -> None:
    other, ensemble = tmp_path / "fold2", tmp_path / "both.yaml"
    shutil.copytree(run, other)
    ensemble.write_text("version: 1\nmodels:\n- runs: [fold1]\n- runs: [fold2]\n")
    named = {"model card": "card.html beside the weights"}
    assert card_setting([run]) == card_setting([ensemble]) == {}
    (run / "card.html").write_text("somebody's own page")
    assert card_setting([run]) == {}
    main(Config(weights=run, overwrite=True))
    assert card_setting([run]) == card_setting([other, run]) == card_setting([run / "model.onnx"]) == named
    main(Config(weights=ensemble))
    assert card_setting([ensemble]) == named
    write_thresholds(run, Thresholds("boxes", {"Nodule": Point(1.5, 0.25)}, "sensitivity=0.9"), {})
    assert card_setting([run]) == {}
    main(Config(weights=run, overwrite=True))
    assert card_setting([run]) == named
    save_deployed(run, {"a": torch.zeros(2)}, DESCRIPTION)
    assert card_setting([run]) == {}
    # The ensemble's is of the former weights, too.
    assert card_setting([ensemble]) == {}


def test_the_card_of_two_runs_has_what_people_wrote_of_each(run: Path, tmp_path: Path) -> None:
    other, notes = tmp_path / "fold2", tmp_path / "notes.yaml"
    shutil.copytree(run, other)
    save_deployed(other, {"a": torch.zeros(7)}, DESCRIPTION)
    notes.write_text("developer: 'Ward \"3\" <b>'\nlicence: MIT\nusers: radiologists\n")
    main(Config(weights=run, notes=notes))
    notes.write_text("developer: Ward 4\nlicence: MIT\n")
    main(Config(weights=other, notes=notes))
    ensemble = tmp_path / "both.yaml"
    ensemble.write_text("version: 1\nmodels:\n- runs: [fold1]\n- runs: [fold2]\n")
    expected = {
        "developer": 'fold1: Ward "3" <b>; fold2: Ward 4',
        "licence": "MIT",
        "users": "fold1: radiologists; fold2: not known",
    }
    assert read_facts([run, other]).notes == read_facts([ensemble]).notes == expected
    page = card_of([run, other])()
    assert f"<dd>{expected['developer']}</dd>" in html.unescape(page)
    assert "<b>;" not in page
    # A card that is made again keeps them, and one of an ensemble may say others.
    main(Config(weights=run, overwrite=True))
    assert read_facts([run]).notes == {"developer": 'Ward "3" <b>', "licence": "MIT", "users": "radiologists"}
    main(Config(weights=ensemble, notes=notes))
    assert read_facts([ensemble]).notes == {"developer": "Ward 4", "licence": "MIT"}
    # What was written of other weights says nothing of these.
    save_deployed(run, {"a": torch.zeros(2)}, DESCRIPTION)
    assert read_facts([run]).notes == {}


@pytest.mark.parametrize("content", ["{", "[1]", '{"developer": 3, "other": "x"}'])
def test_odd_notes_on_a_card_are_none(run: Path, content: str) -> None:
    main(Config(weights=run))
    page = run / "card.html"
    text = page.read_text()
    text = text.replace("<meta name", f'<meta name="xray-notes" content="{html.escape(content)}"><meta name', 1)
    page.write_text(text)
    assert read_facts([run]).notes == {}


def test_an_ensemble_has_one_card_beside_it(run: Path, tmp_path: Path) -> None:
    ensemble = tmp_path / "both.yaml"
    ensemble.write_text("version: 1\nmodels:\n- runs: [fold1]\n- runs: [fold1]\n")
    assert [path.name for path in card_files(ensemble)] == ["both.card.html", "both.card.md"]
    facts = read_facts([ensemble])
    assert len(facts.hashes) == 3
    _, markdown = card_texts(facts)
    assert "- **Model 2: Name**: fold1\n" in markdown
    assert f"- **Ensemble**: SHA-256 {facts.ensemble}\n" in markdown
    assert card_page(facts).meta[WEIGHTS].split() == facts.hashes


def test_two_heads_on_one_trunk_and_a_classifier_of_any_finding(tmp_path: Path) -> None:
    both, abnormal = tmp_path / "both", tmp_path / "abnormal"
    heads = {
        task: {"task": task, "categories": {"1": task}, "canvas_size": 64} for task in ("detection", "segmentation")
    }
    for folder, description in (
        (both, {"task": "detection+segmentation", **heads}),
        (
            abnormal,
            {"task": "classification", "labels": ["abnormal"], "categories": FINDINGS, "bits": 16, "canvas_size": 9},
        ),
    ):
        folder.mkdir()
        save_deployed(folder, {"a": torch.zeros(2)}, description)
    facts = read_facts([both])
    assert (facts.task, facts.categories) == ("detection and segmentation", ["detection", "segmentation"])
    assert [model.name for model in facts.models] == ["both, detection", "both, segmentation"]
    _, markdown = card_texts(facts)
    assert "- **Model 2: Output**: masks of findings\n" in markdown
    # What is said of boxes stays beside what is said of masks.
    assert "Nothing was fitted: findings are shown from a confidence of 0.3" in markdown
    assert "Of masks: not known." in markdown
    facts = read_facts([abnormal])
    assert facts.categories == ["abnormal"]
    assert "scaled to 9 × 9 pixels of 16 bits" in card_texts(facts)[1]
    facts = read_facts([both, abnormal])
    assert (facts.name, len(facts.models)) == ("2 models", 3)


def test_warnings_of_files_name_no_folders(run: Path, tmp_path: Path) -> None:
    (run / "thresholds.json").write_text("{}")
    for runs in ([run], [run, run]):
        (warning,) = read_facts(runs).warnings
        assert warning.startswith("thresholds are not used: fold1/thresholds.json is ")
        assert str(tmp_path) not in warning


def test_a_description_and_a_size_are_read_without_the_weights(run: Path, tmp_path: Path) -> None:
    description, state = load_deployed(run)
    assert read_description(run) == description
    assert n_parameters(run / "model.safetensors") == sum(one.numel() for one in state.values()) == 15
    (run / "model.safetensors").write_bytes(b"x" * 100)
    for read in (n_parameters, lambda path: read_description(path.parent)):
        with pytest.raises(InputError, match="not a readable weights file"):
            read(run / "model.safetensors")


@given(st.dictionaries(st.sampled_from(["M", "F", "not known"]), st.integers(0, 99), min_size=1))
def test_every_lack_is_named(sexes: dict[str, int]) -> None:
    counts = {name: Counter({"not known": 1}) for name in ATTRIBUTES} | {"sex": Counter(sexes)}
    text = " ".join(lacks(counts))
    if set(sexes) <= {"not known"}:
        return
    for sex in ("F", "M"):
        n = sexes.get(sex, 0)
        assert (f"{sex} ({n})" in text) == (0 < n < FEW)
    assert ("no radiograph with sex" in text) == any(not sexes.get(sex) for sex in ("F", "M"))
    unknown = sexes.get("not known")
    assert f"The sex is not known of {unknown:,} of" in text if unknown else "The sex" not in text


def test_views_and_sexes_in_other_words_are_understood() -> None:
    plain = {name: Counter({"not known": 1}) for name in ATTRIBUTES}
    views = lacks(plain | {"view": Counter({"AP Supine": 52, "PA": 40, "AP": 1})})
    assert "There is no lateral radiograph." in views
    assert not [line for line in views if "with view" in line]
    assert "There are fewer than 30 radiographs with view AP (2)." in lacks(
        plain | {"view": Counter({"AP erect": 1, "AP": 1, "PA": 40, "LL": 9})}
    )
    # What nobody understands could be any of them.
    assert not [line for line in lacks(plain | {"view": Counter({"frontal": 9})}) if "There is no" in line]
    assert not [line for line in lacks(plain | {"sex": Counter({"female": 90, "male": 90})}) if "with sex" in line]


def test_ages_rise_in_words() -> None:
    ages = dict.fromkeys(reversed(BANDS), 1) | {"not known": 7}
    assert in_words(ages) == ", ".join([*(f"{band}: 1" for band in BANDS), "not known: 7"])
    assert in_words({}) == in_words({"not known": 3}) == "not known"
    assert not math.isnan(FEW)
