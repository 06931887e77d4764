"""Objects in S3 and what speaks its language: listings, and single objects, each whole or not there.

An address is `s3://bucket/key…`. Endpoint, region and credentials come from where AWS's own tools look for them:
AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_PROFILE and their like.

Messages repeat the address that was given and no name below it: object names may name a patient.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from xray.errors import InputError, is_disk_full, need
from xray.radiographs.names import fault_of
from xray.storage.addresses import address_of, split_address

N_THREADS = 16
"""Requests under way at once."""
CONNECT_SECONDS, READ_SECONDS, N_ATTEMPTS = 5, 20, 3
"""How long an address may keep silent, and how often it is asked."""
CHUNK = 2**16
PART_BYTES = 16 * 2**20
"""Larger objects go up in parts of this size."""
MAX_PARTS = 10_000

DENIED = ("AccessDenied", "AllAccessDisabled", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_OVERWHELMED = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307")
_CHANGED = ("PreconditionFailed", "412", "NoSuchKey", "404", "InvalidRange", "416")


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
    listed: dict[str, RemoteFile] = {}
    n_left_out = 0
    with explained(address):
        pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key + "/" if key else "")
        for entry in (entry for page in pages for entry in page.get("Contents", ())):
            name = entry["Key"][len(key) + 1 :] if key else entry["Key"]
            if not name or name.endswith("/"):
                # What consoles make of an empty folder.
                continue
            if fault_of(name) is None:
                listed[name] = _remote_file(name, entry)
            else:
                n_left_out += 1
        if key and not listed:
            # Of all that begins with the key it is the first.
            first = client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents")
            if first and first[0]["Key"] == key:
                return [_remote_file("", first[0])]
    folders = {name[:end] for name in listed for end, mark in enumerate(name) if mark == "/"}
    files = [file for name, file in sorted(listed.items()) if name not in folders]
    if n_left_out := n_left_out + len(listed) - len(files):
        print(f"{address}: {n_left_out} objects are left out, their names cannot be those of files", file=sys.stderr)
    return files


def download(address: str, file: RemoteFile, part: Path, add: Callable[[int], None] = lambda n_bytes: None) -> None:
    """Brings an object of a listing to the file `part`, continuing after the bytes that are there already.

    add: called with each number of bytes that came. Raises InputError if the object has changed since it was listed;
    for other errors see `explained`.
    """
    bucket, key = split_address(address, file.name)
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    with part.open("ab") as out:
        # Each attempt that brings something may be followed by others.
        left = N_ATTEMPTS
        while (begin := out.tell()) < file.size:
            rest = {"Range": f"bytes={begin}-"} if begin else {}
            try:
                body = client().get_object(Bucket=bucket, Key=key, IfMatch=file.etag, **rest)["Body"]
                with contextlib.closing(body):
                    for chunk in body.iter_chunks(CHUNK):
                        out.write(chunk)
                        add(len(chunk))
                if out.tell() < file.size:
                    raise ConnectionError("the answer was cut short")
            except Exception as error:
                if code_of(error) in _CHANGED:
                    raise _gone(address) from error
                left = N_ATTEMPTS if out.tell() > begin else left - 1
                if not left or not _is_passing(error):
                    raise
                time.sleep(0.2 * 2 ** (N_ATTEMPTS - left))
        if begin > file.size:
            raise _gone(address)


def upload(
    address: str, name: str, file: BinaryIO, size: int, note: Callable[[str], None] = lambda upload_id: None
) -> str:
    """Puts the first `size` bytes of an open file at a name below an address → the object's ETag.

    It appears as a whole or not at all; if an upload in parts fails, they are deleted.
    note: gets the id of an upload in parts before the first, so that after a kill the next command can delete them.
    (boto3's own `upload_fileobj` gives neither that id nor the ETag.)
    """
    length = max(PART_BYTES, -(-size // MAX_PARTS))
    place = _place(address, name)

    def body(number: int) -> io.BytesIO:
        # Sent in blocks, each of which may take CONNECT_SECONDS; plain bytes would have to go in one such time.
        return io.BytesIO(os.pread(file.fileno(), min(length, size - number * length), number * length))

    if size <= length:
        return str(client().put_object(**place, Body=body(0))["ETag"])
    place["UploadId"] = client().create_multipart_upload(**place)["UploadId"]
    note(place["UploadId"])

    def put(number: int) -> dict[str, Any]:
        etag = client().upload_part(**place, PartNumber=number + 1, Body=body(number))["ETag"]
        return {"PartNumber": number + 1, "ETag": etag}

    try:
        parts = list(in_threads(put, range(-(-size // length)), 4))
        return str(client().complete_multipart_upload(**place, MultipartUpload={"Parts": parts})["ETag"])
    except Exception:
        abort(address, name, place["UploadId"])
        raise


def try_to_write(address: str) -> None:
    """Raises what an upload to below an address would, without leaving anything there."""
    upload_id = client().create_multipart_upload(**_place(address, "upload.part"))["UploadId"]
    abort(address, "upload.part", upload_id)


def abort(address: str, name: str, upload_id: str) -> None:
    """Deletes the parts of an upload that was not completed, where that can be done."""
    with contextlib.suppress(Exception):
        client().abort_multipart_upload(**_place(address, name), UploadId=upload_id)


def delete(address: str, name: str) -> None:
    """Deletes the object of that name below an address; one that is not there is no error."""
    client().delete_object(**_place(address, name))


def object_at(address: str, name: str) -> RemoteFile | None:
    """The object of this name below an address or, with .., beside it; None where there is none to be seen."""
    try:
        head = client().head_object(**_place(address, name))
    except Exception:
        return None
    return _remote_file(name, head | {"Size": head["ContentLength"]})


@contextlib.contextmanager
def explained(address: str, to: str = "read") -> Iterator[None]:
    """Makes one clear InputError of whatever goes wrong between this machine and an address.

    to: what was tried, "read" or "write".
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_disk_full(error) or (line := _explanation(error, address, to)) is None:
            raise
        raise InputError(line) from error


def in_threads(act: Callable[[Any], Any], items: Any, n_threads: int = N_THREADS) -> Iterator[Any]:
    """`map` over threads, results as the items are ordered; after an error, or Ctrl-C, nothing more is begun."""
    pool = concurrent.futures.ThreadPoolExecutor(n_threads, "s3")
    try:
        yield from pool.map(act, items)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@functools.cache
def client_of(process: int, connect_seconds: float, read_seconds: float, n_attempts: int) -> Any:
    """boto3's client of S3 with these limits, for any thread of a process: its connections must not pass to a fork."""
    need("an s3:// address", "remote", "boto3")
    import boto3
    from botocore.config import Config

    retries = {"total_max_attempts": n_attempts, "mode": "standard"}
    limits = {"connect_timeout": connect_seconds, "read_timeout": read_seconds, "retries": retries}
    return boto3.session.Session().client("s3", config=Config(max_pool_connections=2 * N_THREADS, **limits))


def client() -> Any:
    """The client of this process."""
    return client_of(os.getpid(), CONNECT_SECONDS, READ_SECONDS, N_ATTEMPTS)


def _place(address: str, name: str = "") -> dict[str, Any]:
    bucket, key = split_address(address, name)
    return {"Bucket": bucket, "Key": key}


def _remote_file(name: str, entry: dict[str, Any]) -> RemoteFile:
    return RemoteFile(name, int(entry["Size"]), str(entry["ETag"]), entry["LastModified"].timestamp())


def _explanation(error: Exception, address: str, to: str) -> str | None:
    """What to say of an error; None where it has nothing to do with the network or with S3."""
    from botocore import exceptions

    code, (bucket, _) = code_of(error), split_address(address)
    missing = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    if isinstance(error, missing):
        return f"no credentials for {address}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if code == "NoSuchBucket" or (code == "404" and to == "write"):
        return f"there is no bucket {bucket} for {address}: check its name, or make it"
    if code in ("NoSuchKey", "404"):
        return f"there is nothing at {address}: check the address"
    if code in DENIED:
        return f"no permission to {to} {address} ({code}): ask for it, or use other credentials"
    if code in _ELSEWHERE:
        return f"the bucket of {address} is in another region ({code}): set AWS_REGION to it"
    if _is_passing(error):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        return (
            f"{address} does not answer ({code or type(error).__name__}, asked at {endpoint}): check the network and "
            "AWS_ENDPOINT_URL, then give the same command again"
        )
    if code or isinstance(error, exceptions.BotoCoreError):
        return f"{address} cannot be {'written' if to == 'write' else 'read'} ({code or type(error).__name__})"
    return None


def _gone(address: str) -> InputError:
    return InputError(
        f"an object at {address} was changed or deleted while it was being read: give the same command again"
    )


def code_of(error: Exception) -> str:
    """S3's own code of an error, "" where it does not come from S3."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _is_passing(error: Exception) -> bool:
    """Whether it may be over when it is tried again: silence, a line that was cut, a server that is overwhelmed."""
    from botocore import exceptions, parsers

    network = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
    cut = (ConnectionError, TimeoutError, *network, parsers.ResponseParserError)
    return isinstance(error, cut) or code_of(error) in _OVERWHELMED
