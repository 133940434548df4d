// The whole pack: the bag, then each exhibit under a policy. What the pack says of itself is held against its
// receipts; a fault names the exhibit, where it is one's, and the file.

const PACK_TYPE = "daybook.evidence/1";
const EXHIBITS = "data/exhibits/";
const FOLDERS = [EXHIBITS, "data/keys/", "data/checkpoints/"];
const ALWAYS = ["data/index.json", "data/policy", "data/report.txt", "data/hashes.txt", "data/custody.json", "verify.html"];
const CONSISTENCY = "data/consistency.json";
const FINDINGS = "data/findings.json";
const GOVERNING = "data/governing.entries";
const MANIFESTS = ["manifest", "tagmanifest"].flatMap((kind) => Object.keys(ALGORITHMS).map((name) => `${kind}-${name}.txt`));
const KNOWN = new Set([...ALWAYS, ...MANIFESTS, "bagit.txt", INFO, SIGNATURE, CONSISTENCY, FINDINGS, GOVERNING]);
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
  const result = { faults: [], exhibits: [], keys: 0, fold: null, links: [], hasFindings: false, checkpoints: 0, files: 0, variant: "", identifier: "", signer: null };
  const told = new Set();
  const report = (file, text) => {
    if (told.has(`${file}\n${text}`)) return;
    told.add(`${file}\n${text}`);
    result.faults.push({ exhibit: exhibitOf(file), file, text });
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
  for (const name of bag.files.keys()) {
    if (!KNOWN.has(name) && !FOLDERS.some((each) => name.startsWith(each))) report(name, "no pack has this file");
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
  const state = { ed25519, now: BigInt(now), unchecked: 0, notes: new Set(), receipts: new Map(), policy: null };
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
  state.checkpointsOf = (origin) => [...(roots.get(origin)?.values() ?? [])];
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
    if (!bytes) return undefined;
    const policy = await parsePolicy(bytes);
    if (plainPolicy(policy) !== textOf(bytes, "policy")) fail("not spelled as packs are");
    return policy;
  });
}

async function readIndex(bag, report) {
  for (const name of ALWAYS) {
    if (!bag.files.has(name)) report(name, "missing: every pack has it");
  }
  return bag.guarded("data/index.json", async () => {
    const bytes = await bag.read("data/index.json");
    if (!bytes) return undefined;
    const index = ownObject(bytes, "index");
    checkIndex(index);
    if (bag.info.size && bag.info.get("External-Identifier") !== index.identifier) {
      fail("its identifier is not the External-Identifier of the bag");
    }
    return index;
  });
}

function checkIndex(index) {
  if (index.type !== PACK_TYPE) fail(`not an index of type ${PACK_TYPE}`);
  const members = ["type", "identifier", "variant", "ledger_origin", "register", "source", "selection", "by_index", "read_whole", "tool"];
  if (!hasExactly(index, [...members, "exhibits", "findings", "governing", "keys"])) fail("it has other members than it must have");
  if (typeof index.by_index !== "boolean") fail("by_index is not true or false");
  const whole = index.read_whole;
  if (whole !== null && (!hasExactly(whole, ["size", "root"]) || !isUint(whole.size) || typeof whole.root !== "string")) {
    fail("read_whole is not of its shape");
  }
  const texts = ["identifier", "ledger_origin", "register", "selection", "source", "tool", "variant"];
  if (texts.some((name) => typeof index[name] !== "string")) fail("a member is missing, or no text");
  if (index.variant !== "open" && index.variant !== "closed") fail("variant is not open or closed");
  if (!Array.isArray(index.exhibits) || !index.exhibits.length || index.exhibits.length > 10_000) fail("no list of exhibits");
  if (!Array.isArray(index.keys)) fail("no list of keys");
  const names = ["label", "register", "index", "record_type", "record_id", "version", "sha256", "receipt", "record", "text", "disclosed", "findings"];
  const prefix = /^([A-Za-z]{1,8})\/1$/.exec(own(index.exhibits[0], "label"))?.[1] ?? fail("exhibits are not labelled from 1 on");
  for (const [place, listed] of index.exhibits.entries()) {
    if (own(listed, "label") !== `${prefix}/${place + 1}`) fail("exhibits are not numbered from 1 on");
    if (!hasExactly(listed, names) || !isUint(listed.index) || typeof listed.disclosed !== "boolean" || !Array.isArray(listed.findings)) fail("an exhibit not of its shape");
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
  if (!Array.isArray(index.findings)) fail("no list of findings");
  const { governing } = index;
  if (governing !== null && (!hasExactly(governing, ["size", "checkpoint"]) || !isUint(governing.size) || typeof governing.checkpoint !== "string")) {
    fail("the governing register is not stated in its shape");
  }
  for (const name of ["index", "receipt"]) {
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
  await checkIdentifier(check);
  await checkGoverning(check);
  await checkCheckpoints(check);
  await checkOthers(check);
  if (!result.faults.length) await checkFindings(check); // else exhibits may be missing of which nothing was said
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
  state.receipts.set(listed.receipt, bytes);
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
    return { label: listed.label, verified, rendered, opened, digest: says.sha256, receipt: listed.receipt, authority: null };
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
    if (listed.path !== `data/keys/governing-${String(verified.index).padStart(6, "0")}.receipt`) fail("it lies in another place");
    if (!same || Number(verified.index) !== listed.index || own(verified.members, "type") !== listed.record_type) {
      fail("it proves something else than the index says");
    }
    return verified;
  });
}
