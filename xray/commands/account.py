"""Makes a line for the file of accounts of xray serve --auth. xray account NAME --auth FILE."""

import dataclasses
import getpass
import secrets
import sys
from pathlib import Path

import tyro

from xray.commands.runner import command
from xray.errors import InputError
from xray.serving.accounts import LONGEST, account_line, put_line


@dataclasses.dataclass(frozen=True)
class Config:
    """Makes an account for tools/serve.py --auth: a name with a hashed secret. The secret is read from stdin, asked for
    where that is a terminal, or made with --generate; it stands in no file and no list of processes."""

    name: tyro.conf.Positional[str]
    """Of the account: letters, digits and . _ @ -"""
    auth: Path | None = None
    """File to put the account into, in place of one with its name; by default its line is printed."""
    generate: bool = False
    """Make a secret of 256 bits, such as for a program's bearer token, and print it, once: to stdout with --auth,
    otherwise to stderr beside the line."""
    debug: bool = False
    """Show the traceback of an error."""


def main(config: Config) -> None:
    """Prints the line, or puts it into the file."""
    secret = secrets.token_urlsafe(32) if config.generate else read_secret()
    line = account_line(config.name, secret)
    if config.auth is None:
        print(line)
    else:
        was_there = put_line(config.auth, line)
        done = f"{config.name} {'has a new secret' if was_there else 'was added'}"
        print(f"{config.auth}: {done}; a running server knows within a second", file=sys.stderr)
    if config.generate:
        # On stdout, by itself, where the line of the account is not there.
        print(
            secret if config.auth else f"secret, shown once: {secret}", file=sys.stdout if config.auth else sys.stderr
        )


def read_secret() -> str:
    """The first line of stdin; on a terminal it is asked for twice, and not shown."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline(LONGEST + 2)
        return line.removesuffix("\n").removesuffix("\r")
    secret = getpass.getpass("secret: ")
    if getpass.getpass("again: ") != secret:
        raise InputError("the two are not the same: type it again")
    return secret


def run() -> int:
    """The command; returns its exit status."""
    return command(Config, main)
