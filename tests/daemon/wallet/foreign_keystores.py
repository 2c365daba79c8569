"""Keystores of geth and ethers, as these programs wrote them."""

from __future__ import annotations

from typing import Any

QUICK = 1 << 8
ONE = (1).to_bytes(32, "big")
ONE_ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
COMPOSED, DECOMPOSED = "Gr\u00fc\u00dfe", "Gru\u0308\u00dfe"


def crypto(
    kdf: str, parameters: dict[str, Any], iv: str, ciphertext: str, mac: str
) -> dict[str, Any]:
    return {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": iv},
        "ciphertext": ciphertext,
        "kdf": kdf,
        "kdfparams": {"dklen": 32, **parameters},
        "mac": mac,
    }


# go-ethereum, accounts/keystore/testdata/v3_test_vector.json; the first two are the format's own,
# and none names an address.
GETH = {
    "scrypt": (
        crypto(
            "scrypt",
            {
                "n": 262144,
                "r": 1,
                "p": 8,
                "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
            },
            "83dbcc02d8ccb40e466191a123791e0e",
            "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
            "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
        ),
        "testpassword",
        "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
    ),
    "pbkdf2": (
        crypto(
            "pbkdf2",
            {
                "c": 262144,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "6087dab2f9fdbbfaddc31a909735c1e6",
            "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        ),
        "testpassword",
        "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d",
    ),
    "31 bytes": (
        crypto(
            "scrypt",
            {
                "n": 2,
                "r": 8,
                "p": 1,
                "salt": "711f816911c92d649fb4c84b047915679933555030b3552c1212609b38208c63",
            },
            "e0c41130a323adc1446fc82f724bca2f",
            "9517cd5bdbe69076f9bf5057248c6c050141e970efa36ce53692d5d59a3984",
            "d5e116151c6aa71470e67a7d42c9620c75c4d23229847dcc127794f0732b0db5",
        ),
        "foo",
        "00fa7b3db73dc7dfdf8c5fbdb796d741e4488628c41fc4febd9160a866ba0f35",
    ),
    "30 bytes": (
        crypto(
            "scrypt",
            {
                "n": 2,
                "r": 8,
                "p": 1,
                "salt": "d0769e608fb86cda848065642a9c6fa046845c928175662b8e356c77f914cd3b",
            },
            "3ca92af36ad7c2cd92454c59cea5ef00",
            "108b7d34f3442fc26ab1ab90ca91476ba6bfa8c00975a49ef9051dc675aa",
            "75d0e6759f7b3cefa319c3be41680ab6beea7d8328653474bd06706d4cc67420",
        ),
        "foo",
        "000081c29e8142bb6a81bef5a92bda7a8328a5c85bb2f9542e76f9b0f94fc018",
    ),
}
# ethers 6.17 wrote this for the key 1. Its password was in decomposed Unicode form, with a circled
# one at the end.
ETHERS = {
    "address": "7e5f4552091a69125d5dfcb7b8c2659029395bdf",
    "id": "505c5104-dcbc-4e7a-9be6-8ef64bf3d40a",
    "version": 3,
    "Crypto": crypto(
        "scrypt",
        {
            "n": 256,
            "r": 8,
            "p": 1,
            "salt": "d95d9da7ca99798ccd33c1c8f2ce750feb090c675c0543dd5728de8040c38697",
        },
        "12a8eaf4372b48e63bcf6a8f6a02ec63",
        "fccc6df3bdd95fb554d5458c6dfb6d37147146ecd8854bb350a894f031ee355a",
        "a380f029ffd1abe5ca94897c3c12052a786da8ae8b39eb4aa5c98f3928abb300",
    ),
}
