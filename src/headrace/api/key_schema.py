"""The documents of API keys. Times are seconds since 1970 (UTC), durations seconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from headrace.api.registry_schema import Change, Text
from headrace.core.key_views import IssuedKey as CoreIssuedKey
from headrace.core.key_views import KeyStory as CoreStory
from headrace.core.key_views import KeyView
from headrace.core.keys import KeyState, Scope

Lifetime = Annotated[
    float | None, Field(gt=0, le=3e9, description="Seconds from now until it ends.", examples=[7_776_000])
]
Reason = Annotated[Text, Field(max_length=4096, description="Kept in the history.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CreateKey(_Request):
    """A key that is asked for."""

    name: Text = Field(max_length=255, description="Whose key it is.", examples=["checkout"])
    scopes: list[Scope] = Field(min_length=1, description="What it may do; they add up.", examples=[["predict"]])
    endpoints: list[Text] = Field(
        [], max_length=1000, description="What `predict` is for.", examples=[["fraud", "a/*"]]
    )
    expires_in_s: Lifetime = Field(None, description="null: it does not expire.")


class RotateKey(_Request):
    """How one key follows another."""

    grace_s: float = Field(86_400.0, ge=0, le=3e9, description="How long the key before stays live; 0 ends it at once.")
    expires_in_s: Lifetime = Field(None, description="null: as long as the key before was made for.")
    why: Reason = ""


class RevokeKey(_Request):
    why: Reason = ""


class Key(BaseModel):
    """A key, without what proves it."""

    id: str = Field(examples=["k7q2mzt4x3ab"])
    name: str
    state: KeyState
    scopes: list[Scope]
    endpoints: list[str] = Field(description="What `predict` is for.")
    created: float
    who: str = Field(description="Who made it.")
    expires: float | None
    revoked: float | None

    @classmethod
    def of(cls, view: KeyView) -> Key:
        return cls(**{name: getattr(view, name) for name in cls.model_fields})


class IssuedKey(Key):
    """A new key. `key` is its secret: it is shown here, and never again."""

    key: str = Field(examples=["hr_k7q2mzt4x3ab_…"])
    before: Key | None = Field(description="Of a rotation: the key that it follows, with the end that it has now.")

    @classmethod
    def issued(cls, made: CoreIssuedKey) -> IssuedKey:
        before = None if made.before is None else Key.of(made.before)
        return cls(**Key.of(made).model_dump(), key=made.key, before=before)


class Keys(BaseModel):
    """Oldest first, those that have ended too."""

    keys: list[Key]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class KeyStory(BaseModel):
    """The keys of a name, or one by its id, and what happened to the keys of that name; oldest first."""

    keys: list[Key]
    events: list[Change]

    @classmethod
    def of(cls, story: CoreStory) -> KeyStory:
        return cls(keys=[Key.of(view) for view in story.keys], events=[Change.of(event) for event in story.events])


class RevokedKeys(BaseModel):
    """What was ended."""

    keys: list[Key]
