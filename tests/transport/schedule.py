"""The key schedule and the sealing of protocol §6 once more, by other libraries, against the stored vectors."""

import hashlib
import hmac
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

INIT_LEN, RESPONSE_LEN, CONFIRM_LEN = 1280, 1200, 16


def read(path):
    lines = open(path).read().splitlines()
    return {name[2:]: bytes.fromhex(value) for name, value in zip(lines[::2], lines[1::2])}


def field(message, *lengths):
    """Cuts a message into fields of these lengths."""
    fields = []
    for length in lengths:
        fields.append(message[:length])
        message = message[length:]
    assert message == b""
    return fields


def opened(suite, key, iv, datagram, index):
    """What a datagram holds, and its counter."""
    head, sealed = datagram[:16], datagram[16:]
    kind, receiver, counter = field(head, 4, 4, 8)
    assert (kind, receiver) == (b"\x10\0\0\0", index)
    nonce = bytes(a ^ b for a, b in zip(iv, bytes(4) + counter))
    return suite(key).decrypt(nonce, sealed, head), int.from_bytes(counter, "little")


def agree(vectors, name, suite, bit):
    value = lambda what: vectors[f"{name}-{what}"]
    init, response = vectors["init"], value("response")
    assert (len(init), len(response)) == (INIT_LEN, RESPONSE_LEN)
    head, index_i, boot_i, xid, _, public_i, kem_key = field(init, 4, 4, 8, 16, 32, 32, 1184)
    assert head == bytes([1, 3, 0, 0])
    assert (boot_i, kem_key) == (vectors["boot-initiator"], vectors["kem-public-key"])
    head, index_r, boot_r, xid_r, _, public_r, ciphertext, confirm_r = field(response, 4, 4, 8, 16, 32, 32, 1088, 16)
    assert head == bytes([1, bit, 0, 0])
    assert (xid_r, boot_r, ciphertext) == (xid, vectors["boot-responder"], vectors["kem-ciphertext"])

    # Each draws its X25519 secret first.
    secret_i = X25519PrivateKey.from_private_bytes(vectors["drawn-initiator"][:32])
    secret_r = X25519PrivateKey.from_private_bytes(vectors["drawn-responder"][:32])
    shared = secret_i.exchange(X25519PublicKey.from_public_bytes(public_r))
    assert shared == secret_r.exchange(X25519PublicKey.from_public_bytes(public_i))

    ends = b"".join(vectors[end] for end in ("node-initiator", "node-responder", "tunnel-initiator", "tunnel-responder"))
    transcript = hashlib.sha256(b"webmesh/kex/1\0" + vectors["network"] + ends + init + response[:-CONFIRM_LEN]).digest()
    extracted = hmac.digest(vectors["psk"], vectors["kem-shared-secret"] + shared, "sha256")
    expanded = HKDFExpand(SHA256(), 152, b"webmesh/transport/1\0" + transcript).derive(extracted)
    key_ir, iv_ir, key_ri, iv_ri, key_r, key_i = field(expanded, 32, 12, 32, 12, 32, 32)
    assert confirm_r == hmac.digest(key_r, transcript, "sha256")[:CONFIRM_LEN]
    confirm_i = hmac.digest(key_i, transcript, "sha256")[:CONFIRM_LEN]

    done, counter = opened(suite, key_ir, iv_ir, value("done-sealed"), index_r)
    assert (done, counter) == (bytes([0, 1, 0x62, 1, 32, 0, 0, 0]) + xid[:4] + xid + confirm_i, 0)
    assert opened(suite, key_ri, iv_ri, value("keepalive-sealed"), index_i) == (b"", 0)
    padded = vectors["packet"] + bytes(-len(vectors["packet"]) % 16)
    assert opened(suite, key_ir, iv_ir, value("packet-sealed-initiator"), index_r) == (padded, 1)
    assert opened(suite, key_ri, iv_ri, value("packet-sealed-responder"), index_i) == (padded, 1)
    print(name, "agrees")


def main():
    vectors = read(sys.argv[1])
    agree(vectors, "aes", AESGCM, 1)
    agree(vectors, "chacha", ChaCha20Poly1305, 2)


if __name__ == "__main__":
    main()
