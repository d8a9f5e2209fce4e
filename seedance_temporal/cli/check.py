"""``check``: check a request before it is paid for, without submitting it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from seedance_temporal.cli.local_files import UNREAD, RequestReader, folder_of
from seedance_temporal.cli.options import AnyPathOption, JsonOption, RequestArgument
from seedance_temporal.cli.output import DONE, out, plain, print_json
from seedance_temporal.cli.runtime import command, open_bucket, read
from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.provider.checks import gs_object, scene
from seedance_temporal.provider.models import KINDS
from seedance_temporal.reference_media import Medium, media_warnings
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from seedance_temporal.storage.bucket import GoogleBucket


@command
async def check(
    file: RequestArgument,
    allow_any_path: AnyPathOption = False,
    as_json: JsonOption = False,
) -> int:
    """Check a request: print its problems, or its cost and the body that would be sent. Submits and spends nothing."""
    settings = Settings.from_environment()
    reader = RequestReader(settings, allow_any_path=allow_any_path)
    request, problems = await asyncio.to_thread(reader.inspect, read(file), folder_of(file))
    local, unfit = await reader.media_of(request)
    checked = _Check(request, problems + unfit, local, settings)
    await checked.read_media()
    if checked.problems:
        raise InvalidRequest(checked.problems)
    if as_json:
        print_json(checked.document())
    else:
        _print(checked.document())
    return DONE


class _Check:
    """The check of one request.

    Args:
        request: The request.
        problems: Those that were found so far.
        local: The media of its local files, by the index of the reference.
        settings: Those of the command.

    Attributes:
        problems: Why it cannot be sent.
        media: The references that could be read.
    """

    def __init__(
        self, request: VideoRequest, problems: list[Problem], local: dict[int, Medium], settings: Settings
    ) -> None:
        self._request = request
        self._settings = settings
        self._local = local
        self._warnings = settings.rules.warnings(request)
        self.problems = problems
        self.media: tuple[Medium, ...] = ()

    async def read_media(self) -> None:
        """Read the references that are not local files, as the provider would."""
        from seedance_temporal.ledger.asset_ids import Assets
        from seedance_temporal.media.references import References

        bucket = await self._bucket()
        unseen = await self._unseen(bucket)
        references = [
            reference.model_copy(update={"url": UNREAD}) if index in unseen else reference
            for index, reference in enumerate(self._request.references)
        ]
        seen = self._request.model_copy(update={"references": tuple(references)})
        findings = await References(bucket, self._settings).examine(seen, self._local)
        self.problems += findings.problems
        self.problems += [Problem(at=each.at, problem=f"{each.problem}; try again later") for each in findings.passing]
        self.media = findings.media
        self._warnings += media_warnings(findings.media)
        if bucket is not None:
            self._warnings += await Assets(bucket, self._settings.seedance_prefix).warnings(seen, findings.media)

    async def _bucket(self) -> GoogleBucket | None:
        """Open the bucket where it is set, and a reference needs it."""
        wanted = any(each.asset_id is not None or gs_object(each.url) for each in self._request.references)
        return await open_bucket(self._settings) if wanted and self._settings.seedance_bucket is not None else None

    async def _unseen(self, bucket: GoogleBucket | None) -> set[int]:
        """Return the references that are not read: they have problems already, or cannot be signed here."""
        known = {
            index
            for index, each in enumerate(self._request.references)
            if self._is_wrong(f"references[{index}]") or each.role not in KINDS
        }
        private = {
            index
            for index, each in enumerate(self._request.references)
            if gs_object(each.url) and index not in self._local
        } - known
        if not private:
            return known
        why = "SEEDANCE_BUCKET is not set" if bucket is None else await bucket.signing_problem()
        if why is None:
            return known
        self._warnings += [f"references[{index}] was not checked here: {why}." for index in sorted(private)]
        return known | private

    def _is_wrong(self, at: str) -> bool:
        return any(problem.at == at or problem.at.startswith(f"{at}.") for problem in self.problems)

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        from seedance_temporal.provider.payload import body_of

        estimated = self._settings.rules.estimate(self._request)
        # A local file becomes an object, whose URL is signed like that of any other.
        urls = [redacted(reference.url.partition("#")[0]) for reference in self._request.references]
        return {
            "job_id": job_id_of(self._request),
            "request_hash": request_hash(self._request),
            "scene": scene(self._request),
            "estimated_tokens": estimated.tokens,
            "estimated_usd": estimated.usd,
            "warnings": self._warnings,
            "sends": body_of(self._request, urls),
            "media": [medium.model_dump(mode="json") for medium in self.media],
        }


def _print(found: dict[str, Any]) -> None:
    sends = dict(found["sends"])
    content = sends.pop("content")
    rows: list[tuple[str, object]] = [("job", found["job_id"]), ("scene", found["scene"]), *sends.items()]
    for item in content:
        value = item["text"] if item["type"] == "text" else f"{item['role']}  {item[item['type']]['url']}"
        rows.append(("sends", value))
    rows += [(f"references[{medium['reference']}]", str(Medium.model_validate(medium))) for medium in found["media"]]
    if found["estimated_usd"] is not None:
        rows.append(("estimate", f"{found['estimated_usd']:.4f} USD at most ({found['estimated_tokens']:,} tokens)"))
    else:
        rows.append(("estimate", "not known beforehand"))
    rows += [("warning", warning) for warning in found["warnings"]]
    for name, value in rows:
        out.print(f"[dim]{name:<26}[/] {plain(str(value))}")
    out.print("No problems found. Nothing was submitted.")
