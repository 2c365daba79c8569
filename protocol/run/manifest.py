"""The manifest: everything the members of a run agree on before they meet.

Its digest is the run id.

A manifest is written as TOML (`configs/runs/*.toml`), becomes canonical bytes (`encode`), is hashed
into the run id and signed by the run's owner. What is not in it a node may choose for itself; what
is in it nobody may change without making another run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.digest import Digest, digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, Signer, verify
from protocol.rules.versions import CURRENT_RULES, FIRST_RULES, KNOWN_RULES, MAX_RULES, refusal
from protocol.settlement.rules import Settlement
from protocol.text.toml_document import key_lines, mistakes_in, read_toml, toml_text

# A page of settings; the largest shipped one has 1 KB.
MAX_MANIFEST_BYTES = 64 << 10
# One row carries its offers in each certificate: 64 of them are about 25 KB of gossip.
MAX_GROUP_LIMIT = 64
_DOMAIN = b"hypergpu/manifest/1\0"
_PUBLISHED_DOMAIN = b"hypergpu/published-manifest/1\0"

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class ManifestPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the manifest's parts."""


class Inner(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker's own optimizer (AdamW, https://arxiv.org/abs/1711.05101) and its batch."""

    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    batch_size: Annotated[int, Meta(ge=1, le=65536)] = 8
    clip_norm: Positive = 1.0


class Outer(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nesterov momentum on the averaged pseudo-gradient (DiLoCo, https://arxiv.org/abs/2311.08105,
    whose constants are the defaults).
    """

    learning_rate: Positive = 0.7
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9


class RoundRules(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a round ends and how long each of its steps may take.

    `steps` above 0 ends local training after that many steps instead of after `seconds`
    (synchronous, for comparisons). The deadlines are what a crash that nobody notices costs; a lost
    connection is noticed at once.
    """

    seconds: Annotated[float, Meta(gt=0, le=86400)] = 60.0
    steps: Annotated[int, Meta(ge=0)] = 0
    ready_s: Positive = 3.0
    scatter_s: Positive = 20.0
    gather_s: Positive = 20.0
    vote_s: Positive = 5.0


class Group(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`min_peers` bounds who may certify; `min_group` and `max_group` how many members a row may
    have, between which the plan chooses.
    """

    min_peers: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    min_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    max_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 32


class Limits(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_samples` caps the weight of one offer, never its displacement.

    Work that no certificate counts waits: each certificate without it halves it, and after
    `max_carry_rounds` in a row it is dropped.
    """

    max_samples: Count = 1_000_000
    max_carry_rounds: Count = 3


class Admission(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may take part (`protocol/run/admission.py`). `min_reputation` is 0 to 1,000."""

    policy: Literal["open", "registered", "allowlist"] = "open"
    allowed: tuple[PeerId, ...] = ()
    min_reputation: Annotated[int, Meta(ge=0, le=1000)] = 0

    def __post_init__(self) -> None:
        if bool(self.allowed) != (self.policy == "allowlist"):
            raise ValueError(
                'admission.allowed lists peers for policy = "allowlist", and for no other'
            )


class Manifest(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training job. Field by field what `configs/runs/*.toml` says."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    task: Annotated[str, Meta(min_length=1, max_length=256)]
    task_options: dict[str, int | float | str | bool] = {}
    # By which version of the rules the members plan and average (`protocol/rules`). Bytes without
    # it mean the first version.
    rules: Annotated[int, Meta(ge=1, le=MAX_RULES)] = CURRENT_RULES
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    engine: str = "native"
    codec: str = "float32"
    chain: str = "none"
    owner: PeerId = ""  # empty: nobody may pause or stop the run
    inner: Inner = Inner()
    outer: Outer = Outer()
    round: RoundRules = RoundRules()
    group: Group = Group()
    limits: Limits = Limits()
    # Left out of the bytes where there is none, so that a run without a chain keeps its id.
    settlement: Settlement | UnsetType = UNSET
    admission: Admission | UnsetType = UNSET

    def __post_init__(self) -> None:
        for field in ("name", "task", "engine", "codec", "chain"):
            if not getattr(self, field).isprintable():
                raise ValueError(
                    f"{field} has characters that do not print: {getattr(self, field)!a}"
                )
        if (
            self.admission is not UNSET
            and self.admission.policy == "registered"
            and self.settlement is UNSET
        ):
            raise ValueError(
                'admission.policy = "registered" needs a [settlement]: bindings are signed for its contract'
            )
        if self.group.max_group < self.group.min_peers:
            raise ValueError(
                f"max_group {self.group.max_group} is below min_peers {self.group.min_peers}"
            )
        if self.group.max_group < self.group.min_group:
            raise ValueError(
                f"max_group {self.group.max_group} is below min_group {self.group.min_group}"
            )
        if self.chain == "none" and self.settlement is not UNSET:
            raise ValueError(
                'a run with a [settlement] names its chain; chain = "none" is settled nowhere'
            )


class _Version(msgspec.Struct, frozen=True):
    """The one field of a manifest that is read before all others: the version says which other
    fields there are.
    """

    rules: Annotated[int, Meta(ge=1, le=MAX_RULES)] = FIRST_RULES


class SignedManifest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The manifest as it travels: its canonical bytes and the owner's signature (empty for a run
    nobody owns).
    """

    body: bytes
    signature: bytes = b""

    @property
    def run(self) -> Digest:
        """The run id."""
        return digest(_DOMAIN, self.body)

    @property
    def published(self) -> Digest:
        """The hash of the whole record, signature included: what a session on the chain says of it."""
        return digest(_PUBLISHED_DOMAIN, msgspec.msgpack.encode(self))

    def open(self) -> Manifest:
        """The manifest inside, checked.

        A manifest of any version opens, so that a run can be read and named. Whoever takes part in
        it calls `check_rules` first.

        Raises:
            UserError: "MANIFEST" for anything that is not a manifest signed by its owner; "RULES" for a manifest of newer rules
                with fields that this program does not know.
        """
        if len(self.body) > MAX_MANIFEST_BYTES:
            raise UserError(
                "MANIFEST",
                f"The run's manifest has {len(self.body)} bytes; {MAX_MANIFEST_BYTES} are allowed.",
                exit_code=2,
            )
        rules = FIRST_RULES
        try:
            rules = msgspec.msgpack.decode(self.body, type=_Version).rules
            manifest = msgspec.structs.replace(
                msgspec.msgpack.decode(self.body, type=Manifest), rules=rules
            )
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if rules > max(KNOWN_RULES):
                raise UserError(
                    "RULES",
                    refusal(rules),
                    why=str(error),
                    fix="install a newer hypergpu",
                    exit_code=2,
                ) from None
            raise UserError(
                "MANIFEST", "The run's manifest cannot be read.", why=str(error), exit_code=2
            ) from None
        if manifest.owner and not self._is_signed_by(manifest.owner):
            raise UserError(
                "MANIFEST",
                f"The manifest of run {manifest.name!r} is not signed by its owner {manifest.owner}.",
                exit_code=2,
            )
        return manifest

    def _is_signed_by(self, owner: PeerId) -> bool:
        try:
            return verify(owner, self.signature, _DOMAIN + self.body)
        except PeerFault:
            return False  # text that is no peer id signs nothing


def seal(manifest: Manifest, owner: Signer | None = None) -> SignedManifest:
    """The manifest's bytes, signed by `owner` where the manifest names one."""
    if (owner.peer if owner else "") != manifest.owner:
        raise ValueError("a manifest is sealed by the owner it names")
    body = msgspec.msgpack.encode(manifest)
    return SignedManifest(body=body, signature=owner.sign(_DOMAIN + body) if owner else b"")


def parse_manifest(text: str, where: str) -> Manifest:
    """A manifest from TOML.

    Raises `UserError("MANIFEST")` that names every wrong key and, for an unknown one, the nearest
    known.
    """
    try:
        tables = read_toml(text)
        mistakes = mistakes_in(tables, Manifest, key_lines(text))
        if not mistakes:
            return msgspec.convert(tables, Manifest)
    except ValueError as error:
        raise UserError(
            "MANIFEST", f"{where} is not a run manifest.", why=str(error), exit_code=2
        ) from None
    fix = "correct each of them"
    why = "\n       ".join(mistake.line() for mistake in mistakes)
    if len(mistakes) == 1:
        why, meant = mistakes[0].why, mistakes[0].meant
        fix = f"did you mean {meant!r}?" if meant else ""
    raise UserError("MANIFEST", f"{where} is not a run manifest.", why=why, fix=fix, exit_code=2)


def names_rules(path: Path) -> bool:
    """Whether a file that `load_manifest` has read names the version of the rules itself."""
    return "rules" in read_toml(toml_text(path.read_bytes()))


def load_manifest(path: Path) -> Manifest:
    """Read a TOML manifest from a file. Raises `UserError("MANIFEST")`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {MAX_MANIFEST_BYTES} bytes")
        text = toml_text(raw)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            "MANIFEST",
            f"Cannot read the run file {path}.",
            why=why,
            fix="check the path after --run",
            exit_code=2,
        ) from None
    return parse_manifest(text, str(path))
