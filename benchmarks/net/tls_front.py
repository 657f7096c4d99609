"""TLS 1.3 in front of a server that speaks plain HTTP, as a reverse proxy does it.

The certificate is made with openssl for one run and trusted by its clients through
``SSL_CERT_FILE``.
"""

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

CHUNK_BYTES = 256 << 10


def why_not() -> str | None:
    """Why no certificate can be made here, or None."""
    return None if shutil.which("openssl") else "needs the openssl program to make a certificate"


def make_certificate(directory: Path, address: str) -> tuple[Path, Path]:
    """A certificate for ``address`` that signs itself, and its key, valid for two days.

    Raises ``subprocess.CalledProcessError`` when openssl fails.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={address}"),
            *("-addext", f"subjectAltName=IP:{address}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TlsFront:
    """Listens with TLS on ``host`` and passes every connection on to a port on loopback.

    ``congestion_control`` empty leaves it to the system.
    """

    def __init__(
        self, host: str, target_port: int, certificate: Path, key: Path, congestion_control: str
    ) -> None:
        self.port = 0
        self._host, self._target_port = host, target_port
        self._congestion_control = congestion_control
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(certificate, key)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on any free port, ``port`` from then on."""
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self._congestion_control:  # connections inherit it
            name = self._congestion_control.encode()
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        listening.bind((self._host, 0))
        self._server = await asyncio.start_server(
            self._serve, sock=listening, ssl=self._context, limit=CHUNK_BYTES
        )
        self.port = listening.getsockname()[1]

    async def stop(self) -> None:
        """Listen no more; what is open ends with its peers."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(
            "127.0.0.1", self._target_port, limit=CHUNK_BYTES
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inner_writer))
                group.create_task(_copy(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()
    except (OSError, ssl.SSLError):
        writer.close()  # either end may hang up at any time
