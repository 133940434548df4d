// Merkle proofs (RFC 6962). Sizes and indices come from verified checkpoints; a proof contributes hashes only.

function pathLength(index, size) {
  const inner = bitLength(index ^ (size - 1n));
  return inner + bitCount(index >> BigInt(inner));
}

async function rootFromInclusion(index, size, leaf, path) {
  if (index < 0n || index >= size) fail(`inclusion: no index ${index} in a tree of size ${size}`);
  if (path.length !== pathLength(index, size)) {
    fail(`proof: ${path.length} hashes where the sizes imply ${pathLength(index, size)}`);
  }
  const inner = bitLength(index ^ (size - 1n));
  let root = leaf;
  for (const [level, sibling] of path.entries()) {
    const onTheRight = level < inner && ((index >> BigInt(level)) & 1n) === 0n;
    root = onTheRight ? await nodeHash(root, sibling) : await nodeHash(sibling, root);
  }
  return root;
}

async function verifyInclusion(index, size, leaf, path, root) {
  if (!equal(await rootFromInclusion(index, size, leaf, path), root)) {
    fail(`inclusion: the proof of index ${index} does not lead to the root at size ${size}`);
  }
}

async function verifyConsistency(first, second, firstRoot, secondRoot, proof) {
  if (first <= 0n || first > second) fail(`consistency: no proof leads from size ${first} to size ${second}`);
  if (first === second) {
    if (proof.length || !equal(firstRoot, secondRoot)) fail(`consistency: two different trees of size ${first}`);
    return;
  }
  const hashes = (first & (first - 1n)) === 0n ? [firstRoot, ...proof] : proof;
  let node = first - 1n;
  let last = second - 1n;
  while (node & 1n) {
    node >>= 1n;
    last >>= 1n;
  }
  if (hashes.length !== pathLength(node, last + 1n) + 1) fail("consistency: not the number of hashes that the sizes imply");
  let before = hashes[0];
  let after = hashes[0];
  for (const sibling of hashes.slice(1)) {
    if (node & 1n || node === last) {
      before = await nodeHash(sibling, before);
      after = await nodeHash(sibling, after);
      while (node && !(node & 1n)) {
        node >>= 1n;
        last >>= 1n;
      }
    } else {
      after = await nodeHash(after, sibling);
    }
    node >>= 1n;
    last >>= 1n;
  }
  if (!equal(before, firstRoot)) fail(`consistency: the proof does not lead to the root at size ${first}`);
  if (!equal(after, secondRoot)) fail(`consistency: the proof does not lead to the root at size ${second}`);
}
