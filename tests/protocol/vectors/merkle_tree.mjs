// Writes merkle_tree.json beside it: trees made by OpenZeppelin's own package, so that the tests that compare ours need no node.
//   npm install @openzeppelin/merkle-tree@1.0.8 && node tests/protocol/vectors/merkle_tree.mjs
// Accounts and totals come from a fixed rule, so running it again writes the same bytes.
import { writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";

const account = (i) => "0x" + createHash("sha256").update(`account ${i}`).digest("hex").slice(0, 40);
const total = (i) => BigInt("0x" + createHash("sha256").update(`total ${i}`).digest("hex").slice(0, 2 + (i % 24))) + BigInt(i);

const trees = [1, 2, 3, 4, 5, 7, 8, 33].map((count) => {
  const values = Array.from({ length: count }, (_, i) => [account(i), total(i).toString()]);
  const tree = StandardMerkleTree.of(values, ["address", "uint256"]);
  return {
    root: tree.root,
    entries: [...tree.entries()].map(([i, [who, amount]]) => ({ account: who, total: amount, leaf: tree.leafHash([who, amount]), proof: tree.getProof(i) })),
  };
});
writeFileSync(new URL("merkle_tree.json", import.meta.url), JSON.stringify({ package: "@openzeppelin/merkle-tree 1.0.8", trees }, null, 1) + "\n");
