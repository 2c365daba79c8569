"""The manifest: everything that the members of a run agree on before they meet.

A manifest is written as TOML (`configs/runs/*.toml`), becomes canonical bytes, is hashed into the
run id, and is signed by the run's owner. A node may choose for itself whatever is not in the
manifest. Changing what is in it makes another run.
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

MAX_MANIFEST_BYTES = 64 << 10
"""A page of settings. The largest shipped manifest has 1 KB."""

MAX_GROUP_LIMIT = 64
"""A certificate carries the offers of its members: 64 of them are about 25 KB of gossip."""

_DOMAIN = b"hypergpu/manifest/1\0"
_PUBLISHED_DOMAIN = b"hypergpu/published-manifest/1\0"

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class ManifestPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the manifest's parts."""


class Inner(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trainer's own optimizer (AdamW, https://arxiv.org/abs/1711.05101) and its batch."""

    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    batch_size: Annotated[int, Meta(ge=1, le=65536)] = 8
    clip_norm: Positive = 1.0


class Outer(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nesterov momentum on the averaged pseudo-gradient.

    The defaults are those of DiLoCo (https://arxiv.org/abs/2311.08105).
    """

    learning_rate: Positive = 0.7
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9


class RoundRules(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a round ends, and how long each of its steps may take.

    `steps` above 0 ends local training after that many steps instead of after `seconds`
    (synchronous, for comparisons). The deadlines are the cost of a crash that breaks no connection;
    nodes notice a lost connection at once.
    """

    seconds: Annotated[float, Meta(gt=0, le=86400)] = 60.0
    steps: Annotated[int, Meta(ge=0)] = 0
    ready_s: Positive = 3.0
    scatter_s: Positive = 20.0
    gather_s: Positive = 20.0
    vote_s: Positive = 5.0


class Group(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many members certify and average.

    `min_peers` is the least number of members that may certify. The plan chooses group sizes
    between `min_group` and `max_group`.
    """

    min_peers: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    min_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    max_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 32


class Limits(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_samples` caps the weight of one offer, never its displacement.

    Work that no certificate counts waits. Each certificate without it halves it, and after
    `max_carry_rounds` consecutive ones it is dropped.
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
                'admission.allowed must list peers if, and only if, policy = "allowlist"'
            )


class Manifest(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training job. Its fields are those of `configs/runs/*.toml`."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    task: Annotated[str, Meta(min_length=1, max_length=256)]
    task_options: dict[str, int | float | str | bool] = {}
    # The version of the rules by which members plan and average (`protocol/rules`). Bytes without
    # it mean the first version.
    rules: Annotated[int, Meta(ge=1, le=MAX_RULES)] = CURRENT_RULES
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    engine: str = "native"
    codec: str = "float32"
    chain: str = "none"
    # Empty if no account may pause or stop the run.
    owner: PeerId = ""
    inner: Inner = Inner()
    outer: Outer = Outer()
    round: RoundRules = RoundRules()
    group: Group = Group()
    limits: Limits = Limits()
    # Not part of the bytes if unset, so that a run without a chain keeps its id.
    settlement: Settlement | UnsetType = UNSET
    admission: Admission | UnsetType = UNSET

    def __post_init__(self) -> None:
        for field in ("name", "task", "engine", "codec", "chain"):
            if not getattr(self, field).isprintable():
                raise ValueError(f"{field} has unprintable characters: {getattr(self, field)!a}")
        if (
            self.admission is not UNSET
            and self.admission.policy == "registered"
            and self.settlement is UNSET
        ):
            raise ValueError(
                'admission.policy = "registered" needs a [settlement]: bindings are signed '
                "for its contract"
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
            raise ValueError('a run with a [settlement] must name its chain; it has chain = "none"')


class _Version(msgspec.Struct, frozen=True):
    """The one field of a manifest that is read before all others.

    The version says which other fields exist.
    """

    rules: Annotated[int, Meta(ge=1, le=MAX_RULES)] = FIRST_RULES


class SignedManifest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The manifest as it travels: canonical bytes and the owner's signature.

    The signature is empty for a run without an owner.
    """

    body: bytes
    signature: bytes = b""

    @property
    def run(self) -> Digest:
        """The run id."""
        return digest(_DOMAIN, self.body)

    @property
    def published(self) -> Digest:
        """The hash of the whole record, signature included.

        A session on the chain names the manifest by it.
        """
        return digest(_PUBLISHED_DOMAIN, msgspec.msgpack.encode(self))

    def open(self) -> Manifest:
        """Decode and check the manifest.

        A manifest of any version can be decoded, so that a run can be read and named. A program
        that takes part in the run calls `check_rules` first.

        Raises:
            UserError: "MANIFEST" for bytes that are not a manifest signed by its owner. "RULES" for
                newer rules whose fields this program does not know.
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
                (
                    f"The manifest of run {manifest.name!r} is not signed by its owner "
                    f"{manifest.owner}."
                ),
                exit_code=2,
            )
        return manifest

    def _is_signed_by(self, owner: PeerId) -> bool:
        try:
            return verify(owner, self.signature, _DOMAIN + self.body)
        except PeerFault:
            # Text that is not a peer id signs nothing.
            return False


def seal(manifest: Manifest, owner: Signer | None = None) -> SignedManifest:
    """Encode a manifest, and sign it with `owner` if the manifest names one."""
    if (owner.peer if owner else "") != manifest.owner:
        raise ValueError("only the owner that a manifest names can seal it")
    body = msgspec.msgpack.encode(manifest)
    return SignedManifest(body=body, signature=owner.sign(_DOMAIN + body) if owner else b"")


def parse_manifest(text: str, where: str) -> Manifest:
    """Parse a manifest from TOML.

    Raises `UserError("MANIFEST")` that names every wrong key and the nearest known one.
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
    """Return whether a file that `load_manifest` has read names the version of the rules."""
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
