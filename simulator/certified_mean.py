"""The mean that a certificate's contributions make, as its members must have stepped by it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from protocol.averaging.plan_sum import ClipTally, PlanSum, codec_of, step_terms
from protocol.averaging.replay import limited
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import Codec
from protocol.digest import Buffer


class CertifiedMean(msgspec.Struct, frozen=True, kw_only=True):
    """The mean before the outer step."""

    value: Vector
    # Whether it is the plain mean by samples: nothing was capped, clipped or limited.
    plain: bool


def certified_mean(
    certificate: OpenCertificate, parts: Mapping[int, Buffer], codec: Codec, parameters: int
) -> CertifiedMean:
    """Return the mean of a certificate's contributions.

    Args:
        certificate: the certificate.
        parts: the encoding of each contributor's whole vector, by member.
        codec: the codec of the contributions.
        parameters: the size of the vector.
    """
    mean, tally, groups = np.empty(parameters, np.float32), ClipTally(), ClipTally()
    sums = PlanSum(certificate.plan, certificate.contributors, parameters)
    sums.mean_by_plan(parts, codec, mean, tally, groups)
    results = codec_of(certificate.plan, codec).result
    results.decode(results.encode(mean), mean)
    terms = step_terms(certificate.plan, certificate.contributors)
    factor, _ = limited(lambda start, out: mean[start : start + out.size], parameters, terms.usual)
    if factor != 1.0:
        mean *= np.float32(factor)
    plain = (
        factor == 1.0
        and all(share == 1.0 for each in (tally, groups) for share in each.shares().values())
        and all(weight == certificate.plan.offers[i].samples for i, weight in sums.weights.items())
    )
    return CertifiedMean(value=mean, plain=plain)
