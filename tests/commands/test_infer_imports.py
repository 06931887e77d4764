"""What a command for one radiograph does not import: each of these takes as long as the model itself."""

import json
import subprocess
import sys

CODE = """
import json
import sys
from xray.commands import infer

run, data, out = sys.argv[1:]
config = infer.Config(weights=(run,), data_path=data, save_path=out, device="cpu", n_workers=0)
assert infer.main(config) == 0
heavy = {"torch._dynamo", "sympy", "segmentation_models_pytorch", "timm", "numba", "scipy", "pandas", "lightning"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


def test_one_radiograph_needs_neither_other_tasks_nor_compilers(vinbig_run, vinbig_store, tmp_path):
    radiograph = next((vinbig_store.parent / "source" / "test").iterdir())
    command = [sys.executable, "-c", CODE, str(vinbig_run), str(radiograph), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
