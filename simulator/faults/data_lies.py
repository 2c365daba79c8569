"""The lies about data: what a Byzantine node contributes, sums and hands on."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from daemon.services.training.native.exchange.bulk_headers import (
    GroupSumHeader,
    ResultHeader,
    SliceHeader,
)
from protocol.averaging.reduction import GROUP_CODEC
from protocol.codec import chunk_bytes, codec_named
from protocol.digest import leaves_of, merkle_root
from protocol.identity import PeerId
from protocol.messages.envelope import open_as, sign
from protocol.messages.round import GroupSum
from simulator.faults.liar import Liar


class WrongBytes(Liar):
    """Contributes other bytes than it offered."""

    def slice(self, to: PeerId, header: SliceHeader, payload: bytes) -> tuple[SliceHeader, bytes]:
        return header, self.shifted(payload)


class WrongSum(Liar):
    """Signs a wrong sum of its slice and of its group, the same for everybody."""

    wrong_sums = True

    def result(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        wrong = self.shifted(payload)
        return self.signed_result(header, wrong), wrong

    def row(
        self, to: PeerId, header: GroupSumHeader, payload: bytes
    ) -> tuple[GroupSumHeader, bytes]:
        wrong = (np.frombuffer(payload, "<f4") + np.float32(1.0)).astype("<f4").tobytes()
        summed = open_as(GroupSum, header.summed, self.run, trusted=True)
        root = merkle_root(leaves_of(wrong, chunk_bytes(codec_named(GROUP_CODEC))))
        return GroupSumHeader(
            summed=sign(self.signer, self.run, replace(summed, root=root)), size=len(wrong)
        ), wrong


class SplitSum(Liar):
    """Signs a wrong sum of its slice for some of the members."""

    wrong_sums = True

    def result(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        if to.encode()[-1] % 3:
            return header, payload
        wrong = self.shifted(payload)
        return self.signed_result(header, wrong), wrong


class WrongDigest(Liar):
    """Sends a result, its own or another's, that does not match the signed digest."""

    def result(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        return header, self.shifted(payload)

    def handed_on(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        return header, self.shifted(payload)
