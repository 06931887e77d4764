"""The examples of docs/api.md are run as they stand."""

import importlib.util
import re
from pathlib import Path

from api_cases import write_dicom, write_png

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_examples_run(vinbig_run, vinbig_store, segmentation_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, target in (("runs/detector", vinbig_run), ("runs/segmenter", segmentation_run)):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(target)
    Path("data").mkdir()
    Path("data/vinbig").symlink_to(vinbig_store)
    write_dicom(Path("radiographs/a.dicom"), 1, width=90, height=70)
    write_png(Path("radiographs/b.png"), 2, width=80, height=90)
    Path("radiographs/broken.png").write_bytes(b"")
    namespace: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        if "to_supervision" in block and not importlib.util.find_spec("supervision"):
            continue
        exec(compile(block, str(PAGE), "exec"), namespace)
    said = capsys.readouterr().out
    # What the page says comes out.
    assert "{'radiographs/broken.png': 'broken.png: the file is empty'}" in said
    assert Path("found/overlays/a.png").is_file()
    assert namespace["fused"].ids == ["a", "b"]
    assert namespace["target"].keys() == {"boxes", "labels", "scores", "masks"}


def test_every_name_is_on_the_page():
    from xray.api.result import Result

    text = PAGE.read_text()
    public = {name for name in vars(Result) if not name.startswith("_")} - {"categories"}
    assert {name for name in public if not re.search(rf"\b{name}\b", text)} == set()
