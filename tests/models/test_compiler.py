"""torch and torchvision without torch's compiler: it stays away, and is whole for whoever asks for it later."""

import json
import subprocess
import sys

WITHOUT = """
import json
import sys
import torch
from xray.models.compiler import without_compiler

with without_compiler():
    import torchvision
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **kwargs or {})

    with Watch():
        assert torch.ones(2).add(1).tolist() == [2, 2]
heavy = sorted({"torch._dynamo", "sympy"} & set(sys.modules))
boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4.1], [5, 5, 6, 6]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
import torchvision.ops.roi_align
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
compiled = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()
print(json.dumps([heavy, kept, supported, compiled, torch._dynamo.__file__ is not None]))
"""

KNOWN_LATER = """
import sys
import torch
from xray.models.compiler import without_compiler

with without_compiler():
    from torch._dynamo.utils import counters
    import torch._dynamo.config
assert sys.modules["torch._dynamo"].__file__ and torch._dynamo.optimize
from torch._dynamo.utils import counters as later
assert counters is later
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_compiler_is_not_loaded_and_works_when_it_is_wanted():
    done = python(WITHOUT)
    assert done.returncode == 0, done.stderr
    heavy, kept, supported, compiled, is_real = json.loads(done.stdout)
    assert (heavy, kept, compiled, is_real) == ([], [0, 2], [2, 2], True)
    assert supported in (True, False)


def test_what_the_stand_in_lacks_comes_from_the_compiler():
    done = python(KNOWN_LATER)
    assert done.returncode == 0, done.stderr
