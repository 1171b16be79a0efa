"""The process that looks for drift every so often, and tells when some begins and ends.

Reading the record takes the interpreter for longer than a call does, so it has one of its own. It
is started with one line of JSON on standard input, `DriftOrder`, and ends when that is closed: also
when whoever started it was killed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from onrecord.errors import OnrecordError, RemoteError
from onrecord.insight.baselines import Drifts
from onrecord.insight.drift import DriftRules
from onrecord.outgoing import post
from onrecord.record import baselines
from onrecord.record.baselines import Baseline
from onrecord.record.database import Database
from onrecord.record.deployments import all_deployments
from onrecord.record.model_versions import StoredVersion, get

__all__ = ["DriftWatch", "signature"]

_WINDOW = timedelta(days=1)
_SECONDS = 10.0


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a message, as the Standard Webhooks specification has it.

    It is the HMAC-SHA256 of the id, the time in seconds and the body, joined by full stops.
    """
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class DriftWatch:
    """Looks at the live version of each model, over the last 24 hours.

    What drifts is kept with the baseline. Where that changes, `url` is told, if there is one, in a
    message signed with `secret`; one that does not arrive is sent again the next time. Of several
    servers on one record each may send a message, with the same id.
    """

    def __init__(
        self,
        database: Database,
        reveal: Callable[[bytes], bytes],
        rules: DriftRules,
        *,
        url: str | None,
        secret: str,
    ) -> None:
        self._database = database
        self._drifts = Drifts(database, reveal)
        self._rules = rules
        self._url = url
        self._secret = secret

    def look(self) -> None:
        """Look once; what cannot be looked at, or told, is logged."""
        log = structlog.get_logger("onrecord")
        with self._database.read() as connection:
            live = [it.live_id for it in all_deployments(connection)]
            versions = [get(connection, key) for key in live if key is not None]
        for version in versions:
            try:
                self._look_at(version)
            except RemoteError as error:
                log.warning("drift_webhook was not reached; it is told later", why=str(error))
            except OnrecordError as error:
                log.warning("drift cannot be told", version=str(version), why=str(error))

    def _look_at(self, version: StoredVersion) -> None:
        baseline = self._drifts.baseline(version)
        if baseline is None:
            return
        since = datetime.now(UTC) - _WINDOW
        found = self._drifts.compared(version, baseline, since, None, self._rules)
        told = {it["name"]: it for it in found["features"] + found["scores"]}
        psi = {name: it["psi"] for name, it in told.items() if it["psi"] is not None}
        drifting = sorted(name for name, it in told.items() if it["status"] == "drift")
        before = json.loads(baseline.found).get("drifting", [])
        if drifting != before:
            self._tell(version, baseline, found, before, drifting)
        with self._database.write() as connection:
            text = json.dumps({"psi": psi, "drifting": drifting}, sort_keys=True)
            baselines.set_found(connection, baseline.id, baseline.found, text)

    def _tell(
        self,
        version: StoredVersion,
        baseline: Baseline,
        found: dict[str, Any],
        before: list[str],
        now: list[str],
    ) -> None:
        message = {
            "type": "drift.changed",
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {
                "model": version.name,
                "number": version.number,
                "version": version.version,
                "sha256": version.sha256,
                "status": found["status"],
                "rows": found["rows"],
                "drifting": now,
                "began": sorted(set(now) - set(before)),
                "ended": sorted(set(before) - set(now)),
            },
        }
        structlog.get_logger("onrecord").warning(
            "drift changed", version=str(version), drifting=now, before=before
        )
        if self._url is None:
            return
        body = json.dumps(message).encode()
        change = json.dumps([baseline.id, baseline.found, now]).encode()
        webhook_id = f"drift_{hashlib.sha256(change).hexdigest()[:32]}"
        moment = int(time.time())
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(self._secret, webhook_id, moment, body),
        }
        post(self._url, body, "application/json", seconds=_SECONDS, headers=headers)
