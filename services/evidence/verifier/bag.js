// The bag: files by name, from a folder or a ZIP file, each compared with both manifests.

const ALGORITHMS = { sha256: "SHA-256", sha512: "SHA-512" };
const DECLARATION = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n";
const INFO = "bag-info.txt";
const SIGNATURE = "signature.note";
const MAX_FILES = 65_000;

const isPlainName = (name) =>
  name.length <= 400 && name.split("/").every((part) => /^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$/.test(part));

// The files of a chosen folder. Browsers give the folder's own name in front.
function folderFiles(list) {
  if (list.length > MAX_FILES) fail("too many files");
  const files = new Map();
  const faults = [];
  for (const file of list) {
    const name = file.webkitRelativePath.split("/").slice(1).join("/");
    if (!isPlainName(name)) faults.push({ file: name, text: "a name that no pack has" });
    else files.set(name, () => readFile(file));
  }
  return { files, faults };
}

async function readFile(file) {
  if (file.size > MAX_FILE) fail("too large");
  return new Uint8Array(await file.arrayBuffer());
}

async function zipFiles(file) {
  if (file.size > MAX_TOTAL) fail("too large for a browser: use daybook verify");
  const zip = new ZipFile(new Uint8Array(await file.arrayBuffer()));
  const counts = new Map();
  for (const name of zip.members.keys()) {
    const first = name.includes("/") && !name.startsWith("data/") ? `${name.split("/")[0]}/` : "";
    counts.set(first, (counts.get(first) ?? 0) + 1);
  }
  const [[base]] = counts.size ? [...counts].sort((one, other) => other[1] - one[1]) : [[""]];
  const files = new Map();
  const faults = zip.faults.map(({ name, text }) => ({ file: name.startsWith(base) ? name.slice(base.length) : name, text }));
  for (const member of zip.members.keys()) {
    if (member === base) continue;
    const name = member.slice(base.length);
    if (member.endsWith("/")) {
      if (!member.startsWith(base) || !isPlainName(name.slice(0, -1)) || zip.members.has(member.slice(0, -1))) {
        faults.push({ file: member, text: "the name of a folder that no pack has" });
      }
      continue;
    }
    if (!member.startsWith(base) || !isPlainName(name)) faults.push({ file: member, text: "a name that no pack has" });
    else files.set(name, () => zip.read(member));
  }
  return { files, faults };
}

const manifestOf = (name, algorithm) => `${name.startsWith("data/") ? "manifest" : "tagmanifest"}-${algorithm}.txt`;

// The manifests, and reading through them. Faults are handed to `report(file, text)`.
class Bag {
  constructor({ files, faults }, report) {
    this.files = files;
    this.report = report;
    this.expected = new Map();
    this.sizes = new Map();
    this.info = new Map();
    for (const { file, text } of faults) report(file, text);
  }

  async open() {
    for (const kind of ["manifest", "tagmanifest"]) {
      for (const algorithm of Object.keys(ALGORITHMS)) {
        const name = `${kind}-${algorithm}.txt`;
        await this.guarded(name, async () => this.take(name, algorithm, await this.raw(name), kind === "manifest"));
      }
    }
    this.checkNames();
    await this.guarded("bagit.txt", async () => {
      const data = await this.read("bagit.txt");
      if (data && textOf(data, "bagit.txt") !== DECLARATION) fail("not the declaration of a bag of version 1.0");
    });
    await this.guarded(INFO, async () => {
      const data = await this.read(INFO);
      if (data) this.info = parseInfo(textOf(data, INFO));
    });
  }

  async guarded(name, work) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.report(name, error.message);
      return undefined;
    }
  }

  async raw(name) {
    const read = this.files.get(name) ?? fail("missing");
    return read();
  }

  take(name, algorithm, bytes, payload) {
    const lines = textOf(bytes, name).split("\n");
    if (lines.pop() !== "") fail("does not end with a line feed");
    const width = algorithm === "sha256" ? 64 : 128;
    let before = "";
    for (const [number, line] of lines.entries()) {
      const found = /^([0-9a-f]+) {2}([!-~]+)$/.exec(line);
      if (!found || found[1].length !== width) fail(`line ${number + 1} is not a digest, two spaces and a path`);
      if (found[2] <= before) fail(`line ${number + 1} is not in order, or a path stands twice`);
      before = found[2];
      if (before.startsWith("data/") !== payload) fail(`lists ${before}, which is not for it`);
      if (!this.expected.has(before)) this.expected.set(before, {});
      this.expected.get(before)[algorithm] = found[1];
    }
  }

  checkNames() {
    const tags = new Set([...Object.keys(ALGORITHMS).map((name) => `tagmanifest-${name}.txt`), SIGNATURE]);
    for (const name of this.files.keys()) {
      if (!tags.has(name) && !this.expected.has(name)) this.report(name, "no manifest lists it: it was added");
    }
    for (const [name, digests] of this.expected) {
      const there = this.files.has(name);
      if (Object.keys(digests).length === 2) {
        if (!there) this.report(name, "missing: the manifests list it");
        continue;
      }
      for (const algorithm of Object.keys(ALGORITHMS)) {
        if (Object.hasOwn(digests, algorithm) !== there) {
          this.report(manifestOf(name, algorithm), `${there ? "does not list" : "alone lists"} ${name}`);
        }
      }
    }
    for (const name of ["bagit.txt", INFO, "manifest-sha256.txt", "manifest-sha512.txt"]) {
      if (!this.expected.has(name)) this.report(name, "the tag manifests do not list it");
    }
  }

  // The bytes of a file, once both digests hold; undefined where there is a fault, which is reported.
  read(name) {
    return this.guarded(name, async () => {
      if (!this.files.has(name)) return undefined;
      this.sizes.set(name, 0);
      const bytes = await this.raw(name);
      const digests = await Promise.all(Object.values(ALGORITHMS).map((algorithm) => digest(algorithm, bytes)));
      const expected = this.expected.get(name) ?? {};
      const wrong = Object.keys(ALGORITHMS).filter((algorithm, place) => hex(digests[place]) !== expected[algorithm]);
      if (wrong.length === 2) fail("its digests are not those in the manifests: it was changed");
      if (wrong.length) {
        // One digest fits: then it is the other manifest that was changed, and not the file.
        this.report(manifestOf(name, wrong[0]), `its line of ${name} is not the digest of that file`);
        return undefined;
      }
      this.sizes.set(name, bytes.length);
      return bytes;
    });
  }

  checkOxum() {
    const payload = [...this.sizes].filter(([name]) => name.startsWith("data/"));
    const found = `${payload.reduce((sum, [, size]) => sum + size, 0)}.${payload.length}`;
    const stated = this.info.get("Payload-Oxum");
    if (stated !== undefined && stated !== found) this.report(INFO, `Payload-Oxum is ${stated}, but there are ${found}`);
  }
}

function parseInfo(text) {
  const lines = text.split("\n");
  if (lines.pop() !== "") fail("the last line does not end with a line feed");
  const info = new Map();
  for (const line of lines) {
    const found = /^([A-Za-z-]+): (.+)$/.exec(line);
    if (!found || info.has(found[1]) || visible(found[2]) !== found[2]) {
      fail("a line is not a label, a colon and a value, cannot be printed, or stands twice");
    }
    info.set(found[1], found[2]);
  }
  return info;
}
