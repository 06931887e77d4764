"""What is said of wrong flags: one line that names the flag, what it takes, and what was probably meant."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from xray import flags
from xray.commands import account, card, convert, evaluate, infer, phantoms, serve
from xray.commands.cv import read as read_cv
from xray.commands.lr_find import read_sweep
from xray.commands.runner import command, run_command
from xray.errors import FlagError, InputError, UnreadFlagsError
from xray.flags import Count, CountOrAuto, FoldNumber, Positive, ShareBelowOne, alone_or_one_of, parse_flags, wrong
from xray.flags.types import fits, in_words, n_values
from xray.flags.wrong import about_device
from xray.training.recipes import read_training_flags
from xray.training.stages import read_training

CONVERT = "vinbig --data-path a --save-path b"
INFER = "--weights a --data-path b --save-path c"

# Command, its flags, and the line.
WRONG = [
    (
        convert, "vinbg --data-path x",
        "xray convert: there is no source vinbg; did you mean vinbig? Sources: vinbig, coco, siim, ",
    ),
    (convert, "—data-path x", "xray convert: the source comes first, as in xray convert vinbig --data-path PATH. "),
    (convert, "quatsch", "xray convert: there is no source quatsch. Sources: vinbig, coco, "),
    (convert, "", "xray convert: the source comes first, as in xray convert vinbig --data-path PATH. Sources: "),
    (convert, "--data-path x lungs", "xray convert: the source comes first, as in xray convert lungs --data-path PATH"),
    (
        convert, "vinbig",
        "xray convert vinbig needs --data-path and --save-path: xray convert vinbig --help explains each$",
    ),
    (convert, "siim --data-path=x", "xray convert siim needs --save-path: "),
    (
        convert, "vinbig --data-pth x --save-path y",
        "there is no flag --data-pth: did you mean --data-path? (xray convert vinbig --help lists all flags)$",
    ),
    (convert, f"{CONVERT} --mask_size 5", "--mask-size is a flag of siim and candid, not of vinbig ("),
    (convert, f"{CONVERT} --n-folds 2.5", "--n-folds takes a whole number from 2 to 100; it was given '2.5'$"),
    (convert, f"{CONVERT} --n-folds=", "--n-folds takes a whole number from 2 to 100; it was given ''$"),
    (convert, f"{CONVERT} --bits 12", "--bits takes 8 or 16; it was given '12'$"),
    (convert, f"{CONVERT} --readers ALL", "--readers takes fuse or all; it was given 'ALL': did you mean all?$"),
    (convert, f"{CONVERT} --overwrite=true", "--overwrite is on or off: give --overwrite or --no-overwrite"),
    (convert, f"{CONVERT} --table-only yes", "--table-only is on or off: give --table-only or --no-table-only"),
    (convert, "vinbig --data-path --save-path y", "--data-path needs a value: it takes a path$"),
    (convert, f"{CONVERT} --data-path c", "--data-path is given 2 times: give it once$"),
    (convert, f"{CONVERT} --splits train=a --splits val=b", "--splits is given 2 times: give all its values after "),
    (convert, "vinbig --data-path a c --save-path b", "--data-path takes a path; it was given 2 values: 'a' 'c'$"),
    (convert, f"vinbig coco {CONVERT[7:]}",
     "'coco' is no flag, and no flag's value (xray convert vinbig --help lists all flags)$"),
    (infer, "", "xray infer needs --weights, --data-path and --save-path: xray infer --help explains each$"),
    (infer, f"{INFER} --weights d", "--weights is given 2 times: give all its values after one --weights$"),
    (infer, f"{INFER} --sr maybe", "--sr takes nothing, or comprehensive, comprehensive3d or off; it was given 'maybe"),
    (infer, f"{INFER} --triplet 1 2", "--triplet takes 3 numbers; it was given 2 values: '1' '2'$"),
    (infer, f"{INFER} --triplet 1 2 3 4", "--triplet takes 3 numbers; it was given 4 values: '1' '2' '3' '4'$"),
    (infer, f"{INFER} --return", "--return needs a value: it takes a text$"),
    (infer, f"{INFER} --no-return", "there is no --no-return: --return takes a text ("),
    (infer, "-data-path b", "there is no flag -data-path: did you mean --data-path? ("),
    (infer, f"{INFER} --help=3", "--help takes no value ("),
    (infer, f"{INFER} ---debug", "there is no flag ---debug: did you mean --debug? ("),
    (infer, f"{INFER} --INF", "there is no flag --INF ("),
    (
        infer, "--weights a --data-path -b --save-path c",
        "there is no flag -b; a value that begins with a dash is given as --data-path=… (",
    ),
    (
        infer, "--weights a -- --data-path b --save-path c",
        "'--data-path' follows --, after which nothing is a flag: leave -- out$",
    ),
    (infer, "--weights a —data-path b", "'—data-path' has another dash than a flag: did you mean --data-path?$"),
    (infer, f"{INFER} −−tta", "'−−tta' has another dash than a flag: did you mean --tta?$"),
    (infer, f"{INFER} --verbose", "there is no flag --verbose (xray infer --help lists all flags)$"),
    (evaluate, "--predictions a --data-path b --save-path c --compare d", "--compare takes 2 paths; it was given 'd'$"),
    (card, "", "xray card needs RUN: "),
    (account, "", "xray account needs NAME: "),
    (account, "a b", "'b' is no flag, and no flag's value, and NAME is there already ("),
    (account, "--auth f a b", "--auth takes a path; it was given 3 values: 'f' 'a' 'b'$"),
    (phantoms, "--save-path a --trees siim vinbog", "--trees takes any of vinbig, siim, "),
    (serve, "--weights a --port eight", "--port takes a whole number from 0 to 65535; it was given 'eight'$"),
    (serve, "--weights a --host-name b c", "--host-name takes a text each time that it is given; it was given 2 "),
]  # fmt: skip

TRAINING = [
    ("--n-epochs many", "--n-epochs takes a whole number from 1, or auto; it was given 'many'$"),
    ("--n-epoch 3", "there is no flag --n-epoch: did you mean --n-epochs? (xray train --help lists all flags)$"),
    ("–n-epochs 3", "'–n-epochs' has another dash than a flag: did you mean --n-epochs?$"),
    ("--logger csv —task segmentation", "'—task' has another dash than a flag: did you mean --task?$"),
    ("--workers 3", "there is no flag --workers: did you mean --n-workers? ("),
    ("--taks segmentation", "there is no flag --taks: did you mean --task? ("),
    ("--task segmentaton", "--task segmentaton is unknown: did you mean segmentation?$"),
    ("--task ear", "--task ear is unknown: use one of detection, segmentation, classification$"),
    ("--encoder resnet34", "--encoder is a flag of --task segmentation, not of --task detection ("),
    ("--task classification --no-rle", "there is no flag --no-rle (xray train --task classification --help lists all "),
    ("--schedule cosin", "--schedule takes auto, step, cosine, onecycle or plateau; it was given 'cosin': did you "),
    ("--no-ema yes", "--ema is on or off: give --ema or --no-ema, without 'yes'$"),
    ("--no-lr", "there is no --no-lr: --lr takes a number above 0, or auto ("),
    ("--seed", "--seed needs a value: it takes a whole number from 0$"),
    ("--lr fast --lr 0.1 --seed 0.5", "--seed takes a whole number from 0; it was given '0.5'$"),
    ("--logger csv x", "--logger takes any of tensorboard, csv, wandb, mlflow; it was given 'x'$"),
    ("stray", "'stray' is no flag, and no flag's value (xray train --help lists all flags)$"),
]  # fmt: skip

RECIPES = [
    ("n_epoch: 3", "there is no flag --n-epoch: did you mean --n-epochs? ("),
    ("lr: fast", "--lr takes a number above 0, or auto; it was given 'fast'$"),
    ("lr: [1, 2]", "--lr takes a number above 0, or auto; it was given 2 values: '1' '2'$"),
    ("config: a.yaml", "config is no flag of a recipe: give --config on the command line ("),
    ("é: 3", "there is no flag --é ("),
    ("lr: false", "there is no --no-lr: --lr takes a number above 0, or auto ("),
    ("ema: 3", "--ema is on or off: give true or false, without '3'$"),
    ("encoder: resnet34", "--encoder is a flag of --task segmentation, not of --task detection ("),
]


def check(said, line):
    """line: how it begins; or all of it, where it ends with $."""
    assert said == line[:-1] if line.endswith("$") else said.startswith(line), said
    assert "\n" not in said


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    """As `xray NAME` was typed, of a function that is called with the name and the flags."""
    monkeypatch.setattr("xray.errors._IS_COMMAND", True)

    def typed(name, words=()):
        monkeypatch.setattr(sys, "argv", [f"xray {name}", *words])

    typed("train")
    return typed


@pytest.mark.parametrize(("module", "words", "line"), WRONG, ids=[f"{m.__name__[14:]} {w}" for m, w, _ in WRONG])
def test_commands(module, words, line, typed, capsys):
    typed(module.__name__.rpartition(".")[2], words.split())
    assert command(module.Config, lambda config: pytest.fail("it began")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    check(said.err.removeprefix("error: ").removesuffix("\n"), line)


@pytest.mark.parametrize(("words", "line"), TRAINING)
def test_trainings(words, line):
    with pytest.raises(FlagError) as error:
        read_training_flags(words.split())
    check(str(error.value), line)


@pytest.mark.parametrize(("recipe", "line"), RECIPES)
def test_recipes_are_named(recipe, line, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe + "\n")
    with pytest.raises(UnreadFlagsError) as error:
        read_training_flags(["--momentum", "0.5", "--config", str(path)])
    check(str(error.value), f"{path}: {line}")


def test_what_is_typed_beside_a_recipe_is_not_its_fault(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("lr: 0.1\nlogger: [csv]\n")
    for words in (["--nestrov"], ["--lr", "fast"], ["--ema", "3"]):
        with pytest.raises(UnreadFlagsError) as error:
            read_training_flags(["--config", str(path), *words])
        assert str(error.value).startswith(("there is no flag --nestrov", "--lr takes", "--ema is on"))


@pytest.mark.parametrize("recipe", ["lr: 0.1", "ema: true", "logger: [csv]", "swap: [Left=Right]"])
def test_what_follows_no_flag_is_no_value_of_a_recipe(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe + "\n")
    for words in (["--config", str(path), "mlflow"], ["mlflow", "--config", str(path)]):
        with pytest.raises(UnreadFlagsError) as error:
            read_training_flags(words)
        check(str(error.value), "'mlflow' is no flag, and no flag's value (")


def test_values_of_recipes_may_begin_with_dashes_and_names_may_not(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data_path: -chest --2\nsave_path: --debug\n")
    _, config = read_training_flags(["--config", str(path)])
    assert (config.data_path, config.save_path) == ("-chest --2", "--debug")
    for key in ("--lr", "-lr", "''", "3"):
        path.write_text(f"{key}: 0.1\n")
        with pytest.raises(InputError, match=r"recipe.yaml.* (is no name of a flag|must have one)"):
            read_training_flags(["--config", str(path)])


def test_a_value_may_end_with_an_equals_sign():
    @dataclasses.dataclass
    class Some:
        paths: tuple[Path, ...]
        data_path: Path

    assert parse_flags(Some, ["--paths", "run=", "=", "--data-path=a="]) == Some((Path("run="), Path("=")), Path("a="))
    for words in (["--paths", "a=", ""], ["--paths="], ["--paths", "a", "--data-path", ""]):
        with pytest.raises(FlagError, match=r"^--(paths|data-path) is empty: give a path$"):
            parse_flags(Some, words)


def test_a_stage_and_its_recipe_are_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("n_epochs: 1\nstages:\n- lr: 1\n- lrate: 1\n")
    with pytest.raises(UnreadFlagsError) as error:
        read_training(["--config", str(path)])
    check(str(error.value), f"stage 2: {path}: there is no flag --lrate")


def test_commands_with_flags_of_a_training_know_their_own(typed):
    typed("cv")
    with pytest.raises(UnreadFlagsError) as error:
        read_cv(["--parralel", "2"])
    check(str(error.value), "there is no flag --parralel: did you mean --parallel? (xray cv --help lists all flags)$")
    with pytest.raises(UnreadFlagsError) as error:
        read_cv(["--folds", "0", "one", "--lr", "0.1"])
    check(str(error.value), "--folds takes whole numbers from 0 to 99; it was given 'one'$")
    with pytest.raises(FlagError) as error:
        read_cv(["--folds", "0", "--folds", "1"])
    check(str(error.value), "--folds is given 2 times: give all its values after one --folds$")
    assert read_sweep(["--min_lr", "1e-5", "--lr", "1"])[0].min_lr == 1e-5
    with pytest.raises(FlagError) as error:
        read_sweep(["--n_steps", "many"])
    check(str(error.value), "--n-steps takes a whole number; it was given 'many'$")


def test_debug_shows_no_traceback_of_a_mistyped_flag(capsys):
    assert run_command(lambda: read_training_flags(["--n-epoch", "3"]), debug=True) == 2
    assert capsys.readouterr().err.startswith("error: there is no flag --n-epoch")


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("xray convert", "xray convert"),
        ("/home/a/tools/convert.py", "python tools/convert.py"),
        ("xray/train.py", "python xray/train.py"),
        ("tools/benchmark.py train", "python tools/benchmark.py train"),
    ],
)
def test_a_command_is_spelled_as_it_was_typed(started, shown, monkeypatch):
    monkeypatch.setattr("xray.errors._IS_COMMAND", False)
    monkeypatch.setattr(sys, "argv", [started])
    assert wrong.program() == shown


@pytest.mark.parametrize("broken", [lambda *args: "", lambda *args: 1 / 0])
def test_what_is_not_understood_is_said_in_tyros_words(broken, monkeypatch):
    monkeypatch.setattr(flags, "explain", broken)
    with pytest.raises(UnreadFlagsError) as error:
        read_training_flags(["--n-epoch", "3"])
    said = " ".join(str(error.value).split())
    assert said.startswith("Unrecognized options")
    assert "--n-epochs INT" in said
    assert not set("│─╭\x1b") & set(said)


def test_a_long_value_is_cut():
    with pytest.raises(UnreadFlagsError) as error:
        read_training_flags(["--lr", "x" * 5000])
    assert len(str(error.value)) < 150


# ---- types

KINDS = {
    "a whole number from 1": (Count, 1),
    "a whole number from 1, or auto": (CountOrAuto, 1),
    "a number above 0": (Positive, 1),
    "a number from 0 and below 1": (ShareBelowOne, 1),
    "a whole number from 0 to 99, or auto, val or all": (FoldNumber | Literal["auto", "val", "all"], 1),
    "whole numbers from 0 to 99": (tuple[FoldNumber, ...], None),
    "numbers, or auto": (tuple[float, ...] | Literal["auto"], None),
    "3 numbers": (tuple[float, float, float], 3),
    "2 paths": (tuple[Path, Path] | None, 2),
    "a or b": (Literal["a", "b"], 1),
    "1 or 3": (Literal[1, 3], 1),
    "any of a, b": (tuple[Literal["a", "b"], ...], None),
    "a text": (str | None, 1),
    "nothing, or on, x or off": (Annotated[bool | Literal["x"], alone_or_one_of("on", "x")], None),
}


@pytest.mark.parametrize("words", KINDS)
def test_types_in_words(words):
    kind, count = KINDS[words]
    assert in_words(kind) == words
    assert n_values(kind) == count


@settings(max_examples=150)
@given(
    st.sampled_from(list(KINDS)),
    st.lists(
        st.sampled_from(["0", "1", "-1", "1.5", "nan", "-inf", "1e3", "auto", "val", "a", "b", "x", "on", "3", " "])
    ),
)
def test_values_fit_where_tyro_takes_them(words, values):
    kind, count = KINDS[words]
    made = dataclasses.make_dataclass("Made", [("flag", kind)])
    said = ""
    try:
        parse_flags(made, ["--flag", *values])
    except UnreadFlagsError as error:
        said = str(error)
    assert not said or said.startswith("--flag ")
    if values and (count is None or len(values) == count):
        assert fits(kind, values) is (said == "")


def test_a_flag_given_twice_counts_the_last_time():
    @dataclasses.dataclass
    class Some:
        number: int
        names: tyro.conf.UseAppendAction[tuple[str, ...]] = ()

    assert parse_flags(Some, ["--number", "1", "--number", "2", "--names", "a", "--names", "b"]) == Some(2, ("a", "b"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gpu", "; did you mean cuda?"), ("GPU:1", "; did you mean cuda?"), ("CUDA", "; did you mean cuda?"),
        ("nvidia", "; did you mean cuda?"), ("cup", "; did you mean cpu?"), ("mps", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_others_call_a_device(given, words):
    assert about_device(given) == words
