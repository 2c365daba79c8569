# pragma version 0.4.3
"""
@title Signatures over typed data
@license Apache-2.0
@notice Computes what a wallet signs (EIP-712) and recovers the account that signed it.
@dev The contract's own address and the chain's id are part of what is signed. They are read at
     each call, since this project's genesis copies deployed code to other addresses.
"""

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
# The order of secp256k1's group (SEC 2, section 2.4.1).
ORDER: constant(uint256) = (
    115_792_089_237_316_195_423_570_985_008_687_907_852_837_564_279_074_904_382_605_163_141_518_161_494_337
)
# For each signature, the negative of its s is a valid s, too. EIP-2 admits only the lower of both,
# so that no third party can change one valid signature into another.
MAX_S: constant(uint256) = ORDER // 2


@internal
@view
def _typed_data_hash(name: bytes32, version: bytes32, message: bytes32) -> bytes32:
    """
    @notice Computes the 32 bytes that a wallet signs for a message to this contract.
    @param name keccak256 of the domain's name.
    @param version keccak256 of the domain's version.
    @param message hashStruct of the message, as EIP-712 defines it.
    @return bytes32 The hash to be signed.
    """
    domain: bytes32 = keccak256(abi_encode(DOMAIN_TYPE, name, version, chain.id, self))
    return keccak256(concat(b"\x19\x01", domain, message))


@internal
@pure
def _signer_of(hash: bytes32, signature: Bytes[65]) -> address:
    """
    @notice Recovers who signed `hash`.
    @param hash What was signed.
    @param signature r, s and v: 32, 32 and 1 bytes.
    @return address The signer; the zero address for a signature of another length.
    """
    if len(signature) != 65:
        return empty(address)
    s: uint256 = convert(slice(signature, 32, 32), uint256)
    assert s <= MAX_S, "signature: s is not low"
    r: uint256 = convert(slice(signature, 0, 32), uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    # The precompile answers with the zero address where v is neither 27 nor 28, too.
    signer: address = ecrecover(hash, v, r, s)
    assert signer != empty(address), "signature: no signer"
    return signer
