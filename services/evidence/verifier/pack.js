// The whole pack: the bag, then each exhibit under a policy. What the pack says of itself is held against its
// receipts; a fault names the exhibit, where it is one's, and the file.

const PACK_TYPE = "daybook.evidence/1";
const EXHIBITS = "data/exhibits/";
const AT_ONCE = 16;

const exhibitOf = (file) => {
  const found = /^data\/exhibits\/([^/]+)\//.exec(file);
  return found ? found[1].replaceAll("-", "/") : null;
};
const folderOf = (label) => `${EXHIBITS}${label.replaceAll("/", "-")}/`;
const filesOf = (listed) => [
  listed.receipt,
  listed.record,
  listed.text,
  ...(listed.disclosed ? [`${folderOf(listed.label)}disclosure.json`, `${folderOf(listed.label)}opened.txt`] : []),
];

// Checks a pack. `ownPolicy` is the reader's own policy, null to take the pack's: then nothing but consistency
// with the keys in the pack can be said. Returns what was found; `progress(done, all)` is told on the way.
async function checkPack(source, ownPolicy, now, progress) {
  const result = { faults: [], exhibits: [], keys: 0, checkpoints: 0, files: 0, variant: "", identifier: "", signer: null };
  const report = (file, text) => {
    const fault = { exhibit: exhibitOf(file), file, text };
    if (!result.faults.some((each) => each.file === file && each.text === text)) result.faults.push(fault);
  };
  const bag = new Bag(source, report);
  await bag.open();
  const state = newState(await hasEd25519(), now);
  result.ed25519 = state.ed25519;
  const index = await readIndex(bag, report);
  const packPolicy = await readPolicy(bag);
  state.policy = ownPolicy ?? packPolicy;
  result.policy = state.policy;
  result.packFingerprint = packPolicy?.fingerprint;
  if (index) {
    result.identifier = index.identifier;
    result.variant = index.variant;
    result.index = index;
    if (state.policy) await checkContents({ bag, report, state, index, result, progress });
  }
  for (const name of bag.expected.keys()) if (!bag.sizes.has(name)) await bag.read(name);
  if (!result.faults.length) bag.checkOxum();
  await checkSignature(bag, state, result, report);
  result.files = bag.sizes.size;
  result.unchecked = state.unchecked;
  return result;
}

function newState(ed25519, now) {
  const kept = new Map();
  const roots = new Map();
  const larger = new Map();
  const state = { ed25519, now: BigInt(now), unchecked: 0, notes: new Set(), policy: null };
  state.once = (key, work) => {
    if (!kept.has(key)) kept.set(key, work());
    return kept.get(key);
  };
  // Two checkpoints of one register and size that differ prove that the ledger tells two stories.
  state.see = (checkpoint) => {
    const { origin, size } = checkpoint;
    if (!roots.has(origin)) roots.set(origin, new Map());
    const sizes = roots.get(origin);
    if (!sizes.has(size)) sizes.set(size, checkpoint);
    else if (!equal(sizes.get(size).root, checkpoint.root)) fail(`the ledger has signed two histories of ${origin} at size ${size}`);
  };
  state.seen = (origin, size) => roots.get(origin)?.get(size) ?? fail(`consistency of ${origin}: no checkpoint of size ${size}`);
  // That one checkpoint is a beginning of another is proved.
  state.step = (one, other) => {
    const [first, second] = one.size < other.size ? [one, other] : [other, one];
    const from = `${first.size} ${first.origin}`;
    if (!larger.has(from)) larger.set(from, new Set());
    if (first.size > 0n && first.size < second.size) larger.get(from).add(second.size);
  };
  // Whether every checkpoint is proved to be a beginning of the largest one of its register.
  state.isOneHistory = () =>
    [...roots].every(([origin, sizes]) => {
      const reached = new Set();
      for (const size of [...sizes.keys()].sort((one, other) => (one < other ? 1 : -1))) {
        const proved = [...(larger.get(`${size} ${origin}`) ?? [])].some((each) => reached.has(each));
        if (size > 0n && reached.size && !proved) return false;
        reached.add(size);
      }
      return true;
    });
  return state;
}

async function readPolicy(bag) {
  return bag.guarded("data/policy", async () => {
    const bytes = await bag.read("data/policy");
    return bytes ? parsePolicy(bytes) : undefined;
  });
}

async function readIndex(bag, report) {
  for (const name of ["data/index.json", "data/policy", "data/report.txt", "data/hashes.txt", "data/custody.json", "verify.html"]) {
    if (!bag.files.has(name)) report(name, "missing: every pack has it");
  }
  return bag.guarded("data/index.json", async () => {
    const bytes = await bag.read("data/index.json");
    if (!bytes) return undefined;
    const index = jsonObject(bytes, "index");
    checkIndex(index);
    if (bag.info.size && bag.info.get("External-Identifier") !== index.identifier) {
      fail("its identifier is not the External-Identifier of the bag");
    }
    return index;
  });
}

function checkIndex(index) {
  if (index.type !== PACK_TYPE) fail(`not an index of type ${PACK_TYPE}`);
  const texts = ["identifier", "ledger_origin", "register", "selection", "source", "tool", "variant"];
  if (texts.some((name) => typeof index[name] !== "string")) fail("a member is missing, or no text");
  if (index.variant !== "open" && index.variant !== "closed") fail("variant is not open or closed");
  if (!Array.isArray(index.exhibits) || !index.exhibits.length || index.exhibits.length > 10_000) fail("no list of exhibits");
  if (!Array.isArray(index.keys)) fail("no list of keys");
  const names = ["label", "register", "index", "record_type", "record_id", "version", "sha256", "receipt", "record", "text", "disclosed"];
  for (const listed of index.exhibits) {
    if (!hasExactly(listed, names) || !isUint(listed.index) || typeof listed.disclosed !== "boolean") fail("an exhibit not of its shape");
    for (const name of ["label", "register", "sha256", "receipt", "record", "text"]) {
      if (typeof listed[name] !== "string") fail(`an exhibit whose ${name} is no text`);
    }
    if (listed.disclosed && index.variant === "open") fail("an open pack with a disclosure");
  }
  for (const listed of index.keys) {
    if (!hasExactly(listed, ["path", "index", "record_type"]) || typeof listed.path !== "string" || !isUint(listed.index)) {
      fail("a key not of its shape");
    }
  }
  for (const name of ["label", "receipt"]) {
    if (new Set(index.exhibits.map((listed) => listed[name])).size !== index.exhibits.length) fail(`two exhibits have one ${name}`);
  }
}

async function checkContents(check) {
  const { bag, report, index, result, progress } = check;
  const expected = new Set([...index.exhibits.flatMap(filesOf), ...index.keys.map((listed) => listed.path)]);
  let done = 0;
  const found = await inTurn(index.exhibits, async (listed) => {
    const exhibit = await checkExhibit(check, listed);
    done += 1;
    progress(done, index.exhibits.length);
    return exhibit;
  });
  result.exhibits = found.filter(Boolean);
  const keys = await inTurn(index.keys, (listed) => checkKey(check, listed));
  result.keys = keys.filter(Boolean).length;
  for (const name of bag.files.keys()) {
    if ((name.startsWith(EXHIBITS) || name.startsWith("data/keys/")) && !expected.has(name)) report(name, "the index does not list it");
  }
  await checkCheckpoints(check);
  await checkOthers(check);
}

// Works through items, several at a time, and returns the answers in order.
async function inTurn(items, work) {
  const answers = new Array(items.length);
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const place = next;
      next += 1;
      answers[place] = await work(items[place]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return answers;
}

async function checkExhibit({ bag, report, state, index }, listed) {
  const files = new Map();
  for (const path of filesOf(listed)) {
    if (!bag.files.has(path)) report(path, "missing: the index lists it");
    files.set(path, await bag.read(path));
  }
  const bytes = files.get(listed.receipt);
  if (!bytes) return undefined;
  return bag.guarded(listed.receipt, async () => {
    const verified = await verifyReceipt(state, bytes);
    for (const note of verified.notes) state.notes.add(note);
    const says = await listedFacts(listed.label, verified);
    for (const [name, value] of Object.entries(says)) {
      if (listed[name] !== value) fail(`it proves something else than the index says: ${name}`);
    }
    if (verified.ledger !== index.ledger_origin || verified.register !== index.register) fail("it is of another register");
    const record = files.get(listed.record);
    if (record && !equal(record, verified.entry.record)) report(listed.record, "not what the record in the receipt says");
    const rendered = renderRecord(verified.entry.record);
    const text = files.get(listed.text);
    if (text && !equal(text, utf8(rendered))) report(listed.text, "not what the record in the receipt says");
    const opened = listed.disclosed ? await checkDisclosure({ bag, report }, listed, verified, files) : new Map();
    return { label: listed.label, verified, rendered, opened, digest: says.sha256 };
  });
}

async function listedFacts(label, verified) {
  const text = (name) => (typeof own(verified.members, name) === "string" ? verified.members[name] : null);
  const id = text("record_id");
  const isUuid = id !== null && /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id) && !/^[0-]+$/.test(id);
  const stated = own(verified.members, "version");
  const version = Number.isInteger(stated) ? stated : null;
  const folder = folderOf(label);
  return {
    register: verified.register,
    index: Number(verified.index),
    record_type: text("type"),
    record_id: isUuid ? id : null,
    version,
    sha256: hex(await sha256(verified.entry.record)),
    receipt: isUuid && version >= 1 ? `${folder}${id}.${version}.receipt` : `${folder}entry.receipt`,
    record: `${folder}record.json`,
    text: `${folder}record.txt`,
  };
}

async function checkDisclosure({ bag, report }, listed, verified, files) {
  const [path, textPath] = filesOf(listed).slice(3);
  const bytes = files.get(path);
  const opened = bytes ? await bag.guarded(path, () => openDisclosure(bytes, verified)) : undefined;
  const text = files.get(textPath);
  if (opened && text && !equal(text, utf8(renderOpened(opened)))) report(textPath, "not what the disclosure opens");
  return opened ?? new Map();
}

async function checkKey({ bag, state, index }, listed) {
  const bytes = await bag.read(listed.path);
  if (!bytes) return undefined;
  return bag.guarded(listed.path, async () => {
    const verified = await verifyReceipt(state, bytes);
    for (const note of verified.notes) state.notes.add(note);
    const same = verified.ledger === index.ledger_origin && verified.register === "governing";
    if (!same || Number(verified.index) !== listed.index || own(verified.members, "type") !== listed.record_type) {
      fail("it proves something else than the index says");
    }
    return verified;
  });
}

async function checkCheckpoints({ bag, report, state, result }) {
  const there = new Set();
  for (const name of [...bag.files.keys()].filter((each) => each.startsWith("data/checkpoints/"))) {
    await bag.guarded(name, async () => {
      const bytes = await bag.read(name);
      if (!bytes) return;
      const note = textOf(bytes, "checkpoint");
      const { checkpoint } = await judge(state, note, note.slice(0, Math.max(0, note.indexOf("\n"))));
      const register = checkpoint.origin.slice(checkpoint.origin.indexOf("/") + 1).replaceAll("/", "--");
      const path = `data/checkpoints/${register}-${checkpoint.size}-${hex(await sha256(bytes)).slice(0, 16)}.note`;
      if (!state.notes.has(note) || name !== path) fail("no receipt of this pack has this note");
      there.add(note);
      result.checkpoints += 1;
    });
  }
  if (!result.faults.length && [...state.notes].some((note) => !there.has(note))) {
    report("data/checkpoints", "a note that a receipt has is missing");
  }
}

async function checkOthers({ bag, state, index, result }) {
  await bag.guarded("data/hashes.txt", async () => {
    const bytes = await bag.read("data/hashes.txt");
    const line = (label, path) => `${label}  ${bag.expected.get(path)?.sha256 ?? ""}  ${path}\n`;
    const schedule = index.exhibits.flatMap((listed) => filesOf(listed).map((path) => line(listed.label, path))).join("");
    if (bytes && textOf(bytes, "hash schedule") !== schedule) fail("it does not list what the manifest and the index do");
  });
  await bag.guarded("data/custody.json", async () => {
    const bytes = await bag.read("data/custody.json");
    const log = bytes && jsonObject(bytes, "custody log");
    if (log && (log.type !== "daybook.custody/1" || !Array.isArray(log.entries) || !log.entries.length)) {
      fail("custody log: no entries, or of another type");
    }
  });
  if (bag.files.has("data/consistency.json")) {
    await bag.guarded("data/consistency.json", async () => {
      const bytes = await bag.read("data/consistency.json");
      if (bytes) await checkConsistency(state, index, jsonObject(bytes, "consistency"));
    });
  }
  result.oneHistory = state.isOneHistory();
  if (bag.files.has("data/findings.json")) {
    await bag.guarded("data/findings.json", async () => {
      const bytes = await bag.read("data/findings.json");
      if (bytes) jsonObject(bytes, "findings");
    });
  }
}

async function checkConsistency(state, index, { type, proofs }) {
  if (type !== "daybook.consistency/1" || !Array.isArray(proofs) || !proofs.length) fail("of another type, or without a proof");
  for (const proof of proofs) {
    const { register, first, second, hashes } = proof ?? {};
    const strings = Array.isArray(hashes) && hashes.every((each) => typeof each === "string");
    if (!hasExactly(proof, ["register", "first", "second", "hashes"]) || typeof register !== "string" || !strings) {
      fail("a proof not of its shape");
    }
    if (!isUint(first) || !isUint(second)) fail("a proof without sizes");
    const origin = `${index.ledger_origin}/${register}`;
    const [one, other] = [state.seen(origin, BigInt(first)), state.seen(origin, BigInt(second))];
    const path = hashes.map((each) => unbase64(each, 32));
    await verifyConsistency(one.size, other.size, one.root, other.root, path);
    state.step(one, other);
  }
}

// Who packed: a note over both tag manifests, by the key that the bag names. Whose key that is, the reader knows.
async function checkSignature(bag, state, result, report) {
  const stated = bag.info.get("Packed-By-Key");
  const there = bag.files.has(SIGNATURE);
  if (stated === undefined && !there) return;
  await bag.guarded(SIGNATURE, async () => {
    if (!there) fail("missing: the pack is not signed, or its signature was taken away");
    if (stated === undefined) fail("bag-info names no Packed-By-Key");
    const key = await parseVkey(stated);
    const note = textOf(await bag.raw(SIGNATURE), "signature");
    const opened = await openNote(state, note, [key]);
    const lines = ["daybook.evidence-signature/1", result.identifier, result.variant];
    for (const [algorithm, name] of Object.entries(ALGORITHMS)) {
      const file = `tagmanifest-${algorithm}.txt`;
      lines.push(`${algorithm} ${hex(await digest(name, await bag.raw(file)))} ${file}`);
    }
    if (opened.text !== lines.map((line) => `${line}\n`).join("")) fail("the signed text is not of these tag manifests");
    if (opened.others || splitNote(note).lines.length !== 1) fail("a line beside the packer's signature");
    result.signer = stated;
  });
}
