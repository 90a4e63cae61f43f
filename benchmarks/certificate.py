"""A certificate for 127.0.0.1, created for one run."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """PEM files.

    Attributes:
        authority: The certificate authority that clients must trust.
        chain: The server's certificate; its key is on the curve P-256.
        key: Its private key.
    """

    authority: Path
    chain: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> "Certificate":
        """Write the files into a directory."""
        made = cls(directory / "authority.pem", directory / "chain.pem", directory / "key.pem")
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(made.authority))
        certificate.private_key_pem.write_to_path(str(made.key))
        made.chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        return made
