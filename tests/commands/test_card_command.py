"""`xray card` of a run that was really trained and scored."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import xray
from xray.commands import card, evaluate
from xray.inference.openvino_files import sha256_of
from xray.models.weights import save_deployed

ROOT = Path(__file__).resolve().parents[2]


def test_the_card_of_a_trained_and_scored_run(vinbig_run: Any, vinbig_store: Any, tmp_path: Any, sketched: Any) -> None:
    report = tmp_path / "report"
    predictions = vinbig_run / "validation" / "predictions.json"
    evaluate.main(evaluate.Config(predictions=predictions, data_path=vinbig_store, save_path=report, resamples=20))
    card.main(card.Config(weights=vinbig_run, report=report, data_path=vinbig_store, save_path=tmp_path / "card"))
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


@pytest.mark.slow
def test_a_run_in_a_bucket_gets_its_card_there(s3: Any, tmp_path: Any) -> None:
    run = tmp_path / "fold0"
    run.mkdir()
    save_deployed(run, {"a": torch.zeros(3)}, {"task": "detection", "categories": {"1": "Nodule"}, "canvas_size": 64})
    address = f"s3://{s3.bucket()}/runs/fold0"
    for file in run.iterdir():
        s3.put(f"{address}/{file.name}", file.read_bytes())
    command = [sys.executable, str(ROOT / "tools" / "card.py"), address]
    environment = {**os.environ, **s3.environ(tmp_path / "machine")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"card: {address}/card.html and card.md\n"
    found = s3.objects(address)
    assert sorted(found) == ["card.html", "card.md", "model.json", "model.safetensors"]
    assert b"Model card: fold0" in found["card.html"]
    assert str(tmp_path).encode() not in found["card.html"]
