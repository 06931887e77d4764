"""Addresses of remote objects, `s3://bucket/key…`."""

import posixpath
import re
from pathlib import PurePath

from xray.errors import FlagError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FOREIGN = re.compile(r"(gs|gcs|az|abfss?|adl|https?|ftp|sftp|hdfs|webhdfs|s3a|s3n|oss|file):/", re.IGNORECASE)


def is_remote(value: object) -> bool:
    """Whether a flag's value is the address of remote objects; pathlib makes `s3:/b/k` of `s3://b/k`.

    Raises FlagError for the addresses of other services, and for one that names no bucket.
    """
    if not isinstance(value, str | PurePath):
        return False
    text = value.as_posix() if isinstance(value, PurePath) else value
    if _FOREIGN.match(text):
        raise FlagError(f"{text} cannot be read: of remote data only s3:// addresses can")
    return text.startswith("s3:/") and bool(address_of(text))


def address_of(value: str | PurePath) -> str:
    """`s3://bucket/key` of an address as it was typed, or as pathlib made it; without a slash at its end.

    Raises FlagError if it names no bucket, or if its key holds "..", a backslash or a control character.
    """
    text = value.as_posix() if isinstance(value, PurePath) else value
    bucket, *parts = [part for part in text.removeprefix("s3:").split("/") if part not in ("", ".")] or [""]
    if not _BUCKET.fullmatch(bucket):
        raise FlagError(f"{_CONTROL.sub('?', text)} names no bucket: give s3://bucket/folder")
    if ".." in parts or _CONTROL.search(text) or "\\" in text:
        raise FlagError(f"{_CONTROL.sub('?', text)} is no address: leave out .., backslashes and control characters")
    return "/".join([f"s3://{bucket}", *parts])


def split_address(address: str, name: str = "") -> tuple[str, str]:
    """Bucket and key of an address, or of the object of this name below it or, with .., beside it.

    The key of a whole bucket is empty. Raises FlagError if the name leads out of the bucket.
    """
    bucket, _, key = address_of(address).removeprefix("s3://").partition("/")
    key = posixpath.normpath(posixpath.join(key, name)) if name else key
    if key.split("/")[0] == "..":
        raise FlagError(f"{address} has nothing beside it: give s3://bucket/folder")
    return bucket, key
