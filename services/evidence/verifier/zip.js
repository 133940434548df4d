// Reading a ZIP file strictly, as zip_reading.py does: fields that stand twice agree, no bytes lie between files.

const MAX_FILE = 64 * 1024 * 1024;
const MAX_TOTAL = 1024 * 1024 * 1024;
const OURS = { madeBy: (3 << 8) | 20, internal: 0, external: (0o100644 << 16) >>> 0 };

function crcTable() {
  return Uint32Array.from({ length: 256 }, (_, number) => {
    let value = number;
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
}
const CRC = crcTable();

function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

class ZipFile {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.faults = [];
    this.members = this.directory();
    let end = 0;
    let last = null;
    for (const member of [...this.members.values()].sort((one, other) => one.start - other.start)) {
      this.local(member);
      if (!this.follows(last, end, member.start)) {
        this.fault(member, "not where the file before it ends in the ZIP file");
      }
      end = member.end;
      last = member;
    }
    if (!this.follows(last, end, this.central)) {
      this.fault(last ?? { name: "" }, "does not end where the directory of the ZIP file begins");
    }
    this.checkMakers();
  }

  // Whether nothing stands between two files but the sizes of the first, where these stand behind it: programs that
  // unpack while they read take whatever stands there for files.
  follows(before, end, start) {
    if (!before || !(before.flags & 8)) return start === end;
    if (start - end !== 12 && start - end !== 16) return false;
    const { view } = this;
    if (start - end === 16 && view.getUint32(end, true) !== 0x08074b50) return false;
    return [before.crc, before.packed, before.size].every((size, place) => view.getUint32(start - 12 + 4 * place, true) === size);
  }

  fault(member, text) {
    this.faults.push({ name: member.name, text });
  }

  directory() {
    const { view } = this;
    const at = view.byteLength - 22;
    if (at < 0 || view.getUint32(at, true) !== 0x06054b50 || view.getUint16(at + 20, true)) {
      fail("the ZIP file does not end as one without a comment does: unpack it, and choose the folder");
    }
    const count = view.getUint16(at + 10, true);
    const size = view.getUint32(at + 12, true);
    this.central = view.getUint32(at + 16, true);
    if (view.getUint32(at + 4, true) || view.getUint16(at + 8, true) !== count || this.central + size !== at) {
      fail("the ZIP file: its end does not agree with its directory");
    }
    const members = new Map();
    let position = this.central;
    let total = 0;
    for (let number = 0; number < count; number += 1) {
      if (at - position < 46 || view.getUint32(position, true) !== 0x02014b50) fail("the ZIP file: its directory is damaged");
      const nameLength = view.getUint16(position + 28, true);
      const extraLength = view.getUint16(position + 30, true);
      if (view.getUint32(position + 32, true) || position + 46 + nameLength + extraLength > at) {
        fail("the ZIP file: its directory is damaged");
      }
      const nameBytes = this.bytes.subarray(position + 46, position + 46 + nameLength);
      const member = {
        name: textOf(nameBytes, "a name in the ZIP file"),
        nameBytes,
        madeBy: view.getUint16(position + 4, true),
        head: this.bytes.subarray(position + 6, position + 16),
        flags: view.getUint16(position + 8, true),
        method: view.getUint16(position + 10, true),
        crc: view.getUint32(position + 16, true),
        packed: view.getUint32(position + 20, true),
        size: view.getUint32(position + 24, true),
        extra: this.bytes.subarray(position + 46 + nameLength, position + 46 + nameLength + extraLength),
        internal: view.getUint16(position + 36, true),
        external: view.getUint32(position + 38, true),
        start: view.getUint32(position + 42, true),
      };
      if (members.has(member.name)) fail("the ZIP file: two files have one name");
      members.set(member.name, member);
      total += member.size;
      position += 46 + nameLength + extraLength;
    }
    if (position !== at) fail("the ZIP file: its directory is too long");
    if (total > MAX_TOTAL) fail("the ZIP file: too large for a browser: use daybook verify");
    return members;
  }

  local(member) {
    const { view } = this;
    const { start } = member;
    member.begin = member.end = start;
    const nameLength = start + 30 <= view.byteLength ? view.getUint16(start + 26, true) : 0;
    const begin = start + 30 + nameLength + (nameLength ? view.getUint16(start + 28, true) : 0);
    if (!nameLength || begin + member.packed > view.byteLength) {
      this.fault(member, "its header in the ZIP file is cut off");
      return;
    }
    const sizes = [14, 18, 22].map((offset) => view.getUint32(start + offset, true));
    const later = member.flags & 8 && sizes.every((size) => size === 0);
    if (
      view.getUint32(start, true) !== 0x04034b50 ||
      !equal(this.bytes.subarray(start + 4, start + 14), member.head) ||
      !(later || (sizes[0] === member.crc && sizes[1] === member.packed && sizes[2] === member.size)) ||
      !equal(this.bytes.subarray(start + 30, start + 30 + nameLength), member.nameBytes)
    ) {
      this.fault(member, "its header in the ZIP file differs from the ZIP file's directory");
    }
    const isFolder = member.name.endsWith("/");
    if (![0, isFolder ? 0o040000 : 0o100000].includes((member.external >>> 16) & 0o170000)) {
      this.fault(member, "a symbolic link, or no ordinary file");
    }
    if ([member.extra, this.bytes.subarray(start + 30 + nameLength, begin)].some(renames)) {
      this.fault(member, "it has a second name in the ZIP file");
    }
    if (isFolder && member.size) this.fault(member, "a folder with content");
    member.begin = begin;
    member.end = begin + member.packed;
  }

  checkMakers() {
    const files = [...this.members.values()].filter((member) => !member.name.endsWith("/"));
    const others = files.filter((each) => Object.entries(OURS).some(([name, value]) => each[name] !== value));
    if (others.length < files.length) {
      for (const each of others) this.fault(each, "its attributes in the ZIP file are not those of a pack");
    }
  }

  async read(name) {
    const member = this.members.get(name);
    if (member.size > MAX_FILE || member.packed > MAX_FILE) fail("too large");
    if (member.flags & ~0b100000001110) fail("encrypted, or of a kind that is not read");
    const packed = this.bytes.subarray(member.begin, member.end);
    const bytes = await unpack(member, packed);
    if (bytes.length !== member.size || crc32(bytes) !== member.crc) {
      fail("its bytes are not those that the ZIP file's directory states");
    }
    return bytes;
  }
}

// Whether an extra field gives a file another name or comment, which some programs take and others do not.
function renames(extra) {
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra[at + 2] + 256 * extra[at + 3]) {
    if ([0x7075, 0x6375].includes(extra[at] + 256 * extra[at + 1])) return true;
  }
  return false;
}

async function unpack(member, packed) {
  if (member.method === 0) return packed;
  if (member.method !== 8) fail("packed by a method that is not read");
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const bytes = new Uint8Array(member.size);
  let at = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > member.size) fail("it grows beyond the size that it states");
      bytes.set(value, at);
      at += value.length;
    }
  } catch (error) {
    await reader.cancel().catch(() => undefined);
    fail(error instanceof Fault ? error.message : "its packed bytes are damaged");
  }
  return bytes.subarray(0, at);
}
