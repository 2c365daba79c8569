"""The manifest: everything that the members of a run agree on before they meet.

A manifest is written as TOML (`configs/runs/*.toml`), becomes canonical bytes, is hashed into the
run id, and is signed by the run's owner. A node may choose for itself whatever is not in the
manifest. Changing what is in it makes another run.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import force_setattr, replace

from protocol.digest import Digest, digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, Signer, verify
from protocol.rules.versions import (
    CURRENT_RULES,
    FIRST_RULES,
    KNOWN_RULES,
    MAX_RULES,
    RULES_4,
    refusal,
)
from protocol.run.founders import check_complete, check_founders, missing_for_start
from protocol.run.manifest_parts import (
    MAX_FOUNDERS,
    MAX_GROUP_LIMIT,
    Admission,
    AdmissionPolicy,
    Group,
    Inner,
    Limits,
    Outer,
    RoundRules,
    Trust,
)
from protocol.run.manifest_versions import RULES_3, encoded, later_fields
from protocol.settlement.rules import Settlement

__all__ = [
    "MAX_GROUP_LIMIT",
    "MAX_MANIFEST_BYTES",
    "Admission",
    "Group",
    "Inner",
    "Limits",
    "Manifest",
    "Outer",
    "RoundRules",
    "SignedManifest",
    "Trust",
    "seal",
]

MAX_MANIFEST_BYTES = 64 << 10
"""A page of settings. The largest shipped manifest has 1 KB."""

_DOMAIN = b"hypergpu/manifest/1\0"
_PUBLISHED_DOMAIN = b"hypergpu/published-manifest/1\0"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    # The peers that vote on the first certificate, each once. Only rules 4 and later have votes.
    founders: Annotated[tuple[PeerId, ...], Meta(max_length=MAX_FOUNDERS)] = ()
    trust: Trust = Trust()
    # The digest of the state with which the run begins, in hex; empty where it follows from the
    # task and the seed (`protocol/run/initial_state.py`).
    initial: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""

    def __post_init__(self) -> None:
        if self.rules < RULES_3:
            self._keep_first_rounds()
        check_founders(self)
        if self.rules < RULES_4:
            self._check_first_optimizer()
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

    @property
    def admits(self) -> AdmissionPolicy:
        """Who may take part. A run with an owner that says nothing else is by invitation."""
        if self.admission is not UNSET:
            return self.admission.policy
        return "invite" if self.rules >= RULES_4 and self.owner else "open"

    def _check_first_optimizer(self) -> None:
        """Raise `ValueError` for rules of the optimizer that only later versions have."""
        plain = Inner()
        for field in ("optimizer", "momentum", "nesterov", "accumulate"):
            if getattr(self.inner, field) != getattr(plain, field):
                raise ValueError(
                    f"rules {self.rules} have no inner.{field}; begin a run of rules {RULES_4}"
                )

    def _keep_first_rounds(self) -> None:
        """Give a run of earlier rules the rounds that all its members know.

        Its bytes have none of the fields that rules 3 added.

        Raises:
            ValueError: for a schedule, which these rules do not have.
        """
        plain = Inner()
        schedule = (self.inner.warmup_samples, self.inner.decay, self.inner.total_samples)
        if schedule != (plain.warmup_samples, plain.decay, plain.total_samples):
            raise ValueError(f"rules {self.rules} have no schedule of the learning rate")
        if self.outer.momentum_warmup_samples:
            raise ValueError(f"rules {self.rules} have no warm-up of the outer momentum")
        inner = replace(self.inner, final_factor=plain.final_factor)
        rounds = replace(self.round, overlap=False, min_seconds=self.round.seconds)
        force_setattr(self, "inner", inner)
        force_setattr(self, "round", rounds)


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
            manifest = replace(msgspec.msgpack.decode(self.body, type=Manifest), rules=rules)
            if later := later_fields(msgspec.msgpack.decode(self.body), rules):
                raise ValueError(f"rules {rules} do not have {' and '.join(later)}")
            if missing := missing_for_start(manifest):
                raise ValueError(missing)
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
    """Encode a manifest, and sign it with `owner` if the manifest names one.

    Raises `UserError("MANIFEST")` for a manifest of rules 4 that no run can begin with.
    """
    if (owner.peer if owner else "") != manifest.owner:
        raise ValueError("only the owner that a manifest names can seal it")
    check_complete(manifest)
    body = encoded(manifest, manifest.rules)
    return SignedManifest(body=body, signature=owner.sign(_DOMAIN + body) if owner else b"")
