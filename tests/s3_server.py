"""moto's S3 server on loopback, and a wire to it that can be cut."""

import contextlib
import itertools
import logging
import os
import socket
import threading

DUMMY = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


class S3:
    """A running server; a context manager."""

    def __enter__(self):
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._numbers = itertools.count()
        self.client = boto3.session.Session("test", "test", region_name="us-east-1").client(
            "s3", endpoint_url=self.endpoint
        )
        return self

    def __exit__(self, *exception):
        self._server.stop()

    def environ(self, cache, **more):
        """Variables of the environment for a command that keeps its copies in the folder `cache`."""
        return {**DUMMY, "AWS_ENDPOINT_URL": self.endpoint, "XRAY_CACHE": str(cache)} | more

    def bucket(self):
        """The name of a new bucket."""
        name = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, address, content):
        """Uploads bytes, or all files of a folder."""
        if isinstance(content, bytes):
            bucket, _, key = address.removeprefix("s3://").partition("/")
            self.client.put_object(Bucket=bucket, Key=key, Body=content)
            return
        for path in content.rglob("*"):
            if path.is_file():
                self.put(f"{address}/{path.relative_to(content).as_posix()}", path.read_bytes())

    def objects(self, address):
        """Name below the address → bytes."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        prefix = prefix and f"{prefix}/"
        page = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for entry in page.get("Contents", ())]
        return {key[len(prefix) :]: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def delete(self, address):
        """Deletes one object."""
        bucket, _, key = address.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=key)


class Wire:
    """A port that leads to another one, and is cut after so many bytes of a connection; a context manager.

    down, up: bytes towards the client and towards the server after which a connection is cut; None never cuts.
    n_cuts: so many more connections are cut. answer: bytes that every request gets in place of the server's; b"" says
    nothing. n_down: bytes that came down in all.
    """

    def __init__(self, port, down=None, up=None, n_cuts=0, answer=None):
        self.target, self.down, self.up, self.n_cuts, self.answer = port, down, up, n_cuts, answer
        self.n_down = 0

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.answer is not None:
                    threading.Thread(target=self._say, args=(client,), daemon=True).start()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                for source, sink, is_down in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, sink, is_down), daemon=True).start()

    def _say(self, client):
        with contextlib.suppress(OSError), client:
            while client.recv(2**16):
                if self.answer:
                    client.sendall(self.answer)

    def _pass(self, source, sink, is_down):
        n_passed = 0
        with contextlib.suppress(OSError):
            while content := source.recv(2**14):
                n_passed += len(content)
                limit = self.down if is_down else self.up
                if limit is not None and n_passed > limit and self.n_cuts:
                    self.n_cuts -= 1
                    break
                if is_down:
                    self.n_down += len(content)
                sink.sendall(content)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
