// The governing register, where the pack has all of it: folded here, so that no revocation can be left out.

const MAX_GOVERNING = 10_000;
const GRACE = 60n;

// The entries of a file, each with its length before it.
function unbundle(bytes) {
  const entries = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 2 + bytes[at] * 256 + (bytes[at + 1] ?? 0);
    if (at + 2 > bytes.length || end > bytes.length) fail("an entry has not the length that it states");
    if (entries.length === MAX_GOVERNING) fail("more entries than any pack has");
    entries.push(bytes.subarray(at + 2, end));
    at = end;
  }
  return entries;
}

// The root of the first `size` entries, for each of the sizes, as a map.
async function rootsAt(entries, sizes) {
  const leaves = await Promise.all(entries.map(leafHash));
  const roots = new Map();
  const edge = [];
  for (let size = 1; size <= leaves.length; size += 1) {
    edge.push(leaves[size - 1]);
    for (let rest = size; rest % 2 === 0; rest /= 2) edge.push(await nodeHash(...edge.splice(-2)));
    if (!sizes.has(size)) continue;
    let root = edge.at(-1);
    for (const left of edge.slice(0, -1).reverse()) root = await nodeHash(left, root);
    roots.set(size, root);
  }
  return roots;
}

// Holds the entries against every governing checkpoint that was seen up to their number.
async function checkRoots(state, entries, origin, checkpoint) {
  if (BigInt(entries.length) !== checkpoint.size) fail("not as many entries as its checkpoint states");
  const seen = state.checkpointsOf(origin).filter(({ size }) => size > 0n && size <= checkpoint.size);
  const roots = await rootsAt(entries, new Set(seen.map(({ size }) => Number(size))));
  if (!equal(roots.get(entries.length), checkpoint.root)) fail("its entries are not those of its checkpoint");
  for (const each of seen) {
    if (!equal(roots.get(Number(each.size)), each.root)) {
      fail(`the ledger has signed two histories of ${origin}, at sizes ${each.size} and ${checkpoint.size}`);
    }
    state.step(each, checkpoint);
  }
}

// What the entries decide, each judged by those before it (formats.md, section 7). Throws where one is not signed
// by those who govern.
async function replay(state, entries, ledger) {
  const fold = { size: entries.length, governance: null, own: new Set(), keys: new Map(), registers: new Map() };
  for (const [index, bytes] of entries.entries()) {
    try {
      const entry = parseEntry(bytes);
      const members = membersOf(entry.record);
      if (own(members, "register") !== "governing") fail("its record is of another register");
      if (!entry.membership) {
        if (!fold.governance) fail("the first entry opens the ledger");
        checkUnsigned(own(members, "type"), "governing");
        continue;
      }
      await verifyAuthors(state, entry, `${ledger}/governing`);
      const signers = new Set(entry.membership.signatures.map(({ key }) => base64(key)));
      judgeGovernance(fold, members, signers);
      await foldRecord(fold, members, index, signers);
    } catch (error) {
      throw error instanceof Fault ? new Fault(`governing entry ${index}: ${error.message}`) : error;
    }
  }
  return fold;
}

const textMember = (members, name) => (typeof own(members, name) === "string" ? members[name] : fail(`no ${name}`));

function governanceOf(members) {
  const { keys, threshold } = own(members, "governance") ?? {};
  if (!Array.isArray(keys) || !keys.length || !Number.isInteger(threshold)) fail("no governance");
  if (threshold < 1 || threshold > keys.length || new Set(keys).size !== keys.length) fail("no such threshold");
  for (const key of keys) if (typeof key !== "string" || unbase64(key, 32).length !== 32) fail("not a key");
  return { keys, threshold };
}

function judgeGovernance({ governance }, members, signers) {
  const type = textMember(members, "type");
  if ((type === "ledger.opened/1") !== (governance === null)) fail("the first governing entry, and no other, opens the ledger");
  const brought = { "ledger.opened/1": 1, "governance.changed/1": 1 }[type] ? governanceOf(members).keys : [];
  if (type === "key.authorised/1") brought.push(textMember(members, "key"));
  if (brought.some((key) => !governance?.keys.includes(key) && !signers.has(key))) fail("not signed by a key that it names");
  if (!governance) return;
  const valid = governance.keys.filter((key) => signers.has(key)).length;
  if (valid < governance.threshold) fail(`signed by ${valid} of those who govern; ${governance.threshold} must sign`);
}

async function foldRecord(fold, members, index, signers) {
  const { type } = members;
  if (type === "ledger.opened/1") {
    for (const name of ["ledger_key", "acknowledgement_key"]) {
      fold.own.add(base64((await parseVkey(textMember(members, name))).publicKey));
    }
  }
  if (type === "ledger.opened/1" || type === "governance.changed/1") {
    fold.governance = governanceOf(members);
    for (const key of fold.governance.keys) fold.own.add(key);
  } else if (type === "register.opened/1") {
    const name = textMember(members, "name");
    if (!fold.registers.has(name)) fold.registers.set(name, { opened: index, closed: null, finalSize: null });
  } else if (type === "register.closed/1") {
    const held = fold.registers.get(textMember(members, "name"));
    if (!isUint(own(members, "size"))) fail("no final size");
    if (held && held.closed === null) Object.assign(held, { closed: index, finalSize: members.size });
  } else if (type === "key.authorised/1") {
    const [key, department] = [textMember(members, "key"), textMember(members, "department")];
    const current = [...fold.keys].filter(([, held]) => held.department === department);
    const endorsed = !current.length || current.some(([other, held]) => held.revoked === null && signers.has(other));
    if (fold.keys.has(key) || fold.own.has(key)) return; // without effect
    fold.keys.set(key, { department, authorised: index, revoked: null, suspected: null, endorsed });
  } else if (type === "key.revoked/1") {
    const held = fold.keys.get(textMember(members, "key"));
    if (held && held.revoked === null) Object.assign(held, { revoked: index, suspected: own(members, "suspected_from") ?? null });
  }
}

// What is shown of the key that signed an exhibit: a sentence, and remarks. Throws where it might not sign it.
function authorityOf(state, verified, fold) {
  const { membership, envelope } = verified.entry;
  if (!membership) return null;
  if (!fold) return { text: "not proved: that the key was not revoked. The governing register is not in this pack as a whole", remarks: [] };
  const { size } = fold;
  if (verified.register === "governing") {
    return { text: `signed by those who governed then, as far as the ${size} governing entries here reach`, remarks: [] };
  }
  const at = envelope.governing_size;
  if (at > size) {
    return { text: `not proved: that the key was not revoked. The entry was judged at governing size ${at}, and only ${size} governing entries are here`, remarks: [] };
  }
  const register = fold.registers.get(verified.register);
  const key = fold.keys.get(base64(membership.signatures[0].key));
  const judged = `judged at governing size ${at}: `;
  if (!register || register.opened >= at) fail(`${judged}the register was not open`);
  if (register.closed !== null && register.closed < at) fail(`${judged}the register was closed`);
  if (!key || key.authorised >= at) fail(`${judged}the key was not authorised`);
  if (key.revoked !== null && key.revoked < at) fail(`${judged}the key was revoked`);
  if (key.department !== verified.register.split("/")[0]) fail(`${judged}the key is of another department`);
  const remarks = [];
  const unknown = boundsOf(state.policy, fold.cosignatures, BigInt(at - 1)).notBefore;
  const { notAfter, comparable } = verified.bounds;
  if (comparable && unknown !== null && notAfter !== null && unknown > notAfter) {
    remarks.push(`It states that it was judged at governing size ${at}, which witnesses did not know yet at ${instant(unknown)}, after it had come in`);
  }
  if (!key.endorsed) remarks.push(`The key was authorised without the signature of any current key of ${key.department}`);
  if (register.finalSize !== null && verified.index >= BigInt(register.finalSize)) remarks.push("The register was closed: this entry lies beyond its end");
  if (key.suspected) remarks.push(`The key is suspected to have been compromised from ${key.suspected} on: hold that against the times of this exhibit`);
  const known = `authorised by governing entry ${key.authorised}, `;
  if (key.revoked === null) {
    const until = boundsOf(state.policy, fold.cosignatures, BigInt(size)).notBefore;
    const by = until === null ? "" : `; at ${instant(until)} witnesses knew of no further entry`;
    return { text: `${known}and not revoked up to governing size ${size}${by}`, remarks, isProved: true };
  }
  const revocation = boundsOf(state.policy, fold.cosignatures, BigInt(key.revoked));
  return { text: `${known}and REVOKED by governing entry ${key.revoked}: ${againstRevocation(verified.bounds, revocation)}`, remarks, isProved: true };
}

function againstRevocation(entry, revocation) {
  const shown = ({ notBefore, notAfter }) =>
    `${notBefore === null ? "at an unknown time" : `not before ${instant(notBefore)}`}${notAfter === null ? "" : ` and by ${instant(notAfter)}`}`;
  const known = (...times) => entry.comparable && times.every((time) => time !== null);
  let said = "which of the two came first is not proved";
  if (known(entry.notBefore, revocation.notAfter) && entry.notBefore > revocation.notAfter + GRACE) {
    said = `the entry came in more than ${GRACE} s AFTER that, on a stale view`;
  } else if (known(entry.notAfter, revocation.notBefore) && entry.notAfter < revocation.notBefore) {
    said = "the entry is provably from before that";
  }
  return `${said} (the entry came in ${shown(entry)}, the revocation ${shown(revocation)})`;
}
