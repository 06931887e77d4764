"""`xray card` of a run that was really trained and scored."""

import json
from typing import Any

import torch

import xray
from xray.commands import card, evaluate
from xray.inference.openvino_files import sha256_of


def test_the_card_of_a_trained_and_scored_run(vinbig_run: Any, vinbig_store: Any, tmp_path: Any, sketched: Any) -> None:
    report = tmp_path / "report"
    predictions = vinbig_run / "validation" / "predictions.json"
    evaluate.main(evaluate.Config(predictions=predictions, data_path=vinbig_store, save_path=report, resamples=20))
    card.main(card.Config(run=vinbig_run, report=report, data_path=vinbig_store, save_path=tmp_path / "card"))
    text = (tmp_path / "card" / "card.md").read_text()
    metrics = json.loads((report / "metrics.json").read_text())
    assert f"| mAP@0.4 | {metrics['map40']:.3f} |" in text
    for name, value in metrics["auroc"].items():
        assert f"| {name} | {value:.3f} |" in text
    scored = metrics["fingerprint"]["scored"]
    assert f"SHA-256 {scored['annotations_sha256']}" in text
    assert f"SHA-256 {metrics['fingerprint']['dataset']['split_sha256']}" in text
    assert f"SHA-256 {sha256_of(vinbig_run / 'model.safetensors')}" in text
    assert f"- **Trained with**: xray {xray.__version__}, torch {torch.__version__}" in text
    assert f"- **Part**: fold 0 of {vinbig_store.name}\n" in text
    assert f"- **Held back**: {scored['n_images']} radiographs\n" in text
    assert "by which its weights were chosen" in text
    assert str(tmp_path.parent) not in text
