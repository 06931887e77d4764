"""Objects in S3 and what speaks its language: addresses, listings, and single objects, each whole or not there.

An address is `s3://bucket/key…`. Endpoint, region and credentials come from where AWS's own tools look for them:
AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE and their like.

Messages repeat the address that was given and no name below it: object names may name a patient.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from xray.errors import InputError, is_disk_full, need
from xray.files import complete
from xray.storage.addresses import address_of, below, is_file_name, split_address

N_THREADS = 16
"""Requests under way at once."""
CONNECT_SECONDS, READ_SECONDS, N_ATTEMPTS = 5, 20, 3
"""How long an address may keep silent, and how often it is asked."""
SLOWEST = 100_000
"""Bytes a second of an upload that is waited for."""
CHUNK = 2**20
PART_BYTES = 16 * 2**20
"""Larger objects go up in parts of this size."""
MAX_PARTS = 10_000

_DENIED = ("AccessDenied", "AllAccessDisabled", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_OVERWHELMED = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504")
_NETWORK = (
    "aiohttp.ClientError", "botocore.HTTPClientError", "botocore.ConnectionError", "botocore.IncompleteReadError",
    "botocore.ResponseParserError",
)  # fmt: skip
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """An object below an address. name: with / between folders, "" for the address itself; modified: seconds (UNIX)."""

    name: str
    size: int
    etag: str
    modified: float = 0.0


def list_files(address: str) -> list[RemoteFile]:
    """All objects at and below an address, by name; empty where there are none.

    Left out, with a line on stderr that says how many, are those that could not be files below a folder: named through
    "..", with empty parts, backslashes or control characters, too long, or like a folder of others.
    Raises InputError where the bucket cannot be listed.
    """
    address = address_of(address)
    bucket, key = split_address(address)
    found: dict[str, RemoteFile] = {}
    n_left_out = 0
    with clearly(address):
        pages = _pages(bucket, key + "/" if key else "")
        for entry in (entry for page in pages for entry in page.get("Contents", ())):
            name = entry["Key"][len(key) + 1 :] if key else entry["Key"]
            if not name or name.endswith("/"):
                # What consoles make of an empty folder.
                continue
            if is_file_name(name):
                found[name] = _remote_file(name, entry)
            else:
                n_left_out += 1
        if key and not found:
            # Of all that begins with the key it is the first.
            page = _call("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
            if page.get("Contents") and page["Contents"][0]["Key"] == key:
                return [_remote_file("", page["Contents"][0])]
    folders = {name[:end] for name in found for end, mark in enumerate(name) if mark == "/"}
    kept = [file for name, file in sorted(found.items()) if name not in folders]
    if n_left_out := n_left_out + len(found) - len(kept):
        print(f"{address}: {n_left_out} objects are left out, their names cannot be those of files", file=sys.stderr)
    return kept


def fetch(address: str, to: Path) -> None:
    """Downloads one object to the file `to`, which is there as a whole or as it was before.

    Raises InputError where it cannot be had, or changes on the way.
    """
    address = address_of(address)
    bucket, key = split_address(address)
    with clearly(address):
        head = _call("head_object", Bucket=bucket, Key=key)
        file = RemoteFile("", head["ContentLength"], head["ETag"])
        with complete(Path(to)) as temporary:
            temporary.unlink(missing_ok=True)
            download(address, file, temporary)


def download(address: str, file: RemoteFile, part: Path, add: Callable[[int], None] = lambda n_bytes: None) -> None:
    """Brings an object of a listing to the file `part`, going on after the bytes that are there already.

    add: told of each number of bytes that came. Raises InputError if the object is not that of the listing any more;
    for other errors see `clearly`.
    """
    bucket, key = below(address, file.name)
    with part.open("ab") as out:
        if out.tell() > file.size:
            out.truncate(0)
        # Each attempt that brings something may be followed by others.
        left = N_ATTEMPTS
        while out.tell() < file.size or file.size == 0:
            before = out.tell()
            try:
                _in_loop(_stream, bucket, key, file.etag, before, out, add)
                if out.tell() == file.size:
                    break
                raise ConnectionError("the answer was cut short")
            except Exception as error:
                out.flush()
                if _code(error) in ("PreconditionFailed", "412", "NoSuchKey", "404", "InvalidRange", "416"):
                    raise _gone(address) from error
                left = N_ATTEMPTS if out.tell() > before else left - 1
                if out.tell() > file.size:
                    raise _gone(address) from error
                if not left or not _is_passing(error):
                    raise
                time.sleep(0.2 * 2 ** (N_ATTEMPTS - left))


def upload(
    address: str, name: str, file: BinaryIO, size: int, note: Callable[[str], None] = lambda upload_id: None
) -> str:
    """Puts the first `size` bytes of an open file at a name below an address → the object's ETag.

    It appears as a whole or not at all; of one in parts that fails, the parts are deleted.
    note: told the id of an upload in parts before the first, so that whoever is killed can have it deleted later.
    """
    bucket, key = below(address, name)
    place = {"Bucket": bucket, "Key": key}
    if size <= PART_BYTES:
        return str(_call("put_object", **place, Body=os.pread(file.fileno(), size, 0))["ETag"])
    length = max(PART_BYTES, -(-size // MAX_PARTS))
    place["UploadId"] = _call("create_multipart_upload", **place)["UploadId"]
    note(place["UploadId"])

    def put(number: int) -> dict[str, Any]:
        body = os.pread(file.fileno(), min(length, size - number * length), number * length)
        done = _call("upload_part", **place, PartNumber=number + 1, Body=body)
        return {"PartNumber": number + 1, "ETag": done["ETag"]}

    try:
        parts = list(in_threads(put, range(-(-size // length)), 4))
        done = _call("complete_multipart_upload", **place, MultipartUpload={"Parts": parts})
    except Exception:
        abort(address, name, place["UploadId"])
        raise
    return str(done["ETag"])


def try_to_write(address: str) -> None:
    """Raises what an upload to below an address would, without leaving anything there."""
    bucket, key = below(address, "upload.part")
    upload_id = _call("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
    abort(address, "upload.part", upload_id)


def abort(address: str, name: str, upload_id: str) -> None:
    """Deletes the parts of an upload that was not completed, where that can be done."""
    bucket, key = below(address, name)
    with contextlib.suppress(Exception):
        _call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)


def delete(address: str, name: str) -> None:
    """Deletes the object of that name below an address; one that is not there is no error."""
    bucket, key = below(address, name)
    _call("delete_object", Bucket=bucket, Key=key)


def is_there(address: str) -> RemoteFile | None:
    """The object at an address, None where there is none or it may not be looked at."""
    bucket, key = split_address(address)
    try:
        head = _call("head_object", Bucket=bucket, Key=key)
    except Exception:
        return None
    return RemoteFile("", head["ContentLength"], head["ETag"], head["LastModified"].timestamp())


@contextlib.contextmanager
def clearly(address: str, to: str = "read") -> Iterator[None]:
    """Makes one clear InputError of whatever goes wrong between this machine and an address.

    to: what was tried, "read" or "write".
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_disk_full(error) or (told := _explained(error, address, to)) is None:
            raise
        raise InputError(told) from error


def in_threads(act: Callable[[Any], Any], items: Any, n_threads: int = N_THREADS) -> Iterator[Any]:
    """`map` over threads, results as the items are ordered; after an error, or Ctrl-C, nothing more is begun."""
    pool = concurrent.futures.ThreadPoolExecutor(n_threads, "s3")
    try:
        yield from pool.map(act, items)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _explained(error: Exception, address: str, to: str) -> str | None:
    """What to say of an error; None where it has nothing to do with the network or with S3."""
    code, (bucket, _) = _code(error), split_address(address)
    if _kinds(error) & {
        f"botocore.{name}" for name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
    }:
        return f"no credentials for {address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if code == "NoSuchBucket" or (code == "404" and to == "write"):
        return f"there is no bucket {bucket} for {address}: check its name, or make it"
    if code in ("NoSuchKey", "404"):
        return f"there is nothing at {address}: check the address"
    if code in _DENIED or isinstance(error, PermissionError):
        return f"no permission to {to} {address} ({code or 'denied'}): ask for it, or use other credentials"
    if code in _ELSEWHERE:
        return f"the bucket of {address} is in another region ({code}): set AWS_REGION to it"
    if _is_passing(error):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        return (
            f"{address} does not answer ({type(error).__name__}, asked at {endpoint}): check the network and "
            "AWS_ENDPOINT_URL, then give the same command again"
        )
    if code or "botocore.BotoCoreError" in _kinds(error):
        return f"{address} cannot be {'written' if to == 'write' else 'read'} ({code or type(error).__name__})"
    return None


def _gone(address: str) -> InputError:
    return InputError(
        f"an object at {address} was changed or deleted while it was being read: give the same command again"
    )


def _code(error: BaseException) -> str:
    """What S3 called an error, "" where it was not S3 that said so."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _is_passing(error: Exception) -> bool:
    """Whether it may be over when it is tried again: silence, a line that was cut, a server that is overwhelmed."""
    return isinstance(error, ConnectionError | TimeoutError) or _is_cut(error) or _code(error) in _OVERWHELMED


def _is_cut(error: Exception) -> bool:
    return not _kinds(error).isdisjoint(_NETWORK)


def _kinds(error: Exception) -> set[str]:
    """The classes of an error, as package.name: those of what s3fs is made of need not be imported for it."""
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}


def _remote_file(name: str, entry: dict[str, Any]) -> RemoteFile:
    return RemoteFile(name, int(entry["Size"]), str(entry["ETag"]), entry["LastModified"].timestamp())


def _pages(bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        page = _call("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


async def _stream(bucket: str, key: str, etag: str, begin: int, out: BinaryIO, add: Callable[[int], None]) -> None:
    rest = {"Range": f"bytes={begin}-"} if begin else {}
    answer = await _system()._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=etag, **rest)
    try:
        while chunk := await answer["Body"].read(CHUNK):
            out.write(chunk)
            add(len(chunk))
    finally:
        answer["Body"].close()


def _call(method: str, **what: Any) -> dict[str, Any]:
    # A server that takes a request and does not read it to its end would be waited for without this.
    patience = N_ATTEMPTS * (CONNECT_SECONDS + READ_SECONDS) + len(what.get("Body", b"")) / SLOWEST
    answer: dict[str, Any] = _system().call_s3(method, timeout=patience, **what)
    return answer


def _in_loop(coroutine: Callable[..., Any], *args: Any) -> Any:
    from fsspec.asyn import sync

    return sync(_system().loop, coroutine, *args)


def _system() -> Any:
    # The threads of s3fs do not come along when a process is forked.
    return _made_system(os.getpid())


@functools.cache
def _made_system(process: int) -> Any:
    need("an s3:// address", "remote", "s3fs", "fsspec")
    import s3fs

    system = s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"total_max_attempts": N_ATTEMPTS, "mode": "standard"},
            "max_pool_connections": 2 * N_THREADS,
        },
    )
    # botocore tries again already.
    system.retries = 1
    # Of a line that is cut, aiohttp leaves tasks behind. Whoever waited has been told.
    logging.getLogger("asyncio").addFilter(_is_news)
    return system


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, Exception) and _is_cut(error))
