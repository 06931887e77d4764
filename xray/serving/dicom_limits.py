"""What a DICOM node gives its peers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a node.

    n_bytes: of one object. seconds: that a message may take to come in, and a peer may be silent between two.
    object_seconds: for one object to come; bytes_per_second: that it has to come with on average, from `seconds` on.
    associations: at the same time, and associations_each from one address; useless_seconds: after which one that has
    brought no object is ended. handshakes: connections that have not asked for an association yet, handshakes_each of
    one address; handshake_seconds: in which they have to. waiting: radiographs that wait for the model, and answers
    that wait to be sent. check_seconds: that a sender waits at most for its compressed pixel data to be looked at.
    attempts: to send an answer; from the second on, each waits twice as long as the one before it, `first_wait` seconds
    at first and 60 at most.
    """

    n_bytes: int = 100 * 2**20
    associations: int = 8
    seconds: float = 30.0
    waiting: int = 16
    attempts: int = 12
    first_wait: float = 1.0
    associations_each: int = 4
    useless_seconds: float = 300.0
    handshakes: int = 32
    handshakes_each: int = 8
    handshake_seconds: float = 5.0
    object_seconds: float = 600.0
    bytes_per_second: int = 16 * 2**10
    check_seconds: float = 8.0
