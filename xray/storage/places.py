"""The flags of a command that name s3:// addresses, made into folders and files of this machine while it runs.

A command never sees an address, except in flags that it asks to keep; its messages name addresses all the same.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TextIO

from xray.errors import InputError, UnreadFlagsError
from xray.file_names import ANNOTATIONS, CONVERSION, IMAGES
from xray.flags import flag_value
from xray.storage.addresses import address_of, is_remote
from xray.storage.dicomweb.addresses import is_dicomweb, resource_of

if TYPE_CHECKING:
    from xray.radiographs.file_warnings import FileWarning
    from xray.storage.dicomweb.retrieval import Retrieved
    from xray.storage.mirror import Mirror
    from xray.storage.staging import Staging

STORE = (ANNOTATIONS, IMAGES, CONVERSION)
BESIDE_PREDICTIONS = ["../probabilities.npy", "../probabilities.json"]
BESIDE_VALIDATION = ["../../metrics.csv", "../../model.json"]

_addresses: dict[str, str] = {}
"""Folder or file of this machine → the address it stands for."""


_retrieved: "dict[str, Retrieved]" = {}
"""Folder of this machine → what it holds of an archive."""


def remote_fields(config: Any, stay: Collection[str] = ()) -> list[str]:
    """Names of a config's fields that hold an address, except those in `stay`. Raises FlagError for a bad one."""
    return [
        field.name
        for field in (dataclasses.fields(config) if dataclasses.is_dataclass(config) else ())
        if field.name not in stay
        and (is_of_archive(field.name, config) or any(map(is_remote, _values(getattr(config, field.name)))))
    ]


def is_of_archive(field: str, config: Any) -> bool:
    """Whether a flag names what a DICOMweb service has. Raises FlagError for what is none of its addresses."""
    if field != "data_path" or not hasattr(config, "dicomweb_auth") or not is_dicomweb(config.data_path):
        return False
    return bool(resource_of("data-path", config.data_path))


def is_from_archive(path: Path) -> bool:
    """Whether a data path stands for a part of an archive."""
    return str(path) in _retrieved


def not_retrieved(path: Path) -> "tuple[list[tuple[str, str]], list[FileWarning]]":
    """Of a data path that stands for a part of an archive: (name, reason) of what failed, and what was left out."""
    retrieved = _retrieved.get(str(path))
    return ([], []) if retrieved is None else (retrieved.failures, retrieved.warnings)


def as_given(path: str | PurePath) -> str:
    """A path as the user gave it: an address where the path stands for one, or lies below one that does."""
    text = str(path)
    for local, address in _addresses.items():
        if text == local or text.startswith(local + "/"):
            return address + text[len(local) :]
    return text


def run_here(
    main: Callable[[Any], int | None],
    config: Any,
    check: Callable[[Any], object] | None = None,
    check_out: Callable[[Any], object] | None = None,
    stay: Collection[str] = (),
    is_first: bool = True,
) -> int | None:
    """`main(config)` with folders of this machine in place of addresses; what it wrote is uploaded.

    check: raises InputError for flags that cannot be used, before anything is downloaded. check_out: the same for what
    `config.save_path` holds, before any input is. stay: names of fields that keep their address. is_first: False for
    the other processes of a training over several, of which the first uploads.
    Raises InputError where something cannot be had, or not be uploaded.
    """
    if not (names := remote_fields(config, stay)):
        return main(config)
    if check is not None:
        check(config)
    with localizing(is_first) as places:
        outputs = [name for name in names if is_written(name, config)]
        config = places.localized(config, outputs)
        if (status := places.left_over()) is not None:
            return status
        if check_out is not None:
            check_out(config)
        return places.run(main, places.localized(config, [name for name in names if name not in outputs]))


def run_training(
    read: Callable[[Sequence[str]], tuple[Any, ...]],
    main: Callable[..., int | None],
    check_out: Callable[[Any], object] | None = None,
    is_first: bool = True,
) -> int | None:
    """`main(*read(flags))`, of which the second is the config, like `run_here`.

    A run that is resumed is brought here before `read` looks for its config.yaml.
    """
    args = sys.argv[1:]
    save_path = flag_value(args, "save-path") or ""
    if "--resume" not in args or not is_remote(save_path):
        first, config, *rest = read(args)
        return run_here(lambda config: main(first, config, *rest), config, check_out=check_out, is_first=is_first)
    # Flags that do not exist are refused before anything is downloaded; others are checked with the run's config.
    try:
        read([arg for arg in args if arg != "--resume"])
    except UnreadFlagsError:
        raise
    except InputError:
        pass
    with localizing(is_first) as places:
        # Of a flag given twice the last one counts.
        args += ["--save-path", str(places.output(save_path))]
        if (status := places.left_over()) is not None:
            return status
        first, config, *rest = read(args)
        config = places.localized(config, remote_fields(config))
        return places.run(lambda config: main(first, config, *rest), config)


@contextlib.contextmanager
def localizing(is_first: bool = True) -> Iterator["Places"]:
    """What stands on this machine for the addresses of one command, and lets go of it.

    What is printed meanwhile, and what InputErrors say, names addresses in place of the folders that stand for them.
    """
    places = Places(is_first)
    try:
        with contextlib.redirect_stdout(_Renaming(sys.stdout)), contextlib.redirect_stderr(_Renaming(sys.stderr)):
            yield places
    except InputError as error:
        raise type(error)(_renamed(str(error))) from error
    finally:
        for mirror in (*places.outputs, *places.inputs.values(), *places.retrieved):
            _addresses.pop(str(mirror.path), None)
            _retrieved.pop(str(mirror.path), None)
            mirror.close()
        for retrieved in places.retrieved:
            retrieved.leave()


class Places:
    """The folders here of one command.

    inputs: address → its mirror. outputs: what is uploaded. retrieved: from archives, deleted when the command is done.
    """

    def __init__(self, is_first: bool = True) -> None:
        self._is_first = is_first
        self.inputs: dict[str, Mirror] = {}
        self.outputs: list[Staging] = []
        self.retrieved: list[Retrieved] = []

    def output(self, value: str | PurePath) -> Path:
        """The folder here for an address that is written to."""
        from xray.storage.staging import Staging

        staging = Staging(address_of(value), self._is_first)
        self.outputs.append(staging)
        staging.bring_down()
        _addresses[str(staging.path)] = staging.address
        return staging.path

    def input(self, value: str | PurePath, field: str) -> Path:
        """The folder or file here for an address that is read by the flag of this name."""
        from xray.storage.mirror import Mirror, bring_input

        address = address_of(value)
        mirror = self.inputs.setdefault(address, Mirror(address, "in"))
        bring_input(mirror, lambda name, names: is_wanted(field, name, names), lambda one: beside(field, address, one))
        _addresses[str(mirror.path)] = address
        return mirror.path

    def from_archive(self, config: Any) -> str:
        """The folder here for the part of an archive that the data path of a command names."""
        from xray.storage.dicomweb.client import Client
        from xray.storage.dicomweb.credentials import credentials_of
        from xray.storage.dicomweb.retrieval import Retrieved

        retrieved = Retrieved(resource_of("data-path", config.data_path))
        urls = [config.data_path, *([config.return_to] if config.return_to else [])]
        with Client(credentials_of(config.dicomweb_auth, urls), config.ca, config.dicomweb_timeout) as client:
            self.retrieved.append(retrieved)
            retrieved.bring(client)
        _addresses[str(retrieved.path)] = retrieved.address
        _retrieved[str(retrieved.path)] = retrieved
        return str(retrieved.path)

    def localized(self, config: Any, names: Sequence[str]) -> Any:
        """The config with folders and files of this machine in these fields."""

        def local(value: Any, name: str) -> Any:
            if isinstance(value, tuple | list):
                return type(value)(local(one, name) for one in value)
            if not is_remote(value):
                return value
            return type(value)(self.output(value) if is_written(name, config) else self.input(value, name))

        if "data_path" in names and is_of_archive("data_path", config):
            config = dataclasses.replace(config, data_path=self.from_archive(config))
            names = [name for name in names if name != "data_path"]
        return dataclasses.replace(config, **{name: local(getattr(config, name), name) for name in names})

    def left_over(self) -> int | None:
        """Uploads what a command before had not; its status where it was this very one."""
        statuses = [staging.left_over() for staging in self.outputs]
        return next((status for status in statuses if status is not None), None)

    def run(self, main: Callable[[Any], int | None], config: Any) -> int:
        """Runs a command, uploading meanwhile and at its end."""
        for staging in self.outputs:
            staging.start()
        try:
            status = int(main(config) or 0)
        except BaseException as error:
            self._ended(error)
            raise
        try:
            for staging in self.outputs:
                staging.finish(status)
        except KeyboardInterrupt as error:
            self._ended(error)
            raise
        for retrieved in self.retrieved:
            retrieved.remove()
        return status

    def _ended(self, error: BaseException) -> None:
        """Uploads what a command that failed had done; if it is to end at once, only says that some is missing."""
        for staging in self.outputs:
            staging.stop()
            if isinstance(error, Exception):
                with contextlib.suppress(InputError):
                    staging.push(is_last=True)
            if staging.lacks():
                print(
                    f"{staging.address} lacks what was done last: the same command goes on from here, and uploads it",
                    file=sys.stderr,
                )


def is_written(field: str, config: Any) -> bool:
    """Whether a command writes to what this flag names."""
    # tools/refine.py, which takes --masks, puts what it has fitted into the run; an export or a card may go there, too.
    may_go_there = hasattr(config, "format") or hasattr(config, "notes")
    into_run = hasattr(config, "masks") or (may_go_there and config.save_path is None)
    return field in ("save_path", "fit") or (field == "weights" and into_run)


def is_wanted(field: str, name: str, names: Collection[str]) -> bool:
    """Whether a command reads this one of the files at the address of a flag. field: the flag's name in the config."""
    if name == "":
        return True
    suffix = PurePath(name).suffix
    if field == "weights":
        return "/" not in name and suffix in (".json", ".yaml", ".safetensors", ".onnx", ".data")
    if field in ("run", "compare", "predictions", "masks"):
        return suffix in (".json", ".csv", ".npy") and not name.startswith("dataset/")
    if {ANNOTATIONS, IMAGES} <= set(names):
        return name in STORE
    return True


def beside(field: str, address: str, is_file: bool) -> list[str]:
    """Names, relative to the address of a flag, of objects around it that commands use."""
    if field in ("predictions", "compare", "masks") and is_file:
        return BESIDE_PREDICTIONS + (BESIDE_VALIDATION if address.split("/")[-2] == "validation" else [])
    return ["../sample_submission.csv"] if field == "data_path" and not is_file else []


class _Renaming:
    """A stream that writes addresses in place of the folders that stand for them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(_renamed(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _renamed(text: str) -> str:
    for local, address in _addresses.items():
        text = text.replace(local, address)
    return text


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]
