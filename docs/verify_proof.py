"""Check an inclusion proof of onrecord. Usage: verify_proof.py PROOF.json PUBLIC_KEY_FILE"""

import json
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check(holds: bool, what: str) -> None:
    _ = holds or sys.exit(f"not proven: {what}")


proof = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
name, _, key = Path(sys.argv[2]).read_text(encoding="utf-8").split("+", 2)
# 1. The key has signed the tree head (C2SP signed-note); verify() raises where it has not.
text, signature = proof["checkpoint"].rsplit("\n\n", 1)
public = Ed25519PublicKey.from_public_bytes(b64decode(key)[1:])
public.verify(b64decode(signature.split()[2])[4:], f"{text}\n".encode())
origin, size, root, signed_at = text.split("\n")
place, last = proof["leaf_index"], int(size) - 1
check(origin == name and 0 <= place <= last, "the head is of another record")
# 2. The leaf is in the tree under that head (RFC 9162, section 2.1.3.2).
node = sha256(b"\x00" + proof["leaf"].encode()).digest()
for beside in map(b64decode, proof["audit_path"]):
    on_the_left = place % 2 == 1 or place == last
    node = sha256(b"\x01" + (beside + node if on_the_left else node + beside)).digest()
    while on_the_left and place and place % 2 == 0:
        place, last = place >> 1, last >> 1
    place, last = place >> 1, last >> 1
check(last == 0 and node == b64decode(root), "the leaf is not in the tree")
# 3. Input and output are those that the leaf commits to.
leaf = json.loads(proof["leaf"])
for what in ("input", "output"):
    if proof["salt"] and proof[what] is not None:
        committed = b64decode(proof["salt"]) + f"{what}:".encode() + b64decode(proof[what])
        check(leaf[f"{what}_commitment"] == sha256(committed).hexdigest(), f"another {what}")
print(f"proven: the record had this at {signed_at.removeprefix('time ')}:", proof["leaf"])
