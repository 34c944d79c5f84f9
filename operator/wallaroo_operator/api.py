"""The API server, as far as the operator needs it: a few requests, objects as plain dicts.

How to log in is what kopf finds; the token of a service account is read again now and then, for it
is exchanged every hour.
"""

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

import aiohttp
import kopf

from wallaroo_operator import names

Json = dict[str, Any]

#: Seconds for which a token is taken as it was read, and in which a request must be answered.
_TOKEN, _PATIENCE = 60.0, 30.0

_PLURALS = {
    "WallarooApp": names.PLURAL,
    "StatefulSet": "statefulsets",
    "Service": "services",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "Pod": "pods",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Event": "events",
}


class _Login(kopf.ConnectionInfo):
    """How to reach the API server, whose authority need not say all that Python 3.13 asks for.

    Certificates of many clusters lack extensions that it demands by default; clients in Go demand
    none of them. All else is verified.
    """

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def log_in(**about: Any) -> kopf.ConnectionInfo | None:
    """As a pod, or with a kubeconfig where it runs on somebody's desk; None if there is neither."""
    found = kopf.login_with_service_account(**about) or kopf.login_with_kubeconfig(**about)
    if found is None:
        return None
    return _Login(**{each.name: getattr(found, each.name) for each in fields(found)})


class Refused(Exception):
    """The API server did not do it; `code` is that of HTTP."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code

    @property
    def conflict(self) -> bool:
        """Whether what was decided on has changed: decide again."""
        terminated = self.code == 403 and "being terminated" in str(self)  # the namespace
        return self.code in {404, 409} or terminated

    @property
    def final(self) -> bool:
        """Whether a person must do something about it: it is not a server in trouble."""
        return self.code in {400, 403, 405, 413, 422}


def path(api: str, kind: str, namespace: str, name: str = "") -> str:
    """Where objects are."""
    root = "/api/v1" if api == "v1" else f"/apis/{api}"
    found = f"{root}/namespaces/{namespace}/{_PLURALS[kind]}"
    return f"{found}/{name}" if name else found


class Api:
    """The API server."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._server = ""
        self._token: str | None = None
        self._read_at = 0.0
        #: Requests so far, by method.
        self.requests: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        info = self._log_in()
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        connector = aiohttp.TCPConnector(ssl=info.as_ssl_context(), limit=16)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()

    def _log_in(self) -> kopf.ConnectionInfo:
        info = log_in(settings=kopf.OperatorSettings())
        if info is None:
            raise kopf.LoginError("neither a service account nor a kubeconfig is there")
        self._server = info.server.rstrip("/")
        self._token, self._read_at = info.token, time.monotonic()
        return info

    async def request(
        self,
        method: str,
        where: str,
        body: Any = None,
        *,
        content: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Ask. Raises `Refused`; TimeoutError and aiohttp.ClientError if there is no answer."""
        assert self._session
        if self._token and time.monotonic() > self._read_at + _TOKEN:
            self._log_in()
        headers = {"Content-Type": content, "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self.requests[method] = self.requests.get(method, 0) + 1
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(
            method, self._server + where, data=data, headers=headers, params=query
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                if answer.status == 401:
                    self._read_at = 0.0
                raise Refused(answer.status, _message(text))
            found: Json = json.loads(text)
            return found

    async def get(self, api: str, kind: str, namespace: str, name: str) -> Json | None:
        """An object; None if it is not there."""
        try:
            return await self.request("GET", path(api, kind, namespace, name))
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    async def list(self, api: str, kind: str, namespace: str, selector: str) -> list[Json]:
        """The objects with these labels."""
        query = {"labelSelector": selector}
        found = await self.request("GET", path(api, kind, namespace), query=query)
        items: list[Json] = found["items"]
        return [{"apiVersion": api, "kind": kind, **each} for each in items]

    async def apply(self, manifest: Json, resource_version: str, subresource: str = "") -> Json:
        """Server-side apply; only if the object is of this version, or not there for ""."""
        meta = manifest["metadata"]
        # Of an object that is to be made none can be of this version: it is made, or 409.
        version = resource_version or "1"
        body = {**manifest, "metadata": {**meta, "resourceVersion": version}}
        where = path(manifest["apiVersion"], manifest["kind"], meta["namespace"], meta["name"])
        return await self.request(
            "PATCH",
            f"{where}/{subresource}" if subresource else where,
            body,
            content="application/apply-patch+yaml",
            query={"fieldManager": names.MANAGER, "force": "true"},
        )

    async def create(self, manifest: Json) -> Json:
        """Make an object."""
        meta = manifest["metadata"]
        where = path(manifest["apiVersion"], manifest["kind"], meta["namespace"])
        return await self.request("POST", where, manifest, query={"fieldManager": names.MANAGER})

    async def delete(
        self, api: str, kind: str, namespace: str, name: str, uid: str, resource_version: str
    ) -> None:
        """Delete this very object, in this version if one is named."""
        conditions = {"uid": uid}
        if resource_version:
            conditions["resourceVersion"] = resource_version
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": conditions,
            "propagationPolicy": "Background",
        }
        await self.request("DELETE", path(api, kind, namespace, name), body)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
