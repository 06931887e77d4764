"""What a kill during a save, and a loss that is not finite, leave of others' trainings and of ours.

python tests/training/peers_checkpoints.py [--megabytes 150 --kills 20 --seed 0]

Run are the calls that their trainings make, not the trainings themselves:
- torchvision's references/detection/train.py: `torch.save` to model_{epoch}.pth and, in place, to checkpoint.pth;
- nnU-Net's nnUNetTrainer.save_checkpoint: `torch.save` in place to checkpoint_latest.pth;
- ours: `xray.models.tensors.save_tensors`, what every checkpoint is written with.
Each overwrites a whole checkpoint of the same size and is killed at the same random moments of its save.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from xray.models.tensors import load_tensors, save_tensors

FILES = {
    "torchvision's reference loop": ("checkpoint.pth", torch.save),
    "nnU-Net's in-place checkpoint": ("checkpoint_latest.pth", torch.save),
    "xray": ("last.ckpt", save_tensors),
}


def content(megabytes: int, epoch: int) -> dict:
    """Weights and momentum of some forty layers."""
    n = megabytes * 2**20 // 4 // 80
    tensors = {f"layer{number}": torch.full((n,), float(number)) for number in range(40)}
    return {"model": tensors, "optimizer": {name: value.clone() for name, value in tensors.items()}, "epoch": epoch}


def killed(save, path: Path, megabytes: int, moment: float) -> bool:
    """Overwrites `path` in a process that is killed `moment` seconds after it began; whether that was in time."""
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        new = content(megabytes, 2)
        os.write(writes, b"x")
        save(new, path)
        os._exit(0)
    os.read(reads, 1)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    os.close(reads)
    os.close(writes)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kills(folder: Path, megabytes: int, count: int, seed: int) -> None:
    """Prints for each how often the checkpoint could still be loaded."""
    for who, (name, save) in FILES.items():
        draw, path = random.Random(seed), folder / name
        times = []
        for _ in range(3):
            begin = time.monotonic()
            save(content(megabytes, 1), path)
            times.append(time.monotonic() - begin)
        seconds = min(times)
        whole = in_time = 0
        for _ in range(count):
            in_time += killed(save, path, megabytes, draw.uniform(0, seconds))
            try:
                whole += load_tensors(path)["epoch"] in (1, 2)
            except Exception:
                # A run that goes on would have nothing to go on from: the next attempt begins with a whole file again.
                save(content(megabytes, 1), path)
        print(f"{who:32} a save takes {seconds:.2f} s; killed in {in_time} of {count} saves, whole after {whole}")
        path.unlink()


def reference_step(model, optimizer, loss) -> None:
    """As torchvision's engine.py: stops where the loss is not finite, before the step."""
    if not torch.isfinite(loss):
        print(f"Loss is {loss.item()}, stopping training")
        sys.exit(1)
    plain_step(model, optimizer, loss)


def plain_step(model, optimizer, loss) -> None:
    """As nnU-Net's train_step where nothing scales the loss: backward, gradients clipped to 12, step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
    optimizer.step()


def losses() -> None:
    """Prints what one NaN loss does."""
    for who, step in (("torchvision's reference loop", reference_step), ("nnU-Net's training step", plain_step)):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.99, nesterov=True)
        try:
            step(model, optimizer, model(torch.ones(3, 4)).sum() * float("nan"))
            ending = "goes on"
        except SystemExit as stop:
            ending = f"ends with status {stop.code}, which images is not said"
        lost = sum(int(not value.isfinite().all()) for value in model.parameters())
        print(f"{who:32} NaN loss: {ending}; {lost} of 2 weight tensors are NaN after it")


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=150, help="size of a checkpoint")
    parser.add_argument("--kills", type=int, default=20, help="kills of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        kills(folder, flags.megabytes, flags.kills, flags.seed)
    finally:
        shutil.rmtree(folder)
    losses()


if __name__ == "__main__":
    main()
