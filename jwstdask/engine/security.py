"""Keys by which the parties of a cluster know each other, and the folder where they lie.

Dask runs the code that it is sent: who reaches a scheduler over plain TCP is its user. Loopback is no protection from
other users of the machine. So all parties of a cluster have one key, which is made anew for every run, and talk TLS
with certificates on both sides.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from jwstdask.core.errors import ClusterError
from jwstdask.io.temporary import sweep, temporary_path

if TYPE_CHECKING:
    from distributed import Security

_DAYS = 365


def new_keys() -> tuple[str, str]:
    """A certificate that signs itself, and its key, as text (PEM).

    On the elliptic curve P-256, as fast to make as to ask for: a run on a laptop starts no later for it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jwstdask")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of a cluster may differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def tls_settings(certificate: str, key: str, authority: str | None = None) -> dict[str, object]:
    """Settings of Dask for all parties, from text (PEM) or paths of files; the certificate vouches for itself."""
    found: dict[str, object] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": authority or certificate,
    }
    for party in ("client", "scheduler", "worker"):
        found[f"distributed.comm.tls.{party}.cert"] = certificate
        found[f"distributed.comm.tls.{party}.key"] = key
    return found


def security_of(certificate: str, key: str, authority: str | None = None) -> Security:
    """The same for objects of Dask."""
    import dask
    from distributed import Security

    with dask.config.set(tls_settings(certificate, key, authority)):
        return Security()


class PrivateFolder:
    """A folder of a run for keys and logs, which only its user may read (0700; files 0600).

    It is removed when the run ends. What a run left that was killed, the next one removes.

    Parameters
    ----------
    base
        A folder that all machines of the cluster see; made if need be.

    Raises
    ------
    ClusterError
        If the folder cannot be made.
    """

    def __init__(self, base: str) -> None:
        folder = Path(os.path.expandvars(os.path.expanduser(base))).absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep([str(folder)])
            self.path = Path(temporary_path(folder / "cluster"))
            self.path.mkdir(mode=0o700)
        except OSError as error:
            raise ClusterError(
                f"the folder for keys cannot be made: {error}", "name a shared_folder that all machines see"
            ) from error

    def write(self, name: str, text: str) -> str:
        """Write a new file, and say where it is."""
        path = self.path / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return str(path)

    def write_keys(self) -> tuple[str, str]:
        """Make keys; paths of the certificate and of the key."""
        certificate, key = new_keys()
        return self.write("certificate.pem", certificate), self.write("key.pem", key)

    def remove(self) -> None:
        """Remove the folder and what is in it; and the keys even if more cannot be removed."""
        shutil.rmtree(self.path, ignore_errors=True)
        # What still writes its log makes the folder anew: keys are gone all the same.
        with contextlib.suppress(OSError):
            os.unlink(self.path / "key.pem")
