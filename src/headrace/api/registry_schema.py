"""The documents of the registry: models, versions, aliases, trust, stored files, changes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from headrace.core import errors
from headrace.core.versions import AliasMove as CoreMove
from headrace.core.versions import Event as CoreEvent
from headrace.core.versions import ModelLine, Registration, Summary, TrustGrant
from headrace.core.versions import Version as CoreVersion

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_REF = "fraud@7"


def _without_nul(text: str) -> str:
    """PostgreSQL has no place for it."""
    if "\0" in text:
        raise ValueError("a text must not hold the character NUL")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]


class StoredFile(BaseModel):
    """One file of a version."""

    path: str = Field(description="Relative, with `/`.", examples=["model/fraud.onnx"])
    digest: str = Field(examples=[_DIGEST])
    size: int = Field(ge=0, description="Bytes.")


class SignatureTensor(BaseModel):
    """A typed input or output of a declared signature."""

    name: str
    dtype: str = Field(examples=["FP32"])
    shape: list[int] = Field(description="-1: any size.", examples=[[-1, 30]])
    optional: bool = False
    labels: list[str] | None = None


class DeclaredSignature(BaseModel):
    """Typed inputs and outputs, as whoever pushed the version declared them."""

    inputs: list[SignatureTensor]
    outputs: list[SignatureTensor]
    batchable: bool = True
    columns: bool = False
    streaming: bool = False
    parameters: list[str] = []
    any_inputs: bool = False


class InspectedArtifact(BaseModel):
    """What the model is: found out by this server from its files, never taken from a client."""

    path: str = Field(description="Among the files of the version.", examples=["model/fraud.onnx"])
    format: str = Field(examples=["onnx"])
    runtime: str = Field(examples=["onnx"])
    digest: str = Field(description="Of the file, or of the listing of several.", examples=[_DIGEST])
    code_bearing: bool = Field(description="Loading it runs code of its author.")
    imports: list[str] = Field(description="What unpickling would import.")
    flavor: str | None = Field(description="Of an MLflow folder.")
    attribute: str | None = Field(description="Class in a Python file.")


class Origin(BaseModel):
    """Where a version came from."""

    who: str
    at: float = Field(description="Unix time, seconds.")
    source: str
    git_sha: str | None
    packages: dict[str, str]
    metrics: dict[str, float]
    metadata: dict[str, str]


class Trust(BaseModel):
    """Somebody vouches for the code in an artifact; it counts for every version with the same content."""

    digest: str = Field(examples=[_DIGEST])
    who: str
    at: float = Field(description="Unix time, seconds.")

    @classmethod
    def of(cls, grant: TrustGrant) -> Trust:
        return cls(digest=grant.digest, who=grant.who, at=grant.at)


class Version(BaseModel):
    """A version: immutable, apart from the aliases that point to it and from who trusts it."""

    ref: str = Field(examples=[_REF])
    model: str = Field(examples=["fraud"])
    number: int = Field(examples=[7])
    size: int = Field(description="Bytes of all files.")
    aliases: list[str] = Field(description="Those that point to it now.", examples=[["champion"]])
    trust: Trust | None = Field(description="Who vouches for its code; null: nobody does.")
    runnable: bool = Field(description="It bears no code, or its code is trusted.")
    artifact: InspectedArtifact
    files: list[StoredFile]
    provenance: Origin
    signature: DeclaredSignature | None
    golden: str | None = Field(description="Path of the golden requests among the files.")
    reference: str | None = Field(description="Path of the reference data among the files.")

    @classmethod
    def of(cls, version: CoreVersion, aliases: list[str], grant: TrustGrant | None) -> Version:
        return cls.model_validate(
            {
                **msgspec.to_builtins(version.draft),
                "ref": version.ref,
                "number": version.number,
                "size": version.size,
                "aliases": aliases,
                "trust": None if grant is None else Trust.of(grant),
                "runnable": not version.draft.artifact.code_bearing or grant is not None,
            }
        )


class Versions(BaseModel):
    """Versions of a model, newest first."""

    versions: list[Version]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class Model(BaseModel):
    """A model with its newest version, short."""

    name: str = Field(examples=["fraud"])
    versions: int = Field(description="How many there are.")
    newest: int = Field(description="Number of the newest version; what follows is about it.", examples=[7])
    format: str = Field(examples=["onnx"])
    flavor: str | None
    size: int = Field(description="Bytes of all files.")
    pushed_at: float = Field(description="Unix time, seconds.")
    pushed_by: str
    aliases: dict[str, int] = Field(description="Where each points to.", examples=[{"champion": 7}])

    @classmethod
    def of(cls, summary: Summary) -> Model:
        return cls(**msgspec.structs.asdict(ModelLine.of(summary)))


class Models(BaseModel):
    """Models, sorted by name."""

    models: list[Model]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class Alias(BaseModel):
    """A name that points at a version and can be moved."""

    model: str = Field(examples=["fraud"])
    alias: str = Field(examples=["champion"])
    version: int = Field(examples=[7])
    since: float = Field(description="When it was moved there: Unix time, seconds.")
    by: str

    @classmethod
    def of(cls, model: str, version: int, move: CoreMove) -> Alias:
        return cls(model=model, alias=move.alias, version=version, since=move.at, by=move.who)


class Aliases(BaseModel):
    """Every alias of a model."""

    aliases: list[Alias]


class AliasStep(BaseModel):
    """One step of an alias; `version` null: it was removed."""

    alias: str
    version: int | None
    before: int | None
    who: str
    at: float = Field(description="Unix time, seconds.")

    @classmethod
    def of(cls, move: CoreMove) -> AliasStep:
        return cls(**msgspec.structs.asdict(move))


class AliasHistory(BaseModel):
    """Steps of a model's aliases, newest first."""

    steps: list[AliasStep]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class Change(BaseModel):
    """Who did what to what, and what it was before and after."""

    at: float = Field(description="Unix time, seconds.")
    who: str
    what: str = Field(examples=["alias.move"])
    subject: str = Field(examples=["fraud"])
    before: dict[str, str | int | None] | None
    after: dict[str, str | int | None] | None
    why: str

    @classmethod
    def of(cls, event: CoreEvent) -> Change:
        return cls(**msgspec.structs.asdict(event))


class Changes(BaseModel):
    """Changes of the state, newest first."""

    changes: list[Change]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class Deleted(BaseModel):
    """Versions that are no more; their numbers are not given again."""

    deleted: list[Version]


class Verdict(BaseModel):
    """Whether the stored files of a version have their digests."""

    version: str = Field(examples=[_REF])
    ok: bool
    problems: list[str] = Field(description="Every file that is damaged or missing.")


class Collected(BaseModel):
    """Files that no version refers to."""

    files: int
    bytes: int
    dry_run: bool


class UploadState(BaseModel):
    """How much of a file has arrived."""

    digest: str = Field(examples=[_DIGEST])
    size: int = Field(description="Bytes in all.")
    received: int = Field(description="Bytes that are here: the next piece begins there.")
    complete: bool = Field(description="It is stored, and its bytes have the digest.")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RegisterVersion(_Request):
    """Stored files that are to become a version. What the model is, is found out by the server from the files."""

    path: Text = Field(
        max_length=1024,
        description="The model among the files: a file, or the folder `model`.",
        examples=["model/fraud.onnx"],
    )
    files: list[StoredFile] = Field(min_length=1, max_length=20_000)
    source: Text = Field("", max_length=4096, description="What was pushed: a path or a URL.")
    attribute: Text | None = Field(None, max_length=255, description="Class in a Python file.")
    number: int | None = Field(None, ge=1, lt=10**18, description="Of an imported repository; null: the next free one.")
    signature: DeclaredSignature | None = None
    golden: Text | None = Field(None, description="`golden.jsonl`, when it is among the files.")
    reference: Text | None = Field(None, description="`reference.parquet`, when it is among the files.")
    git_sha: Text | None = Field(None, max_length=64)
    metrics: dict[Text, float] = Field({}, max_length=1000, examples=[{"auc": 0.93}])
    metadata: dict[Text, Text] = Field({}, max_length=1000, examples=[{"team": "risk"}])
    trusted: bool = Field(False, description="You vouch for the code that the model brings along.")
    alias: Text = Field("", description="To be pointed at the new version.", examples=["champion"])

    def registration(self) -> Registration:
        """As the registry takes it. Raises InvalidInput for a signature that is none."""
        try:
            return msgspec.convert(self.model_dump(), Registration)
        except msgspec.ValidationError as error:
            raise errors.InvalidInput(f"this cannot be registered: {error}") from error


class MoveAlias(_Request):
    """Where an alias is to point to."""

    version: Text = Field(max_length=128, description="A number, or another alias.", examples=["7", "staging"])
    why: Text = Field("", max_length=4096, description="Kept in the history.")


class Collect(_Request):
    """Which stored files may go."""

    grace_s: float = Field(
        86_400.0, ge=0, description="Keep what was stored within so many seconds: an upload may be under way."
    )
    dry_run: bool = Field(False, description="Say what would be removed.")
