"""How the operator reaches the API server."""

import json
import ssl
from pathlib import Path

import kopf
import pytest

from wallaroo_operator.api import log_in


def test_an_authority_without_extensions_is_trusted_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 would refuse it; many clusters have one."""
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
        "clusters": [{"name": "it", "cluster": {"server": "https://10.0.0.1:6443"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    info = log_in(settings=kopf.OperatorSettings())
    assert info
    assert (info.server, info.token) == ("https://10.0.0.1:6443", "secret")
    context = info.as_ssl_context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
